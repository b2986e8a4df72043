"""Columns of a picture -> channels: the first two convolutions of an 8-bit network as its processor likes them.

ONNX Runtime's fast 8-bit convolution on the CPU takes channels by the four. A picture has three, and its first
convolution, slow for that, takes a fifth of a small network's time. But four neighbouring columns of three channels lie
in memory as one column of twelve, so a picture of a quarter of the width costs nothing, and weights can be rearranged
so that the sums stay the same: two output columns come out as one of twice the channels, which the second
convolution, rearranged as well, takes in. Products with zeros are added; all others are what they were.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

IMAGE = "image"
PLANES = "image_planes"
COLUMNS = 4
"""Of the picture, folded into one."""
HALVING = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "dilations": [1, 1], "group": 1}
"""Attributes of the convolutions that can be folded."""


def fold_columns(model: onnx.ModelProto) -> bool:
    """Fold the first two convolutions, in place, if they are 3x3 with stride 2 and nobody else sees what is between;
    False, and nothing changed, if not."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    height, width = (dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim[1:3])
    nodes = {node.name: node for node in graph.node}
    cast = nodes.get(f"{IMAGE}_cast")
    first = _only_user(model, PLANES, besides=("Shape",))
    second = first and _only_user(model, first.output[0])
    if second and second.op_type == "Relu":
        second = _only_user(model, second.output[0])
    if cast is None or first is None or second is None or width % COLUMNS:
        return False
    if not all(_halves(node) and node.input[1] in constants for node in (first, second)):
        return False
    folded = onnx.helper.make_node("Reshape", [IMAGE, f"{IMAGE}_folds"], [f"{IMAGE}_folded"], f"{IMAGE}_fold")
    shape = np.array([0, height, width // COLUMNS, 3 * COLUMNS])
    graph.initializer.append(numpy_helper.from_array(shape, f"{IMAGE}_folds"))
    cast.input[0] = folded.output[0]
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] == PLANES:
            node.input[0] = IMAGE  # of which the number is asked: the same, and no planes are made for it
    _put(constants, first.input[1], first_weights(numpy_helper.to_array(constants[first.input[1]])))
    if len(first.input) > 2:
        _put(constants, first.input[2], np.tile(numpy_helper.to_array(constants[first.input[2]]), 2))
    _put(constants, second.input[1], second_weights(numpy_helper.to_array(constants[second.input[1]])))
    for node in (first, second):
        _set(node, {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 1, 1, 0]})
    graph.node.insert(0, folded)
    del graph.value_info[:]
    return True


def first_weights(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """(O, C, 3, 3) of stride 2 -> (2 O, 4 C, 3, 2): from four columns, and the four before, two output columns.

    Output columns 2g and 2g + 1 take columns 4g - 1 to 4g + 1 and 4g + 1 to 4g + 3; channels are column by column.
    """
    count, channels = weights.shape[:2]
    folded = np.zeros((2, count, COLUMNS, channels, 3, 2), np.float32)
    for half in range(2):
        for tap in range(3):
            column = 2 * half + tap - 1
            group = 0 if column < 0 else 1
            folded[half, :, column % COLUMNS, :, :, group] = weights[:, :, :, tap]
    return folded.reshape(2 * count, COLUMNS * channels, 3, 2)


def second_weights(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """(O, C, 3, 3) of stride 2 -> (O, 2 C, 3, 2): from two columns, and the two before, the output column it was.

    Output column g takes columns 2g - 1 to 2g + 1.
    """
    count, channels = weights.shape[:2]
    folded = np.zeros((count, 2, channels, 3, 2), np.float32)
    for tap in range(3):
        column = tap - 1
        folded[:, column % 2, :, :, 0 if column < 0 else 1] = weights[:, :, :, tap]
    return folded.reshape(count, 2 * channels, 3, 2)


def take_codes(model: onnx.ModelProto) -> None:
    """A picture's bytes are the codes that a quantiser of scale 1 and zero point 0 makes of them: it, and the Cast
    before it, are taken out of the quantised model, in place."""
    graph = model.graph
    producer = {output: node for node in graph.node for output in node.output}
    quantiser = next(node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == PLANES)
    transpose = producer[PLANES]
    cast = producer[transpose.input[0]]
    transpose.input[0] = cast.input[0]
    transpose.output[0] = quantiser.output[0]
    graph.node.remove(quantiser)
    graph.node.remove(cast)
    del graph.value_info[:]


def _only_user(model: onnx.ModelProto, name: str, besides: tuple[str, ...] = ()) -> onnx.NodeProto | None:
    users = [node for node in model.graph.node if name in node.input and node.op_type not in besides]
    return users[0] if len(users) == 1 and name not in {output.name for output in model.graph.output} else None


def _halves(node: onnx.NodeProto) -> bool:
    found = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    given = all(found.get(name, wanted) == wanted for name, wanted in HALVING.items())
    return node.op_type == "Conv" and given and {"kernel_shape", "strides", "pads"} <= found.keys()


def _put(constants: dict[str, onnx.TensorProto], name: str, value: NDArray[np.float32]) -> None:
    constants[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))


def _set(node: onnx.NodeProto, values: dict[str, list[int]]) -> None:
    for attribute in node.attribute:
        if attribute.name in values:
            attribute.ints[:] = values[attribute.name]

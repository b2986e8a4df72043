"""Columns of a picture -> channels: the first convolutions of an 8-bit network as its processor likes them.

ONNX Runtime's fast 8-bit convolution on the CPU takes channels by the four. A picture has three, and its first
convolution, slow for that, takes a fifth of a small network's time. But four neighbouring columns of three channels lie
in memory as one column of twelve, so a picture of a quarter of the width costs nothing, and weights can be rearranged
so that the sums stay the same. A first convolution of stride 4 makes one column of its own of those four; one of stride
2 makes two, which come out as one of twice the channels, and a second one, rearranged as well, takes those in. Products
with zeros are added; all others are what they were.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

IMAGE = "image"
PLANES = "image_planes"
COLUMNS = 4
"""Of the picture, folded into one."""


def fold_columns(model: onnx.ModelProto) -> bool:
    """Fold the first convolutions in place, until one gives single columns again.

    A picture may have any height and width; a width that the file does not fix must be a multiple of `COLUMNS`, as
    those that a detector takes are. Return False, and change nothing, where the convolutions cannot be folded or
    another node sees what is between them.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    width = graph.input[0].type.tensor_type.shape.dim[2].dim_value  # 0 where the file does not fix it
    cast = next((node for node in graph.node if node.name == f"{IMAGE}_cast"), None)
    layers = _layers_to_fold(model)
    names = [name for node, _, _ in layers for name in node.input[1:]]
    users = Counter(name for node in graph.node for name in node.input)
    if cast is None or not layers or width % COLUMNS or any(name not in constants or users[name] > 1 for name in names):
        return False
    folded = onnx.helper.make_node("Reshape", [IMAGE, f"{IMAGE}_folds"], [f"{IMAGE}_folded"], f"{IMAGE}_fold")
    shape = np.array([0, 0, -1, 3 * COLUMNS])  # the number and the height as they come, as many columns as that leaves
    graph.initializer.append(numpy_helper.from_array(shape, f"{IMAGE}_folds"))
    cast.input[0] = folded.output[0]
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] == PLANES:
            node.input[0] = IMAGE  # of which the number is asked: the same, and no planes are made for it
    for node, stride, columns in layers:
        kernel, *bias = (numpy_helper.to_array(constants[name]) for name in node.input[1:])
        weights = folded_weights(kernel, stride, columns)
        _put(constants, node.input[1], weights)
        if bias:
            _put(constants, node.input[2], np.tile(bias[0], columns // stride))
        above, _, below, _ = _attributes(node)["pads"]
        sizes = {"kernel_shape": list(weights.shape[2:]), "strides": [stride, 1], "pads": [above, 1, below, 0]}
        for attribute in node.attribute:
            if attribute.name in sizes:
                attribute.ints[:] = sizes[attribute.name]
    graph.node.insert(0, folded)
    del graph.value_info[:]
    return True


def folded_weights(weights: NDArray[np.float32], stride: int, columns: int) -> NDArray[np.float32]:
    """(O, C, K, K) of a stride that divides `columns` -> (columns / stride * O, columns * C, K, 2): from `columns`
    columns, and as many before, those that come out. Channels are column by column."""
    count, channels, height, width = weights.shape
    together = columns // stride
    folded = np.zeros((together, count, columns, channels, height, 2), np.float32)
    for place in range(together):
        for tap in range(width):
            group, column = divmod(stride * place + tap - width // 2, columns)
            folded[place, :, column, :, :, 1 + group] = weights[:, :, :, tap]
    return folded.reshape(together * count, columns * channels, height, 2)


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


def _layers_to_fold(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, int, int]]:
    """The convolutions to fold, their strides, and how many columns are one before each; none if it cannot be done."""
    layers: list[tuple[onnx.NodeProto, int, int]] = []
    columns, node = COLUMNS, _only_user(model, PLANES, besides=("Shape",))
    while node is not None:
        if node.op_type == "Relu" and layers:
            node = _only_user(model, node.output[0])
            continue
        stride = _stride(node)
        if not stride or columns % stride:
            return []
        layers.append((node, stride, columns))
        columns //= stride
        if columns == 1:
            return layers
        node = _only_user(model, node.output[0])
    return []


def _only_user(model: onnx.ModelProto, name: str, besides: tuple[str, ...] = ()) -> onnx.NodeProto | None:
    users = [node for node in model.graph.node if name in node.input and node.op_type not in besides]
    return users[0] if len(users) == 1 and name not in {output.name for output in model.graph.output} else None


def _stride(node: onnx.NodeProto) -> int:
    """Of a convolution that can be folded, else 0: a square one around its middle, reaching less than a stride
    sideways, so that it sees nothing behind the columns that are one."""
    found = _attributes(node)
    kernel, strides, pads = (found.get(name, [0]) for name in ("kernel_shape", "strides", "pads"))
    stride, reach = strides[0], kernel[0] // 2
    plain = found.get("group", 1) == 1 and found.get("dilations", [1, 1]) == [1, 1] and kernel[0] % 2 == 1
    square = kernel == 2 * kernel[:1] and strides == 2 * strides[:1] and pads == [reach] * 4
    return stride if node.op_type == "Conv" and plain and square and 0 < reach < stride else 0


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _put(constants: dict[str, onnx.TensorProto], name: str, value: NDArray[np.float32]) -> None:
    constants[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))

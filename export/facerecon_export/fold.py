"""Columns of a picture -> channels: faster first convolutions for the 8-bit network on a CPU.

ONNX Runtime's fast 8-bit convolution on the CPU needs channels in multiples of four. A picture has three channels, so
its first convolution is slow and takes a fifth of a small network's time. Four neighbouring columns of three channels
lie in memory as one column of twelve. A view of the picture with a quarter of the width therefore costs nothing, and
the weights can be rearranged so that the sums stay the same.

A first convolution of stride 4 makes one column of these four. A first convolution of stride 2 makes two columns, which
come out as one column of twice the channels; the second convolution is rearranged to take them. The folded weights
contain additional zeros; all other products stay the same.
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
"""Number of the picture's columns that are folded into one."""


def fold_columns(model: onnx.ModelProto) -> bool:
    """Fold the first convolutions in place, until one of them gives single columns again.

    A picture may have any height and width. A width that the file does not fix must be a multiple of `COLUMNS`, as the
    inputs of a detector are. Returns False and changes nothing if the convolutions cannot be folded, or if another node
    reads a tensor between them.
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
            # this node reads the batch size, which both tensors have; the planes need not be computed for it
            node.input[0] = IMAGE
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
    """Return the kernel of a folded convolution, (columns / stride * O, columns * C, K, 2).

    `weights` is the original kernel (O, C, K, K), whose stride divides `columns`. The folded kernel reads `columns`
    columns and as many columns before them. Channels are ordered column by column.
    """
    count, channels, height, width = weights.shape
    together = columns // stride
    folded = np.zeros((together, count, columns, channels, height, 2), np.float32)
    for place in range(together):
        for tap in range(width):
            group, column = divmod(stride * place + tap - width // 2, columns)
            folded[place, :, column, :, :, 1 + group] = weights[:, :, :, tap]
    return folded.reshape(together * count, columns * channels, height, 2)


def take_codes(model: onnx.ModelProto) -> None:
    """Feed the picture's bytes to the quantised model as codes, in place.

    A quantiser of scale 1 and zero point 0 would give the same codes. The quantiser and the Cast before it are removed.
    """
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
    """Return the convolutions to fold, each with its stride and the number of columns folded before it.

    The list is empty if the convolutions cannot be folded.
    """
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
    """Return the stride of a convolution that can be folded, else 0.

    Its kernel must be square and centred, and reach less than a stride sideways. Then it reads nothing to the right of
    the folded columns.
    """
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

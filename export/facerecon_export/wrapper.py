"""ONNX graph on float planes -> the same graph on pictures (N, H, W, 3) uint8, which need no normalisation.

The change is made on the graph. In PyTorch it would leave needless shape arithmetic in the graph.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper


def take_images(model: onnx.ModelProto) -> None:
    """Put Cast and Transpose in front of the only input, (N, 3, H, W) float32, in place. The input keeps its name.

    Raises ValueError for another number of inputs, or another shape or type.
    """
    graph = model.graph
    if len(graph.input) != 1:
        raise ValueError(f"one input expected, found {[value.name for value in graph.input]}")
    planes = graph.input[0]
    name = planes.name
    batch, channels, height, width = planes.type.tensor_type.shape.dim
    dims = [d.dim_param if d.HasField("dim_param") else d.dim_value for d in (batch, height, width, channels)]
    if planes.type.tensor_type.elem_type != TensorProto.FLOAT or dims[3] != 3:
        raise ValueError(f"{name} is not (N, 3, H, W) float32 but {dims} (as N, H, W, 3)")
    for node in graph.node:
        for i, source in enumerate(node.input):
            if source == name:
                node.input[i] = f"{name}_planes"
    picture = helper.make_tensor_value_info(name, TensorProto.UINT8, dims)
    # The Cast comes first, because TensorRT takes uint8 only as an input of the network.
    cast = helper.make_node("Cast", [name], [f"{name}_float"], "image_cast", to=TensorProto.FLOAT)
    transpose = helper.make_node(
        "Transpose", [f"{name}_float"], [f"{name}_planes"], "image_transpose", perm=[0, 3, 1, 2]
    )
    graph.input[0].CopyFrom(picture)
    nodes = [cast, transpose, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)

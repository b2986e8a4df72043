"""ONNX graph -> its nodes by their part: the network, which may get smaller, and the geometry, which may not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import onnx

ONNX_RUNTIME_DOMAIN, BLOCKED = "com.microsoft", "MatMulNBits"
"""ONNX Runtime's operator for the product of floats with a matrix in blocks of codes."""
LAYERS = ("Conv", "Gemm", "MatMul", BLOCKED)
"""Operators with weights."""
JOINS = ("Add", "Concat", "MaxPool", "AveragePool", "Resize")
"""Operators between convolutions that may also compute in integers."""
HIDDEN = ("extractor.places.2.", "reconstructor.identity.0.", "reconstructor.motion.0.")
"""Beginnings of the names of the initializers of hidden layers, and of the layer that mixes channels and places. All
other layers of the reconstructor give codes, millimetres or angles."""
DECODERS = ("reconstructor.shape_basis", "reconstructor.expression_basis")
"""Initializers of the linear decoders: the displacements of all vertices in mm."""
MATRICES = ("reconstructor.identity.1.weight", "reconstructor.outputs.weight", *DECODERS)
"""Initializers of the reconstructor's large matrices, which hold more than half of a file's weights. The direct map
from features to the code is not among them: its product has a matrix as its bias, which `BLOCKED` does not take."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Names of the nodes of each part, in the order in which data flows."""

    body: tuple[str, ...]
    """Convolutions that may be quantised."""
    joins: tuple[str, ...]
    """Operators between these convolutions that may be quantised with them."""
    matrices: tuple[str, ...]
    """Gemms and MatMuls with the reconstructor's matrices. The CPU file rounds their weights, and inside the product
    the other factor. Their outputs are float32."""
    geometry: tuple[str, ...]
    """Layers that give codes, angles and weights, and all nodes after them. They stay in float32."""


def face_parts(model: onnx.ModelProto) -> Parts:
    """Return the parts of a FaceModel that `to_onnx` exported, with any backbone.

    The layers that read the last map (the weighted pooling, and the convolution before the features of places) are not
    in `body`, because everything that the face is read from goes through them.
    """
    pool = next(node for node in model.graph.node if _uses(node, ("extractor.pool.",)))
    before = _ancestors(model, pool)
    outputs = [node.name for node in model.graph.node if _uses(node, ("reconstructor.",)) and not _uses(node, HIDDEN)]
    matrices = [node.name for node in model.graph.node if node.op_type in LAYERS and _uses(node, MATRICES)]
    return Parts(
        tuple(node.name for node in model.graph.node if node.op_type == "Conv" and node.name in before),
        tuple(node.name for node in model.graph.node if node.op_type in JOINS and node.name in before),
        tuple(matrices),
        _with_descendants(model, outputs),
    )


def detector_parts(model: onnx.ModelProto) -> Parts:
    """Return the parts of a face detector: all convolutions but the last, which gives scores and boxes."""
    *body, head = (node for node in model.graph.node if node.op_type == "Conv")
    before = _ancestors(model, head)
    return Parts(
        tuple(node.name for node in body),
        tuple(node.name for node in model.graph.node if node.op_type in JOINS and node.name in before),
        (),
        _with_descendants(model, [head.name]),
    )


def _uses(node: onnx.NodeProto, beginnings: Collection[str]) -> bool:
    return any(name.startswith(tuple(beginnings)) for name in node.input)


def _ancestors(model: onnx.ModelProto, last: onnx.NodeProto) -> set[str]:
    """Return the names of the nodes that `last` depends on."""
    producer = {output: node for node in model.graph.node for output in node.output}
    found: dict[str, onnx.NodeProto] = {}
    waiting = list(_producers(last, producer))
    while waiting:
        node = waiting.pop()
        if node.name not in found:
            found[node.name] = node
            waiting.extend(_producers(node, producer))
    return set(found)


def _producers(node: onnx.NodeProto, producer: dict[str, onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    return (producer[name] for name in node.input if name in producer)


def _with_descendants(model: onnx.ModelProto, first: Iterable[str]) -> tuple[str, ...]:
    """Return these nodes and all nodes that depend on them, in graph order, which is topological."""
    starts, tainted, found = set(first), set[str](), []
    for node in model.graph.node:
        if node.name in starts or tainted.intersection(node.input):
            found.append(node.name)
            tainted.update(node.output)
    return tuple(found)

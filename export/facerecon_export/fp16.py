"""fp32 ONNX file -> the same network in half precision in the graph itself, except where float32 is needed.

Precision is part of the graph because TensorRT 11 has no other place for it, and because a file then means the same on
every provider. Inputs and outputs keep their types.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import onnx
from facerecon_rt.interrupts import importing
from facerecon_rt.providers.choice import import_onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from .graph import Parts

LARGEST = 65504.0
"""Largest finite number of float16."""
HEADROOM = 8.0
"""How many times larger than on the given crops an activation may get before it overflows."""

Feeds = Sequence[Mapping[str, NDArray[np.uint8]]]
"""Inputs of a session, one mapping per batch."""


def to_fp16(model: onnx.ModelProto, stays: Collection[str]) -> onnx.ModelProto:
    """Return the model with every node in float16 except the nodes named in `stays`, with casts between the two
    kinds."""
    import_onnxruntime()
    with importing():
        from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        # Weights too small for float16 become its smallest number, which hardly changes the sums.
        warnings.simplefilter("ignore", UserWarning)
        logging.disable(logging.WARNING)
        try:
            half: onnx.ModelProto = convert_float_to_float16(
                onnx.ModelProto.FromString(model.SerializeToString()),
                keep_io_types=True,
                op_block_list=[],
                node_block_list=sorted(stays),
            )
        finally:
            logging.disable(logging.NOTSET)
    _drop_round_trips(half)
    _sort(half)
    onnx.checker.check_model(half, full_check=True)
    return half


def stays_fp32(model: onnx.ModelProto, parts: Parts, feeds: Feeds) -> dict[str, str]:
    """Return the nodes that stay in float32, each with the reason.

    The geometry always stays, and other nodes stay if real crops bring them near the limit of float16.
    """
    reasons = dict.fromkeys(parts.geometry, "geometry")
    for name, largest in largest_values(model, feeds).items():
        if name not in reasons and not largest * HEADROOM < LARGEST:
            reasons[name] = f"values up to {largest:.0f} on real crops, of {LARGEST:.0f}"
    return reasons


def largest_values(model: onnx.ModelProto, feeds: Feeds) -> dict[str, float]:
    """Return for each node the largest magnitude of its float outputs over all feeds."""
    largest: dict[str, float] = {}
    for values in intermediate_values(model, feeds):
        for name, value in values.items():
            largest[name] = max(largest.get(name, 0.0), float(np.abs(value).max()))
    return largest


def intermediate_values(model: onnx.ModelProto, feeds: Feeds) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield for each feed the first output of every node that gives float32 or float16."""
    ort = import_onnxruntime()
    probe = onnx.shape_inference.infer_shapes(model)
    types = {value.name: value.type.tensor_type.elem_type for value in (*probe.graph.value_info, *probe.graph.output)}
    nodes = {
        node.output[0]: node.name
        for node in probe.graph.node
        if types.get(node.output[0]) in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    }
    there = {value.name for value in probe.graph.output}
    probe.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, types[name], None) for name in nodes if name not in there
    )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Fusions are off, so that every value can be read.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for feed in feeds:
        values = session.run(list(nodes), dict(feed))
        yield {name: value.astype(np.float32) for name, value in zip(nodes.values(), values, strict=True)}


def lossy_layers(model: onnx.ModelProto, half: onnx.ModelProto, feeds: Feeds) -> list[str]:
    """Return the names of nodes by the error that each adds in `half`, the worst first.

    The error is relative to the size of the node's values. The worst nodes go back to float32 if the whole file differs
    too much.
    """
    errors: dict[str, float] = {}
    for exact, rounded in zip(intermediate_values(model, feeds), intermediate_values(half, feeds), strict=True):
        for name in exact.keys() & rounded.keys():
            size = float(np.sqrt(np.mean(exact[name] ** 2))) + 1e-12
            error = float(np.sqrt(np.mean((rounded[name] - exact[name]) ** 2))) / size
            errors[name] = max(errors.get(name, 0.0), error)
    producer = {output: node.name for node in model.graph.node for output in node.output}
    added = {
        node.name: errors[node.name] - max((errors.get(producer.get(name, ""), 0.0) for name in node.input), default=0)
        for node in model.graph.node
        if node.name in errors
    }
    return sorted(added, key=lambda name: -added[name])


def store_in_half(model: onnx.ModelProto, names: tuple[str, ...]) -> None:
    """Store the float32 matrices whose names begin with one of `names` as float16 with a Cast behind them, in place.

    Runtimes fold the Cast while loading: the file has half the bytes, and the weights are float32 in use. Sums of
    millimetres and angles need float32, but weights need no more than three digits.
    """
    weights = {node.input[1] for node in model.graph.node if node.op_type in ("Gemm", "MatMul")}
    casts = []
    for tensor in list(model.graph.initializer):
        chosen = tensor.name in weights and tensor.name.startswith(names)
        if chosen and tensor.data_type == onnx.TensorProto.FLOAT:
            half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{tensor.name}_half")
            casts.append(
                onnx.helper.make_node(
                    "Cast", [half.name], [tensor.name], f"{tensor.name}_cast", to=onnx.TensorProto.FLOAT
                )
            )
            model.graph.initializer.remove(tensor)
            model.graph.initializer.append(half)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def stored_in_half(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the names of the float32 matrices that `store_in_half` has stored as float16."""
    halves = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16}
    return tuple(
        node.output[0] for node in model.graph.node if node.op_type == "Cast" and not halves.isdisjoint(node.input)
    )


def _drop_round_trips(model: onnx.ModelProto) -> None:
    """Remove casts to half precision and straight back, in place.

    The converter leaves them between neighbours that both stay in float32, and before outputs. There they would round
    values that must not be rounded.
    """
    graph = model.graph
    producer = {output: node for node in graph.node for output in node.output}
    exact: dict[str, str] = {}
    """Name of a tensor that was rounded and cast back -> name of the exact tensor."""
    for node in graph.node:
        if _casts(node, onnx.TensorProto.FLOAT):
            before = producer.get(node.input[0])
            if before is not None and _casts(before, onnx.TensorProto.FLOAT16):
                exact[node.output[0]] = before.input[0]
    outputs = {value.name for value in graph.output}
    # An output must keep its name, so the node that computes it takes the name over.
    renamed = {source: name for name, source in exact.items() if name in outputs}
    for node in graph.node:
        for i, name in enumerate(node.input):
            name = exact.get(name, name)
            node.input[i] = renamed.get(name, name)
        if node.output[0] in exact:
            node.output[0] = f"{node.output[0]}_rounded"
        for i, name in enumerate(node.output):
            node.output[i] = renamed.get(name, name)
    # Remove nodes that no other node reads.
    while True:
        read = {name for node in graph.node for name in node.input} | outputs
        kept = [node for node in graph.node if read.intersection(node.output)]
        if len(kept) == len(graph.node):
            break
        del graph.node[:]
        graph.node.extend(kept)
    del graph.value_info[:]


def _casts(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and node.attribute[0].i == kind


def _sort(model: onnx.ModelProto) -> None:
    """Sort the nodes in place, so that each node comes after its inputs. The converter appends its casts at the end."""
    ready = {value.name for value in (*model.graph.input, *model.graph.initializer)} | {""}
    waiting, ordered = list(model.graph.node), []
    while waiting:
        able = [node for node in waiting if ready.issuperset(node.input)]
        if not able:
            raise ValueError("the converted graph has a cycle")
        ordered.extend(able)
        ready.update(output for node in able for output in node.output)
        waiting = [node for node in waiting if not ready.issuperset(node.output)]
    del model.graph.node[:]
    model.graph.node.extend(ordered)

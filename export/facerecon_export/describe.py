"""ONNX file -> a description: contract, tensors, operators by their real precision, multiply-adds, size, lint."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from facerecon_rt.contract import CONTRACT_KEY
from facerecon_rt.errors import ModelRefused, first_line
from facerecon_rt.faces.detector_contract import DETECTOR_KEY
from facerecon_rt.providers.onnx_file import read_onnx, refuse_unsafe
from google.protobuf.message import DecodeError
from onnx import TensorProto

from .graph import BLOCKED, LAYERS
from .lint import lint
from .trt import PICTURE

NONSENSE = (
    DecodeError, onnx.shape_inference.InferenceError, ValueError, LookupError, TypeError, AttributeError,
    ArithmeticError, RuntimeError,
)  # fmt: skip
"""Errors that reading a changed graph raises, such as nodes without inputs or shapes that do not fit."""
CPU_ONLY = "For ONNX Runtime's CPU provider: TensorRT does not accept unsigned activations."


def describe(path: Path) -> str:
    """Return a description of an ONNX file as text.

    Raises ModelRefused for a file that is missing, not ONNX, unsafe (external data, foreign operators), or whose graph
    is invalid.
    """
    file = read_onnx(path)
    refuse_unsafe(file)
    try:
        return _described(path, file.data)
    except NONSENSE as error:
        raise ModelRefused(f"{path}: its graph is invalid ({first_line(error)}); export the model again") from error


def _described(path: Path, data: bytes) -> str:
    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(data), data_prop=True)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    lines = [f"{path}: {len(data) / 1e6:.2f} MB, sha256 {hashlib.sha256(data).hexdigest()}", ""]
    for key in (CONTRACT_KEY, DETECTOR_KEY):
        if key in metadata:
            lines += [f"{key}:", *(f"  {line}" for line in _contract_lines(metadata[key]))]
    if not {CONTRACT_KEY, DETECTOR_KEY} & metadata.keys():
        lines.append("no contract: this is neither a FaceModel nor a face detector of facerecon-rt")
    lines += ["", f"opset {model.opset_import[0].version}, IR {model.ir_version}", "inputs and outputs:"]
    for kind, values in (("in ", model.graph.input), ("out", model.graph.output)):
        lines += [f"  {kind} {value.name}: {_tensor(value)}" for value in values]
    weights = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    of_size = f" of {PICTURE}x{PICTURE}" if free_size(model) else ""
    work = f"{multiply_adds(model) / 1e6:.1f} M multiply-adds per picture{of_size}"
    lines += ["", f"{work}, {weights / 1e6:.2f} M constants"]
    lines += ["layers by the precision that they compute in:"]
    for (operator, precision), count in sorted(Counter(_precisions(model)).items()):
        lines.append(f"  {operator:<14} {precision:<6} {count:>4}")
    others = Counter(node.op_type for node in model.graph.node if node.op_type not in LAYERS)
    lines.append("other operators: " + ", ".join(f"{name} {count}" for name, count in sorted(others.items())))
    contracts = [_contract(metadata[key]) for key in (CONTRACT_KEY, DETECTOR_KEY) if key in metadata]
    if any(contract.get("target") == "cpu" for contract in contracts):
        return "\n".join([*lines, "", CPU_ONLY])
    findings = lint(model)
    lines += ["", "ready for TensorRT" if not findings else "for TensorRT:", *(f"  {one}" for one in findings)]
    return "\n".join(lines)


def _contract(text: str) -> dict[str, Any]:
    """Return a contract as a mapping, also if the runtime would refuse it. Raises ModelRefused for other values."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"its contract is not JSON ({str(error)[:100]}); export the model again") from error
    if not isinstance(value, dict):
        raise ModelRefused("its contract is not a JSON object; export the model again")
    return value


def _contract_lines(text: str) -> list[str]:
    lines = []
    for name, entry in _contract(text).items():
        kind = "names" if isinstance(entry, list) and entry and isinstance(entry[0], str) else "numbers"
        shown = f"{len(entry)} {kind}" if isinstance(entry, list) and len(entry) > 10 else entry
        lines.append(f"{name}: {', '.join(map(str, shown)) if isinstance(shown, list) else shown}")
    return lines


def _tensor(value: onnx.ValueInfoProto) -> str:
    kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    dims = [d.dim_param or str(d.dim_value or "?") for d in value.type.tensor_type.shape.dim]
    return f"{kind} ({', '.join(dims)})"


def _precisions(model: onnx.ModelProto) -> list[tuple[str, str]]:
    """Return (operator, precision) of every layer with weights.

    A layer is int8 if its data and weights come from DequantizeLinear nodes, or are rounded inside the operator.
    """
    producer = {output: node for node in model.graph.node for output in node.output}
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)
    }
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type in LAYERS:
            before = [producer.get(name) for name in node.input[:2]]
            quantised = all(one is not None and one.op_type == "DequantizeLinear" for one in before)
            if quantised or node.op_type == BLOCKED:
                found.append((node.op_type, "int8"))
            else:
                half = types.get(node.output[0]) == TensorProto.FLOAT16
                found.append((node.op_type, "fp16" if half else "fp32"))
    return found


def multiply_adds(model: onnx.ModelProto) -> int:
    """Return the multiply-adds of all layers with weights, for one picture.

    A picture of any size counts with `PICTURE` pixels a side, and a fixed batch is divided by its size.
    """
    model = _sized(model)
    batch = int(model.graph.input[0].type.tensor_type.shape.dim[0].dim_value)
    shapes = {
        value.name: [d.dim_value or batch for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.value_info, *model.graph.output)
    }
    dims = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:  # quantised weights come from a DequantizeLinear, stored ones from a Cast
        if node.op_type in ("DequantizeLinear", "Cast") and node.input[0] in dims:
            dims[node.output[0]] = dims[node.input[0]]
    total = 0
    for node in model.graph.node:
        if node.op_type == BLOCKED:  # an operator of ONNX Runtime; ONNX does not infer its shapes
            given = {attribute.name: attribute.i for attribute in node.attribute}
            total += batch * given["K"] * given["N"]
        elif node.op_type == "Conv" and node.output[0] in shapes and node.input[1] in dims:
            total += math.prod(shapes[node.output[0]]) * math.prod(dims[node.input[1]][1:])
        elif node.op_type in LAYERS and node.input[1] in dims:
            rows = shapes.get(node.output[0], [batch])[:-1]
            total += math.prod(rows) * math.prod(dims[node.input[1]])
    return total // batch


def free_size(model: onnx.ModelProto) -> bool:
    """Return whether the pictures of a file may have any size."""
    return any(not d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:3])


def _sized(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with inferred shapes for a batch of one, or its fixed batch, of pictures of one size."""
    sized = onnx.ModelProto.FromString(model.SerializeToString())
    del sized.graph.value_info[:]
    for axis, dimension in enumerate(sized.graph.input[0].type.tensor_type.shape.dim):
        if not dimension.dim_value:
            dimension.dim_value = PICTURE if axis else 1
    return onnx.shape_inference.infer_shapes(sized, data_prop=True)

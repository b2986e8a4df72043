"""ONNX file -> findings that would keep TensorRT from building a good engine. TensorRT itself is not needed.

The rules come from NVIDIA's documentation: TensorRT Developer Guide, "Working with Quantized Types" (explicit
quantisation, zero points, per-channel weights, places of Q/DQ pairs), and the operator table of the onnx-tensorrt
parser.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from .graph import LAYERS

OPSETS = range(13, 23)
"""Opsets that TensorRT reads. Per-axis Q/DQ came with 13; the parsers of TensorRT 10 and 11 read up to 22."""

_OPERATORS = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu Clip Concat
Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal
Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool
GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization GRU HardSigmoid HardSwish Identity If ImageScaler
InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization
LpPool LRN LSTM MatMul Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression NonZero Not
OneHot Or Pad ParametricSoftplus Pow PRelu QuantizeLinear RandomNormal RandomNormalLike RandomUniform
RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RNN Round ScaledTanh Scan ScatterElements
ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze
Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
SUPPORTED = frozenset(_OPERATORS.split())
"""Operators of the onnx-tensorrt parser (its docs/operators.md)."""

TYPES = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8, TensorProto.INT32}
    | {TensorProto.INT64, TensorProto.BOOL}
)
"""Types of tensors inside a network. A uint8 input is allowed, but must be cast at once."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem that TensorRT would have with a file."""

    level: Literal["error", "warning"]
    """An error: the parser refuses the file or changes its meaning. A warning: the engine is slower than it could
    be."""
    where: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.level}: {self.where}: {self.what}; {self.fix}"


def lint(model: onnx.ModelProto) -> list[Finding]:
    """Return the findings about a model, errors first. The list is empty for a file that is ready."""
    # Shapes are inferred strictly and types are checked, because the strongly typed networks of TensorRT 11 are strict.
    typed = onnx.shape_inference.infer_shapes(model, check_type=True, data_prop=True)
    checks = (_opset, _operators, _types, _shapes, _external, _quantisation, _biases, _weights_alone)
    findings = [finding for check in checks for finding in check(typed)]
    return sorted(findings, key=lambda finding: finding.level)


def _opset(model: onnx.ModelProto) -> Iterator[Finding]:
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version not in OPSETS:
            fix = "export again without --opset"
            yield Finding("error", "file", f"opset {entry.version} is not in {OPSETS[0]}..{OPSETS[-1]}", fix)


def _operators(model: onnx.ModelProto) -> Iterator[Finding]:
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            yield Finding("error", node.name, f"operator {node.domain}.{node.op_type}", "use only operators of ONNX")
        elif node.op_type not in SUPPORTED:
            yield Finding(
                "error", node.name, f"TensorRT has no operator {node.op_type}", "replace it by other operators"
            )


def _types(model: onnx.ModelProto) -> Iterator[Finding]:
    inputs = {value.name for value in model.graph.input}
    for value in (*model.graph.value_info, *model.graph.output):
        kind = value.type.tensor_type.elem_type
        if kind not in TYPES:
            name = TensorProto.DataType.Name(kind).lower()
            yield Finding("error", value.name, f"a tensor of type {name}", "cast it, or quantise to signed int8")
    for tensor in model.graph.initializer:
        if tensor.data_type not in TYPES:
            name = TensorProto.DataType.Name(tensor.data_type).lower()
            yield Finding("error", tensor.name, f"a constant of type {name}", "cast it, or quantise to signed int8")
    for node in model.graph.node:
        pictures = inputs.intersection(node.input)
        if pictures and node.op_type != "Cast":
            kinds = {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
            for name in pictures:
                if kinds[name] == TensorProto.UINT8:
                    yield Finding("error", node.name, f"{node.op_type} of the uint8 input {name}", "put a Cast first")


def _shapes(model: onnx.ModelProto) -> Iterator[Finding]:
    for value in model.graph.input:
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if axis and not dimension.dim_value:
                what = f"dimension {axis} ({dimension.dim_param or 'unnamed'}) is dynamic"
                yield Finding("warning", value.name, what, "fix its size or give profiles; only the batch may vary")


def _external(model: onnx.ModelProto) -> Iterator[Finding]:
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            yield Finding("error", tensor.name, "its values are in another file", "export into one self-contained file")


def _quantisation(model: onnx.ModelProto) -> Iterator[Finding]:
    """Yield findings about zero points, scales and pairs of Q and DQ."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    consumers = _consumers(model)
    producer = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if len(node.input) > 2 and node.input[2] and zero is None:
            yield Finding("error", node.name, "its zero point is not constant", "quantise statically")
        elif zero is None or zero.data_type not in (TensorProto.INT8, TensorProto.INT32):
            kind = TensorProto.DataType.Name(zero.data_type).lower() if zero is not None else "uint8 (by default)"
            yield Finding("error", node.name, f"quantised to {kind}", "quantise to signed int8 for TensorRT")
        elif np.any(numpy_helper.to_array(zero)):
            yield Finding("error", node.name, "its zero point is not 0", "quantise symmetrically for TensorRT")
        scale = constants.get(node.input[1])
        if scale is None:
            yield Finding("error", node.name, "its scale is not constant", "quantise statically")
        elif not np.all(_positive(numpy_helper.to_array(scale))):
            yield Finding("error", node.name, "a scale is not a positive number", "calibrate on real photographs")
        elif scale.dims and node.input[0] not in constants and np.prod(scale.dims) > 1:
            yield Finding(
                "error", node.name, "an activation is quantised per channel", "quantise only weights per channel"
            )
        if node.op_type == "QuantizeLinear":
            after = consumers.get(node.output[0], [])
            if any(user.op_type != "DequantizeLinear" for user in after):
                yield Finding("error", node.name, "a Q without its DQ", "keep Q and DQ in pairs")
        elif node.input[0] not in constants and producer[node.input[0]].op_type != "QuantizeLinear":
            yield Finding("error", node.name, "a DQ without its Q", "keep Q and DQ in pairs")


def _positive(scale: NDArray[np.generic]) -> NDArray[np.bool_]:
    values = scale.astype(np.float64)
    return np.asarray(np.isfinite(values) & (values > 0))


def _biases(model: onnx.ModelProto) -> Iterator[Finding]:
    producer = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.op_type in LAYERS and len(node.input) > 2:
            before = producer.get(node.input[2])
            if before is not None and before.op_type == "DequantizeLinear":
                yield Finding("error", node.name, "its bias is quantised", "leave biases in float (QuantizeBias=False)")


def _weights_alone(model: onnx.ModelProto) -> Iterator[Finding]:
    """Yield findings about layers with only one dequantised input: TensorRT runs them in float."""
    producer = {output: node for node in model.graph.node for output in node.output}

    def dequantised(name: str) -> bool:
        return name in producer and producer[name].op_type == "DequantizeLinear"

    for node in model.graph.node:
        if node.op_type in LAYERS and dequantised(node.input[0]) != dequantised(node.input[1]):
            which = "weights" if dequantised(node.input[1]) else "data"
            yield Finding("warning", node.name, f"only its {which} are quantised", "quantise both, or neither")


def _consumers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found

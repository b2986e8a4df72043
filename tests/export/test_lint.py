"""Graphs with problems for TensorRT, made on purpose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from facerecon_export import trt
from facerecon_export.lint import Finding, lint
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from tests.export.conftest import SmallExport


def quantised(
    *, kind: type[np.generic] = np.int8, zero: int = 0, scale: float = 0.1, pair: bool = True, opset: int = 20
) -> onnx.ModelProto:
    """Make a graph x -> Q -> DQ -> MatMul with dequantised weights."""
    constants = {
        "scale": np.float32(scale),
        "zero": np.array(zero, kind),
        "w": np.ones((4, 4), np.int8),
        "w_scale": np.ones(4, np.float32),
        "w_zero": np.zeros(4, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], "d"),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["wd"], "wd", axis=1),
        helper.make_node("MatMul", ["d" if pair else "x", "wd"], ["y"], "product"),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])]
    if not pair:
        nodes[1] = helper.make_node("Cast", ["q"], ["d"], "cast", to=TensorProto.FLOAT)
        outputs.append(helper.make_tensor_value_info("d", TensorProto.FLOAT, ["N", 4]))
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def whats(findings: list[Finding]) -> str:
    return "; ".join(map(str, findings))


def test_a_symmetric_pair_is_ready() -> None:
    assert lint(quantised()) == []


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (quantised(kind=np.uint8), "error: q: quantised to uint8; quantise to signed int8"),
        (quantised(zero=3), "error: q: its zero point is not 0"),
        (quantised(scale=0), "error: q: a scale is not a positive number"),
        (quantised(scale=float("nan")), "a scale is not a positive number"),
        (quantised(pair=False), "error: q: a Q without its DQ"),
        (quantised(pair=False), "warning: product: only its weights are quantised"),
        (
            quantised(opset=11),
            "error: file: opset 11 is not in 13..22; export again without --opset",
        ),
    ],
)
def test_what_is_wrong_is_found(model: onnx.ModelProto, expected: str) -> None:
    assert expected in whats(lint(model))


def test_errors_come_before_warnings() -> None:
    levels = [finding.level for finding in lint(quantised(pair=False))]
    assert levels == sorted(levels)
    assert set(levels) == {"error", "warning"}


def simple(
    node: onnx.NodeProto, kind: int = TensorProto.FLOAT, dims: tuple[str | int, ...] = ("N", 4)
) -> onnx.ModelProto:
    graph = helper.make_graph(
        [node],
        "simple",
        [helper.make_tensor_value_info("x", kind, list(dims))],
        [helper.make_tensor_value_info("y", kind, list(dims))],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def test_operators_types_and_dimensions_that_tensorrt_lacks_are_named() -> None:
    foreign = helper.make_node("FusedConv", ["x"], ["y"], "foreign", domain="com.microsoft")
    assert "operator com.microsoft.FusedConv" in whats(lint(simple(foreign)))
    assert "TensorRT has no operator Bernoulli" in whats(lint(simple(helper.make_node("Bernoulli", ["x"], ["y"]))))
    relu = helper.make_node("Relu", ["x"], ["y"], "relu")
    assert "a tensor of type double" in whats(lint(simple(relu, TensorProto.DOUBLE)))
    assert "warning: x: dimension 1 (W) is dynamic" in whats(lint(simple(relu, dims=("N", "W"))))
    picture = helper.make_node("Transpose", ["x"], ["y"], "turn")
    assert "Transpose of the uint8 input x; put a Cast first" in whats(lint(simple(picture, TensorProto.UINT8)))


def test_values_in_another_file_are_named() -> None:
    model = quantised()
    model.graph.initializer[2].data_location = TensorProto.EXTERNAL
    assert "error: w: its values are in another file" in whats(lint(model))


def test_our_files_are_ready_and_the_cpu_file_is_not(exported: SmallExport) -> None:
    for name in ("small.onnx", "small.fp16.onnx", "small.int8.onnx"):
        assert exported.files[name].findings == [], name
    found = whats(exported.files["small.int8-cpu.onnx"].findings)
    assert "quantised to uint8" in found
    assert "its bias is quantised" in found


@pytest.mark.skipif(not trt.installed(), reason="TensorRT-RTX is not installed: pip install 'facerecon-rt[trtcheck]'")
def test_tensorrts_own_parser_says_the_same(exported: SmallExport) -> None:
    for name in ("small.onnx", "small.fp16.onnx", "small.int8.onnx"):
        verdict = trt.try_build(exported.folder / name)
        assert verdict.built, f"{name}: {verdict}"
    refused = trt.try_build(exported.folder / "small.int8-cpu.onnx")
    assert not refused.built
    assert refused.message


def test_build_commands_name_profiles_only_where_the_batch_is_free() -> None:
    free = trt.build_commands(Path("out/face.int8.onnx"), 128, 0)
    assert len(free) == 3
    assert free[2].endswith("facerecon-rt build --model face.int8.onnx")  # needs no detector beside the file
    detector = trt.build_commands(Path("face_detector.onnx"), None, 0)
    assert ["trtexec" in command for command in detector] == [True, True]
    assert "--stronglyTyped --minShapes=image:1x128x128x3 --optShapes=image:4x128x128x3" in free[0]
    assert "stronglyTyped" not in free[1]
    assert "--saveEngine=face.int8.engine" in free[1]
    assert "Shapes" not in "".join(trt.build_commands(Path("face.onnx"), 128, 4))

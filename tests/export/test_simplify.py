"""A graph with something to fold and something to hide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from facerecon_export.simplify import simplify
from onnx import ModelProto, TensorProto, helper


def model_with_notes() -> ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])
    half = onnx.numpy_helper.from_array(np.full(2, 0.5, np.float32), "half")
    nodes = [
        helper.make_node("Add", ["half", "half"], ["one"]),
        helper.make_node("Mul", ["x", "one"], ["y"], doc_string="File /home/someone/model.py"),
    ]
    nodes[1].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File /home/someone/model.py, line 1")
    graph = helper.make_graph(nodes, "g", [x], [y], [half])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_constants_are_folded_and_notes_removed(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model_with_notes(), path)
    simplify(path)
    assert "Add" not in [node.op_type for node in onnx.load(path).graph.node]
    assert b"someone" not in path.read_bytes()


def test_metadata_of_the_model_survives(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = model_with_notes()
    helper.set_model_props(model, {"facerecon.contract": "{}"})
    onnx.save(model, path)
    simplify(path)
    assert {entry.key: entry.value for entry in onnx.load(path).metadata_props} == {"facerecon.contract": "{}"}


def test_an_output_that_cannot_have_its_declared_shape_is_found(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = model_with_notes()
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 3
    onnx.save(model, path)
    with pytest.raises((onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, RuntimeError)):
        simplify(path)

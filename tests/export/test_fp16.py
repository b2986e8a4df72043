"""Half precision in the graph: which nodes have it, which do not, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from facerecon_export.crops import synthetic_crops
from facerecon_export.fp16 import LARGEST, intermediate_values, largest_values, lossy_layers, stays_fp32, to_fp16
from facerecon_export.graph import face_parts
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from tests.export.conftest import SmallExport

FEEDS = [{"image": synthetic_crops(64, 4)}]


def test_inputs_and_outputs_keep_their_types(exported: SmallExport) -> None:
    graph = onnx.load(exported.folder / "small.fp16.onnx").graph
    assert graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert {value.type.tensor_type.elem_type for value in graph.output} == {TensorProto.FLOAT}


def test_convolutions_compute_in_half_and_decoders_do_not(exported: SmallExport) -> None:
    model = onnx.load(exported.folder / "small.fp16.onnx")
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    convolutions = [types[node.input[1]] for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions.count(TensorProto.FLOAT16) >= len(convolutions) - 1
    assert types["reconstructor.mean"] == TensorProto.FLOAT
    casts = {node.output[0]: node for node in model.graph.node if node.op_type == "Cast"}
    for name in ("reconstructor.shape_basis", "reconstructor.outputs.weight"):  # half in the file alone
        assert types[f"{name}_half"] == TensorProto.FLOAT16, name
        assert casts[name].attribute[0].i == TensorProto.FLOAT, name
        assert any(name in node.input for node in model.graph.node if node.op_type in ("Gemm", "MatMul")), name
    assert set(exported.files["small.fp16.onnx"].float_layers.values()) >= {"geometry"}


def test_the_geometry_is_every_output_layer_and_what_follows(exported: SmallExport) -> None:
    model = onnx.load(exported.onnx)
    geometry = set(face_parts(model).geometry)
    for node in model.graph.node:
        if any(output.name in node.output for output in model.graph.output):
            assert node.name in geometry
        if node.op_type == "Conv":
            assert node.name not in geometry
    hidden = [node for node in model.graph.node if any("identity.0" in name for name in node.input)]
    assert hidden
    assert not geometry.intersection(node.name for node in hidden)


def test_layers_near_the_end_of_the_range_stay_in_float32_and_say_why(exported: SmallExport) -> None:
    model = onnx.load(exported.onnx)
    parts = face_parts(model)
    weight = next(
        tensor for tensor in model.graph.initializer if "backbone.1.0" in tensor.name and len(tensor.dims) > 1
    )
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e5), weight.name))
    layer = next(node.name for node in model.graph.node if weight.name in node.input)
    assert layer not in stays_fp32(onnx.load(exported.onnx), parts, FEEDS)
    reason = stays_fp32(model, parts, FEEDS)[layer]
    assert reason.startswith("values up to ")
    assert float(reason.split()[3]) * 8 > LARGEST


def small_graph() -> onnx.ModelProto:
    """Make a graph that computes y = (x / 3) * 1000."""
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "third"], ["a"], "third"),
        helper.make_node("Mul", ["a", "thousand"], ["y"], "thousand"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [
            numpy_helper.from_array(np.array(1 / 3, np.float32), "third"),
            numpy_helper.from_array(np.array(1024, np.float32), "thousand"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_intermediate_values_are_those_of_every_float_node() -> None:
    (values,) = intermediate_values(small_graph(), [{"image": np.array([3, 6], np.uint8)}])
    assert {name: value.tolist() for name, value in values.items()} == {
        "cast": [3.0, 6.0],
        "third": [1.0, 2.0],
        "thousand": [1024.0, 2048.0],
    }
    feeds = [{"image": np.array([3, 6], np.uint8)}, {"image": np.array([9, 0], np.uint8)}]
    assert largest_values(small_graph(), feeds)["thousand"] == 3072


def test_neighbours_in_float32_and_outputs_are_not_rounded_between(exported: SmallExport) -> None:
    model = onnx.load(exported.onnx)
    all_float = to_fp16(model, [node.name for node in model.graph.node])
    (exact,), (kept,) = (list(intermediate_values(one, FEEDS)) for one in (model, all_float))
    assert exact.keys() == kept.keys()
    for name, value in exact.items():
        np.testing.assert_array_equal(value, kept[name], err_msg=name)
    half = onnx.load(exported.folder / "small.fp16.onnx")
    producer = {output: node for node in half.graph.node for output in node.output}
    for node in half.graph.node:
        before = producer.get(node.input[0]) if node.op_type == "Cast" else None
        assert before is None or before.op_type != "Cast" or "image" in before.name


def test_the_layer_that_adds_the_error_is_named_not_those_that_pass_it_on() -> None:
    # A third has no exact half; 1024 times it adds nothing to the relative error.
    model = small_graph()
    half = to_fp16(model, [])
    assert lossy_layers(model, half, [{"image": np.array([1, 100], np.uint8)}])[0] == "third"

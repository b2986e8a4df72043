"""Folded convolutions give the same sums as the original ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from facerecon_export.fold import PLANES, fold_columns, folded_weights, take_codes
from facerecon_export.wrapper import take_images
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper


def two_convolutions(width: int = 16, stride: int = 2, relu: bool = True) -> onnx.ModelProto:
    """Make a graph from (N, 8, width, 3) uint8 to two random 3x3 convolutions, which also gives the number of
    pictures."""
    random = np.random.default_rng(0)
    constants = {
        "w1": random.normal(size=(4, 3, 3, 3)),
        "b1": random.normal(size=4),
        "w2": random.normal(size=(5, 4, 3, 3)),
        "b2": random.normal(size=5),
    }
    make = onnx.helper.make_node

    def convolution(name: str, data: str, weights: list[str], output: str, step: int) -> onnx.NodeProto:
        sides = [step, step]
        return make("Conv", [data, *weights], [output], name, kernel_shape=[3, 3], strides=sides, pads=[1, 1, 1, 1])

    nodes = [
        make("Shape", ["image"], ["count"], "shape", start=0, end=1),
        convolution("conv1", "image", ["w1", "b1"], "a", 2),
        make("Relu", ["a"], ["between"], "relu") if relu else make("Identity", ["a"], ["between"], "same"),
        convolution("conv2", "between", ["w2", "b2"], "y", stride),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "two",
        [onnx.helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, width])],
        [
            onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5, None, None]),
            onnx.helper.make_tensor_value_info("count", TensorProto.INT64, [1]),
        ],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    take_images(model)
    return model


def one_convolution(kernel: int) -> onnx.ModelProto:
    """Make a graph from (N, 16, 16, 3) to a random convolution of stride 4."""
    random = np.random.default_rng(0)
    constants = {"w": random.normal(size=(4, 3, kernel, kernel)), "b": random.normal(size=4)}
    sizes: dict[str, Any] = {"kernel_shape": [kernel] * 2, "strides": [4, 4], "pads": [kernel // 2] * 4}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["image", "w", "b"], ["y"], "conv", **sizes)],
        "one",
        [onnx.helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 4, 4])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    take_images(model)
    return model


def answers(model: onnx.ModelProto, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"image": images}))


@pytest.mark.parametrize("count", [1, 3])
def test_folded_layers_give_what_they_gave(count: int) -> None:
    images = np.random.default_rng(1).integers(0, 256, (count, 8, 16, 3)).astype(np.uint8)
    model = two_convolutions()
    before, number = answers(model, images)
    assert fold_columns(model)
    after, same_number = answers(model, images)
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-2)
    assert number == same_number == [count]


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_one_convolution_of_stride_4_is_folded_alone(kernel: int) -> None:
    model = one_convolution(kernel)
    images = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    (before,) = answers(model, images)
    assert fold_columns(model)
    (after,) = answers(model, images)
    assert after.shape == (2, 4, 4, 4)
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-2)


def test_pictures_of_any_size_are_folded() -> None:
    model = two_convolutions()
    for axis, name in ((1, "H"), (2, "W")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    del model.graph.value_info[:]
    sizes = ((2, 8, 16), (1, 24, 40), (3, 40, 4))
    pictures = [np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]
    before = [answers(model, images) for images in pictures]
    assert fold_columns(model)
    for images, (wanted, number) in zip(pictures, before, strict=True):
        found, same_number = answers(model, images)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-2)
        assert number == same_number == [len(images)]


def test_one_that_sees_behind_its_columns_is_left_alone() -> None:
    assert not fold_columns(one_convolution(9))


def test_one_whose_weights_somebody_else_uses_is_left_alone() -> None:
    model = one_convolution(7)
    model.graph.node.append(onnx.helper.make_node("ReduceSum", ["w"], ["sum"], "other"))
    before = model.SerializeToString()
    assert not fold_columns(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("other", [{"width": 18}, {"stride": 1}, {"relu": False}], ids=["width", "stride", "between"])
def test_other_layers_are_left_alone(other: dict[str, int]) -> None:
    model = two_convolutions(**other)  # type: ignore[arg-type]
    before = model.SerializeToString()
    assert not fold_columns(model)
    assert model.SerializeToString() == before


def test_no_weight_is_lost_or_doubled() -> None:
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    for stride, columns, times in ((2, 4, 2), (2, 2, 1), (4, 4, 1)):
        folded = folded_weights(weights, stride, columns)
        np.testing.assert_array_equal(np.sort(folded[folded != 0]), np.sort(np.repeat(weights.ravel(), times)))


def test_the_bytes_of_a_picture_are_taken_for_codes() -> None:
    model = two_convolutions()
    fold_columns(model)
    make = onnx.helper.make_node
    for node in model.graph.node:
        node.input[:] = ["decoded" if name == PLANES else name for name in node.input]
    place = [node.name for node in model.graph.node].index("image_transpose") + 1
    model.graph.node.insert(place, make("QuantizeLinear", [PLANES, "one", "zero"], ["codes"], "q"))
    model.graph.node.insert(place + 1, make("DequantizeLinear", ["codes", "one", "zero"], ["decoded"], "dq"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), "one"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.uint8), "zero"))
    images = np.random.default_rng(1).integers(0, 256, (2, 8, 16, 3)).astype(np.uint8)
    before, _ = answers(model, images)
    take_codes(model)
    after, _ = answers(model, images)
    np.testing.assert_array_equal(after, before)
    assert not {"Cast", "QuantizeLinear"} & {node.op_type for node in model.graph.node}


def test_the_shipped_file_for_the_cpu_is_folded_where_it_is_quantised() -> None:
    model = onnx.load(Path(__file__).parents[2] / "models" / "face.int8-cpu.onnx")
    operators = [node.op_type for node in model.graph.node if node.name.startswith("image")]
    stored = {tensor.name for tensor in model.graph.initializer}
    pooling = ("extractor.pool", "extractor.places")
    convolutions = [n for n in model.graph.node if n.op_type == "Conv" and not n.input[1].startswith(pooling)]
    in_float = [node.input[1] in stored for node in convolutions]
    # Only a recipe that keeps the first convolution in float has nothing to fold, and it keeps no other one.
    assert not any(in_float[1:])
    assert operators == (["Cast", "Transpose"] if in_float[0] else ["Reshape", "Transpose", "DequantizeLinear"])

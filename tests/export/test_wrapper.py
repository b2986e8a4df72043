"""The picture input, in front of a graph that has only a convolution."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from facerecon_export.wrapper import take_images
from onnx import ModelProto, TensorProto, helper


def first_pixel(channels: int = 3) -> ModelProto:
    """Make a graph from (N, 3, 2, 2) to the three channels of the top left pixel."""
    planes = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", channels, 2, 2])
    pixel = helper.make_tensor_value_info("pixel", TensorProto.FLOAT, ["N", channels])
    zero = onnx.numpy_helper.from_array(np.array(0), "zero")
    nodes = [
        helper.make_node("Gather", ["image", "zero"], ["row"], axis=2),
        helper.make_node("Gather", ["row", "zero"], ["pixel"], axis=2),
    ]
    graph = helper.make_graph(nodes, "g", [planes], [pixel], [zero])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_a_graph_takes_pictures_as_opencv_gives_them() -> None:
    model = first_pixel()
    take_images(model)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    assert session.get_inputs()[0].shape == ["N", 2, 2, 3]
    np.testing.assert_array_equal(session.run(["pixel"], {"image": images})[0], [[0, 1, 2], [12, 13, 14]])


def test_a_graph_that_takes_no_colour_planes_is_not_wrapped() -> None:
    with pytest.raises(ValueError, match="3, H, W"):
        take_images(first_pixel(channels=4))
    twice = first_pixel()
    take_images(twice)
    with pytest.raises(ValueError, match=r"not .* float32"):
        take_images(twice)


def test_a_graph_of_two_inputs_is_not_wrapped() -> None:
    model = first_pixel()
    model.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]))
    with pytest.raises(ValueError, match="other"):
        take_images(model)

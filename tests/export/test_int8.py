"""Quantised files: what is quantised, how, and which recipe is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from facerecon_export import int8
from facerecon_export.graph import HIDDEN, MATRICES, face_parts
from facerecon_export.int8 import BLOCK, RECIPES, Recipe, Trial, best_first, choose, in_blocks
from onnx import TensorProto, numpy_helper

if TYPE_CHECKING:
    from tests.export.conftest import SmallExport


def quantisers(path: Path) -> list[tuple[onnx.NodeProto, onnx.TensorProto]]:
    """Return the Q and DQ nodes with their zero points."""
    model = onnx.load(path)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    return [
        (node, constants[node.input[2]])
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
    ]


def test_for_tensorrt_everything_is_symmetric_int8_and_no_bias_is_quantised(exported: SmallExport) -> None:
    found = quantisers(exported.folder / "small.int8.onnx")
    assert found
    for node, zero in found:
        assert zero.data_type == TensorProto.INT8, node.name
        assert not numpy_helper.to_array(zero).any(), node.name
    assert exported.files["small.int8.onnx"].findings == []


def test_for_the_cpu_activations_are_unsigned_and_weights_signed_per_channel(exported: SmallExport) -> None:
    path = exported.folder / "small.int8-cpu.onnx"
    constants = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    for node, zero in quantisers(path):
        weight = constants.get(node.input[0])
        if weight is None:
            assert zero.data_type == TensorProto.UINT8, node.name
        elif len(weight.dims) > 1:
            assert zero.data_type == TensorProto.INT8, node.name
            assert np.prod(zero.dims) > 1, node.name


def test_what_the_face_is_read_from_stays_in_float(exported: SmallExport) -> None:
    model = onnx.load(exported.folder / "small.int8.onnx")
    producer = {output: node.op_type for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.op_type == "Gemm" or any(name.startswith("extractor.pool.") for name in node.input):
            assert "DequantizeLinear" not in {producer.get(name) for name in node.input}, node.name


def test_the_cpu_file_multiplies_its_matrices_in_blocks_of_bytes(exported: SmallExport) -> None:
    model = onnx.load(exported.folder / "small.int8-cpu.onnx")
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    assert len(products) == len(MATRICES)
    for matrix in MATRICES:
        assert matrix not in stored
        assert stored[f"{matrix}_codes"] == TensorProto.UINT8
        assert stored[f"{matrix}_scales"] == TensorProto.FLOAT
    assert "reconstructor.mean" in {node.input[5] for node in products if len(node.input) > 5}


def test_codes_and_scales_of_blocks_give_the_matrix_back() -> None:
    """Each column of each block uses all of its codes; the last block may be short, a column all zeros."""
    random = np.random.default_rng(0)
    weights = random.normal(size=(2 * BLOCK + 5, 7)).astype(np.float32) * np.float32(10.0) ** random.integers(-3, 3, 7)
    weights[:, 3] = 0
    codes, scales = in_blocks(weights)
    assert codes.shape == (7, 3, BLOCK)
    assert scales.shape == (7, 3)
    values = codes.astype(np.float32) - 128
    largest = np.abs(values).max(2)
    assert (np.delete(largest, 3, 0) == 127).all()
    assert not values[3].any()
    assert not scales[3].any()  # otherwise zeros would become noise
    assert not values[:, 2, 5:].any()
    back = (values * scales[:, :, None]).reshape(7, -1)[:, : len(weights)].T
    steps = np.repeat(scales, BLOCK, axis=1)[:, : len(weights)].T
    assert (np.abs(back - weights) <= 0.5001 * steps).all()


def test_matrices_stored_in_half_are_what_they_were_to_three_digits(exported: SmallExport) -> None:
    def matrices(path: Path) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        tensors = onnx.load(path).graph.initializer
        found = {tensor.name.removesuffix("_half"): numpy_helper.to_array(tensor) for tensor in tensors}
        hidden = {name: value for name, value in found.items() if name.startswith(HIDDEN) and value.ndim == 2}
        return {name: value.astype(np.float32) for name, value in hidden.items()}

    exact, stored = matrices(exported.onnx), matrices(exported.folder / "small.int8-cpu.onnx")
    assert exact.keys() == stored.keys() != set()
    for name, value in exact.items():
        np.testing.assert_allclose(stored[name], value, rtol=1e-3, atol=1e-6)
    nodes = onnx.load(exported.folder / "small.int8-cpu.onnx").graph.node
    assert sum(node.name.endswith("weight_cast") for node in nodes) == len(exact)


def test_recipes_are_tried_until_the_time_is_up_but_at_least_one(
    exported: SmallExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "quantise", lambda source, path, *rest: path.write_bytes(b""))
    parts = face_parts(onnx.load(exported.onnx))
    scores = iter((0.5, 0.9, 0.2, 0.9, 0.9, 0.9))

    def tried(budget_s: float) -> list[Trial]:
        return choose(exported.onnx, tmp_path, parts, [], "cpu", lambda path: next(scores), budget_s)

    assert len(tried(0)) == 1
    scores = iter((0.5, 0.9, 0.2, 0.9, 0.9, 0.9))
    trials = tried(60)
    # The network has three convolutions: with all of them in float there would be nothing left to quantise.
    assert [trial.recipe.first_float for trial in trials].count(3) == 0
    assert len(trials) == len(RECIPES) - 2
    assert trials[0].recipe == RECIPES[2]
    assert [trial.score for trial in trials[:2]] == [0.2, 0.5]


def test_a_recipe_nearly_as_good_with_fewer_layers_in_float_goes_first() -> None:
    def trial(first_float: int, score: float) -> Trial:
        return Trial(Recipe("percentile", first_float), score, Path())

    best = best_first([trial(3, 0.30), trial(1, 0.38), trial(0, 0.60)])
    assert [(one.recipe.first_float, one.score) for one in best] == [(1, 0.38), (3, 0.30), (0, 0.60)]
    # A file that its gate would refuse never displaces a file that passes.
    assert [one.score for one in best_first([trial(1, 0.95), trial(0, 1.16)])] == [0.95, 1.16]
    assert [one.score for one in best_first([trial(1, 1.05), trial(0, 1.16)])] == [1.16, 1.05]
    # A score that is not a number comes last, or first where there is no other.
    assert [one.recipe.first_float for one in best_first([trial(0, np.nan), trial(1, 0.9)])] == [1, 0]
    assert len(best_first([trial(0, np.nan), trial(1, np.nan)])) == 2


def test_for_the_cpu_no_code_is_rounded_before_a_relu_and_again_after_it(exported: SmallExport) -> None:
    """The last ReLU, before the pooling in float, is no exception: codes that begin at 0 have finer steps."""
    model = onnx.load(exported.folder / "small.int8-cpu.onnx")
    producer = {output: node.op_type for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.op_type == "Relu":
            assert producer[node.input[0]] != "DequantizeLinear", node.name
    (pool,) = (node for node in model.graph.node if "extractor.pool.0.weight" in node.input)
    assert producer[pool.input[0]] == "DequantizeLinear"

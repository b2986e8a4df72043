"""The decoder beside the model, which fits only its weights, and pictures of one person that are fused by their
variances."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facerecon_rt.contract import BLENDSHAPES, OUTPUTS_1, ModelContract
from facerecon_rt.errors import ModelRefused
from facerecon_rt.networks.basis import SHARED_ERROR, Basis, basis_path, fuse_identities, read_basis

CONTRACT = ModelContract(64, 70, "template", "tiny", weights_sha256="ab" * 32, code_size=3)


def write(path: Path, **changed: Any) -> None:
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "mean": random.normal(size=(70, 3)).astype(np.float32),
        "shape": random.normal(size=(3, 70, 3)).astype(np.float16),
        "expression": random.normal(size=(len(BLENDSHAPES), 70, 3)).astype(np.float16),
        "weights_sha256": np.array("ab" * 32),
    }
    np.savez(path, **(arrays | changed))


def test_it_lies_beside_every_precision_of_its_model() -> None:
    for name in ("face.onnx", "face.fp16.onnx", "face.int8.onnx", "face.int8-cpu.onnx"):
        assert basis_path(Path("models") / name) == Path("models/face.basis.npz")


def test_codes_and_weights_become_vertices(tmp_path: Path) -> None:
    write(tmp_path / "face.basis.npz")
    basis = read_basis(tmp_path / "face.basis.npz", CONTRACT)
    neutral = basis.neutral([0.0, 2.0, 0.0])
    np.testing.assert_allclose(neutral, basis.mean + 2 * basis.shape[1], atol=1e-6)
    smile = np.zeros(len(BLENDSHAPES))
    smile[45] = 0.5
    np.testing.assert_allclose(basis.expressed(neutral, smile), neutral + 0.5 * basis.expression[45], atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weights_sha256": np.array("cd" * 32)}, "belongs to weights cdcdcdcdcdcd, the model to abababababab"),
        ({"shape": np.zeros((4, 70, 3))}, "shape does not fit the model's contract"),
        ({"mean": np.full((70, 3), np.nan)}, "mean does not fit"),
    ],
)
def test_one_of_another_model_is_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    write(tmp_path / "face.basis.npz", **changed)
    with pytest.raises(ModelRefused, match=message):
        read_basis(tmp_path / "face.basis.npz", CONTRACT)


def test_one_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    path = tmp_path / "face.basis.npz"
    with pytest.raises(ModelRefused, match="no basis at"):
        read_basis(path, CONTRACT)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ModelRefused, match="is not a readable basis"):
        read_basis(path, CONTRACT)


def test_a_flipped_bit_is_refused_or_changes_nothing_but_numbers(tmp_path: Path) -> None:
    path = tmp_path / "face.basis.npz"
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "mean": np.zeros((70, 3), np.float32),
        "shape": np.zeros((3, 70, 3), np.float16),
        "expression": np.zeros((len(BLENDSHAPES), 70, 3), np.float16),
        "weights_sha256": np.array("ab" * 32),
    }
    np.savez_compressed(path, **arrays)
    whole, refused = bytearray(path.read_bytes()), 0
    for bit in random.integers(0, 8 * len(whole), 400):
        damaged = whole.copy()
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            read_basis(path, CONTRACT)
        except ModelRefused:
            refused += 1
    assert refused > 200


def test_one_picture_keeps_its_code_and_its_variance() -> None:
    code, variance = fuse_identities([[1.0, -0.5]], [[0.25, 1.0]], [1.0])
    np.testing.assert_allclose(variance, [0.25, 1.0])
    np.testing.assert_allclose(code, [1.0, -0.5], atol=1e-6)


def test_the_prior_counts_once_however_many_pictures_there_are() -> None:
    # The person's code is 2. Each picture has the noise variance 1/3, and its posterior mean is 2 * 0.75.
    codes, variances = np.full((10, 1), 1.5), np.full((10, 1), 0.25)
    code, variance = fuse_identities(codes, variances, np.ones(10), shared_error=0)
    np.testing.assert_allclose(code, [2 * 30 / 31], atol=1e-5)
    np.testing.assert_allclose(variance, [1 / 31], atol=1e-6)
    assert code[0] > codes.mean()


def test_a_picture_that_tells_nothing_adds_no_information() -> None:
    """Its code 0 still counts as a code: the sum of both codes has the share 1 / (1 + 0.6)."""
    code, variance = fuse_identities([[1.0], [0.0]], [[0.5], [1.0]], [1.0, 1.0], shared_error=0.6)
    np.testing.assert_allclose(code, [(1.0 + 1 / 1.6) / 2], atol=1e-6)
    np.testing.assert_allclose(variance, [0.5], atol=1e-6)


@pytest.mark.parametrize("variance", [1.0, 0.99, 0.9, 0.5])
def test_hundreds_of_unsure_pictures_add_up_to_no_caricature(variance: float) -> None:
    codes, variances = np.full((301, 1), 0.3), np.full((301, 1), variance)
    codes[0], variances[0] = 0.5, 0.2
    code, _ = fuse_identities(codes, variances, np.ones(301))
    assert 0.3 <= code[0] <= 0.5 / SHARED_ERROR


def test_the_surer_picture_counts_for_more() -> None:
    code, _ = fuse_identities([[1.0], [-1.0]], [[0.1], [0.5]], [1.0, 1.0], shared_error=0)
    # 1 + 9 + 1 = 11; (1 / 0.1 - 1 / 0.5) / 11
    np.testing.assert_allclose(code, [8 / 11], atol=1e-5)


def test_pictures_with_the_same_error_count_as_one() -> None:
    code, variance = fuse_identities(np.full((5, 1), 1.5), np.full((5, 1), 0.25), np.ones(5), shared_error=1)
    np.testing.assert_allclose(code, [1.5], atol=1e-5)
    np.testing.assert_allclose(variance, [0.25], atol=1e-6)
    # With half of the error shared, three pictures count as 3 / (1 + 2 / 2): precision 1 + 1.5 * 3.
    code, variance = fuse_identities(np.full((3, 1), 1.5), np.full((3, 1), 0.25), np.ones(3), shared_error=0.5)
    np.testing.assert_allclose(variance, [1 / 5.5], atol=1e-6)
    np.testing.assert_allclose(code, [1.5 * 1.5 * 4 / 5.5], atol=1e-5)


def test_the_expected_error_leaves_out_place_attitude_and_size() -> None:
    random = np.random.default_rng(0)
    mean = random.normal(0, 30, (50, 3)).astype(np.float32)
    centred = mean - mean.mean(0)
    one = np.zeros((50, 3), np.float32)
    one[7] = [0, 0, 2.0]
    shape = np.stack([np.tile([1.0, 0, 0], (50, 1)), 0.02 * centred, one]).astype(np.float32)
    basis = Basis(mean, shape, np.zeros((1, 50, 3), np.float32), "")
    np.testing.assert_allclose(basis.expected_error([1.0, 1.0, 0.0]), 0, atol=1e-5)
    error = basis.expected_error([0.0, 0.0, 0.25])
    assert error[7] == pytest.approx(1.0, rel=0.15)  # part of it is a shift, a turn and growth of the whole head
    assert np.delete(error, 7).max() < 0.2


def test_files_of_contract_1_take_a_basis_of_any_code(tmp_path: Path) -> None:
    # These files do not tell the length of their code.
    write(tmp_path / "face.basis.npz")
    contract = replace(CONTRACT, version=1, outputs=OUTPUTS_1, code_size=0)
    assert read_basis(tmp_path / "face.basis.npz", contract).shape.shape == (3, 70, 3)


def test_a_basis_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "face.basis.npz"
    write(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ModelRefused, match="not a readable basis"):
        read_basis(path, CONTRACT)

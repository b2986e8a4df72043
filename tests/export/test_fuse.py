"""Fused files answer as the runtime's own averages do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from facerecon_export.crops import synthetic_crops
from facerecon_export.deploy import export_weights
from facerecon_export.fp16 import stored_in_half
from facerecon_export.fuse import fuse_ensemble, fuse_set, nearest_rotation, robust_weights
from facerecon_export.lint import lint
from facerecon_export.subject import ExportOptions
from facerecon_rt.contract import ENSEMBLE_OUTPUTS, ENSEMBLE_OUTPUTS_1, OUTPUTS_1, SET_OUTPUTS, SET_OUTPUTS_1
from facerecon_rt.errors import ModelRefused, UsageError
from facerecon_rt.faces.reconstruct import faces_from_crops
from facerecon_rt.faces.shapes import average_shapes, set_from_faces
from facerecon_rt.networks.ensemble import Ensemble
from facerecon_rt.networks.session import FaceSession, read_contract
from facerecon_rt.pose import mean_rotation, rotation_from_euler
from facerecon_rt.providers.choice import open_ort_session
from facerecon_rt.providers.onnx_file import read_onnx
from facerecon_rt.types import Crop
from facerecon_training.checkpoint import load_weights, save_weights

if TYPE_CHECKING:
    from tests.export.conftest import SmallExport


def quiet(line: str) -> None:
    """Ignore a message."""


@pytest.fixture(scope="module")
def second(exported: SmallExport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another network of the same family, whose faces differ a little."""
    folder = tmp_path_factory.mktemp("second")
    model = load_weights(exported.weights)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.reconstructor.parameters():
            parameter.add_(0.05 * parameter.abs().mean() * torch.randn_like(parameter))
    save_weights(model, folder / "second.safetensors")
    export_weights(folder / "second.safetensors", folder, ExportOptions(("fp32",)), quiet)
    return folder / "second.onnx"


@pytest.fixture(scope="module")
def fused(exported: SmallExport, second: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fused") / "both.onnx"
    fuse_ensemble([exported.onnx, second], path, quiet)
    return path


def test_an_ensemble_in_one_file_averages_as_the_runtime_does(exported: SmallExport, second: Path, fused: Path) -> None:
    crops = synthetic_crops(64, 5)
    with FaceSession(exported.onnx) as one, FaceSession(second) as two, FaceSession(fused) as both:
        expected, found = Ensemble([one, two]).run(crops), both.run(crops)
        assert both.contract.outputs == ENSEMBLE_OUTPUTS
        for name in (*OUTPUTS_1, "gaze"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=2e-4, err_msg=name)
        assert found.identity is expected.identity is None
        assert expected.gaze is not None and np.ptp(expected.gaze, axis=0).max() > 1e-3
        linear = found.crop_from_head[:, :, :3]
        gram = linear @ linear.transpose(0, 2, 1)
        np.testing.assert_allclose(gram, gram[:, :1, :1] * np.eye(3), atol=1e-5)
        assert expected.disagreement is not None and found.disagreement is not None
        assert expected.disagreement.shape == (5, 4)
        assert expected.disagreement.min() > 0
        np.testing.assert_allclose(found.disagreement, expected.disagreement, rtol=1e-3, atol=1e-4)
        assert both.contract.backbone == "tiny+tiny"
        golden = np.mean([one.contract.golden, two.contract.golden], axis=0)
        np.testing.assert_allclose(both.contract.golden, golden)  # it opened, so its answer is that of the contract


def test_files_of_contract_1_are_fused_as_before(exported: SmallExport, exported_1: Path, tmp_path: Path) -> None:
    fuse_ensemble([exported_1, exported_1], tmp_path / "twice.onnx", quiet)
    fuse_set(exported_1, 3, tmp_path / "set.onnx", quiet)
    crops = synthetic_crops(64, 3)
    with FaceSession(exported_1) as one, FaceSession(tmp_path / "twice.onnx") as twice:
        assert (twice.contract.version, twice.contract.outputs) == (1, ENSEMBLE_OUTPUTS_1)
        found, expected = twice.run(crops), one.run(crops)
    assert found.gaze is expected.gaze is None
    np.testing.assert_allclose(found.vertices, expected.vertices, atol=1e-3)
    contract = read_contract(read_onnx(tmp_path / "set.onnx"))
    assert (contract.version, contract.set_size, contract.outputs) == (1, 3, SET_OUTPUTS_1)
    session, _, _ = open_ort_session(tmp_path / "set.onnx", "cpu")
    assert [output.name for output in session.get_outputs()] == list(SET_OUTPUTS_1)
    with pytest.raises(UsageError, match=r"older\.onnx: its contract differs from that of .*small\.onnx"):
        fuse_ensemble([exported.onnx, exported_1], tmp_path / "mixed.onnx", quiet)


@pytest.mark.parametrize("name", ["small.int8-cpu.onnx", "small.onnx"])
def test_matrices_stay_bytes_or_halves_in_a_fused_file(exported: SmallExport, name: str, tmp_path: Path) -> None:
    path = exported.folder / name
    assert stored_in_half(onnx.load(path))
    fuse_ensemble([path, path], tmp_path / "twice.onnx", quiet)
    assert (tmp_path / "twice.onnx").stat().st_size < 2.1 * path.stat().st_size
    crops = synthetic_crops(64, 3)
    with FaceSession(path) as one, FaceSession(tmp_path / "twice.onnx") as twice:
        np.testing.assert_allclose(twice.run(crops).vertices, one.run(crops).vertices, atol=1e-3)


def test_the_disagreement_reaches_the_face(fused: Path) -> None:
    transform = np.hstack([2 * np.eye(3), np.zeros((3, 1))]).astype(np.float32)
    crop = Crop(synthetic_crops(64, 1)[0], transform)
    with FaceSession(fused) as session:
        (face,) = faces_from_crops(session, [crop])
        raw = session.run(crop.image[None]).disagreement
    assert face.disagreement is not None and raw is not None
    shape_mm, _, landmarks_px, _ = raw[0].tolist()
    assert face.disagreement["shape_mm"] == pytest.approx(shape_mm)
    assert face.disagreement["landmarks_px"] == pytest.approx(2 * landmarks_px)


def test_fused_files_are_ready_for_tensorrt(fused: Path) -> None:
    assert lint(onnx.load(fused)) == []


def test_what_does_not_belong_together_is_not_fused(exported: SmallExport, fused: Path, tmp_path: Path) -> None:
    target = tmp_path / "no.onnx"
    with pytest.raises(UsageError, match="two models or more"):
        fuse_ensemble([exported.onnx], target, quiet)
    with pytest.raises(
        UsageError, match=r"small\.fp16\.onnx is fp16, .*small\.onnx is fp32; fuse files of one precision"
    ):
        fuse_ensemble([exported.onnx, exported.folder / "small.fp16.onnx"], target, quiet)
    both = [exported.folder / "small.int8.onnx", exported.folder / "small.int8-cpu.onnx"]
    with pytest.raises(
        UsageError,
        match=r"small\.int8-cpu\.onnx is int8 for cpu, .*small\.int8\.onnx is int8 for tensorrt; "
        r"fuse all \.int8-cpu\.onnx, or all \.int8\.onnx",
    ):
        fuse_ensemble(both, target, quiet)
    with pytest.raises(UsageError, match="is a fused file already"):
        fuse_ensemble([exported.onnx, fused], target, quiet)
    with pytest.raises(ModelRefused, match="absent"):
        fuse_ensemble([exported.onnx, tmp_path / "absent.onnx"], target, quiet)
    with pytest.raises(UsageError, match="--set-size 1"):
        fuse_set(exported.onnx, 1, target, quiet)
    assert not list(tmp_path.iterdir())


def test_the_polar_factor_is_the_nearest_rotation() -> None:
    pairs = [[rotation_from_euler(0, 0, 0), rotation_from_euler(*angles)] for angles in ((5, 2, 1), (80, 30, 10))]
    means = np.mean(pairs, axis=1)
    found = nearest_rotation(torch.from_numpy(means)).numpy()
    for pair, one in zip(pairs, found, strict=True):
        np.testing.assert_allclose(one, mean_rotation(pair), atol=1e-6)


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_weights_of_a_set_are_those_of_the_runtime(count: int) -> None:
    random = np.random.default_rng(count)
    shapes = random.normal(0, 1, (count, 40, 3)).astype(np.float32) + 30
    shapes[0] += random.normal(0, 6, (40, 3))  # an outlier
    confidence = random.uniform(0, 1, count).astype(np.float32)
    _, _, expected = average_shapes(shapes, confidence)
    found = robust_weights(torch.from_numpy(shapes).flatten(1), torch.from_numpy(confidence))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_copies_of_one_photograph_count_alike() -> None:
    shapes = torch.full((4, 30), 5.0)
    np.testing.assert_allclose(robust_weights(shapes, torch.full((4,), 0.5)).numpy(), 0.25, atol=1e-6)


def test_a_set_in_one_file_gives_what_the_runtime_makes_of_its_photographs(
    exported: SmallExport, tmp_path: Path
) -> None:
    path = tmp_path / "set.onnx"
    fuse_set(exported.onnx, 4, path, quiet)
    crops = synthetic_crops(64, 4)
    identity = np.hstack([np.eye(3), np.zeros((3, 1))]).astype(np.float32)
    with FaceSession(exported.onnx) as session:
        together = set_from_faces(faces_from_crops(session, [Crop(crop, identity) for crop in crops]))
    contract = read_contract(read_onnx(path))
    assert (contract.set_size, contract.outputs) == (4, SET_OUTPUTS)
    assert not contract.golden  # a single crop is not a set
    session, _, _ = open_ort_session(path, "cpu")
    found = dict(zip(SET_OUTPUTS, session.run(list(SET_OUTPUTS), {"image": crops}), strict=True))
    np.testing.assert_allclose(found["shape"][0], together.shape, atol=1e-3)
    np.testing.assert_allclose(found["spread_mm"][0], together.spread_mm, atol=1e-3)
    np.testing.assert_allclose(found["weights"], together.weights, atol=1e-4)
    for i, face in enumerate(together.faces):
        assert face is not None
        np.testing.assert_allclose(found["vertices"][i], face.vertices, atol=1e-3)
        np.testing.assert_allclose(found["landmarks"][i], face.landmarks, atol=1e-3)
        assert face.gaze is not None
        np.testing.assert_allclose(found["gaze"][i], face.gaze, atol=1e-4)
    assert lint(onnx.load(path)) == []
    with pytest.raises(ModelRefused, match="averages 4 photographs of one person inside the graph"):
        FaceSession(path)

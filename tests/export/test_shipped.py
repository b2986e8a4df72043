"""The real model through the real export, on real crops."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from facerecon_export import crops, face, int8
from facerecon_export.crops import LEAST_CROPS, faces_of_data, load_crops
from facerecon_export.deploy import export_weights
from facerecon_export.describe import describe
from facerecon_export.face import FaceSubject
from facerecon_export.fuse import fuse_ensemble, fuse_set
from facerecon_export.int8 import Recipe
from facerecon_export.lint import lint
from facerecon_export.subject import ExportOptions
from facerecon_rt.contract import CONTRACT_KEY, ModelContract
from facerecon_rt.faces.shapes import average_shapes
from facerecon_rt.networks.precision import file_of_precision
from facerecon_rt.networks.session import FaceSession, read_contract
from facerecon_rt.providers.choice import open_ort_session
from facerecon_rt.providers.onnx_file import read_onnx

MODELS = Path(__file__).parents[2] / "models"
NAMES = ("face.onnx", "face.fp16.onnx", "face.int8.onnx", "face.int8-cpu.onnx")

FEW = 100
"""Number of crops that calibrate and verify the files that `test_the_shipped_weights_export_again` makes."""

needs_data = pytest.mark.skipif(
    faces_of_data("lfpw-test") is None or faces_of_data("helen-train") is None,
    reason="set FACERECON_DATA to a folder with faces/lfpw-test and faces/helen-train",
)


def quiet(line: str) -> None:
    """Ignore a message."""


@pytest.mark.parametrize("name", NAMES)
def test_every_file_was_made_from_the_weights_beside_it(name: str) -> None:
    with FaceSession(MODELS / name, provider="cpu") as session:
        contract = session.contract
    assert contract.weights_sha256 == hashlib.sha256((MODELS / "face.safetensors").read_bytes()).hexdigest()
    if contract.target != "cpu":
        assert lint(onnx.load(MODELS / name)) == []
    assert f"precision: {contract.precision}" in describe(MODELS / name)


@pytest.mark.parametrize("name", NAMES)
def test_every_camera_is_a_scale_times_a_rotation(name: str) -> None:
    """This holds for every precision and for any input; the input here is noise."""
    with FaceSession(MODELS / name, provider="cpu") as session:
        size = session.contract.input_size
        noise = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), np.uint8)
        linear = session.run(noise).crop_from_head[:, :, :3].astype(np.float64)
    gram = linear @ linear.transpose(0, 2, 1)
    squared_scale = np.trace(gram, axis1=1, axis2=2)[:, None, None] / 3
    np.testing.assert_allclose(gram / squared_scale, np.broadcast_to(np.eye(3), gram.shape), atol=2e-6)


def test_the_cpu_file_is_at_most_45_percent_of_fp32() -> None:
    """A float32 file stores its decoders in half, or the share would be 35 %."""
    assert file_of_precision(MODELS / "face.onnx", "int8", "cpu").name == "face.int8-cpu.onnx"
    sizes = {name: (MODELS / name).stat().st_size for name in NAMES}
    assert sizes["face.int8-cpu.onnx"] <= 0.45 * sizes["face.onnx"]


@pytest.fixture(scope="module")
def subject() -> FaceSubject:
    """The shipped weights. What PyTorch answers is computed once."""
    return FaceSubject(MODELS / "face.safetensors", ExportOptions(budget_s=0))


@needs_data
@pytest.mark.parametrize("name", NAMES)
def test_every_file_keeps_to_its_tolerances(name: str, subject: FaceSubject) -> None:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    if name == "face.int8-cpu.onnx" and not any(flag in flags for flag in ("avx512_vnni", "avx_vnni", "asimddp")):
        pytest.skip("without 8-bit dot products, sums of two products of uint8 and int8 saturate at 16 bits")
    contract = read_contract(read_onnx(MODELS / name))
    assert contract.weights_sha256 == subject.weights_sha256
    rows = subject.verify(MODELS / name, contract.precision)
    assert [row.name for row in rows if not row.passed] == []
    assert rows[-1].name == "NME"


@needs_data
def test_the_shipped_weights_export_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The float32 file must be the shipped one, but for the order of its weights.

    The others must pass, with fewer crops and recipes to choose from. They are compared with PyTorch on a hundred
    crops; the shipped files are compared on all of them, above.
    """
    monkeypatch.setattr(crops, "LEAST_CROPS", FEW)
    monkeypatch.setattr(face, "CALIBRATION_CROPS", FEW)
    monkeypatch.setattr(int8, "RECIPES", (Recipe("minmax", 0), Recipe("minmax", 1)))
    monkeypatch.setattr(face, "verification_crops", partial(crops.verification_crops, count=FEW))
    files = export_weights(MODELS / "face.safetensors", tmp_path, ExportOptions(budget_s=0), quiet)
    assert [file.path.name for file in files] == list(NAMES)
    assert all(file.passed for file in files)
    (again, again_contract), (shipped, contract) = (taken_apart(folder / "face.onnx") for folder in (tmp_path, MODELS))
    assert again == shipped
    # PyTorch's golden answer is rounded to a thousandth, and not to the same one by every processor.
    np.testing.assert_allclose(again_contract.golden, contract.golden, atol=2.1e-3)
    assert replace(again_contract, golden=()) == replace(contract, golden=())


def taken_apart(path: Path) -> tuple[onnx.ModelProto, ModelContract]:
    """Return a file without its contract and with its weights sorted by name, and the contract.

    PyTorch's tracers find the weights in different orders, which changes no answer.
    """
    model = onnx.load(path)
    model.graph.initializer.sort(key=lambda tensor: tensor.name)
    (entry,) = (entry for entry in model.metadata_props if entry.key == CONTRACT_KEY)
    contract = ModelContract.from_json(entry.value)
    entry.value = ""
    return model, contract


@needs_data
def test_fused_files_of_the_shipped_model_answer_as_the_runtime_does(tmp_path: Path) -> None:
    folder = faces_of_data("lfpw-test")
    assert folder is not None
    images = load_crops(folder, read_contract(read_onnx(MODELS / "face.onnx")).input_size, 5).images
    assert len(images) < LEAST_CROPS
    fuse_ensemble([MODELS / "face.onnx"] * 2, tmp_path / "two.onnx", quiet)
    fuse_set(MODELS / "face.onnx", 5, tmp_path / "set.onnx", quiet)
    with FaceSession(MODELS / "face.onnx", provider="cpu") as one, FaceSession(tmp_path / "two.onnx") as two:
        raw, both = one.run(images), two.run(images)
    np.testing.assert_allclose(both.vertices, raw.vertices, atol=1e-3)
    np.testing.assert_allclose(both.landmarks, raw.landmarks, atol=1e-3)
    assert both.disagreement is not None
    np.testing.assert_allclose(both.disagreement, 0, atol=1e-3)
    session, _, _ = open_ort_session(tmp_path / "set.onnx", "cpu")
    names = read_contract(read_onnx(tmp_path / "set.onnx")).outputs
    found = dict(zip(names, session.run(list(names), {"image": images}), strict=True))
    shape, spread, weights = average_shapes(raw.shape, raw.confidence)
    np.testing.assert_allclose(found["shape"][0], shape, atol=2e-3)
    np.testing.assert_allclose(found["spread_mm"][0], spread, atol=2e-3)
    np.testing.assert_allclose(found["weights"], weights, atol=1e-3)

"""Detector weights -> files that take pictures of any size and name the way they are read. Wrong files are not
written."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from facerecon_export import detector as export
from facerecon_export.crops import picture_paths
from facerecon_export.deploy import VerificationError, export_weights
from facerecon_export.detector import GATES, DetectorSubject, differences
from facerecon_export.int8 import Recipe, Target, quantise
from facerecon_export.subject import ExportOptions
from facerecon_export.verify import Gate
from facerecon_rt.errors import ModelRefused, UsageError
from facerecon_rt.faces.detect import FaceDetector, open_detector
from facerecon_rt.faces.detector_contract import read_detector_contract
from facerecon_rt.faces.detector_runs import letterbox
from facerecon_rt.providers.choice import open_ort_session
from facerecon_rt.providers.onnx_file import read_onnx
from facerecon_rt.sources.files import read_image
from facerecon_training.detector.config import SCORE, SURE
from facerecon_training.detector.net import FaceDetectorNet
from facerecon_training.detector.train import load_weights, save_weights

from .conftest import few_are_enough

TOLERANCE = GATES["fp32"].allowed["score"]


def quiet(line: str) -> None:
    """Ignore a message."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained weights whose head gives varied answers."""
    torch.manual_seed(1)
    net = FaceDetectorNet()
    with torch.no_grad():
        net.head.weight.mul_(30)
        torch.nn.init.zeros_(net.head.get_parameter("bias"))
    path = tmp_path_factory.mktemp("detector") / "w.safetensors"
    save_weights(net, path)
    return path


@pytest.fixture(scope="module")
def folder(weights: Path, few_crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all precisions, calibrated and verified on 60 pictures in a sixteenth of the pixels."""
    folder = tmp_path_factory.mktemp("exported")
    options = ExportOptions(crops=few_crops, calibration=few_crops, budget_s=0)
    with few_are_enough(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "SIZES", (64, 96))
        export_weights(weights, folder, options, quiet)
    return folder


def test_every_file_says_how_it_is_read(weights: Path, folder: Path) -> None:
    found = {}
    for path in folder.glob("*.onnx"):
        detector = open_detector(path)
        assert isinstance(detector, FaceDetector)
        contract = detector.contract
        assert contract.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
        assert (contract.score, contract.sure, contract.terms) == (SCORE, SURE, export.TERMS)
        found[path.name] = (contract.precision, contract.target)
    assert found == {
        "w.onnx": ("fp32", ""),
        "w.fp16.onnx": ("fp16", ""),
        "w.int8.onnx": ("int8", "tensorrt"),
        "w.int8-cpu.onnx": ("int8", "cpu"),
    }


def test_the_file_takes_uint8_pictures_of_any_size_and_number(weights: Path, folder: Path) -> None:
    session, _, _ = open_ort_session(folder / "w.onnx", "cpu", 1)
    net = load_weights(weights)
    rng = np.random.default_rng(0)
    for shape in ((1, 32, 32, 3), (3, 160, 256, 3), (1, 384, 640, 3)):
        pixels = rng.integers(0, 256, shape, np.uint8)
        score, box = session.run(["score", "box"], {"image": pixels})
        with torch.inference_mode():
            logits, wanted = net(torch.from_numpy(pixels).permute(0, 3, 1, 2).float())
        np.testing.assert_allclose(score, torch.sigmoid(logits).numpy(), atol=TOLERANCE)
        np.testing.assert_allclose(box, wanted.numpy(), atol=TOLERANCE)


def test_files_declare_their_tensors_and_hold_standard_operators_only(folder: Path) -> None:
    for path in folder.glob("*.onnx"):
        model = read_onnx(path)
        assert [(t.name, t.dims) for t in (*model.inputs, *model.outputs)] == [
            ("image", ("N", "H", "W", 3)),
            ("score", ("N", "h", "w")),
            ("box", ("N", 5, "h", "w")),
        ]
        assert {domain for domain, _ in model.operators} == {""}
        assert ("", "BatchNormalization") not in model.operators
        assert len(model.data) < 2_000_000
        read_detector_contract(model)


def test_every_recipe_for_8_bits_takes_pictures_of_any_size(
    weights: Path, folder: Path, crops_folder: Path, tmp_path: Path
) -> None:
    """With none of the first convolutions in float, the CPU's file has its columns folded."""
    subject = DetectorSubject(weights, ExportOptions(crops=crops_folder))
    source, feeds = onnx.load(folder / "w.onnx"), subject.feeds()[:8]
    reference, _, _ = open_ort_session(folder / "w.onnx", "cpu", 1)
    pictures = [read_image(path) for path in picture_paths(crops_folder, 4)]
    recipes: list[tuple[Target, Recipe]] = [("cpu", Recipe("minmax", 0)), ("cpu", Recipe("minmax", 3))]
    recipes.append(("tensorrt", Recipe("minmax", 0)))
    for target, recipe in recipes:
        path = tmp_path / f"{target}-{recipe.first_float}.onnx"
        quantise(source, path, subject.parts(source), recipe, feeds, target)
        folds = [node.name for node in onnx.load(path).graph.node if node.name == "image_fold"]
        assert bool(folds) == (target == "cpu" and not recipe.first_float)
        session, _, _ = open_ort_session(path, "cpu", 1)
        for size in (96, 256):
            for picture in pictures:
                pixels = np.ascontiguousarray(letterbox(picture, size)[0][None, : size // 2 // 32 * 32])
                (wanted, _), (found, _) = (one.run(["score", "box"], {"image": pixels}) for one in (reference, session))
                assert np.abs(found - wanted).mean() < 0.03


def test_the_head_stays_in_float(folder: Path) -> None:
    model = onnx.load(folder / "w.int8.onnx")
    *_, head = (node for node in model.graph.node if node.op_type == "Conv")
    producer = {output: node.op_type for node in model.graph.node for output in node.output}
    assert "DequantizeLinear" not in {producer.get(name) for name in head.input}


def test_a_file_that_answers_differently_is_not_written(
    weights: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This saves a few seconds of tracing.
    monkeypatch.setattr(DetectorSubject, "trace", lambda self, path: path.write_bytes((folder / "w.onnx").read_bytes()))
    monkeypatch.delenv("FACERECON_DATA", raising=False)  # a few artificial pictures will do
    for difference in (1.0, float("nan")):
        spoilt = {name: np.array([difference]) for name in export.UNITS}
        monkeypatch.setattr(export, "differences", lambda *_, found=spoilt: found)
        with pytest.raises(VerificationError, match="not written"):
            export_weights(weights, tmp_path, ExportOptions(("fp32",)), quiet)
    assert not list(tmp_path.glob("*.onnx"))


def test_in_lower_precisions_only_cells_that_see_a_face_count() -> None:
    score, box = np.zeros((1, 2, 2), np.float32), np.zeros((1, 5, 2, 2), np.float32)
    score[0, 0, 0] = 0.9
    other_score, other_box = score.copy(), box.copy()
    other_score[0] += 0.1
    other_box[0, :2, 0, 0] = 0.3, 0.4
    other_box[0, 2] = 7.0
    other_box[0, 3:, 0, 0] = 0.06, 0.08
    faces = differences(score, box, other_score, other_box, 0.5, Gate("mean", {}))
    assert {name: value.round(6).tolist() for name, value in faces.items()} == {
        "score": [0.1],
        "centre": [0.5],
        "side": [7.0],
        "roll": [0.1],
    }
    everywhere = differences(score, box, other_score, other_box, 0.5, Gate("largest", {}))
    assert everywhere["side"].size == 4
    assert np.isnan(differences(score, box, other_score[:, :1], other_box, 0.5, Gate("mean", {}))["score"]).all()


def test_missing_weights_name_the_fix(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="facerecon-train detector"):
        DetectorSubject(tmp_path / "none.safetensors", ExportOptions())


def test_lower_precisions_are_refused_where_the_detector_finds_no_face(
    few_crops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = FaceDetectorNet()
    with torch.no_grad():
        net.head.get_parameter("bias").fill_(-20)
    save_weights(net, tmp_path / "blind.safetensors")
    monkeypatch.setattr(export, "SIZES", (64, 96))
    with few_are_enough():
        for precision in ("fp16", "int8"):
            options = ExportOptions((precision,), crops=few_crops, calibration=few_crops)
            with pytest.raises(UsageError, match="the detector finds no face in 60 photographs of"):
                export_weights(tmp_path / "blind.safetensors", tmp_path / "out", options, quiet)


def test_a_detector_takes_pictures_of_any_shape(weights: Path) -> None:
    for batch, size in ((2, None), (0, 256)):
        with pytest.raises(UsageError, match="leave out --batch and --size"):
            DetectorSubject(weights, ExportOptions(batch=batch, size=size))

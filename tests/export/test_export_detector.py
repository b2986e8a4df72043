"""Detector weights to a file: takes pictures of any size, says how it is read, is not written when it is wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from facerecon_export import detector as export
from facerecon_export.detector import TOLERANCE, export_detector
from facerecon_export.to_onnx import VerificationError
from facerecon_rt.detect import FaceDetector, open_detector
from facerecon_rt.errors import ModelRefused
from facerecon_rt.onnx_file import read_onnx
from facerecon_rt.session import open_ort_session
from facerecon_training.detector import FaceDetectorNet
from facerecon_training.detector_train import load_weights, save_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained, but with a head that says something."""
    torch.manual_seed(1)
    net = FaceDetectorNet()
    with torch.no_grad():
        net.head.weight.mul_(30)
    path = tmp_path_factory.mktemp("detector") / "w.safetensors"
    save_weights(net, path)
    return path


@pytest.fixture(scope="module")
def exported(weights: Path) -> Path:
    said: list[str] = []
    path = weights.with_name("detector.onnx")
    assert export_detector(weights, path, said.append, score=0.3, terms="tests") <= TOLERANCE
    assert said[-1].startswith("wrote")
    return path


def test_the_file_says_how_it_is_read(weights: Path, exported: Path) -> None:
    detector = open_detector(exported)
    assert isinstance(detector, FaceDetector)
    contract = detector.contract
    assert (contract.score, contract.terms) == (0.3, "tests")
    assert contract.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_the_file_takes_uint8_pictures_of_any_size_and_number(weights: Path, exported: Path) -> None:
    session, _, _ = open_ort_session(exported, "cpu", 1)
    net = load_weights(weights)
    rng = np.random.default_rng(0)
    for shape in ((1, 32, 32, 3), (3, 160, 256, 3), (1, 384, 640, 3)):
        pixels = rng.integers(0, 256, shape, np.uint8)
        score, box = session.run(["score", "box"], {"image": pixels})
        with torch.inference_mode():
            logits, wanted = net(torch.from_numpy(pixels).permute(0, 3, 1, 2).float())
        np.testing.assert_allclose(score, torch.sigmoid(logits).numpy(), atol=TOLERANCE)
        np.testing.assert_allclose(box, wanted.numpy(), atol=TOLERANCE)


def test_the_file_declares_its_tensors_and_holds_standard_operators_only(exported: Path) -> None:
    model = read_onnx(exported)
    assert [(t.name, t.dims) for t in (*model.inputs, *model.outputs)] == [
        ("image", ("N", "H", "W", 3)),
        ("score", ("N", "h", "w")),
        ("box", ("N", 3, "h", "w")),
    ]
    assert {domain for domain, _ in model.operators} == {""}
    assert ("", "BatchNormalization") not in model.operators
    assert len(model.data) < 2_000_000


def test_a_file_that_answers_differently_is_not_written(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In place of another ten seconds of tracing: a comparison that finds a difference.
    monkeypatch.setattr(export, "trace", lambda graph, path: path.write_bytes(b""))
    monkeypatch.setattr(export, "stamp", lambda path, key, json: None)
    for difference in (1.0, float("nan")):
        monkeypatch.setattr(export, "largest_difference", lambda *_, found=difference: found)
        with pytest.raises(VerificationError, match="not written"):
            export_detector(weights, tmp_path / "bad.onnx", lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_missing_weights_name_the_fix(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="facerecon-train detector"):
        export_detector(tmp_path / "none.safetensors", tmp_path / "d.onnx", lambda line: None)

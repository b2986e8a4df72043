"""A model and little data -> a report that says all there is to say about them, and no more."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from facerecon_rt.align import square_from_camera
from facerecon_rt.contract import BLENDSHAPES, ModelContract
from facerecon_rt.errors import UsageError
from facerecon_rt.faces.reconstruct import Reconstructor
from facerecon_rt.networks.session import RawFaces
from facerecon_rt.networks.views import VIEWS
from facerecon_rt.template import load_template
from facerecon_rt.types import Detection, Image
from facerecon_training.accuracy_report import markdown, reliability, rows_by_yaw, write_report
from facerecon_training.data import Packed, people_squares
from facerecon_training.evaluate import PredictedPhotographs, people_figures, predict, predict_people, read_people
from facerecon_training.losses import HALF_TRUST_ERROR
from facerecon_training.model import FaceModel, FaceOutput, ModelConfig
from facerecon_training.photographs import CANVAS_SIZE
from facerecon_training.prepare import read_face
from facerecon_training.rendered.morphable import MorphableFace
from facerecon_training.train import fit_decoders


def tiny(face: MorphableFace, seed: int = 0) -> FaceModel:
    """Untrained, its decoders fitted."""
    torch.manual_seed(seed)
    model = FaceModel(ModelConfig("tiny", 64, shape_code=8, hidden=16)).eval()
    fit_decoders(model, face, np.random.default_rng(seed), count=100)
    return model


@pytest.fixture
def photographs(prepared: Path, data: Path) -> Path:
    """A data folder whose lfpw-test are the six drawn photographs."""
    folder = data / "faces" / "lfpw-test"
    folder.mkdir()
    images = np.load(prepared / "photographs" / "youtube-train" / "images.npy")
    with np.load(prepared / "photographs" / "youtube-train" / "labels.npz") as labels:
        landmarks = labels["landmarks"]
    for i, (image, points) in enumerate(zip(images, landmarks, strict=True)):
        assert image.shape == (CANVAS_SIZE, CANVAS_SIZE, 3)
        cv2.imwrite(str(folder / f"{i}.png"), image)
        rows = "\n".join(f"{x + 1:.3f} {y + 1:.3f}" for x, y in points)
        (folder / f"{i}.pts").write_text(f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n")
    return data


def test_a_report_holds_what_there_is_data_for(
    photographs: Path, prepared: Path, ball_face: MorphableFace, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    out.mkdir()
    (out / "earlier.png").write_bytes(b"a picture of another report")
    report = write_report([tiny(ball_face)], photographs, prepared, tmp_path / "no-detector.onnx", out)
    assert report["Landmarks, true box"]["lfpw-test"]["photographs"] == 6
    assert {"rmse_mm", "rotation_deg"} < set(report["Rendered people not trained on"]["all"])
    assert list(report["Rendered people, by photographs in a set"]) == ["1", "2"]
    weights = report["Rendered people, weights of nearly frontal faces"]
    assert list(weights) == list(BLENDSHAPES)
    mean = report["Rendered people not trained on"]["all"]["correlation"]
    assert np.mean([row["correlation"] for row in weights.values()]) == pytest.approx(mean)
    assert 0 < report["Confidence: faces from others (AUC)"]["lfpw-test"]["backgrounds"] <= 1
    assert "Ensembles" not in report
    assert not any("Pointing" in title for title in report)
    assert json.loads((out / "report.json").read_text()) == report
    text = (out / "report.md").read_text()
    for picture in ("error_curves.png", "meshes.jpg", "reliability.png", "worst.jpg", "yaw.png"):
        assert (out / picture).stat().st_size > 1000
        assert f"![{picture}]({picture})" in text
    assert "earlier.png" not in text


def test_several_models_are_measured_together_and_alone(
    photographs: Path, prepared: Path, ball_face: MorphableFace, tmp_path: Path
) -> None:
    members = [tiny(ball_face, 0), tiny(ball_face, 1)]
    report = write_report(members, photographs, prepared, tmp_path / "no-detector.onnx", tmp_path / "report")
    alone, both = report["Ensembles"].values()
    assert both["nme_inner51"] == pytest.approx(report["Landmarks, true box"]["lfpw-test"]["nme_inner51"])
    packed = prepared / "people" / "held-out"
    degrees = [people_figures(predict_people(one, packed))["rotation_deg"] for one in members]
    assert alone["rotation_deg"] == pytest.approx(np.mean(degrees))


def test_what_is_left_out_and_few_photographs_are_said_and_no_error(
    photographs: Path, ball_face: MorphableFace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted((photographs / "faces" / "lfpw-test").glob("*.pts"))[2:]:
        path.unlink()
    report = write_report([tiny(ball_face)], photographs, tmp_path / "typo", tmp_path / "none.onnx", tmp_path / "out")
    said = capsys.readouterr().out
    assert f"{tmp_path / 'typo'} holds no rendered people, so shapes, angles and blendshapes are left out" in said
    assert len(report["Confidence: error it stands for, error there is"]) == 2
    figures = [value for rows in report.values() for row in rows.values() for value in row.values()]
    assert np.isfinite(figures).all()


def test_without_data_there_is_no_report(data: Path, ball_face: MorphableFace, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing to evaluate on: .* has no faces/\*-test"):
        write_report([tiny(ball_face)], data, tmp_path, tmp_path / "no-detector.onnx", tmp_path / "report")


def test_rendered_people_are_counted_once_by_yaw(prepared: Path, ball_face: MorphableFace) -> None:
    seen = predict_people(tiny(ball_face), prepared / "people" / "held-out")
    rows = rows_by_yaw(seen)
    assert sum(row["pictures"] for row in rows.values()) == len(seen.shape) == 8
    assert rows["0-15"]["rmse_mm"] > 0


class AsNetwork:
    """A model as a network of the runtime."""

    provider, sha256 = "cpu", "model"

    def __init__(self, model: FaceModel) -> None:
        self.model = model
        vertices = load_template().vertex_count
        self.contract = ModelContract(64, vertices, load_template().sha256, "tiny", code_size=8)
        self.crops: list[int] = []

    def run(self, images: Image) -> RawFaces:
        self.crops.append(len(images))
        seen = predict(self.model, list(images))._asdict()
        return RawFaces(**{name: tensor.numpy() for name, tensor in seen.items()})


class NoDetector:
    def detect(self, image: Image) -> list[Detection]:
        raise AssertionError("the places of the heads are known")


@pytest.mark.parametrize(("as_photographs", "views"), [(False, 1), (True, 2 * len(VIEWS))])
def test_rendered_people_are_read_by_the_runtime_at_the_places_of_their_landmarks(
    prepared: Path, ball_face: MorphableFace, as_photographs: bool, views: int
) -> None:
    """The untrained network sees an upright head that fills its crop, so its camera is that of the square that it
    read. The squares of photographs are smaller on average."""
    share = np.mean([share for share, _ in VIEWS]) if as_photographs else 1.0
    packed = prepared / "people" / "held-out"
    network = AsNetwork(tiny(ball_face))
    with Reconstructor(network, detector=NoDetector()) as reconstructor:
        seen = read_people(reconstructor, packed, as_photographs=as_photographs)
    people = Packed.read(packed)
    assert sum(network.crops) == len(people.images) * (1 + views)
    for camera, square in zip(
        seen.output.crop_from_head.numpy(), people_squares(people, read_face(prepared)), strict=True
    ):
        read = square_from_camera(camera)
        assert (read.x, read.y) == pytest.approx((square.x, square.y), abs=0.02 * square.side)
        assert (read.side, read.roll) == pytest.approx((share * square.side, square.roll), rel=0.02, abs=0.02)
    truth = predict_people(tiny(ball_face), packed)
    assert (seen.shape == truth.shape).all()
    assert (seen.person == truth.person).all()
    np.testing.assert_array_equal(seen.cameras, people.labels["canvas_from_head"])


def test_a_confidence_that_is_right_lies_on_the_diagonal() -> None:
    errors = torch.tensor([0.0, 0.3, 0.6, 1.2]) * HALF_TRUST_ERROR
    truth = np.zeros((4, 68, 2), np.float32)
    truth[:, 45, 0] = 1.0  # eyes of distance 1
    landmarks = torch.zeros(4, 68, 3)
    landmarks[:, :, :2] = torch.from_numpy(truth)
    landmarks[:, :, 1] += errors[:, None]
    nothing = torch.zeros(4, 1)
    confidence = 1 / (1 + (errors / HALF_TRUST_ERROR) ** 2)
    output = FaceOutput(nothing, nothing, nothing, nothing, landmarks, confidence, nothing, nothing, nothing)
    seen = PredictedPhotographs([], np.tile(np.eye(3, 4, dtype=np.float32), (4, 1, 1)), output, truth, [])
    rows = reliability(seen, bins=4)
    assert [row["error"] for row in rows] == pytest.approx(errors.tolist(), abs=1e-5)
    assert [row["predicted_error"] for row in rows] == pytest.approx(errors.tolist(), abs=1e-3)


def test_few_columns_are_a_table_and_many_a_list() -> None:
    text = markdown({"Few": {"a": {"x": 1.0}, "b": {"y": 2.0}}, "Many": {"all": {str(i): i / 2 for i in range(9)}}}, [])
    assert "| | x | y |" in text
    assert "| a | 1.000 |  |" in text
    assert "| 8 | 4.000 |" in text

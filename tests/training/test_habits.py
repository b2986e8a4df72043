"""Annotators who put every point to one side, and a model that learns it at last."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from facerecon_training.data import Packed
from facerecon_training.habits import annotation_asymmetry, mean_residual, with_habits
from facerecon_training.model import FaceModel, ModelConfig, offset_scale
from facerecon_training.morphable import MorphableFace
from facerecon_training.photographs import CANVAS_MARGIN, CANVAS_SIZE
from facerecon_training.train import fit_decoders


@pytest.fixture
def model(ball_face: MorphableFace) -> FaceModel:
    torch.manual_seed(0)
    model = FaceModel(ModelConfig("tiny", 64, shape_code=8, hidden=16)).eval()
    fit_decoders(model, ball_face, np.random.default_rng(0), count=100)
    return model


@pytest.fixture
def annotated(prepared: Path, tmp_path: Path) -> Path:
    """The drawn photographs, as if people had annotated them; the last point of each is unknown."""
    packed = Packed.read(prepared / "photographs" / "youtube-train")
    target = tmp_path / "photographs" / "mine"
    target.mkdir(parents=True)
    np.save(target / "images.npy", packed.images)
    landmarks = packed.labels["landmarks"].astype(np.float32)
    landmarks[:, 67] = np.nan
    np.savez(target / "labels.npz", landmarks=landmarks, person=packed.labels["person"])
    return target.parent


def test_corrected_landmarks_are_right_on_average(model: FaceModel, annotated: Path) -> None:
    before = mean_residual(model, annotated)
    assert np.abs(before[:67]).max() > 0.5
    corrected = with_habits(model, annotated)
    np.testing.assert_allclose(mean_residual(corrected, annotated), 0, atol=1e-3)
    assert not before[67].any()
    # The model that was asked stays as it was.
    np.testing.assert_array_equal(mean_residual(model, annotated), before)


def test_a_step_to_the_right_is_found_in_crop_pixels(model: FaceModel, annotated: Path) -> None:
    before = mean_residual(model, annotated)
    path = annotated / "mine" / "labels.npz"
    with np.load(path) as labels:
        landmarks, person = labels["landmarks"] + np.array([3.0, 0.0], np.float32), labels["person"]
    np.savez(path, landmarks=landmarks, person=person)
    crop_pixels = 3.0 * 64 * CANVAS_MARGIN / CANVAS_SIZE
    step = (mean_residual(model, annotated) - before)[:67]
    np.testing.assert_allclose(step, np.tile([crop_pixels, 0.0], (67, 1)), atol=1e-3)


def test_a_step_to_the_right_turns_round_in_a_mirror_and_one_down_does_not(model: FaceModel) -> None:
    bias = model.reconstructor.annotation.bias
    assert not annotation_asymmetry(model).any()
    with torch.no_grad():
        bias.add_(torch.tensor([0.05, 0.02]).repeat(68))
    right = 0.05 * offset_scale(64)
    np.testing.assert_allclose(annotation_asymmetry(model), np.tile([right, 0.0], (68, 1)), rtol=1e-5)


def test_geometry_stays_as_it_is(model: FaceModel, annotated: Path) -> None:
    corrected, image = with_habits(model, annotated), torch.full((1, 3, 64, 64), 90.0)
    with torch.no_grad():
        before, after = model(image), corrected(image)
    for name in ("shape", "vertices", "expression", "crop_from_head", "confidence"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name), atol=0, rtol=0)
    assert (after.landmarks != before.landmarks).any()


def test_machines_have_no_habits_that_count(model: FaceModel, prepared: Path, tmp_path: Path) -> None:
    assert not mean_residual(model, prepared / "photographs").any()
    assert not mean_residual(model, tmp_path).any()

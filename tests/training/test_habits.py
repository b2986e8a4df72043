"""Annotators who put every point to one side, and a model that learns it at last."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from facerecon_rt.template import IBUG_MIRROR
from facerecon_rt.types import Floats
from facerecon_training.data import Folder, Packed
from facerecon_training.evaluate import predict
from facerecon_training.habits import annotated_crops, mean_asymmetry, mean_residual, with_habits
from facerecon_training.model import FaceModel, ModelConfig, offset_scale
from facerecon_training.photographs import CANVAS_MARGIN, CANVAS_SIZE
from facerecon_training.rendered.morphable import MorphableFace
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


def residual(model: FaceModel, packed: Path) -> Floats:
    return mean_residual(model, *annotated_crops(packed, (), 64))


def test_corrected_landmarks_are_right_on_average(model: FaceModel, annotated: Path) -> None:
    before = residual(model, annotated)
    assert np.abs(before[:67]).max() > 0.5
    corrected = with_habits(model, annotated)
    np.testing.assert_allclose(residual(corrected, annotated), 0, atol=1e-3)
    assert not before[67].any()
    # The model that was asked stays as it was.
    np.testing.assert_array_equal(residual(model, annotated), before)
    assert not model.reconstructor.asymmetry.any()


def test_a_step_to_the_right_is_found_in_crop_pixels(model: FaceModel, annotated: Path) -> None:
    before = residual(model, annotated)
    path = annotated / "mine" / "labels.npz"
    with np.load(path) as labels:
        landmarks, person = labels["landmarks"] + np.array([3.0, 0.0], np.float32), labels["person"]
    np.savez(path, landmarks=landmarks, person=person)
    crop_pixels = 3.0 * 64 * CANVAS_MARGIN / CANVAS_SIZE
    step = (residual(model, annotated) - before)[:67]
    np.testing.assert_allclose(step, np.tile([crop_pixels, 0.0], (67, 1)), atol=1e-3)


def test_landmarks_count_as_much_as_their_folder_does(model: FaceModel, annotated: Path) -> None:
    shutil.copytree(annotated / "mine", annotated / "shifted")
    path = annotated / "shifted" / "labels.npz"
    with np.load(path) as labels:
        landmarks, person = labels["landmarks"] + np.array([4.0, 0.0], np.float32), labels["person"]
    np.savez(path, landmarks=landmarks, person=person)

    def residual_of(mine: float, shifted: float) -> Floats:
        folders = [Folder("mine", 0.25, mine), Folder("shifted", 0.25, shifted)]
        return mean_residual(model, *annotated_crops(annotated, folders, 64))[:67]

    step = residual_of(0, 1) - residual_of(1, 0)
    np.testing.assert_allclose(residual_of(1.0, 0.25), residual_of(1, 0) + step / 5, atol=1e-3)
    assert not residual_of(0, 0).any()


def test_a_step_to_the_right_turns_round_in_a_mirror_and_one_down_does_not(model: FaceModel, annotated: Path) -> None:
    crops, _, _ = annotated_crops(annotated, (), 64)
    before = mean_asymmetry(model, crops)
    with torch.no_grad():
        model.reconstructor.annotation.bias.add_(torch.tensor([0.05, 0.02]).repeat(68))
    right = 0.05 * offset_scale(64)
    step = mean_asymmetry(model, crops) - before
    np.testing.assert_allclose(step, np.tile([right, 0.0], (68, 1)), atol=1e-3)


def test_what_depends_on_the_picture_counts_as_well(model: FaceModel, annotated: Path) -> None:
    """Not only the constant part of the offset turns round: the average of both pictures says by how much."""
    with torch.no_grad():
        model.reconstructor.annotation.weight.normal_(0, 0.1)
    corrected = with_habits(model, annotated)
    crops, truth, _ = annotated_crops(annotated, (), 64)
    mirrored = [np.ascontiguousarray(crop[:, ::-1]) for crop in crops]
    straight, turned = (predict(corrected, seen).landmarks[:, :, :2].numpy() for seen in (crops, mirrored))
    turned[:, :, 0] = 63 - turned[:, :, 0]
    average = (straight + turned[:, IBUG_MIRROR]) / 2 + corrected.reconstructor.asymmetry.numpy()
    np.testing.assert_allclose(np.nanmean((truth - average)[:, :67], 0), 0, atol=1e-3)


def test_older_weights_take_that_of_the_constant_offset(model: FaceModel) -> None:
    state = model.state_dict()
    state["reconstructor.annotation.bias"] = torch.tensor([0.05, 0.02]).repeat(68)
    del state["reconstructor.asymmetry"]
    model.load_state_dict(state)
    right = 0.05 * offset_scale(64)
    np.testing.assert_allclose(model.reconstructor.asymmetry, np.tile([right, 0.0], (68, 1)), rtol=1e-5)


def test_geometry_stays_as_it_is(model: FaceModel, annotated: Path) -> None:
    corrected, image = with_habits(model, annotated), torch.full((1, 3, 64, 64), 90.0)
    with torch.no_grad():
        before, after = model(image), corrected(image)
    for name in ("shape", "vertices", "expression", "crop_from_head", "confidence"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name), atol=0, rtol=0)
    assert (after.landmarks != before.landmarks).any()


def test_machines_have_no_habits_that_count(model: FaceModel, prepared: Path, tmp_path: Path) -> None:
    for packed in (prepared / "photographs", tmp_path):
        assert not residual(model, packed).any()
        assert not with_habits(model, packed).reconstructor.asymmetry.any()

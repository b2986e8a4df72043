"""Prepared folders to batches: the i-th is always the same, its labels lie on its pictures, and nothing need be there
but rendered people."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facerecon_rt.align import CROP_CENTRE_MM, square_from_camera
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import UsageError
from facerecon_rt.template import load_template
from facerecon_rt.types import Floats
from facerecon_training.augment import AugmentConfig
from facerecon_training.conventions import annotated_offsets
from facerecon_training.data import (
    FOLDERS,
    IRIS_SEEN,
    Batch,
    BatchConfig,
    Batches,
    Folder,
    Packed,
    folders_in,
    people_squares,
    usual_folder,
)
from facerecon_training.photographs import camera_from_landmarks
from facerecon_training.prepare import EXPRESSIVE, read_face
from facerecon_training.rendered.morphable import IDENTITY_MODES, MorphableFace
from facerecon_training.rendered.render import camera_for_crop
from facerecon_training.weak_labels import LOOK_DEG
from numpy.typing import NDArray

SMALL = BatchConfig(rendered_pairs=2, person_pairs=1, photograph_pairs=1, photographs=2, backgrounds=2, head_poses=0)
PLAIN = AugmentConfig(
    grey=0, blur=0, low_resolution=0, noise=0, jpeg=0, occluder=0, flip=0, closed_eyes=0, cut=0, half_hidden=0, dark=0
)
INDEX = {name: i for i, name in enumerate(BLENDSHAPES)}

Take = Callable[..., Batch]


@pytest.fixture
def take(prepared: Path) -> Take:
    """The i-th batch of the prepared folder, or of another one."""

    def batch(
        index: int = 0,
        folder: Path = prepared,
        backgrounds: Path | None = None,
        start: int = 0,
        layout: BatchConfig = SMALL,
    ) -> Batch:
        batches = iter(Batches(folder, backgrounds, layout, PLAIN, 64, 3, start))
        for _ in range(index):
            next(batches)
        return next(batches)

    return batch


def without_photographs(prepared: Path, target: Path) -> Path:
    target.mkdir()
    for name in ("people", "face.npz"):
        (target / name).symlink_to(prepared / name)
    return target


def assert_equal(a: Batch, b: Batch) -> None:
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_a_batch_has_pairs_first_then_photographs_then_backgrounds(take: Take) -> None:
    batch = take()
    assert SMALL.pairs == 4
    assert SMALL.size == len(batch.image) == 12
    assert batch.image.shape == (12, 3, 64, 64)
    assert batch.image.dtype == torch.uint8
    assert batch.rendered.tolist() == [True] * 4 + [False] * 8
    assert batch.is_face.tolist() == [1.0] * 10 + [0.0] * 2
    assert (batch.landmark_weights[4:10] > 0).all()
    assert not batch.landmark_weights[[0, 1, 2, 3, 10, 11]].any()


def test_the_two_of_a_rendered_pair_are_one_person_seen_twice(take: Take) -> None:
    batch = take()
    for first, second in ((0, 1), (2, 3)):
        assert (batch.identity[first] == batch.identity[second]).all()
        assert (batch.crop_from_head[first] != batch.crop_from_head[second]).any()


def test_a_batch_depends_on_its_number_alone(take: Take) -> None:
    assert_equal(take(2), take(0, start=2))
    assert (take(0).image != take(1).image).any()


def test_a_rendered_crops_camera_lies_on_its_face(take: Take) -> None:
    """The drawn face is brighter than its surroundings."""
    batch = take()
    for row in range(4):
        nose = batch.crop_from_head[row] @ torch.tensor([0.0, -30.0, 20.0, 1.0])
        x, y = (int(v) for v in nose[:2])
        image = batch.image[row].float().mean(0)
        assert image[y - 2 : y + 3, x - 2 : x + 3].mean() > image[[0, 0, -1, -1], [0, -1, 0, -1]].mean() + 10


def test_photographed_landmarks_lie_on_their_face(take: Take) -> None:
    batch = take()
    for row in range(4, 10):
        points = batch.landmarks[row, 27:36].round().long()
        image = batch.image[row].float().mean(0)
        assert image[points[:, 1], points[:, 0]].mean() > image[[0, 0, -1, -1], [0, -1, 0, -1]].mean() + 10


def test_the_two_of_a_photographed_pair_are_one_person(take: Take, prepared: Path) -> None:
    with np.load(prepared / "photographs" / "youtube-train" / "labels.npz") as labels:
        known, person = proportions(labels["landmarks"]), labels["person"]
    for index in range(4):
        found = [int(np.abs(known - one).argmin()) for one in proportions(take(index).landmarks[4:6].numpy())]
        assert found[0] != found[1]
        assert person[found[0]] == person[found[1]]
        people = take(index).person
        assert people[4] == people[5] >= 0 and (people[:4] == -1).all() and (people[6:] == -1).all()


def test_no_person_is_in_two_pairs_of_a_batch(take: Take, prepared: Path) -> None:
    """Where people are too few, two augmentations of one photograph take their place."""
    many = Packed.read(prepared / "photographs" / "youtube-train")
    batch = take(layout=replace(SMALL, person_pairs=len(many.people) + 2, photograph_pairs=0))
    people = batch.person[batch.person >= 0]
    assert len(people) == 2 * len(many.people) == 2 * len(people.unique())
    first = 2 * SMALL.rendered_pairs + len(people)
    for row in (first, first + 2):
        one, other = proportions(batch.landmarks[row : row + 2].numpy())
        assert one == pytest.approx(other, rel=1e-4)


def proportions(landmarks: Floats) -> Floats:
    """(P, 68, 2) -> (P,) a number that similarities leave as it is, and that tells photographs apart."""
    values = np.linalg.svd(landmarks - landmarks.mean(1, keepdims=True), compute_uv=False)
    return np.asarray(values[:, 1] / values[:, 0], np.float32)


@pytest.mark.parametrize("roll", [0.0, 30.0])
def test_a_heads_direction_turns_with_its_crop(prepared: Path, tmp_path: Path, roll: float) -> None:
    for name in ("people", "photographs", "face.npz"):
        (tmp_path / name).symlink_to(prepared / name)
    (tmp_path / "head_pose").mkdir()
    direction = np.array([0.6, 0.0, -0.8], np.float32)
    np.save(tmp_path / "head_pose" / "images.npy", np.full((1, 192, 192, 3), 90, np.uint8))
    np.savez(tmp_path / "head_pose" / "labels.npz", direction=direction[None], person=np.array([1]))
    batch = replace(SMALL, head_poses=3)
    augment = replace(PLAIN, roll_deg=roll)
    made = next(iter(Batches(tmp_path, None, batch, augment, 64, 3, 0)))
    rows = made.direction[10:13]
    assert not made.direction[[*range(10), 13, 14]].any()
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(rows[:, 2], torch.full((3,), -0.8))
    if roll:
        assert rows[:, 1].abs().max() > 0.02
    else:
        torch.testing.assert_close(rows, torch.from_numpy(direction).expand(3, 3))
    assert (made.is_face[10:13] == 1).all()
    assert not made.landmark_weights[10:13].any()


@pytest.mark.parametrize("gentle", [0.0, 0.7, 1.0])
def test_the_share_of_gently_augmented_crops_is_that_of_the_configuration(prepared: Path, gentle: float) -> None:
    """Without other noise, a crop is turned by up to 2.5 * 14 degrees, and by 2.5 * 14 * GENTLE = 12.25 if gently.

    A normal number exceeds 12.25 / 14 in 38 of 100 crops.
    """
    batches = iter(Batches(prepared, None, SMALL, replace(PLAIN, gentle=gentle), 64, 3, 0))
    people, face = Packed.read(prepared / "people" / "train"), read_face(prepared)
    upright = {
        people.labels["identity"][i].tobytes() + people.labels["expression"][i].tobytes(): (square.roll, camera)
        for i, (square, camera) in enumerate(
            zip(people_squares(people, face), people.labels["canvas_from_head"], strict=True)
        )
    }
    turns = []
    for _ in range(40):
        batch = next(batches)
        for row in torch.nonzero(batch.rendered).flatten().tolist():
            roll, camera = upright[batch.identity[row].numpy().tobytes() + batch.expression[row].numpy().tobytes()]
            turn = batch.crop_from_head[row, :2, :3].numpy() @ np.linalg.pinv(camera[:2, :3])
            turns.append(abs(np.degrees(math.remainder(-math.atan2(turn[1, 0], turn[0, 0]) - roll, 2 * math.pi))))
    far = np.mean(np.array(turns) > 12.3)
    assert far == pytest.approx(0.38 * (1 - gentle), abs=0.08)


def test_without_photographs_every_face_is_rendered_and_the_layout_stays(
    take: Take, prepared: Path, tmp_path: Path
) -> None:
    batch = take(folder=without_photographs(prepared, tmp_path / "clean"))
    assert batch.rendered.tolist() == [True] * 10 + [False] * 2
    for pair in range(SMALL.pairs):
        assert (batch.identity[2 * pair] == batch.identity[2 * pair + 1]).all()
    assert not batch.landmark_weights.any()


def test_without_image_sets_their_pairs_are_two_crops_of_one_photograph(
    take: Take, prepared: Path, tmp_path: Path
) -> None:
    folder = without_photographs(prepared, tmp_path / "own")
    target = folder / "photographs" / "mine"
    shutil.copytree(prepared / "photographs" / "youtube-train", target)
    assert [(f.name, f.sets) for f in folders_in(folder / "photographs")] == [("mine", False)]
    batch = take(folder=folder)
    assert batch.rendered.tolist() == [True] * 4 + [False] * 8
    with np.load(target / "labels.npz") as labels:
        known = proportions(labels["landmarks"])
    for first in (4, 6):
        one, other = proportions(batch.landmarks[first : first + 2].numpy())
        assert one == pytest.approx(other, rel=1e-4)
        assert np.abs(known / one - 1).min() < 1e-4


def test_a_folder_of_image_sets_says_so_in_its_name(prepared: Path, tmp_path: Path) -> None:
    for name in ("family-sets", "afw"):
        shutil.copytree(prepared / "photographs" / "youtube-train", tmp_path / name)
    (tmp_path / "unfinished").mkdir()
    known, own = folders_in(tmp_path)
    assert known.name == "afw"
    assert (own.name, own.sets) == ("family-sets", True)


def test_what_is_known_of_rendered_faces_is_all_of_expression_and_gaze(take: Take, prepared: Path) -> None:
    batch = take()
    with np.load(prepared / "people" / "train" / "labels.npz") as labels:
        expression, gaze, identity = labels["expression"], labels["gaze_deg"], labels["identity"]
    for row in range(4):
        same = np.flatnonzero((identity == batch.identity[row].numpy()).all(1))
        index = next(i for i in same if (expression[i] == batch.expression[row].numpy()).all())
        np.testing.assert_allclose(batch.gaze[row].numpy(), gaze[index] * np.pi / 180, rtol=1e-6)
        # The bulge of the cornea still tells a tenth of where a closed eye looks.
        blinks = expression[index][[INDEX["eyeBlink_L"], INDEX["eyeBlink_R"]]]
        np.testing.assert_allclose(batch.gaze_weights[row].numpy(), 1 - 0.9 * blinks, rtol=1e-5)
    assert (batch.expression_weights[:4] == 1).all()
    assert not batch.eyes_weights[:4].any()
    assert not batch.expression_weights[10:].any() and not batch.eyes_weights[10:].any()


def test_weak_labels_count_where_there_are_any(take: Take) -> None:
    jaw, batches = INDEX["jawOpen"], [take(index) for index in range(3)]
    weights = torch.cat([batch.expression_weights[4:10] for batch in batches])
    eyes = torch.cat([batch.eyes_weights[4:10] for batch in batches])
    known = weights[:, jaw] > 0
    assert 0 < known.sum() < len(known)
    assert (weights[:, jaw][known] == 1).all()
    assert not weights[:, [i for i in range(53) if i != jaw]].any()
    assert (eyes[known] == 1).all() and not eyes[~known].any()
    for batch in batches:
        for row in torch.nonzero(batch.eyes_weights[:, 0])[:, 0]:
            corners = batch.landmarks[row][[45, 42, 36, 39]].reshape(2, 2, 2)
            torch.testing.assert_close(batch.eyes[row][:, :2], corners, atol=1e-3, rtol=0)
            torch.testing.assert_close(batch.eyes[row][:, 2], corners.mean(1), atol=1e-3, rtol=0)
        assert not batch.eyes[batch.eyes_weights == 0].any()


def labelled(prepared: Path, folder: Path, **labels: NDArray[Any]) -> Path:
    """Return a prepared folder whose only photographs have these labels instead of their own."""
    without_photographs(prepared, folder)
    target = folder / "photographs" / "mine"
    shutil.copytree(prepared / "photographs" / "youtube-train", target)
    with np.load(target / "labels.npz") as arrays:
        own: dict[str, Any] = dict(arrays)
    np.savez(target / "labels.npz", **(own | labels))
    return folder


@pytest.fixture
def winking(prepared: Path, tmp_path: Path) -> Path:
    """A prepared folder with a tracker's labels: the left eye winks, and the jaw moves to the left. Both eyes look to
    the subject's left: the left iris is in its outer corner, the right iris in its inner corner."""
    scores = np.full((6, 53), np.nan, np.float32)
    for name, value in (
        ("eyeBlink_L", 0.3), ("eyeBlink_R", 0.1), ("jawLeft", 0.7), ("jawRight", 0.0), ("eyeSquint_R", 0.6),
        ("mouthSmile_L", 0.2),
    ):  # fmt: skip
        scores[:, INDEX[name]] = value
    with np.load(prepared / "photographs" / "youtube-train" / "labels.npz") as labels:
        landmarks = labels["landmarks"]
    eyes = np.concatenate([landmarks[:, [[45, 42], [36, 39]]], landmarks[:, [[45], [39]]]], 2)
    return labelled(prepared, tmp_path / "winking", blendshapes=scores, eyes=eyes)


def photographs_of(folder: Path, augment: AugmentConfig) -> list[tuple[Batch, int]]:
    batches = iter(Batches(folder, None, SMALL, augment, 64, 3, 0))
    return [(batch, row) for batch in (next(batches), next(batches)) for row in range(4, 10)]


def test_in_a_mirrored_photograph_weak_labels_change_sides(winking: Path) -> None:
    for batch, row in photographs_of(winking, PLAIN):
        scores, known = batch.expression[row], batch.expression_weights[row] > 0
        assert scores[[INDEX["eyeBlink_L"], INDEX["eyeBlink_R"]]].tolist() == pytest.approx([0.3, 0.1])
        assert scores[INDEX["jawLeft"]] == pytest.approx(0.7)
        assert known[INDEX["mouthSmile_L"]] and not known[INDEX["mouthSmile_R"]]
        torch.testing.assert_close(batch.eyes[row, :, 2], batch.landmarks[row, [45, 39]], atol=1e-3, rtol=0)
    for batch, row in photographs_of(winking, replace(PLAIN, flip=1)):
        scores, known = batch.expression[row], batch.expression_weights[row] > 0
        assert scores[[INDEX["eyeBlink_L"], INDEX["eyeBlink_R"]]].tolist() == pytest.approx([0.1, 0.3])
        assert scores[INDEX["jawRight"]] == pytest.approx(0.7) and scores[INDEX["jawLeft"]] == 0
        assert scores[INDEX["eyeSquint_L"]] == pytest.approx(0.6)
        assert known[INDEX["mouthSmile_R"]] and not known[INDEX["mouthSmile_L"]]
        # The eyes look to the subject's right now: the left iris in its inner corner, the right one in its outer.
        corners = batch.landmarks[row][[45, 42, 36, 39]].reshape(2, 2, 2)
        torch.testing.assert_close(batch.eyes[row, :, :2], corners, atol=1e-3, rtol=0)
        torch.testing.assert_close(batch.eyes[row, :, 2], batch.landmarks[row, [42, 36]], atol=1e-3, rtol=0)


def test_drawn_lids_are_closed_whatever_the_tracker_says_and_no_eye_is_seen_under_them(winking: Path) -> None:
    drawn = 0
    for batch, row in photographs_of(winking, replace(PLAIN, closed_eyes=1)):
        blink, scores = batch.blink[row], batch.expression[row, [INDEX["eyeBlink_L"], INDEX["eyeBlink_R"]]]
        drawn += 1
        assert blink.max() > 0
        torch.testing.assert_close(scores, torch.maximum(blink, torch.tensor([0.3, 0.1])))
        # What it said of lids that were open says nothing now.
        assert batch.expression_weights[row, INDEX["eyeSquint_R"]] == 0
        assert batch.expression_weights[row, INDEX["eyeBlink_L"]] == 1
        assert batch.eyes_weights[row].tolist() == (scores < IRIS_SEEN).float().tolist()
        assert not batch.gaze_weights[row].any()
    assert drawn == 12


def test_a_photograph_has_the_gaze_that_the_tracker_gives_both_eyes(prepared: Path, tmp_path: Path) -> None:
    scores = np.zeros((6, 53), np.float32)
    scores[:, [INDEX["eyeLookOut_L"], INDEX["eyeLookIn_R"], INDEX["eyeLookDown_L"], INDEX["eyeLookDown_R"]]] = 0.4
    folder = labelled(prepared, tmp_path / "looking", blendshapes=scores)
    angle = np.radians(0.4 * LOOK_DEG)
    for flip, yaw in ((0, angle), (1, -angle)):  # a mirrored subject looks to the other side
        for batch, row in photographs_of(folder, replace(PLAIN, flip=flip)):
            np.testing.assert_allclose(batch.gaze[row].numpy(), [[yaw, -angle]] * 2, atol=1e-6)
            assert batch.gaze_weights[row].tolist() == [1, 1]


def test_the_folders_that_are_known_share_a_batch_and_expressive_ones_hold_sets() -> None:
    of_photographs = [folder for folder in FOLDERS if folder.name != "head_pose"]
    assert sum(folder.share for folder in of_photographs) == pytest.approx(1), "clean data hold head_pose and no other"
    (expressive,) = (folder for folder in FOLDERS if folder.name == EXPRESSIVE)
    assert expressive.sets and expressive.machine_made and expressive.weight < 0.5


def test_backgrounds_are_photographs_if_there_are_any(take: Take, data: Path) -> None:
    invented, empty = take(), take(backgrounds=data / "faces")
    assert_equal(invented, empty)
    # Half of the crops without a face show the surroundings of a face instead.
    pairs = ((take(i, backgrounds=data / "backgrounds"), take(i)) for i in range(4))
    assert any((photographed.image[10:] != other.image[10:]).any() for photographed, other in pairs)


def test_a_folder_that_was_not_prepared_is_named(take: Take, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"people/train holds no packed pictures; run `facerecon-train prepare`"):
        take(folder=tmp_path)


def test_shares_and_weights_of_folders_can_be_chosen(prepared: Path, tmp_path: Path) -> None:
    for name in ("mine", "afw", "helen-train"):
        shutil.copytree(prepared / "photographs" / "youtube-train", tmp_path / name)
    chosen = (Folder("mine", 0.6, 0.5), Folder("afw", 0.0, 1.0))
    helen, mine = folders_in(tmp_path, chosen)
    assert (helen.name, helen.share, helen.weight) == ("helen-train", 0.2, 1.0)
    assert (mine.name, mine.share, mine.weight) == ("mine", 0.6, 0.5)
    assert usual_folder("aaf-train").weight == 0.7
    assert usual_folder("mine-sets") == Folder("mine-sets", 0.25, 1.0, sets=True)
    with pytest.raises(UsageError, match=r"no such packed photographs .* choose from helen-train, afw, mine"):
        folders_in(tmp_path, (Folder("other", 1.0, 1.0),))


def test_rendered_crops_lie_where_landmarks_say_and_do_not_give_a_heads_size_away(ball_face: MorphableFace) -> None:
    # One mode that grows the whole head about the middle of its crop, and a head that nods, turned aside.
    centre = np.array(CROP_CENTRE_MM, np.float32)
    growing = replace(ball_face, identity=ball_face.identity.copy())
    growing.identity[0] = 0.05 * (ball_face.mean - centre)
    cameras = np.stack([camera_for_crop(*angles, 192, 137) for angles in ((0, 0, 0), (0, 0, 0), (30, 40, 0))])
    identity = np.zeros((3, IDENTITY_MODES), np.float32)
    identity[1, 0] = 2.0
    labels: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {
        "identity": identity,
        "expression": np.zeros((3, len(BLENDSHAPES)), np.float32),
        "canvas_from_head": cameras,
    }
    average, large, askew = people_squares(Packed(np.zeros((3, 192, 192, 3), np.uint8), labels, []), growing)
    # A photograph of the mean face, annotated by a person, is cut out in the same way.
    points = ball_face.mean[load_template().landmarks] + annotated_offsets()
    annotated = (points @ cameras[0, :2, :3].T + cameras[0, :2, 3]).astype(np.float32)
    side = square_from_camera(camera_from_landmarks(annotated)).side
    assert average.side == pytest.approx(side, rel=1e-5) and 0.94 < side / 137 < 0.96
    assert large.side == pytest.approx(1.1 * average.side, rel=0.01)
    assert (large.x, large.y) == pytest.approx((average.x, average.y), abs=0.1)
    upright = square_from_camera(cameras[2])
    assert abs(upright.roll) > 0.2
    assert askew.roll == pytest.approx(upright.roll, abs=0.03)


def test_half_of_a_folders_photographs_are_those_that_a_person_labelled(prepared: Path, tmp_path: Path) -> None:
    scores, trust = np.zeros((6, 53), np.float32), np.ones((6, 53), np.float32)
    scores[2, INDEX["noseSneer_L"]], trust[2, INDEX["noseSneer_L"]] = 0.7, 9
    folder = labelled(prepared, tmp_path / "looked", blendshapes=scores, trust=trust)
    batches = iter(Batches(folder, None, SMALL, PLAIN, 64, 3, 0))
    photographs = [(batch, row) for batch, _ in zip(batches, range(60), strict=False) for row in range(4, 10)]
    seen = [batch.expression[row, INDEX["noseSneer_L"]] > 0 for batch, row in photographs]
    assert 1 / 6 + 0.1 < np.mean(seen) < 0.7
    for (batch, row), sneer in zip(photographs, seen, strict=True):
        assert batch.expression_weights[row, INDEX["noseSneer_L"]] == (9 if sneer else 1)
        assert batch.expression_weights[row, INDEX["jawOpen"]] == 1


def test_photographs_that_an_older_release_prepared_are_refused_by_name(prepared: Path, tmp_path: Path) -> None:
    folder = labelled(prepared, tmp_path / "older")
    path = folder / "photographs" / "mine" / "labels.npz"
    with np.load(path) as arrays:
        older: dict[str, Any] = {name: array for name, array in arrays.items() if name != "trust"}
    np.savez(path, **older)
    with pytest.raises(UsageError, match=r"labels\.npz cannot be read \(.*trust.*run `facerecon-train prepare` again"):
        Batches(folder, None, SMALL, PLAIN, 64, 3, 0)

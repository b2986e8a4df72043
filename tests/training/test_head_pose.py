"""Pointing'04: what names say, where heads point, and how far off they are seen."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.pose import euler_from_camera, rotation_from_euler
from facerecon_rt.types import Detection, Image
from facerecon_training.photographs import CANVAS_SIZE
from facerecon_training.rendered.head_pose import (
    direction_in_picture,
    neutral_faces,
    pack_head_poses,
    pointing_photographs,
    pose_figures,
)
from facerecon_training.weak_labels import ABSENT_TRUST, MEANINGS, WeakLabels


class FaceInTheMiddle:
    """A detector for pictures of one face."""

    def detect(self, image: Image) -> list[Detection]:
        height, width = image.shape[:2]
        box = np.array([width / 2 - 40, height / 2 - 40, width / 2 + 40, height / 2 + 40], np.float32)
        return [Detection(box, 0.9)]


def test_names_hold_person_tilt_and_pan(tmp_path: Path) -> None:
    for name in ("person01123-30+45.jpg", "person09145+0-90.jpg", "person7.jpg", "holiday.jpg"):
        (tmp_path / name).touch()
    first, second = pointing_photographs(tmp_path)
    assert (first.person, first.tilt, first.pan, first.for_training) == ("01", -30, 45, True)
    assert (second.person, second.tilt, second.pan, second.for_training) == ("09", 0, -90, False)


def test_a_head_points_up_and_to_the_pictures_left() -> None:
    np.testing.assert_allclose(direction_in_picture(0, 0), [0, 0, -1], atol=1e-6)
    x, y, z = direction_in_picture(20, 40)
    assert x < 0  # pan is positive to the picture's left
    assert y < 0
    assert z < 0
    pitch, yaw, _ = euler_from_camera(np.column_stack([rotation_from_euler(20, -40, 0), np.zeros(3)]))
    assert pitch == pytest.approx(20)
    assert yaw == pytest.approx(-40)


def test_people_to_learn_from_are_packed_and_no_others(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    for name in ("person01100+15-30", "person01101+90+0", "person08100+0+0"):
        cv2.imwrite(str(tmp_path / f"{name}.jpg"), picture)
    assert pack_head_poses(tmp_path, FaceInTheMiddle(), tmp_path / "packed") == 1
    assert np.load(tmp_path / "packed" / "images.npy").shape == (1, CANVAS_SIZE, CANVAS_SIZE, 3)
    with np.load(tmp_path / "packed" / "labels.npz") as labels:
        np.testing.assert_allclose(labels["direction"][0], direction_in_picture(15, -30))
        assert labels["person"].tolist() == [1]


def test_faces_that_are_seen_well_are_labelled_at_rest() -> None:
    names = ("person01100+15-30.jpg", "person02100+0+60.jpg", "person08100+0+0.jpg", "person03100-30+45.jpg", "x.jpg")
    count = len(names)
    answers = WeakLabels(
        files={name: row for row, name in enumerate(names)},
        blendshapes=np.full((count, len(BLENDSHAPES)), np.nan, np.float32),
        trust=np.ones((count, len(BLENDSHAPES)), np.float32),
        eyes=np.zeros((count, 2, 3, 2), np.float32),
        landmarks=np.arange(count, dtype=np.float32)[:, None, None] * np.ones((1, 68, 2), np.float32),
        person=np.full(count, -1),
        valid=np.zeros((count, 4), np.int64),
    )
    rest = neutral_faces(answers)
    assert list(rest.files) == [names[0], names[3]] and list(rest.files.values()) == [0, 1]
    assert rest.person.tolist() == [1, 3] and rest.landmarks[:, 0, 0].tolist() == [0, 3]
    assert np.isnan(rest.landmarks[:, 17:27]).all() and np.isfinite(rest.landmarks[:, 27:]).all()
    frown, blink = BLENDSHAPES.index("mouthFrown_L"), BLENDSHAPES.index("eyeBlink_L")
    assert (rest.blendshapes[:, frown] == np.float32(MEANINGS["frown"].most)).all()
    assert (rest.trust[:, frown] == ABSENT_TRUST).all()
    assert np.isnan(rest.blendshapes[:, blink]).all()


def test_nominal_poses_have_neither_sign_nor_zero() -> None:
    nominal = np.array([[-30.0, 15.0], [0.0, 30.0], [30.0, 45.0], [0.0, 0.0]])
    measured = nominal * [1, -1] + [5.0, -3.0]
    measured[3, 1] += 8.0
    figures = pose_figures(measured, nominal)
    assert figures["tilt_deg"] == pytest.approx(0.0)
    assert figures["pan_deg"] == pytest.approx(2.0)

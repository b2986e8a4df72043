"""What people wear: it follows the head, and the same seed gives the same."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from facerecon_rt.template import load_template
from facerecon_training import accessories
from facerecon_training.render import camera_for_crop

SIZE = 192


def plain() -> np.ndarray:
    return np.full((SIZE, SIZE, 3), 128, np.uint8)


@pytest.mark.parametrize("draw", [accessories._locks, accessories._hat, accessories._hand])
def test_things_cover_a_part_of_the_picture(draw: object) -> None:
    camera = camera_for_crop(5, 20, 0, SIZE, SIZE * 0.8)
    for seed in range(8):
        drawn = draw(plain(), camera, np.random.default_rng(seed))  # type: ignore[operator]
        changed = (np.abs(drawn.astype(int) - 128).max(2) > 8).mean()
        assert 0.002 < changed < 0.7


@pytest.mark.parametrize("yaw", [-60.0, 0.0, 60.0])
def test_glasses_sit_on_the_eyes_and_show_the_near_temple(yaw: float) -> None:
    camera = camera_for_crop(0, yaw, 0, SIZE, SIZE * 0.8)
    landmarks = load_template().landmark_positions
    eyes = landmarks[36:48].mean(0) @ camera[:2, :3].T + camera[:2, 3]
    # Turned to their left (positive yaw), people show their right temple.
    near = 1.0 if yaw < 0 else -1.0
    ear = np.array([near * 76.0, 0, -85.0]) @ camera[:2, :3].T + camera[:2, 3]
    for seed in range(8):
        drawn = accessories._glasses(plain(), camera, landmarks, np.random.default_rng(seed))
        changed = np.abs(drawn.astype(int) - 128).max(2) > 30
        rows, _ = np.nonzero(changed)
        assert abs(rows.mean() - eyes[1]) < 12
        x, y = (round(float(value)) for value in ear)
        if yaw:
            assert changed[y - 12 : y + 12, max(0, x - 5) : x + 5].any()


def test_one_seed_gives_one_picture() -> None:
    camera = camera_for_crop(0, 10, 0, SIZE, SIZE * 0.8)
    first, again = (
        accessories.add_accessories(plain(), camera, load_template().landmark_positions, np.random.default_rng(3))
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
    assert cv2.absdiff(first, plain()).any() or first.shape == (SIZE, SIZE, 3)

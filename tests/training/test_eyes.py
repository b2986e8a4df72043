"""Eyes that are open, closed, or drawn closed."""

from __future__ import annotations

import numpy as np
import pytest
from facerecon_rt.template import load_template
from facerecon_rt.types import Floats
from facerecon_training.augment import AugmentConfig, blinked
from facerecon_training.rendered.eyes import CLOSED_RATIO, EYES, OPEN_RATIO, blink_labels, draw_lids, eye_openings

LEFT, RIGHT = EYES
BOTH = np.ones(2, np.float32)


def face() -> Floats:
    """(68, 2) landmarks of the template, upright in a picture of 192 pixels, eyes about 25 wide."""
    positions = load_template().landmark_positions
    return (positions[:, :2] * [1, -1] + 96).astype(np.float32)


def picture(landmarks: Floats) -> np.ndarray:
    """Bright between the lids, dark elsewhere, with a brighter line above them."""
    image = np.full((192, 192, 3), 60, np.uint8)
    for eye in EYES:
        x0, x1 = sorted(int(landmarks[corner, 0]) for corner in eye.corners)
        top, bottom = int(landmarks[list(eye.upper), 1].min()), int(landmarks[list(eye.lower), 1].max())
        image[top : bottom + 1, x0 : x1 + 1] = 250
    return image


def test_the_opening_is_over_the_width_of_the_eye() -> None:
    landmarks = np.zeros((68, 2), np.float32)
    landmarks[42], landmarks[45] = (0, 0), (30, 0)
    landmarks[43], landmarks[44], landmarks[46], landmarks[47] = (10, -6), (20, -6), (20, 3), (10, 3)
    assert eye_openings(landmarks).tolist() == pytest.approx([0.3, 0])
    weights, known = blink_labels(landmarks)
    assert (weights.tolist(), known.tolist()) == ([0.0, 1.0], [True, True])


def test_between_open_and_closed_nothing_is_said() -> None:
    landmarks = face()
    middle = (OPEN_RATIO + CLOSED_RATIO) / 2
    for eye, ratio in zip(EYES, eye_openings(landmarks), strict=True):
        lower = landmarks[list(eye.lower)]
        landmarks[list(eye.upper)] = lower + middle / ratio * (landmarks[list(eye.upper)] - lower)
    assert not blink_labels(landmarks)[1].any()
    assert not blink_labels(np.full((68, 2), np.nan, np.float32))[1].any()


def test_closed_lids_hide_the_eye_and_meet() -> None:
    landmarks = face()
    image = picture(landmarks)
    closed, moved, drawn = draw_lids(image, landmarks, BOTH)
    assert drawn.tolist() == [1, 1]
    assert eye_openings(landmarks).min() > OPEN_RATIO
    assert eye_openings(moved).max() < 0.01
    for eye in EYES:
        middle = landmarks[list(eye.corners)].mean(0).round().astype(int)
        assert image[middle[1], middle[0], 0] == 250
        assert closed[middle[1], middle[0], 0] == 60
    # Nothing else moves.
    lids = [index for eye in EYES for index in eye.upper]
    np.testing.assert_array_equal(np.delete(moved, lids, 0), np.delete(landmarks, lids, 0))
    np.testing.assert_array_equal(closed[130:], image[130:])


def test_one_eye_can_wink_and_half_closed_is_half() -> None:
    landmarks = face()
    image = picture(landmarks)
    before = image.copy()
    half, moved, _ = draw_lids(image, landmarks, np.array([0.5, 0.0], np.float32))
    left, right = eye_openings(moved) / eye_openings(landmarks)
    assert left == pytest.approx(0.5, abs=1e-5)
    assert right == pytest.approx(1)
    side = 96  # the subject's left eye is in the right half of the picture
    assert (half[:, side:] != image[:, side:]).any()
    np.testing.assert_array_equal(half[:, :side], image[:, :side])
    np.testing.assert_array_equal(image, before)


def test_a_turned_head_closes_its_eyes_alike() -> None:
    landmarks = face()
    image = picture(landmarks)
    quarter = np.ascontiguousarray(np.rot90(image))  # anticlockwise: (x, y) comes to (y, 191 - x)
    turned = np.stack([landmarks[:, 1], 191 - landmarks[:, 0]], 1)
    closed, _, _ = draw_lids(image, landmarks, BOTH)
    np.testing.assert_allclose(draw_lids(quarter, turned, BOTH)[0], np.rot90(closed), atol=2)


@pytest.mark.parametrize("index", [37, 19])
def test_an_eye_that_is_not_annotated_stays(index: int) -> None:
    landmarks = face()
    landmarks[index] = np.nan
    image = picture(landmarks=face())
    closed, moved, drawn = draw_lids(image, landmarks, np.array([0.0, 1.0], np.float32))
    assert not drawn.any()
    np.testing.assert_array_equal(closed, image)
    np.testing.assert_array_equal(moved, landmarks)


def test_open_eyes_are_closed_now_and_then_and_known_to_be() -> None:
    landmarks = face()
    image = picture(landmarks)
    results = [blinked(image, landmarks, AugmentConfig(closed_eyes=0.5), np.random.default_rng(i)) for i in range(200)]
    weights = np.stack([result.weights for result in results])
    assert [result.drawn for result in results] == weights.any(1).tolist()
    assert 0.35 < weights.any(1).mean() < 0.65
    assert {tuple(eyes) for eyes in (weights > 0).tolist()} == {
        (False, False),
        (True, True),
        (True, False),
        (False, True),
    }
    assert all(result.known.all() for result in results)
    closed = next(result for result in results if (result.weights == 1).all())
    assert eye_openings(closed.landmarks).max() < 0.01


def test_eyes_that_are_closed_already_are_not_drawn() -> None:
    image = picture(face())
    _, landmarks, _ = draw_lids(image, face(), BOTH)
    result = blinked(image, landmarks, AugmentConfig(closed_eyes=1.0), np.random.default_rng(0))
    assert result.weights.tolist() == [1, 1]
    assert not result.drawn
    np.testing.assert_array_equal(result.canvas, image)

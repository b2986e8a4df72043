"""A cut to another person is told from all other changes between two frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from facerecon_rt.align import CROP_SIDE_MM, Square, frame_from_crop
from facerecon_rt.faces.cuts import LEAST_CHANGE, LEAST_MM, SAMPLE, SIDE, Continuity, Scenery, appearance, change
from facerecon_rt.types import Face, Floats, Image

MakeFace = Callable[..., Face]
FRONTAL = np.array(
    [[128 / CROP_SIDE_MM, 0, 0, 63.5], [0, -128 / CROP_SIDE_MM, 0, 63.5 - 30 * 128 / CROP_SIDE_MM], [0, 0, -1, 0]], "f4"
)
"""Of a head that fills a crop of 128 pixels."""


def head(seed: int) -> Image:
    """Return a picture (128, 128, 3) of random blots in place of a head."""
    random = np.random.default_rng(seed).normal(0, 1, (128, 128)).astype(np.float32)
    blots = cv2.GaussianBlur(random, (0, 0), 9)
    grey = np.clip(120 + 40 * blots / blots.std(), 20, 235)
    return np.asarray(np.repeat(grey[..., None], 3, 2), np.uint8)


def seen(crop: Image, camera: Floats = FRONTAL) -> Floats:
    found = appearance(crop, camera)
    assert found is not None and found.shape == (4, SIDE * SIDE // 2)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    return found


# Appearance of a head


def test_the_same_head_looks_the_same_and_another_one_does_not() -> None:
    assert change(seen(head(0)), seen(head(0))) == pytest.approx(0, abs=1e-6)
    assert all(change(seen(head(0)), seen(head(other))) > 2 * LEAST_CHANGE for other in range(1, 20))


ACROSS = np.linspace(0.3, 1.6, 128)[None, :, None]


@pytest.mark.parametrize(
    "lit",
    [
        lambda image: image * 0.3,
        lambda image: image * 1.3,
        lambda image: 255 * (image / 255) ** 0.5,
        lambda image: 255 * (image / 255) ** 2,
        lambda image: image * ACROSS,
        lambda image: image * ACROSS[:, ::-1],
        lambda image: image * np.array([0.5, 0.8, 1.1]),
        lambda image: image + np.random.default_rng(0).normal(0, 6, image.shape),
    ],
    ids=["darker", "brighter", "flatter", "harder", "from the right", "from the left", "warm", "noise"],
)
def test_another_light_is_no_other_head(lit: Callable[[Floats], Floats]) -> None:
    for seed in range(5):
        other = np.clip(lit(head(seed).astype(np.float32)), 0, 255).astype(np.uint8)
        assert change(seen(head(seed)), seen(other)) < 0.5 * LEAST_CHANGE


@pytest.mark.parametrize(("x", "y", "zoom", "roll"), [(6, 0, 1, 0), (-4, 5, 1, 0), (0, 0, 1.2, 0), (3, 2, 0.9, 0.2)])
def test_where_the_head_lies_in_its_crop_is_no_matter(x: float, y: float, zoom: float, roll: float) -> None:
    """The camera tells the place of the head: the picture and the camera move together."""
    moved = frame_from_crop(Square(63.5 + x, 63.5 + y, 128 * zoom, roll), 128)
    other = cv2.warpAffine(head(0), moved[:2, [0, 1, 3]], (128, 128), borderMode=cv2.BORDER_REPLICATE)
    camera = moved[:, :3] @ FRONTAL
    camera[:, 3] += moved[:, 3]
    assert change(seen(head(0)), seen(np.asarray(other, np.uint8), camera)) < 0.5 * LEAST_CHANGE


def test_a_crop_of_another_size_shows_the_same() -> None:
    half = FRONTAL * np.float32(0.5)
    half[:2, 3] -= 0.25
    smaller = np.asarray(cv2.resize(head(0), (64, 64), interpolation=cv2.INTER_AREA), np.uint8)
    assert change(seen(head(0)), seen(smaller, half)) < 0.1 * LEAST_CHANGE


@pytest.mark.parametrize(("x", "y"), [(0.25, 0.5), (0.75, 0.5), (0.5, 0.75), (0.5, 0.3)])
def test_a_hand_before_the_face_is_no_other_head(x: float, y: float) -> None:
    """The hand leaves one half of the face unchanged."""
    rows, columns = np.mgrid[0:128, 0:128] / 127
    covered = np.hypot(columns - x, rows - y)[..., None] < 0.22
    hand = np.where(covered, np.array([95, 120, 190], np.uint8), head(0)).astype(np.uint8)
    assert change(seen(head(0)), seen(hand)) < LEAST_CHANGE


def test_another_background_is_no_other_head() -> None:
    rows, columns = np.mgrid[0:128, 0:128] / 127
    outside = np.maximum(abs(columns - 0.5), abs(rows - 0.5))[..., None] > 0.42
    elsewhere = np.where(outside, head(1), head(0)).astype(np.uint8)
    assert change(seen(head(0)), seen(elsewhere)) < 0.5 * LEAST_CHANGE


def test_where_there_is_nothing_to_see_it_is_said() -> None:
    noise = np.random.default_rng(0).normal(5, 3, (128, 128, 3)).clip(0, 255).astype(np.uint8)
    for crop in (np.zeros((128, 128, 3), np.uint8), np.full((64, 64, 3), 200, np.uint8), noise):
        assert appearance(crop, FRONTAL) is None


# Frame to frame


def looking(changed: float) -> Floats:
    """Return an appearance that differs from `looking(0)` by `changed`."""
    first, second = np.zeros((2, 4, SIDE * SIDE // 2), np.float32)
    first[:, 0], second[:, 1] = 1, 1
    return np.asarray((1 - changed) * first + np.sqrt(1 - (1 - changed) ** 2) * second, np.float32)


def face(ball_face: MakeFace, changed: float, mm: float) -> Face:
    """Return the ball with an appearance that differs by `changed`, and with vertices moved by `mm`, alternately to the
    left and to the right."""
    made = ball_face(100, 100)
    sides = np.where(np.arange(len(made.shape)) // SAMPLE % 2, 1, -1)[:, None]
    return replace(
        made, appearance=looking(changed), shape=made.shape + np.float32(mm) * sides * np.array([1, 0, 0], np.float32)
    )


@pytest.mark.parametrize(
    ("changed", "mm", "cut"),
    [
        (0.0, 0.0, False),
        (3.9 * LEAST_CHANGE, 0.9 * LEAST_MM, False),  # a light
        (0.9 * LEAST_CHANGE, 9 * LEAST_MM, False),  # a blur
        (1.3 * LEAST_CHANGE, 1.3 * LEAST_MM, False),  # a small change of both
        (1.4 * LEAST_CHANGE, 1.7 * LEAST_MM, True),
        (3.9 * LEAST_CHANGE, 1.1 * LEAST_MM, True),
        (1.1 * LEAST_CHANGE, 4 * LEAST_MM, True),
    ],
)
def test_looks_and_shape_have_to_change_together(changed: float, mm: float, cut: bool, ball_face: MakeFace) -> None:
    steps = Continuity()
    steps.add(face(ball_face, 0, 0), follows=False)
    steps.add(face(ball_face, 0, 0), follows=True)
    assert steps.breaks(face(ball_face, changed, mm)) is cut


def test_a_head_that_comes_nearer_or_turns_aside_does_not_change_its_shape(ball_face: MakeFace) -> None:
    """No picture shows a head's size, and the place of a head is not part of its shape."""
    steps = Continuity()
    steps.add(face(ball_face, 0, 0), follows=False)
    other = face(ball_face, 0.9, 0)
    assert not steps.breaks(replace(other, shape=other.shape * np.float32(1.1) + np.float32(9)))


def test_a_head_that_moves_fast_may_change_more(ball_face: MakeFace) -> None:
    """The usual changes are 0.2 and 1 mm per frame. Twice as much is not a cut, and four times as much is a cut."""
    steps = Continuity()
    steps.add(face(ball_face, 0, 0), follows=False)
    for index in range(40):
        steps.add(face(ball_face, 0.2 * (index % 2 == 0), index % 2), follows=True)
    assert not steps.breaks(face(ball_face, 0.4, 1 + 2))
    assert steps.breaks(face(ball_face, 0.8, 1 + 4))


def test_a_blurred_face_is_no_other_person(ball_face: MakeFace) -> None:
    steps = Continuity()
    steps.add(face(ball_face, 0, 0), follows=False)
    other = face(ball_face, 0.8, 4)
    assert steps.breaks(other)
    assert not steps.breaks(replace(other, confidence=0.74))


def test_the_first_face_and_one_without_looks_are_no_cut(ball_face: MakeFace) -> None:
    steps = Continuity()
    other = face(ball_face, 0.9, 5)
    assert not steps.breaks(other)
    steps.add(face(ball_face, 0, 0), follows=False)
    assert not steps.breaks(replace(other, appearance=None))
    assert steps.breaks(other)
    steps.add(replace(other, appearance=None), follows=True)
    assert not steps.breaks(face(ball_face, 0, 0))


# A picture that changes as a whole


def scene(seed: int) -> Image:
    """Return a picture (90, 160, 3) of large blots."""
    blots = np.random.default_rng(seed).integers(20, 235, (9, 16, 3), np.uint8)
    return np.asarray(cv2.resize(blots, (160, 90)), np.uint8)


def test_another_picture_is_a_change_and_in_the_next_frame_still() -> None:
    scenery = Scenery()
    assert [scenery.changed(scene(seed)) for seed in (0, 0, 1, 1, 1)] == [False, False, True, True, False]


def test_something_that_passes_and_noise_are_no_change() -> None:
    """A head with an eighth of the picture's area passes in front of a background, with noise of 4 grey levels."""
    random, scenery = np.random.default_rng(0), Scenery()
    for left in range(0, 120, 12):
        image = scene(0)
        image[20:65, left : left + 40] = 250
        noisy = np.clip(image + random.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
        assert not scenery.changed(noisy)


def test_another_size_of_frame_is_a_change() -> None:
    scenery = Scenery()
    assert not scenery.changed(scene(0))
    assert scenery.changed(np.repeat(scene(0), 2, axis=1))

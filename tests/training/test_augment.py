"""Canvases to careless crops: labels follow, and one seed gives one crop."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from facerecon_rt.align import Square
from facerecon_rt.template import load_template
from facerecon_training.augment import (
    GENTLE,
    AugmentConfig,
    bad_square,
    blinked,
    crop_from_canvas,
    degrade,
    flipped,
    ideal_square,
    jittered_square,
)
from facerecon_training.photographs import CANVAS_MARGIN, CANVAS_SIZE

ALWAYS = AugmentConfig(
    grey=1, blur=1, low_resolution=1, noise=1, jpeg=1, occluder=1, closed_eyes=1, cut=1, half_hidden=1, dark=1
)
NEVER = AugmentConfig(
    grey=0, blur=0, low_resolution=0, noise=0, jpeg=0, occluder=0, closed_eyes=0, cut=0, half_hidden=0, dark=0
)


def canvas() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (CANVAS_SIZE, CANVAS_SIZE, 3), dtype=np.uint8)


def test_a_flip_moves_pixels_and_swaps_left_and_right_points() -> None:
    landmarks = np.full((68, 2), np.nan, np.float32)
    landmarks[36] = (50, 60)
    image = canvas()
    mirrored, points = flipped(image, landmarks)
    assert points[45].tolist() == [CANVAS_SIZE - 1 - 50, 60]
    assert np.isnan(points[36]).all()
    assert (mirrored[60, CANVAS_SIZE - 1 - 50] == image[60, 50]).all()
    back, again = flipped(mirrored, points)
    np.testing.assert_array_equal(back, image)
    np.testing.assert_array_equal(again, landmarks)


def test_the_ideal_square_is_a_crop_in_the_middle() -> None:
    square = ideal_square()
    assert (square.x, square.y, square.roll) == ((CANVAS_SIZE - 1) / 2, (CANVAS_SIZE - 1) / 2, 0)
    assert square.side == pytest.approx(CANVAS_SIZE / CANVAS_MARGIN)


def test_a_crop_and_its_matrix_agree() -> None:
    image = np.zeros((CANVAS_SIZE, CANVAS_SIZE, 3), np.uint8)
    cv2.circle(image, (120, 80), 3, (255, 255, 255), -1)
    crop, matrix = crop_from_canvas(image, Square(110, 90, 100, 0.4), 128)
    assert crop.shape == (128, 128, 3)
    expected = matrix[:2, :2] @ [120, 80] + matrix[:2, 3]
    y, x = np.mgrid[:128, :128]
    weight = crop[..., 0].astype(float)
    found = [(x * weight).sum() / weight.sum(), (y * weight).sum() / weight.sum()]
    np.testing.assert_allclose(found, expected, atol=0.1)
    np.testing.assert_allclose(np.linalg.det(matrix[:, :3]), (128 / 100) ** 3, rtol=1e-5)


def test_the_squares_middle_is_the_crops_middle() -> None:
    _, matrix = crop_from_canvas(canvas(), Square(70, 100, 120, -0.3), 64)
    np.testing.assert_allclose(matrix[:2, :2] @ [70, 100] + matrix[:2, 3], [31.5, 31.5], atol=1e-4)


def test_jitter_stays_within_its_limits() -> None:
    config, ideal = AugmentConfig(), ideal_square()
    squares = [jittered_square(config, np.random.default_rng(i)) for i in range(300)]
    for square in squares:
        assert abs(square.x - ideal.x) <= 2.5 * config.shift * ideal.side + 1e-6
        assert abs(math.log(square.side / ideal.side)) <= 2.5 * config.log_scale + 1e-6
        assert abs(square.roll) <= math.pi / 4
    assert np.std([math.degrees(square.roll) for square in squares]) == pytest.approx(config.roll_deg, rel=0.15)


def test_a_bad_square_misses_the_face_or_shows_a_fraction() -> None:
    ideal = ideal_square()
    for seed in range(200):
        square = bad_square(np.random.default_rng(seed))
        away = math.hypot(square.x - ideal.x, square.y - ideal.y) / ideal.side
        assert away > 0.5 or square.side < 0.41 * ideal.side


@pytest.mark.parametrize("config", [AugmentConfig(), ALWAYS])
def test_degrading_keeps_shape_and_type_and_repeats(config: AugmentConfig) -> None:
    crop, patch = canvas()[:128, :128], canvas()[:40, :30]
    for seed in range(12):
        results = []
        for _ in range(2):
            cv2.setRNGSeed(seed)
            results.append(degrade(crop, config, patch, np.random.default_rng(seed)))
        assert results[0].shape == (128, 128, 3)
        assert results[0].dtype == np.uint8
        np.testing.assert_array_equal(results[0], results[1])
        assert (results[0] != crop).any()


@pytest.mark.parametrize("seed", range(12))
def test_a_cut_face_is_black_beyond_a_line_and_untouched_before_it(seed: int) -> None:
    """As `align` leaves what is outside of a picture: 40 to 90 per cent stay, along a side of the crop."""
    crop = np.full((80, 80, 3), 128, np.uint8)
    found = degrade(crop, replace(NEVER, cut=1), canvas(), np.random.default_rng(seed))
    black = (found == 0).all(2)
    assert 0.08 < black.mean() < 0.62
    assert len(np.unique(found[~black], axis=0)) == 1
    # A straight line: nothing else lies in the hull of what is gone.
    y, x = np.nonzero(black)
    hull = cv2.convexHull(np.stack([x, y], 1).astype(np.int32))
    filled = cv2.fillConvexPoly(np.zeros(black.shape, np.uint8), hull, 1) > 0
    assert (filled & ~black).mean() < 0.01
    assert black[[0, 0, -1, -1], [0, -1, -1, 0]].any()


@pytest.mark.parametrize("seed", range(8))
def test_half_a_face_is_hidden_left_right_or_below(seed: int) -> None:
    crop = np.full((80, 80, 3), 128, np.uint8)
    patch = np.full((20, 20, 3), 250, np.uint8)
    found = degrade(crop, replace(NEVER, half_hidden=1), patch, np.random.default_rng(seed))
    shown = (found == found[5, 40]).all(2)  # the forehead is always seen
    assert 0.3 < shown.mean() < 0.75
    hidden = ~shown
    assert hidden[40:].mean() > 0.3
    assert len(np.unique(found[hidden], axis=0)) == 1


def test_dark_pictures_lose_their_mid_tones() -> None:
    """A gamma of 2 to 6: half of full brightness comes out at a quarter or less, before gain and offset."""
    crop = np.full((40, 40, 3), 128, np.uint8)
    dark, usual = (
        np.array([degrade(crop, replace(NEVER, dark=p), canvas(), np.random.default_rng(i)).mean() for i in range(60)])
        for p in (1, 0)
    )
    assert np.median(dark) < 50
    assert np.median(usual) > 100


def test_lids_are_drawn_over_both_eyes_or_over_one() -> None:
    """Half of the time over both, and over each alone."""
    landmarks = (load_template().landmark_positions[:, :2] * [1, -1] * 0.7 + CANVAS_SIZE / 2).astype(np.float32)
    config, kinds = replace(NEVER, closed_eyes=1), []
    for seed in range(120):
        found = blinked(canvas(), landmarks, config, np.random.default_rng(seed))
        assert found.drawn and found.known.all()
        closed = found.weights > 0
        kinds.append(tuple(closed.tolist()))
        for side, (upper, lower) in enumerate(((43, 47), (37, 41))):
            before = float(np.linalg.norm(landmarks[upper] - landmarks[lower]))
            after = np.linalg.norm(found.landmarks[upper] - found.landmarks[lower])
            assert after == pytest.approx((1 - found.weights[side]) * before, abs=0.05 * before)
    assert kinds.count((True, True)) == pytest.approx(60, abs=18)
    assert kinds.count((True, False)) == pytest.approx(30, abs=15)
    assert kinds.count((False, True)) == pytest.approx(30, abs=15)
    untouched = blinked(canvas(), landmarks, NEVER, np.random.default_rng(0))
    assert not untouched.drawn and not untouched.weights.any()
    np.testing.assert_array_equal(untouched.canvas, canvas())


def test_noise_falls_on_all_three_channels() -> None:
    cv2.setRNGSeed(3)
    grey = np.full((64, 64, 3), 128, np.uint8)
    spread = degrade(grey, replace(NEVER, noise=1), canvas(), np.random.default_rng(0)).std((0, 1))
    assert (spread > 2).all()
    np.testing.assert_allclose(spread, spread.mean(), rtol=0.1)


def test_a_grey_crop_has_equal_channels() -> None:
    config = replace(NEVER, grey=1)
    grey = degrade(canvas()[:64, :64], config, canvas(), np.random.default_rng(0))
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])


def test_the_crop_that_is_degraded_stays_as_it_was() -> None:
    crop = canvas()[:64, :64]
    before = crop.copy()
    degrade(crop, ALWAYS, canvas(), np.random.default_rng(0))
    np.testing.assert_array_equal(crop, before)


def test_a_gentle_augmentation_is_weaker_in_all_but_flips_and_lids() -> None:
    config = AugmentConfig()
    gentle = config.gently()
    assert (gentle.roll_deg, gentle.shift) == pytest.approx((14.0 * GENTLE, 0.04 * GENTLE))
    assert (gentle.occluder, gentle.jpeg) == pytest.approx((0.15 * GENTLE, 0.2 * GENTLE))
    assert (gentle.flip, gentle.closed_eyes) == (config.flip, config.closed_eyes)

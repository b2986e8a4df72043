"""Squares and crops: which pixel of the frame becomes which pixel of the crop, exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from facerecon_rt.align import (
    BOX_SIDE_MM,
    CROP_CENTRE_MM,
    CROP_SIDE_MM,
    Square,
    align,
    box_from_square,
    box_overlap,
    compose,
    frame_from_crop,
    square_from_box,
    square_from_camera,
)
from facerecon_rt.pose import rotation_from_euler
from facerecon_rt.template import load_template
from facerecon_rt.types import Floats, Image

SIZE = 64


def noise(height: int, width: int) -> Image:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def dot(height: int, width: int, x: float, y: float, radius: float) -> Image:
    """Draw a soft white dot on black."""
    rows, columns = np.mgrid[:height, :width]
    level = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2))
    return np.repeat(level[..., None], 3, 2).round().astype(np.uint8)


def middle_of_brightness(image: Image) -> tuple[float, float]:
    weights = image[..., 0].astype(np.float64)
    rows, columns = np.indices(weights.shape)
    return float((columns * weights).sum() / weights.sum()), float((rows * weights).sum() / weights.sum())


def camera_of(pitch: float, yaw: float, roll: float, scale: float, x: float, y: float) -> Floats:
    return np.column_stack([scale * rotation_from_euler(pitch, yaw, roll), [x, y, 0]]).astype(np.float32)


# Squares


def test_the_square_lies_around_the_crop_centre_of_the_head() -> None:
    square = square_from_camera(camera_of(0, 0, 0, 2.0, 100, 200))
    assert (square.x, square.y) == pytest.approx((100, 200 - 2 * CROP_CENTRE_MM[1]))
    assert square.side == pytest.approx(2 * CROP_SIDE_MM)
    assert square.roll == pytest.approx(0)


@pytest.mark.parametrize(("pitch", "yaw"), [(0, 0), (30, 0), (0, 60), (-20, -40)])
def test_turning_the_head_does_not_resize_the_square(pitch: float, yaw: float) -> None:
    assert square_from_camera(camera_of(pitch, yaw, 0, 1.3, 0, 0)).side == pytest.approx(1.3 * CROP_SIDE_MM)


def test_the_square_leans_with_the_head() -> None:
    """A head that leans to the subject's left leans to the right in the picture, which is clockwise."""
    assert square_from_camera(camera_of(0, 0, 30, 1, 0, 0)).roll == pytest.approx(math.radians(30))
    assert square_from_camera(camera_of(0, 0, -100, 1, 0, 0)).roll == pytest.approx(math.radians(-100))


def test_a_box_and_its_square_know_each_other() -> None:
    box = np.array([10.5, -20, 150.5, 120], np.float32)
    square = square_from_box(box)
    assert (square.x, square.y, square.roll) == (80.5, 50, 0)
    assert square.side == pytest.approx(140 * CROP_SIDE_MM / BOX_SIDE_MM)
    np.testing.assert_allclose(box_from_square(square), box, atol=1e-5)
    turned = square_from_box(box, 1.2)
    assert (turned.x, turned.y, turned.side, turned.roll) == (square.x, square.y, square.side, 1.2)


def test_a_box_that_is_no_square_counts_with_its_longer_side() -> None:
    square = square_from_box([0, 0, 70, 140])
    assert (square.x, square.y) == (35, 70)
    assert square.side == pytest.approx(CROP_SIDE_MM)


# Crop pixels and frame pixels


def test_the_middle_of_the_crop_is_the_middle_of_the_square() -> None:
    transform = frame_from_crop(Square(30, 40, 200, 0.7), SIZE)
    middle = (SIZE - 1) / 2
    np.testing.assert_allclose(transform @ [middle, middle, 0, 1], [30, 40, 0], atol=1e-4)


def test_a_turned_square_turns_clockwise() -> None:
    """After a quarter turn, one crop pixel to the right is one step down in the frame. Depth has the same scale."""
    transform = frame_from_crop(Square(0, 0, 2 * SIZE, math.pi / 2), SIZE)
    np.testing.assert_allclose(transform[:, :3], [[0, -2, 0], [2, 0, 0], [0, 0, 2]], atol=1e-6)


def test_compose_is_the_product_of_4_by_4_matrices_also_for_batches() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 5, 3, 4)).astype(np.float32)
    last = np.tile(np.array([[[0, 0, 0, 1]]], np.float32), (5, 1, 1))
    product = (np.concatenate([a, last], 1) @ np.concatenate([b, last], 1))[:, :3]
    np.testing.assert_allclose(compose(a, b), product, atol=1e-5)
    np.testing.assert_allclose(compose(a[0], b[0]), product[0], atol=1e-5)
    np.testing.assert_allclose(compose(a[0], b)[0], product[0], atol=1e-5)


# Crops


def test_a_crop_of_the_frames_own_scale_is_a_piece_of_it_pixel_by_pixel() -> None:
    image = noise(150, 200)
    crop = align(image, Square(50 + (SIZE - 1) / 2, 70 + (SIZE - 1) / 2, SIZE), SIZE)
    assert np.array_equal(crop.image, image[70 : 70 + SIZE, 50 : 50 + SIZE])
    np.testing.assert_array_equal(crop.frame_from_crop, [[1, 0, 0, 50], [0, 1, 0, 70], [0, 0, 1, 0]])


def test_a_quarter_turn_is_a_piece_turned_pixel_by_pixel() -> None:
    image = noise(150, 200)
    square = Square(50 + (SIZE - 1) / 2, 70 + (SIZE - 1) / 2, SIZE, math.pi / 2)
    assert np.array_equal(align(image, square, SIZE).image, np.rot90(image[70 : 70 + SIZE, 50 : 50 + SIZE]))


@pytest.mark.parametrize("roll", [0.0, 0.5, -2.0])
@pytest.mark.parametrize("scale", [0.4, 1.0, 1.9, 2.1, 3.7, 11.0])
def test_a_dot_lies_where_the_mapping_says(scale: float, roll: float) -> None:
    side = scale * SIZE
    height, width = int(1.3 * side), int(1.5 * side)
    x, y = 0.61 * width, 0.4 * height
    square = Square(0.5 * width + 0.3, 0.55 * height + 0.2, side, roll)
    crop = align(dot(height, width, x, y, 2.5 * scale), square, SIZE)
    seen_x, seen_y = middle_of_brightness(crop.image)
    found = crop.frame_from_crop @ [seen_x, seen_y, 0, 1]
    np.testing.assert_allclose(found[:2] / scale, np.array([x, y]) / scale, atol=0.1)


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_a_dot_lies_where_the_mapping_says_in_a_square_that_leaves_the_frame(scale: float) -> None:
    side = scale * SIZE
    x, y = 0.25 * side, 0.3 * side
    image = dot(int(0.9 * side), int(0.8 * side), x, y, 2.5 * scale)
    crop = align(image, Square(0.1 * side, 0.15 * side, side, 0.3), SIZE)
    seen_x, seen_y = middle_of_brightness(crop.image)
    found = crop.frame_from_crop @ [seen_x, seen_y, 0, 1]
    np.testing.assert_allclose(found[:2] / scale, np.array([x, y]) / scale, atol=0.1)


@pytest.mark.parametrize("roll", [-150.0, -30.0, 0.0, 45.0, 90.0])
def test_the_head_stands_upright_in_its_crop(roll: float) -> None:
    camera = camera_of(10, -20, roll, 1.4, 300, 250)
    transform = frame_from_crop(square_from_camera(camera), SIZE)
    to_crop = np.linalg.inv(np.vstack([transform, [0, 0, 0, 1]]))[:3]
    crop_from_head = compose(to_crop, camera)
    # Up in the head is straight up in the crop, and the middle of the crop is the head's centre.
    assert crop_from_head[0, 1] == pytest.approx(0, abs=1e-5)
    assert crop_from_head[1, 1] < 0
    centre = crop_from_head @ [*CROP_CENTRE_MM, 1]
    np.testing.assert_allclose(centre[:2], (SIZE - 1) / 2, atol=1e-3)


def test_a_frontal_face_fits_into_its_crop() -> None:
    square = square_from_camera(camera_of(0, 0, 0, 1, 0, 0))
    points = load_template().landmark_positions[:, :2] * [1, -1]
    assert (np.abs(points - [square.x, square.y]) < 0.5 * square.side).all()


@pytest.mark.parametrize("side", [40.0, 400.0])
def test_outside_the_frame_the_crop_is_black(side: float) -> None:
    crop = align(np.full((500, 500, 3), 255, np.uint8), Square(0, 250, side), SIZE).image
    # Between them lies one pixel of the frame, blended.
    assert (crop[:, : SIZE // 2 - 2] == 0).all()
    assert (crop[:, SIZE // 2 + 2 :] == 255).all()


@pytest.mark.parametrize("square", [Square(-500, 50, 100), Square(50, 1e6, 3000, 1.0), Square(1e7, -1e7, 20)])
def test_a_square_beside_the_frame_gives_a_black_crop(square: Square) -> None:
    assert not align(np.full((100, 100, 3), 255, np.uint8), square, SIZE).image.any()


@pytest.mark.parametrize(
    ("side", "period", "most"), [(500, 2, 25), (250, 4, 25), (180, 2, 25), (120, 2, 25), (500, 10, 40)]
)
def test_stripes_of_a_large_photograph_do_not_alias(side: float, period: int, most: int) -> None:
    """Stripes about as wide as a crop's pixel are too fine for the crop, so only grey remains."""
    image = np.zeros((800, 800, 3), np.uint8)
    image[:, np.arange(800) % period < period // 2] = 255
    crop = align(image, Square(400, 400, side), SIZE).image[4:-4, 4:-4]
    assert np.abs(crop.astype(int) - 127).max() < most


@pytest.mark.parametrize("ratio", [1.3, 2.2, 8.6])
@pytest.mark.parametrize("size", [(1024, 1024), (1023, 1021)])
def test_a_face_cut_by_the_frame_is_seen_to_the_last_pixel(ratio: float, size: tuple[int, int]) -> None:
    """A quarter of the square lies inside the frame, at each of its corners, to a pixel of the crop."""
    height, width = size
    image = np.full((height, width, 3), 200, np.uint8)
    seen = [
        align(image, Square(x, y, ratio * SIZE), SIZE).image.mean()
        for x in (-0.5, width - 0.5)
        for y in (-0.5, height - 0.5)
    ]
    np.testing.assert_allclose(seen, 200 / 4, rtol=0.04)


def test_a_few_pixels_under_a_huge_square_do_no_harm() -> None:
    crop = align(np.full((3, 1, 3), 255, np.uint8), Square(0, 1, 1e6), SIZE)
    assert crop.image.shape == (SIZE, SIZE, 3)


def test_a_panorama_of_forty_thousand_pixels_is_cropped() -> None:
    image = np.zeros((80, 40_000, 3), np.uint8)
    image[:, 39_000:] = 200
    assert align(image, Square(39_500, 40, SIZE), SIZE).image.min() == 200


def test_the_frame_is_left_as_it_was() -> None:
    image = noise(300, 300)
    before = image.copy()
    align(image, Square(150, 150, 250, 0.2), SIZE)
    assert np.array_equal(image, before)


def test_overlap_is_the_common_part_of_the_union() -> None:
    box, beside, apart = (np.array([x, 0, x + 10, 10], np.float32) for x in (0, 5, 45))
    assert box_overlap(box, beside) == pytest.approx(1 / 3)
    assert box_overlap(box, apart) == 0.0

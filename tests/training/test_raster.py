"""Triangles, light and textures to pixels: what is drawn is where, and as bright, as worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from facerecon_rt.types import Floats
from facerecon_training.rendered.raster import Light, Material, Surface, openness, paint
from numpy.typing import NDArray

SIZE = 32
CAMERA = np.array([[1, 0, 0, 15.5], [0, -1, 0, 15.5], [0, 0, -1, 0]], np.float32)
"""A millimetre is a pixel; the head's origin is in the middle, its z axis towards the viewer."""
EVERYWHERE = np.zeros((9, 3))
EVERYWHERE[0] = 1.0
MATT = Material(gloss=0.0)
SQUARE = np.array([[0, 1, 2], [0, 2, 3]], np.int32)


def square(side: float, z: float, x: float = 0.0, y: float = 0.0) -> Floats:
    """Counter-clockwise for the viewer."""
    half = side / 2
    corners = [[x - half, y - half, z], [x + half, y - half, z], [x + half, y + half, z], [x - half, y + half, z]]
    return np.array(corners, np.float32)


def surface(
    vertices: Floats, colour: tuple[float, float, float], triangles: NDArray[np.int32] = SQUARE, **more: object
) -> Surface:
    count = len(vertices)
    normals = np.tile(np.array([0, 0, 1], np.float32), (count, 1))
    colours = np.tile(np.array(colour, np.float32), (count, 1))
    return Surface(vertices, normals, triangles, colours, np.ones(count, np.float32), MATT, **more)  # type: ignore[arg-type]


def sky(lamp: tuple[float, float, float] = (0, 0, 1), strength: float = 0.0) -> Light:
    return Light(EVERYWHERE, np.array(lamp) / np.linalg.norm(lamp), np.full(3, strength))


def test_a_square_covers_its_pixels() -> None:
    picture, covered = paint([surface(square(8, 0), (0.2, 0.4, 0.6))], sky(), CAMERA, SIZE, 0)
    np.testing.assert_allclose(covered[12:20, 12:20], 1)
    assert covered.sum() == pytest.approx(64)
    np.testing.assert_allclose(picture[16, 16], [0.2, 0.4, 0.6], atol=1e-6)
    assert not picture[covered == 0].any()


def test_what_is_near_hides_what_is_far_in_any_order() -> None:
    near, far = surface(square(4, 5), (1, 0, 0)), surface(square(12, 0), (0, 1, 0))
    for order in ([near, far], [far, near]):
        picture, _ = paint(order, sky(), CAMERA, SIZE, 0)
        np.testing.assert_allclose(picture[16, 16], [1, 0, 0], atol=1e-6)
        np.testing.assert_allclose(picture[11, 11], [0, 1, 0], atol=1e-6)


def test_a_back_is_not_seen_unless_it_has_two_sides() -> None:
    turned = np.ascontiguousarray(SQUARE[:, ::-1])
    assert not paint([surface(square(8, 0), (1, 1, 1), turned)], sky(), CAMERA, SIZE, 0)[1].any()
    assert paint([surface(square(8, 0), (1, 1, 1), turned, two_sided=True)], sky(), CAMERA, SIZE, 0)[1].sum() == 64


def test_half_transparent_is_covered_by_half_and_the_same_each_time() -> None:
    texture = np.full((4, 4, 4), 0.5, np.float32)
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    glass = surface(square(24, 0), (1, 1, 1), uv=uv, texture=texture)
    picture, covered = paint([glass], sky(), CAMERA, SIZE, 7)
    assert covered[4:28, 4:28].mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_array_equal(paint([glass], sky(), CAMERA, SIZE, 7)[1], covered)
    assert (paint([glass], sky(), CAMERA, SIZE, 8)[1] != covered).any()
    np.testing.assert_allclose(picture[covered > 0], 0.5 * np.repeat(covered[covered > 0][:, None], 3, 1), atol=1e-5)


def test_textures_are_read_with_v_upwards() -> None:
    texture = np.ones((2, 1, 4), np.float32)
    texture[1, 0, :3] = 0  # the lower half is black
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    picture, _ = paint([surface(square(16, 0), (1, 1, 1), uv=uv, texture=texture)], sky(), CAMERA, SIZE, 0)
    assert picture[10, 16].min() == pytest.approx(1)
    assert picture[22, 16].max() == 0


def test_a_lamp_lights_by_its_cosine() -> None:
    picture, _ = paint([surface(square(16, 0), (1, 1, 1))], sky((0, 3, 4), 2.0), CAMERA, SIZE, 0)
    np.testing.assert_allclose(picture[16, 16], 1 + 2 * 0.8, atol=1e-4)


def test_an_occluder_casts_a_shadow_away_from_the_lamp() -> None:
    ground, block = surface(square(30, 0), (1, 1, 1)), surface(square(6, 12), (0, 0, 0), two_sided=True)
    picture, _ = paint([ground, block], sky((1, 0, 1), 1.0), CAMERA, SIZE, 0)
    # The light comes from the viewer's right: the shadow of a block 12 mm above the ground falls 12 mm to the left.
    np.testing.assert_allclose(picture[16, 4], 1.0, atol=0.02)
    np.testing.assert_allclose(picture[16, 27], 1 + 0.5**0.5, atol=0.02)


def test_what_lies_under_a_lid_sees_little_of_the_sky() -> None:
    vertices = np.concatenate([square(20, 0), square(60, 10)])
    triangles = np.concatenate([SQUARE, SQUARE + 4]).astype(np.int32)
    normals = np.tile(np.array([0, 0, 1], np.float32), (8, 1))
    directions = np.array([[0, 0, 1], [0, 0.6, 0.8], [0.6, 0, 0.8]], np.float32)
    seen = openness(vertices, normals, triangles, directions)
    np.testing.assert_allclose(seen[:4], 0, atol=1e-6)
    np.testing.assert_allclose(seen[4:], 1, atol=1e-6)

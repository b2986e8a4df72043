"""Surfaces to pixels, on numbers worked out by hand: what is covered, what hides what, and where light falls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from facerecon_rt.types import Floats
from facerecon_training.rendered.raster import Light, Material, Surface, openness, paint
from facerecon_training.rendered.render import camera_for_crop, sphere_directions

SIZE = 32
CAMERA = np.array([[1, 0, 0, -0.5], [0, -1, 0, -0.5], [0, 0, -1, 0]], np.float32)
"""One mm is one pixel; x = 0 and y = 0 are the picture's left and upper edge, and y falls downwards."""
MATT = Material(gloss=0.0)
SKY = np.zeros((9, 3))
SKY[0] = 1.0
DAY = Light(SKY, np.array([0.0, 0.0, 1.0]), np.zeros(3))
"""From everywhere alike: what faces anywhere has the colour of its albedo. The lamp is off."""


def quad(
    left: float, right: float, bottom: float, top: float, z: float = 0.0, colour: tuple[float, ...] = (1.0, 1.0, 1.0)
) -> Surface:
    """An upright rectangle that faces the viewer."""
    corners = [[left, top, z], [left, bottom, z], [right, bottom, z], [right, top, z]]
    return Surface(
        np.array(corners, np.float32),
        np.tile(np.array([0, 0, 1], np.float32), (4, 1)),
        np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        np.tile(np.array(colour, np.float32), (4, 1)),
        np.ones(4, np.float32),
        MATT,
        np.array([[0, 1], [0, 0], [1, 0], [1, 1]], np.float32),
    )


def seen(*surfaces: Surface, light: Light = DAY, camera: Floats = CAMERA, seed: int = 0) -> tuple[Floats, Floats]:
    return paint(surfaces, light, camera, SIZE, seed)


def test_a_triangle_covers_its_pixels() -> None:
    """Half of 8 x 8 pixels, its right angle in the upper left corner."""
    corners = np.array([[2, -2, 0], [2, -10, 0], [10, -2, 0]], np.float32)
    blue, green, red = 0.2, 0.4, 0.6
    triangle = replace(quad(0, 1, 0, 1, colour=(blue, green, red)), vertices=np.vstack([corners, corners[:1]]))
    triangle = replace(triangle, triangles=np.array([[0, 1, 2]], np.int32))
    picture, covered = seen(triangle)
    np.testing.assert_array_equal(covered[2:9, 2], 1)
    np.testing.assert_array_equal(covered[2, 2:9], 1)
    assert covered[:2].sum() == covered[:, :2].sum() == covered[10:].sum() == covered[:, 10:].sum() == 0
    assert covered[9, 9] == 0
    assert covered.sum() == pytest.approx(32, abs=4)
    np.testing.assert_allclose(picture[4, 4], [blue, green, red], atol=1e-5)
    np.testing.assert_allclose(picture[..., 2], red * covered, atol=1e-5)


def test_half_a_pixel_is_half_covered() -> None:
    _, covered = seen(quad(4, 10.5, -12, -6))
    np.testing.assert_array_equal(covered[6:12, 4:10], 1)
    np.testing.assert_array_equal(covered[6:12, 10], 0.5)
    assert covered.sum() == 6 * 6.5


def test_what_is_turned_away_is_seen_only_where_it_has_two_sides() -> None:
    away = quad(4, 10, -12, -6)
    away = replace(away, triangles=np.ascontiguousarray(away.triangles[:, ::-1]))
    assert seen(away)[1].sum() == 0
    assert seen(replace(away, two_sided=True))[1].sum() == 36


def test_near_hides_far_whichever_comes_first() -> None:
    near, far = quad(4, 12, -12, -4, z=5, colour=(1, 0, 0)), quad(8, 20, -12, -4, z=-5, colour=(0, 1, 0))
    for order in ((near, far), (far, near)):
        picture, covered = seen(*order)
        np.testing.assert_allclose(picture[8, 10], [1, 0, 0], atol=1e-5)
        np.testing.assert_allclose(picture[8, 16], [0, 1, 0], atol=1e-5)
        assert covered.sum() == 16 * 8


def textured(texture: Floats, z: float = 0.0) -> Surface:
    return replace(quad(0, 32, -32, 0, z=z), texture=texture)


def test_a_texture_is_the_right_way_up_and_tinted() -> None:
    """Upper left red, upper right green, lower left blue, lower right white; a tint halves the red."""
    texture = np.ones((2, 2, 4), np.float32)
    texture[..., :3] = [[[0, 0, 1], [0, 1, 0]], [[1, 0, 0], [1, 1, 1]]]
    tint = np.tile(np.array([1, 1, 0.5], np.float32), (4, 1))
    picture, covered = seen(replace(textured(texture), colours=tint))
    assert (covered == 1).all()
    np.testing.assert_allclose(picture[8, 8], [0, 0, 0.5], atol=1e-5)
    np.testing.assert_allclose(picture[8, 24], [0, 1, 0], atol=1e-5)
    np.testing.assert_allclose(picture[24, 8], [1, 0, 0], atol=1e-5)
    np.testing.assert_allclose(picture[24, 24], [1, 1, 0.5], atol=1e-5)


def test_alpha_is_the_share_of_samples_that_are_covered() -> None:
    """Left a third, right nothing; behind it all is red."""
    texture = np.ones((1, 2, 4), np.float32)
    texture[..., 3] = [[1 / 3, 0]]
    behind = quad(0, 32, -32, 0, z=-5, colour=(0, 0, 1))
    picture, covered = seen(textured(texture), behind, seed=3)
    assert (covered == 1).all()
    white = picture[..., 1]
    assert white[:, :16].mean() == pytest.approx(1 / 3, abs=0.03)
    assert white[:, 16:].max() == 0
    again, _ = seen(textured(texture), behind, seed=3)
    other, _ = seen(textured(texture), behind, seed=4)
    np.testing.assert_array_equal(picture, again)
    assert (picture != other).any()


def test_a_lamp_lights_by_its_cosine() -> None:
    picture, _ = seen(quad(8, 24, -24, -8), light=Light(SKY, np.array([0.0, 0.6, 0.8]), np.full(3, 2.0)))
    np.testing.assert_allclose(picture[16, 16], 1 + 2 * 0.8, atol=1e-4)


def test_a_shadow_falls_behind_what_is_between_it_and_the_lamp() -> None:
    """A lamp at 45 degrees from the viewer's left: something 8 mm in front of a wall darkens it 8 mm further right."""
    lamp = Light(0.2 * SKY, np.array([-1.0, 0.0, 1.0]) / np.sqrt(2), np.array([1.0, 1.0, 1.0]))
    wall = quad(0, 32, -32, 0, z=0)
    bar = quad(6, 14, -28, -4, z=8, colour=(0, 0, 0))
    alone, _ = seen(wall, light=lamp)
    np.testing.assert_allclose(alone, 0.2 + np.sqrt(0.5), atol=1e-4)
    picture, _ = seen(wall, bar, light=lamp)
    np.testing.assert_allclose(picture[10:22, 8:12], 0, atol=1e-5)  # the bar itself
    np.testing.assert_allclose(picture[10:22, 16:20], 0.2, atol=1e-4)  # its shadow, from 14 to 22
    np.testing.assert_allclose(picture[10:22, 26:], alone[10:22, 26:], atol=1e-4)
    np.testing.assert_allclose(picture[10:22, :4], alone[10:22, :4], atol=1e-4)
    # No lamp, no shadow.
    picture, _ = seen(wall, bar)
    np.testing.assert_allclose(picture[10:22, 16:], 1, atol=1e-5)


def test_a_transparent_surface_casts_no_shadow() -> None:
    lamp = Light(0.2 * SKY, np.array([-1.0, 0.0, 1.0]) / np.sqrt(2), np.array([1.0, 1.0, 1.0]))
    glass = np.zeros((2, 2, 4), np.float32)
    pane = replace(quad(6, 14, -28, -4, z=8), texture=glass)
    picture, _ = seen(quad(0, 32, -32, 0), pane, light=lamp)
    np.testing.assert_allclose(picture, 0.2 + np.sqrt(0.5), atol=1e-4)


@pytest.mark.parametrize("yaw", [0.0, 40.0])
def test_the_lamp_stands_by_the_viewer_and_does_not_turn_with_the_head(yaw: float) -> None:
    """Of a ball, what is towards the lamp is bright, wherever the head looks."""
    polar, around = np.meshgrid(np.linspace(0, np.pi, 25), np.linspace(0, 2 * np.pi, 49), indexing="ij")
    points = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], -1)
    points = points.reshape(-1, 3).astype(np.float32)
    corner = (np.arange(24)[:, None] * 49 + np.arange(48)).ravel()
    triangles = np.vstack(
        [np.stack([corner, corner + 49, corner + 1], 1), np.stack([corner + 1, corner + 49, corner + 50], 1)]
    ).astype(np.int32)
    one = np.ones(len(points), np.float32)
    ball = Surface(60 * points, points, triangles, np.tile(one[:, None], (1, 3)), one, MATT)
    camera = camera_for_crop(0, yaw, 0, SIZE, 40)
    camera[:2, 3] = (SIZE - 1) / 2
    right = Light(0 * SKY, np.array([1.0, 0.0, 0.0]), np.ones(3))
    picture, covered = seen(ball, light=right, camera=camera)
    half = covered[:, : SIZE // 2] > 0
    assert covered.sum() > 50
    assert picture[:, : SIZE // 2][half].max() < 0.25
    assert picture[SIZE // 2, SIZE // 2 : -1].max() > 0.8


def test_scattering_skin_is_lit_beyond_the_terminator_red_most() -> None:
    """Light that just grazes a surface, and none else."""
    grazing = Light(0 * SKY, np.array([1.0, 0.0, 0.0]), np.ones(3))
    plain = quad(0, 32, -32, 0)
    hard, _ = seen(plain, light=grazing)
    soft, _ = seen(replace(plain, material=Material(gloss=0.0, softness=0.3)), light=grazing)
    assert hard.max() < 1e-6
    # wrap / (1 + wrap) with a wrap of 0.3 times 1/4, 2/5 and 1.
    np.testing.assert_allclose(soft[16, 16], [0.075 / 1.075, 0.12 / 1.12, 0.3 / 1.3], atol=1e-4)


def plane(at: Floats, axis: int, size: float = 60.0, steps: int = 13) -> tuple[Floats, np.ndarray]:
    """A square grid across one axis around a place -> vertices (K, 3) and triangles."""
    a, b = (grid.ravel() for grid in np.meshgrid(*[np.linspace(-size, size, steps)] * 2, indexing="ij"))
    others = [other for other in range(3) if other != axis]
    points = np.zeros((len(a), 3))
    points[:, others[0]], points[:, others[1]] = a, b
    corner = (np.arange(steps - 1)[:, None] * steps + np.arange(steps - 1)).ravel()
    first = np.stack([corner, corner + steps, corner + 1], 1)
    second = np.stack([corner + 1, corner + steps, corner + steps + 1], 1)
    return (points + at).astype(np.float32), np.vstack([first, second]).astype(np.int32)


def openness_of(middle: int, *planes: tuple[Floats, np.ndarray]) -> float:
    """Of one vertex of the first plane, which looks to +z."""
    starts = np.cumsum([0, *(len(points) for points, _ in planes)])
    vertices = np.vstack([points for points, _ in planes])
    triangles = np.vstack([part + start for (_, part), start in zip(planes, starts, strict=False)]).astype(np.int32)
    normals = np.tile(np.array([0, 0, 1], np.float32), (len(vertices), 1))
    seen_share = openness(vertices, normals, triangles, sphere_directions(400))
    return float(seen_share[middle])


def test_openness_is_the_share_of_the_sky_that_is_seen() -> None:
    floor = plane(np.zeros(3, np.float32), 2)
    middle = 13 * 6 + 6
    assert openness_of(middle, floor) == pytest.approx(1.0)
    # Under a roof, near and wide, nothing; beside a high wall, half.
    assert openness_of(middle, floor, plane(np.array([0, 0, 5], np.float32), 2)) < 0.03
    wall = plane(np.array([6, 0, 60], np.float32), 0)  # further away than shadows are let off
    assert openness_of(middle, floor, wall) == pytest.approx(0.5, abs=0.06)

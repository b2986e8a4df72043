"""Geometry and light to pixels: what is drawn is where, and as bright, as worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from facerecon_rt.align import CROP_CENTRE_MM, CROP_SIDE_MM
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.pose import euler_from_camera, rotation_from_euler
from facerecon_training.rendered.morphable import read_head
from facerecon_training.rendered.render import (
    HeadGeometry,
    camera_for_crop,
    irradiance,
    radiance_fit,
    radiance_from_panorama,
    rasterise,
    sh_basis,
    shade,
    turn_light,
    viewer_normals,
)


def directions(count: int = 40) -> np.ndarray:
    random = np.random.default_rng(3).normal(size=(count, 3))
    return np.asarray(random / np.linalg.norm(random, axis=1, keepdims=True), np.float32)


def test_a_triangle_lands_on_its_pixels() -> None:
    # One mm is one pixel, y down and depth away in the picture; corners on pixel borders.
    camera = np.array([[1, 0, 0, -0.5], [0, -1, 0, -0.5], [0, 0, -1, 0]], np.float32)
    vertices = np.array([[2, -2, 0], [2, -10, 0], [10, -2, 0]], np.float32)
    red = np.tile(np.array([0, 0, 1], np.float32), (3, 1))
    picture = rasterise(vertices, np.array([[0, 1, 2]], np.int32), red, camera, np.zeros((16, 16, 3), np.float32))
    np.testing.assert_allclose(picture[2:9, 2], np.tile([0, 0, 1], (7, 1)), atol=1e-5)
    np.testing.assert_allclose(picture[2, 2:9, 2], 1, atol=1e-5)
    assert picture[:2].sum() == picture[:, :2].sum() == picture[10:].sum() == picture[:, 10:].sum() == 0
    assert picture[9, 9].sum() == 0
    assert picture[..., 2].sum() == pytest.approx(32, abs=3)  # half of 8 x 8


def test_what_is_near_hides_what_is_far() -> None:
    camera = camera_for_crop(0, 0, 0, 32, 32)
    square = np.array([[-60, 30, 0], [-60, -90, 0], [60, -90, 0], [60, 30, 0]], np.float32)
    vertices = np.vstack([square + np.array([0, 0, 20]), square]).astype(np.float32)
    colours = np.repeat(np.array([[1, 0, 0], [0, 1, 0]], np.float32), 4, 0)
    triangles = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]], np.int32)
    background = np.zeros((32, 32, 3), np.float32)
    for order in (triangles, triangles[::-1]):
        picture = rasterise(vertices, np.ascontiguousarray(order), colours, camera, background)
        np.testing.assert_allclose(picture[16, 16], [1, 0, 0], atol=1e-5)


@pytest.mark.parametrize("angles", [(0, 0, 0), (20, -40, 10), (-30, 80, -25)])
def test_a_crops_camera_puts_the_crop_centre_in_the_middle(angles: tuple[float, float, float]) -> None:
    camera = camera_for_crop(*angles, size=192, side=137.0)
    middle = camera[:, :3] @ np.array(CROP_CENTRE_MM) + camera[:, 3]
    np.testing.assert_allclose(middle, [95.5, 95.5, 0], atol=1e-4)
    assert euler_from_camera(camera) == pytest.approx(angles, abs=1e-3)
    assert np.linalg.norm(camera[0, :3]) * CROP_SIDE_MM == pytest.approx(137, rel=1e-5)


def test_spherical_harmonics_are_orthonormal() -> None:
    polar, azimuth = np.meshgrid((np.arange(200) + 0.5) / 200 * np.pi, (np.arange(400) + 0.5) / 400 * 2 * np.pi)
    points = np.stack([np.sin(polar) * np.cos(azimuth), np.cos(polar), np.sin(polar) * np.sin(azimuth)], -1)
    solid = np.sin(polar).ravel() * (np.pi / 200) * (2 * np.pi / 400)
    basis = sh_basis(points.reshape(-1, 3))
    np.testing.assert_allclose((basis * solid[:, None]).T @ basis, np.eye(9), atol=1e-3)


def test_light_from_everywhere_lights_every_normal_the_same() -> None:
    light = radiance_from_panorama(np.full((32, 64, 3), 5.0, np.float32))
    np.testing.assert_allclose(irradiance(light, directions()), 1.0, atol=2e-3)


def test_light_from_above_lights_what_looks_up() -> None:
    panorama = np.full((32, 64, 3), 0.1, np.float32)
    panorama[:8] = 1.0
    light = radiance_from_panorama(panorama)
    up, down = irradiance(light, np.array([[0, 1, 0], [0, -1, 0]], np.float32))
    assert (up > 2 * down).all()


def test_turned_light_lights_turned_normals_the_same() -> None:
    panorama = np.random.default_rng(0).uniform(0.1, 2, (16, 32, 3)).astype(np.float32)
    light = radiance_from_panorama(panorama)
    rotation = rotation_from_euler(20, 70, -30) @ np.diag([1.0, -1.0, -1.0])
    turned = turn_light(light, rotation)
    before = irradiance(light, directions())
    after = irradiance(turned, directions() @ rotation.T.astype(np.float32))
    np.testing.assert_allclose(after, before, atol=1e-4)
    np.testing.assert_allclose(turn_light(turned, rotation.T), light, atol=1e-6)


def test_shading_is_albedo_times_irradiance_plus_the_highlight() -> None:
    light = radiance_from_panorama(np.ones((32, 64, 3), np.float32))
    albedo = np.array([[0.2, 0.4, 0.6], [0.2, 0.4, 0.6]], np.float32)
    normals = np.array([[0, 0, 1], [1, 0, 0]], np.float32)
    towards = np.array([0.0, 0.0, 1.0])
    matt = shade(albedo, normals, light, towards, 0.0, 10)
    np.testing.assert_allclose(matt, albedo, atol=2e-3)
    glossy = shade(albedo, normals, light, towards, 0.3, 10)
    np.testing.assert_allclose(glossy - matt, [[0.3] * 3, [0.0] * 3], atol=1e-5)


def test_a_viewer_sees_a_frontal_heads_axes_as_they_are() -> None:
    np.testing.assert_allclose(viewer_normals(directions(), camera_for_crop(0, 0, 0, 64, 64)), directions(), atol=1e-5)
    # Turned to its left by 90 degrees, its nose points to the viewer's right.
    nose = viewer_normals(np.array([[0, 0, 1]], np.float32), camera_for_crop(0, 90, 0, 64, 64))
    np.testing.assert_allclose(nose, [[1, 0, 0]], atol=1e-5)


def test_light_is_divided_out_of_brightness() -> None:
    normals = directions(300)
    brightness = np.asarray(0.5 + 0.1 * normals[:, 1], np.float32)
    fitted = radiance_fit(brightness, normals, np.ones(300, np.float32))
    even = np.full(300, 0.5, np.float32)
    np.testing.assert_allclose(radiance_fit(even, normals, np.ones(300, np.float32)), even, rtol=1e-5)
    assert np.ptp(brightness / fitted) < 0.6 * np.ptp(brightness) / brightness.mean()


def test_a_heads_geometry_adds_identity_and_expression(ball_geometry: HeadGeometry) -> None:
    identity, expression = np.zeros(100, np.float32), np.zeros(53, np.float32)
    identity[0], expression[BLENDSHAPES.index("jawOpen")] = 2.0, 0.5
    neutral = ball_geometry.neutral(identity)
    np.testing.assert_allclose(neutral, ball_geometry.mean * [1.02, 1, 1], atol=1e-4)
    opened = ball_geometry.expressed(neutral, expression) - neutral
    low = ball_geometry.mean[:, 1] < -40
    np.testing.assert_allclose(opened[low], np.tile([0, -7.5, 0], (low.sum(), 1)), atol=1e-4)
    assert not opened[~low].any()


def test_normals_point_out_of_the_head(ball_geometry: HeadGeometry) -> None:
    inner = ball_geometry.parts["face"].reshape(97, 97)[5:-5, 5:-5].ravel()
    inner = inner[np.isin(inner, ball_geometry.triangles_of(("face",)))]  # not in the middle of the eyes' holes
    normals = ball_geometry.normals(ball_geometry.mean)[inner]
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    outwards = (ball_geometry.mean[inner] - [0, -20, -65]) / np.square([80, 115, 90])
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
    assert (normals * outwards).sum(1).min() > 0.98


def test_the_real_head_is_drawn_where_its_landmarks_are(data_folder: Path) -> None:
    head = HeadGeometry(read_head(data_folder / "face_model" / "ict_facekit.npz"))
    camera = camera_for_crop(0, 0, 0, 96, 80)
    white = np.ones_like(head.mean)
    picture = rasterise(head.mean, head.triangles, white, camera, np.zeros((96, 96, 3), np.float32))
    points = head.mean[head.landmarks] @ camera[:, :3].T + camera[:, 3]
    for x, y, _ in points[17:]:
        np.testing.assert_allclose(picture[round(float(y)), round(float(x))], 1, atol=1e-4)
    left_eye, right_eye = points[45], points[36]
    assert left_eye[0] > right_eye[0]  # the subject's left is on the picture's right
    assert points[8, 1] > points[27, 1]

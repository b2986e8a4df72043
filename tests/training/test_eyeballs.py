"""Eyeballs turn about their centres, and their irises end up where the gaze points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from facerecon_rt.sinks.eyes import eye_centre
from facerecon_rt.template import load_template
from facerecon_rt.types import Floats
from facerecon_training.prepare import template_face
from facerecon_training.rendered.expressions import gaze_vectors
from facerecon_training.rendered.eyeballs import EYE_PIXELS, IRIS_MM, IRIS_PIXELS, find_eyeball, gaze_rotation, turned
from facerecon_training.rendered.morphable import read_head
from facerecon_training.rendered.render import HeadGeometry

from .conftest import EYE_RADIUS

GAZES = [(0.0, 0.0), (25.0, 0.0), (0.0, 20.0), (-30.0, -15.0), (10.0, -25.0)]


@pytest.mark.parametrize("gaze", GAZES)
def test_straight_ahead_is_turned_to_the_gaze(gaze: tuple[float, float]) -> None:
    rotation = gaze_rotation(np.array(gaze, np.float32))
    np.testing.assert_allclose(rotation @ [0, 0, 1], gaze_vectors(np.array(gaze, np.float32)), atol=1e-6)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    assert rotation[0] @ [0, 1, 0] == pytest.approx(0, abs=1 if gaze[1] else 1e-6)
    assert (rotation @ [1, 0, 0])[1] == pytest.approx(0, abs=1e-6), "eyes do not roll"


def test_a_ball_with_a_cornea_is_found(ball_geometry: HeadGeometry) -> None:
    for eyeball, x in zip(ball_geometry.eyeballs, (30, -30), strict=True):
        assert eyeball.radius == pytest.approx(EYE_RADIUS, abs=0.3)
        np.testing.assert_allclose(eyeball.centre(ball_geometry.mean), [x, 0, 0], atol=0.4)
        np.testing.assert_allclose(eyeball.axis, [0, 0, 1], atol=0.02)
        assert eyeball.iris_distance == pytest.approx(np.sqrt(eyeball.radius**2 - IRIS_MM**2))


def test_the_iris_of_the_texture_is_where_the_eye_looks_from(ball_geometry: HeadGeometry) -> None:
    eyeball = ball_geometry.eyeballs[0]
    offset = ball_geometry.mean[eyeball.vertices] - eyeball.centre(ball_geometry.mean)
    across = np.hypot(offset[:, 0], offset[:, 1])
    pixels = np.linalg.norm(eyeball.uv - 0.5, axis=1) * EYE_PIXELS
    front = offset[:, 2] > 0
    rim = front & (np.abs(across - IRIS_MM) < 0.3)
    assert rim.sum() > 20
    np.testing.assert_allclose(pixels[rim], IRIS_PIXELS, atol=3)
    assert pixels[np.argmax(offset[:, 2])] == pytest.approx(0, abs=3)
    # u to the subject's left or right, v up; behind there is no second iris.
    upper = front & (offset[:, 1] > 3) & (across < 8)
    assert (eyeball.uv[upper, 1] > 0.5).all()
    assert pixels[offset[:, 2] < -1].min() > IRIS_PIXELS + 10


@pytest.mark.parametrize("gaze", GAZES)
def test_a_turned_eye_shows_its_iris_where_it_looks(ball_geometry: HeadGeometry, gaze: tuple[float, float]) -> None:
    vertices = ball_geometry.mean + np.array([1.0, -2.0, 3.0], np.float32)  # wherever the head is
    for eyeball in ball_geometry.eyeballs:
        centre = eyeball.centre(vertices)
        points = turned(eyeball, vertices, np.array(gaze, np.float32))
        iris = points[np.linalg.norm(eyeball.uv - 0.5, axis=1) * EYE_PIXELS < IRIS_PIXELS].mean(0) - centre
        np.testing.assert_allclose(iris / np.linalg.norm(iris), gaze_vectors(np.array(gaze, np.float32)), atol=0.03)
        # It turns about its centre: every vertex stays as far from it as it was.
        before = np.linalg.norm(vertices[eyeball.vertices] - centre, axis=1)
        np.testing.assert_allclose(np.linalg.norm(points - centre, axis=1), before, atol=1e-3)


def test_a_moved_head_takes_its_eyes_along(ball_geometry: HeadGeometry) -> None:
    eyeball, shift = ball_geometry.eyeballs[1], np.array([2.0, 5.0, -7.0], np.float32)
    gaze = np.array([20.0, -10.0], np.float32)
    here, there = (turned(eyeball, ball_geometry.mean + by, gaze) for by in (np.float32(0), shift))
    np.testing.assert_allclose(there - here, np.tile(shift, (len(here), 1)), atol=1e-4)


def test_a_sphere_without_a_cornea_looks_straight_ahead() -> None:
    random = np.random.default_rng(0).normal(size=(400, 3))
    points: Floats = (10 * random / np.linalg.norm(random, axis=1, keepdims=True) + [5, 6, 7]).astype(np.float32)
    eyeball = find_eyeball(points, np.arange(400))
    np.testing.assert_allclose(eyeball.centre(points), [5, 6, 7], atol=1e-3)
    assert eyeball.radius == pytest.approx(10, abs=1e-3)
    assert eyeball.axis.tolist() == [0, 0, 1]


def test_the_eyes_of_the_real_head_are_mirror_images_that_look_ahead(data_folder: Path) -> None:
    head = HeadGeometry(read_head(data_folder / "face_model" / "ict_facekit.npz"))
    left, right = head.eyeballs
    assert left.centre(head.mean)[0] > 25
    np.testing.assert_allclose(left.centre(head.mean) * [-1, 1, 1], right.centre(head.mean), atol=1e-3)
    np.testing.assert_allclose(left.axis * [-1, 1, 1], right.axis, atol=1e-3)
    assert left.radius == pytest.approx(15, abs=0.2)
    # The optical axis lies 5 degrees outwards of the line of sight.
    assert np.degrees(np.arcsin(left.axis[0])) == pytest.approx(5, abs=0.5)
    assert np.degrees(np.arcsin(left.axis[1])) == pytest.approx(0, abs=1)
    for eyeball, triangles in zip(head.eyeballs, head.eyeball_triangles, strict=True):
        assert triangles.max() < len(eyeball.vertices)
        assert len(np.unique(triangles)) == len(eyeball.vertices)


def test_eyes_of_meshes_are_where_the_real_head_has_them(data_folder: Path) -> None:
    head = read_head(data_folder / "face_model" / "ict_facekit.npz")
    eyeballs = HeadGeometry(head).eyeballs
    template, face = load_template(), template_face(head)
    for identity in np.random.default_rng(0).normal(0, 0.5, (20, 100)).astype(np.float32):
        shape = face.mean + np.tensordot(identity, face.identity, 1)
        whole = head.mean + np.tensordot(identity, head.identity, 1)
        for side, eyeball in enumerate(eyeballs):
            # Corners of eyes do not say more about an eyeball: its distance to them has this spread over identities.
            np.testing.assert_allclose(eye_centre(shape, template, side), eyeball.centre(whole), atol=2.0)
    for side, eyeball in enumerate(eyeballs):
        np.testing.assert_allclose(eye_centre(face.mean, template, side), eyeball.centre(head.mean), atol=0.05)

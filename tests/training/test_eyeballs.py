"""Eyeballs turn about their centres, and the iris goes where the gaze points."""

from __future__ import annotations

import numpy as np
import pytest
from facerecon_rt.types import Floats
from facerecon_training.rendered.expressions import gaze_vectors
from facerecon_training.rendered.eyeballs import Eyeball, find_eyeball, gaze_rotation, turned

CENTRE = np.array([30.0, 2.0, -4.0], np.float32)


def ball() -> Floats:
    """A ball of 15 mm whose front bulges by one millimetre around +z."""
    i = np.arange(3000) + 0.5
    polar, azimuth = np.arccos(1 - 2 * i / 3000), np.pi * (1 + 5**0.5) * i
    unit = np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], 1)
    return np.asarray(unit * np.where(unit[:, 2:] > 0.95, 16.0, 15.0) + CENTRE, np.float32)


@pytest.fixture
def eyeball() -> Eyeball:
    return find_eyeball(ball(), np.arange(3000))


def test_the_centre_and_the_axis_are_found(eyeball: Eyeball) -> None:
    np.testing.assert_allclose(eyeball.centre(ball()), CENTRE, atol=0.1)
    np.testing.assert_allclose(eyeball.axis, [0, 0, 1], atol=0.01)
    assert eyeball.radius == pytest.approx(15, abs=0.1)


def test_a_head_that_moves_takes_the_centre_along(eyeball: Eyeball) -> None:
    np.testing.assert_allclose(eyeball.centre(ball() + np.float32(2)), CENTRE + np.float32(2), atol=0.1)


@pytest.mark.parametrize("gaze", [(20.0, 0.0), (0.0, 15.0), (-25.0, -10.0)])
def test_the_bulge_goes_where_the_gaze_points(eyeball: Eyeball, gaze: tuple[float, float]) -> None:
    points = turned(eyeball, ball(), np.array(gaze, np.float32)) - CENTRE
    bulge = points[np.linalg.norm(points, axis=1) > 15.5].mean(0)
    np.testing.assert_allclose(bulge / np.linalg.norm(bulge), gaze_vectors(np.array(gaze, np.float32)), atol=0.01)


def test_gaze_rotations_are_rotations() -> None:
    rotation = gaze_rotation(np.array([17.0, -9.0], np.float32))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_the_iris_is_in_the_middle_of_its_texture(eyeball: Eyeball) -> None:
    front = (ball() - CENTRE)[:, 2].argmax()
    np.testing.assert_allclose(eyeball.uv[front], [0.5, 0.5], atol=0.02)

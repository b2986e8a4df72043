"""Light: what a picture's light did to colours is found, put on and taken away."""

from __future__ import annotations

import numpy as np
import pytest
from facerecon_rt.sinks.light import Light, fitted_light
from facerecon_rt.types import Floats

COUNT = 6000


@pytest.fixture
def colours() -> Floats:
    """Colours (P, 3) of skin with spots."""
    random = np.random.default_rng(0)
    return np.asarray(random.uniform(0.5, 1.0, (COUNT, 1)) * (120, 150, 200), np.float32)


@pytest.fixture
def normals() -> Floats:
    """Unit vectors (P, 3) in the half of a sphere that faces +z."""
    directions = np.random.default_rng(1).normal(size=(COUNT, 3))
    directions[:, 2] = np.abs(directions[:, 2])
    return np.asarray(directions / np.linalg.norm(directions, axis=1, keepdims=True), np.float32)


def lamp(normals: Floats) -> Floats:
    """Return the gains (P, 3) of a warm lamp at the subject's left with bluish light all around."""
    side = 0.2 * normals[:, :1] + 0.1 * normals[:, 2:]
    return np.asarray((0.7, 0.6, 0.6) + side * (0.6, 0.9, 1.2), np.float32)


def test_a_lamp_at_the_side_and_a_veil_are_found(colours: Floats, normals: Floats) -> None:
    lit = colours * lamp(normals) + np.float32(12)
    light = fitted_light(colours, lit, normals, np.ones(COUNT, np.float32))
    assert np.abs(light.put_on(colours, normals) - lit).max() < 1
    assert np.abs(light.taken_from(lit, normals) - colours).max() < 2
    np.testing.assert_allclose(light.offset, 12, atol=1)


def test_a_hand_in_the_picture_is_no_light(colours: Floats, normals: Floats) -> None:
    """A quarter of the picture, on one side of the face, shows something green."""
    lit = colours * lamp(normals)
    hand = (normals[:, 0] > 0.5) & (np.arange(COUNT) % 4 > 0)
    assert 0.15 < hand.mean() < 0.3
    shown = np.where(hand[:, None], np.array((40, 220, 60), np.float32), lit)
    light = fitted_light(colours, shown, normals, np.ones(COUNT, np.float32))
    assert np.median(np.abs(light.put_on(colours, normals) - lit)) < 6


def test_places_that_the_picture_does_not_show_do_not_count(colours: Floats, normals: Floats) -> None:
    lit = colours * lamp(normals)
    weights = (normals[:, 1] > 0).astype(np.float32)
    below = np.where(weights[:, None] > 0, lit, np.float32(250))
    light = fitted_light(colours, below, normals, weights)
    assert np.abs(light.put_on(colours, normals) - lit)[weights > 0].max() < 1


def test_too_few_places_tell_no_light(colours: Floats, normals: Floats) -> None:
    weights = (np.arange(COUNT) < 99).astype(np.float32)
    light = fitted_light(colours, colours * np.float32(0.5), normals, weights)
    np.testing.assert_array_equal(light.put_on(colours, normals), colours)


def test_a_gain_is_bounded(normals: Floats) -> None:
    """A light that no picture has would make the colours of the other side black or burn them out."""
    gain = np.zeros((9, 3), np.float32)
    gain[3] = 10
    light = Light(gain, np.zeros(3, np.float32))
    grey = np.full((COUNT, 3), 60, np.float32)
    assert light.put_on(grey, normals).max() == pytest.approx(180)
    assert light.put_on(grey, -normals).min() == pytest.approx(18)

"""Lines in the skin: where they lie, what deepens them, and what they leave alone."""

from __future__ import annotations

import numpy as np
import pytest
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.template import load_template
from facerecon_training.rendered.wrinkles import FOLDS, LEFT_MM, SIDE, SPAN_MM, TOP_MM, Wrinkles, texture_coordinates

LANDMARKS = load_template().landmark_positions


def weights(**given: float) -> np.ndarray:
    of = np.zeros(len(BLENDSHAPES), np.float32)
    for name, weight in given.items():
        of[BLENDSHAPES.index(name)] = weight
    return of


@pytest.fixture
def young() -> Wrinkles:
    """A person without lines at rest."""
    wrinkles = Wrinkles(LANDMARKS, np.random.default_rng(0))
    wrinkles.at_rest = [0.0] * len(FOLDS)
    return wrinkles


def pixels(x: float, y: float) -> tuple[int, int]:
    """Row and column of a place in mm, seen from the front."""
    return round((TOP_MM - y) / SPAN_MM * SIDE), round((x - LEFT_MM) / SPAN_MM * SIDE)


def test_a_young_face_at_rest_has_no_lines(young: Wrinkles) -> None:
    np.testing.assert_array_equal(young.texture(weights()), 1)


def test_lines_deepen_on_the_side_that_moves(young: Wrinkles) -> None:
    texture = young.texture(weights(browDown_L=1.0))
    darkened = np.argwhere(texture[:, :, 1] < 0.95)
    assert len(darkened) > 20
    # The subject's left is +x, near the inner end of the left brow, landmark 22.
    brow = pixels(*LANDMARKS[22, :2])
    assert np.abs(darkened.mean(0) - brow).max() < 25
    assert (darkened[:, 1] > pixels(0, 0)[1] - 6).mean() > 0.95
    deeper = young.texture(weights(browDown_L=1.0, browDown_R=1.0))
    assert (deeper <= texture + 1e-6).all() and deeper.sum() < texture.sum()


def test_alpha_stays_one_and_no_line_is_black(young: Wrinkles) -> None:
    texture = young.texture(np.ones(len(BLENDSHAPES), np.float32))
    assert (texture[:, :, 3] == 1).all()
    assert 0.2 < texture[:, :, :3].min() < 0.7


def test_old_faces_have_lines_at_rest() -> None:
    old = max((Wrinkles(LANDMARKS, np.random.default_rng(seed)) for seed in range(6)), key=lambda one: one.age)
    assert old.age > 0.7
    assert old.texture(weights())[:, :, 1].min() < 0.97


def test_the_back_of_the_head_has_no_lines() -> None:
    places = texture_coordinates(np.array([[0, 0, 60], [0, 0, -90], [10, 20, 50]], np.float32))
    np.testing.assert_allclose(places[1], 0.99)
    np.testing.assert_allclose(places[0], [-LEFT_MM / SPAN_MM, 1 - TOP_MM / SPAN_MM], atol=1e-6)

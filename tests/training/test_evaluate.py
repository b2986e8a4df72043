"""Predictions and truth -> figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.types import Floats
from facerecon_training.evaluate import (
    INNER_51,
    _aligned_distance,
    _correlation,
    landmark_figures,
)
from facerecon_training.photographs import INNER_49


def face_in_a_square() -> Floats:
    """(1, 68, 2): points on a line, the outer eye corners 100 px apart, in a box of 200 x 50 px."""
    points = np.zeros((1, 68, 2), np.float32)
    points[0, :, 0] = np.linspace(0, 200, 68)
    points[0, :, 1] = np.linspace(0, 50, 68)
    points[0, 36], points[0, 45] = (50, 25), (150, 25)
    return points


def test_an_error_is_counted_in_eye_distances_and_in_boxes() -> None:
    true = face_in_a_square()
    figures = landmark_figures(true + np.array([3.0, 4.0], np.float32), true)
    assert figures["nme_68"] == pytest.approx(5.0, abs=1e-4)
    assert figures["nme_inner51"] == pytest.approx(5.0, abs=1e-4)
    assert figures["nme_68_bbox"] == pytest.approx(100 * 5 / np.sqrt(200 * 50), abs=1e-4)
    assert figures["failures_inner51_over_10"] == 0


def test_an_error_of_the_jaw_alone_leaves_the_inner_points_alone() -> None:
    true = face_in_a_square()
    predicted = true.copy()
    predicted[:, :17] += 100
    figures = landmark_figures(predicted, true)
    assert figures["nme_inner51"] == 0
    assert figures["nme_68"] == pytest.approx(100 * 17 / 68 * np.sqrt(2), abs=1e-3)


def test_points_that_are_not_annotated_do_not_count() -> None:
    true = face_in_a_square()
    unknown = [i for i in range(68) if i not in INNER_49]
    true[:, unknown] = np.nan
    figures = landmark_figures(np.nan_to_num(true) + np.array([0.0, 10.0], np.float32), true)
    assert figures["nme_inner51"] == pytest.approx(10.0, abs=1e-4)
    assert "nme_68" not in figures
    assert set(INNER_49) < set(INNER_51)


def test_size_place_and_attitude_do_not_count_after_alignment() -> None:
    shape = torch.randn(1, 50, 3, generator=torch.Generator().manual_seed(0)) * 40
    turn = torch.tensor([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    assert _aligned_distance(1.2 * shape @ turn.T + 7, shape) == pytest.approx(0.0, abs=1e-4)
    dented = shape.clone()
    dented[0, 0] += 10
    assert _aligned_distance(dented, shape) > 0.1


def test_a_blendshape_that_never_moves_explains_nothing() -> None:
    jaw = BLENDSHAPES.index("jawOpen")
    true = torch.zeros(3, len(BLENDSHAPES))
    predicted = torch.full_like(true, 0.2)
    assert _correlation(predicted, true, "jawOpen") == 0.0
    true[:, jaw] = torch.tensor([0.0, 0.5, 1.0])
    predicted[:, jaw] = torch.tensor([0.1, 0.2, 0.3])
    assert _correlation(predicted, true, "jawOpen") == pytest.approx(1.0)

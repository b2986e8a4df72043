"""Predictions and truth -> figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facerecon_rt.contract import BLENDSHAPES
from facerecon_training.evaluate import (
    PredictedPeople,
    _aligned_distance,
    _correlation,
    expression_figures,
    people_figures,
)
from facerecon_training.model import FaceOutput, gaze_vectors
from facerecon_training.rendered.eyes import BLINK
from facerecon_training.rendered.render import camera_for_crop


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


def seen_people(yaws: list[float], gaze_deg: list[float], blink: list[float]) -> PredictedPeople:
    """Heads turned so far, whose eyes look so far to their left and are so far closed; the model sees everybody look
    straight ahead, half of every true blendshape weight, and rotations 3 degrees of pitch off."""
    count = len(yaws)
    cameras = [camera_for_crop(0, yaw, 0, 128, 100) for yaw in yaws]
    tilted = torch.from_numpy(np.stack([camera_for_crop(3, yaw, 0, 128, 100) for yaw in yaws]))
    shape = torch.randn(count, 30, 3, generator=torch.Generator().manual_seed(0)) * 30
    expression = torch.rand(count, 53, generator=torch.Generator().manual_seed(1))
    expression[:, list(BLINK)] = torch.tensor(blink)[:, None]
    expression[:, 0] = 0.0
    true_gaze = gaze_vectors(torch.deg2rad(torch.tensor([[[yaw, 0.0]] * 2 for yaw in gaze_deg])))
    ahead = torch.tensor([0.0, 0, 1]).expand(count, 2, 3)
    code = torch.zeros(count, 4)
    landmarks, sure = torch.zeros(count, 68, 3), torch.ones(count)
    output = FaceOutput(shape, shape, expression / 2, tilted, landmarks, sure, ahead, code, code + 1)
    rmse = np.zeros(count)
    return PredictedPeople(output, shape, shape, expression, true_gaze, cameras, np.arange(count), shape[:1], rmse)


def test_expression_and_gaze_are_measured_on_faces_that_are_nearly_frontal() -> None:
    """The fourth is turned too far; the third one's eyes are closed: 10 and 20 degrees are left."""
    figures = expression_figures(seen_people([0, 10, -20, 50], [10, -20, 30, 90], [0.0, 0.2, 0.9, 0.0]))
    assert figures["gaze_deg"] == pytest.approx(15, abs=1e-3)
    assert figures["rotation_deg_near"] == pytest.approx(3, abs=1e-2)
    # All but the one that never moves follow the truth.
    assert figures["correlation"] == pytest.approx(52 / 53, abs=1e-4)
    assert figures["correlation_tenth_worst"] == pytest.approx(1, abs=1e-4)
    assert figures["correlation_jawOpen"] == pytest.approx(1, abs=1e-4)
    assert figures["weights_at_rest"] < 0.01
    assert 0.25 < figures["weights_at_work"] < 0.5


def test_people_figures_hold_those_of_expression_and_gaze() -> None:
    seen = seen_people([0, 10, -20, 50], [10, -20, 30, 90], [0.0, 0.2, 0.9, 0.0])
    figures = people_figures(seen)
    assert figures.items() >= expression_figures(seen).items()
    assert figures["expression_mae"] == pytest.approx(float(seen.expression.mean()) / 2, rel=1e-5)
    assert figures["shape_mm"] == 0

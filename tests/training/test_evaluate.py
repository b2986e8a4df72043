"""Predictions and truth -> figures."""

from __future__ import annotations

import pytest
import torch
from facerecon_rt.contract import BLENDSHAPES
from facerecon_training.evaluate import _aligned_distance, _correlation


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

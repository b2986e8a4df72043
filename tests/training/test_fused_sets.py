"""Sets fused by precision: their error, the error they expect, and distances to a surface."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facerecon_rt.networks.basis import SHARED_ERROR
from facerecon_rt.template import load_template
from facerecon_training.evaluate import PredictedPeople
from facerecon_training.fused_sets import (
    basis_of,
    calibration,
    fused_set_figures,
    fused_sets,
    surface_distances,
)
from facerecon_training.model import FaceModel, FaceOutput, ModelConfig


def bowl() -> np.ndarray:
    """The template's mesh as a round bowl (V, 3) in mm, which looks ahead in its middle."""
    across = 160.0 * (load_template().uv - 0.5)
    return np.column_stack([across, 60.0 - (across**2).sum(1) / 120.0]).astype(np.float32)


def test_motion_along_a_surface_does_not_count_and_motion_across_it_does() -> None:
    face = bowl()
    assert surface_distances(face, face).max() == 0
    away = surface_distances(face + np.array([0, 0, 1], np.float32), face)
    front = np.linalg.norm(face[:, :2], axis=1) < 15
    assert 0.5 < np.median(away[front]) <= 1.0
    assert away.max() <= 1.0 + 1e-3


def test_sets_whose_variance_is_right_expect_their_error() -> None:
    """People of two features, and a network that sees each feature with noise of its own in every picture."""
    model = FaceModel(ModelConfig("tiny", 64)).eval()
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    people, views, size = 16, 10, model.config.shape_code
    with torch.no_grad():
        model.reconstructor.mean.copy_(torch.from_numpy(bowl().ravel()))
        model.reconstructor.shape_basis.copy_(
            torch.from_numpy(random.normal(0, 0.3, model.reconstructor.shape_basis.shape))
        )
    basis = basis_of(model)
    true_code = random.normal(0, 1, (people, size))
    who = np.repeat(np.arange(people), views)
    # A measurement with noise of variance 1 / 3 has the posterior variance 1 / (1 + 3), and its mean leans to 0. Four
    # fifths of the noise are the same in all pictures of a person.
    shared, own = random.normal(0, 1, (people, size))[who], random.normal(0, 1, (len(who), size))
    noise = np.sqrt(1 / 3) * (np.sqrt(SHARED_ERROR) * shared + np.sqrt(1 - SHARED_ERROR) * own)
    codes = 0.75 * (true_code[who] + noise)
    shapes = basis.mean + np.tensordot(codes, basis.shape, 1)
    true = basis.mean + np.tensordot(true_code, basis.shape, 1)
    zeros, count = torch.zeros(0), len(who)
    output = FaceOutput(
        torch.from_numpy(shapes.astype(np.float32)), zeros, zeros, zeros, zeros, torch.ones(count), zeros,
        torch.from_numpy(codes.astype(np.float32)), torch.full((count, size), 0.25),
    )  # fmt: skip
    seen = PredictedPeople(
        output, torch.from_numpy(true[who].astype(np.float32)), zeros, zeros, zeros, [], who,
        torch.from_numpy(basis.mean[None]), np.zeros(count),
    )  # fmt: skip
    sets = fused_sets(output, seen, basis)
    rows = fused_set_figures(sets, seen)
    assert list(rows) == ["1", "2", "5", "10", "mean face"]
    for number in ("1", "2", "5", "10"):
        assert rows[number]["expected_rmse_mm"] == pytest.approx(rows[number]["rmse_mm"], rel=0.1)
    assert rows["10"]["rmse_mm"] < rows["10"]["robust_rmse_mm"] < rows["1"]["rmse_mm"] < rows["mean face"]["rmse_mm"]
    assert [row["expected_rmse_mm"] for row in calibration(sets).values()] == sorted(
        row["expected_rmse_mm"] for row in calibration(sets).values()
    )

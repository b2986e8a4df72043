"""What exporting a FaceModel takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from facerecon_export.face import contract_of
from facerecon_rt.errors import ModelRefused
from facerecon_training.checkpoint import load_weights
from facerecon_training.model import offset_scale


def test_the_contract_is_checked_before_the_work_begins(small_weights: Path) -> None:
    model = load_weights(small_weights)
    model.config = dataclasses.replace(model.config, input_size=16)
    with pytest.raises(ModelRefused, match="input_size 16"):
        contract_of(model, "")


def test_the_contract_says_what_a_mirror_would_lose(small_weights: Path) -> None:
    model = load_weights(small_weights)
    before = np.reshape(contract_of(model, "").annotation_asymmetry, (68, 2))
    with torch.no_grad():
        model.reconstructor.annotation.bias.add_(torch.tensor([0.1, 0.0]).repeat(68))
    after = np.reshape(contract_of(model, "").annotation_asymmetry, (68, 2))
    step = 0.1 * offset_scale(model.config.input_size)
    np.testing.assert_allclose(after - before, np.tile([step, 0.0], (68, 1)), atol=2e-4)

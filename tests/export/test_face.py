"""Requirements for exporting a FaceModel."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from facerecon_export.face import contract_of
from facerecon_rt.errors import ModelRefused
from facerecon_training.checkpoint import load_weights


def test_the_contract_is_checked_before_the_work_begins(small_weights: Path) -> None:
    model = load_weights(small_weights)
    model.config = dataclasses.replace(model.config, input_size=16)
    with pytest.raises(ModelRefused, match="input_size 16"):
        contract_of(model, "")


def test_the_contract_says_what_a_mirror_would_lose(small_weights: Path) -> None:
    model = load_weights(small_weights)
    model.reconstructor.asymmetry.copy_(torch.tensor([0.5, -0.25]).repeat(68, 1))
    np.testing.assert_array_equal(contract_of(model, "").annotation_asymmetry, [0.5, -0.25] * 68)

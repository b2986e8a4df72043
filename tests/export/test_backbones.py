"""Every backbone by its name: from weights through the exporter into the runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facerecon_export.crops import synthetic_crops
from facerecon_export.deploy import export_weights
from facerecon_export.subject import ExportOptions
from facerecon_rt.contract import PRECISIONS
from facerecon_rt.networks.session import FaceSession
from facerecon_training.backbones import BACKBONES
from facerecon_training.checkpoint import load_weights, save_weights
from facerecon_training.model import FaceModel, ModelConfig

from .conftest import few_are_enough

SHALLOW: dict[str, dict[str, Any]] = {
    "resnet18": {"depths": (2, 1, 1, 1)},
    "resnet50": {"depths": (2, 1, 1, 1)},
    "densenet121": {"depths": (2, 1, 1, 1), "channels": 72},
}
"""Fewer of the same blocks, since a trace takes time for each. tests/training/test_model.py counts the weights of the
whole networks."""


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "tiny"])
def test_training_export_and_runtime_take_it(
    name: str, tmp_path: Path, few_crops: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for attribute, value in SHALLOW.get(name, {}).items():
        monkeypatch.setattr(BACKBONES[name], attribute, value)
    torch.manual_seed(0)
    model = FaceModel(ModelConfig(name, 64, shape_code=8, hidden=16, terms="test use only"))
    with torch.no_grad():
        model.reconstructor.mean.normal_(0, 40)
        model.reconstructor.shape_basis.normal_()
    # One step of statistics, so that normalisation is that of a network that has seen pictures.
    crops = synthetic_crops(64, 8)
    model.train()(torch.from_numpy(crops).permute(0, 3, 1, 2).float())
    weights, target = tmp_path / "face.safetensors", tmp_path / "face.onnx"
    save_weights(model, weights)
    # All precisions of one of each kind of block: mobile and medium have more of compact's.
    precisions = PRECISIONS if name in ("compact", "resnet18") else ("fp32",)
    options = ExportOptions(precisions, crops=few_crops, calibration=few_crops, budget_s=0)
    with few_are_enough():
        files = export_weights(weights, tmp_path, options, lambda line: None)
    assert not any(file.findings for file in files if file.target != "cpu")
    with FaceSession(target, provider="cpu") as session, torch.no_grad():
        assert session.contract.backbone == name
        found = session.run(crops)
        expected = load_weights(weights)(torch.from_numpy(crops).permute(0, 3, 1, 2).float())
    np.testing.assert_allclose(found.landmarks, expected.landmarks.numpy(), atol=0.01)
    np.testing.assert_allclose(found.shape, expected.shape.numpy(), atol=0.01)

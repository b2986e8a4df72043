"""The form of a FaceModel that is exported, against the one that is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import torch
from facerecon_export.lean import LeanFace
from facerecon_training.checkpoint import load_weights

if TYPE_CHECKING:
    from pathlib import Path

    from tests.export.conftest import SmallExport


def test_it_answers_as_the_model_does(small_weights: Path) -> None:
    """Every weight is random, so that nothing is right by being zero, and heads look everywhere."""
    model = load_weights(small_weights)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in (model.reconstructor.camera, model.reconstructor.annotation):
            layer.weight.normal_(generator=random)
            layer.bias.normal_(generator=random)
        lean = LeanFace(model)
        features = torch.randn(20, model.extractor.feature_count, generator=random)
        expected, _ = model.reconstructor(features)
        found = lean.reconstructor(features)
        picture = torch.rand(2, 3, 64, 64, generator=random) * 255
        seen, expected_seen = lean(picture), model(picture)
    towards = torch.nn.functional.normalize(expected.crop_from_head[:, 0, :3], dim=1)
    assert (towards @ towards.T).min() < -0.5
    for one, other in ((expected, found), (expected_seen, seen)):
        for name, exact, close in zip(one._fields, one, other, strict=True):
            torch.testing.assert_close(close, exact, rtol=2e-5, atol=2e-3, msg=name)


def test_the_exported_reconstructor_is_few_operators_all_of_which_gpus_have(exported: SmallExport) -> None:
    nodes = [node.op_type for node in onnx.load(exported.onnx).graph.node]
    behind = nodes[nodes.index("Gemm") :]
    assert len(behind) < 40
    assert "LpNormalization" not in nodes  # which ONNX Runtime's CUDA provider would leave to the CPU

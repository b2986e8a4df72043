"""The exported form of a FaceModel, compared with the form that is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
import torch
from facerecon_export.lean import LeanFace
from facerecon_rt.contract import OUTPUTS, OUTPUTS_1
from facerecon_training.checkpoint import load_weights

if TYPE_CHECKING:
    from pathlib import Path

    from tests.export.conftest import SmallExport


@pytest.mark.parametrize(("which", "outputs"), [("small_weights", OUTPUTS), ("small_weights_1", OUTPUTS_1)])
def test_it_answers_as_the_model_does(which: str, outputs: tuple[str, ...], request: pytest.FixtureRequest) -> None:
    """Every weight is random, so that no result is right only because a weight is zero, and heads and eyes have all
    directions."""
    model = load_weights(request.getfixturevalue(which))
    part = model.reconstructor
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in (part.camera, part.annotation, *((part.gaze, part.precision) if part.has_gaze else ())):
            layer.weight.normal_(generator=random)
            layer.bias.normal_(generator=random)
        assert (part.direct_identity is None) == (which == "small_weights_1")
        if part.direct_identity is not None:
            part.direct_identity.weight.normal_(generator=random)
        lean = LeanFace(model)
        features = torch.randn(20, model.extractor.feature_count, generator=random)
        expected, _ = model.reconstructor(features)
        found = lean.reconstructor(features)
        picture = torch.rand(2, 3, 64, 64, generator=random) * 255
        seen, expected_seen = lean(picture), model(picture)
    towards = torch.nn.functional.normalize(expected.crop_from_head[:, 0, :3], dim=1)
    assert (towards @ towards.T).min() < -0.5
    eye_look = expected.expression[:, (part.eye_look != 0).any(0)]
    assert eye_look.min() == 0 or not part.has_gaze
    assert eye_look.max() == 1 or not part.has_gaze
    for one, other in ((expected, found), (expected_seen, seen)):
        for name, exact, close in zip(outputs, one[: len(outputs)], other, strict=True):
            torch.testing.assert_close(close, exact, rtol=2e-5, atol=2e-3, msg=name)


def test_the_exported_reconstructor_is_few_operators_all_of_which_gpus_have(exported: SmallExport) -> None:
    nodes = [node.op_type for node in onnx.load(exported.onnx).graph.node]
    behind = nodes[nodes.index("Gemm") :]
    assert len(behind) < 44
    assert "LpNormalization" not in nodes  # ONNX Runtime's CUDA provider would leave it to the CPU


def test_weights_without_gaze_export_as_they_did(exported_1: Path) -> None:
    """No piece of a split is empty, since not every runtime accepts that, and the graph has no nodes for gaze."""
    graph = onnx.load(exported_1).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    splits = [constants[node.input[1]] for node in graph.node if node.op_type == "Split"]
    assert splits and all((sizes > 0).all() for sizes in splits)
    assert "Sin" not in {node.op_type for node in graph.node}

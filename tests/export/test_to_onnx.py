"""A small FaceModel through the exporter, and what must hold for the file that comes out."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from facerecon_export import to_onnx
from facerecon_export.crops import synthetic_crops
from facerecon_export.to_onnx import VerificationError, export_face_model, export_onnx
from facerecon_export.verify import run_torch
from facerecon_rt.contract import OUTPUTS
from facerecon_rt.errors import ModelRefused, UsageError
from facerecon_rt.session import FaceSession
from facerecon_rt.template import load_template
from facerecon_training.checkpoint import load_weights, save_weights
from facerecon_training.model import FaceModel, ModelConfig
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Exported:
    """What the fixture `exported` gives: one small FaceModel, exported once."""

    weights: Path
    onnx: Path
    said: list[str]
    """The progress lines."""


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the smallest backbone, every one of them random, so that nothing is right by being zero."""
    torch.manual_seed(0)
    model = FaceModel(ModelConfig(backbone="tiny", input_size=64, shape_code=8, hidden=16, terms="test use only"))
    with torch.no_grad():
        model.reconstructor.mean.normal_(0, 40)
        model.reconstructor.shape_basis.normal_()
        model.reconstructor.expression_basis.normal_()
        model.reconstructor.camera.weight.normal_(0, 0.5)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 2)
                layer.weight.uniform_(0.5, 2)
                layer.bias.normal_(0, 0.1)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(model, path)
    return path


@pytest.fixture(scope="module")
def exported(small_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The small model through the whole export, verified on made-up pictures."""
    said: list[str] = []
    target = tmp_path_factory.mktemp("exported") / "small.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FACERECON_DATA", raising=False)
        export_face_model(small_weights, target, None, said.append)
    return Exported(small_weights, target, said)


def test_the_exported_file_answers_as_the_model_does(exported: Exported) -> None:
    crops = synthetic_crops(64, 5)
    reference = run_torch(load_weights(exported.weights), crops)
    with FaceSession(exported.onnx) as session:
        answer = session.run(crops)
    for name in OUTPUTS:
        np.testing.assert_allclose(getattr(answer, name), getattr(reference, name), atol=1e-3, err_msg=name)
    assert np.ptp(answer.landmarks, axis=0).max() > 1.0, "the crops must not all look the same to the model"


def test_the_file_carries_its_contract(exported: Exported) -> None:
    with FaceSession(exported.onnx) as session:
        contract = session.contract
    assert (contract.input_size, contract.backbone, contract.precision) == (64, "tiny", "fp32")
    assert contract.terms == "test use only"
    assert contract.template_sha256 == load_template().sha256
    assert contract.weights_sha256 == hashlib.sha256(exported.weights.read_bytes()).hexdigest()


def test_inputs_and_outputs_are_named_and_sized_as_in_the_contract(exported: Exported) -> None:
    graph = onnx.load(exported.onnx).graph
    dims = [d.dim_param or d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    assert (graph.input[0].name, dims) == ("image", ["N", 64, 64, 3])
    assert tuple(value.name for value in graph.output) == OUTPUTS
    assert all(value.type.tensor_type.shape.dim[0].dim_param == "N" for value in graph.output)


def test_batch_normalisation_is_folded_and_the_picture_is_cast_first(exported: Exported) -> None:
    operators = [node.op_type for node in onnx.load(exported.onnx).graph.node]
    assert operators[:2] == ["Cast", "Transpose"]
    assert "BatchNormalization" not in operators


def test_the_file_tells_nothing_of_the_machine_it_was_made_on(exported: Exported) -> None:
    content = exported.onnx.read_bytes()
    for trace in (b"stack_trace", b"model.py", str(Path(to_onnx.__file__).parent.parent).encode()):
        assert trace not in content


def test_progress_is_told_and_the_table_shown(exported: Exported) -> None:
    assert [line.split()[0] for line in exported.said] == [
        "reading", "tracing", "putting", "verifying", "output", "wrote",
    ]  # fmt: skip
    assert "made-up pictures" in exported.said[3]
    assert "landmarks   px" in exported.said[4]
    assert exported.onnx.name in exported.said[5]


def test_nothing_else_is_left_behind(exported: Exported) -> None:
    assert list(exported.onnx.parent.iterdir()) == [exported.onnx]


def test_a_file_that_answers_differently_is_not_put_in_place(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exported_wrongly(*arguments: Any) -> None:
        model = onnx.load(exported.onnx)
        bias = next(tensor for tensor in model.graph.initializer if tensor.name == "reconstructor.camera.bias")
        values = onnx.numpy_helper.to_array(bias).copy()
        values[1] += 1e-3
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        onnx.save(model, arguments[-1])

    monkeypatch.setattr(to_onnx, "export_onnx", exported_wrongly)
    monkeypatch.setattr(to_onnx, "take_images", lambda model: None)
    target = tmp_path / "face.onnx"
    target.write_bytes(b"the one before")
    said: list[str] = []
    with pytest.raises(VerificationError, match=r"face\.onnx: not written"):
        export_face_model(exported.weights, target, None, said.append)
    assert target.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [target]
    assert "too far" in said[-1]


def test_missing_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"absent\.safetensors"):
        export_face_model(tmp_path / "absent.safetensors", tmp_path / "face.onnx", None, print)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(small_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"face\.onnx: cannot be written \(No such file or directory\)"):
        export_face_model(small_weights, tmp_path / "absent" / "face.onnx", None, lambda line: None)


class TwoPictures(nn.Module):
    """Another network than ours: two inputs, two dynamic dimensions."""

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return a + b, (a * b).sum(dim=1) / len(a)


def test_any_module_can_be_exported(tmp_path: Path) -> None:
    batch, width = torch.export.Dim("N", min=1), torch.export.Dim("W", min=2)
    shapes = ({0: batch, 1: width}, {0: batch, 1: width})
    path = tmp_path / "two.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_onnx(
            TwoPictures().eval(), (torch.ones(2, 4), torch.ones(2, 4)), ["a", "b"], ["total", "mean"], shapes, path
        )
    graph = onnx.load(path).graph
    named = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.input}
    assert named == {"a": ["N", "W"], "b": ["N", "W"]}
    assert [value.name for value in graph.output] == ["total", "mean"]
    assert not [entry for entry in tmp_path.iterdir() if entry != path], "one self-contained file"


def test_a_module_in_training_mode_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="training mode"):
        export_onnx(TwoPictures(), (torch.ones(2, 4), torch.ones(2, 4)), ["a", "b"], ["c", "d"], None, tmp_path / "x")


def test_the_contract_is_checked_before_the_work_begins(small_weights: Path) -> None:
    model = load_weights(small_weights)
    model.config = dataclasses.replace(model.config, input_size=16)
    with pytest.raises(ModelRefused, match="input_size 16"):
        to_onnx.contract_of(model, "")

"""Weights and training state: what comes back is what was saved, and nothing else is taken for it."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from facerecon_rt.errors import ModelRefused
from facerecon_rt.template import load_template
from facerecon_training.checkpoint import KEY, load_checkpoint, load_weights, save_checkpoint, save_weights
from facerecon_training.model import FaceModel, ModelConfig
from safetensors.torch import save_file

CONFIG = ModelConfig("tiny", 64, shape_code=8, hidden=16, terms="for tests")


@pytest.fixture
def model() -> FaceModel:
    torch.manual_seed(0)
    return FaceModel(CONFIG)


def metadata(**changes: object) -> dict[str, str]:
    return {KEY: json.dumps({"template_sha256": load_template().sha256, **asdict(CONFIG), **changes})}


def test_weights_come_back_with_their_configuration(tmp_path: Path, model: FaceModel) -> None:
    save_weights(model, tmp_path / "face.safetensors")
    loaded = load_weights(tmp_path / "face.safetensors")
    assert loaded.config == CONFIG
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, atol=0, rtol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["face.safetensors"]


def test_equal_weights_have_equal_checksums(tmp_path: Path, model: FaceModel) -> None:
    for name in ("a", "b"):
        save_weights(model, tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"no weights at .*face\.safetensors; train them"):
        load_weights(tmp_path / "face.safetensors")


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "face.safetensors"
    path.write_bytes(pickle.dumps({"weights": 1}))
    with pytest.raises(ModelRefused, match=r"is not a \.safetensors file"):
        load_weights(path)


@pytest.mark.parametrize(
    ("described", "complaint"),
    [
        ({}, "holds no FaceModel configuration"),
        (metadata(template_sha256="another"), "was trained for another face template"),
        (metadata(backbone="huge"), "does not fit its own"),
        (metadata(depth=3), "does not fit its own configuration"),
        ({KEY: "{"}, "is not JSON"),
        ({KEY: "3"}, "is not JSON"),
        (metadata(hidden=17), "does not fit its own"),
    ],
)
def test_weights_of_something_else_are_refused(
    tmp_path: Path, model: FaceModel, described: dict[str, str], complaint: str
) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, tmp_path / "other.safetensors", described)
    with pytest.raises(ModelRefused, match=complaint) as caught:
        load_weights(tmp_path / "other.safetensors")
    assert "\n" not in str(caught.value)


def test_weights_that_lack_a_tensor_are_refused(tmp_path: Path, model: FaceModel) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if "camera" not in name}
    save_file(tensors, tmp_path / "part.safetensors", metadata())
    with pytest.raises(ModelRefused, match="does not fit its own configuration"):
        load_weights(tmp_path / "part.safetensors")


def test_training_state_comes_back(tmp_path: Path) -> None:
    state = {"step": 7, "log": [{"step": 5, "loss": 0.5}], "model": {"a": torch.arange(3.0)}}
    save_checkpoint(tmp_path / "checkpoint.pt", state)
    loaded = load_checkpoint(tmp_path / "checkpoint.pt")
    assert (loaded["step"], loaded["log"]) == (7, [{"step": 5, "loss": 0.5}])
    torch.testing.assert_close(loaded["model"]["a"], torch.arange(3.0))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


class Code:
    """Something that only an unsafe load would bring back."""


@pytest.mark.parametrize("content", ["code", "cut short", "empty", "text"])
def test_a_checkpoint_with_code_or_damage_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "checkpoint.pt"
    if content == "code":
        torch.save({"step": Code()}, path)
    elif content == "cut short":
        save_checkpoint(path, {"a": torch.zeros(1000)})
        path.write_bytes(path.read_bytes()[:1000])
    else:
        path.write_bytes(b"" if content == "empty" else b"hello")
    with pytest.raises(ModelRefused, match=r"checkpoint\.pt is not a readable checkpoint.*; delete it") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)

"""Weights and training state: what comes back is what was saved, and nothing else is taken for it."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from facerecon_rt.errors import ModelRefused, UsageError
from facerecon_rt.template import load_template
from facerecon_training.arrays import new_pictures, save_arrays
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


def test_weights_load_without_pytorchs_compiler(tmp_path: Path, model: FaceModel) -> None:
    """The import of `torch._dynamo` takes seconds."""
    save_weights(model, tmp_path / "face.safetensors")
    program = (
        "import sys; from pathlib import Path; from facerecon_training.checkpoint import load_weights; "
        "load_weights(Path(sys.argv[1])); sys.exit('torch._dynamo' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "face.safetensors")], check=True)


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
        ({KEY: "[" * 100_000}, "is not JSON"),
        ({KEY: '{"hidden": ' + "1" * 5000 + "}"}, "is not JSON"),
        (
            metadata(hidden=17),
            r"does not fit its own configuration: reconstructor.* has shape \(16, .*\), not \(17, .*\)",
        ),
        (metadata(hidden=1_000_000), "hidden 1000000 is not a whole number from 1 to 65536"),
        (metadata(hidden=65_536), r"does not fit its own .* has shape \(16, .*\), not \(65536, .*\)"),
        (metadata(hidden=10**400), "hidden 1000.* is not a whole number"),
        (metadata(hidden=True), "hidden True is not a whole number"),
        (metadata(hidden=None), "hidden None is not a whole number"),
        (metadata(shape_code=-1), "shape_code -1 is not a whole number from 1 to 4096"),
        (metadata(shape_code=0.5), "shape_code 0.5 is not a whole number"),
        (metadata(input_size=10**9), "input_size 1000000000 is not a whole number from 1 to 1024"),
        (metadata(input_size=65), "input_size 65 is not a multiple of 32"),
        (metadata(places=3), "places 3 is not an even number from 0 to 65536"),
        (metadata(places=-2), "places -2 is not an even number"),
        (metadata(places=True), "places True is not an even number"),
        (metadata(backbone=["tiny"]), "backbone is not a text of one line"),
        (metadata(terms="free\nfor all"), "terms is not a text of one line"),
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


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        (torch.full((9,), torch.nan), "holds values that are not finite; the file is damaged"),
        (torch.full((9,), torch.inf), "holds values that are not finite; the file is damaged"),
        (torch.zeros(9, dtype=torch.float64), "has type torch.float64, which no weights of facerecon-rt have"),
        (torch.zeros(9, dtype=torch.complex64), "has type torch.complex64"),
        (torch.zeros(9, dtype=torch.bool), "has type torch.bool"),
    ],
    ids=lambda value: "",
)
def test_weights_that_are_no_numbers_are_refused(
    tmp_path: Path, model: FaceModel, changed: torch.Tensor, complaint: str
) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    assert tensors["reconstructor.camera.bias"].shape == changed.shape
    save_file({**tensors, "reconstructor.camera.bias": changed}, tmp_path / "face.safetensors", metadata())
    with pytest.raises(ModelRefused, match=f"reconstructor.camera.bias' {complaint}"):
        load_weights(tmp_path / "face.safetensors")


def test_weights_are_read_from_files_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "device.safetensors").symlink_to("/dev/zero")
    for name in ("pipe", "device", "a" * 300):
        with pytest.raises(ModelRefused, match="no weights at"):
            load_weights(tmp_path / f"{name}.safetensors")


def test_weights_written_before_there_was_gaze_are_read_without(tmp_path: Path) -> None:
    """As release 0.1 wrote them: nothing is said of gaze in their configuration."""
    torch.manual_seed(0)
    older = FaceModel(replace(CONFIG, gaze=False))
    described = {name: value for name, value in asdict(CONFIG).items() if name != "gaze"}
    tensors = {name: tensor.contiguous() for name, tensor in older.state_dict().items()}
    path = tmp_path / "older.safetensors"
    save_file(tensors, path, {KEY: json.dumps({"template_sha256": load_template().sha256, **described})})
    loaded = load_weights(path)
    assert loaded.config == replace(CONFIG, gaze=False)
    # Written again, they say so themselves.
    save_weights(loaded, path)
    assert load_weights(path).config == replace(CONFIG, gaze=False)


def test_training_state_comes_back(tmp_path: Path) -> None:
    state = {"step": 7, "log": [{"step": 5, "loss": 0.5}], "model": {"a": torch.arange(3.0)}}
    save_checkpoint(tmp_path / "checkpoint.pt", state)
    loaded = load_checkpoint(tmp_path / "checkpoint.pt")
    assert (loaded["step"], loaded["log"]) == (7, [{"step": 5, "loss": 0.5}])
    torch.testing.assert_close(loaded["model"]["a"], torch.arange(3.0))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


class Code:
    """Something that only an unsafe load would bring back."""


def rewritten(path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """The archive with its parts changed, and their sums as they should be."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, change(name, data))


def test_a_checkpoint_damaged_anywhere_is_refused_or_whole(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"step": 7, "log": [{"loss": 0.5}], "model": {"a": torch.arange(30.0)}})
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    refused = 0
    for number in range(300):
        damaged = whole.copy()
        damaged[random.integers(len(whole), size=1 + number % 3)] = random.integers(256)
        path.write_bytes(damaged.tobytes())
        try:
            state = load_checkpoint(path)
        except ModelRefused as error:
            assert "\n" not in str(error)
            refused += 1
        else:  # padding, or a field of the archive that says nothing
            assert state["step"] == 7
            torch.testing.assert_close(state["model"]["a"], torch.arange(30.0), atol=0, rtol=0)
    assert refused > 150


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_changed_on_purpose_is_refused(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    path = tmp_path / "checkpoint.pt"
    refused = 0
    for _ in range(300):
        save_checkpoint(path, {"step": 7, "log": [{"loss": 0.5}], "model": {"a": torch.arange(30.0)}})

        def change(name: str, data: bytes) -> bytes:
            array = np.frombuffer(data, np.uint8).copy()
            if name.endswith("data.pkl"):
                array[random.integers(len(array))] = random.integers(256)
            return array.tobytes()

        rewritten(path, change)
        try:
            load_checkpoint(path)
        except ModelRefused:
            refused += 1
    assert refused > 100


def test_a_checkpoint_that_grows_when_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"a": torch.zeros(10**6)})
    rewritten(path, lambda name, data: data, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**5
    with pytest.raises(ModelRefused, match="its parts are larger than the file"):
        load_checkpoint(path)


def test_a_checkpoint_that_is_no_dictionary_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "checkpoint.pt")
    os.mkfifo(tmp_path / "pipe.pt")
    for name in ("checkpoint.pt", "pipe.pt", "none.pt"):
        with pytest.raises(ModelRefused, match=r"is not a readable checkpoint"):
            load_checkpoint(tmp_path / name)


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


def test_a_full_disk_is_named_and_leaves_the_earlier_files(tmp_path: Path, model: FaceModel) -> None:
    weights, checkpoint, pictures = (tmp_path / name for name in ("face.safetensors", "checkpoint.pt", "images.npy"))
    save_weights(model, weights)
    save_checkpoint(checkpoint, {"step": 1})
    state = {"model": model.state_dict()}
    before = weights.read_bytes(), checkpoint.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # no file may become larger than this
    try:
        for write in (
            lambda: save_weights(model, weights),
            lambda: save_checkpoint(checkpoint, state),
            lambda: new_pictures(pictures, (9, 20, 20, 3)),
            lambda: save_arrays(tmp_path / "labels.npz", zeros=np.zeros(1000)),
        ):
            with pytest.raises(UsageError, match=r"cannot write .*/(face|checkpoint|images|labels)\."):
                write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (weights.read_bytes(), checkpoint.read_bytes()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "face.safetensors"]


def test_pictures_are_mapped_where_no_space_can_be_taken_in_advance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    new_pictures(tmp_path / "images.npy", (2, 3, 3, 3))[:] = 7
    assert (np.load(tmp_path / "images.npy") == 7).all()

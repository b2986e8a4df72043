"""Weights and training state <-> files. Nothing here can run code from a file."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from facerecon_rt.errors import ModelRefused, UsageError
from facerecon_rt.paths import is_file
from facerecon_rt.sinks.outputs import whole
from facerecon_rt.template import load_template
from facerecon_rt.values import shown
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .arrays import first_line
from .model import FaceModel, ModelConfig

KEY = "facerecon.config"
"""In the metadata of a .safetensors file: the model's configuration and the template it belongs to, as JSON."""

DTYPES = (torch.float32, torch.int64)
"""Of weights: all but counts are float32."""
UNREADABLE = (
    OSError,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    struct.error,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    ArithmeticError,
    MemoryError,
    NotImplementedError,
    AssertionError,
)
"""What the readers of archives and pickles raise at what is none, or was changed."""


def save_weights(model: FaceModel, path: Path) -> None:
    """Write a .safetensors file with the model's configuration in its metadata; whole or not at all."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    # One key: safetensors writes several in random order, and equal weights should have equal checksums.
    metadata = {KEY: json.dumps({"template_sha256": load_template().sha256, **asdict(model.config)})}
    with whole(path) as partial:
        save_file(tensors, partial, metadata)


def load_weights(path: Path) -> FaceModel:
    """A .safetensors file -> the FaceModel it was saved from, in evaluation mode.

    Raises ModelRefused when the file is missing, is not ours, or belongs to another face template.
    """
    metadata, tensors = read_tensors(path, "facerecon-train train")
    if KEY not in metadata:
        raise ModelRefused(f"{path} holds no FaceModel configuration; it was not written by `facerecon-train`")
    try:
        value = dict(json.loads(metadata[KEY]))
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelRefused(f"{path}: its configuration is not JSON ({error}); it was damaged") from error
    if value.pop("template_sha256", None) != load_template().sha256:
        raise ModelRefused(f"{path} was trained for another face template; train it again with this release")
    try:
        config = ModelConfig(**{"gaze": False, **value})  # weights of release 0.1.0 do not say
        config.check()
        with torch.device("meta"):  # takes no memory: a few bytes may ask for more than there is
            outline = FaceModel(config)
        check_fit(tensors, outline.state_dict())
        model = FaceModel(config)
        model.load_state_dict(tensors)
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        raise ModelRefused(f"{path} does not fit its own configuration: {first_line(error)}") from error
    return model.eval()


def read_tensors(path: Path, trained_by: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """A .safetensors file -> its metadata and its tensors, which are no larger than the file. `trained_by`: the command
    that writes such files. Raises ModelRefused when it is missing, is none, or holds what is no number."""
    if not is_file(path):
        raise ModelRefused(f"no weights at {path}; train them with `{trained_by}`")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except OSError as error:
        raise ModelRefused(f"cannot read {path}: {error.strerror or first_line(error)}") from error
    except SafetensorError as error:
        raise ModelRefused(f"{path} is not a .safetensors file ({first_line(error)})") from error
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise ModelRefused(f"{path}: {shown(name)} is of {tensor.dtype}, as no weights of ours are")
        if not torch.isfinite(tensor).all():
            raise ModelRefused(f"{path}: {shown(name)} holds what is no number; it was damaged, or training went wrong")
    return metadata, tensors


def check_fit(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises ValueError where a tensor that is wanted has another shape, or is not there."""
    for name, tensor in wanted.items():
        if name in tensors and tensors[name].shape != tensor.shape:
            raise ValueError(f"{name} is {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}")
        # Weights of release 0.1.0 lack it, and it is small.
        if name not in tensors and not name.endswith("asymmetry"):
            raise ValueError(f"there is no {name}")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Training state (tensors, numbers, strings in dicts and lists), whole or not at all."""
    with whole(path) as partial:
        torch.save(state, partial)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote; nothing but plain values and tensors is ever unpickled.

    Raises ModelRefused when the file is not one.
    """
    try:
        _check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise ModelRefused(
            f"{path} is not a readable checkpoint ({first_line(error)}); delete it to start anew"
        ) from error
    if not isinstance(state, dict):
        raise ModelRefused(f"{path} is not a readable checkpoint (no dictionary in it); delete it to start anew")
    return state


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """In the block a run goes on from what `load_checkpoint` read. Raises UsageError where that is of another run."""
    try:
        yield
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path} is of another network; give its options, or another --run") from error


def _check_archive(path: Path) -> None:
    """Raises BadZipFile where the file is not as `torch.save` writes it: every part stored as it is, with its sum, so
    that all of them take no more memory than the file has bytes."""
    if not is_file(path):
        raise zipfile.BadZipFile("it is no file")
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        stored = all(part.compress_type == zipfile.ZIP_STORED for part in parts)
        if not stored or sum(part.file_size for part in parts) > path.stat().st_size:
            raise zipfile.BadZipFile("its parts are larger than the file")
        damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} is damaged")

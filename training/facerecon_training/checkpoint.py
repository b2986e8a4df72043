"""Weights and training state <-> files. Reading never runs code from a file."""

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
from facerecon_rt.errors import ModelRefused, UsageError, first_line
from facerecon_rt.paths import is_file
from facerecon_rt.sinks.outputs import whole
from facerecon_rt.template import load_template
from facerecon_rt.values import shown
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .model import FaceModel, ModelConfig

KEY = "facerecon.config"
"""Key in the metadata of a .safetensors file. Its value is JSON: the model's configuration and its face template."""

DTYPES = (torch.float32, torch.int64)
"""Types that weights may have: all are float32, except counts."""
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
"""Errors that the readers of archives and pickles raise for other files and for damaged files."""


def save_weights(model: FaceModel, path: Path) -> None:
    """Write a .safetensors file with the model's configuration in its metadata, completely or not at all."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    # The metadata has one key: safetensors writes several in random order, and equal weights should have equal
    # checksums.
    metadata = {KEY: json.dumps({"template_sha256": load_template().sha256, **asdict(model.config)})}
    with written(path) as partial:
        save_file(tensors, partial, metadata)


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Yield a path for PyTorch or safetensors to write, completely or not at all.

    Raises UsageError for an error of the disk, which the two report by errors of their own.
    """
    with whole(path) as partial:
        try:
            yield partial
        except (SafetensorError, RuntimeError, OSError) as error:
            raise UsageError(f"cannot write {path}: {first_line(error)}") from error


def load_weights(path: Path) -> FaceModel:
    """Return the FaceModel that a .safetensors file holds, in evaluation mode.

    Raises ModelRefused if the file is missing, was not written by `facerecon-train`, or has another face template.
    """
    metadata, tensors = read_tensors(path, "facerecon-train train")
    if KEY not in metadata:
        raise ModelRefused(
            f"{path} holds no FaceModel configuration, so `facerecon-train` did not write it; give other weights"
        )
    try:
        value = dict(json.loads(metadata[KEY]))
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelRefused(
            f"{path}: its configuration is not JSON ({error}), so the file is damaged; copy or train it again"
        ) from error
    if value.pop("template_sha256", None) != load_template().sha256:
        raise ModelRefused(f"{path} was trained for another face template; train it again with this release")
    try:
        config = ModelConfig(**{"gaze": False, "places": 0, **value})  # older weights lack the fields
        config.check()
        with torch.device("meta"):  # allocates no memory: a file of a few bytes may ask for too much
            outline = FaceModel(config)
        check_fit(tensors, outline.state_dict())
        model = FaceModel(config)
        model.load_state_dict(tensors)
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        raise ModelRefused(f"{path} does not fit its own configuration: {first_line(error)}") from error
    return model.eval()


def read_tensors(path: Path, trained_by: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the metadata and the tensors of a .safetensors file. The tensors are no larger than the file.

    `trained_by` is the command that writes such files. Raises ModelRefused if the file is missing, is not a
    .safetensors file, or holds other types or values that are not finite.
    """
    if not is_file(path):
        raise ModelRefused(f"there are no weights at {path}; train them with `{trained_by}`")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except OSError as error:
        raise ModelRefused(f"cannot read {path}: {error.strerror or first_line(error)}") from error
    except SafetensorError as error:
        raise ModelRefused(f"{path} is not a .safetensors file ({first_line(error)}); give another file") from error
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise ModelRefused(
                f"{path}: {shown(name)} has type {tensor.dtype}, which no weights of facerecon-rt have; give other "
                "weights"
            )
        if not torch.isfinite(tensor).all():
            raise ModelRefused(
                f"{path}: {shown(name)} holds values that are not finite; the file is damaged or the training "
                "diverged, so train it again"
            )
    return metadata, tensors


def check_fit(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a wanted tensor is missing or has another shape."""
    for name, tensor in wanted.items():
        if name in tensors and tensors[name].shape != tensor.shape:
            raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}")
        # Weights of release 0.1.0 lack this small tensor.
        if name not in tensors and not name.endswith("asymmetry"):
            raise ValueError(f"there is no {name}")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write the training state completely or not at all. It consists of tensors, numbers, strings, dicts and lists."""
    with written(path) as partial:
        torch.save(state, partial)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return the state that `save_checkpoint` wrote. Only plain values and tensors are ever unpickled.

    Raises ModelRefused for a file that is not a readable checkpoint.
    """
    try:
        _check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise ModelRefused(
            f"{path} is not a readable checkpoint ({first_line(error)}); delete it to start again"
        ) from error
    if not isinstance(state, dict):
        raise ModelRefused(f"{path} is not a readable checkpoint (it holds no dictionary); delete it to start again")
    return state


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Raise UsageError if the block cannot resume from a checkpoint, because it belongs to another run."""
    try:
        yield
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{path} belongs to another network or to another release; give that network's options, or "
            "another --run, which --init starts from other weights"
        ) from error


def _check_archive(path: Path) -> None:
    """Raise BadZipFile if `torch.save` did not write the file.

    Every part must be stored uncompressed, with its checksum. All parts together then need no more memory than the file
    has bytes.
    """
    if not is_file(path):
        raise zipfile.BadZipFile("it is not a file")
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        stored = all(part.compress_type == zipfile.ZIP_STORED for part in parts)
        if not stored or sum(part.file_size for part in parts) > path.stat().st_size:
            raise zipfile.BadZipFile("its parts are larger than the file")
        damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} is damaged")

"""Weights and training state <-> files. Nothing here can run code from a file."""

from __future__ import annotations

import json
import pickle
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from facerecon_rt.errors import ModelRefused
from facerecon_rt.outputs import whole
from facerecon_rt.template import load_template
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .model import FaceModel, ModelConfig

KEY = "facerecon.config"
"""In the metadata of a .safetensors file: the model's configuration and the template it belongs to, as JSON."""


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
    if not path.is_file():
        raise ModelRefused(f"no weights at {path}; train them with `facerecon-train train`")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ModelRefused(f"{path} is not a .safetensors file ({error})") from error
    if KEY not in metadata:
        raise ModelRefused(f"{path} holds no FaceModel configuration; it was not written by `facerecon-train`")
    try:
        config = dict(json.loads(metadata[KEY]))
    except (TypeError, ValueError) as error:
        raise ModelRefused(f"{path}: its configuration is not JSON ({error}); it was damaged") from error
    if config.pop("template_sha256", None) != load_template().sha256:
        raise ModelRefused(f"{path} was trained for another face template; train it again with this release")
    try:
        model = FaceModel(ModelConfig(**config))
        model.load_state_dict(tensors)
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        raise ModelRefused(f"{path} does not fit its own configuration: {str(error).splitlines()[0]}") from error
    return model.eval()


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Training state (tensors, numbers, strings in dicts and lists), whole or not at all."""
    with whole(path) as partial:
        torch.save(state, partial)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote; nothing but plain values and tensors is ever unpickled.

    Raises ModelRefused when the file is not one.
    """
    if not zipfile.is_zipfile(path):  # the only form that torch.save writes
        raise ModelRefused(f"{path} is not a readable checkpoint; delete it to start anew")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        first = str(error).splitlines()[0]
        raise ModelRefused(f"{path} is not a readable checkpoint ({first}); delete it to start anew") from error
    return state

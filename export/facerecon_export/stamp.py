"""ONNX file and a JSON value -> the file with the value in its metadata_props."""

from __future__ import annotations

from pathlib import Path

import onnx


def stamp(path: Path, key: str, json: str) -> None:
    """Set one key of metadata_props and keep the others. Rewrites the file."""
    model = onnx.load(path)
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != key}
    onnx.helper.set_model_props(model, {**kept, key: json})
    onnx.save(model, path)

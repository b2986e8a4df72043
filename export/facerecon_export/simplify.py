"""ONNX file -> the same network with its constants folded and nothing in it but the network, checked."""

from __future__ import annotations

from pathlib import Path

import onnx
from facerecon_rt.interrupts import importing
from facerecon_rt.providers.choice import import_onnxruntime

UNWANTED = ["fuse_lp_normalization"]
"""Passes of the simplifier: ONNX Runtime's CUDA provider has no LpNormalization, and would leave it to the CPU."""


def simplify(path: Path) -> None:
    """Fold constants, drop what tells of the machine it was made on, check strictly. Rewrites the file."""
    import_onnxruntime()  # before onnxsim does it
    with importing():
        import onnxsim

    original = onnx.load(path)
    model, same = onnxsim.simplify(original, skipped_optimizers=UNWANTED)
    if not same:
        raise ValueError(f"{path}: onnxsim changed what the network computes")
    strip(model)
    # The simplifier adds a report of its own.
    onnx.helper.set_model_props(model, {entry.key: entry.value for entry in original.metadata_props})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def strip(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes, which hold source paths and stack traces. In place; metadata of the model stays."""
    graph = model.graph
    for owner in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        owner.ClearField("doc_string")
        owner.ClearField("metadata_props")
    model.ClearField("doc_string")

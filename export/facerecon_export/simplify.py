"""ONNX file -> the same network, checked, with constants folded and without the exporter's notes."""

from __future__ import annotations

from pathlib import Path

import onnx
from facerecon_rt.interrupts import importing
from facerecon_rt.providers.choice import import_onnxruntime

UNWANTED = ["fuse_lp_normalization"]
"""Passes of the simplifier that are left out. ONNX Runtime's CUDA provider lacks LpNormalization and would run it on
the CPU."""


def simplify(path: Path) -> None:
    """Fold constants, remove notes about the machine of the export, and check strictly. Rewrites the file.

    Raises ValueError if the simplifier changed the network's answers.
    """
    import_onnxruntime()  # must come before onnxsim imports it
    with importing():
        import onnxsim

    original = onnx.load(path)
    model, same = onnxsim.simplify(original, skipped_optimizers=UNWANTED)
    if not same:
        raise ValueError(f"{path}: onnxsim changed what the network computes")
    strip(model)
    # The simplifier adds a report to the metadata, which is removed here.
    onnx.helper.set_model_props(model, {entry.key: entry.value for entry in original.metadata_props})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def strip(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes, which hold source paths and stack traces, in place. The model's metadata stays."""
    graph = model.graph
    for owner in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        owner.ClearField("doc_string")
        owner.ClearField("metadata_props")
    model.ClearField("doc_string")

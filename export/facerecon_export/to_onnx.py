"""PyTorch module -> one self-contained ONNX file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from facerecon_rt.errors import UsageError
from torch import nn

OPSET = 20


def export_onnx(
    module: nn.Module,
    example_inputs: tuple[Any, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_shapes: Any,
    path: Path,
    opset: int = OPSET,
) -> None:
    """Export a PyTorch module in evaluation mode as one self-contained ONNX file, with BatchNorm folded.

    `dynamic_shapes` is the argument of torch.export, for example `({0: torch.export.Dim("N", min=1)},)`, or None. Its
    names become the names of the dimensions. Give every dynamic dimension an example of at least 2. Write
    `x.shape[0]` in the module instead of `len(x)`, which is a constant for the tracer. Raises ValueError for a module
    in training mode, RuntimeError for a module that makes a dynamic dimension constant, and UsageError where PyTorch
    cannot write the opset.
    """
    if module.training:
        raise ValueError("the module is in training mode; call eval() first")
    with _quiet_exporter(), torch.no_grad():
        # The export has two steps, because torch.onnx.export alone silently turns to a static batch when it cannot keep
        # it dynamic.
        exported = torch.export.export(module, example_inputs, dynamic_shapes=dynamic_shapes)
        torch.onnx.export(
            exported,
            (),
            path,
            dynamo=True,
            opset_version=opset,
            input_names=input_names,
            output_names=output_names,
            dynamic_shapes=dynamic_shapes,
            external_data=False,
            verbose=False,
        )
    written = onnx.load(path, load_external_data=False).opset_import[0].version
    if written != opset:
        raise UsageError(f"--opset {opset}: PyTorch's exporter writes opset {written} instead; leave out --opset")


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Suppress warnings of the exporter that do not concern the user."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    # it warns four times that torchvision is missing, whose operators are not used
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # PyTorch's exporter calls a function that PyTorch deprecates.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            # Two inputs share a dimension on purpose, which is named once.
            warnings.filterwarnings("ignore", r"# The axis name: .* will not be used, since it shares", UserWarning)
            yield
    finally:
        registration.setLevel(level)

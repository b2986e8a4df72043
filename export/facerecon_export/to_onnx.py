"""PyTorch module -> one self-contained ONNX file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
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
    """A PyTorch module in evaluation mode -> one self-contained ONNX file, BatchNorm folded into the convolutions.

    `dynamic_shapes` as torch.export takes it, say `({0: torch.export.Dim("N", min=1)},)`: its names become the names
    of the dimensions; None for none. Give every dynamic dimension an example of at least 2.
    """
    if module.training:
        raise ValueError("the module is in training mode; call eval() first")
    with _quiet_exporter(), torch.no_grad():
        # Exported in two steps: torch.onnx.export alone turns to a static batch when it cannot keep it dynamic, and
        # says nothing. Strict, because that understands len(tensor) of a dynamic batch.
        exported = torch.export.export(module, example_inputs, dynamic_shapes=dynamic_shapes, strict=True)
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


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep from the user what is no concern of theirs."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)  # "torchvision is not installed", four times: none of its operators are used
    try:
        with warnings.catch_warnings():
            # PyTorch's exporter calling a function that PyTorch deprecates.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            # Two inputs that share a dimension, named once: as it should be.
            warnings.filterwarnings("ignore", r"# The axis name: .* will not be used, since it shares", UserWarning)
            yield
    finally:
        registration.setLevel(level)

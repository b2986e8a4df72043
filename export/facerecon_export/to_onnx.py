"""FaceModel weights -> one ONNX file that carries its contract and answers as PyTorch does, or no file at all."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from facerecon_rt.contract import CONTRACT_KEY, OUTPUTS, ModelContract
from facerecon_rt.errors import FaceReconError, UsageError
from facerecon_rt.session import FaceSession
from facerecon_rt.template import load_template
from facerecon_training.checkpoint import load_weights
from facerecon_training.detector_config import DETECTOR_MARK
from facerecon_training.model import FaceModel
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .crops import verification_crops
from .simplify import simplify
from .stamp import stamp
from .verify import Row, table, verify
from .wrapper import take_images

OPSET = 20


class VerificationError(FaceReconError):
    """The exported file does not answer as the model does; it was not put in place."""


def export_weights(weights: Path, target: Path, crops: Path | None, say: Callable[[str], None]) -> None:
    """FaceModel or detector weights (the file itself says which) -> a verified ONNX file.

    Raises what `export_face_model` and `detector.export_detector` raise.
    """
    if is_detector(weights):
        from .detector import export_detector

        if crops is not None:
            raise UsageError("--crops is for FaceModel weights; a detector is verified on whole photographs")
        export_detector(weights, target, say)
    else:
        export_face_model(weights, target, crops, say)


def is_detector(weights: Path) -> bool:
    """Does this .safetensors file hold a face detector? False for anything that cannot be read."""
    try:
        with safe_open(weights, "pt") as file:
            return DETECTOR_MARK in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def export_face_model(weights: Path, target: Path, crops: Path | None, say: Callable[[str], None]) -> list[Row]:
    """`weights` (.safetensors) -> `target` (.onnx), verified. `say` is told each step as it begins.

    The file is made in a folder of its own beside `target` and moved there when everything has passed.
    """
    say(f"reading {weights}")
    model = load_weights(weights)
    contract = contract_of(model, hashlib.sha256(weights.read_bytes()).hexdigest())
    pictures, which = verification_crops(crops, contract.input_size)
    try:
        with tempfile.TemporaryDirectory(prefix=".facerecon-export-", dir=target.parent) as folder:
            partial = Path(folder) / target.name
            say("tracing the network with PyTorch's exporter: ten seconds or so")
            size = contract.input_size
            export_onnx(
                model,
                (torch.zeros(2, 3, size, size),),
                ["image"],
                list(contract.outputs),
                ({0: torch.export.Dim("N", min=1)},),
                partial,
            )
            say("putting the uint8 picture input in front, folding constants, checking")
            graph = onnx.load(partial)
            take_images(graph)
            onnx.save(graph, partial)
            simplify(partial)
            stamp(partial, CONTRACT_KEY, contract.to_json())
            say(f"verifying against PyTorch on {which}")
            with FaceSession(partial, provider="cpu") as session:
                rows = verify(session, model, pictures)
            say(table(rows))
            if not all(row.passed for row in rows):
                raise VerificationError(
                    f"{target}: not written, the exported file answers differently than {weights}; see the table"
                )
            partial.replace(target)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written ({error.strerror}); give another place with -o") from error
    say(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB, {contract.precision})")
    return rows


def contract_of(model: FaceModel, weights_sha256: str) -> ModelContract:
    """What a consumer must know about the exported model."""
    template = load_template()
    contract = ModelContract(
        input_size=model.config.input_size,
        vertex_count=template.vertex_count,
        template_sha256=template.sha256,
        backbone=model.config.backbone,
        precision="fp32",
        outputs=OUTPUTS,
        terms=model.config.terms,
        weights_sha256=weights_sha256,
    )
    contract.check()
    return contract


def export_onnx(
    module: nn.Module,
    example_inputs: tuple[Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_shapes: Any,
    path: Path,
) -> None:
    """A PyTorch module in evaluation mode -> one self-contained ONNX file, BatchNorm folded into the convolutions.

    `dynamic_shapes` as torch.export takes it, say `({0: torch.export.Dim("N", min=1)},)`: its names become the names
    of the dimensions. Give every dynamic dimension an example of at least 2.
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
            opset_version=OPSET,
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

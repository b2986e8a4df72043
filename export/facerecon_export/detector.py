"""Face detector weights -> one ONNX file that says how it is read and answers as PyTorch does, or no file at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
from facerecon_rt.detect import DETECTOR_KEY, MULTIPLE, STRIDE, DetectorContract, letterbox
from facerecon_rt.errors import UsageError
from facerecon_rt.session import open_ort_session
from facerecon_rt.types import Floats, Image
from facerecon_training.detector import FaceDetectorNet
from facerecon_training.detector_config import SCORE
from facerecon_training.detector_train import load_weights
from torch import Tensor, nn

from .crops import synthetic_crops
from .simplify import simplify
from .stamp import stamp
from .to_onnx import VerificationError, export_onnx
from .wrapper import take_images

TERMS = "research use: trained on annotated photographs under research terms, see the model card"
TOLERANCE = 1e-3
"""The largest difference of a score (0..1), of a centre (sides) or of a side's logarithm: float32 in another order."""


class DetectorGraph(nn.Module):
    """What the file computes: the network, and its score as 0..1."""

    def __init__(self, net: FaceDetectorNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) float 0..255 BGR -> score (N, h, w), box (N, 3, h, w)."""
        logits, box = self.net(image)
        return torch.sigmoid(logits), box


def export_detector(
    weights: Path, target: Path, say: Callable[[str], None], *, score: float = SCORE, terms: str = TERMS
) -> float:
    """`weights` (.safetensors) -> `target` (.onnx), verified -> the largest difference from PyTorch.

    The file is made in a folder of its own beside `target` and moved there when it has passed.
    """
    graph = DetectorGraph(load_weights(weights)).eval()
    contract = DetectorContract(score, terms, hashlib.sha256(weights.read_bytes()).hexdigest())
    pictures, which = verification_pictures()
    try:
        with tempfile.TemporaryDirectory(prefix=".facerecon-export-", dir=target.parent) as folder:
            partial = Path(folder) / target.name
            say("tracing the detector with PyTorch's exporter: ten seconds or so")
            trace(graph, partial)
            stamp(partial, DETECTOR_KEY, contract.to_json())
            say(f"verifying against PyTorch on {which}")
            largest = largest_difference(graph, partial, pictures)
            if not largest <= TOLERANCE:
                raise VerificationError(
                    f"{target}: not written, it answers differently than {weights}: {largest:.1e} apart, where "
                    f"{TOLERANCE} is allowed"
                )
            partial.replace(target)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written ({error.strerror}); give another place with -o") from error
    say(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB, differs from PyTorch by at most {largest:.1e})")
    return largest


def trace(graph: DetectorGraph, path: Path) -> None:
    """The network as an ONNX file on uint8 pictures of any number and of any size that is a multiple of 32."""
    cells = {axis: torch.export.Dim(name, min=1, max=128) for axis, name in ((2, "rows"), (3, "columns"))}
    dims = {0: torch.export.Dim("N", min=1), **{axis: MULTIPLE * cell for axis, cell in cells.items()}}
    export_onnx(graph, (torch.zeros(2, 3, 96, 160),), ["image"], ["score", "box"], (dims,), path)
    model = onnx.load(path)
    take_images(model)
    name_dimensions(model)
    onnx.save(model, path)
    simplify(path)


def name_dimensions(model: onnx.ModelProto) -> None:
    """N, H, W and h, w in place of what the exporter computed them from. In place."""
    names = {"image": ("N", "H", "W", None), "score": ("N", "h", "w"), "box": ("N", None, "h", "w")}
    for value in (*model.graph.input, *model.graph.output):
        for dimension, name in zip(value.type.tensor_type.shape.dim, names[value.name], strict=True):
            if name is not None:
                dimension.dim_param = name
    # Shapes of what lies between are worked out again, from these names.
    del model.graph.value_info[:]


def verification_pictures(count: int = 16) -> tuple[list[Image], str]:
    """Photographs of $FACERECON_DATA/faces/lfpw-test, or made-up pictures where it is not there; and which it was."""
    data = os.environ.get("FACERECON_DATA")
    folder = Path(data) / "faces" / "lfpw-test" if data else None
    if folder is None or not folder.is_dir():
        return list(synthetic_crops(160, count)), f"{count} made-up pictures (set FACERECON_DATA for real ones)"
    pictures = [cv2.imread(str(path)) for path in sorted(folder.glob("*.jpg"))[:count]]
    return [np.asarray(picture, np.uint8) for picture in pictures if picture is not None], f"photographs of {folder}"


def largest_difference(graph: DetectorGraph, path: Path, pictures: list[Image]) -> float:
    """The file against PyTorch, one picture at a time and two at once, in two sizes."""
    session, _, _ = open_ort_session(path, "cpu", 1)
    largest = 0.0
    for size in (256, 320):
        for number, picture in enumerate(pictures):
            pixels = letterbox(picture, size)[0][None]
            if number % 2:
                pixels = np.concatenate([pixels, pixels[:, :, ::-1]])
            with torch.inference_mode():
                score, box = graph(torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float())
            found = session.run(["score", "box"], {"image": pixels})
            wanted_shape = (len(pixels), pixels.shape[1] // STRIDE, pixels.shape[2] // STRIDE)
            if found[0].shape != wanted_shape:
                return float("nan")
            differences = (compare(score.numpy(), found[0]), compare(box.numpy(), found[1]))
            largest = float(np.max([largest, *differences]))
    return largest


def compare(a: Floats, b: Floats) -> float:
    """The largest absolute difference; NaN where either holds one."""
    return float(np.abs(a - b).max())

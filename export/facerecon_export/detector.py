"""Face detector weights -> the steps of their export: tracing, contract, photographs for calibration and
verification."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from facerecon_rt.errors import UsageError
from facerecon_rt.faces.detector_contract import DETECTOR_KEY, MULTIPLE, DetectorContract
from facerecon_rt.faces.detector_runs import letterbox
from facerecon_rt.providers.choice import open_ort_session
from facerecon_rt.sources.files import read_image
from facerecon_rt.types import Floats, Image
from facerecon_training.detector.config import SCORE, SURE
from facerecon_training.detector.net import FaceDetectorNet
from facerecon_training.detector.train import load_weights
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from .crops import calibration_folder, enough, faces_of_data, picture_paths, synthetic_crops
from .fp16 import Feeds
from .graph import Parts, detector_parts
from .simplify import simplify
from .stamp import stamp
from .subject import HELD_OUT_EACH, Calibration, ExportOptions, score_of
from .to_onnx import export_onnx
from .verify import Gate, Row
from .wrapper import take_images

TERMS = "research use: trained on annotated photographs under research terms, see the model card"
UNITS = {"score": "0..1", "centre": "sides", "side": "log", "roll": "of 1"}
"""Units of the table's rows. Roll is given by its cosine and sine."""
GATES = {
    # The file sums float32 in another order than PyTorch.
    "fp32": Gate("largest", {"score": 1e-3, "centre": 1e-3, "side": 1e-3, "roll": 1e-3}),
    "fp16": Gate("mean", {"score": 2e-3, "centre": 2e-3, "side": 2e-3, "roll": 2e-3}),
    "int8": Gate("mean", {"score": 0.03, "centre": 0.02, "side": 0.03, "roll": 0.05}),
}
SIZES = (256, 320)
"""Detector input sizes of the verification: longer side of the pictures, in pixels."""
CALIBRATION_PICTURES = 320


Answer = tuple[Floats, Floats]
"""Score (N, h, w) and box (N, 5, h, w) of an input."""


class DetectorGraph(nn.Module):
    """The graph that is exported: the network, with its score as 0..1."""

    def __init__(self, net: FaceDetectorNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute score (N, h, w) and box (N, 5, h, w) of pictures (N, 3, H, W) float 0..255 BGR."""
        logits, box = self.net(image)
        return torch.sigmoid(logits), box


class DetectorSubject:
    """A face detector's weights as a `subject.Subject`."""

    def __init__(self, weights: Path, options: ExportOptions) -> None:
        """Read the weights and the photographs to verify with.

        `options.crops` and `options.calibration` are folders of whole photographs. Raises ModelRefused for unfit
        weights, UsageError for a fixed batch or size, and SourceError for unreadable photographs.
        """
        if options.batch or options.size:
            raise UsageError("a face detector takes pictures of any shape and number; leave out --batch and --size")
        self.graph = DetectorGraph(load_weights(weights)).eval()
        self.weights_sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
        self.options = options
        self.photographs = read_photographs(options.crops or faces_of_data("lfpw-test"), 224)

    @property
    def pictures(self) -> str:
        """Description of the photographs that files are verified on."""
        return self.photographs.source

    def trace(self, path: Path) -> None:
        """See `subject.Subject`."""
        cells = {axis: torch.export.Dim(name, min=1, max=128) for axis, name in ((2, "rows"), (3, "columns"))}
        dims = {0: torch.export.Dim("N", min=1), **{axis: MULTIPLE * cell for axis, cell in cells.items()}}
        example = (torch.zeros(2, 3, 96, 160),)
        export_onnx(self.graph, example, ["image"], ["score", "box"], (dims,), path, self.options.opset)
        model = onnx.load(path)
        take_images(model)
        name_dimensions(model)
        onnx.save(model, path)
        simplify(path)

    def stamp(self, path: Path, precision: str, target: str) -> None:
        """See `subject.Subject`."""
        contract = DetectorContract(SCORE, TERMS, self.weights_sha256, precision, target, sure=SURE)
        stamp(path, DETECTOR_KEY, contract.to_json())

    def parts(self, model: onnx.ModelProto) -> Parts:
        """See `subject.Subject`."""
        return detector_parts(model)

    def feeds(self) -> Feeds:
        """See `subject.Subject`."""
        enough(self.photographs, "half precision", "--crops")
        _check_faces(self._reference, self.photographs, "--crops")
        return _feeds(self.photographs.images)

    def calibration(self) -> Calibration:
        """See `subject.Subject`."""
        enough(self.photographs, "int8", "--crops")
        _check_faces(self._reference, self.photographs, "--crops")
        folder = calibration_folder(self.options.calibration)
        read = enough(read_photographs(folder, CALIBRATION_PICTURES), "int8", "--calibration")
        held_out = read.images[HELD_OUT_EACH - 1 :: HELD_OUT_EACH]
        kept = [picture for i, picture in enumerate(read.images) if i % HELD_OUT_EACH != HELD_OUT_EACH - 1]
        reference = self._answers(held_out)
        _check_faces(reference, read, "--calibration")

        def score(path: Path) -> float:
            return score_of(self._compare(path, held_out, reference, "int8"))

        return Calibration(_feeds(kept), score, read.source)

    def write_companions(self, folder: Path, stem: str) -> list[str]:
        """See `subject.Subject`: a detector has no companion files."""
        return []

    def check_pictures(self) -> None:
        """See `subject.Subject`. Only faces that PyTorch finds count in lower precisions."""
        enough(self.photographs, "a comparison in fp16 or int8", "--crops", "")
        _check_faces(self._reference, self.photographs, "--crops")

    def verify(self, path: Path, precision: str) -> list[Row]:
        """See `subject.Subject`."""
        return self._compare(path, self.photographs.images, self._reference, precision)

    @cached_property
    def _reference(self) -> list[Answer]:
        return self._answers(self.photographs.images)

    def _answers(self, pictures: Sequence[Image]) -> list[Answer]:
        """Return PyTorch's answers about `inputs` of the pictures."""
        with torch.inference_mode():
            found = [self.graph(torch.from_numpy(one.copy()).permute(0, 3, 1, 2).float()) for one in inputs(pictures)]
        return [(score.numpy(), box.numpy()) for score, box in found]

    def _compare(self, path: Path, pictures: Sequence[Image], reference: Sequence[Answer], precision: str) -> list[Row]:
        """Compare a file with PyTorch's answers about the same pictures."""
        session, _, _ = open_ort_session(path, "cpu", 1)
        gate = GATES[precision]
        values: dict[str, list[NDArray[np.float64]]] = {name: [] for name in UNITS}
        for pixels, (score, box) in zip(inputs(pictures), reference, strict=True):
            found = session.run(["score", "box"], {"image": pixels})
            for name, value in differences(score, box, found[0], found[1], SCORE, gate).items():
                values[name].append(value)
        rows = []
        for name, unit in UNITS.items():
            flat = np.concatenate(values[name])
            # If no picture shows a face, there is nothing to judge by. NaN makes the row fail.
            flat = flat if flat.size else np.array([np.nan])
            figures = (float(flat.mean()), float(np.percentile(flat, 99)), float(flat.max()))
            rows.append(Row(name, unit, *figures, gate.allowed[name], gate.by))
        return rows


def _check_faces(answers: Sequence[Answer], photographs: Photographs, option: str) -> None:
    """Raise UsageError if the network finds no face in the pictures that it gave these answers about."""
    if not any((score >= SCORE).any() for score, _ in answers):
        raise UsageError(
            f"the detector finds no face in {photographs.source}, so a lower precision cannot be judged; give "
            f"photographs of faces: {option} FOLDER, or other weights"
        )


def inputs(pictures: Sequence[Image]) -> Iterator[NDArray[np.uint8]]:
    """Yield the detector's inputs (N, H, W, 3) of pictures, in two sizes, with one picture and with two at a time."""
    for size in SIZES:
        for number, picture in enumerate(pictures):
            pixels = letterbox(picture, size)[0][None]
            yield np.concatenate([pixels, pixels[:, :, ::-1]]) if number % 2 else pixels


def differences(
    score: Floats, box: Floats, other_score: Any, other_box: Any, threshold: float, gate: Gate
) -> dict[str, NDArray[np.float64]]:
    """Return the differences between two answers about the same pictures, by row of the table.

    An answer is a score (N, h, w) and a box (N, 5, h, w). If `gate.by` is largest, all cells count. Otherwise only
    cells count in which either answer sees a face, because nobody reads the boxes of other cells, and their scores of 0
    would make the mean too small. The differences are NaN if the shapes differ.
    """
    if score.shape != np.shape(other_score) or box.shape != np.shape(other_box):
        return {name: np.array([np.nan]) for name in UNITS}
    where = np.ones(score.shape, bool) if gate.by == "largest" else np.maximum(score, other_score) >= threshold
    apart = np.abs(box.astype(np.float64) - other_box).transpose(0, 2, 3, 1)[where]
    return {
        "score": np.abs(score.astype(np.float64) - other_score)[where],
        "centre": np.linalg.norm(apart[:, :2], axis=1),
        "side": apart[:, 2],
        "roll": np.linalg.norm(apart[:, 3:], axis=1),
    }


def name_dimensions(model: onnx.ModelProto) -> None:
    """Name the dimensions N, H, W and h, w, in place, instead of the exporter's formulas."""
    names = {"image": ("N", "H", "W", None), "score": ("N", "h", "w"), "box": ("N", None, "h", "w")}
    for value in (*model.graph.input, *model.graph.output):
        for dimension, name in zip(value.type.tensor_type.shape.dim, names[value.name], strict=True):
            if name is not None:
                dimension.dim_param = name
    # Shapes between input and output are inferred again from these names.
    del model.graph.value_info[:]


@dataclass(frozen=True, slots=True, eq=False)
class Photographs:
    """Whole photographs, each (H, W, 3) uint8 BGR."""

    images: Sequence[Image]
    source: str
    """Description of the pictures, for messages and the report."""
    real: bool
    """Whether the pictures are photographs; False for artificial pictures."""


def read_photographs(folder: Path | None, count: int) -> Photographs:
    """Return up to `count` photographs, evenly spread over the folder in name order.

    Without a folder the pictures are artificial. Raises SourceError for a folder without photographs.
    """
    if folder is None:
        which = "16 artificial pictures without faces (give photographs with --crops FOLDER)"
        return Photographs(list(synthetic_crops(160, 16)), which, real=False)
    paths = picture_paths(folder, count)
    pictures = [read_image(path) for path in tqdm(paths, f"reading {folder.name}", leave=False, disable=None)]
    return Photographs(pictures, f"{len(pictures)} photographs of {folder}", real=True)


def _feeds(pictures: Sequence[Image]) -> Feeds:
    """Letterbox the pictures and pad them to squares, because calibrators need pictures of one shape."""
    squares = np.zeros((len(pictures), 1, SIZES[0], SIZES[0], 3), np.uint8)
    for square, picture in zip(squares, pictures, strict=True):
        pixels = letterbox(picture, SIZES[0])[0]
        square[0, : pixels.shape[0], : pixels.shape[1]] = pixels
    return [{"image": square} for square in squares]

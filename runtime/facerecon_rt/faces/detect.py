"""A detector file -> the detector that fits it, and frames -> face boxes by the detector of this project."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelRefused
from ..providers.choice import Provider, failures, import_onnxruntime, open_ort_session, short_reason
from ..providers.onnx_file import OnnxFile, read_onnx
from ..types import Detection, Floats, Image
from ..unpicklable import Unpicklable
from .detector_contract import DETECTOR_KEY, SIDE_UNIT, STRIDE, read_detector_contract
from .detector_runs import checked_score, checked_size, detect_in_runs, merge, pad
from .yunet import YunetDetector, is_yunet

MOST_CELLS = 2000
"""Maximum number of cells to decode, so that noise does not make a frame slow."""


class Detector(Protocol):
    """The interface of a face detector for a pipeline."""

    def detect(self, image: Image) -> list[Detection]:
        """Detect faces in a picture (H, W, 3) uint8 BGR, best first. Boxes may reach beyond the frame."""
        ...


def open_detector(
    path: str | Path,
    *,
    size: int | None = None,
    score: float | None = None,
    threads: int = 1,
    provider: Provider = "cpu",
) -> FaceDetector | YunetDetector:
    """Open a detector of this project or a YuNet file, recognised by its content. Raises ModelRefused for other files.

    `size`: longer side of the network's input in pixels; 640 finds the small faces of a crowd. None chooses by the
    picture, as `detector_runs` does. `score`: minimum score of a detection; None for the file's own.
    """
    model = read_onnx(path)
    if DETECTOR_KEY in model.metadata:
        return FaceDetector(model, size=size, score=score, threads=threads, provider=provider)
    if is_yunet(model):
        return YunetDetector(model, size=size, score=score)
    raise ModelRefused(
        f"{path}: neither a face detector of this project (no {DETECTOR_KEY} in its metadata) nor a YuNet file; "
        "use models/face_detector.onnx"
    )


class FaceDetector(Unpicklable):
    """A detector of this project from one ONNX file. A context manager that owns a session."""

    def __init__(
        self,
        model: str | Path | OnnxFile,
        *,
        size: int | None = None,
        score: float | None = None,
        threads: int = 1,
        provider: Provider = "cpu",
    ) -> None:
        """Open the detector with the arguments of `open_detector`. Raises ModelRefused."""
        if not isinstance(model, OnnxFile):
            model = read_onnx(model)
        self.contract = read_detector_contract(model)
        self.size = checked_size(size)
        self.score = checked_score(score, self.contract.score)
        self.sha256 = model.sha256
        self._path = model.path
        self._channels = (model.outputs[1].dims or ())[1]
        self._session: Any
        self._session, self.provider, _ = open_ort_session(model, provider, threads)
        # A trial run finds a file that does not run, or gives invalid outputs, before a camera is opened.
        self.detect(np.zeros((64, 96, 3), np.uint8))

    def detect(self, image: Image) -> list[Detection]:
        """Detect faces in a picture (H, W, 3) uint8 BGR, best first."""

        return detections(self._answer, image, self.size, self.score, self.contract.sure)

    def _answer(self, pictures: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Run the network. Raises ModelRefused where the file does not run or gives invalid outputs."""
        try:
            scores, boxes = self._session.run(["score", "box"], {"image": pictures})
        except failures(import_onnxruntime()) as error:
            raise ModelRefused(
                f"{self._path}: the detector does not run ({short_reason(error)}); export the detector again"
            ) from error
        count, height, width = pictures.shape[0], pictures.shape[1] // STRIDE, pictures.shape[2] // STRIDE
        shapes = ((count, height, width), (count, self._channels, height, width))
        if (scores.shape, boxes.shape) != shapes:
            raise ModelRefused(
                f"{self._path}: its outputs have the wrong shapes {scores.shape}, {boxes.shape}; export it again"
            )
        # Sides of more than e ** 30 cells are invalid, and would overflow later.
        if not (math.isfinite(np.vdot(boxes, boxes)) and math.isfinite(scores.sum()) and boxes[:, 2].max() < 30):
            raise ModelRefused(f"{self._path}: its outputs are invalid; export it again, or use the fp32 detector")
        return scores, boxes

    def close(self) -> None:
        """Release the session's memory. A second call does nothing."""
        self._session = None

    def __enter__(self) -> FaceDetector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def detections(
    answer: Callable[[NDArray[np.uint8]], tuple[Floats, Floats]],
    image: Image,
    size: int | None,
    least: float,
    sure: float = 0.0,
) -> list[Detection]:
    """Detect faces in a picture (H, W, 3) uint8 BGR with at least the score `least`, best first. Detections below the
    score `sure` are doubtful.

    `answer`: the network, from (N, H, W, 3) uint8 BGR to its outputs `score` and `box`. `size`: longer side of its
    input in pixels, or None to choose by the picture.
    """

    def see(reduced: Image) -> list[Detection]:
        scores, boxes = answer(pad(reduced)[None])
        return merge(*decode(scores[0], boxes[0], least))

    found = detect_in_runs(image, size, see, enlarge=True)
    return [replace(one, doubtful=True) if one.score < sure else one for one in found]


def decode(score: Floats, box: Floats, least: float) -> tuple[Floats, Floats, Floats]:
    """Decode the network's score (h, w) and box (5, h, w).

    Returns boxes (K, 4) xyxy in pixels of the input, scores (K,), and cosines and sines (K, 2) of rolls, best first.
    Every cell with at least the score `least` gives one box. DetectorContract describes the channels.
    """
    rows, columns = np.nonzero(score >= least)
    order = np.argsort(-score[rows, columns], kind="stable")[:MOST_CELLS]
    rows, columns = rows[order], columns[order]
    dx, dy, log_side, *turns = box[:, rows, columns]
    side = SIDE_UNIT * np.exp(log_side)
    middle = (STRIDE - 1) / 2
    x, y, half = columns * STRIDE + middle + dx * side, rows * STRIDE + middle + dy * side, side / 2
    boxes = np.stack([x - half, y - half, x + half, y + half], axis=1)
    cosines, sines = turns or (np.ones(len(x)), np.zeros(len(x)))
    rolls = np.stack([cosines, sines], axis=1)
    return boxes.astype(np.float32), score[rows, columns].astype(np.float32), rolls.astype(np.float32)

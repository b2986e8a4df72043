"""Frames -> face boxes by OpenCV's YuNet."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike

from ..align import Square, box_from_square, square_from_box, square_from_camera
from ..errors import ModelRefused
from ..pose import fit_camera
from ..providers.onnx_file import OnnxFile, read_onnx
from ..quiet import quiet_opencv
from ..template import load_template
from ..types import Detection, Floats, Image
from ..unpicklable import Unpicklable
from .detector_runs import checked_score, checked_size, detect_in_runs

YUNET_SCORE = 0.6
YUNET_RAISED_MM = 4.0
"""Height in mm by which YuNet's template points are raised. YuNet's five points give a centre that lies about this far
above that of all annotated points (helen, afw, youtube-train: 5, lfpw-train: 4, aaf-train: 2)."""
YUNET_LEAST_RATIO = 0.4
"""Minimum ratio of the singular values of the affine fit. Flatter points give no camera."""


class YunetDetector(Unpicklable):
    """A detector that runs YuNet (Wu et al., Machine Intelligence Research 2023) with cv2.FaceDetectorYN. It converts
    the boxes to those of this project."""

    def __init__(self, model: str | Path | OnnxFile, *, size: int | None = None, score: float | None = None) -> None:
        """Open the file with cv2.FaceDetectorYN. Raises ModelRefused for a file that is not a YuNet.

        `size`: longer side in pixels to which larger frames are reduced; None chooses by the picture (`detector_runs`).
        `score`: minimum score of a detection, 0 to 1; None for YUNET_SCORE.
        """
        if not isinstance(model, OnnxFile):
            model = read_onnx(model)
        if not is_yunet(model):
            raise ModelRefused(
                f"{model.path}: not a YuNet file; get face_detection_yunet_2023mar.onnx from OpenCV's model zoo"
            )
        self.size = checked_size(size)
        self.score = checked_score(score, YUNET_SCORE)
        self.sha256 = model.sha256
        weights = np.frombuffer(model.data, np.uint8)
        with quiet_opencv():
            self._net = cv2.FaceDetectorYN.create(
                "onnx", weights, np.empty(0, np.uint8), (320, 320), self.score, 0.3, 5000
            )

    def detect(self, image: Image) -> list[Detection]:
        """Detect faces in a picture (H, W, 3) uint8 BGR, best first."""
        return detect_in_runs(image, self.size, self._see, enlarge=False)

    def _see(self, image: Image) -> list[Detection]:
        self._net.setInputSize((image.shape[1], image.shape[0]))
        _, rows = self._net.detect(image)
        found = []
        for row in () if rows is None else rows:
            square = square_from_yunet(row)
            found.append(Detection(box_from_square(square), float(row[14]), square.roll))
        return sorted(found, key=lambda detection: -detection.score)


def is_yunet(model: OnnxFile) -> bool:
    """Return whether a file is a YuNet. YuNet files hold no name, but twelve outputs: cls, obj, bbox and kps at strides
    8, 16 and 32."""
    wanted = {f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)}
    return {output.name for output in model.outputs} == wanted


def yunet_template() -> Floats:
    """Return the five points (5, 3) in mm, head frame: subject's right eye, left eye, nose tip, right and left mouth
    corner."""
    points = load_template().landmark_positions
    five = np.stack([points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]])
    five[:, 1] += YUNET_RAISED_MM
    return np.asarray(five, np.float32)


def square_from_yunet(row: ArrayLike) -> Square:
    """Return the head's square from a row (15,) of cv2.FaceDetectorYN: from its five points, or upright from its box
    where the points lie on a line."""
    values = np.asarray(row, np.float64)
    head, points = yunet_template().astype(np.float64), values[4:14].reshape(5, 2)
    affine, *_ = np.linalg.lstsq(head - head.mean(0), points - points.mean(0), rcond=None)
    larger, smaller = np.linalg.svd(affine, compute_uv=False)
    if smaller > YUNET_LEAST_RATIO * larger:
        return square_from_camera(fit_camera(head, points))
    # On the same photographs YuNet's box is 1.16 times as large, and its middle lies 0.05 of this project's side
    # higher.
    left, top, width, height = values[:4]
    side = math.sqrt(width * height) / 1.16
    x, y = left + width / 2, top + height / 2 + 0.05 * side
    return square_from_box([x - side / 2, y - side / 2, x + side / 2, y + side / 2])

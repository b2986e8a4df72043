"""Frames -> face boxes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..align import Square, box_from_square, square_from_box, square_from_camera
from ..errors import ModelRefused, UsageError
from ..pose import fit_camera
from ..providers.choice import Provider, failures, import_onnxruntime, open_ort_session, short_reason
from ..providers.onnx_file import FLOAT, UINT8, OnnxFile, read_onnx
from ..quiet import quiet_opencv
from ..template import load_template
from ..types import Detection, Floats, Image
from ..unpicklable import Unpicklable

DETECTOR_KEY = "facerecon.detector"
"""Key in the ONNX file's metadata_props of the JSON value of a DetectorContract."""
DETECTOR_VERSION = 2
BOX_CHANNELS = {1: 3, 2: 5}
"""Channels of the output `box` by contract version. Files of version 1 do not predict the roll of a head."""
DETECTOR_KIND = "centre"
STRIDE = 8
"""Number of input pixels per cell of the network's outputs."""
MULTIPLE = 32
"""Divisor of the input's sides, because the network halves its input five times."""
LARGEST_SIZE = 4096
"""Maximum longer side of the network's input, in pixels."""
SIDE_UNIT = 32.0
"""Side of a face in pixels at which the network's logarithm of the side is 0."""
OVERLAP = 0.4
"""Intersection over union above which two boxes belong to one face."""
MOST_CELLS = 2000
"""Maximum number of cells to decode, so that noise does not make a frame slow."""

SMALL_INPUT = 256
"""Default longer side of the network's input, in pixels."""
LARGE_PIXELS = 1600
"""Longer side in pixels from which a picture gets two runs, because it may show small faces and close-ups at once."""
FINE_INPUT, COARSE_INPUT = 608, 224
"""Longer sides of the inputs of the two runs, in pixels. For a picture of 16:9 both together have 1 % fewer pixels than
the single run at 640 of earlier versions, which missed close-ups."""
FINE_LARGEST, COARSE_SMALLEST = 0.4, 0.2
"""Maximum side of faces from the fine run, and minimum from the coarse run, as shares of the picture's longer side."""

YUNET_SCORE = 0.6
YUNET_RAISED_MM = 4.0
"""Height in mm by which YuNet's template points are raised. YuNet's five points give a centre that lies about this far
above that of all annotated points (helen, afw, youtube-train: 5, lfpw-train: 4, aaf-train: 2)."""
YUNET_LEAST_RATIO = 0.4
"""Minimum ratio of the singular values of the affine fit. Flatter points give no camera."""


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


# From a frame to the input of a network.


@dataclass(frozen=True, slots=True)
class DetectorRun:
    """One run of the network over a whole picture, and the range of face sizes that it contributes."""

    size: int
    """Longer side of the network's input, in pixels."""
    smallest: float = 0.0
    """Minimum side of faces, as a share of the picture's longer side."""
    largest: float = math.inf
    """Upper limit of the side of faces, as a share of the picture's longer side."""


def detector_runs(longer_side: int, size: int | None) -> tuple[DetectorRun, ...]:
    """Return the runs for a picture with this longer side in pixels, finest first. Only this function has the rule.

    `size`: requested input size, which gives one run; None chooses by the picture. A network that resolves the small
    faces of a large picture does not see a close-up whole, so a large picture gets a second, coarse run.
    """
    if size is not None:
        return (DetectorRun(size),)
    if longer_side < LARGE_PIXELS:
        return (DetectorRun(SMALL_INPUT),)
    return DetectorRun(FINE_INPUT, largest=FINE_LARGEST), DetectorRun(COARSE_INPUT, smallest=COARSE_SMALLEST)


def detect_in_runs(
    image: Image, size: int | None, see: Callable[[Image], list[Detection]], *, enlarge: bool
) -> list[Detection]:
    """Detect faces in a picture (H, W, 3) uint8 BGR with all its runs, best first.

    `see`: function that detects faces in a reduced picture, in its pixels. `enlarge`: whether smaller pictures are
    enlarged.
    """
    runs = detector_runs(max(image.shape[:2]), size)
    frame_from_input = FrameFromInput(1.0, 1.0)
    found = []
    for run in runs:
        if enlarge or max(image.shape[:2]) > run.size:
            # Each picture is reduced from the previous one, because reducing a large frame takes time.
            image, coarser = resize_longer_side(image, run.size)
            frame_from_input = frame_from_input.after(coarser)
        for detection in see(image):
            side = float(detection.box[2] - detection.box[0])
            if run.smallest * run.size <= side < run.largest * run.size:
                found.append(replace(detection, box=frame_from_input.box(detection.box)))
    if len(runs) == 1:
        return found
    found.sort(key=lambda detection: -detection.score)
    rolls = np.array([detection.roll for detection in found], np.float32)
    boxes = np.array([detection.box for detection in found], np.float32).reshape(-1, 4)
    scores = np.array([detection.score for detection in found], np.float32)
    return merge(boxes, scores, np.stack([np.cos(rolls), np.sin(rolls)], axis=1))


@dataclass(frozen=True, slots=True)
class FrameFromInput:
    """Scaling from the network's input to the frame: frame = (input + 0.5) * factor - 0.5, per axis."""

    x: float
    y: float

    def after(self, step: FrameFromInput) -> FrameFromInput:
        """Return the scaling for a picture that was reduced once more, by `step`."""
        return FrameFromInput(self.x * step.x, self.y * step.y)

    def box(self, box: Floats) -> Floats:
        """Convert a box (4,) xyxy from input pixels to frame pixels."""
        factors = np.array([self.x, self.y, self.x, self.y])
        return np.asarray((box + 0.5) * factors - 0.5, np.float32)


def resize_longer_side(image: Image, size: int) -> tuple[Image, FrameFromInput]:
    """Resize a picture (H, W, 3) so that its longer side is `size` pixels."""
    height, width = image.shape[:2]
    factor = max(height, width) / size
    new = max(1, round(width / factor)), max(1, round(height / factor))
    if factor < 1:
        image = np.asarray(cv2.resize(image, new, interpolation=cv2.INTER_LINEAR), np.uint8)
    elif factor > 1:
        # Averaging the whole frame takes 6 ms at 1920 x 1080. Four samples of four pixels each, or sixteen for large
        # frames, are as good and take a third of the time.
        if factor > 2:
            finer = 2 if factor <= 8 else 4
            image = np.asarray(cv2.resize(image, (finer * new[0], finer * new[1])), np.uint8)
        image = np.asarray(cv2.resize(image, new, interpolation=cv2.INTER_AREA), np.uint8)
    return image, FrameFromInput(width / new[0], height / new[1])


def letterbox(image: Image, size: int) -> tuple[Image, FrameFromInput]:
    """Resize a picture (H, W, 3) to the longer side `size`, also enlarging it, and pad it."""
    image, frame_from_input = resize_longer_side(image, size)
    return pad(image), frame_from_input


def pad(image: Image) -> Image:
    """Pad a picture (H, W, 3) with black on the right and below, up to multiples of 32.

    A frame of 1280 x 720 then costs 256 x 160 pixels and not 256 x 256.
    """
    height, width = (MULTIPLE * math.ceil(v / MULTIPLE) for v in image.shape[:2])
    if (height, width) != image.shape[:2]:
        padded = np.zeros((height, width, 3), np.uint8)
        padded[: image.shape[0], : image.shape[1]] = image
        return padded
    return image


# The detector of this project.


@dataclass(frozen=True, slots=True)
class DetectorContract:
    """Description of a detector file of this project.

    Input `image`: (N, H, W, 3) uint8 BGR, H and W multiples of 32. Outputs, float32, with h = H / 8, w = W / 8:

    - `score`: (N, h, w), 0 to 1.
    - `box`: (N, 5, h, w). The first two channels are the offset from the cell's centre to the face's centre, x and y,
      in sides of the face. The third is the logarithm of the side in units of SIDE_UNIT pixels. The last two are cosine
      and sine of the head's roll, clockwise in the picture, times a positive factor.

    Files of version 1 lack the last two channels, so that every head counts as upright.
    """

    score: float
    """Default minimum score of a face, chosen on training photographs."""
    terms: str = ""
    """Terms of use of the weights."""
    weights_sha256: str = ""
    """SHA-256 of the .safetensors file that the graph was exported from."""
    precision: str = "fp32"
    target: str = ""
    """Target of a quantised file, as in ModelContract."""
    kind: str = DETECTOR_KIND
    version: int = DETECTOR_VERSION
    sure: float = 0.0
    """Score below which a detection is doubtful, so that the FaceModel must be more confident of it than of others."""

    def to_json(self) -> str:
        """Return the value of `DETECTOR_KEY` for the ONNX file's metadata_props."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> DetectorContract:
        """Read the value that `to_json` wrote. Raises ModelRefused for anything else."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelRefused(f"its {DETECTOR_KEY} is not JSON ({error}); export the detector again") from error
        known_version = isinstance(value, dict) and value.get("version") in tuple(BOX_CHANNELS)
        if not known_version or value.get("kind") != DETECTOR_KIND:
            raise ModelRefused(
                f"its {DETECTOR_KEY} is not version 1 to {DETECTOR_VERSION} of kind {DETECTOR_KIND!r}; export the "
                "detector again with this release, or use the release it was made with"
            )
        known = {f.name for f in fields(cls)}
        try:
            contract = cls(**{key: v for key, v in value.items() if key in known})
        except TypeError as error:
            raise ModelRefused(f"its {DETECTOR_KEY} lacks a field ({error}); export the detector again") from error
        for name in ("terms", "weights_sha256", "precision", "target"):
            text = getattr(contract, name)
            if not isinstance(text, str) or not text.isprintable():
                raise ModelRefused(f"its {DETECTOR_KEY} has a {name} that is not a text of one line; export it again")
        if not (isinstance(contract.score, float) and 0 < contract.score < 1):
            raise ModelRefused(
                f"its {DETECTOR_KEY} has score {contract.score!r:.40}, not between 0 and 1; export it again"
            )
        if not (isinstance(contract.sure, float) and 0 <= contract.sure < 1):
            raise ModelRefused(
                f"its {DETECTOR_KEY} has sure {contract.sure!r:.40}, not from 0 to below 1; export it again"
            )
        return contract


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
        self.size = _checked_size(size)
        self.score = _checked_score(score, self.contract.score)
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


def read_detector_contract(model: OnnxFile) -> DetectorContract:
    """Return the file's contract, after checking that the file's tensors match it. Raises ModelRefused."""
    text = model.metadata.get(DETECTOR_KEY)
    if text is None:
        raise ModelRefused(
            f"{model.path}: not a face detector of this project (no {DETECTOR_KEY} in its metadata); "
            "use models/face_detector.onnx"
        )
    try:
        contract = DetectorContract.from_json(text)
    except ModelRefused as error:
        raise ModelRefused(f"{model.path}: {error}") from error
    tensors = [(t.name, t.elem_type, len(t.dims or ())) for t in (*model.inputs, *model.outputs)]
    named = tensors == [("image", UINT8, 4), ("score", FLOAT, 3), ("box", FLOAT, 4)]
    if not named or (model.outputs[1].dims or ())[1:2] != (BOX_CHANNELS[contract.version],):
        names = ", ".join(f"{t.name} {t.dims}" for t in (*model.inputs, *model.outputs))[:200]
        raise ModelRefused(f"{model.path}: its tensors ({names}) do not match its contract; export it again")
    return contract


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


def merge(boxes: Floats, scores: Floats, rolls: Floats, overlap: float = OVERLAP) -> list[Detection]:
    """Merge boxes of the same face into one detection.

    `boxes`: (K, 4) xyxy, best first. `scores`: (K,). `rolls`: (K, 2) cosines and sines times some factor. This is
    non-maximum suppression in which the suppressed boxes still vote on the place of the face, weighted by their scores
    (Gidaris and Komodakis, ICCV 2015).
    """
    found = []
    left = np.ones(len(boxes), np.bool_)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for best in range(len(boxes)):
        if not left[best]:
            continue
        sides = np.minimum(boxes[:, 2:], boxes[best, 2:]) - np.maximum(boxes[:, :2], boxes[best, :2])
        common = np.maximum(sides, 0).prod(1)
        same = left & (common > overlap * (area + area[best] - common))
        same[best] = True
        left &= ~same
        voted = np.average(boxes[same], axis=0, weights=scores[same])
        cosine, sine = (scores[same] @ rolls[same]).tolist()
        found.append(Detection(np.asarray(voted, np.float32), float(scores[best]), math.atan2(sine, cosine)))
    return found


# YuNet, run by OpenCV.


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
        self.size = _checked_size(size)
        self.score = _checked_score(score, YUNET_SCORE)
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


def _checked_size(size: int | None) -> int | None:
    if size is not None and not MULTIPLE <= size <= LARGEST_SIZE:
        raise UsageError(f"detector size is {size}; give {MULTIPLE} to {LARGEST_SIZE}, best a multiple of {MULTIPLE}")
    return size


def _checked_score(score: float | None, default: float) -> float:
    if score is None:
        return default
    if not 0 < score < 1:
        raise UsageError(f"detector score is {score}; give a number between 0 and 1")
    return score

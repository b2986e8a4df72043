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
from ..providers.choice import Provider, failures, import_onnxruntime, open_ort_session, said_by
from ..providers.onnx_file import FLOAT, UINT8, OnnxFile, read_onnx
from ..quiet import quiet_opencv
from ..template import load_template
from ..types import Detection, Floats, Image
from ..unpicklable import Unpicklable

DETECTOR_KEY = "facerecon.detector"
"""In the ONNX file's metadata_props: the JSON value of a DetectorContract."""
DETECTOR_VERSION = 2
BOX_CHANNELS = {1: 3, 2: 5}
"""Of the output `box`, by version of the contract: files of version 1 do not say how far a head is turned."""
DETECTOR_KIND = "centre"
STRIDE = 8
"""Input pixels per cell of the network's outputs."""
MULTIPLE = 32
"""The network halves its input five times."""
LARGEST_SIZE = 4096
"""Longer side, pixels, of what the network may be given."""
SIDE_UNIT = 32.0
"""Pixels: the side at which the network's logarithm of the side is 0."""
OVERLAP = 0.4
"""Intersection over union above which two boxes are one face."""
MOST_CELLS = 2000
"""More cells than this are never looked at: noise must not make a frame slow."""

SMALL_INPUT = 256
"""Longer side of what the network sees of a picture, pixels, unless the caller says otherwise."""
LARGE_PIXELS = 1600
"""Longer side from which a picture is looked at twice: it may show small faces and close-ups at once."""
FINE_INPUT, COARSE_INPUT = 608, 224
"""Longer sides of its two looks. Of a picture of 16:9 both together are 1 % fewer pixels than one look at 640, which
was taken before and missed close-ups."""
FINE_LARGEST, COARSE_SMALLEST = 0.4, 0.2
"""Sides of faces, in longer sides of the picture, that the fine look may find at most and the coarse one at least."""

YUNET_SCORE = 0.6
YUNET_RAISED_MM = 4.0
"""YuNet's five points give a centre about this far above the one of all annotated points (helen, afw, youtube-train: 5,
lfpw-train: 4, aaf-train: 2), so its template points are raised by as much."""
YUNET_LEAST_RATIO = 0.4
"""Five points flatter than this (the affine fit's smaller singular value over its larger) give no camera."""


class Detector(Protocol):
    """What a pipeline needs of a face detector."""

    def detect(self, image: Image) -> list[Detection]:
        """(H, W, 3) uint8 BGR -> faces, best first; boxes may reach beyond the frame."""
        ...


def open_detector(
    path: str | Path,
    *,
    size: int | None = None,
    score: float | None = None,
    threads: int = 1,
    provider: Provider = "cpu",
) -> Detector:
    """Our detector or a YuNet file, whichever the file is. Raises ModelRefused where it is neither.

    `size` is the longer side of what the network sees, pixels; 640 finds the small faces of a crowd. None goes by the
    picture, as `looks_at` has it. `score` is the least score of a detection; None is the file's own choice.
    """
    model = read_onnx(path)
    if DETECTOR_KEY in model.metadata:
        return FaceDetector(model, size=size, score=score, threads=threads, provider=provider)
    if is_yunet(model):
        return YunetDetector(model, size=size, score=score)
    raise ModelRefused(
        f"{path}: neither our face detector (no {DETECTOR_KEY} in its metadata) nor a YuNet file; "
        "use models/face_detector.onnx"
    )


# Frame -> what a network sees


@dataclass(frozen=True, slots=True)
class Look:
    """One run of the network over a whole picture, and the faces it is asked for."""

    size: int
    """Longer side of what the network sees, pixels."""
    smallest: float = 0.0
    """Sides of faces, in longer sides of the picture: from this..."""
    largest: float = math.inf
    """...to below this."""


def looks_at(longer_side: int, size: int | None) -> tuple[Look, ...]:
    """Longer side of a picture, pixels -> the looks taken at it, finest first. The one place with this rule.

    `size`: what the caller asks for, one look; None goes by the picture. A network that sees a large picture finely
    enough for its small faces sees no close-up whole, so it looks at it coarsely too.
    """
    if size is not None:
        return (Look(size),)
    if longer_side < LARGE_PIXELS:
        return (Look(SMALL_INPUT),)
    return Look(FINE_INPUT, largest=FINE_LARGEST), Look(COARSE_INPUT, smallest=COARSE_SMALLEST)


def look(image: Image, size: int | None, see: Callable[[Image], list[Detection]], *, enlarge: bool) -> list[Detection]:
    """(H, W, 3) uint8 BGR -> faces, best first, of all looks at the picture.

    `see`: what the network finds in a reduced picture, in its pixels. `enlarge`: whether smaller pictures are, too.
    """
    looks = looks_at(max(image.shape[:2]), size)
    frame_from_input = FrameFromInput(1.0, 1.0)
    found = []
    for one in looks:
        if enlarge or max(image.shape[:2]) > one.size:
            # Each from the one before: frames are large, and reducing them takes its time.
            image, coarser = resize_longer_side(image, one.size)
            frame_from_input = frame_from_input.after(coarser)
        for detection in see(image):
            side = float(detection.box[2] - detection.box[0])
            if one.smallest * one.size <= side < one.largest * one.size:
                found.append(replace(detection, box=frame_from_input.box(detection.box)))
    if len(looks) == 1:
        return found
    found.sort(key=lambda detection: -detection.score)
    rolls = np.array([detection.roll for detection in found], np.float32)
    boxes = np.array([detection.box for detection in found], np.float32).reshape(-1, 4)
    scores = np.array([detection.score for detection in found], np.float32)
    return merge(boxes, scores, np.stack([np.cos(rolls), np.sin(rolls)], axis=1))


@dataclass(frozen=True, slots=True)
class FrameFromInput:
    """How the network's input lies in the frame: frame = (input + 0.5) * factor - 0.5, per axis."""

    x: float
    y: float

    def after(self, step: FrameFromInput) -> FrameFromInput:
        """Of a picture that was reduced once more: by this, and then by `step`."""
        return FrameFromInput(self.x * step.x, self.y * step.y)

    def box(self, box: Floats) -> Floats:
        """(4,) xyxy, input pixels -> frame pixels."""
        factors = np.array([self.x, self.y, self.x, self.y])
        return np.asarray((box + 0.5) * factors - 0.5, np.float32)


def resize_longer_side(image: Image, size: int) -> tuple[Image, FrameFromInput]:
    """(H, W, 3) -> the picture with its longer side `size`."""
    height, width = image.shape[:2]
    factor = max(height, width) / size
    new = max(1, round(width / factor)), max(1, round(height / factor))
    if factor < 1:
        image = np.asarray(cv2.resize(image, new, interpolation=cv2.INTER_LINEAR), np.uint8)
    elif factor > 1:
        # Averaging the whole frame takes 6 ms at 1920 x 1080. Four samples of four pixels each, or sixteen from large
        # frames, are as good and take a third of one.
        if factor > 2:
            finer = 2 if factor <= 8 else 4
            image = np.asarray(cv2.resize(image, (finer * new[0], finer * new[1])), np.uint8)
        image = np.asarray(cv2.resize(image, new, interpolation=cv2.INTER_AREA), np.uint8)
    return image, FrameFromInput(width / new[0], height / new[1])


def letterbox(image: Image, size: int) -> tuple[Image, FrameFromInput]:
    """(H, W, 3) -> longer side `size`, then padded. Smaller pictures are enlarged."""
    image, frame_from_input = resize_longer_side(image, size)
    return pad(image), frame_from_input


def pad(image: Image) -> Image:
    """(H, W, 3) -> black on the right and below, up to multiples of 32.

    So a frame of 1280 x 720 costs 256 x 160 and not 256 x 256.
    """
    height, width = (MULTIPLE * math.ceil(v / MULTIPLE) for v in image.shape[:2])
    if (height, width) != image.shape[:2]:
        padded = np.zeros((height, width, 3), np.uint8)
        padded[: image.shape[0], : image.shape[1]] = image
        return padded
    return image


# Our own detector


@dataclass(frozen=True, slots=True)
class DetectorContract:
    """What our detector's file says about itself.

    Input `image`: (N, H, W, 3) uint8 BGR, H and W multiples of 32. Outputs, float32, h = H / 8, w = W / 8: `score`
    (N, h, w) 0..1, and `box` (N, 5, h, w): the way from the cell's middle to the face's centre, x and y in sides; the
    logarithm of the side in units of SIDE_UNIT pixels; cosine and sine of the head's roll, clockwise in the picture, to
    some factor. Files of version 1 lack the last two: for them every head is upright.
    """

    score: float
    """Least score of a detection, unless the caller gives another one; chosen on training photographs."""
    terms: str = ""
    """What the weights may be used for."""
    weights_sha256: str = ""
    """Of the .safetensors file the graph was exported from."""
    precision: str = "fp32"
    target: str = ""
    """As in ModelContract."""
    kind: str = DETECTOR_KIND
    version: int = DETECTOR_VERSION
    sure: float = 0.0
    """Detections of a lower score are doubtful: the FaceModel has to be surer of them than of others."""

    def to_json(self) -> str:
        """The value of `DETECTOR_KEY` in the ONNX file's metadata_props."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> DetectorContract:
        """Read what `to_json` wrote. Raises ModelRefused on anything else."""
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
                raise ModelRefused(f"its {DETECTOR_KEY} has a {name} that is no text of one line; export it again")
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
    """Our detector, one ONNX file. A context manager: it owns a session."""

    def __init__(
        self,
        model: str | Path | OnnxFile,
        *,
        size: int | None = None,
        score: float | None = None,
        threads: int = 1,
        provider: Provider = "cpu",
    ) -> None:
        """Arguments as in `open_detector`."""
        if not isinstance(model, OnnxFile):
            model = read_onnx(model)
        self.contract = read_detector_contract(model)
        self.size = _checked_size(size)
        self.score = _checked_score(score, self.contract.score)
        self.sha256 = model.sha256
        self._path = model.path
        self._channels = (model.outputs[1].dims or ())[1]
        self._session: Any
        self._session, self.provider, self.provider_choice = open_ort_session(model, provider, threads)
        # What does not run, or says what no detector says, is found out before a camera is opened.
        self.detect(np.zeros((64, 96, 3), np.uint8))

    def detect(self, image: Image) -> list[Detection]:
        """(H, W, 3) uint8 BGR -> faces, best first."""

        return detections(self._answer, image, self.size, self.score, self.contract.sure)

    def _answer(self, pictures: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Raises ModelRefused where the file does not run, or says what no detector says."""
        try:
            scores, boxes = self._session.run(["score", "box"], {"image": pictures})
        except failures(import_onnxruntime()) as error:
            raise ModelRefused(
                f"{self._path}: it does not run ({said_by(error)}); export the detector again"
            ) from error
        count, height, width = pictures.shape[0], pictures.shape[1] // STRIDE, pictures.shape[2] // STRIDE
        shapes = ((count, height, width), (count, self._channels, height, width))
        if (scores.shape, boxes.shape) != shapes:
            raise ModelRefused(f"{self._path}: its outputs came out as {scores.shape}, {boxes.shape}; export it again")
        # Sides of more than e ** 30 cells are none, and would be infinite a little later.
        if not (math.isfinite(np.vdot(boxes, boxes)) and math.isfinite(scores.sum()) and boxes[:, 2].max() < 30):
            raise ModelRefused(f"{self._path}: its outputs make no sense; export it again, or use the fp32 detector")
        return scores, boxes

    def close(self) -> None:
        """Give the session's memory back. Closing twice is harmless."""
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
    """(H, W, 3) uint8 BGR -> faces, best first, of at least the score `least`; those below `sure` are doubtful.

    `answer` is the network: (N, h, w, 3) uint8 BGR -> its outputs `score` and `box`; `size` the longer side of what it
    sees, or None to go by the picture.
    """

    def see(reduced: Image) -> list[Detection]:
        scores, boxes = answer(pad(reduced)[None])
        return merge(*decode(scores[0], boxes[0], least))

    found = look(image, size, see, enlarge=True)
    return [replace(one, doubtful=True) if one.score < sure else one for one in found]


def read_detector_contract(model: OnnxFile) -> DetectorContract:
    """The file's contract, after the file was seen to keep it."""
    text = model.metadata.get(DETECTOR_KEY)
    if text is None:
        raise ModelRefused(
            f"{model.path}: not our face detector (no {DETECTOR_KEY} in its metadata); use models/face_detector.onnx"
        )
    try:
        contract = DetectorContract.from_json(text)
    except ModelRefused as error:
        raise ModelRefused(f"{model.path}: {error}") from error
    tensors = [(t.name, t.elem_type, len(t.dims or ())) for t in (*model.inputs, *model.outputs)]
    named = tensors == [("image", UINT8, 4), ("score", FLOAT, 3), ("box", FLOAT, 4)]
    if not named or (model.outputs[1].dims or ())[1:2] != (BOX_CHANNELS[contract.version],):
        names = ", ".join(f"{t.name} {t.dims}" for t in (*model.inputs, *model.outputs))[:200]
        raise ModelRefused(f"{model.path}: its tensors ({names}) are not what its contract says; export it again")
    return contract


def decode(score: Floats, box: Floats, least: float) -> tuple[Floats, Floats, Floats]:
    """The network's score (h, w) and box (5, h, w) -> boxes (K, 4) xyxy in its input's pixels, scores (K,), and
    cosines and sines (K, 2) of rolls.

    Every cell of at least the score `least` gives one; best first. Meanings as in DetectorContract.
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
    """(K, 4) xyxy, best first, (K,), and (K, 2) cosines and sines to some factor -> one detection per face.

    Non-maximum suppression in which the suppressed boxes still vote on where the face is, weighted by their scores
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


# YuNet, through OpenCV


class YunetDetector(Unpicklable):
    """YuNet (Wu et al., Machine Intelligence Research 2023) through cv2.FaceDetectorYN, giving our boxes."""

    def __init__(self, model: str | Path | OnnxFile, *, size: int | None = None, score: float | None = None) -> None:
        """`size`: the longer side that larger frames are reduced to; None goes by the picture, as `looks_at` has it."""
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
        """(H, W, 3) uint8 BGR -> faces, best first."""
        return look(image, self.size, self._see, enlarge=False)

    def _see(self, image: Image) -> list[Detection]:
        self._net.setInputSize((image.shape[1], image.shape[0]))
        _, rows = self._net.detect(image)
        found = []
        for row in () if rows is None else rows:
            square = square_from_yunet(row)
            found.append(Detection(box_from_square(square), float(row[14]), square.roll))
        return sorted(found, key=lambda detection: -detection.score)


def is_yunet(model: OnnxFile) -> bool:
    """YuNet files carry no name of their own: twelve outputs, cls, obj, bbox and kps at strides 8, 16 and 32."""
    wanted = {f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)}
    return {output.name for output in model.outputs} == wanted


def yunet_template() -> Floats:
    """(5, 3) mm, head frame: subject's right eye, left eye, nose tip, right and left corner of the mouth."""
    points = load_template().landmark_positions
    five = np.stack([points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]])
    five[:, 1] += YUNET_RAISED_MM
    return np.asarray(five, np.float32)


def square_from_yunet(row: ArrayLike) -> Square:
    """(15,) of cv2.FaceDetectorYN -> the head's square: from its five points, or upright from its box where they lie on
    a line."""
    values = np.asarray(row, np.float64)
    head, points = yunet_template().astype(np.float64), values[4:14].reshape(5, 2)
    affine, *_ = np.linalg.lstsq(head - head.mean(0), points - points.mean(0), rcond=None)
    larger, smaller = np.linalg.svd(affine, compute_uv=False)
    if smaller > YUNET_LEAST_RATIO * larger:
        return square_from_camera(fit_camera(head, points))
    # Measured on the same photographs: YuNet's box is 1.16 times as large as ours, its middle 0.05 of our side higher.
    left, top, width, height = values[:4]
    side = math.sqrt(width * height) / 1.16
    x, y = left + width / 2, top + height / 2 + 0.05 * side
    return square_from_box([x - side / 2, y - side / 2, x + side / 2, y + side / 2])


def _checked_size(size: int | None) -> int | None:
    if size is not None and not MULTIPLE <= size <= LARGEST_SIZE:
        raise UsageError(
            f"detector size is {size}; give {MULTIPLE} to {LARGEST_SIZE}, multiples of {MULTIPLE} waste nothing"
        )
    return size


def _checked_score(score: float | None, default: float) -> float:
    if score is None:
        return default
    if not 0 < score < 1:
        raise UsageError(f"detector score is {score}; give a number between 0 and 1")
    return score

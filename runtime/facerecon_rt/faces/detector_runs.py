"""A frame -> pictures of the sizes that a detector sees, and its boxes in the frame. Limits of size and score."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..errors import UsageError
from ..types import Detection, Floats, Image
from .detector_contract import MULTIPLE

LARGEST_SIZE = 4096
"""Maximum longer side of the network's input, in pixels."""
OVERLAP = 0.4
"""Intersection over union above which two boxes belong to one face."""

SMALL_INPUT = 256
"""Default longer side of the network's input, in pixels."""
LARGE_PIXELS = 1600
"""Longer side in pixels from which a picture gets two runs, because it may show small faces and close-ups at once."""
FINE_INPUT, COARSE_INPUT = 608, 224
"""Longer sides of the inputs of the two runs, in pixels. For a picture of 16:9 both together have 1 % fewer pixels than
the single run at 640 of earlier versions, which missed close-ups."""
FINE_LARGEST, COARSE_SMALLEST = 0.4, 0.2
"""Maximum side of faces from the fine run, and minimum from the coarse run, as shares of the picture's longer side."""


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


def checked_size(size: int | None) -> int | None:
    """Return the longer side of a detector's input, in pixels. Raises UsageError for an impossible size."""
    if size is not None and not MULTIPLE <= size <= LARGEST_SIZE:
        raise UsageError(f"detector size is {size}; give {MULTIPLE} to {LARGEST_SIZE}, best a multiple of {MULTIPLE}")
    return size


def checked_score(score: float | None, default: float) -> float:
    """Return the minimum score of a detection, or the default for None. Raises UsageError for an impossible score."""
    if score is None:
        return default
    if not 0 < score < 1:
        raise UsageError(f"detector score is {score}; give a number between 0 and 1")
    return score

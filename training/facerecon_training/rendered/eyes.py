"""Landmarks -> how far eyes are closed; photograph with open eyes -> the same photograph with its lids drawn down.

Photographs with closed eyes are rare, and machine-made landmarks never quite close them. This module draws lids over
the eyes of annotated photographs. A network then sees real skin over closed eyes and learns how far they are closed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.types import Floats, Image
from numpy.typing import NDArray

BLINK = (BLENDSHAPES.index("eyeBlink_L"), BLENDSHAPES.index("eyeBlink_R"))
"""Indices of eyeBlink, the subject's left eye first, as everywhere in this module."""
OPEN_RATIO, CLOSED_RATIO = 0.24, 0.10
"""Thresholds of an eye's opening over its width. Above the first an eye is open, below the second it is closed.

Squints and glances down look alike in between, and eyes there get no label.
"""


@dataclass(frozen=True, slots=True)
class Eye:
    """iBUG indices of one eye's landmarks."""

    corners: tuple[int, int]
    upper: tuple[int, int]
    lower: tuple[int, int]
    """Points of the lower lid, one below each point of `upper`."""
    brow: tuple[int, ...]


EYES = (
    Eye((42, 45), (43, 44), (47, 46), (22, 23, 24, 25, 26)),
    Eye((36, 39), (37, 38), (41, 40), (17, 18, 19, 20, 21)),
)


def eye_openings(landmarks: Floats) -> Floats:
    """Return the opening over the width of each eye, (..., 2), from landmarks (..., 68, 2).

    It is the eye aspect ratio (Soukupova and Cech, CVWW 2016).
    """
    ratios = []
    for eye in EYES:
        first, second = (landmarks[..., corner, :] for corner in eye.corners)
        opening = landmarks[..., list(eye.upper), :] - landmarks[..., list(eye.lower), :]
        width = np.maximum(np.linalg.norm(first - second, axis=-1), 1e-6)
        ratios.append(np.linalg.norm(opening, axis=-1).mean(-1) / width)
    return np.stack(ratios, -1)


def hand_labelled() -> dict[str, list[str]]:
    """Return the names (FOLDER/NAME under data/faces) of photographs whose eyes a person labelled "closed" and
    "open"."""
    labels = json.loads(Path(__file__).with_name("blink_labels.json").read_text())
    return {kind: list(labels[kind]) for kind in ("closed", "open")}


def blink_labels(landmarks: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return eyeBlink weights (2,) of annotated landmarks (68, 2), and whether each is known."""
    ratios = eye_openings(landmarks)
    known = (ratios > OPEN_RATIO) | (ratios < CLOSED_RATIO)
    return (ratios < CLOSED_RATIO).astype(np.float32), known


def draw_lids(image: Image, landmarks: Floats, closed: Floats) -> tuple[Image, Floats, Floats]:
    """Close the eyes of a picture (H, W, 3) uint8 with landmarks (68, 2) in pixels.

    `closed` (2,) is how far to close each eye, 0..1. Returns the picture, its landmarks, and how far each eye was
    closed (2,). In an eye's own axes, the part between the brow and the edge of the upper lid is stretched down to the
    edge's new place. The part below stays. Eyes with unknown landmarks, or outside the picture, do not change.
    """
    image, landmarks, drawn = image.copy(), landmarks.copy(), np.zeros(2, np.float32)
    for side, (eye, share) in enumerate(zip(EYES, closed, strict=True)):
        points = [*eye.corners, *eye.upper, *eye.lower, *eye.brow]
        if share > 0 and np.isfinite(landmarks[points]).all() and _draw_lid(image, landmarks, eye, float(share)):
            drawn[side] = share
    return image, landmarks, drawn


def _draw_lid(image: Image, landmarks: Floats, eye: Eye, share: float) -> bool:
    """Close an eye in place, and return whether there was an eye to close."""
    first, second = (landmarks[corner].astype(np.float64) for corner in eye.corners)
    middle, half = (first + second) / 2, np.linalg.norm(second - first) / 2
    if half < 2:
        return False
    along = (second - first) / (2 * half)
    up = np.array([along[1], -along[0]])
    if (landmarks[list(eye.brow)].mean(0) - middle) @ up < 0:
        up = -up
    axes = np.stack([along, up]) / half  # the corners are at -1 and 1 of the first axis
    upper, lower = (_lid(axes, middle, landmarks[list(lid)]) for lid in (eye.upper, eye.lower))
    lower = min(lower, upper)
    brow = max(float(((landmarks[list(eye.brow)] - middle) @ axes[1]).max()), upper + 0.3)

    reach = int(np.ceil(1.3 * max(1.0, brow) * half))
    x0, y0 = np.maximum(np.floor(middle).astype(int) - reach, 0)
    x1, y1 = np.minimum(np.ceil(middle).astype(int) + reach + 1, image.shape[1::-1])
    if x1 - x0 < 2 or y1 - y0 < 2:
        return False
    x, y = np.meshgrid(np.arange(x0, x1), np.arange(y0, y1))
    offset = np.stack([x - middle[0], y - middle[1]], -1)
    u, v = offset @ axes[0], offset @ axes[1]
    arch = np.clip(1 - u**2, 0, None)  # lids are arches between the corners
    edge, base = upper * arch, lower * arch
    moved = edge + share * (base - edge)
    source = np.where((v > moved) & (v < brow), edge + (v - moved) * (brow - edge) / np.maximum(brow - moved, 1e-6), v)
    shift = (source - v)[..., None] * up * half
    x_map, y_map = np.moveaxis((np.stack([x, y], -1) + shift - [x0, y0]).astype(np.float32), -1, 0)
    part = image[y0:y1, x0:x1]
    part[:] = cv2.remap(part.copy(), x_map, y_map, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    for top, bottom in zip(eye.upper, eye.lower, strict=True):
        landmarks[top] += share * (landmarks[bottom] - landmarks[top])
    return True


def _lid(axes: NDArray[np.float64], middle: NDArray[np.float64], points: Floats) -> float:
    """Return the height of the arch between the corners that fits two landmarks of a lid best (least squares)."""
    u, v = axes @ (points - middle).T
    arch = np.clip(1 - u**2, 0.1, None)
    return float((arch * v).sum() / (arch**2).sum())

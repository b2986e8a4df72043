"""A box or pose -> the square around the head -> a crop. Only this module decides what the network sees.

The square is fixed to the head, not to the picture. Its centre is the projection of one point of the head, and its side
is a number of millimetres at the face's scale. An open mouth or a turned head therefore does not move or resize it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike

from .pose import scale_of
from .types import Crop, Floats, Image

CROP_CENTRE_MM: tuple[float, float, float] = (0.0, -30.0, 0.0)
"""Point that projects to the centre of the crop, in the head frame (origin midway between the eyeballs of the mean
face)."""
CROP_SIDE_MM = 190.0
BOX_SIDE_MM = 140.0
"""Side in mm of the face box that detectors return and records hold, around the same centre."""


@dataclass(frozen=True, slots=True)
class Square:
    """A square in the frame, turned with the head, from which a crop is taken."""

    x: float
    """Centre, in frame pixels."""
    y: float
    side: float
    """Length of a side, in frame pixels."""
    roll: float = 0.0
    """Angle in radians, clockwise in the picture, by which the square is turned so that the head stands upright in
    it."""


def square_from_camera(frame_from_head: ArrayLike) -> Square:
    """Return the square of a head, upright with it. `frame_from_head`: scaled-orthographic camera (3, 4)."""
    # Plain numbers are used: for so few, calling numpy takes several times as long as the arithmetic.
    first, second, third = np.asarray(frame_from_head, np.float64).tolist()
    a, b, c = CROP_CENTRE_MM
    x = first[0] * a + first[1] * b + first[2] * c + first[3]
    y = second[0] * a + second[1] * b + second[2] * c + second[3]
    side = CROP_SIDE_MM * scale_of(first, second, third)
    # This is the direction of the head's "up" in the picture; straight up is (0, -1).
    return Square(x, y, side, math.atan2(first[1], -second[1]))


def square_from_box(box: ArrayLike, roll: float = 0.0) -> Square:
    """Return the square of a face box (4,) xyxy, frame pixels, and the head's roll in radians. It inverts
    `box_from_square`, which drops the roll."""
    x1, y1, x2, y2 = np.asarray(box, np.float64)
    side = max(x2 - x1, y2 - y1) * CROP_SIDE_MM / BOX_SIDE_MM
    return Square(float(x1 + x2) / 2, float(y1 + y2) / 2, float(side), roll)


def box_from_square(square: Square) -> Floats:
    """Return the upright face box (4,) xyxy, frame pixels: BOX_SIDE_MM at the face's scale, around the square's
    centre."""
    half = square.side * BOX_SIDE_MM / CROP_SIDE_MM / 2
    return np.array([square.x - half, square.y - half, square.x + half, square.y + half], np.float32)


def frame_from_crop(square: Square, size: int) -> Floats:
    """Return the similarity (3, 4) from crop pixels and depth to frame pixels and depth, for a crop of size x size
    pixels."""
    return _matrix(square.side / size, *_similarity(square, size))


def _matrix(scale: float, c: float, s: float, x: float, y: float) -> Floats:
    return np.array([[c, -s, 0.0, x], [s, c, 0.0, y], [0.0, 0.0, scale, 0.0]], np.float32)


def _similarity(square: Square, size: int) -> tuple[float, float, float, float]:
    """Return c, s, x, y with which crop pixel (u, v) is frame pixel (c u - s v + x, s u + c v + y)."""
    scale = square.side / size
    c, s = scale * math.cos(square.roll), scale * math.sin(square.roll)
    middle = (size - 1) / 2
    return c, s, square.x - (c - s) * middle, square.y - (s + c) * middle


def compose(target_from_middle: ArrayLike, middle_from_source: ArrayLike) -> Floats:
    """Compose two transforms (3, 4), or batches (..., 3, 4), into target_from_source."""
    a = np.asarray(target_from_middle, np.float32)
    b = np.asarray(middle_from_source, np.float32)
    linear = a[..., :3] @ b
    linear[..., 3] += a[..., 3]
    return linear


def align(image: Image, square: Square, size: int) -> Crop:
    """Cut the head out of a frame (H, W, 3) uint8 BGR, upright in a crop of size x size pixels.

    The crop is black outside the frame. A frame much finer than the crop would alias and show sensor noise, so it is
    halved first, by area averaging, until it is at most 1.41 times as fine. OpenCV halves an image in a tenth of the
    time that another ratio takes.
    """
    scale = square.side / size
    c, s, x, y = _similarity(square, size)
    transform = _matrix(scale, c, s, x, y)
    halvings = round(math.log2(max(scale, 1.0)))
    (left, top), image = _around(image, square, 2**halvings)
    if not image.size:
        return Crop(np.zeros((size, size, 3), np.uint8), transform)
    x, y = x - left, y - top
    for _ in range(halvings):
        image = _halved(image)
        # image = 2 half + 0.5, solved for half
        c, s, x, y = c / 2, s / 2, (x - 0.5) / 2, (y - 0.5) / 2
    # OpenCV warps four channels in two thirds of the time of three, with the same result.
    four = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
    affine = np.array([[c, -s, x], [s, c, y]])
    warped = cv2.warpAffine(four, affine, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return Crop(np.asarray(cv2.cvtColor(warped, cv2.COLOR_BGRA2BGR), np.uint8), transform)


def _around(image: Image, square: Square, step: int) -> tuple[tuple[int, int], Image]:
    """Return the corner (x, y) and a view of the part of the frame that the square needs, with a small margin.

    The view is empty where they do not meet. Corner and size are multiples of `step`, except where the frame ends.
    """
    height, width = image.shape[:2]
    half = square.side * (abs(math.cos(square.roll)) + abs(math.sin(square.roll))) / 2 + step
    x1, x2 = min(max(square.x - half, 0), width), min(max(square.x + half + 1, 0), width)
    y1, y2 = min(max(square.y - half, 0), height), min(max(square.y + half + 1, 0), height)
    left, top = math.floor(x1 / step) * step, math.floor(y1 / step) * step
    right, bottom = math.ceil(x2 / step) * step, math.ceil(y2 / step) * step
    return (left, top), image[top:bottom, left:right]


def _halved(image: Image) -> Image:
    """Halve an image by area averaging. An odd last row or column counts twice."""
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = np.asarray(cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE), np.uint8)
    half = ((width + 1) // 2, (height + 1) // 2)
    return np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_AREA), np.uint8)


def box_overlap(a: Floats, b: Floats) -> float:
    """Return the intersection over union of two boxes (4,) xyxy."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return float(width * height / (area - width * height))

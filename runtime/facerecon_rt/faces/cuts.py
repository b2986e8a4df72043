"""Two frames of a track -> does the second go on from the first, or was there a cut in between, to somebody else?

Where a film cuts to another person at the same place, the box tells nothing. Two things do together: the head looks
different, and so is its shape, both far more so than from frame to frame of the same track. Neither is enough alone: a
lamp that is switched on changes how a head looks, and a hand before it the shape that is seen.
"""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import ArrayLike

from ..align import BOX_SIDE_MM, CROP_SIDE_MM, square_from_camera
from ..types import Face, Floats, Image

SIDE: Final = 16
"""Pixels of what a face looks like: of its box, without what is around it."""
FINE: Final = 2 * SIDE
"""Pixels that those are averaged from."""
LOGARITHMS = np.log(np.arange(256, dtype=np.float32) + 8)
"""Of grey levels; the lowest 8 are hardly told apart, for they are noise."""
AROUND = 7
"""Pixels of the neighbourhood that a pixel is compared with: light that falls in from one side is left out."""
LEAST_CONTRAST = 0.06
"""Root mean square of the logarithms, below which there is nothing but noise."""
_UPPER, _LOWER = np.arange(SIDE * SIDE).reshape(2, -1)
_LEFT, _RIGHT = np.arange(SIDE * SIDE).reshape(SIDE, 2, -1).swapaxes(0, 1).reshape(2, -1)
HALVES = np.stack([_UPPER, _LOWER, _LEFT, _RIGHT])
"""(4, 128) pixels of the upper, lower, left and right half."""
LEAST_CHANGE = 0.15
"""Of looks, that may be a cut. From frame to frame it is 0.01 and hardly ever above 0.1; at a cut to another person 0.2
to 0.8."""
LEAST_MM = 0.5
"""Between two shapes, likewise."""
TIMES = 2.0
"""What is usual for this track: heads that move fast change more."""
SURE = 2.0
"""Looks and shape together, each as a multiple of what it may be."""
NEWEST = 0.2
"""Share of the newest step in what is usual."""
SAMPLE = 8
"""Vertices, of which one stands for the others."""


def looks(crop: Image, crop_from_head: ArrayLike) -> Floats | None:
    """(S, S, 3) uint8 BGR crop and the head's camera (3, 4) in it -> what the face looks like, (4, 128): of each half
    the contrast to the neighbourhood, of length 1, however bright it is and wherever it lies in the crop. None where
    there is no contrast."""
    square = square_from_camera(crop_from_head)
    step = square.side * BOX_SIDE_MM / CROP_SIDE_MM / FINE
    c, s = step * math.cos(square.roll), step * math.sin(square.roll)
    middle = (FINE - 1) / 2
    crop_from_fine = np.array([[c, -s, square.x - (c - s) * middle], [s, c, square.y - (s + c) * middle]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    fine = cv2.warpAffine(crop, crop_from_fine, (FINE, FINE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    coarse = cv2.resize(cv2.cvtColor(fine, cv2.COLOR_BGR2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    levels = cv2.LUT(coarse, LOGARITHMS)
    halves = (levels - cv2.blur(levels, (AROUND, AROUND))).ravel()[HALVES]
    squares = np.einsum("hp,hp->h", halves, halves)
    # Upper and lower half are the whole.
    if squares[0] + squares[1] < (LEAST_CONTRAST * SIDE) ** 2:
        return None
    return np.asarray(halves / np.sqrt(np.maximum(squares, 1e-9))[:, None], np.float32)


def change(before: Floats, now: Floats) -> float:
    """Of two `looks`, in the half where it is least: a hand or a shadow leaves one half as it was, and a cut none. 0
    for the same, 1 for no likeness at all, up to 2."""
    return 1.0 - float(np.einsum("hp,hp->h", before, now).max())


class Continuity:
    """How a track's face changes from frame to frame."""

    def __init__(self) -> None:
        self._looks: Floats | None = None
        self._shape: Floats | None = None
        self._usual_change = 0.0
        self._usual_mm = 0.0
        self._asked: tuple[Face, float, float] | None = None

    def breaks(self, face: Face) -> bool:
        """Is this face, in the frame after the last one, somebody else's?"""
        changed, mm = self._step(face)
        by_looks = changed / max(LEAST_CHANGE, TIMES * self._usual_change)
        by_shape = mm / max(LEAST_MM, TIMES * self._usual_mm)
        return by_looks > 1 and by_shape > 1 and by_looks * by_shape > SURE

    def add(self, face: Face, *, follows: bool) -> None:
        """The track's face in this frame; `follows`: it was looked at in the frame before, too."""
        if follows:
            changed, mm = self._step(face)
            self._usual_change += NEWEST * (changed - self._usual_change)
            self._usual_mm += NEWEST * (mm - self._usual_mm)
        self._looks, self._shape, self._asked = face.looks, face.shape[::SAMPLE].copy(), None

    def _step(self, face: Face) -> tuple[float, float]:
        """Change of looks, and millimetres between the shapes (root mean square), since the last frame; 0 where they
        are not known. A face is asked about up to three times in a frame, and compared once."""
        if self._asked is None or self._asked[0] is not face:
            changed = 0.0 if self._looks is None or face.looks is None else change(self._looks, face.looks)
            offset = 0.0 if self._shape is None else face.shape[::SAMPLE] - self._shape
            mm = math.sqrt(float(np.vdot(offset, offset)) / max(1, len(face.shape[::SAMPLE])))
            self._asked = (face, changed, mm)
        return self._asked[1:]

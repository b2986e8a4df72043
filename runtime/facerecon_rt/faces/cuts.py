"""Two frames of a track -> whether the video was cut to another person in between.

After a cut to another person at the same place, the box does not change. Three signals together reveal the cut: the
picture changes in many places, and the appearance and the shape of the head both change far more than between frames of
the same track. No single signal is enough. A lamp that is switched on changes the picture and the appearance, a hand in
front of the head changes the predicted shape, and a head that passes in front of another head changes appearance and
shape.
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
"""Side in pixels of the appearance image: the face box without its surroundings."""
FINE: Final = 2 * SIDE
"""Side in pixels of the finer image that is averaged to it."""
LOGARITHMS = np.log(np.arange(256, dtype=np.float32) + 8)
"""Logarithm of each grey level. The lowest 8 levels are noise and hardly differ."""
AROUND = 7
"""Side in pixels of the neighbourhood that each pixel is compared with. This removes the effect of light from one
side."""
LEAST_CONTRAST = 0.06
"""Minimum root mean square of the logarithms. Below it the image holds only noise."""
_UPPER, _LOWER = np.arange(SIDE * SIDE).reshape(2, -1)
_LEFT, _RIGHT = np.arange(SIDE * SIDE).reshape(SIDE, 2, -1).swapaxes(0, 1).reshape(2, -1)
HALVES = np.stack([_UPPER, _LOWER, _LEFT, _RIGHT])
"""(4, 128) pixel indices of the upper, lower, left and right half."""
LEAST_CHANGE = 0.15
"""Minimum change of appearance at a cut. Between consecutive frames it is 0.01 and rarely above 0.1; at a cut to
another person it is 0.2 to 1."""
LEAST_MM = 1.0
"""Minimum distance in mm between the two shapes at a cut, after scaling. It is 1.06 in one of ninety cuts between
photographed people, and 1.24 or more in the others. Where a lively head jumps because frames are missing, it is up to
1.55, against a usual change of 0.66."""
TIMES = 2.6
"""Factor by which a change must exceed the usual change of the track, since fast heads change more."""
LEAST_CONFIDENCE = 0.75
"""Minimum confidence of the face after a cut. A head that passes near the camera is blurred: its confidence is 0.55 to
0.74, and its shape and appearance change as they do at a cut (`crowd_1080p.mp4`)."""
SURE = 2.25
"""Minimum product of both changes, each as a multiple of its limit. It is 2.47 and more at cuts between talking heads,
and up to 2.12 where a head turns fast (`head_d12.mp4`)."""
NEWEST = 0.2
"""Weight of the newest step in the usual change."""
SAMPLE = 8
"""Stride of the vertices that are compared."""
ACROSS = 48
"""Number of pixels along a row of a frame that are compared with the frame before."""
LEAST_STEP = 0.15
"""Minimum difference of the logarithms of a pixel that changed."""
LEAST_SHARE = 0.2
"""Minimum share of the picture that changes at a cut. Two heads that cross before a still background change at most
0.1 of it where their appearance and shape suggest a cut; cuts between whole pictures change 0.27 and more."""


def appearance(crop: Image, crop_from_head: ArrayLike) -> Floats | None:
    """Describe the appearance of a face, (4, 128): for each half its contrast to the neighbourhood, of length 1.

    The description does not depend on brightness or on the place in the crop. `crop`: (S, S, 3) uint8 BGR.
    `crop_from_head`: the head's camera (3, 4). Returns None where there is no contrast.
    """
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
    # The upper and the lower half together are the whole face.
    if squares[0] + squares[1] < (LEAST_CONTRAST * SIDE) ** 2:
        return None
    return np.asarray(halves / np.sqrt(np.maximum(squares, 1e-9))[:, None], np.float32)


def change(before: Floats, now: Floats) -> float:
    """Return the change of appearance in the half where it is smallest: 0 for equal, 1 for unrelated, up to 2.

    A hand or a shadow leaves one half unchanged, and a cut changes all of them.
    """
    return 1.0 - float(np.einsum("hp,hp->h", before, now).max())


class Scenery:
    """The changes between the frames of one source as a whole."""

    def __init__(self) -> None:
        self._before: Floats | None = None
        self._changed = False

    def changed(self, image: Image) -> bool:
        """Add the next frame (H, W, 3) uint8 BGR. Returns whether much of the picture changed in this frame or in the
        frame before, after which a face may have been missed once."""
        step = max(1, image.shape[1] // ACROSS)
        now = LOGARITHMS.take(image[step // 2 :: step, step // 2 :: step, 1])
        before, self._before = self._before, now
        changed_before = self._changed
        self._changed = before is not None and (
            before.shape != now.shape
            or int(np.count_nonzero(np.abs(now - before) > LEAST_STEP)) > LEAST_SHARE * now.size
        )
        return self._changed or changed_before


class Continuity:
    """The usual changes of a track's face from frame to frame."""

    def __init__(self) -> None:
        self._appearance: Floats | None = None
        self._shape: Floats | None = None
        self._usual_change = 0.0
        self._usual_mm = 0.0
        self._asked: tuple[Face, float, float] | None = None

    def breaks(self, face: Face) -> bool:
        """Return whether this face, in the frame after the last one, belongs to another person. A face with little
        confidence does not."""
        if face.confidence < LEAST_CONFIDENCE:
            return False
        changed, mm = self._step(face)
        by_appearance = changed / max(LEAST_CHANGE, TIMES * self._usual_change)
        by_shape = mm / max(LEAST_MM, TIMES * self._usual_mm)
        return by_appearance > 1 and by_shape > 1 and by_appearance * by_shape > SURE

    def add(self, face: Face, *, follows: bool) -> None:
        """Add the track's face in this frame. `follows`: whether the face was also updated in the previous frame."""
        if follows:
            changed, mm = self._step(face)
            self._usual_change += NEWEST * (changed - self._usual_change)
            self._usual_mm += NEWEST * (mm - self._usual_mm)
        self._appearance, self._shape, self._asked = face.appearance, face.shape[::SAMPLE].copy(), None

    def _step(self, face: Face) -> tuple[float, float]:
        """Return the changes since the last frame; 0 where unknown. They are the change of appearance, and the root
        mean square distance in mm between the shapes at the same size. A face is queried up to three times per frame,
        so the result is kept."""
        if self._asked is None or self._asked[0] is not face:
            changed = (
                0.0
                if self._appearance is None or face.appearance is None
                else change(self._appearance, face.appearance)
            )
            mm = 0.0 if self._shape is None else _distance_mm(self._shape, face.shape[::SAMPLE])
            self._asked = (face, changed, mm)
        return self._asked[1:]


def _distance_mm(before: Floats, now: Floats) -> float:
    """Return the root mean square distance of two shapes (K, 3) in mm. The second is moved and scaled to the first,
    because a picture does not show a head's size."""
    before, now = before - before.mean(0), now - now.mean(0)
    offset = now * (float(np.vdot(before, now)) / max(float(np.vdot(now, now)), 1e-9)) - before
    return math.sqrt(float(np.vdot(offset, offset)) / max(1, len(offset)))

"""Scenes -> pictures in which every face is covered: blurred, pixelated or masked."""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np

from ..types import Floats, Image, Scene

Cover = Literal["blur", "pixelate", "mask"]
COVERS: tuple[Cover, ...] = get_args(Cover)
MARGIN = 0.25
"""Default margin around a face box on each side, as a share of the box."""
CELLS = 3
"""Number of cells along a covered face. What remains of a face is the mean colour of each cell, whatever its size."""
BLUR_CONTRAST = 0.5
"""Contrast of the cells of a blur. Smooth blots of full contrast look like faces to a detector."""
MASK_BGR = (96, 96, 96)


def is_cover(style: str) -> bool:
    """Return whether the style covers faces."""
    return style in COVERS


def cover_faces(scene: Scene, cover: Cover, margin: float = MARGIN) -> Image:
    """Return a copy (H, W, 3) uint8 BGR of the frame with every face covered.

    This covers the faces of the scene, and the places where a face may be that the scene lacks (`Scene.elsewhere`).
    `margin`: width added on each side of a face box, as a share of the box.
    """
    picture = scene.frame.image.copy()
    for box in (*(face.box for face in scene.faces), *scene.elsewhere):
        _cover(picture, box, cover, margin)
    return picture


def _cover(picture: Image, box: Floats, cover: Cover, margin: float) -> None:
    height, width = picture.shape[:2]
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) * (0.5 + margin)
    if not np.isfinite(half).all() or not np.isfinite(middle).all():
        return
    x1, y1 = np.clip(np.floor(middle - half), 0, (width, height)).astype(int)
    x2, y2 = np.clip(np.ceil(middle + half) + 1, 0, (width, height)).astype(int)
    region = picture[y1:y2, x1:x2]
    if not region.size:
        return
    if cover == "mask":
        region[:] = MASK_BGR
        return
    # The face is reduced to a few cells first. A blur alone could be undone.
    cell = max(float(2 * half.max()) / CELLS, 1.0)
    cells = (max(1, round((x2 - x1) / cell)), max(1, round((y2 - y1) / cell)))
    means = cv2.resize(region, cells, interpolation=cv2.INTER_AREA)
    if cover == "blur":
        middle = means.mean((0, 1))
        means = (middle + BLUR_CONTRAST * (means - middle)).astype(np.uint8)
    how = cv2.INTER_NEAREST if cover == "pixelate" else cv2.INTER_LINEAR
    region[:] = cv2.resize(means, (x2 - x1, y2 - y1), interpolation=how)

"""A scene -> its frame as JPEG, with faces covered or not, for clients that ask for a picture."""

from __future__ import annotations

import cv2
import numpy as np

from ..types import Image, Scene
from .hide import COVERS, MARGIN, cover_faces
from .pictures import jpeg

PLAIN = "plain"
SNAPSHOT_STYLES = (*COVERS, PLAIN)
"""How snapshots look: faces covered, or the frame as it is."""
SNAPSHOT_WIDTH = 1280
"""Maximum width of a snapshot in pixels. Wider frames are reduced."""
JPEG_QUALITY = 80


def snapshot(scene: Scene, style: str, margin: float = MARGIN) -> bytes | None:
    """Return the frame as JPEG. `style`: one of `SNAPSHOT_STYLES`. `margin`: as `cover_faces`.

    Returns None where faces are covered and the detector did not run on the scene, which may then show a person whom it
    has not found yet.
    """
    if style == PLAIN:
        return as_jpeg(scene.frame.image, SNAPSHOT_WIDTH)
    if not scene.stages_ms.get("detect"):
        return None
    (cover,) = (cover for cover in COVERS if cover == style)
    return as_jpeg(cover_faces(scene, cover, margin), SNAPSHOT_WIDTH)


def as_jpeg(picture: Image, width: int) -> bytes:
    """Encode a picture (H, W, 3) uint8 BGR as JPEG, at most `width` pixels wide."""
    rows, columns = picture.shape[:2]
    if columns > width:
        size = (width, max(1, round(rows * width / columns)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    return jpeg(picture, JPEG_QUALITY)

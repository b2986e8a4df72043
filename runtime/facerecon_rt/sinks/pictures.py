"""Scenes -> annotated pictures, one file per scene."""

from __future__ import annotations

import logging
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from ..errors import UsageError
from ..quiet import quiet_opencv
from ..types import Image, Scene
from .draw import Painter
from .outputs import OutputNames, check_writable, write_whole

log = logging.getLogger("facerecon_rt")

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
LARGEST_SIDE = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383}
"""Largest side of a picture of each format, in pixels: those of libjpeg and of libwebp."""
_PICTURE_OPTIONS = {
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 93],
    ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 93],
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 92],
}


class PictureSink:
    """A sink that writes one annotated picture per scene."""

    def __init__(self, path: Path, paint: Painter) -> None:
        """Check the path. Raises UsageError when the file cannot be written."""
        check_writable(path)
        self._paint = paint
        self._names = OutputNames(path)

    def __enter__(self) -> PictureSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, scene: Scene) -> None:
        """Write the scene's picture. Raises UsageError when it cannot be written."""
        write_picture(self._names.next_for(scene.frame.source), self._paint(scene))

    def close(self) -> None:
        """Do nothing: every picture is complete already."""


def write_picture(path: Path, picture: Image) -> None:
    """Encode a picture by its suffix and write it. A picture beyond the format's largest side is written smaller, and a
    warning says so. Raises UsageError when the format or the disk refuses."""
    suffix = path.suffix.lower()
    height, width = picture.shape[:2]
    picture = within(picture, LARGEST_SIDE.get(suffix))
    if picture.shape[:2] != (height, width):
        size = f"{picture.shape[1]}x{picture.shape[0]}"
        log.warning("%s has %s instead of %dx%d pixels, because %s holds no more", path, size, width, height, suffix)
    with quiet_opencv():
        encoded, data = cv2.imencode(suffix, picture, _PICTURE_OPTIONS.get(suffix, []))
    if not encoded:
        size = f"{picture.shape[1]}x{picture.shape[0]}"
        raise UsageError(f"cannot write {path}: {size} pixels do not fit {suffix}; choose .png")
    write_whole(path, data.tobytes())


def jpeg(picture: Image, quality: int) -> bytes:
    """Encode a picture (H, W, 3) uint8 BGR as JPEG, smaller if a side is too long for the format."""
    fitted = within(picture, LARGEST_SIDE[".jpg"])
    return cv2.imencode(".jpg", fitted, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def within(picture: Image, largest_side: int | None) -> Image:
    """Return the picture (H, W, 3), reduced if a side has more than `largest_side` pixels; None for no limit."""
    height, width = picture.shape[:2]
    if largest_side is None or max(height, width) <= largest_side:
        return picture
    scale = largest_side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)

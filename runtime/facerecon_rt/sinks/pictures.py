"""Scenes -> annotated pictures, one file per scene."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import cv2

from ..errors import UsageError
from ..quiet import quiet_opencv
from ..types import Image, Scene
from .draw import Painter
from .outputs import OutputNames, check_writable, write_whole

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
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
    """Encode a picture by its suffix and write it. Raises UsageError when the format or the disk refuses."""
    suffix = path.suffix.lower()
    with quiet_opencv():
        encoded, data = cv2.imencode(suffix, picture, _PICTURE_OPTIONS.get(suffix, []))
    if not encoded:
        size = f"{picture.shape[1]}x{picture.shape[0]}"
        raise UsageError(f"cannot write {path}: {size} pixels do not fit {suffix}; choose .png")
    write_whole(path, data.tobytes())

"""Scenes -> an annotated video file."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from .draw import Painter
from .errors import UsageError
from .outputs import Partial, Rotation, check_writable, remove_abandoned, source_path
from .quiet import quiet_opencv
from .types import Frame, Image, Scene

CODECS = {".mp4": ("avc1", "mp4v"), ".mov": ("avc1", "mp4v"), ".mkv": ("avc1", "mp4v"), ".avi": ("XVID",)}
"""By suffix, best first: H.264 where this OpenCV can encode it (its PyPI wheels only with a device's own encoder), else
MPEG-4 part 2, which desktop players know and browsers do not."""
DEFAULT_FPS = 25.0
LONGEST_GAP = 250
"""Frames for which the last picture is repeated when a camera's frames were skipped."""


class VideoSink:
    """One video. Its size is the first frame's; later frames of another size are fitted in, with black bars.

    A live source skips frames: the picture before the gap is repeated, so that the video keeps time.
    """

    def __init__(self, path: Path, paint: Painter, rotation: Rotation | None = None) -> None:
        """`rotation`: when it goes on in a new file. Raises UsageError when the file cannot be written."""
        check_writable(path)
        remove_abandoned(path)
        self.path = path
        self._partial: Partial | None = None
        self._paint = paint
        self._rotation = rotation
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._last: tuple[Frame, Image] | None = None
        self._written = 0

    def __enter__(self) -> VideoSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, scene: Scene) -> None:
        """Append the scene's picture. Raises UsageError when the video cannot be encoded."""
        if source_path(scene.frame.source) == self.path.resolve():
            raise UsageError(f"{self.path} is the input and would be overwritten; choose another name")
        picture = self._paint(scene)
        writer = self._writer or self._open(picture, scene.frame.fps or DEFAULT_FPS)
        picture = fit(picture, self._size)
        pictures = [picture]
        if self._last is not None:
            frame, image = self._last
            # Fitted, since this may be a new file, of another size.
            pictures = [fit(image, self._size)] * _skipped(frame, scene.frame) + pictures
        for each in pictures:
            writer.write(each)
        self._written += len(pictures)
        self._last = (scene.frame, picture)
        if self._rotation is not None and self._partial and self._rotation.due(self._partial.path.stat().st_size):
            self.close()

    def close(self) -> None:
        """Finish the file and give it its name. Raises UsageError when it is not whole."""
        if self._writer is None or self._partial is None:
            return
        self._writer.release()
        self._writer = None
        partial = self._partial
        if _frame_count(partial.path) < self._written - 2:
            partial.leave()
            raise UsageError(f"cannot write {self.path}: the video is incomplete, is the disk full? See {partial.path}")
        self._written = 0
        if self._rotation is not None and self.path.exists():
            self._rotation.set_aside(self.path)  # also an earlier run's
        partial.finish()

    def _open(self, picture: Image, fps: float) -> cv2.VideoWriter:
        height, width = picture.shape[:2]
        # Video codecs want even sides.
        self._size = (max(2, width - width % 2), max(2, height - height % 2))
        self._partial = Partial(self.path)
        name = str(self._partial.path.absolute())
        for codec in CODECS[self.path.suffix.lower()]:
            with quiet_opencv():
                writer = cv2.VideoWriter(name, cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, self._size)
            if writer.isOpened():
                self._writer = writer
                return writer
        self._partial.discard()
        raise UsageError(f"this OpenCV cannot encode {self.path.suffix} of {self._size[0]}x{self._size[1]}; try .avi")


def fit(picture: Image, size: tuple[int, int]) -> Image:
    """The picture in (width, height): cut by at most a pixel, else scaled to fit between black bars."""
    width, height = size
    if picture.shape[1] - width in (0, 1) and picture.shape[0] - height in (0, 1):
        return np.ascontiguousarray(picture[:height, :width])
    scale = min(width / picture.shape[1], height / picture.shape[0])
    inner = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    fitted = np.zeros((height, width, 3), np.uint8)
    shrink = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    fitted[top : top + inner[1], left : left + inner[0]] = cv2.resize(picture, inner, interpolation=shrink)
    return fitted


def _skipped(last: Frame, now: Frame) -> int:
    """Frames of the source between two of its frames."""
    if now.still or last.source != now.source:
        return 0
    return min(max(now.index - last.index - 1, 0), LONGEST_GAP)


def _frame_count(path: Path) -> int:
    """What the finished file's header says; 0 when it cannot be opened."""
    with quiet_opencv():
        capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    return count

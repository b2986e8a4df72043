"""A video file -> its frames, decoded by PyAV or by OpenCV."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol

import cv2
import numpy as np

from ..errors import SourceError
from ..limits import MOST_FRAME_PIXELS
from ..regular import begins_as_text, first_bytes
from ..types import Frame, Image

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".m2ts", ".3gp",
    ".ogv", ".gif", ".mjpeg", ".mjpg", ".dv", ".vob", ".mxf",
)  # fmt: skip
HEADER_SLACK = 2
"""Number of frames by which a healthy video file may hold fewer than its header declares."""
LEAST_PIXEL_SHAPE, MOST_PIXEL_SHAPE = 0.2, 5.0
"""Range of plausible ratios of a pixel's width to its height. Values outside are mistakes in the file."""
SAME_PIXEL_SHAPE = 0.005
"""Maximum difference from 1 at which pixels count as square."""

log = logging.getLogger("facerecon_rt")


class VideoReader(Protocol):
    """A decoder of one video file, which it owns until `close`."""

    fps: float
    """Frames per second; 0 where unknown."""
    size: tuple[int, int]
    """(width, height) of the upright frames, in pixels."""
    pixel_shape: float
    """Width of a pixel over its height, in the upright frames; 0 where unknown."""

    def __iter__(self) -> Iterator[tuple[Image, float]]:
        """Yield each upright frame that decodes, with its time in seconds since the first frame. Continues behind
        damaged parts. Raises SourceError for a file whose frames cannot be trusted."""

    def missing(self, count: int) -> int:
        """Return the number of missing frames, as far as the file states it, after `count` frames have been read to its
        end."""

    def close(self) -> None:
        """Close the file and end the iteration."""


class VideoSource:
    """A video file. It never drops a frame. The file's rotation and pixel shape are applied, so that frames are upright
    and their pixels square."""

    live = False
    still = False

    def __init__(self, path: Path) -> None:
        """Open the file. Raises SourceError when it is not a video that can be opened and decoded."""
        self.name = str(path)
        start = first_bytes(path)
        if not start:
            raise SourceError(f"{path} is empty; copy it again")
        # FFmpeg would draw a text file as a video of letters, and follow the addresses in a playlist. It does both
        # behind an ID3 tag too.
        if begins_as_text(start):
            raise SourceError(f"{path} is a text file, not a video")
        if start.startswith(b"ID3"):
            raise SourceError(f"{path} is an audio file, not a video")
        self._reader = open_reader(path)
        width, height = self._reader.size
        if width * height * max(1.0, self._pixel_shape, 1 / self._pixel_shape) > MOST_FRAME_PIXELS:
            self._reader.close()
            raise SourceError(
                f"{path} has frames of {width}x{height}, more than {MOST_FRAME_PIXELS // 10**6} megapixels"
            )
        self.fps = self._reader.fps
        self._closed = False
        self.lost = ""
        """Description of the content that could not be read, available after reading; empty when nothing is missing."""

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame that decodes. Logs one warning when frames are missing. Raises SourceError when there is no
        frame, or when frames cannot be trusted."""
        index = 0
        started = time.monotonic()
        for image, time_s in self._reader:
            image = with_square_pixels(image, self._pixel_shape)
            now = time.monotonic()
            yield Frame(
                image,
                self.name,
                index=index,
                time_s=time_s,
                captured_at=now,
                capture_ms=(now - started) * 1000,
                still=False,
                fps=self.fps,
            )
            index += 1
            started = time.monotonic()
        if not self._closed:
            self._check_count(index)

    def close(self) -> None:
        """Close the file and end the iteration."""
        self._closed = True
        self._reader.close()

    @property
    def _pixel_shape(self) -> float:
        shape = self._reader.pixel_shape
        usual = LEAST_PIXEL_SHAPE < shape < MOST_PIXEL_SHAPE and abs(shape - 1) > SAME_PIXEL_SHAPE
        return shape if usual else 1.0

    def _check_count(self, count: int) -> None:
        if not count:
            raise SourceError(f"{self.name} holds no frame that can be decoded; copy or convert it")
        missing = self._reader.missing(count)
        if missing > HEADER_SLACK:
            self.lost = f"{self.name} is damaged or cut short: {count} of {count + missing} frames could be read"
            log.warning("%s", self.lost)


def is_video_name(path: Path) -> bool:
    """Return whether a file has a video suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def open_reader(path: Path) -> VideoReader:
    """Open a video with PyAV where it is installed (extra `video`), else with OpenCV. Raises SourceError when neither
    can read the file."""
    try:
        from .video_av import AvReader
    except ImportError:
        from .video_cv import CvReader

        return CvReader(path)
    return AvReader(path)


def with_square_pixels(image: Image, shape: float) -> Image:
    """Resize an image whose pixels are `shape` times as wide as high to square pixels. It never becomes smaller."""
    if shape == 1:
        return image
    height, width = image.shape[:2]
    size = (round(width * shape), height) if shape > 1 else (width, round(height / shape))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)

"""A video file -> its frames, whatever decodes it."""

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
from ..regular import first_bytes, is_text
from ..types import Frame, Image

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".m2ts", ".3gp",
    ".ogv", ".gif", ".mjpeg", ".mjpg", ".dv", ".vob", ".mxf",
)  # fmt: skip
HEADER_SLACK = 2
"""Number of frames by which a healthy video file may hold fewer than its header promises."""
LEAST_PIXEL_SHAPE, MOST_PIXEL_SHAPE = 0.2, 5.0
"""Width of a pixel over its height: what lies outside is a mistake in the file."""
SAME_PIXEL_SHAPE = 0.005
"""Difference from 1 below which pixels are taken for square."""

log = logging.getLogger("facerecon_rt")


class VideoReader(Protocol):
    """Decodes one video file. Owns it until `close`."""

    fps: float
    """Frames per second, 0 where unknown."""
    size: tuple[int, int]
    """(width, height) of the upright frames, in pixels."""
    pixel_shape: float
    """Width of a pixel over its height, in the upright frames; 0 where unknown."""

    def __iter__(self) -> Iterator[tuple[Image, float]]:
        """Yield each upright frame that decodes, with its time in seconds since the first. Goes on behind what is
        damaged. Raises SourceError for a file whose frames cannot be trusted."""

    def missing(self, count: int) -> int:
        """How many frames are missing, as far as the file tells, after `count` have been read to its end."""

    def close(self) -> None:
        """Let the file go; iterating ends."""


class VideoSource:
    """A video file. Never drops a frame; frames are upright, and their pixels square: the file's rotation and the shape
    of its pixels are applied."""

    live = False
    still = False

    def __init__(self, path: Path) -> None:
        """Raises SourceError when the file is not a video that can be opened and decoded."""
        self.name = str(path)
        start = first_bytes(path)
        if not start:
            raise SourceError(f"{path} is empty; copy it again")
        # FFmpeg would draw a text file as a film of letters, and follow the addresses in a playlist; it looks for both
        # behind an ID3 tag too.
        if is_text(start):
            raise SourceError(f"{path} is a text file, not a video")
        if start.startswith(b"ID3"):
            raise SourceError(f"{path} is sound, not a video")
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
        """After reading: what of the file could not be read, in words; empty for nothing."""

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame that decodes. Raises SourceError when there is none, or when frames cannot be trusted;
        warns once when some are missing."""
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
        """Let the file go; iterating ends."""
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
    """Whether a file is called a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def open_reader(path: Path) -> VideoReader:
    """PyAV's reader where it is installed (extra `video`), else OpenCV's. Raises SourceError when neither can read the
    file."""
    try:
        from .video_av import AvReader
    except ImportError:
        from .video_cv import CvReader

        return CvReader(path)
    return AvReader(path)


def with_square_pixels(image: Image, shape: float) -> Image:
    """A picture whose pixels are `shape` times as wide as high -> the same with square ones, no smaller."""
    if shape == 1:
        return image
    height, width = image.shape[:2]
    size = (round(width * shape), height) if shape > 1 else (width, round(height / shape))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)

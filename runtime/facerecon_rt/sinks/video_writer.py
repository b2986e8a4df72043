"""Pictures -> an encoded video file, written by PyAV or by OpenCV."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import cv2

from ..quiet import quiet_opencv
from ..regular import encodable
from ..types import Image

CODECS = {".mp4": ("avc1", "mp4v"), ".mov": ("avc1", "mp4v"), ".mkv": ("avc1", "mp4v"), ".avi": ("XVID",)}
"""Codecs that OpenCV writes for each suffix, best first. H.264 comes first where OpenCV can encode it; its PyPI wheels
can only with a device's own encoder. Otherwise it writes MPEG-4 part 2, which desktop players know and browsers do
not."""
NAMES = {"avc1": "H.264", "mp4v": "MPEG-4 part 2, which browsers do not play", "XVID": "MPEG-4 part 2"}
ADVICE = "without sound; pip install 'facerecon-rt[video]' keeps the sound and writes H.264"


class VideoWriter(Protocol):
    """An encoder of one video. It owns its file until `close`."""

    codec: str
    """Description of the codec and the sound, for messages."""
    places: bool
    """Whether frames stand in the file at their time, also after missing numbers: nothing has to be repeated."""

    def write(self, picture: Image, number: int) -> None:
        """Append a picture (H, W, 3) uint8 BGR of the video's size as frame `number`; numbers rise. Raises OSError."""

    def mute(self) -> None:
        """Write no more sound."""

    def close(self) -> None:
        """Finish the file. Raises OSError when it is incomplete."""


def open_writer(path: Path, fps: float, size: tuple[int, int], sound_of: Path | None = None) -> VideoWriter | None:
    """Begin a video with a suffix of `CODECS`: with PyAV where it is installed (extra `video`), else with OpenCV.

    `size`: (width, height) in pixels, even. `sound_of`: a video whose sound is copied from frame 0 on, where the new
    file can hold it; only PyAV can do this. Returns None where there is no encoder for the video. Raises OSError.
    """
    try:
        from .video_writer_av import AvWriter
    except ImportError:
        return _CvWriter.open(path, fps, size)
    return AvWriter(path, fps, size, sound_of)


class _CvWriter:
    """A VideoWriter that uses OpenCV."""

    places = False

    def __init__(self, path: Path, writer: cv2.VideoWriter, codec: str) -> None:
        self.codec = codec
        self._path = path
        self._writer = writer
        self._written = 0

    @classmethod
    def open(cls, path: Path, fps: float, size: tuple[int, int]) -> _CvWriter | None:
        """Begin a video with the best codec available, or return None. Raises OSError."""
        for codec in CODECS[path.suffix.lower()]:
            with encodable(path) as name, quiet_opencv():
                writer = cv2.VideoWriter(name, cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, size)
            if writer.isOpened():
                return cls(path, writer, f"{NAMES[codec]}, {ADVICE}")
        return None

    def write(self, picture: Image, number: int) -> None:
        """Append a picture. It also fills the gap of missing frames before it."""
        while self._written <= number:
            self._writer.write(picture)
            self._written += 1

    def mute(self) -> None:
        """Do nothing: OpenCV writes no sound."""

    def close(self) -> None:
        """Finish the file. Raises OSError when it is incomplete, which is checked here because OpenCV reports no disk
        errors."""
        self._writer.release()
        if self._frame_count() < self._written - 2:
            raise OSError(f"the video is incomplete; check whether the disk is full, see {self._path}")

    def _frame_count(self) -> int:
        """Return the frame count in the finished file's header; 0 when it cannot be opened."""
        with encodable(self._path) as name, quiet_opencv():
            capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        return count

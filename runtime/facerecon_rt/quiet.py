"""The log output of OpenCV and FFmpeg -> silence. An error of this package reports a bad file once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import Any, TypeVar

import cv2

T = TypeVar("T")
SILENT = 0
"""Log level of OpenCV at which it writes nothing."""
FILE_FORMATS = (
    "mov", "matroska", "avi", "mpeg", "mpegts", "mpegvideo", "flv", "asf", "ogg", "gif", "dv", "mxf", "mjpeg",
    "jpeg_pipe", "ivf", "m4v", "h264", "hevc", "nut",
)  # fmt: skip
"""FFmpeg's names of the file formats that are read. None of them refers to other files, as playlists do."""
STREAM_FORMATS = ("rtsp", "sdp", "rtp", "hls", "mpjpeg", "image2", "png_pipe", "aac", "mp3", "webvtt", "live_flv")
"""FFmpeg's names of further formats that a stream may have."""
# OpenCV 4, which JetPack brings, has the same functions one module higher.
opencv_log: Any = getattr(cv2.utils, "logging", cv2)
# OpenCV reads FFmpeg's log level on the first use of a video in this process, whichever library uses it.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
_lock = threading.Lock()
_redirecting = threading.Lock()
_inside, _level = 0, 0
"""State of the log level, which the whole process shares. The first of several threads silences it, and the last one
restores it."""


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV and FFmpeg from writing to stderr about files and devices that cannot be opened.

    Importing this module sets FFmpeg's level for good, unless the user has set it. Only libpng still writes its line,
    past every log level.
    """
    global _inside, _level
    with _lock:
        if not _inside:
            _level = opencv_log.getLogLevel()
            opencv_log.setLogLevel(SILENT)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                opencv_log.setLogLevel(_level)


def silence_opencv() -> None:
    """Silence OpenCV in this process, unless the user has set OPENCV_LOG_LEVEL. This package reports streams that stall
    or break off itself."""
    if "OPENCV_LOG_LEVEL" not in os.environ:
        opencv_log.setLogLevel(SILENT)


def complains(call: Callable[[], T], about: bytes) -> tuple[T, bool]:
    """Return the result of `call`, and whether a line on standard error contained `about` meanwhile.

    Such lines are removed and all others passed on, because libjpeg reports an incomplete picture nowhere else. The
    second value is true where there is no standard error.
    """
    with _redirecting:
        try:
            stderr = os.dup(2)
        except OSError:
            return call(), True
        with TemporaryFile() as captured:
            try:
                os.dup2(captured.fileno(), 2)
                result = call()
            finally:
                os.dup2(stderr, 2)
                os.close(stderr)
            captured.seek(0)
            lines = captured.readlines()
    others = [line for line in lines if about not in line]
    os.write(2, b"".join(others))
    return result, len(others) < len(lines)


def set_capture_options() -> None:
    """Tell OpenCV what FFmpeg may open, before each capture. A variable that the user has set stays as it is."""
    # Over UDP, FFmpeg's default, a busy network damages pictures.
    formats = ",".join((*FILE_FORMATS, *STREAM_FORMATS))
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", f"rtsp_transport;tcp|format_whitelist;{formats}")

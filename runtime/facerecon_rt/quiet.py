"""OpenCV's and FFmpeg's chatter -> silence: what a bad file means is said once, by our own error."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import Any, TypeVar

import cv2

T = TypeVar("T")
SILENT, ERROR = 0, 2
"""Of OpenCV's log levels."""
FILE_FORMATS = (
    "mov", "matroska", "avi", "mpeg", "mpegts", "mpegvideo", "flv", "asf", "ogg", "gif", "dv", "mxf", "mjpeg",
    "jpeg_pipe", "ivf", "m4v", "h264", "hevc", "nut",
)  # fmt: skip
"""FFmpeg's names of the kinds of file that are read. None of them names other files, as playlists do."""
STREAM_FORMATS = ("rtsp", "sdp", "rtp", "hls", "mpjpeg", "image2", "png_pipe", "aac", "mp3", "webvtt", "live_flv")
"""Those that a stream may besides be of."""
# OpenCV 4, which JetPack brings, has the same functions one module higher.
opencv_log: Any = getattr(cv2.utils, "logging", cv2)
# FFmpeg's own log level, which OpenCV reads on the first use of a video in this program, whoever's that is.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
_lock = threading.Lock()
_redirecting = threading.Lock()
_inside, _level = 0, 0
"""The log level is the whole program's: the first of several threads silences, the last gives back what was."""


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV and FFmpeg from writing to stderr about files and devices that cannot be opened.

    FFmpeg's level is set for good when this module is imported, unless the user has set it. libpng alone still writes
    its line, past every log level.
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


def log_errors_only() -> None:
    """OpenCV's warnings, as of streams that stall, are said by us, as losses; unless the user has set its level."""
    if "OPENCV_LOG_LEVEL" not in os.environ:
        opencv_log.setLogLevel(ERROR)


def complains(call: Callable[[], T], about: bytes) -> tuple[T, bool]:
    """Return what `call` returns, and whether a line on standard error had `about` in it meanwhile. Such lines are kept
    from it, all others are handed on: libjpeg says nowhere else that a picture is not whole. True where there is no
    standard error."""
    with _redirecting:
        try:
            stderr = os.dup(2)
        except OSError:
            return call(), True
        with TemporaryFile() as said:
            try:
                os.dup2(said.fileno(), 2)
                result = call()
            finally:
                os.dup2(stderr, 2)
                os.close(stderr)
            said.seek(0)
            lines = said.readlines()
    others = [line for line in lines if about not in line]
    os.write(2, b"".join(others))
    return result, len(others) < len(lines)


def set_capture_options() -> None:
    """Tell OpenCV what FFmpeg may open; to be called before each capture. Whoever has set the variable knows better."""
    # Over UDP, FFmpeg's default, pictures of a busy network are torn.
    formats = ",".join((*FILE_FORMATS, *STREAM_FORMATS))
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", f"rtsp_transport;tcp|format_whitelist;{formats}")

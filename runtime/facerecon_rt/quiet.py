"""OpenCV's and FFmpeg's chatter -> silence: what a bad file means is said once, by our own error."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2

SILENT, ERROR = 0, 2
"""Of OpenCV's log levels."""
# OpenCV 4, which JetPack brings, has the same functions one module higher.
opencv_log: Any = getattr(cv2.utils, "logging", cv2)
# FFmpeg's own log level, which OpenCV reads on the first use of a video in this program, whoever's that is.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
_lock = threading.Lock()
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

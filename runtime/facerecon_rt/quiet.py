"""OpenCV's and FFmpeg's chatter -> silence: what a bad file means is said once, by our own error."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cv2.utils import logging as cv2_logging

_lock = threading.Lock()
_inside, _level = 0, 0
"""The log level is the whole program's: the first of several threads silences, the last gives back what was."""


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV and FFmpeg from writing to stderr about files and devices that cannot be opened.

    FFmpeg has its own log level, which OpenCV reads from the environment on the first use of a video in this program:
    it stays as it is where the user has set it. libpng alone still writes its line, past every log level.
    """
    global _inside, _level
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    with _lock:
        if not _inside:
            _level = cv2_logging.getLogLevel()
            cv2_logging.setLogLevel(cv2_logging.LOG_LEVEL_SILENT)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                cv2_logging.setLogLevel(_level)

"""OpenCV's and FFmpeg's chatter -> silence: what a bad file means is said once, by our own error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from cv2.utils import logging as cv2_logging


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV and FFmpeg from writing to stderr about files and devices that cannot be opened.

    FFmpeg has its own log level, which OpenCV reads from the environment on the first use of a video in this program:
    it stays as it is where the user has set it. libpng alone still writes its line, past every log level.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2_logging.getLogLevel()
    cv2_logging.setLogLevel(cv2_logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2_logging.setLogLevel(level)

"""Limits of files, pictures and frames, since a few bytes can demand gigabytes. They are checked before decoding."""

from __future__ import annotations

import os

MOST_PICTURE_PIXELS = 2**28
"""Maximum number of pixels in a photograph. No camera produces more than 268 million."""
MOST_PICTURE_BYTES = 2**29
"""Maximum size of a photograph's file, in bytes."""
MOST_FRAME_PIXELS = 2**26
"""Maximum number of pixels in a frame of a video or camera, twice that of 8K. FFmpeg itself refuses more than 2**28,
also within a stream."""
MOST_THREADS = 1024
"""Maximum number of threads of a network. ONNX Runtime starts all of them, which takes minutes for 100 000."""

# OpenCV reads this variable when it is loaded. A value that is set already stays in force, and so does an earlier load.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MOST_PICTURE_PIXELS))

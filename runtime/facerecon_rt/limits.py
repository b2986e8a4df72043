"""How large what is decoded may be: a few bytes can ask for gigabytes. Checked before anything is decoded."""

from __future__ import annotations

import os

MOST_PICTURE_PIXELS = 2**28
"""Of a photograph: 268 million, which no camera has."""
MOST_PICTURE_BYTES = 2**29
"""Of its file."""
MOST_FRAME_PIXELS = 2**26
"""Of a video's or camera's frame: twice that of 8K. FFmpeg itself refuses more than 2**28, also within a stream."""
MOST_THREADS = 1024
"""Maximum number of threads of a network. ONNX Runtime starts all of them, which takes minutes for 100 000."""

# OpenCV reads this when it is loaded. Whoever has set it, or has loaded OpenCV before, keeps what they have.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MOST_PICTURE_PIXELS))

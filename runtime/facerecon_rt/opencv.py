"""The check for OpenCV at import. It names the package to install, because this package brings no OpenCV of its own.

OpenCV has five wheels that overwrite each other, and none where the system provides it, so none is a dependency. After
one of two wheels is uninstalled, the rest can still be imported but does nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

WHEELS = (
    "opencv-python-headless",
    "opencv-python",
    "opencv-contrib-python-headless",
    "opencv-contrib-python",
    "opencv-python-rolling",
)
INSTALL = "pip install 'facerecon-rt[opencv]'"
NOT_THERE = 4
"""Exit code, the same as for a missing ONNX Runtime."""


def load_opencv() -> ModuleType:
    """Return the module cv2. Raises a one-line ImportError; a command of this package exits with that line instead."""
    try:
        import cv2
    except ImportError as error:
        why = "is not installed" if error.name == "cv2" else f"cannot be loaded ({error})"
    else:
        if hasattr(cv2, "imdecode"):
            return cv2
        why = "is incomplete, since one of its wheels was uninstalled"
    fix = f"pip uninstall -y {' '.join(WHEELS)} && {INSTALL}"
    if why == "is not installed":
        fix = INSTALL
    elif "numpy.core.multiarray" in why:
        fix = "it was built for numpy 1: pip install 'numpy<2'"
    message = f"OpenCV {why}; {fix}"
    if Path(sys.argv[0]).name.startswith("facerecon-"):
        print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)  # noqa: T201  no caller would print it
        sys.exit(NOT_THERE)
    raise ImportError(message, name="cv2")


load_opencv()

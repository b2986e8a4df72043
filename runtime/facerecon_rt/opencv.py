"""Finds OpenCV, or says which to install: this package brings none, for it must not overwrite one that is there.

It has five wheels, of which each overwrites the others, and none where a system brings it. Where one was taken away
again, what is left can be imported and does nothing.
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
"""Exit code, as of an ONNX Runtime that is not installed."""


def load_opencv() -> ModuleType:
    """The module cv2. Raises ImportError, in one line; in our own commands ends the program with that line."""
    try:
        import cv2
    except ImportError as error:
        why = "is not installed" if error.name == "cv2" else f"cannot be loaded ({error})"
    else:
        if hasattr(cv2, "imdecode"):
            return cv2
        why = "is what is left of one that was uninstalled"
    fix = f"pip uninstall -y {' '.join(WHEELS)} && {INSTALL}"
    if why == "is not installed":
        fix = INSTALL
    elif "numpy.core.multiarray" in why:
        fix = "it was built for numpy 1: pip install 'numpy<2'"
    said = f"OpenCV {why}; {fix}"
    if Path(sys.argv[0]).name.startswith("facerecon-"):
        print(f"{Path(sys.argv[0]).name}: {said}", file=sys.stderr)  # noqa: T201  nobody is there to print it for us
        sys.exit(NOT_THERE)
    raise ImportError(said, name="cv2")


load_opencv()

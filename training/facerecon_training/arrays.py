"""Files that `facerecon-train prepare` wrote -> arrays, or one line about the one that was damaged."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from facerecon_rt.errors import UsageError
from numpy.typing import NDArray

DAMAGED = (
    OSError, ValueError, LookupError, EOFError, TypeError, AttributeError, RecursionError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip
"""What the readers of archives, arrays and JSON raise at what was changed."""


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz file. Raises UsageError where it was damaged."""
    # Opened here: of a file that is no archive, np.load would leave its own open.
    with of_prepare(path), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays}


@contextmanager
def of_prepare(path: Path) -> Iterator[None]:
    """In the block the file is read. Raises UsageError where it was damaged."""
    try:
        yield
    except DAMAGED as error:
        raise UsageError(
            f"{path} cannot be read ({first_line(error)}); delete it and run `facerecon-train prepare` again"
        ) from error


def first_line(error: BaseException) -> str:
    """What an error of a library says, as far as it fits in one of ours."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__

"""Files that `facerecon-train` wrote or downloaded -> arrays, or a one-line error about a damaged file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from facerecon_rt.errors import DAMAGED_ARRAYS, UsageError, first_line
from numpy.typing import NDArray

PREPARE_AGAIN = "delete it and run `facerecon-train prepare` again"


def read_arrays(path: Path, remedy: str = PREPARE_AGAIN) -> dict[str, NDArray[Any]]:
    """Return all arrays of an .npz file. Raises UsageError, which ends with the remedy, for a damaged file."""
    # The file is opened here, because np.load would leave its own handle open for a file that is not an archive.
    with readable(path, remedy), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays}


@contextmanager
def readable(path: Path, remedy: str = PREPARE_AGAIN) -> Iterator[None]:
    """Turn errors of a damaged file, which the block reads, into UsageError with the remedy."""
    try:
        yield
    except DAMAGED_ARRAYS as error:
        raise UsageError(f"{path} cannot be read ({first_line(error)}); {remedy}") from error

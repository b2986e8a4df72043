"""Arrays of `facerecon-train` -> files and back, or a one-line error about a full disk or a damaged file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from facerecon_rt.errors import DAMAGED_ARRAYS, UsageError, first_line
from facerecon_rt.sinks.outputs import cannot_write, whole
from numpy.typing import ArrayLike, NDArray

NO_RESERVATION = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""Error numbers of file systems that cannot take space in advance."""
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


def save_arrays(path: Path, **arrays: ArrayLike) -> None:
    """Write an .npz file completely or not at all. Raises UsageError for an error of the disk."""
    with whole(path) as partial:
        try:
            np.savez(partial, allow_pickle=False, **arrays)
        except OSError as error:
            raise cannot_write(path, error) from error


def new_pictures(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Return a new .npy file of pictures of this shape, uint8, mapped into memory.

    Its space on the disk is taken at once, where the file system can do so: on a full disk, writing into a mapped file
    would end the process. Raises UsageError where the space is not there.
    """
    try:
        pictures: np.memmap[Any, np.dtype[np.uint8]] = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in NO_RESERVATION:
                    raise
    except OSError as error:
        path.unlink(missing_ok=True)
        raise cannot_write(path, error) from error
    return pictures

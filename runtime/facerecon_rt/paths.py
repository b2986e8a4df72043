"""Path -> what is there, or one line about why that cannot be said. Standard library only.

`Path.exists` and its like raise where a folder may not be entered or a name is too long, and reading waits for ever on
a pipe and never ends on a device.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from .errors import one_line


def status(path: str | Path) -> os.stat_result | None:
    """Of what the path leads to; None where there is nothing. Raises OSError where that cannot be known: no permission,
    a name that is too long, links in a circle."""
    try:
        return os.stat(path)  # noqa: PTH116  Path.stat is the same
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:  # a zero byte, or a character that no name can hold
        raise OSError(errno.EINVAL, f"no file has such a name ({error})") from error


def exists(path: str | Path) -> bool:
    """False also where it cannot be known."""
    return _kind(path) != 0


def is_folder(path: str | Path) -> bool:
    """False also where it cannot be known."""
    return stat.S_ISDIR(_kind(path))


def is_file(path: str | Path) -> bool:
    """A regular file: no pipe, no device. False also where it cannot be known."""
    return stat.S_ISREG(_kind(path))


def _kind(path: str | Path) -> int:
    try:
        found = status(path)
    except OSError:
        return 0
    return 0 if found is None else found.st_mode


def read_file(path: str | Path, most: int) -> bytes:
    """The whole of a regular file, once. Raises OSError where it cannot be read, is a pipe or a device, or holds more
    than `most` bytes."""
    try:
        # Not to wait for whoever would write into a pipe.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        raise OSError(errno.EINVAL, f"no file has such a name ({error})") from error
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is a pipe or a device, no file", str(path))
        data = file.read(most + 1) if found.st_size <= most else b""
        if found.st_size > most or len(data) > most:
            raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
        return data


def resolved(path: str | Path) -> Path:
    """Absolute, without links as far as they can be followed."""
    return Path(os.path.realpath(path))


def is_text(name: str) -> bool:
    """Can it be written as UTF-8? A name of a file may be any bytes, and those that are not have stand-ins in Python,
    which end a program in libraries that do not look (OpenCV)."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def said_of(error: OSError) -> str:
    """The file and what is wrong with it, as one line."""
    why = error.strerror or str(error) or type(error).__name__
    return one_line(f"{error.filename}: {why}" if error.filename else why)

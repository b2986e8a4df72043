"""A path -> what exists there, or a one-line reason why that is unknown. Standard library only.

`Path.exists` and similar methods raise for a folder that may not be entered and for a name that is too long. Reading
waits for ever on a pipe, and never ends on a device.
"""

from __future__ import annotations

import errno
import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from .errors import one_line


def status(path: str | Path) -> os.stat_result | None:
    """Return the status of the path's target; None where nothing exists. Raises OSError where that is unknown: no
    permission, a name that is too long, a circle of links."""
    try:
        return os.stat(path)  # noqa: PTH116  Path.stat is the same
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:  # a zero byte, or a character that names cannot hold
        raise OSError(errno.EINVAL, f"the name is invalid ({error})") from error


def exists(path: str | Path) -> bool:
    """Return whether the path exists; False also where that is unknown."""
    return _kind(path) != 0


def is_folder(path: str | Path) -> bool:
    """Return whether the path is a folder; False also where that is unknown."""
    return stat.S_ISDIR(_kind(path))


def is_file(path: str | Path) -> bool:
    """Return whether the path is a regular file, not a pipe or device; False also where that is unknown."""
    return stat.S_ISREG(_kind(path))


def _kind(path: str | Path) -> int:
    try:
        found = status(path)
    except OSError:
        return 0
    return 0 if found is None else found.st_mode


def read_file(path: str | Path, most: int) -> bytes:
    """Read a regular file whole. Raises OSError where it cannot be read, is a pipe or device, or holds more than `most`
    bytes."""
    try:
        # The flag keeps a pipe from blocking until somebody writes to it.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        raise OSError(errno.EINVAL, f"the name is invalid ({error})") from error
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
        data = file.read(most + 1) if found.st_size <= most else b""
        if found.st_size > most or len(data) > most:
            raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
        return data


def resolved(path: str | Path) -> Path:
    """Return the absolute path, without links as far as they can be followed."""
    return Path(os.path.realpath(path))


def is_utf8(name: str) -> bool:
    """Return whether a text can be written as UTF-8.

    The name of a file may hold any bytes. Python represents bytes outside of UTF-8 by surrogates, which crash libraries
    that do not check for them (OpenCV).
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def file_and_reason(error: OSError) -> str:
    """Return the file of an error and the reason on one line."""
    why = error.strerror or str(error) or type(error).__name__
    return one_line(f"{error.filename}: {why}" if error.filename else why)


def matches(pattern: str) -> Iterator[str]:
    """Yield the paths that match a pattern of `glob`; `**` stands for any folders below.

    Each folder is entered once. `glob.glob` enters links to a parent folder again and again, and two such links in one
    folder keep it busy for ever.
    """
    parts = Path(pattern).parts
    if "**" not in parts:
        yield from glob.iglob(pattern)  # noqa: PTH207  Path.glob does not accept absolute patterns
        return
    at = parts.index("**")
    rest = parts[at + 1 :] or ("*",)
    roots = glob.iglob(os.path.join(*parts[:at])) if at else [""]  # noqa: PTH118, PTH207
    for root in roots:
        for folder in _folders_below(root):
            yield from matches(os.path.join(glob.escape(folder), *rest))  # noqa: PTH118


def _folders_below(root: str) -> Iterator[str]:
    """Yield a folder and all folders below, those with the shortest paths first. Hidden ones are left out, as by
    `glob`."""
    coming, seen = [root], set()
    for folder in coming:
        place = os.path.realpath(folder)
        if place in seen or not os.path.isdir(folder or os.curdir):  # noqa: PTH112
            continue
        seen.add(place)
        yield folder
        try:
            names = sorted(os.listdir(folder or os.curdir))  # noqa: PTH208
        except OSError:
            continue  # it may not be read
        coming += [os.path.join(folder, name) for name in names if not name.startswith(".")]  # noqa: PTH118

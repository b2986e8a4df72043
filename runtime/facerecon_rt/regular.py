"""The name of a file -> the open file, if reading it ends, and a name that libraries accept."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from .addresses import public_name
from .errors import SourceError
from .paths import is_utf8

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
_SURROGATE = re.compile("[\ud800-\udfff]")
# These first bytes belong to binary files although they are letters.
_LETTERS_FIRST = (b"RIFF", b"RIFX", b"OggS", b"GIF8", b"FLV", b"DKIF")


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading. Raises SourceError when it cannot be opened, or is a pipe, device, socket or
    folder, since reading those may never end."""
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
        if kind != stat.S_IFREG:
            what = _KINDS.get(kind, "a special file")
            raise SourceError(f"{path} is {what}, not a regular file; save its content to a file, and give that")
        # The flag keeps a pipe that has replaced the file meanwhile from blocking.
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error


def first_bytes(path: Path, count: int = 4096) -> bytes:
    """Read the beginning of a file. Raises SourceError as `open_regular` does, and when the disk fails."""
    with open_regular(path) as file:
        try:
            return file.read(count)
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}") from error


def begins_as_text(start: bytes) -> bool:
    """Return whether a file with these first bytes is a text, possibly with a few invalid bytes."""
    head = start[:8]
    if head and not head.startswith(_LETTERS_FIRST) and all(byte in b"\t\n\f\r" or 32 <= byte < 127 for byte in head):
        return True
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        # The last character may be cut in two.
        return b"\0" not in start and error.start > len(start) - 4 and len(start) > 4
    return b"\0" not in start


@contextmanager
def encodable(path: Path) -> Iterator[str]:
    """Yield an absolute name for the file that OpenCV accepts, while the context is open.

    A name that is not UTF-8 crashes OpenCV, so such a file gets a link with another name. Raises OSError when the link
    cannot be made.
    """
    name = str(path.absolute())
    if is_utf8(name):
        yield name
        return
    with TemporaryDirectory(prefix="facerecon-rt-") as folder:
        link = Path(folder) / f"file{path.suffix if is_utf8(path.suffix) else ''}"
        link.symlink_to(path.absolute())
        yield str(link)


def shown(name: str) -> str:
    """Return a name for JSON, pages and tables. Bytes outside of UTF-8 are escaped, as in `vid\\xe9o.mp4`."""

    def escaped(found: re.Match[str]) -> str:
        code = ord(found[0])
        return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"

    return _SURROGATE.sub(escaped, name)


@lru_cache(1024)
def source_name(source: str) -> str:
    """Return a frame's source as records, topics and pages name it: in its public form, and in UTF-8."""
    return shown(public_name(source))

"""A file's name -> the file, open, if reading it ends; and the name as libraries can take it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from .errors import SourceError

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
_SURROGATE = re.compile("[\ud800-\udfff]")
# First bytes of files that are no text although they begin with letters.
_LETTERS_FIRST = (b"RIFF", b"RIFX", b"OggS", b"GIF8", b"FLV", b"DKIF")


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading. Raises SourceError when it cannot be opened, or is a pipe, device, socket or folder:
    reading those may never end."""
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
        if kind != stat.S_IFREG:
            what = _KINDS.get(kind, "no file")
            raise SourceError(f"{path} is {what}, not a file; save what it gives to a file, and name that")
        # If a pipe has taken the file's place meanwhile, opening it does not wait for somebody to write.
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


def is_text(start: bytes) -> bool:
    """Whether a file that begins so is a text, be it with some odd bytes in it."""
    head = start[:8]
    if head and not head.startswith(_LETTERS_FIRST) and all(byte in b"\t\n\f\r" or 32 <= byte < 127 for byte in head):
        return True
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        # A character may have been cut in two at the end.
        return b"\0" not in start and error.start > len(start) - 4 and len(start) > 4
    return b"\0" not in start


@contextmanager
def encodable(path: Path) -> Iterator[str]:
    """An absolute name for the file that OpenCV can take while the context is open. A name that is not UTF-8 ends the
    program there, so that such a file gets a link with another name. Raises OSError when that cannot be made."""
    name = str(path.absolute())
    if is_encodable(name):
        yield name
        return
    with TemporaryDirectory(prefix="facerecon-rt-") as folder:
        link = Path(folder) / f"file{path.suffix if is_encodable(path.suffix) else ''}"
        link.symlink_to(path.absolute())
        yield str(link)


def is_encodable(name: str) -> bool:
    """Whether a name can be written as UTF-8: Linux allows any bytes in the name of a file, and Python stands
    surrogates for those that are not UTF-8."""
    return _SURROGATE.search(name) is None


def shown(name: str) -> str:
    """A name as JSON, pages and tables can hold it: what is not UTF-8 is written as in `vid\\xe9o.mp4`."""

    def escaped(found: re.Match[str]) -> str:
        code = ord(found[0])
        return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"

    return _SURROGATE.sub(escaped, name)

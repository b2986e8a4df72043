"""Bytes -> files that are whole or not there, under names that never hit an input."""

from __future__ import annotations

import fcntl
import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from ..errors import UsageError
from ..paths import is_folder, resolved, status

LONGEST_STEM = 120
"""Bytes of an output's name that are kept in the name of its partial file: names end at 255."""


class Partial:
    """A file that grows beside its place, hidden and with the same suffix, until it is whole.

    Its name cannot be foreseen, and nothing that lies there already is opened: in a folder that others may write to, a
    link that waits under the name would lead elsewhere. A context manager; what is not finished is removed.
    """

    def __init__(self, place: Path) -> None:
        """`place`: the name that the file gets once it is whole. Raises UsageError where it cannot be made."""
        self.place = place
        stem, suffix = _hidden(place)
        self.path = place.with_name(f"{stem}.{secrets.token_hex(8)}.partial{suffix}")
        """Where it grows, for libraries that write by name."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self.file: IO[bytes] = os.fdopen(os.open(self.path, flags, 0o666), "w+b")
        except OSError as error:
            raise cannot_write(place, error) from error
        # As long as it is open here, others know that it is not abandoned. A disk that has no locks has no others.
        with suppress(OSError):
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.discard()

    def finish(self) -> None:
        """Give the file its name. Raises UsageError on any error of the disk."""
        try:
            self.file.close()
            self.path.replace(self.place)
        except OSError as error:
            raise cannot_write(self.place, error) from error

    def leave(self) -> None:
        """Let it lie under its hidden name, for whoever wants to look at it, until the output is written again."""
        with suppress(OSError):  # a buffer that does not fit on the disk
            self.file.close()

    def discard(self) -> None:
        """Remove it, if it has no name yet."""
        self.leave()
        with suppress(OSError):  # what went wrong before is what is to be said
            self.path.unlink()


def _hidden(place: Path) -> tuple[str, str]:
    """How the names of its partial files begin, and how they end."""
    stem = os.fsdecode(os.fsencode(f".{place.stem}")[:LONGEST_STEM])
    return stem, place.suffix


def remove_abandoned(place: Path) -> None:
    """Partial files of this output that an earlier run, killed, has left: those that no program has open."""
    stem, suffix = _hidden(place)
    for path in place.parent.glob(f"{glob.escape(stem)}.*.partial{glob.escape(suffix)}"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(descriptor)


@contextmanager
def whole(place: Path) -> Iterator[Path]:
    """Where a library may write a file by name; it gets its own name afterwards, unless something was raised. Raises
    UsageError."""
    with Partial(place) as partial:
        yield partial.path
        partial.finish()


def check_place(path: Path) -> None:
    """Raises UsageError when a file of this name could not be: it is a folder, or its folder is missing."""
    try:
        status(path)  # a name that cannot be, a folder that may not be entered
    except OSError as error:
        raise cannot_write(path, error) from error
    if is_folder(path):
        raise UsageError(f"cannot write {path}: it is a folder")
    if not is_folder(path.parent):
        raise UsageError(f"cannot write {path}: there is no folder {path.parent}; create it first")


def check_writable(path: Path) -> None:
    """Find out before any work whether the file can be written. Raises UsageError."""
    check_place(path)
    Partial(path).discard()


def make_folder(folder: Path) -> None:
    """Make a folder for outputs, and those above it; one that is there will do. Raises UsageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def write_whole(path: Path, data: bytes) -> None:
    """Write the file so that it is never seen half written. Raises UsageError on any error of the disk."""
    with Partial(path) as partial:
        try:
            partial.file.write(data)
        except OSError as error:
            raise cannot_write(path, error) from error
        partial.finish()


def cannot_write(path: Path | str, error: OSError) -> UsageError:
    """The one line that says which file and why."""
    return UsageError(f"cannot write {path}: {error.strerror or error}")


def numbered(path: Path, number: int) -> Path:
    """The name of one of several outputs: `out_0001.jpg` for `out.jpg`."""
    return path.with_name(f"{path.stem}_{number:04d}{path.suffix}")


@dataclass(frozen=True, slots=True)
class Rotation:
    """Outputs that go on in a new file: cameras may run for months."""

    megabytes: int
    """Size from which a file is set aside and a new one begun; of videos, also one that an earlier run made."""
    keep: int | None = None
    """Files that are kept besides the newest, the oldest being removed; None: all."""

    def due(self, size: int) -> bool:
        """Is a file of so many bytes full?"""
        return size >= self.megabytes * 10**6

    def set_aside(self, path: Path) -> None:
        """Give the file the next number, as in `records_0003.jsonl`. Raises UsageError."""
        older = sorted(
            (int(digits), one)
            for one in path.parent.glob(f"{glob.escape(path.stem)}_[0-9]*{glob.escape(path.suffix)}")
            if (digits := one.stem.rpartition("_")[2]).isdecimal() and one == numbered(path, int(digits))
        )
        try:
            path.rename(numbered(path, older[-1][0] + 1 if older else 1))
            if self.keep is not None:
                for _, one in older[: max(0, len(older) + 1 - self.keep)]:
                    one.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error


class OutputNames:
    """`out.jpg` while there is one; `out_0001.jpg`, `out_0002.jpg` and so on when there are more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0
        self._inputs: set[Path] = set()

    def next_for(self, source: str) -> Path:
        """Where the next file made from this source goes. Raises UsageError when that is where a source was read."""
        self._inputs.add(source_path(source))
        self._count += 1
        if self._count == 1:
            return self._free(self._path)
        if self._count == 2:
            first = self._free(numbered(self._path, 1))
            try:
                self._path.replace(first)
            except OSError as error:
                raise cannot_write(first, error) from error
        return self._free(numbered(self._path, self._count))

    def _free(self, path: Path) -> Path:
        if resolved(path) in self._inputs:
            raise UsageError(f"{path} is an input and would be overwritten; choose another name")
        return path


def source_path(source: str) -> Path:
    """A frame's source as a resolved path, whether or not it is a file."""
    return resolved(source)

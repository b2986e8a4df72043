"""Bytes -> files that are whole or not there, under names that never hit an input."""

from __future__ import annotations

import glob
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import UsageError
from .paths import is_folder, resolved, status


def partial_path(path: Path) -> Path:
    """Where the file grows until it is whole: beside it, hidden, with the same suffix."""
    return path.with_name(f".{path.stem}.partial{path.suffix}")


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
    try:
        partial_path(path).write_bytes(b"")
        partial_path(path).unlink()
    except OSError as error:
        raise cannot_write(path, error) from error


def make_folder(folder: Path) -> None:
    """Make a folder for outputs, and those above it; one that is there will do. Raises UsageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def write_whole(path: Path, data: bytes) -> None:
    """Write the file so that it is never seen half written. Raises UsageError on any error of the disk."""
    partial = partial_path(path)
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        # Still there after an error or an interruption only; what went wrong before is what is to be said.
        with suppress(OSError):
            partial.unlink()


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

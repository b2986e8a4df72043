"""Bytes -> complete files, under names that never overwrite an input."""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from ..errors import UsageError
from ..paths import exists, is_folder, read_file, resolved, status

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""Error numbers of file systems without locks."""
NUMBER = re.compile("[0-9]{1,9}")
"""A number of a file. Longer ones are dates with a time, which somebody else has written."""
MOST_REPORT_BYTES = 2**30
LONGEST_STEM = 120
"""Number of bytes of an output's name that its partial file keeps. File names end at 255 bytes."""


class Partial:
    """A file that grows beside its destination under a hidden name with the same suffix, until it is complete.

    The name is random, and an existing file is never opened. In a folder that others may write to, a link prepared
    under a known name would lead elsewhere. A context manager; an unfinished file is removed.
    """

    def __init__(self, place: Path) -> None:
        """Create the hidden file. Raises UsageError where it cannot be created.

        `place`: the name that the file gets once it is complete.
        """
        self.place = place
        stem, suffix = _hidden(place)
        self.path = place.with_name(f"{stem}.{secrets.token_hex(8)}.partial{suffix}")
        """Path of the growing file, for libraries that write by name."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self.file: IO[bytes] = os.fdopen(os.open(self.path, flags, 0o666), "w+b")
        except OSError as error:
            raise cannot_write(place, error) from error
        # The lock shows other runs that the file is in use. On a disk without locks there is no such check.
        with suppress(OSError):
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.discard()

    def finish(self) -> None:
        """Give the file its final name. Raises UsageError on any error of the disk."""
        try:
            self.file.close()
            self.path.replace(self.place)
        except OSError as error:
            raise cannot_write(self.place, error) from error

    def leave(self) -> None:
        """Close the file and keep it under its hidden name for inspection, until the output is written again."""
        with suppress(OSError):  # the remaining buffer may not fit on the disk
            self.file.close()

    def discard(self) -> None:
        """Remove the file, unless it has its final name."""
        self.leave()
        with suppress(OSError):  # the earlier error is the one to report
            self.path.unlink()


def _hidden(place: Path) -> tuple[str, str]:
    """Return the beginning and the end of the names of an output's partial files."""
    stem = os.fsdecode(os.fsencode(f".{place.stem}")[:LONGEST_STEM])
    return stem, place.suffix


def remove_abandoned(place: Path) -> None:
    """Remove partial files of this output that a killed run has left: those that no program has open."""
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
    """Yield a path for a library that writes by name. The file gets its final name afterwards, unless an error was
    raised. Raises UsageError."""
    with Partial(place) as partial:
        yield partial.path
        partial.finish()


def is_folder_name(target: str) -> bool:
    """Return whether the path of an output is that of a folder, which may not exist yet: it ends in "/" or has no
    suffix."""
    return is_folder(target) or target.endswith("/") or not Path(target).suffix


def is_regular(file: IO[str]) -> bool:
    """Return whether an open file is a regular one, not a pipe or device, which cannot be cut or rotated."""
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def only_writer_of(file: IO[str], path: Path) -> None:
    """Lock a file that grows in place until it is closed, so that no two runs or outputs write it. Pipes and devices
    stay open to all. Raises UsageError where somebody else writes it, and OSError."""
    if not is_regular(file):
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"cannot write {path}: another program or output writes it; choose another name") from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


def check_place(path: Path) -> None:
    """Raise UsageError when the path cannot be a file: it is a folder, or its folder does not exist."""
    try:
        status(path)  # fails for an invalid name and for a folder that may not be entered
    except OSError as error:
        raise cannot_write(path, error) from error
    if is_folder(path):
        raise UsageError(f"cannot write {path}: it is a folder; give a file")
    if not is_folder(path.parent):
        raise UsageError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")


def check_writable(path: Path) -> None:
    """Check before any work whether the file can be written. Raises UsageError."""
    check_place(path)
    Partial(path).discard()


def check_no_input(path: Path, inputs: Collection[Path]) -> None:
    """Check that an output is none of the resolved paths of inputs, which it would overwrite. Raises UsageError."""
    if resolved(path) in inputs:
        raise UsageError(f"{path} is an input and would be overwritten; choose another name")


def make_folder(folder: Path) -> None:
    """Make a folder for outputs and its parents. An existing folder is fine. Raises UsageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that nobody sees it incomplete. Raises UsageError on any error of the disk."""
    with Partial(path) as partial:
        try:
            partial.file.write(data)
        except OSError as error:
            raise cannot_write(path, error) from error
        partial.finish()


def check_replaces(path: Path, is_own: Callable[[object], bool], what: str, option: str) -> None:
    """Check that a JSON file is replaced only by a file of the same program.

    `is_own`: whether the JSON value of the file is `what`. Raises UsageError for any other file at `path`, which names
    the `option` that gives its folder.
    """
    try:
        own = is_own(json.loads(read_file(path, MOST_REPORT_BYTES)))
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError, RecursionError):
        own = False
    if not own:
        raise UsageError(f"{path} is not {what} and would be overwritten; give another folder with {option}")


def cannot_write(path: Path | str, error: OSError) -> UsageError:
    """Return the error that names the file and the reason."""
    return UsageError(f"cannot write {path}: {error.strerror or error}")


def numbered(path: Path, number: int) -> Path:
    """Return the name of one of several outputs, for example `out_0001.jpg` for `out.jpg`."""
    return path.with_name(f"{path.stem}_{number:04d}{path.suffix}")


@dataclass(frozen=True, slots=True)
class Rotation:
    """Rule for continuing an output in a new file, since cameras may run for months."""

    megabytes: int
    """Size in megabytes at which a file gets a number and a new one begins. For videos, a file of an earlier run gets a
    number too."""
    keep: int | None = None
    """Number of files to keep besides the newest; the oldest are removed. None keeps all."""

    def due(self, size: int) -> bool:
        """Return whether a file of `size` bytes is full."""
        return size >= self.megabytes * 10**6

    def set_aside(self, path: Path, successor: Path | None = None) -> None:
        """Rename the file to the next number, for example `records_0003.jsonl`. Raises UsageError.

        With `keep`, a hidden file (`.records.jsonl.rotated`) lists the numbers of the files that were set aside, one
        per line. Only these files are counted and removed: a name such as `records_2024.jsonl` may be somebody else's.

        `successor`: a file that takes the name. No other program finds the name free in between.
        """
        listing = path.with_name(f".{os.fsdecode(os.fsencode(path.name)[:LONGEST_STEM])}.rotated")
        listed = _read_numbers(listing)
        number = max([0, *listed, *_numbers_of(path)]) + 1
        try:
            if successor is None:
                path.rename(numbered(path, number))
            else:
                _succeed(path, numbered(path, number), successor)
            if self.keep is not None:
                kept = [one for one in [*listed, number] if exists(numbered(path, one))]
                while len(kept) > self.keep:
                    numbered(path, kept.pop(0)).unlink(missing_ok=True)
                # The newest number stays in the list, so that it is not used twice where files are moved away.
                write_whole(listing, "".join(f"{one}\n" for one in sorted({*kept, number})).encode())
        except OSError as error:
            raise cannot_write(path, error) from error


def _numbers_of(path: Path) -> list[int]:
    """Return the numbers of the files that are named like `numbered(path, number)`."""
    names = path.parent.glob(f"{glob.escape(path.stem)}_[0-9]*{glob.escape(path.suffix)}")
    return [
        int(digits)
        for one in names
        if NUMBER.fullmatch(digits := one.stem.rpartition("_")[2]) and one == numbered(path, int(digits))
    ]


def _read_numbers(listing: Path) -> list[int]:
    """Return the numbers of the files that were set aside, in ascending order; none where there is no list."""
    try:
        lines = listing.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []
    return sorted({int(line) for line in lines if NUMBER.fullmatch(line)})


def _succeed(path: Path, aside: Path, successor: Path) -> None:
    """Give a file the name `aside`, and its own name to its successor. Raises OSError."""
    try:
        os.link(path, aside, follow_symlinks=False)
    except OSError:  # such as a memory card, which has no hard links; the name is free for a moment there
        path.rename(aside)
    successor.replace(path)


class OutputNames:
    """Names for outputs: `out.jpg` for a single one; `out_0001.jpg`, `out_0002.jpg` and so on for several."""

    def __init__(
        self,
        path: Path,
        move: Callable[[Path, Path], object] = Path.replace,
        beside: Callable[[Path], Sequence[Path]] = lambda path: (),
    ) -> None:
        """Start with the name `path`.

        `move`: function that renames the first file when there is a second one. `beside`: function that returns the
        paths of the files that are written beside a file.
        """
        self._path = path
        self._move = move
        self._beside = beside
        self._count = 0
        self._inputs: set[Path] = set()

    def next_for(self, source: str) -> Path:
        """Return the path of the next file made from this source. Raises UsageError when a source was read from
        there."""
        self._inputs.add(source_path(source))
        self._count += 1
        if self._count == 1:
            return self._free(self._path)
        if self._count == 2:
            first = self._free(numbered(self._path, 1))
            try:
                self._move(self._path, first)
            except OSError as error:
                raise cannot_write(first, error) from error
        return self._free(numbered(self._path, self._count))

    def _free(self, path: Path) -> Path:
        for one in (path, *self._beside(path)):
            check_no_input(one, self._inputs)
        return path


def source_path(source: str) -> Path:
    """Return a frame's source as a resolved path, whether or not it is a file."""
    return resolved(source)

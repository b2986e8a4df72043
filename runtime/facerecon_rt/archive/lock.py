"""A folder -> a lock, so that only one program writes an archive into it."""

from __future__ import annotations

import fcntl
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from ..errors import UsageError
from ..sinks.outputs import NO_LOCKS, cannot_write, make_folder

log = logging.getLogger("facerecon_rt")
LOCK = "_lock"


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Make the folder, and keep every other program from writing an archive into it during the block.

    The lock works on this machine, and on others as far as the file system shares locks. Raises UsageError where
    another program holds the lock, or where the folder cannot be made.
    """
    new = not folder.exists()
    make_folder(folder)
    path = folder / LOCK
    with ExitStack() as held:
        try:
            file = held.enter_context(_locked(path))
        except BlockingIOError:
            raise UsageError(
                f"another program ({_first_line(path) or 'without a name'}) writes into {folder}; wait until it ends, "
                "or give another --output"
            ) from None
        except OSError as error:
            raise cannot_write(path, error) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            if new:
                with suppress(OSError):  # the folder holds the archive
                    folder.rmdir()


@contextmanager
def _locked(path: Path) -> Iterator[IO[str]]:
    """Open and lock a file. Raises BlockingIOError where another program holds the lock, and OSError."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                log.warning(
                    "%s: this file system has no locks; make sure that no other program writes there", path.parent
                )
            # The holder of a lock removes the file. A lock on a removed file keeps nobody out, so it is opened again.
            if _is_at(file, path):
                yield file
                return


def _is_at(file: IO[str], path: Path) -> bool:
    """Return whether an open file is the file at this path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _first_line(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    return ""

"""A TensorRT engine -> a private folder that keeps it, so that it is built once per model and machine.

An engine is machine code that fits only one model, one GPU and one TensorRT version. An entry is therefore named after
everything it depends on, lies in a folder that only its owner may enter, and holds a list of its files' hashes. An
entry that does not match its list is set aside and built again. Where nothing can be kept, engines are built each time,
with a warning.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from ..errors import ProviderMissing
from ..paths import exists, is_folder, read_file

T = TypeVar("T")
log = logging.getLogger("facerecon_rt")

ABOUT = "about.json"
LEAST_FREE_BYTES = 256 * 2**20
"""Free disk space that keeping engines requires, in bytes. A full disk would cut files short."""
MOST_ABOUT_BYTES, MOST_ENGINE_BYTES = 2**20, 2**30
"""Maximum size in bytes of the list, and of a file on it. Engines of this project have about ten million bytes."""
HEARTBEAT_S = 10.0
NAME_LENGTH = 32

Key = Mapping[str, str]
"""Everything that an engine depends on: model, precision, shapes, versions, GPU."""


def default_root() -> Path:
    """Return this user's folder for engines. Without a home directory, as in containers, the path does not exist,
    because a folder for temporary files is not safe from other users."""
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        caches = Path("/nonexistent")
    return caches / "facerecon-rt" / "engines"


def entry_name(key: Key) -> str:
    """Return the name of the folder for these engines, below the root."""
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:NAME_LENGTH]


def is_kept(root: Path, key: Key) -> bool:
    """Return whether a usable entry exists. Changes nothing."""
    return is_folder(root) and fault(root / entry_name(key), key) == ""


def open_with_engine(root: Path, key: Key, what: str, open_in: Callable[[Path | None], T]) -> T:
    """Return what `open_in` opens with the entry of `key`. The entry is built if it does not exist.

    `open_in` gets a folder with engines to read, an empty folder to store engines in, or None to keep nothing. It is
    called a second time when it fails with stored engines. `what` names the model in messages.
    """
    try:
        make_private(root)
        free = shutil.disk_usage(root).free
        if free < LEAST_FREE_BYTES:
            raise OSError(f"only {free / 2**20:.0f} MB are free, {LEAST_FREE_BYTES / 2**20:.0f} MB are needed")
        with locked(root / f"{entry_name(key)}.lock", what):
            return _open_locked(root, key, what, open_in)
    except UnkeptError as error:
        log.warning("%s; engines are rebuilt at each start", error)
    except OSError as error:
        log.warning("engines are not kept in %s (%s); they are rebuilt at each start", root, error.strerror or error)
    with heartbeat(f"building a TensorRT engine of {what}"):
        return open_in(None)


def private_entry(root: Path, key: Key) -> Path | None:
    """Return a private folder for a provider that keeps its engines by itself and writes them when a session ends. It
    has no list of its files. Returns None, with a warning, where the folder cannot be made."""
    try:
        make_private(root)
        make_private(root / entry_name(key))
    except (UnkeptError, OSError) as error:
        log.warning("%s; engines are rebuilt at each start", error)
        return None
    return root / entry_name(key)


class UnkeptError(Exception):
    """The reason why engines cannot be kept."""


def _open_locked(root: Path, key: Key, what: str, open_in: Callable[[Path | None], T]) -> T:
    entry = root / entry_name(key)
    wrong = fault(entry, key)
    if not wrong:
        try:
            return open_in(entry)
        except ProviderMissing as error:  # the second attempt raises again unless the engine was at fault
            wrong = f"it does not load ({' '.join(str(error).split())[:100]})"
    if os.path.lexists(entry):
        log.warning("the engine of %s in %s is set aside: %s", what, entry, wrong)
        set_aside(entry)
    for cut_short in root.glob(f"{entry.name}.building-*"):
        remove(cut_short)  # its builder was killed, since this process holds the lock
    building = Path(tempfile.mkdtemp(prefix=f"{entry.name}.building-", dir=root))
    try:
        with heartbeat(f"building a TensorRT engine of {what}, kept in {root}"):
            opened = open_in(building)
        try:
            seal(building, key)
            building.rename(entry)
        except OSError as error:
            log.warning(
                "the engine of %s is not kept (%s); it is rebuilt at the next start", what, error.strerror or error
            )
        return opened
    finally:
        shutil.rmtree(building, ignore_errors=True)


def make_private(folder: Path) -> None:
    """Make a folder that only its owner may enter, or check an existing one. Raises UnkeptError, OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    wrong = _not_private(folder)
    if wrong:
        raise UnkeptError(f"{folder} {wrong}")


def _not_private(path: Path) -> str:
    """Return the reason why others might have written to a path; "" if they cannot."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return "is a link"
    if status.st_uid != os.geteuid():
        return "belongs to another user"
    if status.st_mode & 0o022:
        return "is writable by others (chmod 700)"
    return ""


def fault(entry: Path, key: Key) -> str:
    """Return the reason why an entry cannot be used; "" if it can."""
    try:
        if wrong := _not_private(entry):
            return f"it {wrong}"
        about = json.loads(read_file(entry / ABOUT, MOST_ABOUT_BYTES))
        if about["key"] != dict(key):
            return "it was made for another key"
        if about["files"] != hashes(entry):
            return "its files have changed"
    except FileNotFoundError:
        return "it is incomplete" if exists(entry) else "it does not exist"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return f"its {ABOUT} cannot be read ({type(error).__name__})"
    return ""


def hashes(entry: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of an entry by name, without the list itself. Raises OSError for a file larger
    than any engine, and for anything but files and folders: a link may lead anywhere, and a pipe never ends."""
    found = {}
    for path in sorted(entry.rglob("*")):
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            continue
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a file or folder", str(path))
        if status.st_size > MOST_ENGINE_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        if path.name != ABOUT:
            found[str(path.relative_to(entry))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def seal(entry: Path, key: Key) -> None:
    """Write the list: the key of the entry and the hashes of its files."""
    with (entry / ABOUT).open("w") as file:
        json.dump({"key": dict(key), "files": hashes(entry)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def set_aside(entry: Path) -> None:
    """Move an entry aside, where it can be inspected. It replaces the entry that was set aside before."""
    aside = entry.with_name(f"{entry.name}.bad")
    remove(aside)
    entry.rename(aside)


def remove(path: Path) -> None:
    """Remove a path as far as possible. The target of a link stays."""
    if path.is_symlink() or not is_folder(path):
        with suppress(OSError):  # rmtree would open a pipe, and wait for ever
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock on an entry. A second process logs that it waits, and waits."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with heartbeat(f"waiting for another process that builds the engine of {what}"):
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def heartbeat(doing: str) -> Iterator[None]:
    """Log the name of a long step at its start, its progress every 10 s, and its duration at the end."""
    started, done = time.monotonic(), threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT_S):
            log.info("%s: %.0f s", doing, time.monotonic() - started)

    log.info("%s: this takes seconds to minutes, once", doing)
    beating = threading.Thread(target=beat, name="heartbeat", daemon=True)
    beating.start()
    try:
        yield
    finally:
        done.set()
        beating.join()
        log.info("%s: finished after %.1f s", doing, time.monotonic() - started)

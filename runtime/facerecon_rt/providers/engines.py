"""Engines that TensorRT built -> a folder that keeps them: built once per model and machine, and trusted only if ours.

An engine is machine code, and it fits one model, one GPU and one TensorRT alone. So an entry is named after all that it
depends on, lies in a folder that only its owner may enter, and holds a list of its files' hashes. What is not as the
list says is set aside and built again. Where nothing can be kept, engines are built without being kept, with a warning.
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
"""On the disk, or engines are not kept: a full disk cuts files short."""
MOST_ABOUT_BYTES, MOST_ENGINE_BYTES = 2**20, 2**30
"""Of the list, and of a file on it: ours have some ten million."""
HEARTBEAT_S = 10.0
NAME_LENGTH = 32

Key = Mapping[str, str]
"""All that an engine depends on: model, precision, shapes, versions, GPU."""


def default_root() -> Path:
    """The folder of this user's engines. A user without a home, as in containers, has one that is not there: a folder
    for temporary files is not safe from others."""
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        caches = Path("/nonexistent")
    return caches / "facerecon-rt" / "engines"


def entry_name(key: Key) -> str:
    """Of the folder of these engines, in the root."""
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:NAME_LENGTH]


def is_kept(root: Path, key: Key) -> bool:
    """Is there an entry that can be used? Changes nothing."""
    return is_folder(root) and fault(root / entry_name(key), key) == ""


def open_with_engine(root: Path, key: Key, what: str, open_in: Callable[[Path | None], T]) -> T:
    """What `open_in` opens with the entry of `key`, which is built if it is not there.

    `open_in` is given a folder with engines to read, or an empty one to leave them in, or None: keep nothing. It is
    called a second time where it fails with engines that were read. `what` names the model in messages.
    """
    try:
        make_private(root)
        free = shutil.disk_usage(root).free
        if free < LEAST_FREE_BYTES:
            raise OSError(f"{free / 2**20:.0f} MB are free, {LEAST_FREE_BYTES / 2**20:.0f} are needed")
        with locked(root / f"{entry_name(key)}.lock", what):
            return _open_locked(root, key, what, open_in)
    except UnkeptError as error:
        log.warning("%s; engines are built anew each time", error)
    except OSError as error:
        log.warning("engines are not kept in %s (%s); they are built anew each time", root, error.strerror or error)
    with heartbeat(f"building a TensorRT engine of {what}"):
        return open_in(None)


def private_entry(root: Path, key: Key) -> Path | None:
    """A folder of its own for a provider that keeps its engines by itself, and writes them when a session ends:
    private, but without a list of what is in it. None, with a warning, where there can be none."""
    try:
        make_private(root)
        make_private(root / entry_name(key))
    except (UnkeptError, OSError) as error:
        log.warning("%s; engines are built anew each time", error)
        return None
    return root / entry_name(key)


class UnkeptError(Exception):
    """Why engines cannot be kept."""


def _open_locked(root: Path, key: Key, what: str, open_in: Callable[[Path | None], T]) -> T:
    entry = root / entry_name(key)
    wrong = fault(entry, key)
    if not wrong:
        try:
            return open_in(entry)
        except ProviderMissing as error:  # if it is not the engine, the second attempt raises it again
            wrong = f"it does not load ({' '.join(str(error).split())[:100]})"
    if os.path.lexists(entry):
        log.warning("the engine of %s in %s is set aside: %s", what, entry, wrong)
        set_aside(entry)
    for cut_short in root.glob(f"{entry.name}.building-*"):
        remove(cut_short)  # whoever built there was killed: the lock is ours
    building = Path(tempfile.mkdtemp(prefix=f"{entry.name}.building-", dir=root))
    try:
        with heartbeat(f"building a TensorRT engine of {what}, kept in {root}"):
            opened = open_in(building)
        try:
            seal(building, key)
            building.rename(entry)
        except OSError as error:
            log.warning("the engine of %s is not kept (%s); it is built anew next time", what, error.strerror or error)
        return opened
    finally:
        shutil.rmtree(building, ignore_errors=True)


def make_private(folder: Path) -> None:
    """Make a folder that only its owner may enter, or see that it is one. Raises UnkeptError, OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    wrong = _not_private(folder)
    if wrong:
        raise UnkeptError(f"{folder} {wrong}")


def _not_private(path: Path) -> str:
    """Why others might have written here, "" if they cannot."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return "is a link"
    if status.st_uid != os.geteuid():
        return "belongs to another user"
    if status.st_mode & 0o022:
        return "may be written by others (chmod 700)"
    return ""


def fault(entry: Path, key: Key) -> str:
    """What keeps an entry from being used; "" if nothing does."""
    try:
        if wrong := _not_private(entry):
            return f"it {wrong}"
        about = json.loads(read_file(entry / ABOUT, MOST_ABOUT_BYTES))
        if about["key"] != dict(key):
            return "it was made for something else"
        if about["files"] != hashes(entry):
            return "its files are not those that were put there"
    except FileNotFoundError:
        return "it is not whole" if exists(entry) else "it is not there"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return f"its {ABOUT} cannot be read ({type(error).__name__})"
    return ""


def hashes(entry: Path) -> dict[str, str]:
    """Name -> SHA-256 of each file, but for the list of them. Raises OSError for files larger than any engine, and for
    what is neither file nor folder: a link may lead anywhere, and a pipe never ends."""
    found = {}
    for path in sorted(entry.rglob("*")):
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            continue
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "neither file nor folder", str(path))
        if status.st_size > MOST_ENGINE_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        if path.name != ABOUT:
            found[str(path.relative_to(entry))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def seal(entry: Path, key: Key) -> None:
    """Write down what the entry is for and what is in it."""
    with (entry / ABOUT).open("w") as file:
        json.dump({"key": dict(key), "files": hashes(entry)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def set_aside(entry: Path) -> None:
    """Out of the way, where it can be looked at; the one set aside before is gone."""
    aside = entry.with_name(f"{entry.name}.bad")
    remove(aside)
    entry.rename(aside)


def remove(path: Path) -> None:
    """Whatever is there, as far as it can be; what a link leads to stays."""
    if path.is_symlink() or not is_folder(path):
        with suppress(OSError):  # rmtree would open it, and wait for ever where it is a pipe
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Nobody else builds this meanwhile; who comes second waits, and says so."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with heartbeat(f"another process builds the engine of {what}: waiting for it"):
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def heartbeat(doing: str) -> Iterator[None]:
    """Says what takes so long, that it still goes on, and how long it took."""
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
        log.info("%s: ended after %.1f s", doing, time.monotonic() - started)

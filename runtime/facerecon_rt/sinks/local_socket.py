"""Scenes -> other programs on this machine: the newest record over a Unix socket, as length-prefixed JSON."""

from __future__ import annotations

import os
import select
import socket
import stat
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from ..addresses import scheme_of
from ..errors import UsageError
from ..types import Scene
from .outputs import cannot_write
from .record import record_text

SCHEME = "unix://"
MOST_READERS = 16
SEND_BUFFER = 64 * 1024
"""Size of the kernel's buffer per reader, in bytes. A reader that does not read gets the newest record after what lies
in it, which is a few records."""
LONGEST_STOP_S = 30.0
"""Time in seconds after which a reader that takes nothing is disconnected, so that others find a place."""
LOOK_S = 1.0
"""Time in seconds between two looks whether a reader is still there."""
LENGTH = struct.Struct("<I")


def is_socket(target: str) -> bool:
    """Return whether an output is a Unix socket."""
    return scheme_of(target) == "unix"


class SocketSink:
    """A sink that serves a Unix socket. Every reader gets each record as four bytes of length (little-endian) and that
    many bytes of JSON. A reader that is too slow misses records: the newest wins. A reader that takes nothing for
    `LONGEST_STOP_S` is disconnected. The socket belongs to this user alone (mode 600)."""

    def __init__(self, target: str, blendshapes: Sequence[str], *, arkit: bool = False) -> None:
        """Listen at `unix:///run/x.sock`. A socket that nobody listens at is replaced. Raises UsageError."""
        self._blendshapes = blendshapes
        self._arkit = arkit
        self._path = Path(target[len(SCHEME) :])
        self._remove_abandoned()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(str(self._path))
            self._path.chmod(0o600)
            self._socket.listen(MOST_READERS)
        except OSError as error:
            self._socket.close()
            raise cannot_write(self._path, error) from error
        self._new = threading.Condition()
        self._newest: tuple[int, bytes] = (0, b"")
        """Number of the newest record, and its bytes."""
        self._closed = False
        self._readers: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, name="socket", daemon=True)
        self._accepting.start()

    def __enter__(self) -> SocketSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, scene: Scene) -> None:
        """Offer the scene's record to all readers. Never waits for one."""
        text = record_text(scene, self._blendshapes, arkit=self._arkit).encode()
        with self._new:
            self._newest = self._newest[0] + 1, LENGTH.pack(len(text)) + text
            self._new.notify_all()

    def close(self) -> None:
        """Give readers the newest record, close the socket and remove it. A second call does nothing."""
        if self._closed:
            return
        with self._new:
            self._closed = True
            self._new.notify_all()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._socket.close()
        self._accepting.join(5)
        with suppress(OSError):
            self._path.unlink()
        for reader in self._readers:
            reader.join(2)

    def _remove_abandoned(self) -> None:
        """Remove the socket of a program that was killed."""
        if not os.path.lexists(self._path):
            return
        if not stat.S_ISSOCK(self._path.lstat().st_mode):
            raise UsageError(f"cannot write {self._path}: it exists and is not a socket; choose another name")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(str(self._path)) == 0:
                raise UsageError(f"cannot write {self._path}: another program serves it; choose another name")
        self._path.unlink()

    def _accept(self) -> None:
        while not self._closed:
            try:
                reader, _ = self._socket.accept()
            except OSError:  # closed
                return
            self._readers = [one for one in self._readers if one.is_alive()]
            if len(self._readers) >= MOST_READERS:
                reader.close()
                continue
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            thread = threading.Thread(target=self._send_to, args=(reader,), name="socket reader", daemon=True)
            self._readers.append(thread)
            thread.start()

    def _send_to(self, reader: socket.socket) -> None:
        """Send records to one reader until it leaves. While it is busy, newer records replace older ones."""
        sent = self._newest[0]
        reader.settimeout(LOOK_S)
        with reader, suppress(OSError):
            while True:
                with self._new:
                    while not self._closed and self._newest[0] == sent:
                        if not self._new.wait(LOOK_S) and _has_left(reader):
                            return
                    if self._newest[0] == sent:
                        return  # closed, and the reader has everything
                    sent, data = self._newest
                self._send_all(reader, data)

    def _send_all(self, reader: socket.socket, data: bytes) -> None:
        """Send a whole record, however long the reader takes. Raises TimeoutError when it takes nothing for
        `LONGEST_STOP_S`, or for a second once this sink is closed."""
        left, until = memoryview(data), time.monotonic() + LONGEST_STOP_S
        while left:
            try:
                left = left[reader.send(left) :]
                until = time.monotonic() + LONGEST_STOP_S
            except TimeoutError:
                if self._closed or time.monotonic() > until:
                    raise


def _has_left(reader: socket.socket) -> bool:
    """Return whether the reader has closed its end. Never waits, as `recv` of a socket with a timeout does."""
    look = select.poll()
    look.register(reader, 0)
    return bool(look.poll(0))

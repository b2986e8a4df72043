"""Records at a Unix socket -> when each was read, in a process of its own, as programs of users are.

`SocketReader` runs this file as a program, with the standard library alone: it prints the frame number and the value of
time.monotonic() of each record. This clock is the same in all processes of a machine.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

LONGEST_S = 5.0
"""Time in seconds in which the reader connects."""


def read(path: str) -> None:
    """Print a line per record until the socket is closed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        sys.stdout.write("connected\n")
        sys.stdout.flush()
        stream = connection.makefile("rb")
        while len(head := stream.read(4)) == 4:
            record = json.loads(stream.read(*struct.unpack("<I", head)))
            sys.stdout.write(f"{record['frame']} {time.monotonic()!r}\n")
            sys.stdout.flush()


class SocketReader:
    """A process that reads the records of a socket in a folder of its own. A context manager."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="facerecon-bench-")
        self.path = Path(self._folder.name) / "bench.sock"
        """Path of the socket, which must be served before `start`."""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the process, and wait until it is connected."""
        command = [sys.executable, "-S", str(Path(__file__)), str(self.path)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if self._process.stdout is not None:
            self._process.stdout.readline()

    def end(self) -> dict[int, float]:
        """Wait until the process ends, because its socket was closed. Returns the value of time.monotonic() when each
        frame's record was read, by frame number."""
        if self._process is None:
            return {}
        try:
            said, _ = self._process.communicate(timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            said, _ = self._process.communicate()
        pairs = (line.split() for line in said.splitlines())
        return {int(frame): float(at) for frame, at in pairs}

    def __enter__(self) -> SocketReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        self._folder.cleanup()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, BrokenPipeError):
        read(sys.argv[1])

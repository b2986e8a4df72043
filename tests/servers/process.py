"""A command that serves -> a running server on free ports, which is stopped at the end."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

STARTS_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers."""

    http: str
    """Address, for example http://127.0.0.1:8000."""
    grpc: str
    log: Path


@contextmanager
def running(
    command: Callable[[int, int], list[str]], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run a server. Fails the test where it does not start.

    `command`: function that returns the command for two ports, HTTP and gRPC.
    """
    http, grpc = _free_port(), _free_port()
    with (
        log.open("w") as said,
        subprocess.Popen(command(http, grpc), stdout=said, stderr=said, env=environment) as server,
    ):
        try:
            _wait_until_live(server, http, log)
            yield Server(f"http://127.0.0.1:{http}", f"grpc://127.0.0.1:{grpc}", log)
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait_until_live(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/live", timeout=2).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"the server did not start:\n{log.read_text()[-3000:]}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port

"""Scenes -> messages to the service manager: ready, alive with each frame, stopping (systemd's sd_notify(3)
protocol)."""

from __future__ import annotations

import os
import socket
import time
from types import TracebackType

from ..types import Scene


class ServiceNotifier:
    """A sink that sends the messages of a `Type=notify` service to systemd. Without a service manager it sends nothing.

    As a context manager it reports ready on entering and stopping on leaving. Only scenes feed the watchdog. A program
    that hangs, or whose cameras have all been gone for longer than WatchdogSec, is therefore restarted.
    """

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._every_s = int(os.environ.get("WATCHDOG_USEC") or 0) / 2e6
        self._fed = 0.0
        self._frames = 0

    def __enter__(self) -> ServiceNotifier:
        self._say("READY=1")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._say("STOPPING=1")

    def write(self, scene: Scene) -> None:
        """Count a frame, and feed the watchdog when it is due."""
        self._frames += 1
        now = time.monotonic()
        if self._every_s and now - self._fed > self._every_s:
            self._fed = now
            self._say(f"WATCHDOG=1\nSTATUS={self._frames} frames, {len(scene.faces)} faces in the newest")

    def _say(self, text: str) -> None:
        if not self._address:
            return
        # An abstract address has @ in place of the zero byte.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            try:
                out.sendto(text.encode(), socket.MSG_DONTWAIT, address)
            except OSError:
                return  # nobody listens any more, which must not end the run

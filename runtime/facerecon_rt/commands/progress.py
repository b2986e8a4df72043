"""What a command says while it works: one line on a terminal, rewritten; and at the end what was done."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

from ..errors import one_line
from ..types import Scene

BETWEEN_S = 0.2
"""Seconds between two looks of the line."""
log = logging.getLogger("facerecon_rt")


class StatusLine:
    """The line. Nowhere but on a terminal is anything written."""

    def __init__(self, *, quiet: bool) -> None:
        self._live = not quiet and sys.stderr.isatty()
        self._shown = 0.0

    def show(self, line: Callable[[], str]) -> None:
        """Write what `line` says, if it is time again."""
        if self._live and time.monotonic() - self._shown > BETWEEN_S:
            self._shown = time.monotonic()
            self._write(line())

    def clear(self) -> None:
        """Take the line away."""
        if self._live:
            self._write("")

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(f"\r\x1b[2K{text}")
            sys.stderr.flush()
        except OSError:
            self._live = False  # the terminal was closed


class Progress:
    """Counts scenes and says how far it is. Also says, once per source, that no face was found."""

    def __init__(self, *, quiet: bool) -> None:
        self._line = StatusLine(quiet=quiet)
        self._quiet = quiet
        self._started = time.monotonic()
        self._frames = 0
        self._faces = 0
        self._faceless: dict[str, bool] = {}

    def show(self, scene: Scene) -> None:
        """Count a scene."""
        self._frames += 1
        self._faces += len(scene.faces)
        self._faceless[scene.frame.source] = self._faceless.get(scene.frame.source, True) and not scene.faces
        self._line.show(lambda: self._said_of(scene))

    def finish(self) -> None:
        """Say what was done."""
        self._line.clear()
        for source, faceless in self._faceless.items():
            if faceless:
                log.warning("%s: no face found", source)
        if not self._quiet and self._frames:
            seconds = time.monotonic() - self._started
            log.info("%s, %s, %.1f s", _count(self._frames, "frame"), _count(self._faces, "face"), seconds)

    def _said_of(self, scene: Scene) -> str:
        spent = sum(ms for stage, ms in scene.stages_ms.items() if stage != "capture")
        rate = self._frames / (time.monotonic() - self._started)
        where = f"{one_line(scene.frame.source)[-60:]}  frame {scene.frame.index}"
        return f"{where}  {_count(len(scene.faces), 'face')}  {spent:.1f} ms  {rate:.1f} fps"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

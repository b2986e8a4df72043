"""Progress of a command: a status line on a terminal while it works, and a summary at the end."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

from ..errors import one_line
from ..types import Scene

BETWEEN_S = 0.2
"""Minimum time between two updates of the line, in seconds."""
log = logging.getLogger("facerecon_rt")


class StatusLine:
    """A line that is rewritten in place. It is written only to a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._on_terminal = not quiet and sys.stderr.isatty()
        self._shown = 0.0

    def show(self, line: Callable[[], str]) -> None:
        """Write the text that `line` returns, if enough time has passed."""
        if self._on_terminal and time.monotonic() - self._shown > BETWEEN_S:
            self._shown = time.monotonic()
            self._write(line())

    def clear(self) -> None:
        """Remove the line."""
        if self._on_terminal:
            self._write("")

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(f"\r\x1b[2K{text}")
            sys.stderr.flush()
        except OSError:
            self._on_terminal = False  # the terminal is closed


class Progress:
    """A counter of scenes that shows the progress. It also warns once per source in which no face was found."""

    def __init__(self, *, quiet: bool) -> None:
        self._line = StatusLine(quiet=quiet)
        self._quiet = quiet
        self._started = time.monotonic()
        self._frames = 0
        self._faces = 0
        self._faceless: dict[str, bool] = {}

    def show(self, scene: Scene) -> None:
        """Count a scene and update the line."""
        self._frames += 1
        self._faces += len(scene.faces)
        self._faceless[scene.frame.source] = self._faceless.get(scene.frame.source, True) and not scene.faces
        self._line.show(lambda: self._said_of(scene))

    def finish(self) -> None:
        """Log the warnings and the summary."""
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

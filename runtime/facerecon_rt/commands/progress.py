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
ENOUGH_FRAMES = 10
"""Number of frames from which the time per frame is worth a line."""
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

    def __init__(self, *, quiet: bool, draws: bool = False) -> None:
        """Start the clock and the counts.

        `quiet`: write only warnings. `draws`: whether an output holds annotated pictures or video, whose share of the
        time `finish` logs.
        """
        self._line = StatusLine(quiet=quiet)
        self._quiet = quiet
        self._draws = draws
        self._spent_ms = 0.0
        self._started = time.monotonic()
        self._frames = 0
        self._faces = 0
        self._faceless: dict[str, bool] = {}

    def show(self, scene: Scene) -> None:
        """Count a scene and update the line."""
        self._frames += 1
        self._faces += len(scene.faces)
        self._spent_ms += _spent_ms(scene)
        self._draws = self._draws and not scene.frame.live  # a camera sets the pace, not the drawing
        self._faceless[scene.frame.source] = self._faceless.get(scene.frame.source, True) and not scene.faces
        self._line.show(lambda: self._state(scene))

    def finish(self) -> None:
        """Log the warnings and the summary."""
        self._line.clear()
        for source, faceless in self._faceless.items():
            if faceless:
                log.warning("%s: no face found", source)
        if not self._quiet and self._frames:
            seconds = time.monotonic() - self._started
            log.info("%s, %s, %.1f s", _count(self._frames, "frame"), _count(self._faces, "face"), seconds)
            if self._draws and self._frames >= ENOUGH_FRAMES:
                log.info("%s", drawing_cost(1000 * seconds / self._frames, self._spent_ms / self._frames))

    def _state(self, scene: Scene) -> str:
        spent = _spent_ms(scene)
        rate = self._frames / (time.monotonic() - self._started)
        where = f"{one_line(scene.frame.source)[-60:]}  frame {scene.frame.index}"
        return f"{where}  {_count(len(scene.faces), 'face')}  {spent:.1f} ms  {rate:.1f} fps"


def drawing_cost(frame_ms: float, reconstruction_ms: float) -> str:
    """Return a line about the share of reading, drawing and encoding in the time of a frame."""
    return (
        f"{frame_ms:.0f} ms per frame, of which {reconstruction_ms:.0f} for the reconstruction; the rest is reading, "
        "drawing and encoding: --output records.jsonl alone is faster"
    )


def _spent_ms(scene: Scene) -> float:
    return sum(ms for stage, ms in scene.stages_ms.items() if stage != "capture")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

"""Messages of a command -> one line each on standard error."""

from __future__ import annotations

import logging
import sys

from ..errors import one_line
from ..quiet import silence_opencv

log = logging.getLogger("facerecon_rt")


class SayOnce(logging.Filter):
    """A filter that passes each line once. An image set is read twice, so a faulty file would be reported twice."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is new."""
        line = record.getMessage()
        new = line not in self._said
        self._said.add(line)
        return new


class OneLine(logging.Formatter):
    """A formatter that writes one line per message, since names may hold line feeds and other control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message."""
        return one_line(record.getMessage())


def log_to_stderr(*, quiet: bool, once: bool = False) -> None:
    """Send the package's messages to standard error, and silence those of OpenCV.

    `quiet`: errors alone. `once`: each line once.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    if once:
        handler.addFilter(SayOnce())
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(logging.ERROR if quiet else logging.INFO)
    silence_opencv()

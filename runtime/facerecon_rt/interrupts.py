"""An import in a running command -> the same import, completed before a signal is handled.

An exception that is raised during an import appears as a traceback, or as an ImportError of the module being loaded.
`start` handles signals before the command runs.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a command."""


@contextmanager
def importing() -> Iterator[None]:
    """Complete the imports of the block before a signal with a Python handler is handled. A second signal does not
    wait."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals only in the main thread
        return
    came: list[signal.Signals] = []
    before = {number: handler for number in ENDING if callable(handler := signal.getsignal(number))}

    def wait(number: int, frame: FrameType | None) -> None:
        came.append(signal.Signals(number))
        signal.signal(number, before[came[-1]])

    for number in before:
        signal.signal(number, wait)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)

"""A step of a running command -> the same step, completed before a signal is handled.

An exception that is raised during an import appears as a traceback, or as an ImportError of the module being loaded; an
exception that is raised while a file is finished leaves no file. `start` handles signals before the command runs.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a command."""


class Unfinished(KeyboardInterrupt):
    """An interruption that left outputs unfinished."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"not finished: {', '.join(names)}")


def importing() -> AbstractContextManager[None]:
    """Complete the imports of the block before a signal with a Python handler is handled. A second signal does not
    wait."""
    return completing()


@contextmanager
def completing(at_signal: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Complete the block before a signal with a Python handler is handled. A second signal does not wait. `at_signal`:
    function that is called when the first signal arrives."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals only in the main thread
        return
    came: list[signal.Signals] = []
    before = {number: handler for number in ENDING if callable(handler := signal.getsignal(number))}

    def wait(number: int, frame: FrameType | None) -> None:
        came.append(signal.Signals(number))
        restore()
        at_signal()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, wait)
    try:
        yield
    finally:
        restore()
        for number in came[:1]:
            signal.raise_signal(number)

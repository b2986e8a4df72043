"""Ctrl-C and SIGTERM during imports -> the same exit code as later. Standard library only, and quick to import.

An exception that is raised during an import appears as a traceback, or as an ImportError of the module being loaded,
and on a busy machine imports take seconds. A command therefore ends at once while it is being loaded. A later import is
completed before the signal is handled.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C, SIGTERM or SIGHUP ended."""
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
COMMANDS = {"facerecon-rt": ENDING, "facerecon-export": (signal.SIGINT,), "facerecon-train": (signal.SIGINT,)}
"""Signals that end each command with this exit code. All other signals keep the system's behaviour."""
MODULES = {
    "facerecon_rt": "facerecon-rt",
    "facerecon_export": "facerecon-export",
    "facerecon_training": "facerecon-train",
}
"""Command of each package, for `python -m`."""


def command_of(script: str, words: Sequence[str]) -> str:
    """Return which of the `COMMANDS` this process runs, from sys.argv[0] and sys.orig_argv; "" for other programs."""
    name = os.path.basename(script)  # noqa: PTH119  pathlib takes long to import
    if name in COMMANDS:
        return name
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    return MODULES.get(module.partition(".")[0], "")


_taken: list[signal.Signals] = []
"""Signals that end this process at once while it is being loaded."""


def end_at_once_while_loading() -> None:
    """Make the signals of a command end it at once until `loaded` is called. Does nothing in other programs."""
    command = command_of(sys.argv[0] if sys.argv else "", sys.orig_argv)
    if not command or threading.current_thread() is not threading.main_thread():
        return

    def end(number: int, frame: FrameType | None) -> None:
        with suppress(OSError):  # nobody may read it
            os.write(2, f"{command}: interrupted\n".encode())
        os._exit(INTERRUPTED)  # nothing is open yet

    for number in COMMANDS[command]:
        # A process that ignores a signal, as under nohup or in a shell's background job, keeps ignoring it.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)
            _taken.append(number)


def loaded() -> None:
    """Mark the command as loaded: its signals raise KeyboardInterrupt from now on."""
    while _taken:
        signal.signal(_taken.pop(), signal.default_int_handler)


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


end_at_once_while_loading()

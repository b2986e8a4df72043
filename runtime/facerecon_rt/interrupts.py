"""Ctrl-C and SIGTERM while Python imports -> the exit code that they have later. Standard library only, and quick.

An exception that is raised while modules are imported comes out as a traceback, or as an ImportError of whatever was
being loaded, and on a busy machine that takes seconds. So a command ends at once while it is being loaded, and what is
imported later is imported whole before the signal is heard.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import PurePath
from types import FrameType

INTERRUPTED = 130
"""Exit code of a command that was ended by Ctrl-C, SIGTERM or SIGHUP."""
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
COMMANDS = {"facerecon-rt": ENDING, "facerecon-export": (signal.SIGINT,), "facerecon-train": (signal.SIGINT,)}
"""Command -> the signals that end it with this code. Of all others, what the system does is right."""
MODULES = {
    "facerecon_rt": "facerecon-rt",
    "facerecon_export": "facerecon-export",
    "facerecon_training": "facerecon-train",
}
"""Package -> command, for `python -m`."""


def command_of(script: str, words: Sequence[str]) -> str:
    """sys.argv[0] and sys.orig_argv -> which of `COMMANDS` this process is, "" for any other program."""
    name = PurePath(script).name
    if name in COMMANDS:
        return name
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    return MODULES.get(module.partition(".")[0], "")


_taken: list[signal.Signals] = []
"""Signals that end this process at once, while it is loaded."""


def end_at_once_while_loading() -> None:
    """In a command of ours: its signals end it, until `loaded` is called. In any other program: nothing."""
    command = command_of(sys.argv[0] if sys.argv else "", sys.orig_argv)
    if not command or threading.current_thread() is not threading.main_thread():
        return

    def end(number: int, frame: FrameType | None) -> None:
        with suppress(OSError):  # nobody reads it
            os.write(2, f"{command}: interrupted\n".encode())
        os._exit(INTERRUPTED)  # nothing is open yet

    for number in COMMANDS[command]:
        # Who ignores a signal, as nohup and a shell's background jobs do, goes on ignoring it.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)
            _taken.append(number)


def loaded() -> None:
    """The command is loaded, and can end well: its signals raise KeyboardInterrupt from now on."""
    while _taken:
        signal.signal(_taken.pop(), signal.default_int_handler)


@contextmanager
def importing() -> Iterator[None]:
    """What is imported in the block is imported whole: a signal that Python code would answer is answered after it.
    A second one does not wait."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python answers signals in the main thread alone
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

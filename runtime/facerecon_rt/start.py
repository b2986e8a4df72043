"""A command's process -> its signals taken before anything else is imported, and ignored after its end.

An exception that a signal raises during an import appears as a traceback, or as an ImportError of the module being
loaded, and on a busy machine imports take seconds. A command therefore ends at once while it is being loaded. The
package imports this module first. It needs only modules that Python has already loaded, and `_signal`, which is built
in: the module `signal` itself takes a third of a second on a busy machine.
"""

import _signal  # type: ignore[import-not-found]  # typeshed lacks it
import os
import sys

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C, SIGTERM or SIGHUP ended."""
COMMANDS = {
    "facerecon-rt": (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP),
    "facerecon-export": (_signal.SIGINT,),
    "facerecon-train": (_signal.SIGINT,),
}
"""Signals that end each command with this exit code. All other signals keep the system's behaviour."""
MODULES = {
    "facerecon_rt": "facerecon-rt",
    "facerecon_export": "facerecon-export",
    "facerecon_training": "facerecon-train",
}
"""Command of each package, for `python -m`."""
READERS = ("grab ", "live ")
"""Beginnings of the names of threads that read cameras and streams."""
LAST_WAIT_S = 0.05
"""Time in seconds that a thread has for its last steps after its camera was closed."""


def command_of(script: str, words: list[str]) -> str:
    """Return which of the `COMMANDS` this process runs, from sys.argv[0] and sys.orig_argv; "" for other programs."""
    name = os.path.basename(script)  # noqa: PTH119  pathlib takes long to import
    if name in COMMANDS:
        return name
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    return MODULES.get(module.partition(".")[0], "")


_taken: list[int] = []
"""Signals of the command that this process runs; empty in other programs."""


def end_at_once_while_loading() -> None:
    """Make the signals of a command end it at once until `loaded` is called. Does nothing in other programs."""
    command = command_of(sys.argv[0] if sys.argv else "", sys.orig_argv)

    def end(number: int, frame: object) -> None:
        try:
            os.write(2, f"{command}: interrupted\n".encode())
        finally:  # nobody may read it
            os._exit(INTERRUPTED)  # nothing is open yet

    for number in COMMANDS.get(command, ()):
        # A process that ignores a signal, as under nohup or in a shell's background job, keeps ignoring it.
        if _signal.getsignal(number) != _signal.SIG_IGN:
            try:
                _signal.signal(number, end)
            except ValueError:
                return  # Python handles signals only in the main thread
            _taken.append(number)


def loaded() -> None:
    """Mark the command as loaded: its signals raise KeyboardInterrupt from now on."""
    for number in _taken:
        _signal.signal(number, _signal.default_int_handler)


def ended() -> None:
    """Mark the command as ended. From now on its exit code is fixed, while Python still shuts down.

    The first further signal is ignored, because an exception would print a traceback. The second one ends the process
    at once."""

    def ignore(number: int, frame: object) -> None:
        _signal.signal(number, _signal.SIG_DFL)

    for number in _taken:
        _signal.signal(number, ignore)


def leave(code: int) -> int:
    """Return the exit code of an ended command, or end its process with it at once where a thread still reads a camera.

    A camera that gives no frame cannot be interrupted. If its frame comes while Python ends, Python ends the thread
    inside OpenCV, which aborts the process.
    """
    import threading  # loaded by now

    reading = [one for one in threading.enumerate() if one.daemon and one.name.startswith(READERS)]
    for thread in reading:
        thread.join(LAST_WAIT_S)
    if _taken and any(thread.is_alive() for thread in reading):
        try:
            sys.stdout.flush()
        finally:  # nobody may read it
            os._exit(code)
    return code


end_at_once_while_loading()

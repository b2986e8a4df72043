"""The shell around every command: errors become one line on standard error and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

from ..errors import FaceReconError, UsageError
from ..interrupts import Unfinished
from ..paths import file_and_reason
from ..start import INTERRUPTED, ended, loaded


def run_command(program: str, command: Callable[[], int], *, on_interrupt: Callable[[], None], extra: str = "") -> int:
    """Run a command and return its exit code.

    `program`: the name in front of messages. `on_interrupt`: reports Ctrl-C. `extra`: the extra of this package
    that installs what the command imports; without it, a missing module stays an exception.
    """
    try:
        loaded()
        return command()
    except FaceReconError as error:
        say(f"{program}: {error}")
        return error.exit_code
    except BrokenPipeError:
        # The reader of our standard output has seen enough. Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # A file that was readable or writable is gone, refused or broken by now.
        say(f"{program}: {file_and_reason(error)}")
        return UsageError.exit_code
    except Unfinished as error:
        ended()
        say(f"interrupted; {error}")
        return INTERRUPTED
    except KeyboardInterrupt:
        ended()
        on_interrupt()
        return INTERRUPTED
    except ModuleNotFoundError as error:
        if not extra or (error.name or "").startswith("facerecon"):
            raise
        say(f"{program}: {error.name} is not installed: pip install 'facerecon-rt[{extra}]'")
        return UsageError.exit_code
    finally:
        ended()


def say(line: str) -> None:
    """Write a line to standard error, also where the terminal is closed."""
    with suppress(OSError):
        print(line, file=sys.stderr)

"""The shell around every command: errors become one line on standard error and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ..errors import FaceReconError, UsageError
from ..interrupts import INTERRUPTED, loaded
from ..paths import said_of


def run_command(program: str, command: Callable[[], int], *, interrupted: str, extra: str = "") -> int:
    """Run a command and return its exit code.

    `program`: the name in front of messages. `interrupted`: what to say on Ctrl-C. `extra`: the extra of this package
    that installs what the command imports; without it, a missing module stays an exception.
    """
    try:
        loaded()
        return command()
    except FaceReconError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our standard output has seen enough. Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # A file that was readable or writable is gone, refused or broken by now.
        print(f"{program}: {said_of(error)}", file=sys.stderr)
        return UsageError.exit_code
    except KeyboardInterrupt:
        print(f"{program}: {interrupted}", file=sys.stderr)
        return INTERRUPTED
    except ModuleNotFoundError as error:
        if not extra or (error.name or "").startswith("facerecon"):
            raise
        print(f"{program}: {error.name} is not installed: pip install 'facerecon-rt[{extra}]'", file=sys.stderr)
        return UsageError.exit_code

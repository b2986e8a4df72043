"""Options of a benchmark -> the command line that repeats its run, for its results."""

from __future__ import annotations

import shlex
import sys
from argparse import SUPPRESS, ArgumentParser, Namespace
from pathlib import Path

ELSEWHERE = {
    "data": "DATA",
    "prepared": "PREPARED",
    "cache": "RUN/cache",
    "mediapipe_python": "…",
    "mediapipe_task": "…",
    "npm": "JS",
    "blender": "PYTHON",
}
"""Options whose values are places of one machine -> how results name them."""


def command_of(parser: ArgumentParser, options: Namespace) -> str:
    """Return the command that repeats a run: the script with every option that differs from its default, and the
    data folder. Positional arguments are left out."""
    words = [f"benchmarks/{Path(sys.argv[0]).name}"]
    for action in parser._actions:
        value = getattr(options, action.dest, None)
        if not action.option_strings or action.help == SUPPRESS or value in (None, False):
            continue
        if value == action.default and action.dest != "data":
            continue
        if action.dest in ELSEWHERE:
            words += [action.option_strings[-1], ELSEWHERE[action.dest]]
        elif value is True:
            words.append(action.option_strings[-1])
        elif action.nargs is None and isinstance(value, list):
            words += [word for one in value for word in (action.option_strings[-1], str(one))]
        else:
            words += [action.option_strings[-1], *map(str, value if isinstance(value, list) else [value])]
    return f"python {' '.join(word if word == '…' else shlex.quote(word) for word in words)}"

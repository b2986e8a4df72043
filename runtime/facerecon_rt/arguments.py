"""What command lines share: texts -> numbers, for argparse's `type`, and the options of GPUs.

Raises ArgumentTypeError, whose text argparse shows.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, _ActionsContainer
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from .addresses import without_secrets
from .gpu import GpuOptions


class Parser(ArgumentParser):
    """Says what is wrong on one line, without all that might have been right; takes no abbreviations."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **options})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse's, but an option that there is not is said before those that are missing."""
        words = sys.argv[1:] if args is None else list(args)
        for word in (word.partition("=")[0] for word in words if word.startswith("--") and word != "--"):
            if word not in self._option_string_actions:
                near = get_close_matches(word, self._option_string_actions, 1)
                self.error(f"there is no option {word}" + (f"; did you mean {near[0]}?" if near else ""))
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Ends the program with exit code 2."""
        self.exit(2, f"{self.prog}: {without_secrets(message)}; see {self.prog} --help\n")


def whole(text: str) -> int:
    """0, 1, 2, ..."""
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def positive(text: str) -> int:
    """1, 2, 3, ..."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def batch(text: str) -> int:
    """1 to 1024: more crops at once only take memory."""
    number = positive(text)
    if number > 1024:
        raise ArgumentTypeError(f"{text!r} is more than 1024")
    return number


def positive_number(text: str) -> float:
    """Any number above 0 but infinity."""
    number = _number(text)
    if not 0 < number < float("inf"):
        raise ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def size(text: str) -> tuple[int, int]:
    """As in 1280x720."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise ArgumentTypeError(f"{text!r} is not a size like 1280x720")
    return int(width), int(height)


def unit(text: str) -> float:
    """A number from 0 to 1."""
    number = _number(text)
    if not 0 <= number <= 1:
        raise ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0


def add_gpu_options(parser: _ActionsContainer) -> None:
    """Those that `gpu_options` reads."""
    parser.add_argument(
        "--gpu-memory", type=positive, metavar="MB", help="most that ONNX Runtime takes of the GPU's memory [no limit]"
    )
    parser.add_argument(
        "--cuda-graph", action="store_true", help="replay captured CUDA graphs; tested when the model is opened"
    )
    parser.add_argument(
        "--engines",
        type=Path,
        metavar="FOLDER",
        help="keeps TensorRT's engines [facerecon-rt/engines in the user's cache folder]",
    )


def gpu_options(options: Namespace) -> GpuOptions:
    """What was given on the command line."""
    return GpuOptions(memory_mb=options.gpu_memory, cuda_graph=options.cuda_graph, engines=options.engines)

"""What command lines share: texts -> numbers, for argparse's `type`, and the options of GPUs.

Raises ArgumentTypeError, whose text argparse shows.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, _ActionsContainer
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from .addresses import without_secrets
from .gpu import GpuOptions
from .limits import MOST_FRAME_PIXELS
from .providers import MOST_THREADS

MOST_OF_ALL = 10**9
"""Of numbers for which no smaller one can be named."""
LONGEST_NAME = 4096
"""Bytes: of a path, to Linux."""
MOST_DIGITS = 20
"""Python itself refuses to read numbers of more than 4300."""


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


# Every number has a range: what is far outside of it would take minutes, or all the memory, before it fails.


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """A type of argparse's: `least`, ..., `most`."""

    def parse(text: str) -> int:
        number = int(text) if text.isdecimal() and len(text) <= MOST_DIGITS else -1
        if not least <= number <= most:
            raise ArgumentTypeError(f"{shown(text)} is not a whole number from {least} to {most}")
        return number

    return parse


def number_above_0(most: float) -> Callable[[str], float]:
    """A type of argparse's: any number above 0, up to `most`."""

    def parse(text: str) -> float:
        number = _number(text)
        if not 0 < number <= most:
            raise ArgumentTypeError(f"{shown(text)} is not a number above 0, up to {most:g}")
        return number

    return parse


whole = whole_number(0, MOST_OF_ALL)
positive = whole_number(1, MOST_OF_ALL)
positive_number = number_above_0(MOST_OF_ALL)
milliseconds = number_above_0(3_600_000)
frame_rate = number_above_0(1000)
gpu_megabytes = whole_number(1, 2**24)
threads = whole_number(1, MOST_THREADS)
seed = whole_number(0, 2**32 - 1)
batch = whole_number(1, 1024)
"""More crops at once only take memory."""


def name(text: str) -> str:
    """Of a file, a folder or a source."""
    if not text:
        # A path to pathlib, the current folder; on a command line, a variable that was never set.
        raise ArgumentTypeError("the name is empty")
    if len(text.encode("utf-8", "surrogateescape")) > LONGEST_NAME:
        raise ArgumentTypeError(f"{shown(text)} is longer than any name ({LONGEST_NAME} bytes)")
    return text


def unit(text: str) -> float:
    """A number from 0 to 1."""
    number = _number(text)
    if not 0 <= number <= 1:
        raise ArgumentTypeError(f"{shown(text)} is not a number from 0 to 1")
    return number


def size(text: str) -> tuple[int, int]:
    """As in 1280x720: (width, height) of a frame."""
    width, _, height = text.lower().partition("x")
    try:
        found = positive(width), positive(height)
    except ArgumentTypeError:
        raise ArgumentTypeError(f"{shown(text)} is not a size like 1280x720") from None
    if found[0] * found[1] > MOST_FRAME_PIXELS:
        raise ArgumentTypeError(f"{shown(text)} is more than {MOST_FRAME_PIXELS // 10**6} megapixels")
    return found


def host_and_port(text: str) -> tuple[str, int]:
    """As in 127.0.0.1:8080 or [::1]:8080."""
    host, colon, port = text.rpartition(":")
    host = host.strip("[]")
    number = int(port) if port.isdecimal() and len(port) <= MOST_DIGITS else -1
    if not (colon and host and 0 <= number < 2**16):
        raise ArgumentTypeError(
            f"{shown(text)}: give host and port (0 to 65535), as in 127.0.0.1:8080, or 0.0.0.0:8080 for all"
        )
    return host, number


def address(text: str) -> str:
    """One that `host_and_port` takes, as it is."""
    host_and_port(text)
    return text


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0


def shown(text: str) -> str:
    """In quotes, and of a text that is too long for a line its beginning."""
    return repr(text) if len(text) <= 80 else f"{text[:60]!r}..."


def add_gpu_options(parser: _ActionsContainer) -> None:
    """Those that `gpu_options` reads."""
    parser.add_argument(
        "--gpu-memory",
        type=gpu_megabytes,
        metavar="MB",
        help="most that ONNX Runtime takes of the GPU's memory [no limit]",
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

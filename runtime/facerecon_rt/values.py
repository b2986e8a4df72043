"""Texts of a command line or a configuration file -> numbers, names and addresses, each within a range.

Every function raises argparse.ArgumentTypeError with a message for the user, so it can be an argument's `type`.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable

from .limits import MOST_FRAME_PIXELS, MOST_THREADS

MOST_OF_ALL = 10**9
"""Of numbers for which no smaller one can be named."""
LONGEST_NAME = 4096
"""Bytes: of a path, to Linux."""
MOST_DIGITS = 20
"""Python itself refuses to read numbers of more than 4300."""


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

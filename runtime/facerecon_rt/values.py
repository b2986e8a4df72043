"""Texts of a command line or configuration file -> numbers, names and addresses, each within a range.

Every function raises argparse.ArgumentTypeError with a message for the user, so it can be the `type` of an argument.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable

from .limits import MOST_FRAME_PIXELS, MOST_THREADS

MOST_OF_ALL = 10**9
"""Limit of numbers that have no smaller natural limit."""
LONGEST_NAME = 4096
"""Maximum length of a path on Linux, in bytes."""
MOST_DIGITS = 20
"""Maximum number of digits to read. Python itself refuses more than 4300."""


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return an argparse type for whole numbers from `least` to `most`."""

    def parse(text: str) -> int:
        number = int(text) if text.isdecimal() and len(text) <= MOST_DIGITS else -1
        if not least <= number <= most:
            raise ArgumentTypeError(f"{shown(text)} is not a whole number from {least} to {most}")
        return number

    return parse


def number_above_0(most: float) -> Callable[[str], float]:
    """Return an argparse type for numbers above 0, up to `most`."""

    def parse(text: str) -> float:
        number = _number(text)
        if not 0 < number <= most:
            raise ArgumentTypeError(f"{shown(text)} is not a number above 0, up to {most:g}")
        return number

    return parse


def seconds_or_name(most: float) -> Callable[[str], float | str]:
    """Return an argparse type for a number of seconds above 0, up to `most`, or the name of a file."""
    seconds = number_above_0(most)

    def parse(text: str) -> float | str:
        try:
            float(text)
        except ValueError:
            return name(text)
        return seconds(text)

    return parse


whole = whole_number(0, MOST_OF_ALL)
positive = whole_number(1, MOST_OF_ALL)
milliseconds = number_above_0(3_600_000)
frame_rate = number_above_0(1000)
gpu_megabytes = whole_number(1, 2**24)
threads = whole_number(1, MOST_THREADS)
seed = whole_number(0, 2**32 - 1)
batch = whole_number(1, 1024)
"""Size of a batch of crops. More crops at once only take memory."""


def name(text: str) -> str:
    """Parse the name of a file, folder or source."""
    if not text:
        # pathlib reads an empty path as the current folder; on a command line it is a variable that was never set.
        raise ArgumentTypeError("the name is empty")
    if len(text.encode("utf-8", "surrogateescape")) > LONGEST_NAME:
        raise ArgumentTypeError(f"{shown(text)} is longer than a name can be ({LONGEST_NAME} bytes)")
    return text


def unit(text: str) -> float:
    """Parse a number from 0 to 1."""
    number = _number(text)
    if not 0 <= number <= 1:
        raise ArgumentTypeError(f"{shown(text)} is not a number from 0 to 1")
    return number


def size(text: str) -> tuple[int, int]:
    """Parse a frame size (width, height) in pixels, for example 1280x720."""
    width, _, height = text.lower().partition("x")
    try:
        found = positive(width), positive(height)
    except ArgumentTypeError:
        raise ArgumentTypeError(f"{shown(text)} is not a size like 1280x720") from None
    if found[0] * found[1] > MOST_FRAME_PIXELS:
        raise ArgumentTypeError(f"{shown(text)} is more than {MOST_FRAME_PIXELS // 10**6} megapixels")
    return found


def host_and_port(text: str) -> tuple[str, int]:
    """Parse a host and port, for example 127.0.0.1:8080 or [::1]:8080."""
    host, colon, port = text.rpartition(":")
    host = host.strip("[]")
    number = int(port) if port.isdecimal() and len(port) <= MOST_DIGITS else -1
    if not (colon and host and 0 <= number < 2**16):
        raise ArgumentTypeError(
            f"{shown(text)}: give host and port (0 to 65535), as in 127.0.0.1:8080, or 0.0.0.0:8080 for all"
        )
    return host, number


def address(text: str) -> str:
    """Check an address with `host_and_port`. Returns it unchanged."""
    host_and_port(text)
    return text


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0


def shown(text: str) -> str:
    """Return a text in quotes, shortened to its beginning if it is too long for a line."""
    return repr(text) if len(text) <= 80 else f"{text[:60]!r}..."

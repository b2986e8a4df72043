"""Errors of this package: one clear line and an exit code for each."""

from __future__ import annotations

import zipfile
import zlib
from tokenize import TokenError
from unicodedata import category

from .addresses import without_secrets

UNFIT = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories that a line of a log or a terminal must not hold: control characters, line ends, and the halves of
characters that stand for bytes outside of UTF-8."""


def one_line(text: str) -> str:
    """Return the text with unprintable characters escaped, since names of files may hold any character."""
    if text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if category(c) in UNFIT else c for c in text)


DAMAGED_ARRAYS = (
    OSError, ValueError, LookupError, EOFError, TypeError, AttributeError, NotImplementedError, RecursionError,
    SyntaxError, TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""Errors that numpy and zipfile raise for a damaged .npz or .npy file, found by flipping single bits."""


class FaceReconError(Exception):
    """Base of all errors that this package raises on purpose. The message is one line that says how to mend the
    problem. Addresses in it have no passwords or tokens."""

    exit_code: int = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(without_secrets(message)))


class UsageError(FaceReconError):
    """An argument or option is invalid, or an output cannot be written."""

    exit_code = 2


class ModelRefused(FaceReconError):
    """A model file is missing, not from this project, of another contract version, or unsafe to run."""

    exit_code = 3


class ProviderMissing(FaceReconError):
    """ONNX Runtime or the requested execution provider is missing."""

    exit_code = 4


class SourceError(FaceReconError):
    """A source is missing, unreadable or was lost."""

    exit_code = 5


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error, cut to 200 characters."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__

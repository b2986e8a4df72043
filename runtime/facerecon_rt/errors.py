"""What can go wrong -> one clear line and an exit code."""

from __future__ import annotations

from unicodedata import category

from .addresses import without_secrets

UNFIT = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of what no line of a log or a terminal may hold: control characters, ends of lines, and the
halves of characters that stand for bytes which are no text."""


def one_line(text: str) -> str:
    """The text with such characters as escapes: names of files may hold any."""
    if text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if category(c) in UNFIT else c for c in text)


class FaceReconError(Exception):
    """Base of every error this package raises on purpose. The message is one line that names the fix, and shows
    addresses without passwords and tokens."""

    exit_code: int = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(without_secrets(message)))


class UsageError(FaceReconError):
    """An argument or option makes no sense, or an output cannot be written."""

    exit_code = 2


class ModelRefused(FaceReconError):
    """A model file is missing, is not ours, has the wrong contract version, or asks for things no model should."""

    exit_code = 3


class ProviderMissing(FaceReconError):
    """ONNX Runtime, or the execution provider that was asked for, is not there."""

    exit_code = 4


class SourceError(FaceReconError):
    """A source is missing, unreadable or was lost."""

    exit_code = 5

"""Errors are one line each, whatever names they contain."""

from __future__ import annotations

import logging
import pickle

import pytest
from facerecon_rt.commands.log import OneLine
from facerecon_rt.errors import FaceReconError, ModelRefused, ProviderMissing, SourceError, UsageError, one_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain, ä, 中, 🙂, a\u00a0b", "plain, ä, 中, 🙂, a\u00a0b"),
        ("a\nb\r\n", "a\\nb\\r\\n"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\u2028\u2029\x85", "\\u2028\\u2029\\x85"),
        ("bytes that are no text: \udcff", "bytes that are no text: \\udcff"),
        ("\ud800", "\\ud800"),
        ("", ""),
    ],
)
def test_what_no_line_may_hold_is_escaped(text: str, line: str) -> None:
    assert one_line(text) == line
    assert str(UsageError(text)) == line
    record = logging.LogRecord("facerecon_rt", logging.INFO, "", 0, "%s", (text,), None)
    assert OneLine().format(record) == line


@pytest.mark.parametrize("kind", [FaceReconError, UsageError, ModelRefused, ProviderMissing, SourceError])
def test_errors_cross_processes_as_they_are(kind: type[FaceReconError]) -> None:
    again = pickle.loads(pickle.dumps(kind("a\nb")))
    assert (type(again), str(again), again.exit_code) == (kind, "a\\nb", kind.exit_code)
    assert str(kind()) == ""

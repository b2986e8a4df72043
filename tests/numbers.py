"""Numeric options on the command lines of all three commands."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, _SubParsersAction
from pathlib import Path

from facerecon_rt.commands.arguments import model_file
from facerecon_rt.values import name

NONSENSE = ("9" * 5000, "-1", "-9" * 3000, "nan", "inf", "1e309", "ten", "", " ", "0x10", "1_0" * 2000)


def assert_numbers_have_a_range(parser: ArgumentParser) -> int:
    """Check that each option that takes a number refuses nonsense itself, in a message shorter than a line. Returns the
    number of such options."""
    count = 0
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):  # commands within this one
            count += sum(assert_numbers_have_a_range(one) for one in action.choices.values())
        parse = action.type
        if parse in (None, Path, name, model_file):
            continue
        assert callable(parse)
        assert parse not in (int, float), action.option_strings
        count += 1
        for text in NONSENSE:
            if "seconds_or_name" in repr(parse) and not is_number(text):
                continue  # There the text is a file name.
            try:
                parse(text)
            except ArgumentTypeError as error:
                assert len(str(error)) < 250, action.option_strings
            else:
                raise AssertionError(f"{action.option_strings} takes {text[:20]!r}")
    return count


def is_number(text: str) -> bool:
    """Return whether Python reads a text as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True

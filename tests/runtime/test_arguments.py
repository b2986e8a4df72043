"""Numbers on a command line: those that make sense, and one line about the others."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable

import pytest
from facerecon_rt.arguments import Parser, positive, positive_number, unit, whole


@pytest.mark.parametrize(
    ("parse", "text", "number"),
    [
        (whole, "0", 0),
        (whole, "12", 12),
        (positive, "1", 1),
        (positive_number, "0.5", 0.5),
        (unit, "0", 0),
        (unit, "1", 1),
    ],
)
def test_numbers_that_make_sense_are_read(parse: Callable[[str], float], text: str, number: float) -> None:
    assert parse(text) == number


@pytest.mark.parametrize(
    ("parse", "texts"),
    [
        (whole, ("-1", "1.5", "", "ten")),
        (positive, ("0", "-1", "1.5", "")),
        (positive_number, ("0", "-2", "inf", "nan", "")),
        (unit, ("-0.1", "1.1", "nan", "half")),
    ],
)
def test_others_are_named(parse: Callable[[str], float], texts: tuple[str, ...]) -> None:
    for text in texts:
        with pytest.raises(ArgumentTypeError, match="is not a"):
            parse(text)


def test_an_option_that_there_is_not_is_said_before_those_that_are_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = Parser(prog="prog")
    parser.add_argument("--input", required=True)
    for given, said in (
        (["--inptu", "x"], "there is no option --inptu; did you mean --input?"),
        (["--colour=red", "--input", "x"], "there is no option --colour;"),
        (["--inp", "x"], "there is no option --inp; did you mean --input?"),
        ([], "the following arguments are required: --input"),
    ):
        with pytest.raises(SystemExit):
            parser.parse_args(given)
        assert said in capsys.readouterr().err

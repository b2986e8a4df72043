"""Numbers on a command line: valid ones are taken, and all others cause one line."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable

import pytest
from facerecon_rt.archive.cli import actors, archive_parser
from facerecon_rt.bench.cli import bench_parser, compare_parser
from facerecon_rt.commands.arguments import Parser
from facerecon_rt.commands.build import engine_parser
from facerecon_rt.commands.options import build_parser
from facerecon_rt.values import (
    address,
    batch,
    milliseconds,
    name,
    number_above_0,
    positive,
    size,
    threads,
    unit,
    whole,
    whole_number,
)

from tests.numbers import assert_numbers_have_a_range


@pytest.mark.parametrize(
    ("parse", "text", "number"),
    [
        (whole, "0", 0),
        (whole, "12", 12),
        (positive, "1", 1),
        (number_above_0(10**9), "0.5", 0.5),
        (unit, "0", 0),
        (unit, "1", 1),
        (whole_number(3, 7), "3", 3),
        (whole_number(3, 7), "7", 7),
        (number_above_0(0.5), "0.5", 0.5),
        (threads, "1024", 1024),
        (batch, "1024", 1024),
        (milliseconds, "33.3", 33.3),
    ],
)
def test_numbers_that_make_sense_are_read(parse: Callable[[str], float], text: str, number: float) -> None:
    assert parse(text) == number


@pytest.mark.parametrize(
    ("parse", "texts"),
    [
        (whole, ("-1", "1.5", "", "ten", "1000000001")),
        (positive, ("0", "-1", "1.5", "")),
        (number_above_0(10**9), ("0", "-2", "inf", "nan", "", "1e10")),
        (whole_number(3, 7), ("2", "8")),
        (number_above_0(0.5), ("0.51", "0")),
        (threads, ("0", "1025", "100000")),
        (batch, ("1025",)),
        (unit, ("-0.1", "1.1", "nan", "half")),
    ],
)
def test_others_are_named(parse: Callable[[str], float], texts: tuple[str, ...]) -> None:
    for text in texts:
        with pytest.raises(ArgumentTypeError, match="is not a"):
            parse(text)


def test_a_size_is_that_of_a_frame() -> None:
    assert size("1280x720") == (1280, 720)
    assert size("8192X8192") == (8192, 8192)
    for text in ("", "1280", "1280x", "x720", "0x720", "-1x5", "1e3x2", "8192x8193", f"{'9' * 5000}x1"):
        with pytest.raises(ArgumentTypeError, match=r"is not a size like 1280x720|is more than 67 megapixels"):
            size(text)


def test_an_address_is_a_host_and_a_port_that_there_can_be() -> None:
    for text in ("127.0.0.1:0", "localhost:65535", "[::1]:8080", ":::80"):
        assert address(text) == text
    for text in ("127.0.0.1", ":80", "host:", "host:-1", "host:65536", "host:8o", f"host:{'9' * 5000}"):
        with pytest.raises(ArgumentTypeError, match="give host and port") as said:
            address(text)
        assert len(str(said.value)) < 200


def test_a_name_is_none_that_no_file_can_have() -> None:
    assert name("a" * 4096) == "a" * 4096
    for text in ("", "a" * 4097, "ä" * 2049, "\udcff" * 4097):
        with pytest.raises(ArgumentTypeError, match=r"is empty|is longer than a name can be"):
            name(text)


def test_a_pool_of_actors_is_a_number_or_two() -> None:
    assert (actors("4"), actors("2-8"), actors("3-3")) == ((4, 4), (2, 8), (3, 3))
    for text in ("", "0", "8-2", "0-4", "2-", "-2", "two", "1000000", "9" * 5000):
        with pytest.raises(ArgumentTypeError, match="is not a number of actors"):
            actors(text)


@pytest.mark.parametrize("parser", [build_parser, bench_parser, compare_parser, archive_parser, engine_parser])
def test_every_number_of_every_command_has_a_range(parser: Callable[[], ArgumentParser]) -> None:
    assert assert_numbers_have_a_range(parser())


def test_an_option_that_there_is_not_is_said_before_those_that_are_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = Parser(prog="prog")
    parser.add_argument("--input", required=True)
    for given, said in (
        (["--inptu", "x"], "unknown option --inptu; did you mean --input?"),
        (["--colour=red", "--input", "x"], "unknown option --colour;"),
        (["--inp", "x"], "unknown option --inp; did you mean --input?"),
        ([], "the following arguments are required: --input"),
    ):
        with pytest.raises(SystemExit):
            parser.parse_args(given)
        assert said in capsys.readouterr().err

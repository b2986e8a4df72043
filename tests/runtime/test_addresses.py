"""Passwords and tokens are never shown, and everything else is."""

from __future__ import annotations

import logging
import pickle
from io import StringIO
from pathlib import Path

import pytest
from facerecon_rt.addresses import DistinctNames, path_of, public_name, safe_reason, split_user, without_secrets
from facerecon_rt.commands.arguments import Parser
from facerecon_rt.errors import SourceError
from facerecon_rt.sinks.mqtt import topic_of
from facerecon_rt.sinks.rerun import entity
from facerecon_rt.sinks.stems import stem_of


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("http://bob:pw@host/a.jpg", "http://host/a.jpg"),
        ("http://bob@host/a.jpg", "http://host/a.jpg"),
        ("rtsp://bob:p@w@host/door", "rtsp://host/door"),
        ("rtsp://bob:p/w@host/door", "rtsp://host/door"),
        ("rtsp://bob:p?w#x@host/door", "rtsp://host/door"),
        ("rtsp://bob:12/34@host/door", "rtsp://host/door"),
        ("rtsp://bob:p w@host/door", "rtsp://host/door"),
        ("http://bob:pw@[::1]:80/a", "http://[::1]:80/a"),
        ("http://host/a@2x.jpg", "http://host/a@2x.jpg"),
        ("http://host.org:8080/a@2x.jpg", "http://host.org:8080/a@2x.jpg"),
        ("http://[::1]:8080/a@2x.jpg", "http://[::1]:8080/a@2x.jpg"),
        ("s3://bucket/a@2x.jpg", "s3://bucket/a@2x.jpg"),
        ("http://host/a?X-Amz-Signature=ab&x=1", "http://host/a?X-Amz-Signature=***&x=1"),
        ("http://host/a?api_key=ab#c", "http://host/a?api_key=***#c"),
        ("http://host/a?passwd=", "http://host/a?passwd=***"),
        ("rtsp://host/user=bob_password=pw_channel=1", "rtsp://host/user=bob_password=***"),
        ("--input=http://bob:pw@host/a", "--input=http://host/a"),
        ("a@b/photo.jpg", "a@b/photo.jpg"),
    ],
)
def test_what_is_shown_of_an_address(uri: str, name: str) -> None:
    assert public_name(uri) == name
    assert public_name(name) == name
    assert without_secrets(f"cannot open '{name}'; check {name}, or ({name}).") == (
        f"cannot open '{name}'; check {name}, or ({name})."
    )


def test_addresses_are_found_in_texts() -> None:
    text = "2 inputs: http://bob:pw@a/x, rtsp://eve:pw@b/y?token=pw; lost (file://bob:pw@c)"
    assert without_secrets(text) == "2 inputs: http://a/x, rtsp://b/y?token=***; lost (file://c)"
    for example in ("write for example: {uri: 'rtsp://user:${PASSWORD}@host/door', name: door}", "http://h?key=${K}"):
        assert without_secrets(example) == example


def test_a_long_text_takes_no_longer_for_being_made_so() -> None:
    for text in ("x://" + "." * 200_000 + "a", "a" * 200_000 + "://b", "://" + "pass" * 50_000):
        assert without_secrets(text) == text


def test_an_error_shows_no_password_however_it_came_into_its_words() -> None:
    error = SourceError("cannot open http://bob:pw@host/a; check it")
    assert str(error) == "cannot open http://host/a; check it"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert safe_reason(ValueError("nonnumeric port:\n 'p@ss@host'"), "http://bob:p%40ss@host/") == (
        "nonnumeric port: '***@host'"
    )
    assert safe_reason(OSError(2, "No such file or directory", "http://bob:pw@h"), "x") == "No such file or directory"


def test_a_log_line_shows_no_password_whoever_handles_it() -> None:
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    log = logging.getLogger("facerecon_rt")
    log.addHandler(handler)
    try:
        log.error("%s is lost, %d times", "rtsp://bob:pw@host/door", 2)
    finally:
        log.removeHandler(handler)
    assert stream.getvalue() == "rtsp://host/door is lost, 2 times\n"


def test_a_mistake_on_the_command_line_shows_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Parser(prog="x").parse_args(["rtsp://bob:pw@host/door"])
    said = capsys.readouterr().err
    assert "rtsp://host/door" in said and "pw" not in said


def test_no_file_and_no_entity_is_named_after_a_password() -> None:
    assert stem_of("rtsp://bob:pw@host/door", live=True) == entity("rtsp://bob:pw@host/door").removeprefix("rtsp_")
    assert stem_of("rtsp://bob:pw@host/door", live=True) == "host_door"


@pytest.mark.parametrize(
    ("uri", "address", "user"),
    [
        ("http://host:80/a@2x.jpg", "http://host:80/a@2x.jpg", None),
        ("http://bob:p%40w@host:80/a@2x.jpg", "http://host:80/a@2x.jpg", ("bob", "p@w")),
        ("http://bob:p@w@host/a", "http://host/a", ("bob", "p@w")),
        ("http://bob:p/w@host/a", "http://host/a", ("bob", "p/w")),
        ("http://bob@host/a?b@c", "http://host/a?b@c", ("bob", "")),
    ],
)
def test_who_logs_in(uri: str, address: str, user: tuple[str, str] | None) -> None:
    assert split_user(uri) == (address, user)


def test_the_path_of_an_address_ends_where_its_query_begins() -> None:
    assert path_of("http://bob:pw@host/clip.mp4?token=a.jpg").suffix == ".mp4"
    assert path_of("why?.mp4") == Path("why?.mp4")


def test_two_sources_never_share_a_name() -> None:
    names = DistinctNames(topic_of)
    assert names("front (left)") == "front_left"
    assert names("front left") == "front_left_2"
    assert names("front/left") == "front_left_3"
    assert names("front (left)") == "front_left"

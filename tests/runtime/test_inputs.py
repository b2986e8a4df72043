"""sources.yaml, and changes to it while cameras come and go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from facerecon_rt.cli import main
from facerecon_rt.errors import SourceError, UsageError
from facerecon_rt.sources import live as module
from facerecon_rt.sources.camera import LiveOptions
from facerecon_rt.sources.inputs import Inputs
from facerecon_rt.sources.listing import ListedSource, listed_sources
from facerecon_rt.sources.live import LiveSource, LiveSources, SourceStatus
from facerecon_rt.types import Frame, Image

from .conftest import PaintSpots
from .mjpeg import MjpegServer

pytest.importorskip("yaml", reason="the extra `yaml` is not installed")
QUICK = LiveOptions(timeout_s=2.0)
Groups = Iterator[list[Frame]]


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 0.2)


@pytest.fixture
def servers() -> Iterator[list[MjpegServer]]:
    with MjpegServer(plain(100)) as one, MjpegServer(plain(200)) as other:
        yield [one, other]


def plain(level: int) -> list[Image]:
    return [np.full((48, 64, 3), level, np.uint8)]


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def until_seen(groups: Groups, *names: str) -> None:
    """Fetch frames until each of the sources has had a frame."""
    missing = set(names)
    for group in groups:
        missing -= {frame.source for frame in group}
        if not missing:
            return
    pytest.fail(f"no frame of {missing}")


def wait_for(holds: Callable[[], bool]) -> None:
    """Wait for a condition, at most half a minute. The test's own assertions fail if it never holds."""
    end = time.monotonic() + 30
    while not holds() and time.monotonic() < end:
        threading.Event().wait(0.02)


def status_of(inputs: Inputs, name: str) -> SourceStatus:
    (status,) = [status for status in inputs.statuses() if status.name == name]
    return status


NINE = "abcdefghi"
ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise(NINE)
)
"""450 bytes of nine lists of nine, one in the other: 387 million entries."""
MERGED = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n" for before, name in pairwise(NINE)
)


def test_a_list_says_how_each_source_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "s3cret")
    path = written(
        tmp_path / "sources.yaml",
        """
        sources:
          - uri: rtsp://anna:${PASSWORD}@host/door
            name: door
            flip: "180"
            size: 1280x720
            fps: 15
            timeout: 2.5
            retries: 3
          - cam0
          - clip.mp4
        """,
    )
    door, camera, clip = listed_sources([path], QUICK, retries=7)
    options = LiveOptions(timeout_s=2.5, size=(1280, 720), fps=15, flip="180")
    assert door == ListedSource("rtsp://anna:${PASSWORD}@host/door", "door", options, 3)
    assert camera == ListedSource("cam0", "cam0", QUICK, 7)
    assert clip == ListedSource(str(tmp_path / "clip.mp4"), str(tmp_path / "clip.mp4"), QUICK, 7)
    assert (door.live, camera.live, clip.live) == (True, True, False)


def test_a_bare_number_is_a_camera_and_a_path_is_none() -> None:
    number, path, long = listed_sources(["0", "./0", "1234"])
    assert (number.uri, number.name, number.live) == ("0", "cam0", True)
    assert not path.live and not long.live


def test_aliases_merges_and_what_yaml_takes_for_other_types_are_texts(tmp_path: Path) -> None:
    path = written(
        tmp_path / "sources.yaml",
        """
        - &door {uri: cam0, name: 2024-01-31, fps: 15, flip: 180, retries: 3}
        - {<<: *door, uri: cam1, name: no, retries: null}
        - {<<: [{fps: 5}, *door], uri: cam2, name: ~}
        - 2024
        """,
    )
    door, second, third, file = listed_sources([path], QUICK, retries=9)
    assert [one.name for one in (door, second, third)] == ["2024-01-31", "no", "cam2"]
    assert [one.options.fps for one in (door, second, third)] == [15, 15, 5]
    assert {one.options.flip for one in (door, second, third)} == {"180"}
    assert [one.retries for one in (door, second, third, file)] == [3, None, 3, 9]
    assert file.uri == str(tmp_path / "2024")


def test_ten_thousand_cameras_of_one_name_are_told_apart_at_once() -> None:
    names = [one.name for one in listed_sources(["http://a", "http://a#3", *["http://a"] * 10_000])]
    assert names[:5] == ["http://a", "http://a#3", "http://a#2", "http://a#4", "http://a#5"]
    assert len(set(names)) == len(names)


def test_a_list_is_a_file_of_a_sensible_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "device.yaml").symlink_to("/dev/zero")
    written(tmp_path / "large.yaml", "- cam0 # " + "x" * 2**20)
    for name, why in (("pipe", "a pipe or a device"), ("device", "a pipe or a device"), ("large", "more than 1048576")):
        with pytest.raises(SourceError, match=rf"cannot read .*/{name}\.yaml: it .*{why}"):
            listed_sources([str(tmp_path / f"{name}.yaml")])


def test_a_name_shows_no_password_and_is_nobody_elses(tmp_path: Path) -> None:
    uris = ["http://host/1?key=a", "http://host/1?key=b"]
    assert [one.name for one in listed_sources(uris)] == ["http://host/1?key=***", "http://host/1?key=***#2"]
    assert [one.name for one in listed_sources(["cam0", "cam0", "cam0"])] == ["cam0", "cam0#2", "cam0#3"]
    path = written(tmp_path / "a.yml", "[{uri: cam0, name: 'http://anna:secret@host/'}, {uri: cam1, name: door}]")
    assert [one.name for one in listed_sources([path])] == ["http://host/", "door"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "names no sources; write for example: sources:"),
        ("sources: []", "names no sources"),
        ("cam0", "names no sources"),
        ("[a: b: c", "is not valid YAML (line 1, column 6): expected"),
        ("- {name: door}", "source 1 has no uri; write for example"),
        ("- cam0\n- [7]", "source 2 has no uri"),
        ("- {uri: [cam0]}", "source 1 has no uri"),
        ("- {uri: {cam0: 1}}", "source 1 has no uri"),
        ("- {uri: cam0, name: [door]}", "source 1: name is a list or a mapping, but must be a text or a number"),
        ("- {uri: cam0, flip: {a: b}}", "source 1: flip is a list or a mapping"),
        ("- {uri: cam0, name: a}\n- {uri: cam1, name: a}", "two sources are called a; give each a name of its own"),
        ("- {uri: cam0, colour: red}", "source 1: unknown key 'colour'; choose from uri, name, size"),
        ("- {uri: cam0, size: big}", "source 1: size 'big' is not a size like 1280x720"),
        ("- {uri: cam0, fps: -1}", "source 1: fps '-1' is not a number above 0"),
        ("- {uri: cam0, timeout: soon}", "source 1: timeout 'soon' is not a number above 0"),
        ("- {uri: cam0, retries: often}", "source 1: retries 'often' is not a whole number"),
        ("- {uri: cam0, flip: over}", "source 1: unknown flip 'over'; choose from none, horizontal"),
        ("- {uri: cam0, timeout: 3000000}", "source 1: timeout '3000000' is not a number above 0, up to 3600"),
        # YAML's forms of numbers: base 60, 6000 digits, infinite, binary.
        (f"- {{uri: cam0, timeout: {':'.join(['59'] * 400)}.5}}", "source 1: timeout '59:59"),
        (f"- {{uri: cam0, retries: {':'.join(['59'] * 400)}}}", "source 1: retries '59:59"),
        (f"- {{uri: cam0, retries: {'9' * 6000}}}", "source 1: retries '9999"),
        ("- {uri: cam0, fps: .inf}", "source 1: fps '.inf' is not a number above 0"),
        ("- {uri: cam0, fps: .nan}", "source 1: fps '.nan' is not a number above 0"),
        ("- {uri: cam0, retries: 0b11}", "source 1: retries '0b11' is not a whole number"),
        ("- {uri: cam0, retries: yes}", "source 1: retries 'yes' is not a whole number"),
        ("- {uri: talk.mp4, name: door}", "source 1: name applies to cameras and streams"),
        ("- cam0\n- {uri: talk.mp4, flip: 180}", "source 2: flip applies to cameras and streams"),
        (
            '- {uri: cam0, name: "a\\nb"}',
            "is not valid YAML (line 1, column 21): a text with a control character",
        ),
        ('- {uri: cam0, name: "\\e[31mred"}', "is not valid YAML (line 1, column 21): a text with a control character"),
        ('- {uri: "cam0\\u2028"}', "is not valid YAML (line 1, column 9): a text with a control character"),
        ('- "rtsp://host/\\ud800"', "is not valid YAML (line 1, column 3): a text with a control character"),
        ('- {uri: cam0, "na\\0me": door}', "is not valid YAML (line 1, column 15): a text with a control character"),
        ('- "\\Uffffffff"', "is not valid YAML: it cannot be read"),
        ("- &a [*a]", "is not valid YAML"),
        ("- {uri: cam0, <<: 7}", "is not valid YAML (line 1, column 19): a << that does not refer to a mapping"),
        ("- {uri: cam0, ? [a] : b}", "is not valid YAML (line 1, column 17): a key that is not a text"),
        ("- cam0\n" * 10_001, "is not valid YAML (line 10000, column 3): more than 10000 entries"),
        (ALIASES, "more than 10000 entries, aliases included"),
        (MERGED, "more than 10000 entries, aliases included"),
        ("[" * 5000, "is not valid YAML"),
        (
            "- uri: rtsp://anna:s3cret@host/door: x",
            "is not valid YAML (line 1, column 36): mapping values are",
        ),
        (
            "- !!python/object/apply:os.system [ls]",
            "is not valid YAML (line 1, column 3): an entry that is not a text",
        ),
        ("- !!binary aGFsbG8=", "is not valid YAML (line 1, column 3): an entry that is not a text"),
    ],
)
def test_a_list_that_makes_no_sense_is_an_error_that_says_where(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        Inputs([written(tmp_path / "sources.yaml", text)])
    assert why in str(caught.value) and "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_an_address_that_lacks_its_variable_is_said_at_once(tmp_path: Path) -> None:
    path = written(tmp_path / "sources.yaml", "- rtsp://anna:${NOT_SET_ANYWHERE}@host/door")
    with pytest.raises(SourceError, match="the environment variable NOT_SET_ANYWHERE is not set"):
        Inputs([path])


def test_a_list_that_is_missing_is_a_missing_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot read .*none\.yaml: No such file"):
        Inputs([str(tmp_path / "none.yaml")])


def test_sources_come_and_go_while_others_go_on(
    tmp_path: Path, servers: list[MjpegServer], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    one, other = (server.uri for server in servers)
    path = tmp_path / "sources.yaml"
    inputs = Inputs([written(path, f"- {{uri: '{one}', name: one}}")], QUICK)
    with closing(inputs.groups()) as groups:
        until_seen(groups, "one")
        written(path, f"- {{uri: '{one}', name: one}}\n- {{uri: '{other}', name: other}}")
        inputs.reload()
        until_seen(groups, "one", "other")
        assert status_of(inputs, "one").losses == 0  # it stayed unchanged
        written(path, f"- {{uri: '{other}', name: other}}")
        inputs.reload()
        next(groups)
        assert {frame.source for _ in range(20) for frame in next(groups)} == {"other"}
        assert [status.name for status in inputs.statuses()] == ["other"]
        assert inputs.take_lost() == ["one"] and inputs.take_lost() == []
        assert "1 new, 0 removed, 0 changed or opened again, 2 in total" in caplog.text
        # The same name with other options.
        written(path, f"- {{uri: '{one}', name: other}}")
        inputs.reload()
        assert any(frame.image.mean() < 150 for _ in range(100) for frame in next(groups))
        assert "0 new, 0 removed, 1 changed or opened again, 1 in total" in caplog.text
    inputs.check()


def test_a_list_that_was_spoiled_changes_nothing(
    tmp_path: Path, servers: list[MjpegServer], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "sources.yaml"
    inputs = Inputs([written(path, f"- {{uri: '{servers[0].uri}', name: one}}")], QUICK)
    with closing(inputs.groups()) as groups:
        until_seen(groups, "one")
        for spoiled in ("[", "- photo.jpg"):
            written(path, spoiled)
            inputs.reload()
            until_seen(groups, "one")
    assert "sources.yaml is not valid YAML" in caplog.text
    assert "names no camera or stream" in caplog.text


def test_one_that_was_given_up_is_opened_anew(tmp_path: Path, servers: list[MjpegServer]) -> None:
    one, other = servers
    other.kill()
    text = f"- {{uri: '{one.uri}', name: one}}\n- {{uri: '{other.uri}', name: other, retries: 0}}"
    inputs = Inputs([written(tmp_path / "sources.yaml", text)], QUICK)
    with closing(inputs.groups()) as groups:
        until_seen(groups, "one")
        while status_of(inputs, "other").state != "given up":
            next(groups)
        assert "cannot open http://127.0.0.1" in status_of(inputs, "other").why
        other.start()
        inputs.reload()
        until_seen(groups, "other")
        assert status_of(inputs, "other").state == "open"
    inputs.check()


def test_a_list_that_is_changed_while_files_are_read_holds_when_cameras_are_opened(
    tmp_path: Path, servers: list[MjpegServer], spots: PaintSpots
) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), spots(64, 48, []))
    path = tmp_path / "sources.yaml"
    text = f"- photo.png\n- {{uri: '{servers[0].uri}', name: one}}"
    inputs = Inputs([written(path, text)], QUICK)
    with closing(inputs.groups()) as groups:
        next(groups)
        written(path, text.replace("name: one", "name: other"))
        inputs.reload()
        assert next(groups)[0].source == "other"


def test_a_source_that_comes_after_the_end_is_let_go(servers: list[MjpegServer]) -> None:
    sources = LiveSources()
    sources.close()
    late = LiveSource(servers[0].uri, QUICK, patient=True)
    sources.add(late)
    assert list(late) == []


def test_frames_are_counted_for_each_source(servers: list[MjpegServer], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "facerecon_rt")
    one, other = servers
    inputs = Inputs([one.uri, other.uri], QUICK)
    with closing(inputs.groups()) as groups:
        taken = [frame.source for _ in range(10) for frame in next(groups)]
        threading.Event().wait(0.5)  # 50 a second come
        status = status_of(inputs, one.uri)
        assert (status.state, status.losses, status.why) == ("open", 0, "")
        assert status.frames == taken.count(one.uri)
        assert status.skipped > 10
        one.kill()
        while status_of(inputs, one.uri).state != "lost":
            next(groups)
        assert status_of(inputs, one.uri).losses >= 1
    assert f"{other.uri}: " in caplog.text and " dropped" in caplog.text


def test_of_a_stream_that_gives_more_frames_than_are_wanted_some_are_passed_over(servers: list[MjpegServer]) -> None:
    with closing(Inputs([servers[0].uri], LiveOptions(timeout_s=2.0, fps=10)).groups()) as groups:
        frames = [frame for _ in range(5) for frame in next(groups)]
    for before, after in pairwise(frames):
        assert after.captured_at - before.captured_at > 0.05
        assert after.index > before.index + 1


def test_a_rate_below_one_frame_per_time_out_is_no_loss(servers: list[MjpegServer]) -> None:
    inputs = Inputs([servers[0].uri], LiveOptions(timeout_s=0.5, fps=1.0))
    with closing(inputs.groups()) as groups:
        for _ in range(3):
            next(groups)
        assert status_of(inputs, servers[0].uri).losses == 0


def test_a_file_is_read_before_cameras_and_a_missing_camera_is_said(tmp_path: Path, spots: PaintSpots) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), spots(64, 48, []))
    inputs = Inputs(["cam97", str(tmp_path / "photo.png")])
    assert [frame.still for group in inputs.groups() for frame in group] == [True]
    with pytest.raises(SourceError, match="1 of the 2 inputs could not be read: cam97"):
        inputs.check()


def test_the_command_reads_its_list_again_on_sighup(
    servers: list[MjpegServer], model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = (server.uri for server in servers)
    path, records = tmp_path / "sources.yaml", tmp_path / "records.jsonl"
    written(path, f"- {{uri: '{one}', name: one}}")

    def sources() -> set[str]:
        lines = records.read_text().split("\n")[:-1] if records.exists() else []  # the last may not be whole yet
        return {json.loads(line)["source"] for line in lines}

    def change() -> None:
        wait_for(lambda: "one" in sources())
        written(path, f"- {{uri: '{other}', name: other}}")
        os.kill(os.getpid(), signal.SIGHUP)
        wait_for(lambda: "other" in sources())
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=change, daemon=True).start()
    before = signal.getsignal(signal.SIGHUP)
    assert main(["--model", str(model), "--input", str(path), "--output", str(records), "--timeout", "2"]) == 130
    assert signal.getsignal(signal.SIGHUP) is before
    assert sources() == {"one", "other"}


def test_a_terminal_that_is_closed_leaves_whole_files(servers: list[MjpegServer], model: Path, tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"

    def hang_up() -> None:
        wait_for(lambda: records.exists() and records.read_text().count("\n") > 3)
        os.kill(os.getpid(), signal.SIGHUP)

    threading.Thread(target=hang_up, daemon=True).start()
    assert main(["--model", str(model), "--input", servers[0].uri, "--output", str(records), "--timeout", "2"]) == 130
    for line in records.read_text().splitlines():
        assert json.loads(line)["source"] == servers[0].uri


CLOSED_TERMINAL = """
import os, pty, signal, sys, threading, time
from pathlib import Path
master, slave = pty.openpty()
child = os.fork()
if child == 0:
    os.setsid()
    os.dup2(slave, 2)
    os.close(master)
    os.close(slave)
    from facerecon_rt.cli import main
    os._exit(main(sys.argv[2:]))
os.close(slave)
records = Path(sys.argv[1])
threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(master, 100), b"")], daemon=True).start()
end = time.monotonic() + 300
while not (records.exists() and records.read_text().count(chr(10)) > 3) and time.monotonic() < end:
    time.sleep(0.02)
os.close(master)
os.kill(child, signal.SIGHUP)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_terminal_that_is_gone_is_no_error_of_its_own(
    servers: list[MjpegServer], model: Path, tmp_path: Path
) -> None:
    records = tmp_path / "records.jsonl"
    command = [sys.executable, "-c", CLOSED_TERMINAL, str(records), "--model", str(model), "--input", servers[0].uri]
    done = subprocess.run([*command, "--output", str(records)], capture_output=True, text=True, timeout=400)
    assert done.stdout.splitlines()[-1:] == ["130"], done.stderr
    assert all(json.loads(line) for line in records.read_text().splitlines())

"""Paths that do not exist, lead into closed folders, or are not regular files: one line each, and no traceback."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from facerecon_rt.commands.outputs import changed_at
from facerecon_rt.errors import SourceError, UsageError
from facerecon_rt.paths import exists, file_and_reason, is_file, is_folder, is_utf8, read_file, resolved, status
from facerecon_rt.sinks.rerun import RerunSink
from facerecon_rt.sources.files import open_source

from tests.unprivileged import unprivileged

from .conftest import PaintSpots

TOO_LONG = "a" * 300
PHOTO = ["--input", "photo.png"]
COMMAND = [sys.executable, "-m", "facerecon_rt.cli"]


def test_what_is_there_is_said_of_every_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "dangling").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")
    found = {
        name: (exists(path), is_file(path), is_folder(path))
        for name in (
            "file",
            "folder",
            "link",
            "circle",
            "dangling",
            "pipe",
            TOO_LONG,
            "file/below",
            "zero\0byte",
            "\ud800",
        )
        for path in [tmp_path / name]
    }
    nothing = (False, False, False)
    assert found == {
        "file": (True, True, False),
        "folder": (True, False, True),
        "link": (True, True, False),
        "circle": nothing,
        "dangling": nothing,
        "pipe": (True, False, False),
        TOO_LONG: nothing,
        "file/below": nothing,
        "zero\0byte": nothing,
        "\ud800": nothing,
    }


def test_why_a_name_cannot_be_looked_at_is_an_oserror(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    assert status(tmp_path / "nothing") is None
    for name, number in ((TOO_LONG, errno.ENAMETOOLONG), ("circle", errno.ELOOP), ("a\0b", errno.EINVAL)):
        with pytest.raises(OSError) as caught:
            status(tmp_path / name)
        assert caught.value.errno == number
    assert resolved(tmp_path / "circle") == tmp_path / "circle"


def test_a_file_is_read_whole_and_nothing_else_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    assert read_file(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="it has more than 4 bytes"):
        read_file(tmp_path / "file", 4)
    for name in ("pipe", "device"):
        with pytest.raises(OSError, match="it is a pipe or a device, not a file"):
            read_file(tmp_path / name, 100)
    with pytest.raises(IsADirectoryError):
        read_file(tmp_path, 100)
    # The file claims the size 0, and still has content.
    assert read_file("/proc/self/status", 10**6).startswith(b"Name:")
    with pytest.raises(OSError, match="it has more than 10 bytes"):
        read_file("/proc/self/status", 10)


def test_what_is_no_utf_8_is_handed_to_no_library(tmp_path: Path) -> None:
    assert is_utf8("ä/\x1b") and not is_utf8("\udcff") and not is_utf8("\ud800")
    with pytest.raises(SourceError, match=r"http://127\.0\.0\.1:9/\\udcff holds bytes that are not UTF-8"):
        open_source("http://127.0.0.1:9/\udcff")
    pytest.importorskip("rerun", reason="the extra `rerun` is not installed")
    with pytest.raises(UsageError, match="Rerun accepts only names in UTF-8"):
        RerunSink(tmp_path / "\udcff.rrd", ["jawOpen"])


def test_an_error_of_the_system_is_one_line() -> None:
    assert file_and_reason(PermissionError(errno.EACCES, "Permission denied", "a/b")) == "a/b: Permission denied"
    assert file_and_reason(OSError("odd")) == "odd"
    assert file_and_reason(OSError()) == "OSError"


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder that may not be entered, with a photograph, a video, a report, a list of sources and a model file."""
    folder = tmp_path / "closed"
    folder.mkdir()
    for name in ("photo.jpg", "clip.mp4", "report.json", "sources.yaml", "face.onnx"):
        (folder / name).write_bytes(b"something")
    folder.chmod(0)
    yield folder
    folder.chmod(0o700)


WITH_A_MODEL = [
    (["--input", "closed"], 5, "cannot read closed: Permission denied"),
    (["--input", "closed/photo.jpg"], 5, "cannot read closed/photo.jpg: Permission denied"),
    (["--input", "closed/clip.mp4"], 5, "cannot read closed/clip.mp4: Permission denied"),
    (["--input", "closed/sources.yaml"], 5, "cannot read closed/sources.yaml: Permission denied"),
    (["--input", "unreadable.jpg"], 5, "cannot read unreadable.jpg: Permission denied"),
    (["--input", "unreadable.mp4"], 5, "cannot read unreadable.mp4: Permission denied"),
    (["--input", TOO_LONG], 5, f"cannot read {TOO_LONG}: File name too long"),
    (["--input", f"{TOO_LONG}.jpg"], 5, f"cannot read {TOO_LONG}.jpg: File name too long"),
    (["--input", f"{TOO_LONG}.yaml"], 5, f"cannot read {TOO_LONG}.yaml: File name too long"),
    ([*PHOTO, "--output", "closed/out.jsonl"], 2, "cannot write closed/out.jsonl: Permission denied"),
    ([*PHOTO, "--output", "closed/out/"], 2, "cannot write closed/out: Permission denied"),
    ([*PHOTO, "--output", "closed/out.jpg"], 2, "cannot write closed/out.jpg: Permission denied"),
    ([*PHOTO, "--output", f"{TOO_LONG}.mp4"], 2, f"cannot write {TOO_LONG}.mp4: File name too long"),
    ([*PHOTO, "--output", f"{TOO_LONG}/"], 2, f"cannot write {TOO_LONG}: File name too long"),
    ([*PHOTO, "--output", "circle.jpg"], 2, "cannot write circle.jpg: Too many levels of symbolic links"),
    ([*PHOTO, "--detector", "closed/face.onnx"], 3, "closed/face.onnx: cannot be read (Permission denied)"),
]
OF_OTHERS = [
    (
        ["--input", "photo.png", "--model", "closed/face.onnx"],
        3,
        "closed/face.onnx: cannot be read (Permission denied)",
    ),
    (["bench", "compare", "closed", "closed"], 2, "closed/report.json: cannot be read (Permission denied)"),
    (["bench", "compare", "pipe", "pipe"], 2, "pipe: cannot be read (it is a pipe or a device, not a file)"),
    (["bench", "compare", TOO_LONG, "closed"], 2, f"{TOO_LONG}: cannot be read (File name too long)"),
    (["build", "--model", "closed/face.onnx"], 3, "closed/face.onnx: cannot be read (Permission denied)"),
]
EACH = """
import contextlib, io, json, sys
from facerecon_rt.cli import main
for arguments in json.load(open("runs.json")):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main([*arguments, "--quiet"] if arguments[0].startswith("-") else arguments)
    print(json.dumps([code, said.getvalue()]), flush=True)
"""


def test_what_may_not_be_used_is_one_line(closed: Path, model: Path, tmp_path: Path, photo: Path) -> None:
    for name in ("unreadable.jpg", "unreadable.mp4"):
        (tmp_path / name).touch(mode=0)
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    os.mkfifo(tmp_path / "pipe")
    runs = [(["--model", str(model), *arguments], code, said) for arguments, code, said in WITH_A_MODEL] + OF_OTHERS
    (tmp_path / "runs.json").write_text(json.dumps([arguments for arguments, _, _ in runs]))
    done = unprivileged([sys.executable, "-c", EACH], tmp_path)
    assert done.returncode == 0, done.stderr
    ended = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(ended) == len(runs)
    for (arguments, code, said), (with_code, with_words) in zip(runs, ended, strict=True):
        assert (with_code, with_words.count("\n")) == (code, 1), (arguments, with_words)
        assert said in with_words


def test_what_is_closed_in_a_folder_is_skipped(closed: Path, model: Path, tmp_path: Path, photo: Path) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    photo.rename(folder / "b.png")
    (folder / "a.png").touch(mode=0)
    (folder / "c.jpg").symlink_to(closed / "photo.jpg")
    command = [*COMMAND, "--model", str(model), "--input", "photographs", "--output", "out.jsonl"]
    done = unprivileged(command, tmp_path)
    assert done.returncode == 5, done.stderr
    assert "2 of the 3 files of photographs could not be read whole: a.png, c.jpg" in done.stderr
    assert "skipped: cannot read photographs/a.png: Permission denied" in done.stderr
    assert "skipped: cannot read photographs/c.jpg: Permission denied" in done.stderr
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1


def test_a_file_that_goes_while_outputs_are_looked_at_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept").touch()
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter([folder / "kept", folder / "gone"]))
    assert changed_at(str(tmp_path)) == (tmp_path / "kept").stat().st_mtime_ns
    assert changed_at(str(tmp_path / "nothing.jsonl")) == 0
    assert changed_at(TOO_LONG) == 0


@pytest.fixture
def photo(spots: PaintSpots, tmp_path: Path) -> Path:
    assert cv2.imwrite(str(tmp_path / "photo.png"), spots(256, 192, [(0.5, 0.5)]))
    return tmp_path / "photo.png"

"""Files are complete or absent, and a link or file that waits under a name is left alone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from facerecon_rt.commands.outputs import check_inputs_stay
from facerecon_rt.errors import UsageError
from facerecon_rt.sinks.outputs import Partial, Rotation, check_writable, remove_abandoned, whole, write_whole
from facerecon_rt.sinks.pictures import jpeg, within, write_picture
from facerecon_rt.sinks.video import VideoSink
from facerecon_rt.sources.files import read_image
from facerecon_rt.types import Frame, Scene


def pictures(path: Path) -> None:
    write_picture(path.with_suffix(".jpg"), np.zeros((8, 8, 3), np.uint8))


def video(path: Path) -> None:
    with VideoSink(path.with_suffix(".mp4"), lambda scene: scene.frame.image) as sink:
        for index in range(3):
            sink.write(Scene(Frame(np.zeros((32, 32, 3), np.uint8), "x", index, still=False), ()))


def by_name(path: Path) -> None:
    with whole(path.with_suffix(".bin")) as partial:
        partial.write_bytes(b"new")


@pytest.mark.parametrize("write", [pictures, video, by_name, lambda path: check_writable(path.with_suffix(".obj"))])
def test_no_output_follows_a_link_that_waits_under_a_name_that_can_be_foreseen(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    folder = tmp_path / "out"
    folder.mkdir()
    for suffix in (".jpg", ".mp4", ".bin", ".obj"):
        (folder / f".x.partial{suffix}").symlink_to(precious)
        (folder / f"x{suffix}.part").symlink_to(precious)
    write(folder / "x")
    assert precious.read_text() == "precious"


def test_a_link_under_the_very_name_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attacker who knew the random part of the name would still gain nothing."""
    monkeypatch.setattr("facerecon_rt.sinks.outputs.secrets.token_hex", lambda count: "00")
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / ".x.00.partial.jpg").symlink_to(precious)
    with pytest.raises(UsageError, match=r"cannot write .*x\.jpg: File exists"):
        write_whole(tmp_path / "x.jpg", b"new")
    assert precious.read_text() == "precious"


def test_names_of_partial_files_are_new_each_time(tmp_path: Path) -> None:
    with Partial(tmp_path / "x.jpg") as one, Partial(tmp_path / "x.jpg") as other:
        assert one.path != other.path
        assert one.path.name.startswith(".x.") and one.path.name.endswith(".partial.jpg")
    assert not list(tmp_path.iterdir())


def test_a_file_may_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "x.jpg", b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.jpg").stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["a" * 251 + ".jpg", "ä" * 125 + ".jpg"])
def test_a_name_that_just_fits_the_disk_is_written(name: str, tmp_path: Path) -> None:
    write_whole(tmp_path / name, b"new")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_name_that_does_not_fit_the_disk_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot write .*: File name too long$"):
        write_whole(tmp_path / ("a" * 300 + ".jpg"), b"new")
    assert not list(tmp_path.iterdir())


def test_what_breaks_leaves_the_file_before_and_nothing_beside_it(tmp_path: Path) -> None:
    place = tmp_path / "x.bin"
    place.write_bytes(b"before")
    with pytest.raises(RuntimeError), whole(place) as partial:
        partial.write_bytes(b"half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]
    assert place.read_bytes() == b"before"


def test_what_a_killed_run_left_is_removed_and_what_another_one_writes_is_not(tmp_path: Path) -> None:
    place = tmp_path / "x.mp4"
    program = (
        "import sys, pathlib; from facerecon_rt.sinks.outputs import Partial\n"
        f"kept = Partial(pathlib.Path({str(place)!r})); print(kept.path.name, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, text=True) as running:
        assert running.stdout is not None
        name = running.stdout.readline().strip()
        remove_abandoned(place)
        assert (tmp_path / name).exists()
        running.kill()
    assert (tmp_path / name).exists()
    (tmp_path / ".x.00.partial.mkv").touch()
    with Partial(place) as own:
        remove_abandoned(place)
        assert own.path.exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([own.path.name, ".x.00.partial.mkv"])


@pytest.mark.parametrize(
    ("inputs", "target"),
    [
        (["a.jpg", "z.jpg"], "z.jpg"),
        (["a.jpg", "out_0002.jpg"], "out.jpg"),
        (["a.jpg", "out/b.jpg"], "out"),
        (["a.jpg", "out/b.jpg"], "out/"),
        (["a.jpg", "face_texture.png"], "face.obj"),
        (["a.jpg", "face_0003_texture.png"], "face.obj"),
        (["a.jpg", "take_000007.jpg"], "take_{frame}.jpg"),
        (["a.jpg", "link.jpg"], "z.jpg"),
        (["a.jpg", "link.jpg"], "link.jpg"),
        (["out/link.jpg"], "out/"),
    ],
)
def test_an_input_that_is_read_later_is_never_replaced(
    inputs: list[str], target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    for name in {*inputs, "z.jpg"} - {"link.jpg"}:
        (tmp_path / name).touch()
    for link in (tmp_path / "link.jpg", tmp_path / "out" / "link.jpg"):
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / "z.jpg")
    with pytest.raises(UsageError, match="choose another"):
        check_inputs_stay(map(Path, inputs), ["records.jsonl", target])
    check_inputs_stay(map(Path, inputs), ["other.jpg", "else/", "-", "mqtt://host", "livelink://host:11111"])
    # Numbers have at least four digits, and no output has a date for a number. A full video gets a free number.
    check_inputs_stay([Path("out_2.jpg"), Path("out_00002.jpg"), Path("out_20240101.jpg")], ["out.jpg"])
    check_inputs_stay([Path("clip_2024.mp4")], ["clip.mp4"])


def test_a_refused_video_leaves_its_input_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "b.mp4"
    path.write_bytes(b"precious")
    with VideoSink(path, lambda scene: scene.frame.image) as sink:
        sink.write(Scene(Frame(np.zeros((32, 32, 3), np.uint8), "a.mp4", still=False), ()))
        with pytest.raises(UsageError, match="would be overwritten"):
            sink.write(Scene(Frame(np.zeros((32, 32, 3), np.uint8), str(path), still=False), ()))
    assert path.read_bytes() == b"precious"
    assert [one.name for one in tmp_path.iterdir()] == ["b.mp4"]


def test_only_files_that_were_set_aside_are_counted_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    theirs = [tmp_path / "records_1999.jsonl", tmp_path / "records_20240101.jsonl"]
    for one in theirs:
        one.write_text("somebody else's")
    for number in range(4):
        path.write_text(str(number))
        Rotation(1, keep=2).set_aside(path)
    assert all(one.read_text() == "somebody else's" for one in theirs)
    ours = sorted(set(tmp_path.glob("records_*")) - set(theirs))
    assert [one.read_text() for one in ours] == ["2", "3"]
    (tmp_path / ".records.jsonl.rotated").write_text("not\na list")
    path.write_text("4")
    Rotation(1, keep=1).set_aside(path)
    assert all(one.exists() for one in [*theirs, *ours])


def test_files_that_another_program_moves_away_and_dates_with_a_time_cost_no_records(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    (tmp_path / "records_20240101120000.jsonl").write_text("somebody else's")
    for number in range(1, 6):
        path.write_text(str(number))
        Rotation(1, keep=1).set_aside(path)
        aside = tmp_path / f"records_{number:04d}.jsonl"
        assert aside.read_text() == str(number)
        if number < 4:
            aside.unlink()  # a log shipper has taken it
    assert not (tmp_path / "records_0004.jsonl").exists()
    assert (tmp_path / "records_20240101120000.jsonl").exists()


def test_a_picture_that_is_too_large_for_its_format_is_written_smaller(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "long.jpg"
    write_picture(path, np.full((70_000, 2, 3), 90, np.uint8))
    image = read_image(path)
    assert image.shape == (65_500, 2, 3)
    assert "65500" in caplog.text and "70000" in caplog.text
    assert within(image, None) is image
    decoded = cv2.imdecode(np.frombuffer(jpeg(np.zeros((4, 70_000, 3), np.uint8), 80), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None and decoded.shape[1] == 65_500

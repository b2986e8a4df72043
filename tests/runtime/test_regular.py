"""Files that are never opened because reading them may not end, and links in a circle that are followed once."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest
from facerecon_rt.errors import SourceError
from facerecon_rt.regular import begins_as_text, encodable, shown
from facerecon_rt.sources.files import open_source, read_image

VIDEOS = Path(__file__).parents[1] / "data" / "videos"


def write_photograph(path: Path) -> None:
    path.write_bytes(cv2.imencode(".png", np.zeros((4, 5, 3), np.uint8))[1].tobytes())


@pytest.mark.parametrize("name", ["pipe.jpg", "pipe.mp4", "pipe.unknown"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(SourceError, match=rf"{name} is a pipe, not a regular file; save its content to a file"):
        list(open_source(tmp_path / name))


def test_devices_sockets_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="/dev/zero is a device, not a regular file"):
        read_image("/dev/zero")
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(SourceError, match=r"folder\.jpg is a folder, not a regular file"):
        read_image(tmp_path / "folder.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.mp4"))
        with pytest.raises(SourceError, match=r"socket\.mp4 is a socket, not a regular file"):
            open_source(tmp_path / "socket.mp4")


def test_a_folder_goes_on_behind_a_pipe(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(tmp_path / "1.jpg")
    write_photograph(tmp_path / "2.png")
    with open_source(tmp_path) as source:
        assert [Path(frame.source).name for frame in source] == ["2.png"]
    assert "1.jpg is a pipe" in caplog.text


def test_links_to_a_folder_above_show_no_photograph_twice(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write_photograph(tmp_path / "a" / "photo.png")
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    # Another name for the same file is another photograph.
    (tmp_path / "a" / "other.png").symlink_to(tmp_path / "a" / "photo.png")
    with open_source(f"{tmp_path}/**/*.png") as source:
        assert sorted(Path(frame.source).name for frame in source) == ["other.png", "photo.png"]


def test_several_links_to_a_folder_above_take_no_time(tmp_path: Path) -> None:
    """With two links in a folder, there are 2**40 paths of up to 40 links."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    for folder in (tmp_path, tmp_path / "a" / "b", tmp_path / ".hidden"):
        write_photograph(folder / "photo.png")
    for name in ("up", "round", "above"):
        (tmp_path / "a" / name).symlink_to(tmp_path)
    found = [str(tmp_path / "a" / "b" / "photo.png"), str(tmp_path / "photo.png")]
    for pattern in ("**/*.png", "**/photo.*", "**"):
        with open_source(f"{tmp_path}/{pattern}") as source:
            assert sorted(frame.source for frame in source) == found
    with open_source(f"{tmp_path}/**/b/*.png") as source:
        assert [frame.source for frame in source] == found[:1]


def test_a_name_that_is_not_utf_8_has_another_for_a_while(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"vid\xe9o.mp4")
    shutil.copy(VIDEOS / "clip.mp4", path)
    with encodable(path) as name:
        name.encode("utf-8")
        assert name.endswith(".mp4")
        assert Path(name).read_bytes() == path.read_bytes()
    assert not Path(name).exists()
    with encodable(VIDEOS / "clip.mp4") as name:
        assert name == str(VIDEOS / "clip.mp4")


@pytest.mark.parametrize(
    ("start", "text"),
    [
        (b"some words\n" * 9, True),
        ("Wörter".encode() * 9, True),
        (b"ffconcat version 1.0\n\0\xff", True),
        (b"\n\n\t<html>\0", True),
        (b"RIFF    AVI LIST" + bytes(9), False),
        (b"\0\0\0\x20ftypisom", False),
        (b"\xff\xd8\xff\xe0", False),
        (b"GIF89a\1\0\1\0", False),
        (bytes(range(256)), False),
    ],
)
def test_texts_are_known_by_their_beginning(start: bytes, text: bool) -> None:
    assert begins_as_text(start) == text


def test_a_name_is_shown_in_utf_8() -> None:
    assert shown(os.fsdecode(b"f\xf6lder/vid\xe9o.mp4")) == r"f\xf6lder/vid\xe9o.mp4"
    assert shown("a\ud800b") == r"a\ud800b"
    assert shown("Gesicht ä 顔.jpg") == "Gesicht ä 顔.jpg"

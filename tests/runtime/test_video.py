"""Video files with common faults: interlaced, damaged, trimmed, with odd pixels or names. Both libraries read them."""

from __future__ import annotations

import logging
import os
import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from facerecon_rt.errors import SourceError
from facerecon_rt.sources.files import open_source
from facerecon_rt.sources.interlaced import converts_interlaced
from facerecon_rt.sources.video import VideoSource, open_reader
from facerecon_rt.types import Frame, Image

DATA = Path(__file__).parents[1] / "data"
VIDEOS = DATA / "videos"
CLIP = DATA / "talking_head.mp4"
CLIP_FRAMES = 150
QUARTER_CLOCKWISE = (0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)
MIRRORED = (-1 << 16, 0, 0, 0, 1 << 16, 0, 64 << 16, 0, 1 << 30)
pytestmark = pytest.mark.usefixtures("video_library")


def frames_of(path: Path) -> list[Frame]:
    with open_source(path) as source:
        return list(source)


def grey_of_frame(number: int) -> float:
    """Return the level of a frame of the grey videos in tests/data/videos. Their luma is 40 and 15 more per frame;
    black is 16 and white 235."""
    return (40 + 15 * (number % 12) - 16) * 255 / 219


def assert_grey_steps(frames: list[Frame], first: int = 0) -> None:
    levels = [float(frame.image.mean()) for frame in frames]
    assert levels == pytest.approx([grey_of_frame(first + number) for number in range(len(frames))], abs=4)


def with_matrix(path: Path, to: Path, matrix: tuple[int, ...]) -> Path:
    """Copy an MP4 with another matrix in the header of its track."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", *matrix)
    to.write_bytes(data)
    return to


def with_zeros(path: Path, to: Path, count: int) -> Path:
    """Copy a file with zeros in its middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + count] = bytes(count)
    to.write_bytes(data)
    return to


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# Interlaced


@pytest.mark.parametrize(
    "name", ["interlaced.mpg", "interlaced.mov", "interlaced.mp4", "interlaced.mts", "interlaced.avi"]
)
def test_interlaced_video_is_read_or_refused_and_never_shown_as_stale_memory(name: str, video_library: str) -> None:
    if video_library == "PyAV" or converts_interlaced():
        frames = frames_of(VIDEOS / name)
        assert len(frames) == 12
        assert_grey_steps(frames)
    else:
        with pytest.raises(
            SourceError, match=rf"{name} .*seems to be interlaced .* pip install 'facerecon-rt\[video\]'"
        ):
            frames_of(VIDEOS / name)


def test_a_video_in_which_nothing_moves_is_no_interlaced_one(caplog: pytest.LogCaptureFixture) -> None:
    frames = frames_of(VIDEOS / "still.mp4")
    assert len(frames) == 30
    assert {round(float(frame.image.mean())) for frame in frames} == {round((126 - 16) * 255 / 219)}
    assert not messages(caplog)


# Damaged, or only apparently


def test_reading_goes_on_behind_a_damaged_stretch_and_says_what_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with VideoSource(with_zeros(CLIP, tmp_path / "damaged.mp4", 20_000)) as source:
        frames = list(source)
    assert CLIP_FRAMES - 15 < len(frames) < CLIP_FRAMES - 2
    assert frames[-1].time_s == pytest.approx((CLIP_FRAMES - 1) / 25)
    assert source.lost.endswith(f"is damaged or cut short: {len(frames)} of {CLIP_FRAMES} frames could be read")
    assert messages(caplog) == [source.lost]


@pytest.mark.parametrize(
    ("name", "count"), [("trimmed.mp4", 32), ("late.mkv", 36), ("cover.mp4", 36), ("sound.mp4", 36)]
)
def test_a_healthy_video_is_not_called_damaged(name: str, count: int, caplog: pytest.LogCaptureFixture) -> None:
    with VideoSource(VIDEOS / name) as source:
        frames = list(source)
    assert len(frames) == count
    assert_grey_steps(frames, first=4 if name == "trimmed.mp4" else 0)
    assert frames[0].time_s == 0
    assert frames[-1].time_s == pytest.approx((count - 1) / 25, abs=1e-3)
    assert not source.lost
    assert not messages(caplog)


def test_a_broadcast_that_begins_anywhere_is_not_called_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = (VIDEOS / "clip.ts").read_bytes()
    path = tmp_path / "recorded.ts"
    path.write_bytes(data[len(data) // 5 // 188 * 188 :])
    assert 20 < len(frames_of(path)) < 36
    assert not messages(caplog)


@pytest.mark.parametrize("name", ["late.mkv", "sound.webm"])
def test_a_video_that_was_cut_short_is(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, video_library: str
) -> None:
    if video_library == "OpenCV" and not hasattr(cv2, "CAP_PROP_PTS"):
        pytest.skip("this OpenCV does not say when a video begins")
    data = (VIDEOS / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: len(data) * 2 // 3])
    count = len(frames_of(path))
    assert 5 < count < 34
    assert messages(caplog) == [f"{path} is damaged or cut short: {count} of 36 frames could be read"]


# Orientation and shape of frames


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("pixels_4_3.mp4", (64, 48)),
        ("pixels_64_45.mkv", (65, 48)),
        ("pixels_2_1.mp4", (64, 48)),
        ("pixels_4_5.mp4", (80, 60)),
    ],
)
def test_pixels_become_square(name: str, size: tuple[int, int]) -> None:
    for frame in frames_of(VIDEOS / name):
        assert frame.size == size
        width, height = extent_of_disc(frame.image)
        assert width == pytest.approx(height, abs=1.5)


def test_pixels_become_square_in_a_video_filmed_upright_too(tmp_path: Path) -> None:
    path = with_matrix(VIDEOS / "pixels_4_3.mp4", tmp_path / "upright.mp4", QUARTER_CLOCKWISE)
    frame = frames_of(path)[0]
    assert frame.size == (48, 64)
    width, height = extent_of_disc(frame.image)
    assert width == pytest.approx(height, abs=1.5)


def extent_of_disc(image: Image) -> tuple[int, int]:
    bright = image[..., 1] > 130
    return int(bright.any(axis=0).sum()), int(bright.any(axis=1).sum())


def test_a_mirrored_video_is_mirrored(tmp_path: Path, video_library: str) -> None:
    if video_library == "OpenCV":
        pytest.skip("OpenCV takes a mirror for half a turn")
    writer = cv2.VideoWriter(str(tmp_path / "plain.mp4"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
    corner = np.zeros((48, 64, 3), np.uint8)
    corner[:24, :32] = 255
    for _ in range(2):
        writer.write(corner)
    writer.release()
    image = frames_of(with_matrix(tmp_path / "plain.mp4", tmp_path / "mirrored.mp4", MIRRORED))[0].image
    assert [int(image[y, x, 0]) > 128 for y, x in ((5, 5), (5, 58), (42, 5), (42, 58))] == [False, True, False, False]


@pytest.mark.parametrize("name", ["two.mp4", "two.mkv"])
def test_the_larger_of_two_videos_in_a_file_is_read(
    name: str, video_library: str, caplog: pytest.LogCaptureFixture
) -> None:
    frames = frames_of(VIDEOS / name)
    assert len(frames) == 12
    assert_grey_steps(frames)
    if video_library == "PyAV":
        assert frames[0].size == (64, 48)
        assert not messages(caplog)
    elif name == "two.mp4":
        assert "holds videos of 3072 and 768 pixels a frame; OpenCV reads the first" in messages(caplog)[0]


def test_av1_is_read_or_its_refusal_names_it(video_library: str) -> None:
    if video_library == "PyAV":
        assert_grey_steps(frames_of(VIDEOS / "av1.mp4"))
        return
    capture = cv2.VideoCapture(str(VIDEOS / "av1.mp4"), cv2.CAP_FFMPEG)
    if capture.read()[0]:
        pytest.skip("this OpenCV decodes AV1")
    with pytest.raises(SourceError, match=r"av1\.mp4 holds AV1 video, .* pip install 'facerecon-rt\[video\]'"):
        frames_of(VIDEOS / "av1.mp4")


@pytest.mark.parametrize("suffix", [".mjpeg", ".mjpg"])
def test_raw_motion_jpeg_is_a_video(tmp_path: Path, suffix: str) -> None:
    pictures = [np.full((48, 64, 3), 4 * number, np.uint8) for number in range(60)]
    path = tmp_path / f"camera{suffix}"
    path.write_bytes(b"".join(cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures))
    frames = frames_of(path)
    assert [round(float(frame.image.mean()) / 4) for frame in frames] == list(range(60))
    assert not any(frame.still for frame in frames)


def test_a_title_in_another_alphabet_hinders_nobody(tmp_path: Path) -> None:
    data = (VIDEOS / "clip.mp4").read_bytes()
    assert b"VideoHandler" in data
    path = tmp_path / "latin1.mp4"
    path.write_bytes(data.replace(b"VideoHandler", "VidéoHandler".encode("latin-1")))
    assert len(frames_of(path)) == 36


# Names


def test_a_name_that_is_not_utf_8_is_read_like_any_other(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xf6lder"))
    folder.mkdir()
    video = folder / os.fsdecode(b"vid\xe9o.mp4")
    shutil.copy(VIDEOS / "clip.mp4", video)
    (folder / os.fsdecode(b"phot\xf4.png")).write_bytes(cv2.imencode(".png", np.zeros((4, 5, 3)))[1].tobytes())
    shutil.copy(folder / os.fsdecode(b"phot\xf4.png"), folder / os.fsdecode(b"phot\xf4.\xe9"))
    frames = frames_of(video)
    assert len(frames) == 36
    assert frames[0].source == str(video)
    assert frames_of(folder / os.fsdecode(b"phot\xf4.\xe9"))[0].size == (5, 4)
    assert len(frames_of(folder)) == 37


# Files that name other files


@pytest.mark.parametrize(
    "playlist",
    [
        b"ffconcat version 1.0\nfile secret.mp4\n#\xff",
        b"ffconcat version 1.0\nfile secret.mp4\n\0",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.ts\n#EXT-X-ENDLIST\n\xff\xff\n\0\0",
        b"ID3\x03\x00\x00\x00\x00\x00\x00ffconcat version 1.0\nfile secret.mp4\n" + bytes(32),
    ],
    ids=["odd byte", "zero byte", "m3u8", "id3"],
)
def test_a_playlist_named_like_a_video_opens_no_other_file(tmp_path: Path, playlist: bytes, video_library: str) -> None:
    for name in ("clip.mp4", "clip.ts"):
        shutil.copy(VIDEOS / name, tmp_path / name.replace("clip", "secret"))
    path = tmp_path / "list.mp4"
    path.write_bytes(playlist)
    with pytest.raises(SourceError, match=r"list\.mp4 is (a text|an audio) file, not a video"):
        frames_of(path)
    # The library does not follow names either, even in files that do not look like text.
    if b"EXTM3U" in playlist and video_library == "OpenCV":
        return  # OpenCV has one list of allowed protocols for files and streams
    with pytest.raises(SourceError, match=r"list\.mp4 cannot be opened as a video"):
        list(open_reader(path))

"""URIs -> frames: real files made by the tests, and cameras that follow a script."""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from cv2.typing import MatLike
from facerecon_rt.addresses import public_name
from facerecon_rt.errors import SourceError
from facerecon_rt.quiet import SILENT, opencv_log, quiet_opencv, silence_opencv
from facerecon_rt.sources.camera import MOST_FAILED_READS, CameraSource, LiveOptions
from facerecon_rt.sources.files import open_source, read_image
from facerecon_rt.types import Frame, Image


def red_left_half(width: int = 60, height: int = 40) -> Image:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2] = (0, 0, 255)
    return image


def write_image(path: Path, image: MatLike) -> Path:
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def write_video(path: Path, frames: int = 12, fps: float = 25.0, codec: str = "mp4v") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, (64, 48))
    noise = np.random.default_rng(0)
    for _ in range(frames):
        writer.write(noise.integers(0, 255, (48, 64, 3), np.uint8))
    writer.release()
    return path


def cut_short(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def exif_block(orientation: int) -> bytes:
    """Return a JPEG APP1 segment that holds only the orientation."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    return b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff


def frames_of(uri: str | Path) -> list[Frame]:
    with open_source(uri) as source:
        return list(source)


# Photographs


def test_a_photograph_is_one_still_frame(tmp_path: Path) -> None:
    path = write_image(tmp_path / "face.png", red_left_half())
    with open_source(path) as source:
        assert (source.name, source.live, source.still) == (str(path), False, True)
        (frame,) = source
    assert (frame.source, frame.index, frame.still, frame.fps, frame.size) == (str(path), 0, True, 0.0, (60, 40))
    assert frame.captured_at > 0
    assert frame.capture_ms > 0
    assert np.array_equal(frame.image, red_left_half())


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    jpeg = cv2.imencode(".jpg", red_left_half())[1].tobytes()
    path = tmp_path / "turned.jpg"
    path.write_bytes(jpeg[:2] + exif_block(6) + jpeg[2:])
    image = read_image(path)
    # Orientation 6: the camera stood on its side, the stored left is the true top.
    assert image.shape == (60, 40, 3)
    assert image[5, 20, 2] > 240
    assert image[-5, 20, 2] < 15


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, suffix: str) -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (4, 1))
    image = read_image(write_image(tmp_path / f"ramp{suffix}", ramp))
    assert image.dtype == np.uint8
    assert np.abs(image[0, :, 1].astype(int) - np.arange(256)).max() <= 1


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    image = read_image(write_image(tmp_path / "grey.png", np.full((4, 5), 77, np.uint8)))
    assert image.shape == (4, 5, 3)
    assert (image == 77).all()


def test_alpha_is_dropped(tmp_path: Path) -> None:
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[..., :3] = (10, 20, 30)
    assert read_image(write_image(tmp_path / "clear.png", clear))[0, 0].tolist() == [10, 20, 30]


def test_names_outside_ascii_are_read(tmp_path: Path) -> None:
    assert read_image(write_image(tmp_path / "Gesicht ä 顔.jpg", red_left_half())).shape == (40, 60, 3)


def test_a_twenty_megapixel_photograph_is_read(tmp_path: Path) -> None:
    assert read_image(write_image(tmp_path / "big.jpg", np.zeros((3888, 5184, 3), np.uint8))).shape == (3888, 5184, 3)


def test_an_image_with_a_strange_suffix_is_known_by_its_content(tmp_path: Path) -> None:
    path = write_image(tmp_path / "face.png", red_left_half()).rename(tmp_path / "face.download")
    assert frames_of(path)[0].still


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.txt", b"some words\n" * 200, "text file"),
        ("notes.jpg", b"some words\n" * 200, "text file"),
        ("notes.mp4", b"#EXTM3U\nhttp://example.org/a.ts\n", "text file"),
        ("empty.jpg", b"", "is empty"),
        ("empty.mp4", b"", "is empty"),
        ("noise.bin", bytes(range(256)) * 20, "if it is a video, give it a video suffix"),
        ("noise.mov", bytes(range(256)) * 20, "cannot be opened as a video"),
        ("iphone.heic", b"\0\0\0\x18ftypheic\0\0\0\0" + bytes(64), "convert it to JPEG"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceError, match=words) as caught:
        frames_of(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp"])
def test_a_photograph_cut_short_is_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    with pytest.raises(SourceError, match="cut short"):
        frames_of(cut_short(write_image(tmp_path / f"half{suffix}", noise), 0.5))


def test_a_bad_file_leaves_stderr_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    paths = [
        cut_short(write_image(tmp_path / "half.tif", noise), 0.5),
        cut_short(write_image(tmp_path / "half.jpg", noise), 0.5),
        cut_short(write_video(tmp_path / "half.mp4"), 0.5),
    ]
    capfd.readouterr()  # OpenCV's message about its own first video
    for path in paths:
        with pytest.raises(SourceError):
            frames_of(path)
    assert capfd.readouterr().err == ""


def test_a_missing_file_is_named() -> None:
    with pytest.raises(SourceError, match=r"nowhere\.jpg does not exist; give a camera"):
        open_source("nowhere.jpg")


# Videos


@pytest.mark.usefixtures("video_library")
def test_a_video_gives_every_frame_with_its_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "talk.mp4", frames=12, fps=20)
    with open_source(str(path)) as source:
        assert (source.name, source.live, source.still) == (str(path), False, False)
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(12))
    assert np.allclose([frame.time_s for frame in frames], np.arange(12) / 20, atol=1e-3)
    assert {(frame.source, frame.still, frame.fps) for frame in frames} == {(str(path), False, 20.0)}
    assert frames[0].image.shape == (48, 64, 3)
    assert not np.shares_memory(frames[0].image, frames[1].image)


@pytest.mark.usefixtures("video_library")
def test_a_video_filmed_upright_on_a_phone_is_upright(tmp_path: Path) -> None:
    path = tmp_path / "phone.mp4"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
    for _ in range(3):
        writer.write(red_left_half(64, 48))
    writer.release()
    # The matrix in the track header: a quarter turn clockwise, 16.16 and 2.30 fixed point.
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)
    path.write_bytes(data)
    image = frames_of(path)[0].image
    assert image.shape == (64, 48, 3)
    assert image[5, 24, 2] > 200
    assert image[-5, 24, 2] < 50


@pytest.mark.usefixtures("video_library")
def test_a_whole_video_ends_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames_of(write_video(tmp_path / "talk.mp4"))
    assert not caplog.records


@pytest.mark.usefixtures("video_library")
def test_a_truncated_video_gives_what_decodes_and_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = cut_short(write_video(tmp_path / "cut.avi", frames=30, codec="MJPG"), 0.6)
    frames = frames_of(path)
    assert 10 < len(frames) < 25
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("facerecon_rt", logging.WARNING)
    assert record.getMessage() == f"{path} is damaged or cut short: {len(frames)} of 30 frames could be read"


@pytest.mark.usefixtures("video_library")
def test_a_video_without_its_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cut\.mp4 cannot be opened as a video"):
        open_source(cut_short(write_video(tmp_path / "cut.mp4"), 0.5))


@pytest.mark.usefixtures("video_library")
def test_a_video_whose_frames_are_all_damaged_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "header.avi", frames=3, codec="MJPG")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"movi") + 12])
    with pytest.raises(SourceError, match=r"header\.avi"):
        frames_of(path)


@pytest.mark.usefixtures("video_library")
def test_closing_a_video_ends_the_iteration(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = open_source(write_video(tmp_path / "talk.mp4"))
    frames = iter(source)
    next(frames)
    source.close()
    assert list(frames) == []
    assert not source.lost
    assert not caplog.records


# Folders and globs


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """A folder with two photographs and a video whose names sort naturally, a text file, and a file that is only named
    like a photograph."""
    folder = tmp_path / "album"
    folder.mkdir()
    write_image(folder / "img10.jpg", red_left_half())
    write_image(folder / "img2.jpg", red_left_half())
    write_video(folder / "img3.mp4", frames=3)
    (folder / "img2.pts").write_text("version: 1")
    (folder / "img1.jpg").write_bytes(b"not a photograph")
    write_image(folder / ".hidden.jpg", red_left_half())
    return folder


def names_of(frames: list[Frame]) -> list[str]:
    return [Path(frame.source).name for frame in frames]


def test_a_folder_gives_photographs_and_videos_in_natural_order(album: Path) -> None:
    with open_source(album) as source:
        assert (source.name, source.live, source.still) == (str(album), False, False)
        frames = list(source)
    assert names_of(frames) == ["img2.jpg"] + ["img3.mp4"] * 3 + ["img10.jpg"]
    assert [frame.index for frame in frames] == [0, 0, 1, 2, 0]
    assert [frame.still for frame in frames] == [True, False, False, False, True]


def test_an_unreadable_file_in_a_folder_is_skipped_with_a_warning(
    album: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_source(album) as source:
        list(source)
    assert source.lost == f"1 of the 4 files of {album} could not be read whole: img1.jpg"
    assert [record.getMessage() for record in caplog.records] == [
        f"skipped: {album / 'img1.jpg'} is a text file, not a photograph",
        source.lost,
    ]


def test_a_damaged_video_in_a_folder_counts_and_the_files_behind_it_are_read(album: Path) -> None:
    whole = (Path(__file__).parents[1] / "data" / "talking_head.mp4").read_bytes()
    (album / "img4.mp4").write_bytes(whole[: len(whole) // 2] + bytes(20_000) + whole[len(whole) // 2 + 20_000 :])
    with open_source(f"{album}/img[2-9]*") as source:
        frames = list(source)
        assert source.lost == f"1 of the 3 files of {album}/img[2-9]* could not be read whole: img4.mp4"
    assert frames[-1].source == str(album / "img4.mp4")
    with open_source(f"{album}/img*0.jpg") as source:
        assert len(list(source)) == 1 and not source.lost


def test_a_glob_takes_what_matches(album: Path) -> None:
    with open_source(f"{album}/img*0.jpg") as source:
        assert source.still
        assert names_of(list(source)) == ["img10.jpg"]


def test_a_file_name_with_brackets_is_no_glob(tmp_path: Path) -> None:
    path = write_image(tmp_path / "face [1].jpg", red_left_half())
    assert names_of(frames_of(str(path))) == ["face [1].jpg"]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("words")
    with pytest.raises(SourceError, match=r"holds no photograph \(.jpg, .png, ...\) or video"):
        open_source(tmp_path)
    with pytest.raises(SourceError, match=r"holds no photograph \(.jpg, .png, ...\) or video"):
        open_source(f"{tmp_path}/*.png")


def test_a_folder_in_which_nothing_can_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"words")
    (tmp_path / "b.mp4").write_bytes(b"words")
    with pytest.raises(SourceError, match="none of the 2 files"):
        frames_of(tmp_path)


def test_closing_a_folder_ends_the_iteration(album: Path) -> None:
    source = open_source(album)
    frames = iter(source)
    next(frames)
    source.close()
    assert list(frames) == []


# Live sources


class ScriptedCapture:
    """A camera that shows each picture as soon as it may, and then disappears or hangs."""

    def __init__(self, frames: int, *, then_hang: bool = False) -> None:
        self.frames = frames
        self.then_hang = then_hang
        self.shown = 0
        self.all_shown = threading.Event()
        self.released = threading.Event()

    def grab(self) -> bool:
        if self.shown < self.frames:
            self.shown += 1
            return True
        self.all_shown.set()
        return self.then_hang and not self.released.wait(0.05)

    def retrieve(self) -> tuple[bool, MatLike]:
        return True, np.full((4, 4, 3), self.shown, np.uint8)

    def get(self, propId: int) -> float:
        return 30.0 if propId == cv2.CAP_PROP_FPS else 0.0

    def release(self) -> None:
        self.released.set()


class SilentCapture(ScriptedCapture):
    """A camera that opens and shows nothing until it is released."""

    def grab(self) -> bool:
        self.all_shown.wait(5)
        return False


def test_a_slow_reader_sees_only_the_newest_frame_and_then_the_loss() -> None:
    capture = ScriptedCapture(7)
    with CameraSource("cam0", capture) as source:
        assert (source.live, source.still) == (True, False)
        assert capture.released.wait(5)
        frames: Iterator[Frame] = iter(source)
        newest = next(frames)
        with pytest.raises(SourceError, match="cam0 was lost; check the cable"):
            next(frames)
    assert (newest.index, newest.source, newest.still, newest.fps) == (6, "cam0", False, 30.0)
    assert newest.image[0, 0, 0] == 7


def test_a_camera_that_shows_nothing_is_given_up() -> None:
    capture = SilentCapture(0)
    source = CameraSource("rtsp://host/door", capture, timeout_s=0.05)
    with pytest.raises(SourceError, match=r"gave no frame for 0\.05 s; check the network"):
        next(iter(source))
    capture.all_shown.set()
    source.close()
    assert capture.released.is_set()


def test_a_stream_that_cannot_be_decoded_is_named() -> None:
    with (
        CameraSource("http://host/a", ScriptedCapture(0)) as source,
        pytest.raises(SourceError, match="opened, but gave no frame that can be decoded"),
    ):
        next(iter(source))


class DamagedCapture(ScriptedCapture):
    """A camera of which the reads with some numbers fail."""

    def __init__(self, frames: int, damaged: set[int], *, undecoded: bool = False) -> None:
        super().__init__(frames, then_hang=True)
        self.damaged, self.undecoded, self.reads = damaged, undecoded, 0

    def grab(self) -> bool:
        self.reads += 1
        return (self.undecoded or self.reads not in self.damaged) and super().grab()

    def retrieve(self) -> tuple[bool, MatLike]:
        return self.reads not in self.damaged, super().retrieve()[1]


@pytest.mark.parametrize("undecoded", [False, True])
def test_a_damaged_frame_is_no_loss_and_many_are(undecoded: bool) -> None:
    short = DamagedCapture(9, set(range(3, 3 + MOST_FAILED_READS - 1)) | {35}, undecoded=undecoded)
    short.frames = 50
    with CameraSource("cam0", short) as source:
        assert short.all_shown.wait(5)
        assert next(iter(source)).image[0, 0, 0] == 50
    lost = DamagedCapture(50, set(range(3, 3 + MOST_FAILED_READS)), undecoded=undecoded)
    with CameraSource("cam0", lost) as source:
        assert lost.released.wait(5)
        frames = iter(source)
        assert next(frames).index == 1
        with pytest.raises(SourceError, match="cam0 was lost"):
            next(frames)


def test_closing_a_camera_releases_it_and_ends_the_iteration() -> None:
    capture = ScriptedCapture(1, then_hang=True)
    source = CameraSource("cam0", capture)
    frames = iter(source)
    next(frames)
    source.close()
    assert list(frames) == []
    assert capture.released.is_set()


@pytest.mark.parametrize("uri", ["cam97", "/dev/video97"])
def test_a_camera_that_is_not_there_is_named(uri: str) -> None:
    with pytest.raises(SourceError, match="there is no camera cam97"):
        open_source(uri)


def test_a_password_is_in_no_name_and_no_error() -> None:
    # Port 9 of this machine: refused at once, nothing leaves it.
    with pytest.raises(SourceError, match=r"cannot open rtsp://127\.0\.0\.1:9/door; check the address") as caught:
        open_source("rtsp://anna:se@cret@127.0.0.1:9/door", live=LiveOptions(timeout_s=1))
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("rtsp://anna:secret@host:554/door?channel=1", "rtsp://host:554/door?channel=1"),
        ("rtsp://anna:se/cret@host/door", "rtsp://host/door"),
        ("http://host/video?user=anna&password=secret&fps=5", "http://host/video?user=anna&password=***&fps=5"),
        ("cam0", "cam0"),
    ],
)
def test_a_public_name_keeps_the_address_only(uri: str, name: str) -> None:
    assert public_name(uri) == name


def test_an_unknown_scheme_is_refused_without_the_password() -> None:
    with pytest.raises(SourceError, match=r"cannot open ftp://host/a\.mp4; streams are rtsp://"):
        open_source("ftp://anna:secret@host/a.mp4")


@pytest.mark.parametrize(("asked", "level"), [(None, SILENT), ("ERROR", 2)])
def test_a_command_silences_opencv_unless_the_user_asks_for_its_log(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, level: int
) -> None:
    before = opencv_log.getLogLevel()
    monkeypatch.delenv("OPENCV_LOG_LEVEL", raising=False)
    if asked is not None:
        monkeypatch.setenv("OPENCV_LOG_LEVEL", asked)
    opencv_log.setLogLevel(2)
    try:
        silence_opencv()
        assert opencv_log.getLogLevel() == level
    finally:
        opencv_log.setLogLevel(before)


def test_opencv_gets_its_log_level_back_however_many_threads_silence_it() -> None:
    before = opencv_log.getLogLevel()
    opencv_log.setLogLevel(3)
    try:
        first, second = quiet_opencv(), quiet_opencv()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert opencv_log.getLogLevel() == SILENT
        second.__exit__(None, None, None)
        assert opencv_log.getLogLevel() == 3
    finally:
        opencv_log.setLogLevel(before)


def test_a_bracket_in_a_name_is_explained(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"write \[\[\] for a bracket"):
        open_source(f"{tmp_path}/set [2024]/a.jpg")

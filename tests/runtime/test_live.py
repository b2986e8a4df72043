"""Live sources that are killed, stalled, started again and changed: real streams on this machine."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from facerecon_rt.addresses import CSI, public_name
from facerecon_rt.cli import main
from facerecon_rt.errors import SourceError, UsageError
from facerecon_rt.sources import camera as camera_module
from facerecon_rt.sources import live as module
from facerecon_rt.sources.camera import CameraSource, LiveOptions, csi_pipeline, open_camera, with_environment
from facerecon_rt.sources.files import open_source
from facerecon_rt.sources.inputs import Inputs, limited
from facerecon_rt.sources.live import LONGEST_PAUSE_S, LiveSource, LiveSources, pause_s
from facerecon_rt.types import Frame, Image

from .conftest import PaintSpots
from .mjpeg import MjpegServer

QUICK = LiveOptions(timeout_s=2.0)


def plain(level: int, width: int = 64, height: int = 48) -> list[Image]:
    return [np.full((height, width, 3), level, np.uint8)]


def level_of(frame: Frame) -> int:
    return round(float(frame.image.mean()) / 10) * 10


class Nothing:
    """A capture that never has a frame, and reports that after a while."""

    def __init__(self, after_s: float = 0.0) -> None:
        self.after_s = after_s

    def grab(self) -> bool:
        threading.Event().wait(self.after_s)
        return False

    def retrieve(self) -> tuple[bool, Image]:
        return False, np.zeros((1, 1, 3), np.uint8)

    def get(self, propId: int) -> float:
        return 0.0

    def release(self) -> None:
        """Release nothing."""


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 0.2)


@pytest.fixture
def server() -> Iterator[MjpegServer]:
    with MjpegServer(plain(100)) as running:
        yield running


def until(frames: Iterator[Frame], level: int) -> Frame:
    """Return the first frame of this brightness."""
    return next(frame for frame in frames if level_of(frame) == level)


def test_pauses_grow_to_half_a_minute_and_leave_something_to_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 1.0)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", LONGEST_PAUSE_S)
    assert [pause_s(attempt, 0.0) for attempt in (1, 2, 3, 5, 6, 1000)] == [1, 2, 4, 16, 30, 30]
    assert pause_s(2, 1.0) == 1.0


def test_a_stream_that_is_killed_and_started_again_is_found_again(
    server: MjpegServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "facerecon_rt")
    with open_source(server.uri, live=QUICK) as source:
        frames = iter(source)
        before = until(frames, 100)
        server.kill()
        server.show(plain(200))
        threading.Timer(0.5, server.start).start()
        after = until(frames, 200)
        assert after.index > before.index
        assert after.time_s > before.time_s
        assert after.captured_at > before.captured_at
        assert isinstance(source, LiveSource) and source.losses >= 1
        assert after.source == server.uri
    assert "was lost; reconnecting in" in caplog.text
    assert "is connected again" in caplog.text


def test_a_stream_that_stalls_is_opened_again(server: MjpegServer) -> None:
    with open_source(server.uri, live=LiveOptions(timeout_s=0.6)) as source:
        frames = iter(source)
        until(frames, 100)
        server.stall()
        threading.Timer(1.5, server.go_on).start()
        server.show(plain(200))
        assert until(frames, 200)


def test_a_stream_may_come_back_in_another_size(server: MjpegServer) -> None:
    with open_source(server.uri, live=QUICK) as source:
        frames = iter(source)
        assert until(frames, 100).size == (64, 48)
        server.kill()
        server.show(plain(200, 128, 96))
        server.start()
        assert until(frames, 200).size == (128, 96)


def test_a_stream_that_does_not_answer_keeps_no_other_from_opening(server: MjpegServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        nowhere = f"http://127.0.0.1:{silent.getsockname()[1]}/live.mjpg"
        silent_source = LiveSource(nowhere, LiveOptions(timeout_s=4.0), patient=True)
        waiting = threading.Thread(target=lambda: list(silent_source))
        waiting.start()
        threading.Event().wait(0.5)
        with open_source(server.uri, live=QUICK) as source:
            assert next(iter(source)).size == (64, 48)
            assert not silent_source.losses  # it still waits for an answer
        silent_source.close()
        waiting.join(20)


def test_frames_that_are_too_large_are_refused(server: MjpegServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_module, "MOST_FRAME_PIXELS", 100 * 100)
    with open_source(server.uri, live=QUICK) as source:
        assert next(iter(source)).size == (64, 48)
    server.show(plain(200, 128, 96))
    with pytest.raises(SourceError, match="has frames of 128x96, more than 0 megapixels"):
        open_source(server.uri, live=QUICK)


def test_indices_only_grow(server: MjpegServer) -> None:
    with open_source(server.uri, live=QUICK) as source:
        frames = iter(source)
        seen = list(islice(frames, 5))
        server.kill()
        server.start()
        seen += islice(frames, 5)
    assert all(later.index > earlier.index for earlier, later in pairwise(seen))


def test_attempts_that_are_used_up_end_it(server: MjpegServer) -> None:
    with open_source(server.uri, live=QUICK, retries=2) as source:
        frames = iter(source)
        until(frames, 100)
        server.kill()
        with pytest.raises(SourceError, match="cannot open http://127"):
            list(frames)


def test_closing_wakes_a_source_that_waits_to_open_again(server: MjpegServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 60.0)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 60.0)
    with open_source(server.uri, live=QUICK) as source:
        frames = iter(source)
        until(frames, 100)
        server.kill()
        threading.Timer(0.5, source.close).start()
        assert all(level_of(frame) == 100 for frame in frames)  # and ends


class Once(Nothing):
    """A capture that has one frame."""

    def __init__(self) -> None:
        super().__init__()
        self._left = [True]

    def grab(self) -> bool:
        return bool(self._left and self._left.pop())

    def retrieve(self) -> tuple[bool, Image]:
        return True, np.zeros((8, 8, 3), np.uint8)


def test_a_loss_is_told_after_the_last_frame() -> None:
    def once(uri: str, options: LiveOptions) -> CameraSource:
        return CameraSource(uri, Once())

    with LiveSources([LiveSource("cam0", open_once=once, patient=True, retries=0)]) as sources:
        groups = sources.groups()
        while not sources.given_up:
            threading.Event().wait(0.001)
        assert sources.take_lost() == []  # its frame waits
        assert [frame.source for frame in next(groups)] == ["cam0"]
        assert sources.take_lost() == ["cam0"]
        with pytest.raises(SourceError, match="cam0"):
            next(groups)


def test_the_loss_of_the_only_stream_is_told_at_once(server: MjpegServer) -> None:
    with LiveSources([LiveSource(server.uri, QUICK)]) as sources:
        groups = sources.groups()
        next(groups)
        assert sources.take_lost() == []
        server.kill()
        while not (lost := sources.take_lost()):
            next(groups)
        assert lost == [sources.statuses()[0].name]


def test_one_dead_stream_stops_no_other(server: MjpegServer) -> None:
    with MjpegServer(plain(200)) as other:
        nowhere = "http://127.0.0.1:9/live.mjpg"
        uris = (server.uri, nowhere, other.uri)
        with LiveSources([LiveSource(uri, QUICK, patient=True) for uri in uris]) as sources:
            frames = iter(sources)
            assert {frame.source for frame in islice(frames, 30)} == {server.uri, other.uri}
            other.kill()
            for _ in range(30):
                assert next(frames).source in (server.uri, other.uri)
            other.start()
            assert next(frame for frame in frames if frame.source == other.uri)


def test_frames_that_come_together_are_given_together(server: MjpegServer) -> None:
    with MjpegServer(plain(200)) as other:
        uris = (server.uri, other.uri)
        with LiveSources([LiveSource(uri, QUICK, patient=True) for uri in uris]) as sources:
            groups = list(islice(sources.groups(most_delay_s=0.5), 20))
    for group in groups:
        assert len({frame.source for frame in group}) == len(group)
    assert sum(len(group) == 2 for group in groups) > 10


def test_a_stream_that_is_given_up_among_others_is_an_error_at_the_end(server: MjpegServer) -> None:
    nowhere = "http://127.0.0.1:9/live.mjpg"
    inputs = Inputs([server.uri, nowhere], QUICK, retries=1)
    with closing(limited(inputs.groups(), 30)) as some:
        for _ in some:
            threading.Event().wait(0.02)
    with pytest.raises(SourceError, match="1 of the 2 inputs could not be read: http://127"):
        inputs.check()


def test_two_channels_that_differ_in_what_is_not_shown_are_told_apart(server: MjpegServer) -> None:
    uris = [f"{server.uri}?key=cam{number}" for number in (1, 2)]
    public = server.uri + "?key=***"
    with closing(limited(Inputs(uris, QUICK).groups(), 20)) as groups:
        assert {frame.source for group in groups for frame in group} == {public, f"{public}#2"}


def test_stalled_streams_are_closed_together() -> None:
    def open_once(uri: str, options: LiveOptions) -> CameraSource:
        return CameraSource(uri, Nothing(after_s=6.0))

    sources = LiveSources([LiveSource(f"cam{number}", open_once=open_once) for number in range(4)])
    closing_one = threading.Thread(target=sources.close)
    closing_one.start()
    closing_one.join(5)
    assert not closing_one.is_alive()  # one after the other would be 8 seconds


def test_when_all_are_given_up_it_ends() -> None:
    nowhere = [f"http://127.0.0.1:9/{number}.mjpg" for number in range(2)]
    sources = LiveSources([LiveSource(uri, QUICK, retries=1, patient=True) for uri in nowhere])
    with sources, pytest.raises(SourceError, match=r"cannot open http://127\.0\.0\.1:9/.*; cannot open http://127"):
        list(sources)


def test_a_picture_is_turned_as_asked(server: MjpegServer) -> None:
    half = np.zeros((48, 64, 3), np.uint8)
    half[:, :32] = 200
    server.show([half])
    for flip, bright in (("none", (12, 10)), ("horizontal", (12, 54)), ("180", (36, 54))):
        with open_source(server.uri, live=LiveOptions(timeout_s=2.0, flip=flip)) as source:
            assert next(iter(source)).image[bright].mean() > 150
    with pytest.raises(UsageError, match="unknown flip 'diagonal'; choose from none, horizontal"):
        LiveOptions(flip="diagonal")


def test_passwords_come_from_the_environment_and_go_nowhere(
    server: MjpegServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", "s3cret")
    uri = server.uri.replace("://", "://anna:${CAMERA_PASSWORD}@")
    assert "anna:s3cret@" in with_environment(uri)
    with open_source(uri, live=QUICK) as source:
        assert next(iter(source)).source == server.uri
    nowhere = "http://127.0.0.1:9/${CAMERA_PASSWORD}/live?code=${CAMERA_PASSWORD}"
    with pytest.raises(SourceError) as caught:
        open_source(nowhere, live=QUICK)
    assert "s3cret" not in str(caught.value)
    assert public_name("http://host/1?pwd=ab/s3cret&channel=1") == "http://host/1?pwd=***&channel=1"
    monkeypatch.delenv("CAMERA_PASSWORD")
    with pytest.raises(
        SourceError, match=r"environment variable CAMERA_PASSWORD is not set; export CAMERA_PASSWORD=\.\.\."
    ):
        open_source(uri)


def test_a_csi_camera_is_a_gstreamer_pipeline_and_says_what_it_needs() -> None:
    assert CSI.fullmatch("csi://1")
    pipeline = csi_pipeline(1, LiveOptions(size=(1920, 1080), fps=60))
    assert pipeline.startswith("nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1920,height=1080,")
    assert "framerate=60/1" in pipeline and pipeline.endswith("appsink drop=true max-buffers=1 sync=false")
    with pytest.raises(SourceError, match="this OpenCV was built without GStreamer"):
        open_source("csi://0")


def test_a_v4l2_address_is_a_camera() -> None:
    with pytest.raises(SourceError, match="there is no camera cam97"):
        open_camera("v4l2:///dev/video97")


def test_a_camera_that_opens_and_gives_nothing_is_not_back() -> None:
    opened: list[str] = []

    def open_once(uri: str, options: LiveOptions) -> CameraSource:
        opened.append(uri)
        return CameraSource(uri, Nothing())

    with (
        LiveSource("cam0", retries=3, open_once=open_once) as source,
        pytest.raises(SourceError, match="cam0 was opened, but gave no frame that can be decoded"),
    ):
        list(source)
    assert len(opened) == 1 + 3


def test_the_command_reads_several_streams_at_once(
    server: MjpegServer, model: Path, spots: PaintSpots, tmp_path: Path
) -> None:
    records = tmp_path / "records.jsonl"
    with MjpegServer([spots(256, 192, [(0.5, 0.5)])]) as other:
        inputs = [argument for uri in (server.uri, other.uri) for argument in ("--input", uri)]
        arguments = ["--model", str(model), *inputs, "--frames", "100", "--output", str(records), "--timeout", "5"]
        assert main(arguments) == 0
        sources = [json.loads(line)["source"] for line in records.read_text().splitlines()]
    assert len(sources) == 100
    assert set(sources) == {server.uri, other.uri}


def test_each_of_several_cameras_has_a_video_of_its_own(
    server: MjpegServer, model: Path, spots: PaintSpots, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.show([spots(256, 192, [(0.3, 0.5)])])
    with MjpegServer([spots(256, 192, [(0.5, 0.5)])]) as other:
        common = ["--model", str(model), "--input", server.uri, other.uri, "--frames", "100", "--timeout", "5"]
        assert main([*common, "--output", f"{tmp_path}/out/"]) == 0
        assert main([*common, "--output", f"{tmp_path}/out.mp4"]) == 2
    assert "is one video, but the inputs are or may become several cameras; give a folder" in capsys.readouterr().err
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert sum(name.endswith(".mp4") for name in names) == 2
    assert sum(name.endswith("_track1.obj") for name in names) == 2


def test_the_command_gives_up_when_it_is_told_to(
    server: MjpegServer, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threading.Timer(1.0, server.kill).start()
    output = ["--output", str(tmp_path / "records.jsonl")]
    assert main(["--model", str(model), "--input", server.uri, "--retries", "1", "--timeout", "1", *output]) == 5
    assert "cannot open http://127.0.0.1" in capsys.readouterr().err


class Ticking(Nothing):
    """A capture with a frame at every tick of a clock of its own, for ten seconds."""

    def __init__(self, fps: float) -> None:
        super().__init__()
        self.fps, self.now, self.kept = fps, 0.0, 0

    def grab(self) -> bool:
        self.now += 1 / self.fps
        return self.now < 10

    def retrieve(self) -> tuple[bool, Image]:
        self.kept += 1
        return True, np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize(("fps", "most"), [(30, 25), (30, 24), (30, 20), (30, 15), (60, 50), (30, 30), (25, 30)])
def test_no_more_frames_are_kept_than_asked_and_no_fewer(fps: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = Ticking(fps)
    monkeypatch.setattr(camera_module, "time", SimpleNamespace(monotonic=lambda: capture.now))
    camera = CameraSource("cam0", capture, most_fps=most)
    camera._grabber.join(10)
    assert capture.kept == pytest.approx(10 * min(fps, most), abs=2)


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), cv2.error("broken\ndriver")])
def test_an_error_of_the_driver_is_a_loss_with_its_reason(error: Exception) -> None:
    def fail(uri: str, options: LiveOptions) -> CameraSource:
        raise error

    source = LiveSource("cam0", QUICK, retries=2, patient=True, open_once=fail)
    with LiveSources([source]) as sources, pytest.raises(SourceError, match=r"cam0: .*(Too many open files|broken)"):
        list(sources)
    assert source.losses == 1


def test_a_fault_in_a_reading_thread_ends_the_source_and_not_in_silence() -> None:
    def fail(uri: str, options: LiveOptions) -> CameraSource:
        raise RuntimeError("a fault of the program")

    sources = LiveSources([LiveSource("cam0", QUICK, patient=True, open_once=fail)])
    with sources, pytest.raises(SourceError, match="cam0 failed: a fault of the program"):
        list(sources)

"""A real RTSP server (GStreamer's, with H.264 of the test clip) that is killed, stalled, restarted, changed and
locked."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest
from facerecon_rt.cli import main
from facerecon_rt.errors import SourceError
from facerecon_rt.sources import live as module
from facerecon_rt.sources.camera import LiveOptions
from facerecon_rt.sources.files import open_source
from facerecon_rt.types import Frame

HERE = Path(__file__).parent
CLIP = HERE.parent / "data" / "talking_head.mp4"
MODEL = HERE.parents[1] / "models" / "face.onnx"
PYTHON = "/usr/bin/python3"
"""The system's, for which Debian packages GStreamer's bindings."""
NEEDED = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
ELEMENTS = ("x264enc", "jpegdec", "rtph264pay")
QUICK = LiveOptions(timeout_s=3.0)


def gstreamer_there() -> bool:
    if not Path(PYTHON).exists():
        return False
    asked = f"{NEEDED}; from gi.repository import Gst; Gst.init(None); "
    asked += f"assert all(Gst.ElementFactory.find(name) for name in {ELEMENTS})"
    return subprocess.run([PYTHON, "-c", asked], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(
    not gstreamer_there(), reason="GStreamer's RTSP server is not installed (tests/runtime/rtsp_server.py says how)"
)


class RtspServer:
    """The server in another process. It keeps its port over restarts."""

    def __init__(self, pictures: Path, *account: str) -> None:
        self.pictures = pictures
        self._account = account
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.start()

    @property
    def uri(self) -> str:
        return f"rtsp://127.0.0.1:{self._port}/live"

    def start(self) -> None:
        command = [PYTHON, f"{HERE}/rtsp_server.py", str(self._port), f"{self.pictures}/%05d.jpg", *self._account]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 0.5)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Function that returns a folder with frames of the clip in a given width."""

    def of_width(width: int) -> Path:
        folder = tmp_path_factory.mktemp("pictures")
        capture = cv2.VideoCapture(str(CLIP), cv2.CAP_FFMPEG)
        for number in range(25):
            _, frame = capture.read()
            height = frame.shape[0] * width // frame.shape[1] // 2 * 2
            cv2.imwrite(str(folder / f"{number:05d}.jpg"), cv2.resize(frame, (width, height)))
        capture.release()
        return folder

    return of_width


@pytest.fixture
def server(pictures: Callable[[int], Path]) -> Iterator[RtspServer]:
    running = RtspServer(pictures(320))
    yield running
    running.kill()


def until(frames: Iterator[Frame], width: int) -> Frame:
    """Return the first frame of this width, or any frame after half a minute."""
    end = time.monotonic() + 30
    return next(frame for frame in frames if frame.size[0] == width or time.monotonic() > end)


def test_an_rtsp_camera_that_is_killed_comes_back_in_another_size(
    server: RtspServer, pictures: Callable[[int], Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "facerecon_rt")
    with open_source(server.uri, live=QUICK) as source:
        frames = iter(source)
        before = until(frames, 320)
        server.kill()
        server.pictures = pictures(256)
        threading.Timer(0.5, server.start).start()
        after = until(frames, 256)
    assert after.size[0] == 256
    assert after.index > before.index and after.time_s > before.time_s
    assert f"{server.uri} is connected again" in caplog.text


def test_an_rtsp_camera_that_stalls_is_opened_again(server: RtspServer, caplog: pytest.LogCaptureFixture) -> None:
    with open_source(server.uri, live=LiveOptions(timeout_s=1.0)) as source:
        frames = iter(source)
        before = until(frames, 320)
        server.send(signal.SIGSTOP)
        threading.Timer(2.5, server.send, [signal.SIGCONT]).start()
        after = next(frame for frame in frames if frame.captured_at > before.captured_at + 1.0)
    assert after.index > before.index
    assert "gave no frame for 1 s" in caplog.text or "was lost" in caplog.text


def test_faces_of_an_rtsp_camera_are_reconstructed_behind_its_password(
    pictures: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = RtspServer(pictures(320), "anna", "s3cret")
    uri = server.uri.replace("://", "://anna:${CAMERA_PASSWORD}@")
    records = tmp_path / "records.jsonl"
    arguments = ["--model", str(MODEL), "--input", uri, "--frames", "10", "--output", str(records), "--timeout", "5"]
    try:
        monkeypatch.setenv("CAMERA_PASSWORD", "s3cret")
        assert main(arguments) == 0
        monkeypatch.setenv("CAMERA_PASSWORD", "wr0ng")
        assert main(arguments) == 5
    finally:
        server.kill()
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    assert len(lines) == 10
    assert all(line["source"] == server.uri and len(line["faces"]) == 1 for line in lines)
    said = capsys.readouterr().err
    assert f"cannot open {server.uri}; check the address, the user and password" in said
    assert "s3cret" not in said + records.read_text() and "wr0ng" not in said


def test_a_server_that_is_no_rtsp_server_is_refused_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(SourceError, match="cannot open rtsp://127"):
        open_source(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/live", live=LiveOptions(timeout_s=1.0))

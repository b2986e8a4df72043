"""Headers tell whether a video may be interlaced, and a stream of stale frames is refused."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from cv2.typing import MatLike
from facerecon_rt.errors import SourceError
from facerecon_rt.sources.camera import CameraSource, LiveOptions
from facerecon_rt.sources.files import open_source
from facerecon_rt.sources.interlaced import CLIP, MOST_REPEATS, Repeats, converts_interlaced, may_be_interlaced

DATA = Path(__file__).parents[1] / "data"
VIDEOS = DATA / "videos"


def headers_of(path: Path) -> tuple[str, bytes]:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    tag = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode().lower()
    headers = capture.retrieve(flag=int(capture.get(cv2.CAP_PROP_CODEC_EXTRADATA_INDEX)))[1]
    return tag, b"" if headers is None else np.asarray(headers).tobytes()


@pytest.mark.parametrize(
    ("name", "may_be"),
    [
        ("interlaced.mpg", True),
        ("interlaced.mov", True),
        ("interlaced.mp4", True),
        ("interlaced.mts", True),
        ("interlaced.avi", True),
        ("still.mp4", False),
        ("clip.ts", False),
        ("late.mkv", False),
        ("sound.webm", False),
        ("av1.mp4", False),
        ("../talking_head.mp4", False),
    ],
)
def test_headers_say_whether_a_video_may_be_interlaced(name: str, may_be: bool) -> None:
    assert may_be_interlaced(*headers_of(VIDEOS / name)) == may_be


@pytest.mark.parametrize("name", ["interlaced.mpg", "interlaced.mts", "clip.ts", "../talking_head.mp4"])
def test_headers_that_are_damaged_say_nothing_and_end(name: str) -> None:
    tag, headers = headers_of(VIDEOS / name)
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(headers)
        for _ in range(3):
            damaged[random.integers(len(damaged))] = random.integers(256)
        assert may_be_interlaced(tag, bytes(damaged[: random.integers(len(damaged) + 1)])) in (True, False)


def test_the_clip_that_opencv_is_tried_with_is_interlaced_white_and_black(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="the extra `video` is not installed")
    path = tmp_path / "clip.mpg"
    path.write_bytes(CLIP)
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert [frame.interlaced_frame for frame in frames] == [True, True]
    assert [frame.to_ndarray(format="bgr24").mean() for frame in frames] == [255, 0]


def test_repeats_are_counted_from_the_last_picture_that_was_new() -> None:
    black, white = np.zeros((70, 9, 3), np.uint8), np.full((70, 9, 3), 255, np.uint8)
    nearly = black.copy()
    nearly[69, 8, 2] = 1
    repeats = Repeats()
    counts = [repeats.count(image) for image in (black, black.copy(), white, white, white, black, nearly)]
    assert counts == [1, 2, 0, 1, 2, 0, 0]


class RepeatingCapture:
    """A camera whose frames change `changes` times and then repeat."""

    def __init__(self, changes: int) -> None:
        self.changes = changes
        self.shown = 0

    def grab(self) -> bool:
        self.shown += 1
        return True

    def retrieve(self) -> tuple[bool, MatLike]:
        return True, np.full((4, 4, 3), min(self.shown, self.changes), np.uint8)

    def get(self, propId: int) -> float:
        return 0.0

    def release(self) -> None:
        """Release nothing."""


def test_a_camera_that_may_be_interlaced_shows_no_stale_picture_and_says_why() -> None:
    with (
        CameraSource("rtsp://host/door", RepeatingCapture(0), untrusted=True) as source,
        pytest.raises(
            SourceError, match=r"rtsp://host/door .* seems to be interlaced, which OpenCV .* progressive video"
        ),
    ):
        next(iter(source))


def test_a_camera_that_is_trusted_may_stand_still() -> None:
    with CameraSource("rtsp://host/door", RepeatingCapture(0)) as source:
        frames = iter(source)
        while next(frames).index < 3 * MOST_REPEATS:
            pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Address of a server with the folder's files."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def levels_of(uri: str) -> tuple[list[float], str]:
    """Return the mean levels of a stream's frames until it ends, and the error at its end."""
    seen: list[float] = []
    with open_source(uri, live=LiveOptions(timeout_s=5), retries=0) as source, pytest.raises(SourceError) as caught:
        for frame in source:
            seen.append(float(frame.image.mean()))
    return seen, str(caught.value)


def test_an_interlaced_stream_is_shown_or_refused() -> None:
    with served(VIDEOS) as address:
        levels, said = levels_of(f"{address}/interlaced.mts")
    if converts_interlaced():
        assert all(level > 20 for level in levels)
    else:
        assert not levels
        assert "seems to be interlaced" in said


def test_what_streams_may_be_of_is_not_narrowed_too_far(tmp_path: Path) -> None:
    shutil.copy(VIDEOS / "clip.ts", tmp_path / "0.ts")
    (tmp_path / "list.m3u8").write_text(
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.44,\n0.ts\n#EXT-X-ENDLIST\n"
    )
    cv2.imwrite(str(tmp_path / "snapshot.jpg"), np.full((48, 64, 3), 90, np.uint8))
    with served(tmp_path) as address:
        for name in ("0.ts", "list.m3u8", "snapshot.jpg"):
            with open_source(f"{address}/{name}", live=LiveOptions(timeout_s=5), retries=0) as source:
                assert next(iter(source)).size == (64, 48)

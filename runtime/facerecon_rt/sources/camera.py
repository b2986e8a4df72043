"""Camera or stream -> the newest frame: grabbed in a thread, so that slow readers see the present and not a queue."""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import cv2
import numpy as np
from cv2.typing import MatLike

from ..addresses import CAMERA, CSI, public_name
from ..errors import SourceError, UsageError
from ..limits import MOST_FRAME_PIXELS
from ..paths import exists, is_text
from ..quiet import quiet_opencv, set_capture_options
from ..types import Frame
from .interlaced import MOST_REPEATS, Repeats, may_be_unreadable

CSI_SIZE, CSI_FPS = (1280, 720), 30.0
"""Of a camera on a Jetson's CSI port, unless others are asked for."""
FLIPS = {"none": None, "horizontal": 1, "vertical": 0, "180": -1}
"""Name -> what cv2.flip calls it."""
RATE_SLACK = 0.2
"""Share by which a frame may come early and still be kept, where fewer are wanted than come: no clock is exact."""
LONGEST_TIMEOUT_S = 3600.0

# Or one stream that does not answer keeps every other capture, and every video that is to be written, from opening for
# as long as its time-out: OpenCV locks them all, which FFmpeg since 4 has no need of. Read when first needed.
os.environ.setdefault("OPENCV_FFMPEG_IS_THREAD_SAFE", "1")


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How cameras and streams are opened."""

    timeout_s: float = 10.0
    """Seconds that opening, and later the next frame, may take."""
    size: tuple[int, int] | None = None
    """(width, height) that a camera is asked for; it may give another. Streams have their own."""
    fps: float | None = None
    """Frames per second that a camera is asked for; of cameras and streams that give more, some are passed over."""
    flip: str = "none"
    """One of `FLIPS`: for cameras that hang upside down or look into a mirror."""

    def __post_init__(self) -> None:
        """Raises UsageError."""
        if not 0 < self.timeout_s <= LONGEST_TIMEOUT_S:
            raise UsageError(f"a time-out of {self.timeout_s:g} s is none; give at most {LONGEST_TIMEOUT_S:g}")
        if self.flip not in FLIPS:
            raise UsageError(f"there is no flip {self.flip!r}; choose from {', '.join(FLIPS)}")


AS_IT_IS = LiveOptions()


class Capture(Protocol):
    """What a CameraSource needs of `cv2.VideoCapture`."""

    def grab(self) -> bool:
        """Wait for the next frame; False when there will be none."""

    def retrieve(self) -> tuple[bool, MatLike]:
        """Decode it; (False, anything) when it is damaged."""

    def get(self, propId: int) -> float:
        """One of cv2.CAP_PROP_*."""

    def release(self) -> None:
        """Let the device go."""


def open_camera(uri: str, options: LiveOptions = AS_IT_IS) -> CameraSource:
    """`cam0`, `/dev/video0`, `csi://0` or a stream URL -> its live source. `${NAME}` in a URL is taken from the
    environment, so that no password need stand in a command line or a file.

    Raises SourceError when the camera is not there, may not be read, is in use, or the stream does not answer in time.
    """
    number, csi, name = CAMERA.fullmatch(uri), CSI.fullmatch(uri), public_name(uri)
    untrusted = False
    if number:
        capture = _open_device(int(number[1] or number[2]), options)
    elif csi:
        capture = _open_pipeline(csi_pipeline(int(csi[1]), options), uri)
    else:
        capture = _open_stream(with_environment(uri), name, options.timeout_s)
        untrusted = may_be_unreadable(capture)
    check_frame_size(capture, name)
    return CameraSource(
        name, capture, timeout_s=options.timeout_s, flip=options.flip, most_fps=options.fps, untrusted=untrusted
    )


def csi_pipeline(number: int, options: LiveOptions = AS_IT_IS) -> str:
    """GStreamer's description of a camera on a Jetson's CSI port (NVIDIA, Accelerated GStreamer guide): the sensor's
    frames through the image processor, to BGR, and only the newest kept."""
    (width, height), fps = options.size or CSI_SIZE, options.fps or CSI_FPS
    return (
        f"nvarguscamerasrc sensor-id={number} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={round(fps)}/1 ! "
        "nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! "
        "appsink drop=true max-buffers=1 sync=false"
    )


class CameraSource:
    """A live source. A thread grabs every frame and only the newest is kept; `Frame.index` counts the grabbed ones,
    so a gap says how many were skipped. Owns the capture: use it as a context manager."""

    live = True
    still = False

    def __init__(
        self,
        name: str,
        capture: Capture,
        *,
        timeout_s: float = 10.0,
        flip: str = "none",
        most_fps: float | None = None,
        untrusted: bool = False,
    ) -> None:
        """`untrusted`: the capture may give stale frames without a word, see `interlaced`."""
        self.name = name
        self._repeats = Repeats() if untrusted else None
        self._stale = False
        self._least_s = 0.0 if most_fps is None else (1 - RATE_SLACK) / most_fps
        """Between two frames that are kept."""
        self._flip = FLIPS[flip]
        self._capture = capture
        self._timeout_s = timeout_s
        fps = capture.get(cv2.CAP_PROP_FPS)
        self._fps = fps if 0 < fps < 1000 else 0.0
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._grabbed = 0
        self._lost = False
        self._closed = False
        self._grabber = threading.Thread(target=self._grab, name=f"grab {name}", daemon=True)
        self._grabber.start()

    def __enter__(self) -> CameraSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the newest frame, each at most once, until `close`. Raises SourceError when the camera or stream ends
        or gives no frame for `timeout_s` seconds."""
        while (frame := self._next()) is not None:
            yield frame

    def stop(self) -> None:
        """As `close`, without waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def close(self, wait_s: float = 2.0) -> None:
        """Stop grabbing and let the device go. May be called from any thread, and twice."""
        self.stop()
        # A read that hangs keeps its thread (a daemon, which then releases the capture), not the caller.
        self._grabber.join(timeout=wait_s)

    def _next(self) -> Frame | None:
        with self._changed:
            # Frames that are passed over are none that wake us.
            most_s = self._timeout_s + self._least_s
            self._changed.wait_for(lambda: self._newest or self._lost or self._closed, most_s)
            frame, self._newest = self._newest, None
            if self._closed:
                return None
            if frame is None:
                if self._stale:
                    raise SourceError(
                        f"{self.name} seems to be interlaced: OpenCV {cv2.__version__} cannot convert it, and gives "
                        "the same picture again and again; set the camera to progressive video, or install "
                        "opencv-python-headless 4.12"
                    )
                what = f"gave no frame for {self._timeout_s:g} s"
                if self._lost:
                    what = "was lost" if self._grabbed else "opened, but gave no frame that can be decoded"
                advice = "check the network" if "://" in self.name else "check the cable"
                raise SourceError(f"{self.name} {what}; {advice} and start again")
            return frame

    def _grab(self) -> None:
        opened = time.monotonic()
        kept = -math.inf
        try:
            while not self._closed:
                # Waiting for the frame is no part of its age, decoding it is.
                arrived = time.monotonic() if self._capture.grab() else None
                if arrived and arrived - kept < self._least_s:
                    self._grabbed += 1
                    continue
                kept = arrived or kept
                ok, image = self._capture.retrieve() if arrived else (False, np.zeros(0, np.uint8))
                if ok and self._repeats is not None and (repeats := self._repeats.count(np.asarray(image, np.uint8))):
                    # What OpenCV could not convert; or, in a stream that stands still, nothing new.
                    self._stale = repeats > MOST_REPEATS
                    if not self._stale:
                        continue
                    ok = False
                if ok and self._flip is not None:
                    image = cv2.flip(image, self._flip)
                with self._changed:
                    if arrived is None or not ok:
                        self._lost = True
                        self._changed.notify_all()
                        return
                    self._newest = Frame(
                        np.asarray(image, np.uint8),
                        self.name,
                        index=self._grabbed,
                        time_s=arrived - opened,
                        captured_at=arrived,
                        capture_ms=(time.monotonic() - arrived) * 1000,
                        still=False,
                        fps=self._fps,
                        live=True,
                    )
                    self._grabbed += 1
                    self._changed.notify_all()
        finally:
            self._capture.release()


def check_frame_size(capture: Capture, name: str) -> None:
    """Raises SourceError, and lets the capture go, where what it opened says that its frames are larger than any may
    be."""
    width, height = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if width * height > MOST_FRAME_PIXELS:
        capture.release()
        raise SourceError(f"{name} has frames of {width}x{height}, more than {MOST_FRAME_PIXELS // 10**6} megapixels")


def _open_device(number: int, options: LiveOptions) -> cv2.VideoCapture:
    device = Path(f"/dev/video{number}")
    if not exists(device):
        found = ", ".join(sorted(path.name.replace("video", "cam") for path in Path("/dev").glob("video[0-9]*")))
        raise SourceError(f"there is no camera cam{number} ({device}); {f'try {found}' if found else 'plug one in'}")
    try:
        device.open("rb").close()
    except PermissionError as error:
        raise SourceError(
            f"no permission to read {device}; add yourself to the group 'video' and log in again"
        ) from error
    except OSError as error:
        raise SourceError(f"cannot open {device} ({error.strerror}); is another program using it?") from error
    with quiet_opencv():
        capture = cv2.VideoCapture(number, cv2.CAP_V4L2)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        if options.size is not None:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, options.size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, options.size[1])
        if options.fps is not None:
            capture.set(cv2.CAP_PROP_FPS, options.fps)
    if not capture.isOpened():
        raise SourceError(f"cannot open {device}; is another program using it, or is it no camera?")
    return capture


def _open_pipeline(pipeline: str, uri: str) -> cv2.VideoCapture:
    if not re.search(r"^\s*GStreamer:\s+YES", cv2.getBuildInformation(), re.MULTILINE):
        raise SourceError(
            f"cannot open {uri}: this OpenCV has no GStreamer, and pip's never has; on a Jetson use the OpenCV that "
            "came with JetPack, which wants numpy 1: pip uninstall -y opencv-python-headless && pip install 'numpy<2', "
            "in an environment with --system-site-packages"
        )
    with quiet_opencv():
        capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        raise SourceError(f"cannot open {uri}; is the camera's ribbon in place, and does nvargus-daemon run?")
    return capture


def _open_stream(uri: str, name: str, timeout_s: float) -> cv2.VideoCapture:
    """`name`: what errors call it; the address may hold what came from the environment."""
    if not is_text(uri):
        raise SourceError(f"{name} has bytes in it that are no UTF-8; write them as % and two digits each")
    set_capture_options()
    milliseconds = round(timeout_s * 1000)
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds, cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
    with quiet_opencv():
        capture = cv2.VideoCapture(uri, cv2.CAP_FFMPEG, timeouts)
    if not capture.isOpened():
        raise SourceError(f"cannot open {name}; check the address, the user and password, and the network")
    return capture


def with_environment(uri: str) -> str:
    """`${NAME}` -> the variable's value. Raises SourceError for one that is not set."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise SourceError(f"{public_name(uri)}: the environment has no {found[1]}; export {found[1]}=...")
        return os.environ[found[1]]

    return re.sub(r"\$\{(\w+)\}", value, uri)

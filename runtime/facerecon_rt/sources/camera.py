"""A camera or stream -> its newest frame. A thread grabs the frames, so that a slow reader sees the present, not a
queue."""

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
from ..errors import SourceError, UsageError, first_line
from ..limits import MOST_FRAME_PIXELS
from ..paths import exists, is_utf8
from ..quiet import quiet_opencv, set_capture_options
from ..types import Frame
from .interlaced import MOST_REPEATS, Repeats, may_be_unreadable

CSI_SIZE, CSI_FPS = (1280, 720), 30.0
"""(width, height) and frames per second of a camera on a Jetson's CSI port, where the options give no others."""
FLIPS = {"none": None, "horizontal": 1, "vertical": 0, "180": -1}
"""Name of a flip -> the flip code of cv2.flip."""
RATE_SLACK = 0.2
"""Share of the frame interval by which a frame may come before its time and still be kept when the frame rate is
limited. No clock is exact."""
MOST_FAILED_READS, LONGEST_FAILURE_S = 30, 1.0
"""Number of failed reads in a row, and time in seconds since the first of them, from which a camera is lost. A single
damaged frame is none."""
LONGEST_TIMEOUT_S = 3600.0
DRIVER_ERRORS = (OSError, cv2.error)
"""Errors with which a camera's driver, or OpenCV, may fail."""

# Without this setting OpenCV locks all captures: one stream that does not answer keeps every other capture and video
# writer from opening until its timeout. FFmpeg since 4 does not need the lock. OpenCV reads the setting on first use.
os.environ.setdefault("OPENCV_FFMPEG_IS_THREAD_SAFE", "1")


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """Options for opening cameras and streams."""

    timeout_s: float = 10.0
    """Maximum time in seconds for opening the source, and for each next frame."""
    size: tuple[int, int] | None = None
    """(width, height) in pixels to request from a camera, which may deliver another size. Streams ignore it."""
    fps: float | None = None
    """Frames per second to request from a camera. Frames that a camera or stream delivers above this rate are
    dropped."""
    flip: str = "none"
    """A key of `FLIPS`, for cameras that are mounted upside down or look into a mirror."""

    def __post_init__(self) -> None:
        """Check the options. Raises UsageError."""
        if not 0 < self.timeout_s <= LONGEST_TIMEOUT_S:
            raise UsageError(
                f"the timeout must be above 0 and at most {LONGEST_TIMEOUT_S:g} s; {self.timeout_s:g} s was given"
            )
        if self.flip not in FLIPS:
            raise UsageError(f"unknown flip {self.flip!r}; choose from {', '.join(FLIPS)}")


AS_IT_IS = LiveOptions()


class Capture(Protocol):
    """The part of `cv2.VideoCapture` that a CameraSource uses."""

    def grab(self) -> bool:
        """Wait for the next frame. Returns False when the capture has ended."""

    def retrieve(self) -> tuple[bool, MatLike]:
        """Decode the grabbed frame. Returns (False, undefined) when the frame is damaged."""

    def get(self, propId: int) -> float:
        """Return the property cv2.CAP_PROP_*."""

    def release(self) -> None:
        """Release the device."""


def open_camera(uri: str, options: LiveOptions = AS_IT_IS) -> CameraSource:
    """Open the live source at `uri`: `cam0`, `/dev/video0`, `csi://0` or a stream URL.

    `${NAME}` in a URL is replaced by the environment variable, so that no password has to stand in a command line or
    file. Raises SourceError when the camera does not exist, must not be read or is in use, or the stream does not
    answer in time.
    """
    number, csi, name = CAMERA.fullmatch(uri), CSI.fullmatch(uri), public_name(uri)
    untrusted = False
    if number:
        capture = _open_device(int(number[number.lastindex or 1]), options)
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
    """Return the GStreamer pipeline of a camera on a Jetson's CSI port (NVIDIA, Accelerated GStreamer guide). The
    sensor's frames pass the image processor, become BGR, and only the newest frame is kept."""
    (width, height), fps = options.size or CSI_SIZE, options.fps or CSI_FPS
    return (
        f"nvarguscamerasrc sensor-id={number} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={round(fps)}/1 ! "
        "nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! "
        "appsink drop=true max-buffers=1 sync=false"
    )


class CameraSource:
    """A live source. A thread grabs every frame, and only the newest is kept. `Frame.index` counts the grabbed frames,
    so a gap shows how many were skipped. The source owns the capture; use it as a context manager."""

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
        """Take over an opened capture and start the thread that grabs frames.

        `name`: display name in frames and messages. `timeout_s`: maximum time in seconds for the next frame. `flip`: a
        key of `FLIPS`. `most_fps`: frames per second above which frames are dropped; None for no limit. `untrusted`:
        whether the capture may repeat stale frames without an error (see `interlaced`).
        """
        self.name = name
        self._repeats = Repeats() if untrusted else None
        self._stale = False
        self._interval_s = 0.0 if most_fps is None else 1 / most_fps
        """Mean time in seconds between two frames that are kept, at least."""
        self._flip = FLIPS[flip]
        self._capture = capture
        self._timeout_s = timeout_s
        fps = capture.get(cv2.CAP_PROP_FPS)
        self._fps = fps if 0 < fps < 1000 else 0.0
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._grabbed = 0
        self._lost = False
        self._failure = ""
        """Error of the driver that ended it, if there was one."""
        self._closed = False
        self._grabber = threading.Thread(target=self._grab, name=f"grab {name}", daemon=True)
        self._grabber.start()

    def __enter__(self) -> CameraSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the newest frame, each at most once, until `close`. Raises SourceError when the camera or stream ends,
        or gives no frame for `timeout_s` seconds."""
        while (frame := self._next()) is not None:
            yield frame

    def stop(self) -> None:
        """Stop as `close` does, without waiting for the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def close(self, wait_s: float = 2.0) -> None:
        """Stop grabbing and release the device. Any thread may call it, also repeatedly."""
        self.stop()
        # A read that hangs blocks only the grabbing thread, a daemon that releases the capture later, and not the
        # caller.
        self._grabber.join(timeout=wait_s)

    def _next(self) -> Frame | None:
        with self._changed:
            # Frames that the frame rate limit drops do not wake this thread.
            most_s = self._timeout_s + self._interval_s
            self._changed.wait_for(lambda: self._newest or self._lost or self._closed, most_s)
            frame, self._newest = self._newest, None
            if self._closed:
                return None
            if frame is None:
                if self._stale:
                    raise SourceError(
                        f"{self.name} repeats the same picture; its video seems to be interlaced, which OpenCV "
                        f"{cv2.__version__} cannot convert. Set the camera to progressive video, or install "
                        "opencv-python-headless 4.12"
                    )
                what = f"gave no frame for {self._timeout_s:g} s"
                if self._failure:
                    raise SourceError(f"{self.name} failed: {self._failure}")
                if self._lost:
                    what = "was lost" if self._grabbed else "was opened, but gave no frame that can be decoded"
                advice = "check the network" if "://" in self.name else "check the cable"
                raise SourceError(f"{self.name} {what}; {advice} and start again")
            return frame

    def _grab(self) -> None:
        opened = time.monotonic()
        due, failed, failed_at = -math.inf, 0, 0.0
        try:
            while not self._closed:
                # The age of a frame includes decoding it, but not waiting for it.
                arrived = time.monotonic() if self._capture.grab() else None
                if arrived and arrived < due - RATE_SLACK * self._interval_s:
                    self._grabbed += 1
                    continue
                if arrived:
                    # The next frame is due an interval after this one was, not after it came: of 30 frames per second
                    # limited to 25, every sixth is dropped. After a pause, time starts anew.
                    due = (due if arrived < due + self._interval_s else arrived) + self._interval_s
                ok, image = self._capture.retrieve() if arrived else (False, np.zeros(0, np.uint8))
                if ok and self._repeats is not None and (repeats := self._repeats.count(np.asarray(image, np.uint8))):
                    # OpenCV could not convert this frame, or the stream shows a still picture. Neither is a new frame.
                    self._stale = repeats > MOST_REPEATS
                    if not self._stale:
                        continue
                    ok = False
                if ok and self._flip is not None:
                    image = cv2.flip(image, self._flip)
                if not ok:
                    failed_at = failed_at if failed else time.monotonic()
                    failed += 1
                    if (
                        not self._stale
                        and failed < MOST_FAILED_READS
                        and time.monotonic() - failed_at < LONGEST_FAILURE_S
                    ):
                        continue
                with self._changed:
                    if arrived is None or not ok:
                        self._lost = True
                        self._changed.notify_all()
                        return
                    failed = 0
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
        except DRIVER_ERRORS as error:
            with self._changed:
                self._lost, self._failure = True, first_line(error)
                self._changed.notify_all()
        finally:
            self._capture.release()


def check_frame_size(capture: Capture, name: str) -> None:
    """Check the frame size that the opened capture reports. Raises SourceError, and releases the capture, when the
    frames are larger than `MOST_FRAME_PIXELS`."""
    width, height = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if width * height > MOST_FRAME_PIXELS:
        capture.release()
        raise SourceError(f"{name} has frames of {width}x{height}, more than {MOST_FRAME_PIXELS // 10**6} megapixels")


def _open_device(number: int, options: LiveOptions) -> cv2.VideoCapture:
    device = Path(f"/dev/video{number}")
    if not exists(device):
        found = ", ".join(sorted(path.name.replace("video", "cam") for path in Path("/dev").glob("video[0-9]*")))
        # Names of digits alone are cameras. A file or folder of that name may be meant.
        path = next((name for name in (f"cam{number}", str(number), f"{number:03d}") if exists(Path(name))), None)
        fix = f"for the file or folder {path}, give ./{path}" if path else f"try {found}" if found else "connect one"
        raise SourceError(f"there is no camera cam{number} ({device}); {fix}")
    try:
        device.open("rb").close()
    except PermissionError as error:
        raise SourceError(
            f"no permission to read {device}; add your user to the group 'video' and log in again"
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
        raise SourceError(f"cannot open {device}; is another program using it, or is it not a camera?")
    return capture


def _open_pipeline(pipeline: str, uri: str) -> cv2.VideoCapture:
    if not re.search(r"^\s*GStreamer:\s+YES", cv2.getBuildInformation(), re.MULTILINE):
        raise SourceError(
            f"cannot open {uri}: this OpenCV was built without GStreamer, as all wheels from PyPI are. On a Jetson "
            "use the OpenCV of JetPack, which needs numpy 1: pip uninstall -y opencv-python-headless && "
            "pip install 'numpy<2', in an environment with --system-site-packages"
        )
    with quiet_opencv():
        capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        raise SourceError(f"cannot open {uri}; check the ribbon cable of the camera, and that nvargus-daemon runs")
    return capture


def _open_stream(uri: str, name: str, timeout_s: float) -> cv2.VideoCapture:
    """Open a stream. `name`: the display name for errors, since `uri` may hold secrets from the environment."""
    if not is_utf8(uri):
        raise SourceError(
            f"the address {name} holds bytes that are not UTF-8; write each as % and two hexadecimal digits"
        )
    set_capture_options()
    milliseconds = round(timeout_s * 1000)
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds, cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
    with quiet_opencv():
        capture = cv2.VideoCapture(uri, cv2.CAP_FFMPEG, timeouts)
    if not capture.isOpened():
        raise SourceError(f"cannot open {name}; check the address, the user and password, and the network")
    return capture


def with_environment(uri: str) -> str:
    """Replace each `${NAME}` by the environment variable's value. Raises SourceError for a variable that is not set."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise SourceError(
                f"{public_name(uri)}: the environment variable {found[1]} is not set; export {found[1]}=..."
            )
        return os.environ[found[1]]

    return re.sub(r"\$\{(\w+)\}", value, uri)

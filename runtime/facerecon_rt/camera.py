"""Camera or stream -> the newest frame: grabbed in a thread, so that slow readers see the present and not a queue."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol

import cv2
import numpy as np
from cv2.typing import MatLike

from .errors import SourceError
from .quiet import quiet_opencv
from .types import Frame

CAMERA = re.compile(r"cam(\d+)|/dev/video(\d+)")
STREAM_SCHEMES = ("rtsp", "rtsps", "http", "https")
_SECRET_VALUE = re.compile(r"((?:pass|pwd|token|key|secret|auth|sig)[^=&/]*=)[^&/]*", re.IGNORECASE)


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


def is_live(uri: str) -> bool:
    """True for a camera or a stream, whose frames cannot be read twice."""
    scheme, colon, _ = uri.partition("://")
    return CAMERA.fullmatch(uri) is not None or (bool(colon) and scheme.lower() in STREAM_SCHEMES)


def open_camera(uri: str, timeout_s: float) -> CameraSource:
    """`cam0`, `/dev/video0` or a stream URL -> its live source.

    Raises SourceError when the camera is not there, may not be read, is in use, or the stream does not answer within
    `timeout_s` seconds.
    """
    number = CAMERA.fullmatch(uri)
    capture = _open_device(int(number[1] or number[2])) if number else _open_stream(uri, timeout_s)
    return CameraSource(public_name(uri), capture, timeout_s=timeout_s)


def public_name(uri: str) -> str:
    """The URI without user, password and tokens: what names, records and errors may show.

    Everything up to the last @ goes: a password that should have been escaped and was not may hold any character.
    """
    return _SECRET_VALUE.sub(r"\1***", re.sub(r"(?<=://).*@", "", uri)) if "://" in uri else uri


class CameraSource:
    """A live source. A thread grabs every frame and only the newest is kept; `Frame.index` counts the grabbed ones,
    so a gap says how many were skipped. Owns the capture: use it as a context manager."""

    live = True
    still = False

    def __init__(self, name: str, capture: Capture, *, timeout_s: float = 10.0) -> None:
        self.name = name
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

    def close(self) -> None:
        """Stop grabbing and let the device go. May be called from any thread, and twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        # A read that hangs keeps its thread (a daemon, which then releases the capture), not the caller.
        self._grabber.join(timeout=2.0)

    def _next(self) -> Frame | None:
        with self._changed:
            self._changed.wait_for(lambda: self._newest or self._lost or self._closed, self._timeout_s)
            frame, self._newest = self._newest, None
            if self._closed:
                return None
            if frame is None:
                what = f"gave no frame for {self._timeout_s:g} s"
                if self._lost:
                    what = "was lost" if self._grabbed else "opened, but gave no frame that can be decoded"
                advice = "check the network" if "://" in self.name else "check the cable"
                raise SourceError(f"{self.name} {what}; {advice} and start again")
            return frame

    def _grab(self) -> None:
        opened = time.monotonic()
        try:
            while not self._closed:
                # Waiting for the frame is no part of its age, decoding it is.
                arrived = time.monotonic() if self._capture.grab() else None
                ok, image = self._capture.retrieve() if arrived else (False, np.zeros(0, np.uint8))
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
                    )
                    self._grabbed += 1
                    self._changed.notify_all()
        finally:
            self._capture.release()


def _open_device(number: int) -> cv2.VideoCapture:
    device = Path(f"/dev/video{number}")
    if not device.exists():
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
    if not capture.isOpened():
        raise SourceError(f"cannot open {device}; is another program using it, or is it no camera?")
    return capture


def _open_stream(uri: str, timeout_s: float) -> cv2.VideoCapture:
    milliseconds = round(timeout_s * 1000)
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds, cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
    with quiet_opencv():
        capture = cv2.VideoCapture(uri, cv2.CAP_FFMPEG, timeouts)
    if not capture.isOpened():
        raise SourceError(f"cannot open {public_name(uri)}; check the address, the user and password, and the network")
    return capture

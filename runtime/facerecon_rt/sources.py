"""URI -> frames: cameras and streams, video files, photographs, folders and globs."""

from __future__ import annotations

import glob
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from .addresses import public_name
from .camera import AS_IT_IS, STREAM_SCHEMES, LiveOptions, check_frame_size, is_live
from .errors import SourceError
from .limits import MOST_PICTURE_BYTES
from .live import LiveSource
from .quiet import quiet_opencv
from .types import Frame, Image

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".jp2", ".avif", ".heic",
    ".heif", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
"""Taken as photographs. HEIC is among them although OpenCV cannot read it, so that it is named and not overlooked."""
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".m2ts", ".3gp",
    ".ogv", ".gif",
)  # fmt: skip
HEADER_SLACK = 2
"""Frames by which a healthy video file may hold fewer than its header promises."""

log = logging.getLogger("facerecon_rt")


class Source(Protocol):
    """Where frames come from. Owns what it reads: use it as a context manager."""

    @property
    def name(self) -> str:
        """Path or URI, without user and password."""

    @property
    def live(self) -> bool:
        """Frames come when they come; the ones nobody fetched are gone."""

    @property
    def still(self) -> bool:
        """All frames are photographs."""

    def __enter__(self) -> Source: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames. Raises SourceError when there are none, or when a live source is lost."""

    def close(self) -> None:
        """Let files and devices go; iterating ends."""


def open_source(uri: str | Path, *, live: LiveOptions = AS_IT_IS, retries: int | None = None) -> Source:
    """Open `cam0`, `/dev/video0`, `csi://0`, an rtsp:// or http(s):// stream, a video, a photograph, a folder, a glob.

    `live`: how cameras and streams are opened; `retries`: how often one that is lost is opened again, None: for ever.
    Raises SourceError with one line that names the fix.
    """
    text = str(uri)
    if is_live(text):
        return LiveSource(text, live, retries=retries)
    if "://" in text:
        raise SourceError(
            f"cannot open {public_name(text)}; streams are {', '.join(s + '://' for s in STREAM_SCHEMES)}"
        )
    path = Path(uri)
    if path.is_dir():
        return FilesSource(text, _media_in(path.iterdir(), f"folder {text}"))
    if path.exists():
        return _open_file(path)
    if any(sign in text for sign in "*?["):
        # Path.glob takes no absolute pattern.
        return FilesSource(text, _media_in(map(Path, glob.glob(text, recursive=True)), f"pattern {text}"))  # noqa: PTH207
    raise SourceError(
        f"{text} does not exist; give a camera (cam0), a stream, a video, a photograph, a folder or a glob"
    )


def read_image(path: str | Path) -> Image:
    """Decode a photograph -> (H, W, 3) uint8 BGR, upright: EXIF orientation applied.

    Grey becomes three equal channels, 16 bits become 8 by scaling, an alpha channel is dropped: the colours below it
    are the picture. Raises SourceError when the file is missing, not an image OpenCV reads, cut short, or larger than
    `limits` allow.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MOST_PICTURE_BYTES + 1)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    return decode_image(data, str(path))


def decode_image(data: bytes | NDArray[np.uint8], name: str) -> Image:
    """As `read_image`, of a file's bytes (N,) uint8; `name` is what errors call it."""
    if len(data) > MOST_PICTURE_BYTES:
        raise SourceError(f"{name} is larger than {MOST_PICTURE_BYTES >> 20} MB; save it as JPEG, or smaller")
    if not len(data):
        raise SourceError(f"{name} is empty; copy it again")
    try:
        with quiet_opencv():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise SourceError(f"{name} cannot be decoded: damaged, or more than {_most_pixels()}; save it anew") from error
    if image is None:
        raise SourceError(f"{name} {_why_no_image(name, bytes(data[:4096]))}")
    return np.asarray(image, np.uint8)


def _most_pixels() -> str:
    """That OpenCV decodes: it reads this variable when it is loaded."""
    limit = os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS", "")
    return f"{int(limit) / 1e6:.3g} megapixels" if limit.isdecimal() else "a gigapixel"


class ImageSource:
    """One photograph."""

    live = False
    still = True

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path

    def __enter__(self) -> ImageSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the photograph as a still frame. Raises SourceError as `read_image` does."""
        started = time.monotonic()
        image = read_image(self._path)
        now = time.monotonic()
        yield Frame(image, self.name, captured_at=now, capture_ms=(now - started) * 1000)

    def close(self) -> None:
        """Nothing is held open between reads."""


class VideoSource:
    """A video file. Never drops a frame; frames are upright: the file's rotation is applied."""

    live = False
    still = False

    def __init__(self, path: Path) -> None:
        """Raises SourceError when the file is not a video that FFmpeg can open."""
        self.name = str(path)
        start = _first_bytes(path)
        if not start:
            raise SourceError(f"{path} is empty; copy it again")
        if _is_text(start):
            # FFmpeg would draw a text file as a film of letters, and follow the addresses in a playlist.
            raise SourceError(f"{path} is a text file, not a video")
        with quiet_opencv():
            self._capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise SourceError(f"{path} cannot be opened as a video: damaged, cut short or no video; copy or convert it")
        check_frame_size(self._capture, self.name)
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else 0.0
        self.promised_frames = int(max(0, self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        """What the header says, 0 where it says nothing."""

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame that decodes. Raises SourceError when there is none; warns once when there are fewer than
        the header promises."""
        index = 0
        while self._capture.isOpened():
            started = time.monotonic()
            ok, image = self._capture.read()
            if not ok:
                self._check_count(index)
                return
            now = time.monotonic()
            yield Frame(
                np.asarray(image, np.uint8),
                self.name,
                index=index,
                time_s=self._media_time(index),
                captured_at=now,
                capture_ms=(now - started) * 1000,
                still=False,
                fps=self.fps,
            )
            index += 1

    def close(self) -> None:
        """Let the file go; iterating ends."""
        self._capture.release()

    def _media_time(self, index: int) -> float:
        """Seconds: the frame's own time stamp, or its place at constant rate where the file has none."""
        stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if stamp > 0 or index == 0:
            return max(0.0, stamp)
        return index / self.fps if self.fps else 0.0

    def _check_count(self, count: int) -> None:
        if not count:
            raise SourceError(f"{self.name} holds no frame that can be decoded; copy or convert it")
        if count < self.promised_frames - HEADER_SLACK:
            log.warning("%s ends early: %d of %d frames could be read", self.name, count, self.promised_frames)


class FilesSource:
    """Photographs and videos, one file after the other. One that cannot be read is skipped with a warning."""

    live = False

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self.name = name
        self._paths = paths
        self._current: Source | None = None
        self._closed = False

    @property
    def still(self) -> bool:
        """True when there is no video among the files."""
        return not any(is_video_name(path) for path in self._paths)

    def __enter__(self) -> FilesSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames of each file. Raises SourceError when no file could be read."""
        found = False
        for path in self._paths:
            if self._closed:
                return
            try:
                with _open_file(path) as self._current:
                    for frame in self._current:
                        found = True
                        yield frame
            except SourceError as error:
                log.warning("skipped: %s", error)
        if not found:
            raise SourceError(f"none of the {len(self._paths)} files of {self.name} could be read")

    def close(self) -> None:
        """Let the file in hand go; iterating ends."""
        self._closed = True
        if self._current is not None:
            self._current.close()


def _open_file(path: Path) -> Source:
    if is_video_name(path):
        return VideoSource(path)
    if path.suffix.lower() in IMAGE_SUFFIXES or cv2.haveImageReader(str(path)):
        return ImageSource(path)
    if _is_text(_first_bytes(path)):
        raise SourceError(f"{path} is a text file, not a photograph or video")
    # FFmpeg takes nearly anything for a film (a .bin for a screen of letters): only what is called a video is one.
    raise SourceError(f"{path} is no photograph; if it is a video, name it so: {', '.join(VIDEO_SUFFIXES)}")


def is_video_name(path: Path) -> bool:
    """Whether a file is called a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def _media_in(paths: Iterator[Path], where: str) -> list[Path]:
    """The photographs and videos among `paths`, by suffix, in natural order."""
    known = IMAGE_SUFFIXES + VIDEO_SUFFIXES
    try:
        found = list(paths)
        media = [p for p in found if p.suffix.lower() in known and not p.name.startswith(".") and not p.is_dir()]
        folders = sum(path.is_dir() for path in found)
    except OSError as error:
        raise SourceError(f"cannot read {where}: {error.strerror}") from error
    if not media:
        inside = f"; the {folders} folders in it are not looked into: name one, or 'FOLDER/*/*.jpg'" if folders else ""
        raise SourceError(f"{where} holds no photograph (.jpg, .png and the like) or video (.mp4 and the like){inside}")
    return sorted(media, key=natural_order)


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Sorting key in which numbers count as numbers."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", str(path).lower())]


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error


def _is_text(start: bytes) -> bool:
    """Text has no zero byte and is UTF-8, but for a character cut in two at the end."""
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return b"\0" not in start and error.start > len(start) - 4 and len(start) > 4
    return b"\0" not in start


def _why_no_image(name: str, start: bytes) -> str:
    if _is_text(start):
        return "is a text file, not a photograph"
    if start[4:8] == b"ftyp" and name.lower().endswith((".heic", ".heif")):
        return "is HEIC, which OpenCV cannot read; convert it to JPEG"
    return "cannot be decoded: damaged, cut short or no image; copy it again or save it as JPEG or PNG"

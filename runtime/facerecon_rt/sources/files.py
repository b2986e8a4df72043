"""A URI -> frames of cameras, streams, video files, photographs, folders and globs."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

import cv2

from ..addresses import STREAM_SCHEMES, is_live, public_name
from ..errors import SourceError
from ..paths import is_folder, matches, status
from ..regular import begins_as_text, encodable, first_bytes
from ..types import Frame
from .camera import AS_IT_IS, LiveOptions
from .live import LiveSource
from .pictures import IMAGE_SUFFIXES, decode_image, read_image
from .video import VIDEO_SUFFIXES, VideoSource, is_video_name

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "FilesSource",
    "ImageSource",
    "Source",
    "VideoSource",
    "decode_image",
    "files_of",
    "is_video_name",
    "natural_order",
    "open_source",
    "read_image",
]

log = logging.getLogger("facerecon_rt")

MOST_NAMES = 5
"""Number of faulty files that a message names."""


class Source(Protocol):
    """A source of frames. It owns the files or devices that it reads; use it as a context manager."""

    @property
    def name(self) -> str:
        """Path or URI, without user and password."""

    @property
    def live(self) -> bool:
        """Whether frames come in real time, so that frames nobody fetched in time are lost."""

    @property
    def still(self) -> bool:
        """Whether all frames are photographs."""

    @property
    def lost(self) -> str:
        """Description of the content that could not be read, available after reading; empty when nothing is missing."""

    def __enter__(self) -> Source: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames. Raises SourceError when there are none, or when a live source is lost."""

    def close(self) -> None:
        """Release files and devices, and end the iteration."""


def open_source(uri: str | Path, *, live: LiveOptions = AS_IT_IS, retries: int | None = None) -> Source:
    """Open `cam0`, `/dev/video0`, `csi://0`, an rtsp:// or http(s):// stream, a video, a photograph, a folder, a glob.

    `live`: options for cameras and streams. `retries`: attempts to reopen a lost camera or stream; None for no limit.
    Raises SourceError with a one-line message that names the fix.
    """
    if is_live(str(uri)):
        return LiveSource(str(uri), live, retries=retries)
    paths, several = _found(uri)
    return FilesSource(str(uri), paths) if several else _open_file(paths[0])


def files_of(uri: str | Path) -> list[Path]:
    """Return the files that `open_source` would read. There are none for cameras and streams, and for what cannot be
    read, which `open_source` refuses."""
    try:
        return [] if is_live(str(uri)) else _found(uri)[0]
    except SourceError:
        return []


def _found(uri: str | Path) -> tuple[list[Path], bool]:
    """Return the files that a URI names, and whether it may name several: a folder or a pattern. Raises SourceError."""
    text, path = str(uri), Path(uri)
    if "://" in text:
        raise SourceError(
            f"cannot open {public_name(text)}; streams are {', '.join(s + '://' for s in STREAM_SCHEMES)}"
        )
    try:
        if is_folder(path):
            return _media_in(list(path.iterdir()), f"folder {text}"), True
        if status(path) is not None:
            return [path], False
    except OSError as error:
        raise SourceError(f"cannot read {text}: {error.strerror}") from error
    if any(sign in text for sign in "*?["):
        hint = " ([ ] stand for one of the signs within; write [[] for a bracket)" if "[" in text else ""
        return _media_in(_each_once(map(Path, matches(text))), f"pattern {text}{hint}"), True
    raise SourceError(
        f"{text} does not exist; give a camera (cam0), a stream, a video, a photograph, a folder or a glob"
    )


class ImageSource:
    """One photograph."""

    live = False
    still = True
    lost = ""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path

    def __enter__(self) -> ImageSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the photograph as a still frame. Raises SourceError for the reasons of `read_image`."""
        started = time.monotonic()
        image = read_image(self._path)
        now = time.monotonic()
        yield Frame(image, self.name, captured_at=now, capture_ms=(now - started) * 1000)

    def close(self) -> None:
        """Do nothing: no file stays open between reads."""


class FilesSource:
    """Photographs and videos, one file after the other. Unreadable files are skipped with a warning."""

    live = False

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self.name = name
        self.lost = ""
        """Number of files that were skipped or damaged, in words, available after reading; empty when there are
        none."""
        self._paths = paths
        self._current: Source | None = None
        self._closed = False

    @property
    def still(self) -> bool:
        """Whether all files are photographs."""
        return not any(is_video_name(path) for path in self._paths)

    def __enter__(self) -> FilesSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames of each file. Logs one warning with the number of files that were not read whole. Raises
        SourceError when no file could be read."""
        found = False
        faulty: list[str] = []
        for path in self._paths:
            if self._closed:
                return
            try:
                with _open_file(path) as self._current:
                    for frame in self._current:
                        found = True
                        yield frame
                    if self._current.lost:
                        faulty.append(path.name)
            except SourceError as error:
                faulty.append(path.name)
                log.warning("skipped: %s", error)
        if not found:
            raise SourceError(f"none of the {len(self._paths)} files of {self.name} could be read")
        if faulty:
            names = ", ".join([*faulty[:MOST_NAMES], *(["..."] if len(faulty) > MOST_NAMES else [])])
            count = f"{len(faulty)} of the {len(self._paths)} files of {self.name}"
            self.lost = f"{count} could not be read whole: {names}"
            log.warning("%s", self.lost)

    def close(self) -> None:
        """Close the current file, and end the iteration."""
        self._closed = True
        if self._current is not None:
            self._current.close()


def _open_file(path: Path) -> Source:
    if is_video_name(path):
        return VideoSource(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSource(path)
    if begins_as_text(first_bytes(path)):
        raise SourceError(f"{path} is a text file, not a photograph or video")
    try:
        with encodable(path) as name:
            if cv2.haveImageReader(name):
                return ImageSource(path)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}; give it a name in UTF-8") from error
    # FFmpeg reads almost any file as a video (a .bin as a screen of letters), so only video suffixes are accepted.
    raise SourceError(
        f"{path} is not a photograph; if it is a video, give it a video suffix: {', '.join(VIDEO_SUFFIXES)}"
    )


def _media_in(paths: Iterable[Path], where: str) -> list[Path]:
    """Return the photographs and videos among `paths`, by suffix, in natural order."""
    known = IMAGE_SUFFIXES + VIDEO_SUFFIXES
    try:
        found = list(paths)
        media = [p for p in found if p.suffix.lower() in known and not p.name.startswith(".") and not is_folder(p)]
        folders = sum(map(is_folder, found))
    except OSError as error:
        raise SourceError(f"cannot read {where}: {error.strerror}") from error
    if not media:
        inside = f"; its {folders} folders are not searched: name one of them, or 'FOLDER/*/*.jpg'" if folders else ""
        raise SourceError(f"{where} holds no photograph (.jpg, .png, ...) or video (.mp4, ...){inside}")
    return sorted(media, key=natural_order)


def _each_once(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield each file once. A link to a parent folder leads to the same files again and again."""
    seen = set()
    for path in paths:
        place = os.path.realpath(path.parent), path.name
        if place not in seen:
            seen.add(place)
            yield path


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Return a sorting key for paths that compares digits by their numeric value."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", str(path).lower())]

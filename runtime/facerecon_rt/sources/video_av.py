"""A video file -> its frames, decoded by PyAV, which brings its own FFmpeg (extra `video`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from ..errors import SourceError
from ..limits import MOST_FRAME_PIXELS
from ..quiet import FILE_FORMATS
from ..types import Image

Packet = Any
"""Type of av.Packet, which only type checkers see as generic."""
MOST_FAILURES = 1000
"""Maximum number of consecutive failures after which reading still continues."""
SOUND_SLACK_S = 2.0
"""Time in seconds by which sound may be longer than the picture, where a file declares only their common duration."""
KEPT_BYTES = 31 << 20
"""Block size in bytes just below the largest that glibc adapts to."""
# Decoding has threads already, so a thread for the conversion costs more than it gains.
_ONE_THREAD = {"threads": 1} if int(av.__version__.partition(".")[0]) >= 17 else {}


class AvReader:
    """A VideoReader for everything that FFmpeg reads, including interlaced video and AV1. It takes the largest of
    several streams."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises SourceError when it holds no video that can be decoded."""
        self._name = str(path)
        _keep_freed_memory()
        self._container = open_container(path)
        self._closed = False
        stream = largest_video(self._container)
        if stream is None:
            videos = len(self._container.streams.video)
            self._container.close()
            what = "holds no video in a codec that FFmpeg knows; convert it" if videos else "holds no video, only sound"
            raise SourceError(f"{path} {what}")
        self._stream = stream
        self._stream.thread_type = "AUTO"
        rate = self._stream.guessed_rate or self._stream.average_rate
        self.fps = float(rate) if rate and 0 < rate < 1000 else 0.0
        self.size = (self._stream.width, self._stream.height)
        self.pixel_shape = float(self._stream.sample_aspect_ratio or 0)
        self._damaged = False
        self._undecoded = 0
        """Number of packets behind the first frame that could not be decoded."""
        self._discarded = 0
        """Number of packets that the file itself marks as trimmed."""
        self._intervals: Counter[int] = Counter()
        """Number of frames for each interval to the previous frame, in milliseconds."""
        self._first_s: float | None = None
        self._last_s = 0.0
        """Time of the last frame on the clock of the file, which need not begin with 0."""

    def __iter__(self) -> Iterator[tuple[Image, float]]:
        """Yield each upright frame that decodes, with its time in seconds since the first frame. Raises SourceError for
        frames that are too large."""
        reformatter = VideoReformatter()
        matrix: list[int] | None = None
        for index, frame in enumerate(self._decoded()):
            if frame.width * frame.height > MOST_FRAME_PIXELS:
                raise SourceError(
                    f"{self._name} has a frame of {frame.width}x{frame.height}, more than "
                    f"{MOST_FRAME_PIXELS // 10**6} megapixels"
                )
            try:
                image = reformatter.reformat(frame, format="bgr24", **_ONE_THREAD).to_ndarray()
            except av.FFmpegError:
                self._undecoded += 1
                continue
            if matrix is None:
                matrix = _display_matrix(frame)
                if not matrix[0] and self.pixel_shape:
                    self.pixel_shape = 1 / self.pixel_shape
            yield upright(np.asarray(image, np.uint8), matrix), self._time_s(frame.time, index)

    def missing(self, count: int) -> int:
        """Return the number of missing frames after `count` frames have been read to the end."""
        missing = [0, self._undecoded]
        if self._stream.frames:
            missing.append(self._stream.frames - self._discarded - count)
        elif self.fps and (end_s := self._declared_end_s()):
            missing.append(round((end_s - self._last_s) * self.fps) - 1)
        if self._damaged and self._intervals:
            # Healthy videos have gaps in time too. The gaps of a damaged video count as lost frames.
            usual_ms = self._intervals.most_common(1)[0][0]
            missing.append(round((self._last_s - (self._first_s or 0)) * 1000 / max(1, usual_ms)) + 1 - count)
        return max(missing)

    def close(self) -> None:
        """Close the file and end the iteration."""
        self._closed = True
        self._container.close()

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Yield the frames that decode, and count the packets that do not."""
        seen = False
        for packet in self._packets():
            self._damaged |= packet.is_corrupt
            self._discarded += packet.is_discard
            try:
                frames = packet.decode()
            except av.FFmpegError:
                # Packets before the first frame belong to a part that was not recorded.
                self._undecoded += seen
                self._damaged |= seen
                continue
            for frame in frames:
                if self._closed:
                    return
                if isinstance(frame, av.VideoFrame):
                    self._damaged |= frame.is_corrupt
                    seen = True
                    yield frame

    def _packets(self) -> Iterator[Packet]:
        """Yield the packets of the stream, also behind damaged parts."""
        failures = 0
        packets = self._container.demux(self._stream)
        while not self._closed and failures < MOST_FAILURES:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except IndexError:
                # PyAV does not know a stream that begins later than the file, and this reader does not need it.
                packets = self._container.demux(self._stream)
                continue
            except av.FFmpegError:
                failures += 1
                self._damaged = True
                packets = self._container.demux(self._stream)
                continue
            failures = 0
            yield packet

    def _time_s(self, stamp_s: float | None, index: int) -> float:
        """Return the time of a frame in seconds since the first. A frame without a time stamp gets that of a constant
        rate."""
        if stamp_s is None:
            return index / self.fps if self.fps else 0.0
        if self._first_s is None:
            self._first_s = stamp_s
        else:
            self._intervals[round((stamp_s - self._last_s) * 1000)] += 1
        self._last_s = stamp_s
        return max(0.0, stamp_s - self._first_s)

    def _declared_end_s(self) -> float | None:
        """Return the time in seconds at which the picture ends, on the clock of the file; None where the file does not
        declare it. MPEG containers do not: FFmpeg searches for the last time stamp, or estimates it."""
        if self._container.format.name.startswith("mpeg"):
            return None
        if self._stream.duration is not None and self._stream.time_base:
            return float(self._stream.duration * self._stream.time_base)
        duration = self._stream.metadata.get("DURATION", "")  # Matroska, as 00:00:02.400000000
        parts = duration.split(":")
        if len(parts) == 3 and all(part.replace(".", "", 1).isdecimal() for part in parts):
            return float(parts[0]) * 3600 + float(parts[1]) * 60 + float(parts[2])
        if self._container.duration is None:
            return None
        end_s = self._container.duration / 1e6
        return end_s - SOUND_SLACK_S if self._container.streams.audio else end_s


@cache
def _keep_freed_memory() -> None:
    """Make glibc keep the freed memory of pictures for the next ones. Otherwise every 1080p frame returns its memory to
    the system and requests it again, which takes 1 to 4 ms. glibc adapts when the first larger block is freed."""
    np.empty(KEPT_BYTES, np.uint8)


def open_container(path: Path) -> InputContainer:
    """Open a video file. Only container formats of single files are allowed, whatever the file contains. Raises
    SourceError."""
    options = {"format_whitelist": ",".join(FILE_FORMATS), "protocol_whitelist": "file"}
    try:
        return av.open(str(path.absolute()), metadata_errors="replace", container_options=options)
    except av.FFmpegError as error:
        raise SourceError(
            f"{path} cannot be opened as a video: damaged, cut short or no video; copy or convert it"
        ) from error


def largest_video(container: InputContainer) -> av.VideoStream | None:
    """Return the video stream with the largest frames that can be decoded. Cover pictures do not count."""
    streams = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    known = [one for one in streams if one.codec_context is not None]
    return max(known, key=lambda one: one.width * one.height, default=None)


def upright(image: Image, matrix: list[int]) -> Image:
    """Turn and mirror a frame by a display matrix (9,), as in MP4's track header, rounded to the nearest quarter turn.

    With the first five values a, b, _, c, d a point (x, y) moves to (a x + c y, b x + d y).
    """
    a, b, _, c, d = matrix[:5]
    turned = image
    if not a:
        turned = np.swapaxes(turned, 0, 1)
        a, d = c, b
    if a < 0:
        turned = turned[:, ::-1]
    if d < 0:
        turned = turned[::-1]
    return np.ascontiguousarray(turned)


def _display_matrix(frame: av.VideoFrame) -> list[int]:
    """Return the display matrix (9,) of a frame. Only the largest value of each row in the upper left 2x2 is kept."""
    found = frame.side_data.get("DISPLAYMATRIX")
    if found is None:
        return [1, 0, 0, 0, 1, 0, 0, 0, 1]
    matrix = [int(value) for value in np.frombuffer(cast(bytes, found), np.int32)]
    a, b, _, c, d = matrix[:5]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        matrix[1] = matrix[3] = 0
        matrix[0], matrix[4] = a or 1, d or 1
    else:
        matrix[0] = matrix[4] = 0
        matrix[1], matrix[3] = b or 1, c or 1
    return matrix

"""A video file -> its frames, decoded by OpenCV, for installations without the extra `video`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ..errors import SourceError
from ..quiet import quiet_opencv, set_capture_options
from ..regular import encodable, open_regular
from ..types import Image
from .boxes import is_cut_short, track_sizes
from .interlaced import MOST_REPEATS, Repeats, may_be_unreadable

MOST_FAILURES = 256
"""Maximum number of consecutive failures after which reading still continues. The end of the file takes as many
attempts."""
MOST_FRAMES = 1e9
"""Number of frames above which the count in a header is ignored as implausible."""
PYAV = "pip install 'facerecon-rt[video]'"
_CODECS = {
    "av01": "AV1", "avc1": "H.264", "h264": "H.264", "hev1": "HEVC", "hvc1": "HEVC", "hevc": "HEVC", "vvc1": "VVC",
    "fmp4": "MPEG-4", "mp4v": "MPEG-4", "mpg2": "MPEG-2", "apch": "ProRes", "apcn": "ProRes", "ap4h": "ProRes",
    "dvsd": "DV",
}  # fmt: skip
"""Four characters of a codec in lower case -> the common name of the codec."""

log = logging.getLogger("facerecon_rt")


class CvReader:
    """A VideoReader for the files that OpenCV's FFmpeg reads. It takes the first of several streams."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises SourceError when it is not a video that FFmpeg can open."""
        self._name = str(path)
        with open_regular(path) as file:
            start = file.read(8)
            self._cut_short = is_cut_short(file)
            tracks = track_sizes(file)
        self._is_mp4 = tracks is not None
        # Only AVI and MP4 declare the number of frames. Other files declare an end, which is useful only where OpenCV
        # reports their start. MPEG streams declare nothing.
        says_end = hasattr(cv2, "CAP_PROP_PTS") and not start.startswith(b"\0\0\1") and 0x47 not in (start[0], start[4])
        self._promises = self._is_mp4 or start.startswith(b"RIFF") or says_end
        set_capture_options()
        try:
            with encodable(path) as name, quiet_opencv():
                self._capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}; give it a name in UTF-8") from error
        if not self._capture.isOpened():
            raise SourceError(f"{path} cannot be opened as a video: damaged, cut short or no video; copy or convert it")
        width, height = (int(self._capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        self.size = (width, height)
        if tracks and (largest := max(tracks)) > min(tracks):
            log.warning(
                "%s holds videos of %d and %d pixels a frame; OpenCV reads the first; for the largest: %s",
                path, largest, min(tracks), PYAV,
            )  # fmt: skip
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else 0.0
        self.pixel_shape = self._pixel_shape()
        self._untrusted = may_be_unreadable(self._capture)
        self._failures = 0
        """Number of failed reads behind which a frame could be read."""
        self._first_number = 0
        """Number of the first frame by its time stamp, because a file need not begin with 0."""

    def __iter__(self) -> Iterator[tuple[Image, float]]:
        """Yield each upright frame that decodes, with its time in seconds since the first frame. Raises SourceError for
        video that this OpenCV cannot decode or convert."""
        frames = self._decoded()
        return self._fresh(frames) if self._untrusted else frames

    def missing(self, count: int) -> int:
        """Return the number of missing frames after `count` frames have been read to the end."""
        promised = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if not self._promises or not self.fps or not 0 < promised < MOST_FRAMES:
            return self._failures
        # The header of an MP4 counts trimmed frames too. In a trimmed file all boxes are whole, and no read failed.
        trimmed = self._is_mp4 and not self._cut_short and not self._failures
        return 0 if trimmed else int(promised) - self._first_number - count

    def close(self) -> None:
        """Close the file and end the iteration."""
        self._capture.release()

    def _decoded(self) -> Iterator[tuple[Image, float]]:
        index = failures = 0
        while self._capture.isOpened():
            ok, image = self._capture.read()
            if not ok:
                failures += 1
                if failures < MOST_FAILURES:
                    continue  # skip the damaged part
                break
            if not index:
                self._first_number = max(0, int(self._capture.get(getattr(cv2, "CAP_PROP_PTS", -1))))
            self._failures += failures
            failures = 0
            yield np.asarray(image, np.uint8), self._time_s(index)
            index += 1
        if not index and self._capture.isOpened():
            raise SourceError(
                f"{self._name} holds {self._codec()} video, but this OpenCV decodes no frame of it: it is damaged, or "
                f"OpenCV lacks the codec. Install PyAV, which has more: {PYAV}; or convert it: ffmpeg -i IN OUT.mp4"
            )

    def _fresh(self, frames: Iterator[tuple[Image, float]]) -> Iterator[tuple[Image, float]]:
        """Yield the frames of a video that may be interlaced. Raises SourceError instead of repeated frames that OpenCV
        could not convert."""
        held: list[tuple[Image, float]] = []
        repeats = Repeats()
        seen = stale = False
        for image, time_s in frames:
            count = repeats.count(image)
            stale = count > MOST_REPEATS
            if stale:
                break
            if not count:
                seen = True
                yield from held
                held.clear()
            held.append((held[0][0] if held else image, time_s))
        if held and (stale or not seen):
            raise SourceError(
                f"{self._name} repeats the same picture; it seems to be interlaced {self._codec()} video, which OpenCV "
                f"{cv2.__version__} cannot convert. Install PyAV, which can: {PYAV}; or convert it: "
                "ffmpeg -i IN -vf yadif OUT.mp4"
            )
        yield from held

    def _time_s(self, index: int) -> float:
        """Return the time of a frame in seconds. A frame without a time stamp gets that of a constant rate."""
        stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if stamp > 0 or index == 0:
            return max(0.0, stamp)
        return index / self.fps if self.fps else 0.0

    def _pixel_shape(self) -> float:
        across, down = (self._capture.get(side) for side in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN))
        if across <= 0 or down <= 0:
            return 0.0
        turned = self._capture.get(cv2.CAP_PROP_ORIENTATION_AUTO) and self._capture.get(cv2.CAP_PROP_ORIENTATION_META)
        return down / across if turned in (90, 270) else across / down

    def _codec(self) -> str:
        tag = (int(self._capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF).to_bytes(4, "little")
        letters = "".join(chr(byte) for byte in tag if 32 < byte < 127)
        return _CODECS.get(letters.lower(), letters or "unknown")

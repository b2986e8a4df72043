"""A capture of OpenCV's FFmpeg -> whether its frames can be trusted.

OpenCV from 4.13 on cannot convert interlaced frames (FFmpeg: "Cannot convert interlaced to progressive frames"). It
returns its unchanged buffer instead, which is black or shows an earlier picture. Only the repetition gives this away.
"""

from __future__ import annotations

import base64
import os
import re
from functools import cache
from typing import Protocol

import cv2
import numpy as np
from cv2.typing import MatLike

from ..quiet import quiet_opencv
from ..types import Image

MOST_REPEATS = 10
"""Maximum number of equal frames in a row in a video that may be interlaced."""
# Two interlaced frames of 16x16 pixels, a white one and a black one: ffmpeg -f lavfi -i color=white:s=16x16:r=25:d=0.04
# -f lavfi -i color=black:s=16x16:r=25:d=0.04 -filter_complex '[0][1]concat' -c:v mpeg2video -flags +ildct+ilme -q:v 31
# -g 1 -bf 0 clip.m2v
CLIP = base64.b64decode(
    "AAABswEAEBP//+AYAAABtRSCAAEAAAAAAbgACABAAAABAAAP//gAAAG1j//zAAAAAAEB+32ulKREAAABAvt9rpSkRAAAAbMBABAT///gGAAAAbUU"
    "ggABAAAAAAG4AAgAwAAAAQAAD//4AAABtY//8wAAAAABAft8PpSkRAAAAQL7fD6UpEQ="
)
_H264 = {"avc1", "avc3", "h264", "x264"}
_MPEG4 = {"mp4v", "fmp4", "xvid", "divx", "dx50"}
# Codecs that have no interlaced frames, or that nobody interlaces.
_PROGRESSIVE = {
    "hevc", "hvc1", "hev1", "vp80", "vp90", "vp09", "av01", "gif ", "mjpg", "jpeg", "png ", "mpg1", "flv1", "h263",
    "s263", "theo", "wmv1", "wmv2", "mp42", "mp43", "div3",
}  # fmt: skip
# Profiles of H.264 whose parameter sets say more about colours: ITU-T H.264, 7.3.2.1.1.
_HIGH_PROFILES = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}


class FfmpegCapture(Protocol):
    """The part of `cv2.VideoCapture` that the tests for interlaced video use."""

    def get(self, propId: int) -> float:
        """Return the property cv2.CAP_PROP_*."""

    def set(self, propId: int, value: float) -> bool:
        """Set the property cv2.CAP_PROP_*."""

    def retrieve(self, *, flag: int) -> tuple[bool, MatLike]:
        """Return the codec's headers, with `flag` from CAP_PROP_CODEC_EXTRADATA_INDEX."""


@cache
def converts_interlaced() -> bool:
    """Return whether this OpenCV decodes interlaced frames correctly. A clip of two frames is decoded to find out."""
    handle = os.memfd_create("interlaced", os.MFD_CLOEXEC)
    try:
        os.write(handle, CLIP)
        with quiet_opencv():
            capture = cv2.VideoCapture(f"/proc/self/fd/{handle}", cv2.CAP_FFMPEG)
            levels = [image.mean() for ok, image in (capture.read(), capture.read()) if ok]
            capture.release()
    finally:
        os.close(handle)
    return len(levels) == 2 and levels[0] > 200 and levels[1] < 50


def may_be_unreadable(capture: FfmpegCapture) -> bool:
    """Return whether a capture may return stale frames: its video may be interlaced, and this OpenCV cannot convert
    that."""
    tag = (int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF).to_bytes(4, "little").decode("latin-1").lower()
    if tag in _PROGRESSIVE:
        return False
    upright = capture.get(cv2.CAP_PROP_ORIENTATION_AUTO)
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # otherwise OpenCV rotates the headers like a picture
    _, headers = capture.retrieve(flag=int(capture.get(cv2.CAP_PROP_CODEC_EXTRADATA_INDEX)))
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, upright)
    known = b"" if headers is None else np.asarray(headers).tobytes()
    return may_be_interlaced(tag, known) and not converts_interlaced()


def may_be_interlaced(tag: str, headers: bytes) -> bool:
    """Return whether a codec may contain interlaced frames, judged by its four characters in lower case and its
    headers."""
    if tag in _PROGRESSIVE:
        return False
    try:
        if tag in _H264:
            return not _h264_frames_only(headers)
        if tag in _MPEG4:
            return _mpeg4_interlaced(headers)
    except IndexError:
        return True  # truncated headers decide nothing
    # MPEG-2, sequence extension: profile and level stand between its number and the progressive bit.
    extension = headers.find(b"\0\0\1\xb5")
    if 0 <= extension < len(headers) - 5 and headers[extension + 4] >> 4 == 1:
        return not headers[extension + 5] & 0b1000
    return True


class Repeats:
    """Counter of how often the same picture has come in a row."""

    def __init__(self) -> None:
        self._last: Image | None = None
        self._count = 0

    def count(self, image: Image) -> int:
        """Take the next frame and return the number of frames since the last change; 0 for a frame that differs from
        the one before. The very first frame counts as a repetition, because it may show old memory."""
        differs = self._last is not None and not _same(self._last, image)
        self._count = 0 if differs else self._count + 1
        self._last = image
        return self._count


def _same(one: Image, other: Image) -> bool:
    """Return whether two frames are equal in every pixel. The comparison is quick for frames that differ."""
    return one.shape == other.shape and np.array_equal(one[::64], other[::64]) and np.array_equal(one, other)


class _Bits:
    """A reader of numbers of a few bits. Raises IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> int:
        """Return the next `count` bits as a number."""
        value = 0
        for _ in range(count):
            value = value << 1 | self._data[self._at >> 3] >> (7 - (self._at & 7)) & 1
            self._at += 1
        return value

    def golomb(self) -> int:
        """Return the next unsigned number in exponential Golomb code."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


def _h264_frames_only(headers: bytes) -> bool:
    """Return frame_mbs_only_flag of the first sequence parameter set. Raises IndexError where there is none."""
    if headers[:1] == b"\1":  # the form in MP4 and Matroska
        at = 9
    elif found := re.search(rb"\x00\x00\x01[\x07\x27\x47\x67]", headers):
        at = found.end()
    else:
        raise IndexError("no sequence parameter set")
    bits = _Bits(headers[at:].replace(b"\0\0\3", b"\0\0"))
    profile = bits.take(8)
    bits.take(16)
    bits.golomb()
    if profile in _HIGH_PROFILES:
        chroma = bits.golomb()
        if chroma == 3:
            bits.take(1)
        bits.golomb()
        bits.golomb()
        bits.take(1)
        if bits.take(1):
            for index in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if index < 6 else 64)
    bits.golomb()
    order_type = bits.golomb()
    if order_type == 0:
        bits.golomb()
    elif order_type == 1:
        bits.take(1)
        bits.golomb()
        bits.golomb()
        for _ in range(bits.golomb()):
            bits.golomb()
    bits.golomb()
    bits.take(1)
    bits.golomb()
    bits.golomb()
    return bits.take(1) == 1


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            coded = bits.golomb()
            delta = (coded + 1) // 2 if coded % 2 else -(coded // 2)
            following = (last + delta) % 256
        last = following or last


def _mpeg4_interlaced(headers: bytes) -> bool:
    """Return `interlaced` of the first video object layer (ISO 14496-2, 6.2.3). Raises IndexError where there is
    none."""
    found = re.search(rb"\x00\x00\x01[\x20-\x2f]", headers)
    if found is None:
        raise IndexError("no video object layer")
    bits = _Bits(headers[found.end() :])
    bits.take(1 + 8)
    if bits.take(1):
        bits.take(4 + 3)
    if bits.take(4) == 15:
        bits.take(8 + 8)
    if bits.take(1):
        bits.take(2 + 1)
        if bits.take(1):
            bits.take(79)
    if bits.take(2):
        return True  # the shape is not a rectangle
    bits.take(1)
    resolution = bits.take(16)
    bits.take(1)
    if bits.take(1):
        bits.take(max(1, (resolution - 1).bit_length()))
    bits.take(1 + 13 + 1 + 13 + 1)
    return bits.take(1) == 1

"""A photograph's file -> its pixels, upright."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from ..errors import SourceError
from ..limits import MOST_PICTURE_BYTES
from ..quiet import complains, quiet_opencv
from ..regular import is_text, open_regular
from ..types import Image
from .boxes import brands, orientation

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".jp2", ".avif", ".heic",
    ".heif", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
"""Taken as photographs. HEIC is among them although OpenCV cannot read it, so that it is named and not overlooked."""
MOST_PAGES = 1000
"""Maximum number of pages, chunks or frames of one file that are counted; a damaged TIFF may go round in circles."""
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF = {b"avif", b"avis"}
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_MARKER = re.compile(rb"\xff+[^\x00\x01\xd0-\xd7\xff]")
"""Neither within pixels nor one that stands alone in them."""
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""TIFF and BigTIFF, of either byte order."""

log = logging.getLogger("facerecon_rt")


def read_image(path: str | Path) -> Image:
    """Decode a photograph -> (H, W, 3) uint8 BGR, upright: its orientation applied.

    Grey becomes three equal channels, 16 bits become 8 by scaling, an alpha channel is dropped: the colours below it
    are the picture. Of a file with several pictures the first is read, with a warning. Raises SourceError when the file
    is missing, no file but a pipe or device, not an image OpenCV reads, cut short, or larger than `limits` allow.
    """
    with open_regular(Path(path)) as file:
        try:
            data = file.read(MOST_PICTURE_BYTES + 1)
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}") from error
    return decode_image(data, str(path))


def decode_image(data: bytes | NDArray[np.uint8], name: str) -> Image:
    """Decode the bytes (N,) uint8 of a photograph's file as `read_image` does; `name` is what messages call it."""
    if len(data) > MOST_PICTURE_BYTES:
        raise SourceError(f"{name} is larger than {MOST_PICTURE_BYTES >> 20} MB; save it as JPEG, or smaller")
    if not len(data):
        raise SourceError(f"{name} is empty; copy it again")
    encoded = np.frombuffer(data, np.uint8)
    view = encoded.data
    try:
        with quiet_opencv():
            image: MatLike | None = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
            if image is None or (not _notices_open_jpegs() and _is_open_jpeg(view)):
                image = _jpeg_without_end(view)
            if image is None:
                raise SourceError(f"{name} {_why_no_image(view)}")
    except cv2.error as error:
        raise SourceError(f"{name} cannot be decoded: damaged, or more than {_most_pixels()}; save it anew") from error
    if further := _further_pictures(view):
        log.warning("%s holds %s; only the first is read", name, further)
    return _upright(np.asarray(image, np.uint8), view)


def _most_pixels() -> str:
    """Maximum number of pixels that OpenCV decodes: it reads this variable when it is loaded."""
    limit = os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS", "")
    return f"{int(limit) / 1e6:.3g} megapixels" if limit.isdecimal() else "a gigapixel"


@cache
def _notices_open_jpegs() -> bool:
    """Whether this OpenCV refuses a JPEG that ends early. Up to 4.11 it gives what there is, above stale memory."""
    half = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1]
    return cv2.imdecode(half[: len(half) - 8], cv2.IMREAD_COLOR) is None


def _is_open_jpeg(data: memoryview) -> bool:
    """Whether a JPEG ends before its end mark. Its segments, by ITU-T T.81: marker, length, content; a scan's pixels
    follow it up to the next marker."""
    if bytes(data[:2]) != _JPEG_START:
        return False
    at = 2
    while at < len(data):
        marker = _JPEG_MARKER.search(data, at)
        if marker is None:
            return True
        if marker[0][-1:] == _JPEG_END[1:]:
            return False
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return True


def _jpeg_without_end(data: memoryview) -> MatLike | None:
    """A JPEG that lacks nothing but its end mark, as some cameras and downloads leave it; None for all others.

    With the mark in place libjpeg decodes whatever there is, grey where nothing is, and says on standard error alone
    whether something was missing.
    """
    if bytes(data[:2]) != _JPEG_START or bytes(data[-2:]) == _JPEG_END:
        return None
    length = len(data) - (data[-1] == 0xFF)
    ended = np.frombuffer(bytes(data[:length]) + _JPEG_END, np.uint8)
    image, incomplete = complains(lambda: cv2.imdecode(ended, cv2.IMREAD_COLOR), b"JPEG")
    return None if incomplete else image


def _upright(image: Image, data: memoryview) -> Image:
    """OpenCV applies EXIF's orientation, but not that of AVIF."""
    if _AVIF.isdisjoint(brands(bytes(data[:64]))):
        return image
    turns, mirror = orientation(data)
    turned = np.rot90(image, turns)
    if mirror is not None:
        turned = turned[::-1] if mirror == 0 else turned[:, ::-1]
    return np.ascontiguousarray(turned)


def _further_pictures(data: memoryview) -> str:
    """What a file holds besides one picture, and what to do with it; empty for a single picture."""
    start = bytes(data[:64])
    count = 1
    if start.startswith(b"\x89PNG"):
        count = _png_frames(data)
    elif start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        count = sum(kind == b"ANMF" for kind in _riff_chunks(data))
    elif start[:4] in _TIFF_STARTS:
        pages = sum(1 for _ in _tiff_pages(data))
        return f"{pages} pages (save each as a file of its own)" if pages > 1 else ""
    elif brands(start)[:1] == (b"avis",):
        return "an animation (convert it to a video)"
    return f"an animation of {count} pictures (convert it to a video)" if count > 1 else ""


def _png_frames(data: memoryview) -> int:
    """Number of frames of an animated PNG; it stands in front of the picture."""
    at = 8
    for _ in range(MOST_PAGES):
        kind = bytes(data[at + 4 : at + 8])
        if kind == b"acTL":
            return int.from_bytes(data[at + 8 : at + 12], "big")
        if kind in (b"IDAT", b""):
            break
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return 1


def _riff_chunks(data: memoryview) -> Iterator[bytes]:
    """Yield the kind of each chunk of a WebP file."""
    at = 12
    for _ in range(MOST_PAGES):
        yield bytes(data[at : at + 4])
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2


def _tiff_pages(data: memoryview) -> Iterator[int]:
    """Yield the place of each page of a TIFF or BigTIFF in the file, thumbnails and masks left out."""
    order: Literal["little", "big"] = "little" if data[0] == ord("I") else "big"
    big = ord("+") in data[2:4]
    place_size, count_size, tag_size, value_at = (8, 8, 20, 12) if big else (4, 2, 12, 8)

    def number(at: int, length: int) -> int:
        return int.from_bytes(data[at : at + length], order)

    at = number(8 if big else 4, place_size)
    for _ in range(MOST_PAGES):
        if not 0 < at < len(data) - count_size:
            return
        count, first = number(at, count_size), at + count_size
        # NewSubfileType (254, the lowest of tags, which are sorted), bits 0 and 2: a smaller version, or a mask, of
        # another page.
        tags = range(first, first + min(count, 4) * tag_size, tag_size)
        if not any(number(tag, 2) == 254 and number(tag + value_at, 4) & 0b101 for tag in tags):
            yield at
        at = number(first + count * tag_size, place_size)


def _why_no_image(data: memoryview) -> str:
    start = bytes(data[:4096])
    kinds = set(brands(start))
    if is_text(start):
        return "is a text file, not a photograph"
    if further := _further_pictures(data):
        return f"holds {further}, which this OpenCV cannot read, or is damaged"
    if kinds & _AVIF:
        return (
            "is AVIF that this OpenCV cannot read: damaged, cut short, or OpenCV was built without it; save it as JPEG"
        )
    if kinds & _HEIC:
        return "is HEIC, which OpenCV cannot read; convert it to JPEG"
    if kinds or start.startswith(b"\x1a\x45\xdf\xa3"):
        return "is a video named like a photograph; name it .mp4 or .mkv"
    if start.startswith(b"\xff\x0a") or start[4:12] == b"JXL \r\n\x87\n":
        return "is JPEG XL, which OpenCV cannot read; convert it to JPEG"
    if start[:4] in _TIFF_STARTS and (values := _tiff_values(data)):
        return f"holds {values} values, whose black and white nobody knows; save it with 8 or 16 bits"
    return "cannot be decoded: damaged, cut short or no image; copy it again or save it as JPEG or PNG"


def _tiff_values(data: memoryview) -> str:
    """The type of the values of a TIFF that OpenCV reads, but not as a picture; empty where it does not read it. Raises
    cv2.error."""
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return "" if values is None or values.dtype in (np.uint8, np.uint16) else str(values.dtype)

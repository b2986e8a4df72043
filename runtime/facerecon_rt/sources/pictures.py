"""The file of a photograph -> its upright pixels."""

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
from ..regular import begins_as_text, open_regular
from ..types import Image
from .boxes import brands, orientation

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".jp2", ".avif", ".heic",
    ".heif", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
"""Suffixes of photographs. HEIC is listed although OpenCV cannot read it, so that such files cause an error and are not
overlooked."""
MOST_PNG_CHUNKS = 2**20
"""Maximum number of chunks in a PNG. Encoders write chunks of 8 kB and more."""
MOST_PAGES = 1000
"""Maximum number of pages, chunks or frames to count in one file. The pages of a damaged TIFF may form a circle."""
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF = {b"avif", b"avis"}
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_MARKER = re.compile(rb"\xff+[^\x00\x01\xd0-\xd7\xff]")
"""Marker that is neither stuffing within pixel data nor a standalone marker in it."""
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF, in either byte order."""

log = logging.getLogger("facerecon_rt")


def read_image(path: str | Path) -> Image:
    """Decode a photograph into (H, W, 3) uint8 BGR, upright: its orientation is applied.

    Grey becomes three equal channels, 16 bits are scaled to 8, and an alpha channel is dropped, which keeps the colours
    below it. A file with several pictures gives the first, with a warning.

    Raises SourceError when the file is missing, is a pipe or device, is not an image that OpenCV reads, is cut short,
    or exceeds `limits`.
    """
    with open_regular(Path(path)) as file:
        try:
            data = file.read(MOST_PICTURE_BYTES + 1)
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}") from error
    return decode_image(data, str(path))


def decode_image(data: bytes | NDArray[np.uint8], name: str) -> Image:
    """Decode the bytes (N,) uint8 of a photograph's file as `read_image` does. `name`: display name in messages."""
    if len(data) > MOST_PICTURE_BYTES:
        raise SourceError(f"{name} is larger than {MOST_PICTURE_BYTES >> 20} MB; save it as JPEG, or reduce its size")
    if not len(data):
        raise SourceError(f"{name} is empty; copy it again")
    encoded = np.frombuffer(data, np.uint8)
    view = encoded.data
    if not _holds_its_chunks(view):
        raise SourceError(f"{name} is a PNG that is damaged or cut short: it ends within a chunk; copy it again")
    try:
        with quiet_opencv():
            image: MatLike | None = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
            if image is None or (not _notices_open_jpegs() and _is_open_jpeg(view)):
                image = _jpeg_without_end(view)
            if image is None:
                raise SourceError(f"{name} {_why_no_image(view)}")
    except cv2.error as error:
        raise SourceError(f"{name} cannot be decoded: damaged, or more than {_most_pixels()}; save it again") from error
    if further := _further_pictures(view):
        log.warning("%s holds %s; only the first is read", name, further)
    return _upright(np.asarray(image, np.uint8), view)


def _most_pixels() -> str:
    """Return the maximum number of pixels that OpenCV decodes, as text. OpenCV reads this variable when it is
    loaded."""
    limit = os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS", "")
    return f"{int(limit) / 1e6:.3g} megapixels" if limit.isdecimal() else "a gigapixel"


@cache
def _notices_open_jpegs() -> bool:
    """Return whether this OpenCV refuses a JPEG that ends early. OpenCV up to 4.11 returns the existing part, above
    stale memory."""
    half = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1]
    return cv2.imdecode(half[: len(half) - 8], cv2.IMREAD_COLOR) is None


def _is_open_jpeg(data: memoryview) -> bool:
    """Return whether a JPEG ends before its end mark. By ITU-T T.81 a segment is marker, length and content; the pixels
    of a scan follow its segment up to the next marker."""
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
    """Decode a JPEG that lacks only its end mark, as some cameras and downloads leave it. Returns None for all others.

    With the mark added, libjpeg decodes the existing part and fills the rest with grey. Only its message on standard
    error shows whether pixels were missing.
    """
    if bytes(data[:2]) != _JPEG_START or bytes(data[-2:]) == _JPEG_END:
        return None
    length = len(data) - (data[-1] == 0xFF)
    ended = np.frombuffer(bytes(data[:length]) + _JPEG_END, np.uint8)
    image, incomplete = complains(lambda: cv2.imdecode(ended, cv2.IMREAD_COLOR), b"JPEG")
    return None if incomplete else image


def _upright(image: Image, data: memoryview) -> Image:
    """Turn and mirror an AVIF picture as its properties say. OpenCV applies the orientation of EXIF, but not of
    AVIF."""
    if _AVIF.isdisjoint(brands(bytes(data[:64]))):
        return image
    turns, mirror = orientation(data)
    turned = np.rot90(image, turns)
    if mirror is not None:
        turned = turned[::-1] if mirror == 0 else turned[:, ::-1]
    return np.ascontiguousarray(turned)


def _further_pictures(data: memoryview) -> str:
    """Return a description of the pictures beyond the first in a file, and what to do with them; empty for a single
    picture."""
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


def _png_chunks(data: memoryview, most: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each chunk of a PNG up to `most`, and the offsets of its content and of its end."""
    at = 8
    for _ in range(most):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield bytes(data[at + 4 : at + 8]), at + 8, end
        at = end


def _holds_its_chunks(data: memoryview) -> bool:
    """Return whether a PNG holds all its chunks up to its end mark; True for any other file.

    OpenCV allocates a chunk's length before it reads the chunk. A file of 10 kB with one chunk of 2 GB takes 2 GB.
    """
    if bytes(data[:4]) != b"\x89PNG":
        return True
    for kind, _, end in _png_chunks(data, MOST_PNG_CHUNKS):
        if end > len(data):
            return False
        if kind == b"IEND":
            return True
    return False


def _png_frames(data: memoryview) -> int:
    """Return the number of frames of an animated PNG, which is stored in front of the picture."""
    for kind, content, _ in _png_chunks(data, MOST_PAGES):
        if kind == b"acTL":
            return int.from_bytes(data[content : content + 4], "big")
        if kind in (b"IDAT", b""):
            break
    return 1


def _riff_chunks(data: memoryview) -> Iterator[bytes]:
    """Yield the kind of each chunk of a WebP file."""
    at = 12
    for _ in range(MOST_PAGES):
        yield bytes(data[at : at + 4])
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2


def _tiff_pages(data: memoryview) -> Iterator[int]:
    """Yield the offset of each page of a TIFF or BigTIFF in the file, without thumbnails and masks."""
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
        # NewSubfileType (254, the lowest tag, and tags are sorted) has bits 0 and 2 set for pages that are a smaller
        # version or a mask of another page.
        tags = range(first, first + min(count, 4) * tag_size, tag_size)
        if not any(number(tag, 2) == 254 and number(tag + value_at, 4) & 0b101 for tag in tags):
            yield at
        at = number(first + count * tag_size, place_size)


def _why_no_image(data: memoryview) -> str:
    start = bytes(data[:4096])
    kinds = set(brands(start))
    if begins_as_text(start):
        return "is a text file, not a photograph"
    if further := _further_pictures(data):
        return f"holds {further}, which this OpenCV cannot read, or is damaged"
    if kinds & _AVIF:
        return "is AVIF that this OpenCV cannot read: damaged, cut short, or without AVIF support; save it as JPEG"
    if kinds & _HEIC:
        return "is HEIC, which OpenCV cannot read; convert it to JPEG"
    if kinds or start.startswith(b"\x1a\x45\xdf\xa3"):
        return "is a video named like a photograph; name it .mp4 or .mkv"
    if start.startswith(b"\xff\x0a") or start[4:12] == b"JXL \r\n\x87\n":
        return "is JPEG XL, which OpenCV cannot read; convert it to JPEG"
    if start[:4] in _TIFF_STARTS and (values := _tiff_values(data)):
        return f"holds {values} values, for which black and white are not defined; save it with 8 or 16 bits"
    return "cannot be decoded: damaged, cut short or not an image; copy it again or save it as JPEG or PNG"


def _tiff_values(data: memoryview) -> str:
    """Return the data type of a TIFF that OpenCV reads, but not as a picture; empty where OpenCV cannot read it. Raises
    cv2.error."""
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return "" if values is None or values.dtype in (np.uint8, np.uint16) else str(values.dtype)

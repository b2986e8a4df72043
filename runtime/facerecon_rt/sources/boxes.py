"""An MP4, MOV, AVIF or HEIC file -> its boxes, as ISO 14496-12 (ISO base media file format) nests them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

MOST_BOXES = 10_000
"""Maximum number of boxes to read at one level. A damaged file can hold millions of empty boxes."""
MOST_MOVIE_BYTES = 2**28
"""Maximum size of the movie box (`moov`) to read, in bytes."""


class Box(NamedTuple):
    """One box: its kind and its content."""

    kind: bytes
    """Type of the box, 4 bytes, for example b"meta"."""
    content: memoryview


def boxes(data: memoryview) -> Iterator[Box]:
    """Yield the consecutive boxes in `data`, and stop at the first box that is invalid or cut short."""
    at = 0
    for _ in range(MOST_BOXES):
        head = 8
        size, kind = int.from_bytes(data[at : at + 4], "big"), bytes(data[at + 4 : at + 8])
        if size == 1:
            head, size = 16, int.from_bytes(data[at + 8 : at + 16], "big")
        elif size == 0:
            size = len(data) - at
        if size < head or at + size > len(data):
            return
        yield Box(kind, data[at + head : at + size])
        at += size


def box(data: memoryview, *kinds: bytes) -> memoryview | None:
    """Return the content of a nested box: the first box of the first kind, the first of the next kind in it, and so on;
    None where a box is missing."""
    found: memoryview | None = data
    for kind in kinds:
        if found is None:
            return None
        found = next((one.content for one in boxes(found) if one.kind == kind), None)
    return found


def brands(start: bytes) -> tuple[bytes, ...]:
    """Return the brands that the first bytes of a file declare, for example (b"heic", b"mif1"); empty for other
    files."""
    if start[4:8] != b"ftyp":
        return ()
    end = min(len(start), int.from_bytes(start[:4], "big"))
    return (start[8:12], *(start[at : at + 4] for at in range(16, end - 3, 4)))


def is_cut_short(file: BinaryIO) -> bool:
    """Return whether the last box of a file ends behind the end of the file. Moves the file position."""
    size = file.seek(0, 2)
    return any(end > size for _, _, end in _outermost(file))


def track_sizes(file: BinaryIO) -> list[int] | None:
    """Return the number of pixels per frame of each video track of an MP4 or MOV file; None for other file types. Moves
    the file position."""
    for kind, start, end in _outermost(file):
        if kind == b"moov":
            file.seek(start)
            movie = memoryview(file.read(min(end - start, MOST_MOVIE_BYTES)))
            sizes = (_track_size(one.content) for one in boxes(movie) if one.kind == b"trak")
            return [size for size in sizes if size]
    return None


def _track_size(track: memoryview) -> int:
    """Return the number of pixels per frame; 0 for a track that is not video."""
    header, handler = box(track, b"tkhd"), box(track, b"mdia", b"hdlr")
    if header is None or handler is None or bytes(handler[8:12]) != b"vide":
        return 0
    # The header ends with width and height as 16.16 fixed point numbers.
    width, height = (int.from_bytes(header[at : at + 2], "big") for at in (len(header) - 8, len(header) - 4))
    return width * height


def _outermost(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start of the content and end of each top-level box. Only the box headers are read."""
    at, size = 0, file.seek(0, 2)
    for _ in range(MOST_BOXES):
        if at + 8 > size:
            return
        file.seek(at)
        head = file.read(16)
        length, start = int.from_bytes(head[:4], "big"), at + 8
        if length == 1:
            length, start = int.from_bytes(head[8:], "big"), at + 16
        elif length == 0:
            length = size - at
        if length < start - at:
            return
        yield head[4:8], start, at + length
        at += length


def orientation(data: memoryview) -> tuple[int, int | None]:
    """Return (quarter turns to the left, mirror) that an AVIF or HEIC picture asks for, to be applied in this order.

    `mirror` is 0 to exchange top and bottom, 1 to exchange left and right, and None for no mirroring. The values stand
    in the properties `irot` and `imir` of the primary item (ISO 23008-12).
    """
    meta = box(data, b"meta")
    if meta is None:
        return 0, None
    meta = meta[4:]
    primary, properties, associations = box(meta, b"pitm"), box(meta, b"iprp", b"ipco"), box(meta, b"iprp", b"ipma")
    if primary is None or properties is None or associations is None or len(primary) < 6:
        return 0, None
    wanted = int.from_bytes(primary[4 : 6 if primary[0] == 0 else 8], "big")
    turns, mirror = 0, None
    all_properties = list(boxes(properties))
    for index in _associated(associations, wanted):
        one = all_properties[index - 1] if 0 < index <= len(all_properties) else None
        if one is None or not len(one.content):
            continue
        if one.kind == b"irot":
            turns = one.content[0] & 3
        elif one.kind == b"imir":
            mirror = one.content[0] & 1
    return turns, mirror


def _associated(associations: memoryview, item: int) -> list[int]:
    """Return the property numbers, counted from 1, that the content of `ipma` associates with an item."""
    if len(associations) < 8:
        return []
    wide_items, wide_indices = associations[0] > 0, bool(associations[3] & 1)
    at = 8
    for _ in range(min(int.from_bytes(associations[4:8], "big"), MOST_BOXES)):
        id_size, index_size = (4 if wide_items else 2), (2 if wide_indices else 1)
        number = int.from_bytes(associations[at : at + id_size], "big")
        at += id_size
        if at >= len(associations):
            break
        count = associations[at]
        at += 1
        if number == item:
            mask = 0x7FFF if wide_indices else 0x7F
            ends = range(at, at + count * index_size, index_size)
            return [int.from_bytes(associations[place : place + index_size], "big") & mask for place in ends]
        at += count * index_size
    return []

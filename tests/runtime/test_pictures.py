"""Photographs that are turned, lack their end, hold several pictures, or have the wrong suffix."""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from facerecon_rt.errors import SourceError
from facerecon_rt.sources.boxes import is_cut_short, orientation, track_sizes
from facerecon_rt.sources.pictures import read_image
from facerecon_rt.types import Image

DATA = Path(__file__).parents[1] / "data"
PICTURES = DATA / "pictures"


def smooth() -> Image:
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 3), np.uint8)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# AVIF


def red_left_green_corner() -> Image:
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30] = (0, 0, 255)
    image[:8, :8] = (0, 255, 0)
    return image


@pytest.mark.parametrize("number", range(1, 9))
def test_the_orientation_of_an_avif_is_applied(number: int) -> None:
    stored = red_left_green_corner()
    # Orientations of EXIF 2.32: where row 0 and column 0 of the stored picture lie in the upright picture.
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: stored.swapaxes(0, 1)[:, ::-1],
        7: stored.swapaxes(0, 1)[::-1, ::-1],
        8: stored.swapaxes(0, 1)[::-1],
    }[number]
    path = PICTURES / f"orientation{number}.avif"
    if cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR) is None:
        pytest.skip("this OpenCV reads no AVIF")
    image = read_image(path)
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).mean() < 3


def test_a_box_that_says_it_is_larger_than_any_file_ends_the_search(tmp_path: Path) -> None:
    head = (1).to_bytes(4, "big") + b"mdat" + (2**63 + 5).to_bytes(8, "big")
    with written(tmp_path / "huge.mp4", head + bytes(40)).open("rb") as file:
        assert is_cut_short(file)
        assert track_sizes(file) is None


def test_boxes_that_make_no_sense_turn_nothing() -> None:
    data = (PICTURES / "orientation6.avif").read_bytes()
    assert orientation(memoryview(data)) == (3, None)
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(4):
            damaged[random.integers(len(damaged))] = random.integers(256)
        turns, mirror = orientation(memoryview(damaged[: random.integers(len(damaged))]))
        assert turns in range(4) and mirror in (None, 0, 1)


# JPEG


@pytest.mark.parametrize("lacking", [1, 2])
@pytest.mark.parametrize("options", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]], ids=["baseline", "progressive"])
def test_a_jpeg_that_lacks_nothing_but_its_end_is_read(
    tmp_path: Path, lacking: int, options: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    data = cv2.imencode(".jpg", smooth(), options)[1].tobytes()
    whole = read_image(written(tmp_path / "whole.jpg", data))
    assert np.array_equal(read_image(written(tmp_path / "open.jpg", data[:-lacking])), whole)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("lacking", [40, 800])
@pytest.mark.parametrize("options", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]], ids=["baseline", "progressive"])
def test_a_jpeg_that_lacks_more_is_refused(
    tmp_path: Path, lacking: int, options: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    data = cv2.imencode(".jpg", smooth(), options)[1].tobytes()
    with pytest.raises(SourceError, match=r"open\.jpg cannot be decoded: damaged, cut short"):
        read_image(written(tmp_path / "open.jpg", data[:-lacking]))
    assert capfd.readouterr().err == ""


# PNG


@pytest.mark.parametrize("length", [2**31 - 1, 2**31, 2**32 - 1, 5000])
@pytest.mark.parametrize("kind", [b"IDAT", b"tEXt", b"eXIf"])
def test_a_png_chunk_longer_than_the_file_is_refused_before_it_is_read(
    tmp_path: Path, kind: bytes, length: int
) -> None:
    """OpenCV allocates the length that a chunk claims."""
    data = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    claimed = data[:33] + length.to_bytes(4, "big") + kind + data[41:]
    with pytest.raises(SourceError, match=r"long\.png is a PNG .* ends within a chunk; copy it again"):
        read_image(written(tmp_path / "long.png", claimed))


@pytest.mark.parametrize("lacking", [1, 8, 13, 300])
def test_a_png_that_ends_early_is_refused(tmp_path: Path, lacking: int) -> None:
    data = cv2.imencode(".png", smooth())[1].tobytes()
    with pytest.raises(SourceError, match="ends within a chunk"):
        read_image(written(tmp_path / "cut.png", data[:-lacking]))


def test_a_png_may_hold_text_and_have_bytes_behind_its_end(tmp_path: Path) -> None:
    data = cv2.imencode(".png", smooth())[1].tobytes()
    text = b"tEXtComment\0" + b"x" * 5000
    chunk = (len(text) - 4).to_bytes(4, "big") + text + zlib.crc32(text).to_bytes(4, "big")
    more = data[:-12] + chunk + data[-12:] + b"more"
    assert np.array_equal(read_image(written(tmp_path / "more.png", more)), smooth())


# Several pictures in one file


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("animation.webp", "an animation of 3 pictures (convert it to a video)"),
        ("animation.png", "an animation of 3 pictures (convert it to a video)"),
        ("animation.avif", "an animation (convert it to a video)"),
    ],
)
def test_an_animation_says_that_its_first_picture_is_read(
    name: str, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = PICTURES / name
    if cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR) is None:
        pytest.skip("this OpenCV does not read it")
    assert np.abs(read_image(path).astype(int) - 10).max() < 4
    assert [record.getMessage() for record in caplog.records] == [f"{path} holds {what}; only the first is read"]
    assert caplog.records[0].levelno == logging.WARNING


def tiff(*kinds: int, order: str = "<") -> bytes:
    """Return a grey TIFF with a page of 2x2 pixels for each kind: 0 for a page, 1 for a thumbnail."""
    data = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    for number, kind in enumerate(kinds):
        pixels_at = len(data) + 2 + 10 * 12 + 4
        tags = [
            (254, 4, 1, kind), (256, 4, 1, 2), (257, 4, 1, 2), (258, 4, 1, 8), (259, 4, 1, 1), (262, 4, 1, 1),
            (273, 4, 1, pixels_at), (277, 4, 1, 1), (278, 4, 1, 2), (279, 4, 1, 4),
        ]  # fmt: skip
        data += struct.pack(f"{order}H", len(tags)) + b"".join(struct.pack(f"{order}HHII", *tag) for tag in tags)
        following = pixels_at + 4 if number + 1 < len(kinds) else 0
        data += struct.pack(f"{order}I", following) + bytes([40 * (number + 1)] * 4)
    return data


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_pages_of_a_tiff_are_counted_and_its_thumbnail_is_none(
    tmp_path: Path, order: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert (read_image(written(tmp_path / "one.tif", tiff(0, 1, order=order))) == 40).all()
    assert not caplog.records
    path = written(tmp_path / "three.tif", tiff(0, 0, 0, order=order))
    assert (read_image(path) == 40).all()
    (record,) = caplog.records
    assert record.getMessage() == f"{path} holds 3 pages (save each as a file of its own); only the first is read"


# Files that are not photographs


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "is HEIC, which OpenCV cannot read; convert it to JPEG"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isommp41" + bytes(64), r"is a video named like a photograph; name it \.mp4"),
        (b"\x1a\x45\xdf\xa3" + bytes(64), r"is a video named like a photograph; name it \.mp4 or \.mkv"),
        (b"\xff\x0a" + bytes(range(64)), "is JPEG XL, which OpenCV cannot read; convert it to JPEG"),
        (b"<svg width='4'\xff>" + bytes(64), "is a text file, not a photograph"),
    ],
)
def test_what_is_named_like_a_photograph_is_called_what_it_is(tmp_path: Path, data: bytes, why: str) -> None:
    with pytest.raises(SourceError, match=rf"photo\.jpg {why}"):
        read_image(written(tmp_path / "photo.jpg", data))


@pytest.mark.parametrize("kind", ["float32", "float64", "int32"])
def test_a_tiff_of_other_numbers_than_levels_is_not_called_damaged(tmp_path: Path, kind: str) -> None:
    values = np.linspace(0, 1, 4 * 5 * 3).reshape(4, 5, 3).astype(np.dtype(kind))
    encoded, data = cv2.imencode(".tif", values)
    if not encoded:
        pytest.skip("this OpenCV writes no such TIFF")
    if cv2.imdecode(data, cv2.IMREAD_COLOR) is not None:
        pytest.skip("this OpenCV reads it")
    with pytest.raises(SourceError, match=rf"photo\.tif holds {kind} values, .* save it with 8 or 16 bits"):
        read_image(written(tmp_path / "photo.tif", data.tobytes()))

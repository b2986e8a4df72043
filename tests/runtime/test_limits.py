"""Files of a few bytes that demand gigabytes are refused before they are decoded."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from facerecon_rt.errors import SourceError
from facerecon_rt.limits import MOST_PICTURE_PIXELS
from facerecon_rt.sources import pictures, video
from facerecon_rt.sources.files import open_source, read_image

CLIP = Path(__file__).parents[1] / "data" / "talking_head.mp4"
READ = """
import resource, sys
from facerecon_rt import SourceError, read_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_image(sys.argv[1])
except SourceError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def png(width: int, height: int) -> bytes:
    """Return a black picture of any size in a few bytes, because its rows are incomplete zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(64), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_picture_with_too_many_pixels_is_refused_without_being_held(tmp_path: Path) -> None:
    side = 25_000  # less than OpenCV's own gigapixel, and 1.9 GB
    assert MOST_PICTURE_PIXELS < side * side < 2**30
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV")}
    done = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, env=environment)
    error, grown_mb = done.stdout.splitlines()
    assert error.endswith("cannot be decoded: damaged, or more than 268 megapixels; save it again")
    assert int(grown_mb) < 100


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_PICTURE_BYTES", 1000)
    cv2.imwrite(str(tmp_path / "photo.png"), np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    with pytest.raises(SourceError, match=r"photo\.png is larger than 0 MB; save it as JPEG, or reduce its size"):
        read_image(tmp_path / "photo.png")


@pytest.mark.usefixtures("video_library")
def test_a_video_with_too_large_frames_is_refused_before_one_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "MOST_FRAME_PIXELS", 512 * 512 - 1)
    with pytest.raises(SourceError, match=r"talking_head\.mp4 has frames of 512x512, more than 0 megapixels"):
        open_source(CLIP)

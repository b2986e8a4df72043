"""Hundreds of real files with seeded damage: each is read or refused in one line, and none hangs or ends the
program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

CLIP = Path(__file__).parents[1] / "data" / "talking_head.mp4"
PICTURES, VIDEOS = 500, 200
READ_ALL = """
import sys
from itertools import islice
from pathlib import Path
from facerecon_rt.errors import SourceError
from facerecon_rt.sources.files import open_source
if sys.argv[2] == "OpenCV":
    sys.modules["facerecon_rt.sources.video_av"] = None
read = refused = 0
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, file=sys.stderr, flush=True)
    try:
        with open_source(path) as source:
            for frame in islice(source, 20):
                assert frame.image.ndim == 3 and frame.image.size
        read += 1
    except SourceError as error:
        assert "\\n" not in str(error), error
        refused += 1
print(read, refused)
"""


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """Return data with one kind of damage: cut short, some bytes changed, or a piece lost, doubled or blanked."""
    array = np.frombuffer(data, np.uint8).copy()
    kind = random.integers(5)
    start, length = int(random.integers(len(array))), int(random.integers(1, max(2, len(array) // 10)))
    if kind == 0:
        return array[:start].tobytes()
    if kind == 1:
        places = random.integers(len(array), size=int(random.integers(1, 40)))
        array[places] = random.integers(0, 256, len(places))
    elif kind == 2:
        return np.delete(array, slice(start, start + length)).tobytes()
    elif kind == 3:
        return np.insert(array, start, array[start : start + length]).tobytes()
    else:
        array[start : start + length] = 0
    return array.tobytes()


def read_all(folder: Path, library: str = "") -> tuple[int, int]:
    """Read the files of a folder in another process. Returns how many were read, and how many were refused."""
    command = [sys.executable, "-c", READ_ALL, str(folder), library]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    last = done.stderr.strip().splitlines()[-3:]
    assert done.returncode == 0, f"exit code {done.returncode} at {last}"
    read, refused = map(int, done.stdout.split())
    return read, refused


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif"])
def test_damaged_pictures(suffix: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    picture = cv2.GaussianBlur(random.integers(0, 256, (96, 128, 3)).astype(np.uint8), (0, 0), 3)
    whole = cv2.imencode(suffix, picture)[1].tobytes()
    for number in range(PICTURES // 5):
        (tmp_path / f"{number:03}{suffix}").write_bytes(damaged(whole, random))
    read, refused = read_all(tmp_path)
    assert read + refused == PICTURES // 5
    assert refused


def test_damaged_videos(tmp_path: Path, video_library: str) -> None:
    random = np.random.default_rng(1)
    whole = CLIP.read_bytes()
    for number in range(VIDEOS):
        (tmp_path / f"{number:03}.mp4").write_bytes(damaged(whole, random))
    read, refused = read_all(tmp_path, video_library)
    assert read + refused == VIDEOS
    assert read and refused

"""A disk that is really full: messages, what continues, and which files are complete."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from facerecon_rt.cli import main

from .conftest import PaintSpots
from .mjpeg import MjpegServer

SPOT = [(0.5, 0.5)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no disk may be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def lines_of(path: Path) -> int:
    """Return the number of complete lines of a file. Each must be valid JSON."""
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    return len([json.loads(line) for line in whole.splitlines()])


def test_with_files_a_full_disk_ends_the_run(
    small_disk: Path, model: Path, spots: PaintSpots, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(100):
        cv2.imwrite(str(pictures / f"{number}.png"), spots(256, 192, SPOT))
    output = ["--output", str(small_disk / "records.jsonl")]
    assert main(["--model", str(model), "--input", str(pictures), *output]) == 2
    said = capsys.readouterr().err
    assert "records.jsonl: No space left on device" in said
    assert lines_of(small_disk / "records.jsonl") > 10


def test_a_full_disk_ends_a_sequence_of_meshes_and_leaves_whole_files(
    small_disk: Path, model: Path, spots: PaintSpots, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "face.png"
    cv2.imwrite(str(picture), spots(256, 192, SPOT))
    output = ["--output", str(small_disk / "{frame}.obj")]
    assert main(["--model", str(model), "--input", str(picture), *output]) == 2
    assert "000000.obj: No space left on device" in capsys.readouterr().err
    assert not list(small_disk.iterdir())


def test_with_cameras_it_stops_one_output_and_nothing_else(
    small_disk: Path, model: Path, spots: PaintSpots, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with MjpegServer([spots(256, 192, SPOT)], fps=200) as camera:
        outputs = ["--output", str(small_disk / "full.jsonl"), "--output", str(tmp_path / "whole.jsonl")]
        assert main(["--model", str(model), "--input", camera.uri, "--frames", "150", *outputs]) == 2
    said = capsys.readouterr().err
    assert "full.jsonl is stopped, everything else continues" in said
    assert said.rstrip().endswith("No space left on device")
    assert 10 < lines_of(small_disk / "full.jsonl") < 150
    assert lines_of(tmp_path / "whole.jsonl") > lines_of(small_disk / "full.jsonl")

"""The example mjpeg_camera.py: a video file becomes a camera that a run reads."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from facerecon_rt.cli import main

from tests.interrupted import default_interrupts

from ..conftest import ROOT

SCRIPT = ROOT / "runtime" / "examples" / "mjpeg_camera.py"
CLIP = ROOT / "tests" / "data" / "talking_head.mp4"


def test_a_run_reads_the_video_as_a_camera(tmp_path: Path, tiny_model: Path, bright_detector: Path) -> None:
    with (
        default_interrupts(),
        subprocess.Popen([sys.executable, str(SCRIPT), str(CLIP), "0"], stdout=subprocess.PIPE, text=True) as camera,
    ):
        assert camera.stdout is not None
        address = camera.stdout.readline().strip()
        given = ["--model", str(tiny_model), "--detector", str(bright_detector), "--input", address, "--frames", "3"]
        assert main([*given, "--output", str(tmp_path / "out.jsonl")]) == 0
        camera.send_signal(signal.SIGINT)
        assert camera.wait(60) == 130
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [record["source"] for record in records if "faces" in record] == [address] * 3


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(tmp_path / "no.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "mjpeg_camera: cannot read" in done.stderr

"""Runs that are ended at any moment: what was acknowledged is there, and the next run goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from .conftest import PaintSpots
from .mjpeg import MjpegServer

MOMENTS = np.random.default_rng(0).uniform(0.5, 1.6, 4)
"""Seconds after which a run is ended, from before the model is open to well into the frames."""
LONGEST_S = 30.0
"""Until a machine that is busy has a first record."""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_a_run_that_is_ended_leaves_whole_records_and_the_next_adds_to_them(
    how: signal.Signals, model: Path, spots: PaintSpots, tmp_path: Path
) -> None:
    acknowledged = 0
    with MjpegServer([spots(256, 192, [(0.5, 0.5)])]) as camera:
        command = [sys.executable, "-m", "facerecon_rt.cli", "--model", str(model), "--input", camera.uri]
        command += ["--output", str(tmp_path / "records.jsonl"), "--rotate", "100"]
        for number, moment in enumerate(MOMENTS, 1):
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
                time.sleep(moment)
                end = time.monotonic() + LONGEST_S
                while number == len(MOMENTS) and not records(tmp_path) and time.monotonic() < end:
                    time.sleep(0.05)
                assert len(records(tmp_path)) >= acknowledged
                acknowledged = len(records(tmp_path))
                run.send_signal(how)
                _, complained = run.communicate(timeout=10)
            if moment > 1.0:
                assert "Traceback" not in complained
    assert acknowledged > 0
    kept = records(tmp_path)
    assert len(kept) >= acknowledged
    assert all(len(json.loads(line)["faces"]) <= 1 for line in kept)


def records(folder: Path) -> list[str]:
    """The whole lines of all files of records."""
    return [line for path in sorted(folder.glob("records*.jsonl")) for line in path.read_text().split("\n")[:-1]]

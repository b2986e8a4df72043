"""Runs that end at any moment: acknowledged records are in the file, and the next run continues."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.interrupted import default_interrupts

from .conftest import PaintSpots
from .mjpeg import MjpegServer

MOMENTS = np.random.default_rng(0).uniform(0.5, 1.6, 4)
"""Seconds after which a run is ended, from before the model is open to well into the frames."""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_a_run_that_is_ended_leaves_whole_records_and_the_next_adds_to_them(
    how: signal.Signals, model: Path, spots: PaintSpots, tmp_path: Path
) -> None:
    acknowledged = 0
    with MjpegServer([spots(256, 192, [(0.5, 0.5)])]) as camera:
        command = [sys.executable, "-m", "facerecon_rt.cli", "--model", str(model), "--input", camera.uri]
        command += ["--output", str(tmp_path / "records.jsonl"), "--rotate", "100"]
        for moment in (*MOMENTS, None):
            with default_interrupts(), subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
                if moment is None:
                    wait_for_more_than(acknowledged, tmp_path)
                else:
                    time.sleep(moment)
                assert len(records(tmp_path)) >= acknowledged
                acknowledged = len(records(tmp_path))
                complained = ended_by(how, run)
    # Python ends a program before its first line with a traceback. The last run was well past that.
    assert "Traceback" not in complained
    assert acknowledged > 0
    kept = records(tmp_path)
    assert len(kept) >= acknowledged
    assert all(len(json.loads(line)["faces"]) <= 1 for line in kept)


def wait_for_more_than(count: int, folder: Path) -> None:
    """Wait until the files hold more than `count` records, for at most a minute."""
    deadline = time.monotonic() + 60
    while len(records(folder)) <= count and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(records(folder)) > count


def ended_by(how: signal.Signals, run: subprocess.Popen[str]) -> str:
    """End a run by a signal, and return its standard error.

    The signal is sent again if the run continues. CPython 3.13 loses one in ten SIGINTs that come during an import,
    because it clears the exception that is raised in ModuleSpec.has_location. A user would press Ctrl-C again.
    """
    for _ in range(4):
        run.send_signal(how)
        try:
            return run.communicate(timeout=10)[1]
        except subprocess.TimeoutExpired:
            continue
    run.kill()
    pytest.fail(f"{how.name} did not end it")


def records(folder: Path) -> list[str]:
    """Return the complete lines of all files of records."""
    return [line for path in sorted(folder.glob("records*.jsonl")) for line in path.read_text().split("\n")[:-1]]

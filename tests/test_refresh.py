"""benchmarks/refresh.sh: every script is called as it wants to be, goes on after a failure, and runs once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.interrupted import default_interrupts

ROOT = Path(__file__).parents[1]
REFRESH = ROOT / "benchmarks" / "refresh.sh"
TIMED = {"latency", "latency_detecting", "precisions", "cpu", "sessions", "footprint", "pipelines_cost", "takes_time"}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which python and facerecon-train only note how they were called, and fail if told to."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("python", "facerecon-train"):
        program = programs / name
        program.write_text(
            f'#!/bin/sh\necho "{name} $@" >> "{tmp_path}/calls"\n'
            'case "$*" in *"${FAILS:-no such words}"*) echo a reason; exit 1;; esac\n'
            'case "$*" in *"${HANGS:-no such words}"*) exec sleep 60;; esac\n'
        )
        program.chmod(0o755)
    return {"PATH": f"{programs}:/usr/bin:/bin"}


def refresh(tmp_path: Path, environment: dict[str, str]) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run it, and return what came of it and the calls."""
    calls = tmp_path / "calls"
    calls.unlink(missing_ok=True)
    done = subprocess.run(
        ["bash", str(REFRESH), "the data", "prepared", "logs"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done, calls.read_text().splitlines() if calls.is_file() else []


def test_every_script_is_called_with_options_that_it_has(tmp_path: Path, environment: dict[str, str]) -> None:
    done, calls = refresh(tmp_path, environment | {"MEDIAPIPE_PYTHON": "mp/python", "DETECTOR_CACHE": "run/cache"})
    assert done.returncode == 0, done.stderr
    assert {log.stem for log in (tmp_path / "logs").glob("*.log")} >= TIMED | {"accuracy", "expression", "hard_faces"}
    for call in calls:
        if call.startswith("facerecon-train"):
            text = (ROOT / "training" / "facerecon_training" / "cli.py").read_text()
        else:
            script = re.match(r"python (benchmarks/\w+\.py)", call)
            assert script is not None, call
            text = (ROOT / script[1]).read_text()
        for option in re.findall(r" (--[\w-]+)", call):
            assert f'"{option}"' in text, call
    assert f"python benchmarks/cuts.py --data {tmp_path}/the data" in calls, "paths are those of the caller"


def test_without_mediapipe_nothing_is_timed(tmp_path: Path, environment: dict[str, str]) -> None:
    done, calls = refresh(tmp_path, environment)
    assert done.returncode == 0, done.stderr
    assert calls
    assert not TIMED & {log.stem for log in (tmp_path / "logs").glob("*.log")}


def test_only_what_failed_is_run_again(tmp_path: Path, environment: dict[str, str]) -> None:
    done, calls = refresh(tmp_path, environment | {"FAILS": "cuts.py"})
    assert done.returncode == 1
    assert f"cuts failed: see {tmp_path}/logs/cuts.log" in done.stderr
    assert (tmp_path / "logs" / "cuts.log").read_text() == "a reason\n"
    assert len(calls) > 5, "the others run all the same"
    done, calls = refresh(tmp_path, environment)
    assert done.returncode == 0
    assert calls == [f"python benchmarks/cuts.py --data {tmp_path}/the data"]
    assert refresh(tmp_path, environment)[1] == []


def test_ctrl_c_ends_the_scripts_too(tmp_path: Path, environment: dict[str, str]) -> None:
    command = ["bash", str(REFRESH), "the data", "prepared", str(tmp_path / "logs")]
    with default_interrupts():
        running = subprocess.Popen(
            command, env=environment | {"HANGS": "benchmarks"}, stdout=subprocess.PIPE, start_new_session=True
        )
    calls = tmp_path / "calls"
    for _ in range(400):
        if calls.is_file() and len(calls.read_text().splitlines()) == 2:
            break
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)
    # The pipe ends when the last script has ended.
    running.communicate(timeout=20)
    assert running.returncode == 130
    assert not list((tmp_path / "logs").glob("*.done"))

"""The fuzz run counts the faults that it should count. The run itself is not a test (benchmarks/fuzz.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """
import ctypes, json, sys, time
kept = []
for line in sys.stdin:
    kind = line.split()[0]
    if kind == "exception": raise OSError("nobody catches it")
    if kind == "crash": ctypes.string_at(0)
    if kind == "spin":
        while True: pass
    if kind == "wait": time.sleep(3600)
    if kind == "memory": kept.append(bytearray(2**29))
    print(json.dumps({"outcome": kind if kind in ("taken", "refused") else "taken", "why": "so"}), flush=True)
"""
COUNT = f"""
import sys
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
import fuzz
from pathlib import Path
worker = fuzz.Worker([sys.executable, "-c", {PROGRAM!r}], Path(sys.argv[1]), most_gb=0.4)
for kind in "taken refused exception crash taken spin wait memory".split():
    # Only what never ends has little time: a busy machine makes nothing else a hang.
    worker.most_cpu_s, worker.most_wait_s = 1 if kind == "spin" else 60, 1 if kind == "wait" else 60
    print(kind, worker.try_one(kind, 0)[0], flush=True)
worker.close()
"""


def test_each_kind_of_end_is_counted_as_what_it_is(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", COUNT, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["taken", "taken"],
        ["refused", "refused"],
        ["exception", "exception"],
        ["crash", "crash"],
        ["taken", "taken"],
        ["spin", "hang"],
        ["wait", "hang"],
        ["memory", "memory"],
    ]


def test_some_inputs_of_each_kind_have_no_fault(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the extra `dev` is not installed")
    pytest.importorskip("yaml", reason="the extra `dev` is not installed")
    command = [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), "--count", "60", "--seed", "11"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path), "--keep", str(tmp_path / "kept")],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = (tmp_path / "fuzz.md").read_text().splitlines()[-1]
    assert int(last.split()[1]) > 50
    assert last.endswith("| 0 | 0 | 0 | 0 |")

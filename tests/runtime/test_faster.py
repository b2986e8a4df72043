"""First contact: a run reports the time that drawing costs, and names a faster file beside the model."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from facerecon_rt.commands.faster import faster_on_cpu, share_of_time
from facerecon_rt.commands.progress import ENOUGH_FRAMES, Progress, drawing_cost
from facerecon_rt.types import Frame, Scene

ROOT = Path(__file__).parents[2]
FRAME = Frame(np.zeros((4, 4, 3), np.uint8), "clip.mp4", still=False)
COST = "--output records.jsonl alone is faster"


def test_the_share_of_the_int8_file_is_that_of_the_shipped_measurement() -> None:
    measured = json.loads((ROOT / "benchmarks" / "results" / "latency.json").read_text())
    share = measured["facerecon-rt int8"]["p50"] / measured["facerecon-rt fp32"]["p50"]
    assert share_of_time(ROOT / "models" / "README.md") == round(100 * share)
    line = faster_on_cpu(ROOT / "models" / "face.onnx")
    assert line.startswith(f"--precision int8 takes {round(100 * share)} % of the time per frame")
    assert line.endswith("face.int8-cpu.onnx is beside the model")


def test_a_model_without_such_a_file_gets_no_line(tiny_model: Path) -> None:
    assert faster_on_cpu(tiny_model) == ""


@pytest.mark.parametrize("text", ["", "| `face.int8-cpu.onnx` | the same in 8 bits |", "67 % of the time per frame"])
def test_a_card_without_the_figure_has_none(text: str, tmp_path: Path) -> None:
    assert share_of_time(tmp_path / "README.md") is None
    (tmp_path / "README.md").write_text(text)
    assert share_of_time(tmp_path / "README.md") is None


def finished(caplog: pytest.LogCaptureFixture, frames: int, *, draws: bool, live: bool = False) -> str:
    scene = Scene(replace(FRAME, live=live), (), stages_ms={"capture": 50.0, "detect": 1.0, "infer": 2.0})
    progress = Progress(quiet=False, draws=draws)
    with caplog.at_level(logging.INFO, "facerecon_rt"):
        for _ in range(frames):
            progress.show(scene)
        progress.finish()
    return caplog.text


def test_the_time_that_drawing_costs_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    assert drawing_cost(63.2, 2.4).startswith("63 ms per frame, of which 2 for the reconstruction;")
    text = finished(caplog, ENOUGH_FRAMES, draws=True)
    assert "of which 3 for the reconstruction" in text and COST in text, "without the time of reading"


@pytest.mark.parametrize(
    ("frames", "draws", "live"),
    [(ENOUGH_FRAMES, False, False), (ENOUGH_FRAMES, True, True), (ENOUGH_FRAMES - 1, True, False)],
)
def test_records_cameras_and_single_pictures_get_no_such_line(
    frames: int, draws: bool, live: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert COST not in finished(caplog, frames, draws=draws, live=live)

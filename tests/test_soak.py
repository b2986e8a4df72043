"""The soak's count of the events that a broker lost."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


def test_lost_and_repeated_events_are_told_apart(tmp_path: Path) -> None:
    soak = runpy.run_path(str(ROOT / "benchmarks" / "soak.py"))
    lost_and_repeated = soak["lost_and_repeated"]
    # Two equal events of two cameras, and one more.
    events = [{"event": "blink", "source": source, "track": 1, "time_s": 2.0} for source in ("a", "b", "b")]
    record = {"source": "a", "time_s": 2.0, "age_ms": 4.0, "faces": [{}]}
    (tmp_path / "records.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in (record, *events)))
    seen, written = soak["records"](tmp_path)
    assert [one.faces for one in seen] == [1] and len(written) == 3
    heard = [{**event, "n": number} for number, event in enumerate(events)]
    assert lost_and_repeated(written, heard) == (0, 0)
    assert lost_and_repeated(written, [*heard, heard[1]]) == (0, 1)  # at least once, as QoS 1 says
    assert lost_and_repeated(written, [heard[0], heard[2], heard[2]]) == (1, 1)


@pytest.mark.parametrize("per_hour", [0.0, 12.0])
def test_growth_is_that_of_the_lowest_values_whatever_rises_and_falls(per_hour: float) -> None:
    growth = runpy.run_path(str(ROOT / "benchmarks" / "soak.py"))["growth"]
    seconds = np.arange(180.0, 900.0)
    rising_and_falling = 4 * np.random.default_rng(0).uniform(0, 1, 720) + 6 * (seconds > 800)
    memory = 150 + per_hour * seconds / 3600 + rising_and_falling
    # Values of the last minutes that stay above are growth, and are told from what lasts for a moment by the error.
    slope, error = growth(seconds[seconds < 780], memory[seconds < 780])
    assert slope == pytest.approx(per_hour, abs=1.0) and error < 1.0
    assert growth(seconds, memory)[0] > per_hour + 10
    assert growth(seconds, memory)[1] > 3

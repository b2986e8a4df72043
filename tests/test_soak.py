"""The soak's count of the events that a broker lost."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

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

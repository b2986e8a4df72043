"""Samples -> the figures of a latency report, and whether they can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

LEAST_FOR_P99 = 1000
"""Samples: of fewer, the 99th percentile is the word of less than ten."""
PARTS = 10
"""Of a run, whose medians are held against each other."""
UNSTEADY = 0.15
"""Share by which they may differ. The variation of single frames says less: every tenth looks for new faces."""

Summary = dict[str, float | None]


def summary(milliseconds: Sequence[float]) -> Summary:
    """Samples (N >= 1) in ms -> count, mean, p50, p90, p95, p99, max, and the coefficient of variation. p99 is None
    for fewer than `LEAST_FOR_P99`."""
    values = np.asarray(milliseconds, np.float64)
    named: Summary = {"count": float(len(values)), "mean": float(values.mean())}
    for percentile in (50, 90, 95, 99):
        enough = percentile < 99 or len(values) >= LEAST_FOR_P99
        named[f"p{percentile}"] = float(np.percentile(values, percentile)) if enough else None
    return {**named, "max": float(values.max()), "variation": float(values.std() / max(values.mean(), 1e-9))}


def stage_summary(stages: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Samples per stage, ms -> mean, median and 90th percentile of each."""
    return {
        name: {
            "mean": float(np.mean(values)),
            "p50": float(np.percentile(values, 50)),
            "p90": float(np.percentile(values, 90)),
        }
        for name, values in stages.items()
        if len(values)
    }


def doubts(milliseconds: Sequence[float], load_average: float, cores: int) -> list[str]:
    """Why these samples, ms in the order they were taken, may not say what the machine can do."""
    found = []
    if len(milliseconds) >= 10 * PARTS:
        medians = [float(np.median(part)) for part in np.array_split(np.asarray(milliseconds), PARTS)]
        apart = max(medians) / max(min(medians), 1e-9) - 1
        if apart > UNSTEADY:
            found.append(f"unsteady: the medians of {PARTS} parts of the run differ by {100 * apart:.0f} %")
    if load_average > cores:
        found.append(f"busy: the load average was {load_average:.1f} on {cores} cores before the run")
    return found

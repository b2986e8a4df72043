"""Samples -> the figures of a latency report, and whether they are reliable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

LEAST_FOR_P99 = 1000
"""Minimum number of samples for a p99. With fewer, the 99th percentile depends on less than ten samples."""
PARTS = 10
"""Number of parts of a run whose medians are compared."""
UNSTEADY = 0.15
"""Maximum share by which these medians may differ. The variation of single frames is less useful, because every tenth
frame runs the detector."""

Summary = dict[str, float | None]


def summary(milliseconds: Sequence[float]) -> Summary:
    """Return count, mean, p50, p90, p95, p99, max and the coefficient of variation of N >= 1 samples in ms. p99 is None
    for fewer than `LEAST_FOR_P99` samples."""
    values = np.asarray(milliseconds, np.float64)
    named: Summary = {"count": float(len(values)), "mean": float(values.mean())}
    for percentile in (50, 90, 95, 99):
        enough = percentile < 99 or len(values) >= LEAST_FOR_P99
        named[f"p{percentile}"] = float(np.percentile(values, percentile)) if enough else None
    return {**named, "max": float(values.max()), "variation": float(values.std() / max(values.mean(), 1e-9))}


def stage_summary(stages: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Return mean, median and 90th percentile of the samples of each stage, in ms."""
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
    """Return reasons why these samples, in ms and in order, may not show the machine's real speed."""
    found = []
    if len(milliseconds) >= 10 * PARTS:
        medians = [float(np.median(part)) for part in np.array_split(np.asarray(milliseconds), PARTS)]
        apart = max(medians) / max(min(medians), 1e-9) - 1
        if apart > UNSTEADY:
            found.append(f"unsteady: the medians of {PARTS} parts of the run differ by {100 * apart:.0f} %")
    if load_average > cores:
        found.append(f"busy: the load average was {load_average:.1f} on {cores} cores before the run")
    return found

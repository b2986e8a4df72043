"""Latencies -> a histogram and a curve over time, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from ..interrupts import importing


def draw(
    milliseconds: Sequence[float],
    figures: Mapping[str, float | None],
    verdict: Mapping[str, Any] | None,
    folder: Path,
) -> list[Path]:
    """Draw samples in ms with their summary and verdict to `folder`/histogram.png and `folder`/over_time.png."""
    matplotlib.use("Agg")
    with importing():
        from matplotlib import pyplot

    values = np.asarray(milliseconds)
    marks = {name: figures[name] for name in ("p50", "p90", "p99") if figures[name] is not None}
    if verdict is not None:
        marks["budget"] = verdict["budget_ms"]
    paths = [folder / "histogram.png", folder / "over_time.png"]
    figure, axis = pyplot.subplots(figsize=(9, 4))
    # The last bin takes the rest, so that a single slow frame does not squeeze all others into one bin.
    top = float(np.percentile(values, 99.5)) * 1.1
    axis.hist(np.minimum(values, top), bins=80, color="0.6")
    for name, mark in marks.items():
        axis.axvline(min(float(mark or 0), top), linestyle="--", linewidth=1, color="k")
        axis.text(min(float(mark or 0), top), axis.get_ylim()[1], f" {name}", rotation=90, va="top", fontsize=8)
    axis.set_xlabel(f"ms (the last bin: {top:.2f} and more)")
    axis.set_ylabel("samples")
    figure.tight_layout()
    figure.savefig(paths[0], dpi=110)
    pyplot.close(figure)
    figure, axis = pyplot.subplots(figsize=(9, 4))
    axis.plot(values, ".", markersize=2, color="0.4")
    for name, mark in marks.items():
        axis.axhline(float(mark or 0), linestyle="--", linewidth=1, label=name)
    axis.set_xlabel("sample")
    axis.set_ylabel("ms")
    axis.set_ylim(bottom=0)
    if marks:
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(paths[1], dpi=110)
    pyplot.close(figure)
    return paths

"""Counts of sources, stages and outputs -> the metrics that Prometheus reads."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from ..regular import shown
from ..sources.live import SourceStatus

BUCKETS_S = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.033, 0.066, 0.133, 0.266, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """Counts of the frames of one source, for the metrics."""

    name: str
    frames: int
    faces_seen: int
    """Number of faces in all frames."""
    faces: int
    """Number of faces in the newest frame."""
    age_s: float
    """Time from the capture of the newest frame to its result, in seconds."""
    silent_s: float
    """Time since the newest frame, in seconds."""


class StageTimes:
    """A histogram of the time per frame of one stage. It is a list of counts, since every frame adds to it."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS_S) + 1)
        """Number of frames per bucket; the last holds those above all."""
        self._sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Add the time of one frame."""
        self._counts[bisect_left(BUCKETS_S, seconds)] += 1
        self._sum_s += seconds

    def add_to(self, family: HistogramMetricFamily, stage: str) -> None:
        """Add this histogram to the metrics."""
        names = [*map(str, BUCKETS_S), "+Inf"]
        family.add_metric([stage], list(zip(names, accumulate(self._counts), strict=True)), self._sum_s)


def source_metrics(sources: Sequence[SourceCounts]) -> Iterator[Metric]:
    """Yield the metrics of the sources that gave frames."""
    labels = ["source"]
    frames = CounterMetricFamily("facerecon_frames", "Frames used.", labels=labels)
    found = CounterMetricFamily("facerecon_faces_seen", "Faces in all frames.", labels=labels)
    faces = GaugeMetricFamily("facerecon_faces", "Faces in the newest frame.", labels=labels)
    age = GaugeMetricFamily("facerecon_result_age_seconds", "Time from capture to result, newest frame.", labels=labels)
    silent = GaugeMetricFamily("facerecon_silent_seconds", "Time since the newest frame.", labels=labels)
    for one in sources:
        name = [one.name]
        frames.add_metric(name, one.frames)
        found.add_metric(name, one.faces_seen)
        faces.add_metric(name, one.faces)
        age.add_metric(name, one.age_s)
        silent.add_metric(name, one.silent_s)
    yield from (frames, found, faces, age, silent)


def stage_metrics(stages: Mapping[str, StageTimes]) -> Metric:
    """Return the metric of the time per stage."""
    family = HistogramMetricFamily("facerecon_stage_seconds", "Time per frame.", labels=["stage"])
    for stage, times in stages.items():
        times.add_to(family, stage)
    return family


def status_metrics(statuses: Sequence[SourceStatus]) -> Iterator[Metric]:
    """Yield the metrics of cameras and streams, including those that give no frames."""
    labels = ["source"]
    is_open = GaugeMetricFamily("facerecon_source_open", "1 while the source is open.", labels=labels)
    losses = CounterMetricFamily("facerecon_source_losses", "Times the source was lost.", labels=labels)
    skipped = CounterMetricFamily("facerecon_frames_skipped", "Frames dropped for newer ones.", labels=labels)
    for status in statuses:
        name = [shown(status.name)]
        is_open.add_metric(name, status.state == "open")
        losses.add_metric(name, status.losses)
        skipped.add_metric(name, status.skipped)
    yield from (is_open, losses, skipped)


def output_metrics(dropped: Mapping[str, int]) -> Metric:
    """Return the metric of frames that each slow output dropped."""
    family = CounterMetricFamily("facerecon_frames_left_out", "Frames dropped by slow outputs.", labels=["output"])
    for output, count in dropped.items():
        family.add_metric([shown(output)], count)
    return family

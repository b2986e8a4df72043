"""Scenes -> the state behind page and metrics: the newest scene of each source, and counts. Safe between threads."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..addresses import public_name
from ..regular import shown
from ..sinks.record import record_from_scene
from ..sources.live import SourceStatus
from ..types import Face, Scene

RECENT = 100
"""Number of frames of a source over which rates and medians are computed."""
MOST_SOURCES = 64
"""Maximum number of sources shown. Of more, those unseen for longest are left out."""
BUCKETS_S = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.033, 0.066, 0.133, 0.266, 0.5, 1.0)


@dataclass(slots=True)
class Watched:
    """State of one source."""

    scene: Scene
    number: int
    """Number of the scene, counted from 1."""
    seen_at: float
    """Time of the newest scene, by time.monotonic()."""
    moments: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    stages: deque[dict[str, float]] = field(default_factory=lambda: deque(maxlen=RECENT))

    @property
    def fps(self) -> float:
        """Recent scenes per second."""
        span = self.moments[-1] - self.moments[0]
        return (len(self.moments) - 1) / span if span > 0 else 0.0


Dropped = Callable[[], dict[str, int]]
"""Function that returns the number of frames dropped by each slow output."""
Statuses = Callable[[], list[SourceStatus]]
"""Function that returns the current state of every live source."""


class SourceMetrics(Collector):
    """Prometheus metrics of cameras and streams, including those that give no frames, and of outputs."""

    def __init__(self, statuses: Statuses, dropped: Dropped) -> None:
        self._statuses = statuses
        self._dropped = dropped

    def collect(self) -> Iterator[Metric]:
        """Yield the current values."""
        is_open = GaugeMetricFamily("facerecon_source_open", "1 while the source is open.", labels=["source"])
        losses = CounterMetricFamily("facerecon_source_losses", "Times the source was lost.", labels=["source"])
        skipped = CounterMetricFamily("facerecon_frames_skipped", "Frames dropped for newer ones.", labels=["source"])
        for status in self._statuses():
            name = shown(status.name)
            is_open.add_metric([name], status.state == "open")
            losses.add_metric([name], status.losses)
            skipped.add_metric([name], status.skipped)
        left_out = CounterMetricFamily(
            "facerecon_frames_left_out", "Frames dropped by slow outputs.", labels=["output"]
        )
        for output, count in self._dropped().items():
            left_out.add_metric([shown(output)], count)
        yield from (is_open, losses, skipped, left_out)


class State:
    """A sink that keeps the newest frame of each source for the page and the metrics."""

    def __init__(self, blendshapes: tuple[str, ...], statuses: Statuses = list, dropped: Dropped = dict) -> None:
        self._blendshapes = blendshapes
        self._statuses = statuses
        self._lock = threading.Lock()
        self._sources: dict[str, Watched] = {}
        self._started = time.monotonic()
        self.registry = CollectorRegistry()
        self.registry.register(SourceMetrics(statuses, dropped))
        self._frames = Counter("facerecon_frames", "Frames used.", ("source",), registry=self.registry)
        self._found = Counter("facerecon_faces_seen", "Faces in all frames.", ("source",), registry=self.registry)
        self._faces = Gauge("facerecon_faces", "Faces in the newest frame.", ("source",), registry=self.registry)
        self._age = Gauge(
            "facerecon_result_age_seconds",
            "Time from capture to result, newest frame.",
            ("source",),
            registry=self.registry,
        )
        self._silent = Gauge(
            "facerecon_silent_seconds", "Time since the newest frame.", ("source",), registry=self.registry
        )
        self._stages = Histogram(
            "facerecon_stage_seconds", "Time per frame.", ("stage",), buckets=BUCKETS_S, registry=self.registry
        )

    def write(self, scene: Scene) -> None:
        """Take one scene."""
        now, source = time.monotonic(), shown(public_name(scene.frame.source))
        with self._lock:
            watched = self._sources.pop(source, None)
            if watched is None:
                watched = Watched(scene, 0, now)
            watched.scene, watched.number, watched.seen_at = scene, watched.number + 1, now
            watched.moments.append(now)
            watched.stages.append(dict(scene.stages_ms))
            self._sources[source] = watched
            if scene.frame.still:
                # Only the newest photograph is kept, because photographs are large and many.
                for name in [name for name, one in self._sources.items() if one.scene.frame.still and name != source]:
                    self._forget(name)
            while len(self._sources) > MOST_SOURCES:
                self._forget(next(iter(self._sources)))
        self._frames.labels(source).inc()
        self._found.labels(source).inc(len(scene.faces))
        self._faces.labels(source).set(len(scene.faces))
        self._age.labels(source).set(now - scene.frame.captured_at)
        self._silent.labels(source).set_function(lambda: time.monotonic() - now)
        for stage, milliseconds in scene.stages_ms.items():
            self._stages.labels(stage).observe(milliseconds / 1000)

    def _forget_removed(self, there: set[str]) -> None:
        """Remove cameras and streams that are no longer listed."""
        if there:
            for name in [name for name, one in self._sources.items() if one.scene.frame.live and name not in there]:
                self._forget(name)

    def metrics(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        with self._lock:
            self._forget_removed({shown(status.name) for status in self._statuses()})
        return generate_latest(self.registry)

    def _forget(self, source: str) -> None:
        del self._sources[source]
        for metric in (self._frames, self._found, self._faces, self._age, self._silent):
            metric.remove(source)

    def scene(self, index: int) -> tuple[Scene, int] | None:
        """Return the newest scene of a source and its number, by its place in `summary`; None where there is none."""
        with self._lock:
            names = sorted(self._sources)
            if not 0 <= index < len(names):
                return None
            watched = self._sources[names[index]]
            return watched.scene, watched.number

    def summary(self) -> dict[str, Any]:
        """Return everything that the page polls, ready for JSON."""
        now = time.monotonic()
        statuses = self._statuses()
        with self._lock:
            self._forget_removed({shown(status.name) for status in statuses})
            watched = [(name, self._sources[name]) for name in sorted(self._sources)]
            newest = [(name, one.scene, one.number, one.fps, one.seen_at, list(one.stages)) for name, one in watched]
        return {
            "uptime_s": round(now - self._started, 1),
            "inputs": [asdict(replace(one, name=shown(one.name), why=shown(one.why))) for one in statuses],
            "sources": [
                {
                    "name": name,
                    "frames": number,
                    "fps": round(fps, 1),
                    "silent_s": round(now - seen_at, 2),
                    "stages_ms": medians(stages),
                    "record": record_from_scene(scene, self._blendshapes, now=seen_at),
                }
                for name, scene, number, fps, seen_at, stages in newest
            ],
        }

    def silent_s(self) -> float:
        """Return the seconds since the last scene of any source, or since the start."""
        with self._lock:
            last = max((one.seen_at for one in self._sources.values()), default=self._started)
        return time.monotonic() - last

    def largest_face(self, index: int) -> Face | None:
        """Return the largest face of a source's newest scene; None where there is none."""
        found = self.scene(index)
        faces = found[0].faces if found is not None else ()
        return max(faces, key=lambda face: float(face.box[2] - face.box[0]), default=None)


def medians(stages: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median milliseconds of each stage over some frames."""
    return {name: round(float(np.median([one.get(name, 0.0) for one in stages])), 3) for name in stages[-1]}

"""Scenes -> what the page and the metrics show: the newest scene of each source, and counts. Safe between threads."""

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
"""Frames of a source that rates and medians are of."""
MOST_SOURCES = 64
"""Shown at once; of more, those not seen for longest are left out."""
BUCKETS_S = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.033, 0.066, 0.133, 0.266, 0.5, 1.0)


@dataclass(slots=True)
class Watched:
    """One source."""

    scene: Scene
    number: int
    """Of the scene, counted from 1."""
    seen_at: float
    """time.monotonic()."""
    moments: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    stages: deque[dict[str, float]] = field(default_factory=lambda: deque(maxlen=RECENT))

    @property
    def fps(self) -> float:
        """Scenes per second, of late."""
        span = self.moments[-1] - self.moments[0]
        return (len(self.moments) - 1) / span if span > 0 else 0.0


Dropped = Callable[[], dict[str, int]]
"""Frames that each output was too slow for, so far."""
Statuses = Callable[[], list[SourceStatus]]
"""How live sources are, now."""


class SourceMetrics(Collector):
    """What Prometheus is told of cameras and streams, those that give no frames among them, and of outputs."""

    def __init__(self, statuses: Statuses, dropped: Dropped) -> None:
        self._statuses = statuses
        self._dropped = dropped

    def collect(self) -> Iterator[Metric]:
        """As of now."""
        is_open = GaugeMetricFamily("facerecon_source_open", "1 while it is open.", labels=["source"])
        losses = CounterMetricFamily("facerecon_source_losses", "Times it was lost.", labels=["source"])
        skipped = CounterMetricFamily("facerecon_frames_skipped", "Passed over for newer ones.", labels=["source"])
        for status in self._statuses():
            name = shown(status.name)
            is_open.add_metric([name], status.state == "open")
            losses.add_metric([name], status.losses)
            skipped.add_metric([name], status.skipped)
        left_out = CounterMetricFamily("facerecon_frames_left_out", "Of slow outputs.", labels=["output"])
        for output, count in self._dropped().items():
            left_out.add_metric([shown(output)], count)
        yield from (is_open, losses, skipped, left_out)


class State:
    """Takes scenes as a sink does. Holds one frame for each source."""

    def __init__(self, blendshapes: tuple[str, ...], statuses: Statuses = list, dropped: Dropped = dict) -> None:
        self._blendshapes = blendshapes
        self._statuses = statuses
        self._lock = threading.Lock()
        self._sources: dict[str, Watched] = {}
        self._started = time.monotonic()
        self.registry = CollectorRegistry()
        self.registry.register(SourceMetrics(statuses, dropped))
        self._frames = Counter("facerecon_frames", "Frames looked at.", ("source",), registry=self.registry)
        self._found = Counter("facerecon_faces_seen", "Faces in all frames.", ("source",), registry=self.registry)
        self._faces = Gauge("facerecon_faces", "Faces in the newest frame.", ("source",), registry=self.registry)
        self._age = Gauge(
            "facerecon_result_age_seconds", "From capture to here, newest result.", ("source",), registry=self.registry
        )
        self._silent = Gauge("facerecon_silent_seconds", "Since the newest frame.", ("source",), registry=self.registry)
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
                # Of photographs only the newest is held: they are large, and many.
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
        """Cameras and streams that were taken off the list."""
        if there:
            for name in [name for name, one in self._sources.items() if one.scene.frame.live and name not in there]:
                self._forget(name)

    def metrics(self) -> bytes:
        """As Prometheus reads it."""
        with self._lock:
            self._forget_removed({shown(status.name) for status in self._statuses()})
        return generate_latest(self.registry)

    def _forget(self, source: str) -> None:
        del self._sources[source]
        for metric in (self._frames, self._found, self._faces, self._age, self._silent):
            metric.remove(source)

    def scene(self, index: int) -> tuple[Scene, int] | None:
        """The newest scene of a source and its number, by its place in `summary`; None where there is none."""
        with self._lock:
            names = sorted(self._sources)
            if not 0 <= index < len(names):
                return None
            watched = self._sources[names[index]]
            return watched.scene, watched.number

    def summary(self) -> dict[str, Any]:
        """Everything the page polls, as JSON has it."""
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
        """Seconds since the last scene of any source, or since the start."""
        with self._lock:
            last = max((one.seen_at for one in self._sources.values()), default=self._started)
        return time.monotonic() - last

    def largest_face(self, index: int) -> Face | None:
        """Of a source's newest scene."""
        found = self.scene(index)
        faces = found[0].faces if found is not None else ()
        return max(faces, key=lambda face: float(face.box[2] - face.box[0]), default=None)


def medians(stages: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Milliseconds per stage of some frames -> the median of each."""
    return {name: round(float(np.median([one.get(name, 0.0) for one in stages])), 3) for name in stages[-1]}

"""Scenes -> the state behind page and metrics: the newest scene of each source, and counts. Safe between threads."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from ..faces.reconstruct import largest
from ..regular import shown, source_name
from ..sinks.record import record_from_scene
from ..sources.live import SourceStatus
from ..types import Face, Scene
from .metrics import SourceCounts, StageTimes, output_metrics, source_metrics, stage_metrics, status_metrics

RECENT = 100
"""Number of frames of a source over which rates and medians are computed."""
MOST_SOURCES = 64
"""Maximum number of sources shown. Of more, those unseen for longest are left out."""


@dataclass(slots=True)
class Watched:
    """State of one source."""

    scene: Scene
    number: int
    """Number of the source's scenes so far."""
    seen_at: float
    """Time of the newest scene, by time.monotonic()."""
    version: int = 0
    """Number of the newest scene among the scenes of all sources, from 1."""
    faces: int = 0
    """Number of faces in all scenes."""
    moments: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    stages: deque[Mapping[str, float]] = field(default_factory=lambda: deque(maxlen=RECENT))

    @property
    def fps(self) -> float:
        """Recent scenes per second."""
        span = self.moments[-1] - self.moments[0]
        return (len(self.moments) - 1) / span if span > 0 else 0.0


Dropped = Callable[[], dict[str, int]]
"""Function that returns the number of frames dropped by each slow output."""
Statuses = Callable[[], list[SourceStatus]]
"""Function that returns the current state of every live source."""


class State(Collector):
    """A sink that keeps the newest frame of each source for the page and the metrics.

    A frame only adds to counts. Records and metrics are made for whoever asks.
    """

    def __init__(self, blendshapes: tuple[str, ...], statuses: Statuses = list, dropped: Dropped = dict) -> None:
        self._blendshapes = blendshapes
        self._statuses = statuses
        self._dropped = dropped
        self._lock = threading.Lock()
        self._sources: dict[str, Watched] = {}
        self._scenes = 0
        self._stages: defaultdict[str, StageTimes] = defaultdict(StageTimes)
        self._started = time.monotonic()
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def write(self, scene: Scene) -> None:
        """Take one scene."""
        now, source = time.monotonic(), source_name(scene.frame.source)
        with self._lock:
            watched = self._sources.pop(source, None)
            if watched is None:
                watched = Watched(scene, 0, now)
            watched.scene, watched.number, watched.seen_at = scene, watched.number + 1, now
            self._scenes += 1
            watched.version = self._scenes
            watched.faces += len(scene.faces)
            watched.moments.append(now)
            watched.stages.append(scene.stages_ms)
            self._sources[source] = watched
            for stage, milliseconds in scene.stages_ms.items():
                self._stages[stage].add(milliseconds / 1000)
            if scene.frame.still:
                # Only the newest photograph is kept, because photographs are large and many.
                for name in [name for name, one in self._sources.items() if one.scene.frame.still and name != source]:
                    del self._sources[name]
            while len(self._sources) > MOST_SOURCES:
                del self._sources[next(iter(self._sources))]

    def _forget_removed(self, there: set[str]) -> None:
        """Remove cameras and streams that are no longer listed."""
        if there:
            for name in [name for name, one in self._sources.items() if one.scene.frame.live and name not in there]:
                del self._sources[name]

    def metrics(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the current metrics."""
        statuses, now = self._statuses(), time.monotonic()
        with self._lock:
            self._forget_removed({shown(status.name) for status in statuses})
            sources = [
                SourceCounts(
                    name=name,
                    frames=one.number,
                    faces_seen=one.faces,
                    faces=len(one.scene.faces),
                    age_s=one.seen_at - one.scene.frame.captured_at,
                    silent_s=now - one.seen_at,
                )
                for name, one in self._sources.items()
            ]
            stages = stage_metrics(self._stages)
        yield from source_metrics(sources)
        yield stages
        yield from status_metrics(statuses)
        yield output_metrics(self._dropped())

    def scene(self, index: int) -> tuple[Scene, int] | None:
        """Return the newest scene of a source and its number among all scenes, by the source's place in `summary`; None
        where there is none."""
        with self._lock:
            names = sorted(self._sources)
            if not 0 <= index < len(names):
                return None
            watched = self._sources[names[index]]
            return watched.scene, watched.version

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
                    "largest": place_of_largest(scene),
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
        return largest(found[0].faces, found[0].frame.size) if found is not None else None


def place_of_largest(scene: Scene) -> int | None:
    """Return the place of the largest face among the scene's faces; None without a face."""
    face = largest(scene.faces, scene.frame.size)
    return next((place for place, one in enumerate(scene.faces) if one is face), None)


def medians(stages: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median milliseconds of each stage over some frames."""
    return {name: round(median(one.get(name, 0.0) for one in stages), 3) for name in stages[-1]}

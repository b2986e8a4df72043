"""Frames and a reconstructor -> samples, one scenario each. The names are MLPerf Inference's (Reddi et al., ISCA 2020).

- single-stream: the next frame comes when the last one is done. What one frame costs.
- multi-stream: a query is one frame of each of several streams. How long until all of them are done.
- camera: frames come at their own rate, done or not, and only the newest is looked at. How old a result is.
- offline: crops by the batch, through the network alone. How many per second.

Warm-up queries come first and are kept apart. Ctrl-C ends a scenario early; what was measured stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..faces.pipeline import Pipeline
from ..faces.reconstruct import Reconstructor
from ..networks.ensemble import Network
from ..types import Frame, Scene

Show = Callable[[int, int], None]
"""Called with how many queries are done, and of how many."""


@dataclass(slots=True)
class Samples:
    """What one scenario measured."""

    milliseconds: list[float] = field(default_factory=list)
    """Per query, in the order they came."""
    warm_up_ms: list[float] = field(default_factory=list)
    stages_ms: dict[str, list[float]] = field(default_factory=dict)
    faces: int = 0
    dropped: int = 0
    """Frames of a camera that came while another was looked at."""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    """Of what was measured, warm-up and the making of queries apart; of a camera, of all that happens meanwhile."""
    interrupted: bool = False

    def note(self, scenes: Sequence[Scene], milliseconds: float) -> None:
        """Count a query."""
        self.milliseconds.append(milliseconds)
        for scene in scenes:
            self.faces += len(scene.faces)
            for stage, spent in scene.stages_ms.items():
                self.stages_ms.setdefault(stage, []).append(spent)

    @contextmanager
    def until_interrupted(self) -> Iterator[None]:
        """Ctrl-C ends the block, not the program."""
        try:
            yield
        except KeyboardInterrupt:
            self.interrupted = True

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Wall and processor time of the block are counted."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall_s += time.perf_counter() - wall
            self.cpu_s += time.process_time() - cpu


def streamed(
    reconstructor: Reconstructor,
    frames: Sequence[Frame],
    streams: int,
    count: int,
    warm_up: int,
    detect_every: int,
    show: Show,
) -> Samples:
    """`count` queries of one frame of each stream; each stream is somewhere else in `frames`, which is read
    over and over. One stream is the scenario single-stream."""
    pipeline, samples = Pipeline(reconstructor, detect_every=detect_every), Samples()
    offsets = [stream * len(frames) // streams for stream in range(streams)]

    def query(number: int) -> tuple[list[Scene], float]:
        # Each look at the frames is a copy of its own, as a decoder's would be: nothing stays warm in the caches.
        wanted = [
            replace(frame, image=frame.image.copy(), source=f"{frame.source}#{stream}", index=number)
            for stream, offset in enumerate(offsets)
            for frame in [frames[(offset + number) % len(frames)]]
        ]
        started = time.perf_counter()
        with samples.spending():
            scenes = [pipeline.process(frame) for frame in wanted]
        return scenes, 1000 * (time.perf_counter() - started)

    with samples.until_interrupted():
        for number in range(warm_up):
            samples.warm_up_ms.append(query(number)[1])
        samples.wall_s = samples.cpu_s = 0.0
        for number in range(warm_up, warm_up + count):
            samples.note(*query(number))
            show(len(samples.milliseconds), count)
    return samples


def camera(
    reconstructor: Reconstructor, frames: Iterable[Frame], count: int, warm_up: int, detect_every: int, show: Show
) -> Samples:
    """`count` frames of a live source, or of `paced`: how old each is, captured to reconstructed."""
    pipeline, samples = Pipeline(reconstructor, detect_every=detect_every), Samples()
    before = -1
    coming = iter(frames)

    def query(frame: Frame) -> tuple[Scene, float]:
        scene = pipeline.process(frame)
        return scene, 1000 * (time.monotonic() - frame.captured_at)

    with samples.until_interrupted():
        for _, frame in zip(range(warm_up), coming, strict=False):
            samples.warm_up_ms.append(query(frame)[1])
            before = frame.index
        with samples.spending():
            for _, frame in zip(range(count), coming, strict=False):
                scene, age = query(frame)
                samples.dropped += frame.index - before - 1
                samples.note([scene], age)
                show(len(samples.milliseconds), count)
                before = frame.index
    return samples


def paced(frames: Sequence[Frame], fps: float) -> Iterator[Frame]:
    """Frames of a file as a camera would give them, for ever: `fps` a second, and of those that came since the last one
    was asked for only the newest."""
    started, last = time.monotonic(), -1
    while True:
        newest = int((time.monotonic() - started) * fps)
        if newest <= last:
            time.sleep(max(0.0, started + (last + 1) / fps - time.monotonic()))
            newest = max(last + 1, int((time.monotonic() - started) * fps))
        last = newest
        frame = frames[newest % len(frames)]
        yield replace(frame, image=frame.image.copy(), index=newest, captured_at=started + newest / fps, fps=fps)


def offline(network: Network, crops: NDArray[np.uint8], batch: int, count: int, warm_up: int, show: Show) -> Samples:
    """`count` batches of `batch` crops (S, S, 3) through the network alone."""
    samples = Samples()

    def query(number: int) -> float:
        images = np.take(crops, range(number * batch, (number + 1) * batch), axis=0, mode="wrap")
        started = time.perf_counter()
        with samples.spending():
            network.run(images)
        return 1000 * (time.perf_counter() - started)

    with samples.until_interrupted():
        for number in range(warm_up):
            samples.warm_up_ms.append(query(number))
        samples.wall_s = samples.cpu_s = 0.0
        for number in range(warm_up, warm_up + count):
            samples.milliseconds.append(query(number))
            samples.faces += batch
            show(len(samples.milliseconds), count)
    return samples

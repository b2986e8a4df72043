"""Frames and a reconstructor -> samples of one scenario, named as in MLPerf Inference (Reddi et al., ISCA 2020).

- single-stream: the next frame comes when the last one is done. Measures the time per frame.
- multi-stream: a query is one frame of each of several streams. Measures the time until all are done.
- camera: frames come at their own rate, and only the newest is used. Measures the age of a result, and of its record
  where another process reads it.
- offline: batches of crops through the network alone. Measures the throughput.

Warm-up queries come first and are counted separately. Ctrl-C or a lost camera ends a scenario early and keeps its
samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import FaceReconError
from ..faces.pipeline import Pipeline
from ..faces.reconstruct import Reconstructor
from ..networks.ensemble import Network
from ..sinks.local_socket import SCHEME, SocketSink
from ..sinks.threaded import ThreadedSink
from ..types import Frame, Scene
from .reader import SocketReader

Show = Callable[[int, int], None]
"""Function that is called with the number of finished queries and the total."""


Ended = KeyboardInterrupt | FaceReconError
"""What may end a benchmark early: Ctrl-C, or an error of this package."""


@dataclass(slots=True)
class Samples:
    """Samples of one scenario."""

    milliseconds: list[float] = field(default_factory=list)
    """Time per query in ms, in order."""
    warm_up_ms: list[float] = field(default_factory=list)
    stages_ms: dict[str, list[float]] = field(default_factory=dict)
    read_ms: list[float] = field(default_factory=list)
    """Time in ms from a camera's frame to its record in another process."""
    faces: int = 0
    dropped: int = 0
    """Number of a camera's frames that arrived while another frame was processed, and were dropped."""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    """Processor time of the measured queries in seconds, without warm-up and without making the queries. For a camera
    it is the time of the whole process meanwhile."""
    ended: Ended | None = None
    """What ended the scenario early, such as Ctrl-C or a lost camera."""

    def note(self, scenes: Sequence[Scene], milliseconds: float) -> None:
        """Count a query."""
        self.milliseconds.append(milliseconds)
        for scene in scenes:
            self.faces += len(scene.faces)
            for stage, spent in scene.stages_ms.items():
                self.stages_ms.setdefault(stage, []).append(spent)

    @contextmanager
    def until_ended(self) -> Iterator[None]:
        """Let Ctrl-C or an error of this package, such as that of a lost camera, end the block and not the program."""
        try:
            yield
        except (KeyboardInterrupt, FaceReconError) as end:
            self.ended = end

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Add the wall and processor time of the block."""
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
    """Run `count` queries of one frame of each stream. Each stream has its own place in `frames`, which repeat for
    ever. One stream is the scenario single-stream."""
    pipeline, samples = Pipeline(reconstructor, detect_every=detect_every), Samples()
    offsets = [stream * len(frames) // streams for stream in range(streams)]

    def query(number: int) -> tuple[list[Scene], float]:
        # Each query copies its frames, as a decoder would, so that nothing stays warm in the caches.
        wanted = [
            replace(frame, image=frame.image.copy(), source=f"{frame.source}#{stream}", index=number)
            for stream, offset in enumerate(offsets)
            for frame in [frames[(offset + number) % len(frames)]]
        ]
        started = time.perf_counter()
        with samples.spending():
            scenes = [pipeline.process(frame) for frame in wanted]
        return scenes, 1000 * (time.perf_counter() - started)

    with samples.until_ended():
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
    """Run `count` frames of a live source or of `paced`, and measure their age from captured to reconstructed, and that
    of their records from captured to read by another process at a Unix socket."""
    pipeline, samples = Pipeline(reconstructor, detect_every=detect_every), Samples()
    before, captured_at = -1, dict[int, float]()
    coming = iter(frames)
    names = reconstructor.contract.blendshapes

    def query(frame: Frame, sink: ThreadedSink) -> tuple[Scene, float]:
        scene = pipeline.process(frame)
        age = 1000 * (time.monotonic() - frame.captured_at)
        sink.write(scene)
        return scene, age

    with SocketReader() as reader:
        with ThreadedSink(SocketSink(f"{SCHEME}{reader.path}", names), "socket") as sink, samples.until_ended():
            reader.start()
            for _, frame in zip(range(warm_up), coming, strict=False):
                samples.warm_up_ms.append(query(frame, sink)[1])
                before = frame.index
            with samples.spending():
                for _, frame in zip(range(count), coming, strict=False):
                    captured_at[frame.index] = frame.captured_at
                    scene, age = query(frame, sink)
                    samples.dropped += frame.index - before - 1
                    samples.note([scene], age)
                    show(len(samples.milliseconds), count)
                    before = frame.index
        read_at = reader.end()
    samples.read_ms = [1000 * (at - captured_at[frame]) for frame, at in read_at.items() if frame in captured_at]
    return samples


def paced(frames: Sequence[Frame], fps: float) -> Iterator[Frame]:
    """Yield frames of a file as a camera would, for ever: `fps` per second, and only the newest of those that came
    since the last request."""
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
    """Run `count` batches of `batch` crops (S, S, 3) uint8 through the network alone."""
    samples = Samples()

    def query(number: int) -> float:
        images = np.take(crops, range(number * batch, (number + 1) * batch), axis=0, mode="wrap")
        started = time.perf_counter()
        with samples.spending():
            network.run(images)
        return 1000 * (time.perf_counter() - started)

    with samples.until_ended():
        for number in range(warm_up):
            samples.warm_up_ms.append(query(number))
        samples.wall_s = samples.cpu_s = 0.0
        for number in range(warm_up, warm_up + count):
            samples.milliseconds.append(query(number))
            samples.faces += batch
            show(len(samples.milliseconds), count)
    return samples

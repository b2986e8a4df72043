"""Frames that are read and decoded in a thread, while those before them are looked at."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
DEPTH = 2
"""Frames read ahead. More would only hold memory: whichever is slower, reading or looking, sets the pace."""


def prefetched(frames: Iterable[T], depth: int = DEPTH) -> Generator[T, None, None]:
    """The same frames (or anything but None) in the same order, up to `depth` of them read ahead; what reading raises
    is raised here, after the frames before it. Close it before what it reads from: then no thread is left, and nothing
    more is read."""
    reading = iter(frames)
    reader = ThreadPoolExecutor(1, "prefetch")

    def next_frame() -> Future[T | None]:
        return reader.submit(next, reading, None)

    try:
        ahead = deque(next_frame() for _ in range(depth))
        while (frame := ahead.popleft().result()) is not None:
            ahead.append(next_frame())
            yield frame
    finally:
        reader.shutdown(cancel_futures=True)

"""Frames -> the same frames, read and decoded ahead in a thread while earlier frames are processed."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
DEPTH = 2
"""Number of frames to read ahead. More would only use memory, because the slower of reading and processing sets the
pace."""


def prefetched(frames: Iterable[T], depth: int = DEPTH) -> Generator[T, None, None]:
    """Yield the same frames (or any items but None) in the same order, with up to `depth` of them read ahead.

    An error of reading is raised here, after the frames before it. Close this generator before the source that it
    reads: then no thread is left, and nothing more is read.
    """
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

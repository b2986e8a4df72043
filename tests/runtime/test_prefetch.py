"""Frames are read ahead in order, and no thread is left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from facerecon_rt.errors import SourceError
from facerecon_rt.sources.prefetch import DEPTH, prefetched
from facerecon_rt.types import Frame

IMAGE = np.zeros((2, 2, 3), np.uint8)


class Reads:
    """Frames that count how many were read. Frame `breaks_at` raises an error instead."""

    def __init__(self, count: int, breaks_at: int = -1) -> None:
        self.count = count
        self.breaks_at = breaks_at
        self.read = 0
        self.threads: set[str] = set()

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.count):
            self.threads.add(threading.current_thread().name)
            if index == self.breaks_at:
                raise SourceError("the disk is gone")
            self.read += 1
            yield Frame(IMAGE, "clip", index)


def threads_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_frames_come_in_order_from_another_thread() -> None:
    frames = Reads(50)
    assert [frame.index for frame in prefetched(frames)] == list(range(50))
    assert frames.threads == {"prefetch_0"}
    assert threads_left() == []


def test_what_reading_raises_comes_after_the_frames_before_it() -> None:
    seen = []
    with pytest.raises(SourceError, match="the disk is gone"):
        for frame in prefetched(Reads(9, breaks_at=4)):
            seen.append(frame.index)
    assert seen == [0, 1, 2, 3]
    assert threads_left() == []


def test_whoever_stops_early_leaves_no_thread_and_reads_little_further() -> None:
    frames = Reads(1000)
    with closing(prefetched(frames)) as ahead:
        for _ in range(3):
            next(ahead)
    assert threads_left() == []
    # The frames that were taken, the waiting frames, and a frame that is being read.
    assert frames.read <= 3 + DEPTH + 1


def test_no_frames_are_no_frames() -> None:
    assert list(prefetched(Reads(0))) == []

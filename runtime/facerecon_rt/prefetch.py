"""Frames that are read and decoded in a thread, while those before them are looked at."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass

from .types import Frame

DEPTH = 2
"""Frames read ahead. More would only hold memory: whichever is slower, reading or looking, sets the pace."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """The last thing in the queue: why there are no more frames."""

    error: BaseException | None


def prefetched(frames: Iterable[Frame], depth: int = DEPTH) -> Generator[Frame, None, None]:
    """The same frames in the same order, up to `depth` of them read ahead; what reading raises is raised here, after
    the frames before it. Close it before what it reads from: then no thread is left, and nothing more is read."""
    ready: queue.Queue[Frame | _Ended] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: Frame | _Ended) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def read() -> None:
        error: BaseException | None = None
        try:
            for frame in frames:
                put(frame)
                if stop.is_set():
                    return
        except BaseException as raised:
            error = raised
        put(_Ended(error))

    reader = threading.Thread(target=read, name="prefetch", daemon=True)
    reader.start()
    try:
        while not isinstance(item := ready.get(), _Ended):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        reader.join()

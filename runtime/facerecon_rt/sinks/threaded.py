"""A sink in a thread of its own: drawing and writing go on while the next frames are looked at."""

from __future__ import annotations

import logging
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from ..types import Scene
from .files import Sink

log = logging.getLogger("facerecon_rt")

DEPTH = 4
"""Scenes that may wait. Each holds its frame."""


class ThreadedSink:
    """Hands scenes to a sink in their order. A context manager; owns the sink.

    When the sink is slower than the scenes come: those of files wait for it, so that nothing is lost; those of cameras
    and streams do not, and what does not fit is left out of this sink and counted. When the sink fails: with files,
    the next `write` raises what it raised; with cameras it is said once, this sink stops, and all else goes on.
    """

    def __init__(self, sink: Sink, name: str) -> None:
        """`name`: what messages call it."""
        self.dropped = 0
        """Scenes left out because the sink was too slow."""
        self._sink = sink
        self.name = name
        self._writer = ThreadPoolExecutor(1, f"sink {name}")
        self._waiting: deque[Future[None]] = deque()
        """Scenes that are being written, and those after them."""
        self._failed = False
        """In the writer's thread: what waits behind a scene that could not be written is not."""
        self._error: BaseException | None = None
        self._closed = False

    def __enter__(self) -> ThreadedSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, scene: Scene) -> None:
        """Take one scene. Raises what the sink raised before, unless the scene is a camera's; that whoever reads has
        gone, it raises in either case."""
        live = scene.frame.live
        self._collect(said=live, leave=None if live else DEPTH)
        if self._error is not None and (not live or isinstance(self._error, BrokenPipeError)):
            raise self._error
        if self._error is None and len(self._waiting) <= DEPTH:
            self._waiting.append(self._writer.submit(self._write, scene))
        elif self._error is None:
            self.dropped += 1
            if self.dropped == 1:
                log.warning("%s is slower than the cameras; frames are left out of it, and counted", self.name)

    def close(self) -> None:
        """Write what waits and finish the files. Raises what the sink raised, now or before. Twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self._collect(said=False, leave=0)
        self._writer.shutdown()
        if self.dropped:
            log.warning("%s was too slow for %d frames, which it lacks", self.name, self.dropped)
        try:
            self._sink.close()
        finally:
            # The first that went wrong says why; what closing says of the same file does not.
            if self._error is not None:
                raise self._error

    def _write(self, scene: Scene) -> None:
        if not self._failed:
            self._failed = True
            self._sink.write(scene)
            self._failed = False

    def _collect(self, *, said: bool, leave: int | None) -> None:
        """Take away what is done, and wait until no more than `leave` are not; None does not wait. What failed is kept,
        and, if `said`, said once."""
        while self._waiting and (self._waiting[0].done() or (leave is not None and len(self._waiting) > leave)):
            error = self._waiting.popleft().exception()
            if error is not None and self._error is None:
                self._error = error
                if said and not isinstance(error, BrokenPipeError):
                    log.error("%s; %s is stopped, all else goes on", error, self.name)

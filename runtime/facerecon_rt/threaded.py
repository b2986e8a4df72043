"""A sink in a thread of its own: drawing and writing go on while the next frames are looked at."""

from __future__ import annotations

import logging
import queue
import threading
from types import TracebackType

from .sinks import Sink
from .types import Scene

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
        self._name = name
        self._waiting: queue.Queue[Scene | None] = queue.Queue(DEPTH)
        self._error: Exception | None = None
        self._closed = False
        self._writer = threading.Thread(target=self._write_all, name=f"sink {name}", daemon=True)
        self._writer.start()

    def __enter__(self) -> ThreadedSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, scene: Scene) -> None:
        """Take one scene. Raises what the sink raised before, unless the scene is a camera's; that whoever reads has
        gone, it raises in either case."""
        live = scene.frame.live
        if self._error is not None and (not live or isinstance(self._error, BrokenPipeError)):
            raise self._error
        if not live:
            self._waiting.put(scene)
        elif self._error is None:
            try:
                self._waiting.put_nowait(scene)
            except queue.Full:
                self.dropped += 1

    def close(self) -> None:
        """Write what waits and finish the files. Raises what the sink raised, now or before. Twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self._waiting.put(None)
        self._writer.join()
        if self.dropped:
            log.warning("%s was too slow for %d frames, which it lacks", self._name, self.dropped)
        try:
            self._sink.close()
        except Exception:
            if self._error is None:
                raise
        if self._error is not None:
            raise self._error

    def _write_all(self) -> None:
        """Goes on after a failure too: whoever waits for room must not wait for ever."""
        while (scene := self._waiting.get()) is not None:
            if self._error is not None:
                continue
            try:
                self._sink.write(scene)
            except Exception as error:  # whatever it is, somebody waits for this thread
                self._error = error
                if scene.frame.live and not isinstance(error, BrokenPipeError):
                    log.error("%s; %s is stopped, all else goes on", error, self._name)

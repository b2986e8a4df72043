"""A sink in its own thread, so that drawing and writing go on while the next frames are processed."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType

from ..interrupts import completing
from ..types import NO_PICTURE, Scene
from .sink import ChoosySink, EventSink, PacedSink, Sink

log = logging.getLogger("facerecon_rt")

DEPTH = 4
"""Maximum number of waiting scenes. Each holds its frame."""
MOST_EVENTS = 10_000
"""Maximum number of waiting scenes of which only the events are kept."""


class ThreadedSink:
    """A sink that passes scenes to another sink in order, in a thread. A context manager that owns the other sink.

    When the other sink is slower than the scenes arrive, scenes of files wait for it, so that nothing is lost. Scenes
    of cameras and streams do not wait: those that do not fit are dropped and counted. An `EventSink` still gets the
    events of dropped scenes, in order. Scenes that a `ChoosySink` does not want are not passed, which would take a
    tenth of a millisecond.

    When the other sink fails with a file's scene, the next `write` raises its error. With a camera's scene the error is
    logged once, this sink stops, and everything else continues.
    """

    def __init__(self, sink: Sink, name: str) -> None:
        """Start the thread. `name`: display name of the sink in messages."""
        self.dropped = 0
        """Number of scenes dropped because the sink was too slow."""
        self.dropped_events = 0
        """Number of events dropped because too many waited."""
        self._sink = sink
        self._events = sink if isinstance(sink, EventSink) else None
        self._choosy = sink if isinstance(sink, ChoosySink) else None
        self._paced = sink if isinstance(sink, PacedSink) else None
        self.unfinished = False
        """Whether the sink's files are incomplete, since a second signal came while they were finished."""
        self.name = name
        self._writer = ThreadPoolExecutor(1, f"sink {name}")
        self._waiting: deque[Future[None]] = deque()
        """Scenes being written or waiting."""
        self._failed = False
        """Whether a scene could not be written, so that the waiting ones are skipped. Set in the writer's thread."""
        self._error: BaseException | None = None
        self._closed = False

    def __enter__(self) -> ThreadedSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None:
            self._hurry()
        if isinstance(error, KeyboardInterrupt):
            self._close()  # that was the first signal
        else:
            self.close()

    def write(self, scene: Scene) -> None:
        """Write one scene. Raises the sink's earlier error unless the scene is a camera's. Raises BrokenPipeError in
        either case, when the reader of a pipe has closed it."""
        live = scene.frame.live
        self._collect(logged=live, leave=None if live else DEPTH)
        if self._error is not None and (not live or isinstance(self._error, BrokenPipeError)):
            raise self._error
        if self._choosy is not None and not self._choosy.wants(scene):
            return
        if self._error is None and len(self._waiting) <= DEPTH:
            self._waiting.append(self._writer.submit(self._write, self._sink.write, scene))
        elif self._error is None:
            self.dropped += 1
            if self.dropped == 1:
                log.warning("%s is slower than the cameras; frames are dropped from it and counted", self.name)
            self.write_events(scene)

    def write_events(self, scene: Scene) -> None:
        """Pass the events of a scene without its picture and faces, or its loss, if the sink is an `EventSink`."""
        if not (scene.events or scene.lost) or self._events is None or self._error is not None or self._closed:
            return
        if len(self._waiting) < MOST_EVENTS:
            alone = Scene(replace(scene.frame, image=NO_PICTURE), (), events=scene.events, lost=scene.lost)
            self._waiting.append(self._writer.submit(self._write, self._events.write_events, alone))
        else:
            self.dropped_events += len(scene.events)

    def close(self) -> None:
        """Write the waiting scenes and finish the files, before a signal is handled. Raises the sink's error, old or
        new. A second call does nothing."""
        with completing(self._hurry):
            self._close()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._finish()
        except KeyboardInterrupt:
            self.unfinished = True
            raise

    def _hurry(self) -> None:
        if self._paced is not None:
            self._paced.hurry()

    def _finish(self) -> None:
        self._collect(logged=False, leave=0)
        self._writer.shutdown()
        if self.dropped:
            log.warning("%s dropped %d frames because it was too slow", self.name, self.dropped)
        if self.dropped_events:
            log.error("%s dropped %d events because it was too slow", self.name, self.dropped_events)
        try:
            self._sink.close()
        finally:
            # The first error names the cause; a later error of closing the same file does not.
            if self._error is not None:
                raise self._error

    def _write(self, write: Callable[[Scene], None], scene: Scene) -> None:
        if not self._failed:
            self._failed = True
            write(scene)
            self._failed = False

    def _collect(self, *, logged: bool, leave: int | None) -> None:
        """Remove finished scenes, and wait until at most `leave` are unfinished; None does not wait. The first error is
        kept, and logged once where `logged` is true."""
        while self._waiting and (self._waiting[0].done() or (leave is not None and len(self._waiting) > leave)):
            error = self._waiting[0].exception()  # may be interrupted
            self._waiting.popleft()
            if error is not None and self._error is None:
                self._error = error
                if logged and not isinstance(error, BrokenPipeError):
                    log.error("%s; %s is stopped, everything else continues", error, self.name)

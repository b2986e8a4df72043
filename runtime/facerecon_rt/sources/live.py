"""Cameras and streams that run as long as the program: several at once, and reopened whenever they are lost."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType

from ..addresses import public_name
from ..errors import SourceError, UsageError, first_line
from ..types import Frame
from .camera import AS_IT_IS, DRIVER_ERRORS, CameraSource, LiveOptions, open_camera

log = logging.getLogger("facerecon_rt")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Pause in seconds before the second attempt to open, and the maximum. Each pause is twice the previous."""
JITTER = 0.5
"""Random share of a pause, so that a hundred cameras behind one switch do not reconnect at the same moment."""

LOSSES = (SourceError, *DRIVER_ERRORS)
"""Errors after which a camera or stream is opened again."""

Open = Callable[[str, LiveOptions], CameraSource]


def pause_s(attempt: int, chance: float) -> float:
    """Return the pause in seconds before the next attempt. `attempt`: failed attempts, at least 1; `chance`: random, 0
    to 1."""
    whole = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(attempt - 1, 16))
    return whole * (1 - JITTER * chance)


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """Current state of a live source."""

    name: str
    state: str
    """"open", "lost" (attempts to reopen it continue) or "given up" (its attempts are used up)."""
    frames: int
    """Number of frames used."""
    skipped: int
    """Number of frames grabbed but dropped, because a newer frame came before this one was used."""
    losses: int
    """Number of times the source was lost, or could not be opened at the start."""
    why: str
    """Reason for the last loss or failure to open; empty if there was none."""


class LiveSource:
    """A camera or stream that is reopened with growing pauses whenever it is lost. A context manager."""

    live = True
    still = False
    lost = ""

    def __init__(
        self,
        uri: str,
        options: LiveOptions = AS_IT_IS,
        *,
        retries: int | None = None,
        open_once: Open = open_camera,
        patient: bool = False,
        name: str = "",
    ) -> None:
        """Open the source, or leave that to the iteration. Raises SourceError when it cannot be opened, unless
        `patient`.

        `retries`: attempts to reopen the source after each loss; None for no limit. `patient`: open the source when the
        iteration begins, so that it may be lost from the start. `name`: display name in frames, records and messages,
        by default the public address.
        """
        self.name = name or public_name(uri)
        self.losses = 0
        """Number of times the source was lost, or could not be opened at the start."""
        self._uri = uri
        self._options = options
        self._retries = retries
        self._open_once = open_once
        self._closed = threading.Event()
        self._lost = False
        """Whether it was lost since it was last open."""
        self._attempts = 0
        """Attempts to reopen it since the last frame. A source that opens but gives no frame counts as lost."""
        self.on_loss: Callable[[], None] = lambda: None
        """Function that is called whenever the source is lost, by the thread that iterates."""
        self.why_not = ""
        """Reason for the last loss or failure to open."""
        try:
            self._camera = None if patient else open_once(uri, options)
        except DRIVER_ERRORS as error:
            raise SourceError(f"cannot open {self.name}: {first_line(error)}") from error

    def __enter__(self) -> LiveSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the newest frame, each at most once, until `close`. `Frame.index` continues over losses, and `time_s`
        follows the clock. Raises SourceError when the attempts are used up."""
        started, first_index = time.monotonic(), 0
        while not self._closed.is_set():
            if self._camera is not None:
                newest = first_index - 1
                try:
                    for frame in self._camera:
                        if self._attempts:
                            log.info("%s is connected again", self.name)
                            self._attempts = 0
                        newest = first_index + frame.index
                        time_s = max(0.0, frame.captured_at - started)
                        yield replace(frame, source=self.name, index=newest, time_s=time_s)
                    return  # closed
                except LOSSES as error:
                    self._note_loss(error)
                    self._camera.close()
                    self._camera = None
                first_index = newest + 1
            if not self._open_again():
                return

    @property
    def connected(self) -> bool:
        """Whether the source is open now."""
        return self._camera is not None

    def stop(self) -> None:
        """Stop as `close` does, without waiting for the thread."""
        self._closed.set()
        if (camera := self._camera) is not None:
            camera.stop()

    def close(self, wait_s: float = 2.0) -> None:
        """Close the source and end the iteration. Any thread may call it, also repeatedly."""
        self.stop()
        if (camera := self._camera) is not None:
            camera.close(wait_s)

    def _open_again(self) -> bool:
        """Open the source again. Returns False when it was closed meanwhile. Raises the last SourceError when the
        attempts are used up."""
        while not self._lost or self._retries is None or self._attempts < self._retries:
            if self._lost:
                self._attempts += 1
                seconds = pause_s(self._attempts, random.random())
                log.warning("%s; reconnecting in %.1f s", self.why_not.partition(";")[0], seconds)
                if self._closed.wait(seconds):
                    return False
            try:
                self._camera = self._open_once(self._uri, self._options)
            except LOSSES as error:
                self._note_loss(error)
                continue
            if self._closed.is_set():
                self._camera.close()
                return False
            self._lost = False
            return True
        raise SourceError(self.why_not)

    def _note_loss(self, error: Exception) -> None:
        first, self._lost = not self._lost, True
        self.losses += first
        reason = str(error) if isinstance(error, SourceError) else first_line(error)
        self.why_not = reason if self.name in reason else f"{self.name}: {reason}"
        if first:
            self.on_loss()


class LiveSources:
    """Several live sources at once. The source with a new frame comes next, and a lost source does not stop the others.
    Sources can be added and removed while running. A context manager; several threads may use it."""

    def __init__(self, sources: Iterable[LiveSource] = ()) -> None:
        """Take over the sources, which `close` closes, and start one reading thread for each. Raises UsageError where
        two sources have the same name."""
        self._changed = threading.Condition()
        self._sources: dict[str, LiveSource] = {}
        self._newest: dict[str, Frame] = {}
        self._grabbed: dict[str, int] = {}
        """Number of frames grabbed from each source, used or not."""
        self._taken: dict[str, int] = {}
        """Number of grabbed frames of each source that were used."""
        self._lost: list[str] = []
        """Names of the sources that were lost or removed since the newest group."""
        self._told: list[str] = []
        """Names of those that were lost or removed before it, for `take_lost`. All their frames are in groups."""
        self._closed = False
        self.given_up: dict[str, SourceError] = {}
        """Errors of the sources that have used up their attempts, by name."""
        for source in sources:
            self.add(source)

    def __enter__(self) -> LiveSources:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the newest frame of each source, the longest-waiting first. Waits while no source has a frame, and
        while there is no source. Raises SourceError when all sources have used up their attempts."""
        for group in self.groups():
            yield from group

    def groups(self, most_delay_s: float = 0.0) -> Iterator[list[Frame]]:
        """Yield the newest frames of different sources together: those that are there, or, within `most_delay_s`
        seconds of the first, those of all open sources. A group is empty where a source was lost and there is no frame
        (`take_lost`). Raises SourceError as iterating does."""
        while (group := self._next(most_delay_s)) is not None:
            yield group

    def add(self, source: LiveSource) -> None:
        """Add a source and start reading it. Raises UsageError where a source of the same name exists."""
        self.replace((), [source])

    def replace(self, gone: Iterable[str], new: Iterable[LiveSource]) -> None:
        """Remove sources by name and add others in one step, so that there is no moment without sources. Raises
        UsageError where two sources have the same name."""
        with self._changed:
            leaving = [source for name in gone if (source := self._sources.pop(name, None)) is not None]
            for source in leaving:
                for kept in (self._newest, self._grabbed, self._taken, self.given_up):
                    kept.pop(source.name, None)
                self._note_loss(source)
            for source in new:
                if source.name in self._sources:
                    raise UsageError(f"two sources are called {source.name}; give one of them another name")
                self._sources[source.name] = source
                self._grabbed[source.name] = self._taken[source.name] = 0
                source.on_loss = partial(self._lose, source)
                if self._closed:
                    source.stop()
                threading.Thread(target=self._read, args=(source,), name=f"live {source.name}", daemon=True).start()
            self._changed.notify_all()
        for source in leaving:
            source.stop()

    def statuses(self) -> list[SourceStatus]:
        """Return the status of each source, in the order in which they were added."""
        with self._changed:
            return [
                SourceStatus(
                    name,
                    state="given up" if name in self.given_up else "open" if source.connected else "lost",
                    frames=self._taken[name],
                    skipped=self._grabbed[name] - self._taken[name] - (name in self._newest),
                    losses=source.losses,
                    why=source.why_not.partition(";")[0],
                )
                for name, source in self._sources.items()
            ]

    def take_lost(self) -> list[str]:
        """Return the names of the sources that were lost or removed since the last call, before the newest group was
        taken. No frame from before the loss follows."""
        with self._changed:
            told, self._told = self._told, []
            return told

    def _lose(self, source: LiveSource) -> None:
        with self._changed:
            if self._sources.get(source.name) is source:
                self._note_loss(source)
                self._changed.notify_all()

    def _note_loss(self, source: LiveSource) -> None:
        if source.name not in self._lost:
            self._lost.append(source.name)

    def close(self) -> None:
        """Close all sources and end the iteration."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            sources = list(self._sources.values())
        for source in sources:
            source.stop()
        end = time.monotonic() + 2.0  # one limit for all sources, because a service manager does not wait long
        for source in sources:
            source.close(max(0.0, end - time.monotonic()))

    def _next(self, most_delay_s: float) -> list[Frame] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._newest or self._lost or self._closed or self._all_given_up)
            if self._newest and most_delay_s:
                self._changed.wait_for(
                    lambda: self._closed or len(self._newest) >= self._open_sources,
                    most_delay_s,
                )
            if self._closed:
                return None
            if not self._newest and not self._lost:
                raise SourceError("; ".join(map(str, self.given_up.values())))
            # A dictionary keeps the order of its keys, and a newer frame takes the place of the previous one.
            group = list(self._newest.values())
            for name in self._newest:
                self._taken[name] += 1
            self._newest.clear()
            self._told += self._lost
            self._lost.clear()
            return group

    @property
    def _open_sources(self) -> int:
        return sum(one.connected and name not in self.given_up for name, one in self._sources.items())

    @property
    def _all_given_up(self) -> bool:
        return bool(self._sources) and self.given_up.keys() == self._sources.keys()

    def _read(self, source: LiveSource) -> None:
        try:
            for frame in source:
                with self._changed:
                    if self._sources.get(source.name) is not source:
                        break  # removed
                    self._newest[source.name] = frame
                    self._grabbed[source.name] = frame.index + 1
                    self._changed.notify_all()
        except SourceError as error:
            self._give_up(source, error)
        except Exception as error:  # a reading thread that dies silently would hang the program
            log.debug("reading %s failed", source.name, exc_info=True)
            source.why_not = f"{source.name} failed: {first_line(error)}"
            source.close()
            self._lose(source)
            self._give_up(source, SourceError(source.why_not))
        if self._sources.get(source.name) is not source:
            source.close()

    def _give_up(self, source: LiveSource, error: SourceError) -> None:
        with self._changed:
            if self._sources.get(source.name) is source:
                self.given_up[source.name] = error
                if len(self._sources) > 1:
                    log.warning("%s; giving up", str(error).partition(";")[0])
            self._changed.notify_all()

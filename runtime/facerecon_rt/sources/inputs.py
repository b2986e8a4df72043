"""Input URIs -> groups of frames: files one after the other, then cameras and streams all at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from ..errors import FaceReconError, SourceError
from ..types import Frame
from .camera import AS_IT_IS, LiveOptions
from .files import FilesSource, files_of, open_source
from .listing import ListedSource, is_list, listed_sources
from .live import LiveSource, LiveSources, SourceStatus
from .prefetch import prefetched

log = logging.getLogger("facerecon_rt")


class Inputs:
    """All inputs of a command line. Unreadable inputs are skipped, and `check` reports them at the end."""

    def __init__(
        self,
        uris: Sequence[str],
        live: LiveOptions = AS_IT_IS,
        retries: int | None = None,
        most_delay_s: float = 0.0,
    ) -> None:
        """List the sources. Raises UsageError and SourceError for an invalid sources.yaml.

        `uris`: URIs as for `open_source`, and sources.yaml files. `live`, `retries`: defaults for cameras and streams.
        `most_delay_s`: maximum time in seconds that a frame waits for frames of other sources.
        """
        self._uris = uris
        self._live_options = live
        self._retries = retries
        self._most_delay_s = most_delay_s
        self.reloadable = any(map(is_list, uris))
        """Whether sources can be added and removed while running, since a sources.yaml is given."""
        self._listed = self._list()
        self._errors: dict[tuple[int, str], SourceError] = {}
        """Errors of the inputs that could not be read, by place and name. Cameras and streams have the place -1."""
        self._sources: LiveSources | None = None
        """The open cameras and streams; None while no live source is read."""
        self._reloading = threading.Lock()

    @property
    def live_sources(self) -> list[ListedSource]:
        """The listed cameras and streams."""
        return [one for one in self._listed if one.live]

    def files(self) -> list[Path]:
        """Return the files that will be read, and the lists of sources."""
        lists = [Path(uri) for uri in self._uris if is_list(uri)]
        return [*lists, *(path for one in self._listed for path in files_of(one.uri))]

    def groups(self) -> Generator[list[Frame], None, None]:
        """Yield the frames of every input in groups.

        Files come first, one after the other and one frame per group. Then the cameras and streams come all at once:
        each group holds the frames that are there together, or arrive within `most_delay_s` seconds. It is empty where
        one was lost (`take_lost`).
        """
        for place, one in enumerate(self._listed):
            if not one.live:
                try:
                    with open_source(one.uri) as source, ExitStack() as ahead:
                        for frame in ahead.enter_context(closing(prefetched(source))):
                            yield [frame]
                        if source.lost:
                            several = isinstance(source, FilesSource)
                            whole = source.lost if several else f"{one.name} could not be read whole"
                            self._errors[place, one.name] = SourceError(whole)
                except SourceError as error:
                    self._note((place, one.name), error)
        if self.live_sources:
            yield from self._live_groups()

    def _live_groups(self) -> Generator[list[Frame], None, None]:
        with LiveSources() as sources:
            try:
                with self._reloading:
                    cameras = self.live_sources
                    # A single camera that does not exist is an error at once. One of several cameras may appear later.
                    patient = len(cameras) > 1 or self.reloadable
                    sources.replace((), [live_source(one, patient=patient) for one in cameras])
                    self._sources = sources
                yield from sources.groups(self._most_delay_s)
            except SourceError as error:
                if not sources.given_up:
                    self._note((-1, cameras[0].name), error)
            finally:
                with self._reloading:
                    self._sources = None
                for status in sources.statuses():
                    log.info("%s", summary_of(status))
                self._errors |= {(-1, name): error for name, error in sources.given_up.items()}

    def statuses(self) -> list[SourceStatus]:
        """Return the status of each camera and stream; empty until the files have been read."""
        sources = self._sources
        return [] if sources is None else sources.statuses()

    def take_lost(self) -> list[str]:
        """Return the names of the cameras and streams that were lost or removed since the last call."""
        sources = self._sources
        return [] if sources is None else sources.take_lost()

    def reload(self) -> None:
        """Read sources.yaml again. New cameras and streams start, removed ones end, and changed or given-up ones are
        reopened; all others keep running. An invalid file is logged and changes nothing. Any thread may call it."""
        with self._reloading:
            try:
                listed = self._list()
            except FaceReconError as error:
                log.error("%s; the sources stay as they were", error)
                return
            before = {one.name: one for one in self.live_sources}
            after = {one.name: one for one in listed if one.live}
            if not after:
                log.error("%s names no camera or stream; the sources stay as they were", " ".join(self._uris))
                return
            given_up: set[str] = set()
            if (sources := self._sources) is not None:
                given_up = set(sources.given_up)
                new = [one for name, one in after.items() if before.get(name) != one or name in given_up]
                gone = [name for name, one in before.items() if after.get(name) != one or name in given_up]
                for status in sources.statuses():
                    if status.name in gone:
                        log.info("%s", summary_of(status))
                sources.replace(gone, [live_source(one, patient=True) for one in new])
            both = after.keys() & before.keys()
            changed = [name for name in both if after[name] != before[name] or name in given_up]
            log.info(
                "sources reloaded: %d new, %d removed, %d changed or opened again, %d in total",
                len(after) - len(both), len(before) - len(both), len(changed), len(after),
            )  # fmt: skip
            self._listed = listed

    def check(self) -> None:
        """Raise SourceError if any input could not be read."""
        if len(self._listed) == 1:
            for error in self._errors.values():
                raise error
        if self._errors:
            names = ", ".join(name for _, name in self._errors)
            raise SourceError(f"{len(self._errors)} of the {len(self._listed)} inputs could not be read: {names}")

    def _list(self) -> list[ListedSource]:
        return listed_sources(self._uris, self._live_options, self._retries)

    def _note(self, which: tuple[int, str], error: SourceError) -> None:
        self._errors[which] = error
        if len(self._listed) > 1:  # a single error ends the program
            log.warning("skipped: %s", error)


def live_source(listed: ListedSource, *, patient: bool) -> LiveSource:
    """Return the live source of a listed source. Raises SourceError when `patient` is false and it cannot be opened."""
    return LiveSource(listed.uri, listed.options, retries=listed.retries, patient=patient, name=listed.name)


def summary_of(status: SourceStatus) -> str:
    """Return a status as one line of text."""
    lost = f", losses {status.losses}, now {status.state}" if status.losses else ""
    return f"{status.name}: {status.frames} frames taken, {status.skipped} dropped{lost}"


def limited(groups: Generator[list[Frame], None, None], count: int | None) -> Generator[list[Frame], None, None]:
    """Yield the first `count` frames, or all of them for None. The source is closed in either case."""
    left = count
    try:
        for group in groups:
            yield group if left is None else group[:left]
            if left is not None:
                left -= len(group)
                if left <= 0:
                    return
    finally:
        groups.close()

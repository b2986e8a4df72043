"""What is to be read -> its frames, one after the other; cameras and streams all at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing

from ..errors import FaceReconError, SourceError
from ..types import Frame
from .camera import AS_IT_IS, LiveOptions
from .files import open_source
from .listing import ListedSource, is_list, listed_sources
from .live import LiveSource, LiveSources, SourceStatus
from .prefetch import prefetched

log = logging.getLogger("facerecon_rt")


class Inputs:
    """Everything that a command line names. What cannot be read is skipped; in the end it is an error."""

    def __init__(
        self,
        uris: Sequence[str],
        live: LiveOptions = AS_IT_IS,
        retries: int | None = None,
        most_delay_s: float = 0.0,
    ) -> None:
        """`uris`: as for `open_source`, and sources.yaml; `live`, `retries`: of cameras and streams that do not say
        otherwise; `most_delay_s`: that the frame of one may wait for those of others. Raises UsageError and SourceError
        for a sources.yaml that makes no sense."""
        self._uris = uris
        self._live = live
        self._retries = retries
        self._most_delay_s = most_delay_s
        self.reloadable = any(map(is_list, uris))
        """May sources come and go? There is a sources.yaml."""
        self._listed = self._list()
        self._errors: dict[str, SourceError] = {}
        """Of those that could not be read, by name."""
        self._sources: LiveSources | None = None
        """While cameras and streams are read."""
        self._reloading = threading.Lock()

    @property
    def live(self) -> list[ListedSource]:
        """Cameras and streams."""
        return [one for one in self._listed if one.live]

    def groups(self) -> Generator[list[Frame], None, None]:
        """The frames of every input: files one after the other and frame by frame, then the cameras and streams, all at
        once, in groups of those that are there together, or come within `most_delay_s`."""
        for one in self._listed:
            if not one.live:
                try:
                    with open_source(one.uri) as source, ExitStack() as ahead:
                        for frame in ahead.enter_context(closing(prefetched(source))):
                            yield [frame]
                        if source.lost:
                            self._errors[one.name] = SourceError(f"{one.name} could not be read whole")
                except SourceError as error:
                    self._note(one.name, error)
        if self.live:
            yield from self._live_groups()

    def _live_groups(self) -> Generator[list[Frame], None, None]:
        with LiveSources() as sources:
            try:
                with self._reloading:
                    cameras = self.live
                    # One alone that is not there is a mistake, and said at once; among others it may come later.
                    patient = len(cameras) > 1 or self.reloadable
                    sources.replace((), [live_source(one, patient=patient) for one in cameras])
                    self._sources = sources
                yield from sources.groups(self._most_delay_s)
            except SourceError as error:
                if not sources.given_up:
                    self._note(cameras[0].name, error)
            finally:
                with self._reloading:
                    self._sources = None
                for status in sources.statuses():
                    log.info("%s", said(status))
                self._errors |= sources.given_up

    def statuses(self) -> list[SourceStatus]:
        """How the cameras and streams are; of none before the files are done."""
        sources = self._sources
        return [] if sources is None else sources.statuses()

    def reload(self) -> None:
        """Read sources.yaml again: cameras and streams that are new in it begin, those that are gone end, those that
        have changed, or were given up, are opened anew, and all others go on. One that makes no sense is said, and
        changes nothing. May be called from any thread."""
        with self._reloading:
            try:
                listed = self._list()
            except FaceReconError as error:
                log.error("%s; sources are left as they were", error)
                return
            before = {one.name: one for one in self.live}
            after = {one.name: one for one in listed if one.live}
            if not after:
                log.error("there is no camera or stream in %s; sources are left as they were", " ".join(self._uris))
                return
            if (sources := self._sources) is not None:
                given_up = set(sources.given_up)
                new = [one for name, one in after.items() if before.get(name) != one or name in given_up]
                gone = [name for name, one in before.items() if after.get(name) != one or name in given_up]
                for status in sources.statuses():
                    if status.name in gone:
                        log.info("%s", said(status))
                sources.replace(gone, [live_source(one, patient=True) for one in new])
            log.info(
                "sources read again: %d new, %d gone, %d in all",
                len(after.keys() - before.keys()), len(before.keys() - after.keys()), len(after),
            )  # fmt: skip
            self._listed = listed

    def check(self) -> None:
        """Raises SourceError if any could not be read."""
        if len(self._listed) == 1:
            for error in self._errors.values():
                raise error
        if self._errors:
            names = ", ".join(self._errors)
            raise SourceError(f"{len(self._errors)} of the {len(self._listed)} inputs could not be read: {names}")

    def _list(self) -> list[ListedSource]:
        return listed_sources(self._uris, self._live, self._retries)

    def _note(self, name: str, error: SourceError) -> None:
        self._errors[name] = error
        if len(self._errors) < len(self._listed):
            log.warning("skipped: %s", error)


def live_source(listed: ListedSource, *, patient: bool) -> LiveSource:
    """What is listed -> the source. Raises SourceError as it does."""
    return LiveSource(listed.uri, listed.options, retries=listed.retries, patient=patient, name=listed.name)


def said(status: SourceStatus) -> str:
    """As one line."""
    lost = f", losses {status.losses}, now {status.state}" if status.losses else ""
    return f"{status.name}: {status.frames} frames looked at, {status.skipped} passed over{lost}"


def limited(groups: Generator[list[Frame], None, None], count: int | None) -> Generator[list[Frame], None, None]:
    """The first `count` frames, or all of them; the source is closed either way."""
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

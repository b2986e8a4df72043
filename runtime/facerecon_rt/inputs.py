"""What a command line names as inputs -> their frames, one after the other; cameras and streams all at once."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing

from .camera import AS_IT_IS, LiveOptions, is_live, public_name
from .errors import SourceError
from .live import LiveSource, LiveSources
from .prefetch import prefetched
from .sources import open_source
from .types import Frame

log = logging.getLogger("facerecon_rt")


class Unread:
    """Which of the inputs named could not be read. The others are done first; then it is an error."""

    def __init__(self, inputs: Sequence[str]) -> None:
        self._inputs = inputs
        self._errors: dict[str, SourceError] = {}

    def note(self, uri: str, error: SourceError) -> None:
        """One more."""
        self._errors[uri] = error
        if len(self._errors) < len(self._inputs):
            log.warning("skipped: %s", error)

    def check(self) -> None:
        """Raises SourceError if there are any."""
        if len(self._inputs) == 1:
            for error in self._errors.values():
                raise error
        if self._errors:
            names = ", ".join(map(public_name, self._errors))
            raise SourceError(f"{len(self._errors)} of the {len(self._inputs)} inputs could not be read: {names}")


def groups_of(
    uris: Sequence[str],
    unread: Unread,
    live: LiveOptions = AS_IT_IS,
    retries: int | None = None,
    most_delay_s: float = 0.0,
) -> Generator[list[Frame], None, None]:
    """The frames of every input: files one after the other and frame by frame, then the cameras and streams, several at
    once, in groups of those that are there together, or come within `most_delay_s`.

    One that is missing or unreadable goes to `unread`; a camera or stream among several is tried again for as long as
    `retries` says.
    """
    cameras = [uri for uri in uris if is_live(uri)]
    together = cameras if len(cameras) > 1 else []
    for uri in (uri for uri in uris if uri not in together):
        try:
            with open_source(uri, live=live, retries=retries) as source, ExitStack() as ahead:
                # A live source reads in a thread of its own, and has no frames ahead.
                for frame in source if source.live else ahead.enter_context(closing(prefetched(source))):
                    yield [frame]
        except SourceError as error:
            unread.note(uri, error)
    if together:
        sources = LiveSources(
            [
                LiveSource(uri, live, retries=retries, patient=True, name=name)
                for uri, name in zip(together, different_names(together), strict=True)
            ]
        )
        try:
            with sources:
                yield from sources.groups(most_delay_s)
        except SourceError:
            """All were given up, as is said below."""
        finally:
            for number, why in sources.given_up.items():
                unread.note(together[number], why)


def different_names(uris: Sequence[str]) -> list[str]:
    """Public names that no two share: tracks, videos and metrics are kept by name, and two channels of one recorder may
    differ in nothing but what is not shown."""
    names = list(map(public_name, uris))
    return [
        f"{name}#{names[:place].count(name) + 1}" if names[:place].count(name) else name
        for place, name in enumerate(names)
    ]


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

"""Sockets -> the few connections that are served: none waits for ever, and together they leave the cameras their files.

uvicorn has no deadline for a request that comes slowly, nor for a reader that does not read.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Iterable

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 64
"""At once; one more takes the place of the one that has been silent for longest."""
SHARE_OF_FILES = 4
"""The part of the files that this process may have open which connections may take: one in so many."""
BACKLOG = 16
"""Connections that are accepted in one go, before any of them can be refused."""
REQUEST_S = 10.0
"""Within which a whole request must have come, after the connection or the answer before."""
SEND_S = 10.0
"""For which a reader may leave its answer unread."""
SEND_BUFFER = 256 * 1024
"""Bytes that the system holds for a reader, so that one that does not read is noticed within some pictures."""
LONGEST_HEAD = 16 * 1024
"""Bytes of a request's line and headers."""
LOOK_EVERY_S = 0.25
REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Connection(H11Protocol):
    """uvicorn's connection, which knows since when it waits for its client."""

    _waits_since: float
    """time.monotonic(): for a request, after the connection or the last answer."""
    _stuck_since: float | None = None
    """Likewise, for its client to read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room where there are too many."""
        super().connection_made(transport)
        self._waits_since = time.monotonic()
        there = [one for one in self.connections if isinstance(one, Connection) and not one.transport.is_closing()]
        if len(there) > most_connections():
            oldest = min((one for one in there if not one.answers), key=lambda one: one._waits_since)
            if oldest is self:
                transport.write(REFUSAL)  # all the others are being answered
                transport.close()
            else:
                oldest.transport.abort()

    @property
    def answers(self) -> bool:
        """Is a request being answered?"""
        return self.cycle is not None and not self.cycle.response_complete

    def on_response_complete(self) -> None:
        """The time for the next request begins."""
        self._waits_since = time.monotonic()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Its client does not read."""
        self._stuck_since = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self._stuck_since = None
        super().resume_writing()

    def is_late(self) -> bool:
        """Has its client used up its time?"""
        now = time.monotonic()
        if self._stuck_since is not None:
            return now - self._stuck_since > SEND_S
        return not self.answers and now - self._waits_since > REQUEST_S


async def end_late_ones(connections: Iterable[object]) -> None:
    """Until it is cancelled."""
    while True:
        for connection in [one for one in connections if isinstance(one, Connection) and one.is_late()]:
            connection.transport.abort()
        await asyncio.sleep(LOOK_EVERY_S)


def most_connections() -> int:
    """That may be open at once."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if files == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, files // SHARE_OF_FILES)

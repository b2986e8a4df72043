"""Sockets -> the connections that are served, limited in number and time, so that cameras keep enough file handles.

uvicorn has no deadline for a request that arrives slowly, nor for a client that does not read.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Iterable

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 64
"""Maximum number of open connections. A further connection replaces the one that has been silent for longest."""
SHARE_OF_FILES = 4
"""Divisor for connections: they may use one in so many of the files that this process may have open."""
BACKLOG = 16
"""Number of connections that are accepted in one go, before any of them can be refused."""
REQUEST_S = 10.0
"""Maximum time in seconds for a whole request to arrive, after the connection or the previous answer."""
SEND_S = 10.0
"""Maximum time in seconds that a client may leave its answer unread."""
SEND_BUFFER = 256 * 1024
"""Bytes that the system buffers for a client, so that a client that does not read is noticed within a few pictures."""
LONGEST_HEAD = 16 * 1024
"""Maximum bytes of a request's line and headers."""
LOOK_EVERY_S = 0.25
REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Connection(H11Protocol):
    """A uvicorn connection that knows since when it waits for its client."""

    _waits_since: float
    """Time since which it waits for a request, by time.monotonic(): that of the connection or the last answer."""
    _stuck_since: float | None = None
    """Time since which it waits for its client to read, by time.monotonic(); None while the client reads."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, and close another where there are too many."""
        super().connection_made(transport)
        self._waits_since = time.monotonic()
        there = [one for one in self.connections if isinstance(one, Connection) and not one.transport.is_closing()]
        if len(there) > most_connections():
            oldest = min((one for one in there if not one.answers), key=lambda one: one._waits_since)
            if oldest is self:
                transport.write(REFUSAL)  # all other connections are being answered
                transport.close()
            else:
                oldest.transport.abort()

    @property
    def answers(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def on_response_complete(self) -> None:
        """Start the time limit for the next request."""
        self._waits_since = time.monotonic()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Note that the client does not read."""
        self._stuck_since = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that the client reads again."""
        self._stuck_since = None
        super().resume_writing()

    def is_late(self) -> bool:
        """Return whether the client has exceeded its time limit."""
        now = time.monotonic()
        if self._stuck_since is not None:
            return now - self._stuck_since > SEND_S
        return not self.answers and now - self._waits_since > REQUEST_S


async def end_late_ones(connections: Iterable[object]) -> None:
    """Close late connections until this task is cancelled."""
    while True:
        for connection in [one for one in connections if isinstance(one, Connection) and one.is_late()]:
            connection.transport.abort()
        await asyncio.sleep(LOOK_EVERY_S)


def most_connections() -> int:
    """Return the maximum number of open connections."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if files == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, files // SHARE_OF_FILES)

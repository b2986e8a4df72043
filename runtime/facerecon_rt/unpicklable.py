"""Owners of a session -> an error when they are sent to another process, with advice."""

from __future__ import annotations

from typing import NoReturn

from .errors import UsageError


class Unpicklable:
    """Base of classes that own memory, threads or a device for running a network."""

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied. Raises UsageError."""
        raise UsageError(
            f"a {type(self).__name__} cannot be copied or sent to another process: it owns a session of the network; "
            "create one in each worker, as multiprocessing's Pool does in its `initializer`"
        )

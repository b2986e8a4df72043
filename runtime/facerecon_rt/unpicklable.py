"""What owns a session stays in its process; who sends it elsewhere is told what to do instead."""

from __future__ import annotations

from typing import NoReturn

from .errors import UsageError


class Unpicklable:
    """Base of classes that own what runs a network: memory, threads, a device."""

    def __reduce__(self) -> NoReturn:
        """Raises UsageError."""
        raise UsageError(
            f"a {type(self).__name__} cannot be copied or sent to another process: it owns what runs the network; "
            "open one in each worker, as multiprocessing's Pool does in its `initializer`"
        )

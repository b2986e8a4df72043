"""Free memory of the C library -> the system, so that a run of months takes no more than it needs."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

EVERY_S = 30.0


def give_back() -> bool:
    """Give the system the memory that the C library keeps for later. Returns False where the library cannot: only
    glibc can. It takes one or two milliseconds.

    Pictures and network inputs of many threads leave gaps in glibc's heaps, which stay in memory until they are given
    back.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return False
    trim(0)
    return True


@contextmanager
def given_back_regularly() -> Iterator[None]:
    """Call `give_back` every half minute in a thread of its own."""
    ended = threading.Event()

    def wait_and_give() -> None:
        while not ended.wait(EVERY_S) and give_back():
            pass

    thread = threading.Thread(target=wait_and_give, name="memory", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()

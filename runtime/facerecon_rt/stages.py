"""Where a frame's time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stages:
    """Milliseconds per named stage of one frame; a stage measured twice adds up."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = dict.fromkeys(("capture", "detect", "align", "infer", "post"), 0.0)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.milliseconds[stage] += 1000.0 * (time.perf_counter() - start)

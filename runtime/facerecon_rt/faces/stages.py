"""Time of a frame, by stage."""

from __future__ import annotations

import time
from types import TracebackType


class Stages:
    """Milliseconds of a frame by stage. A stage that is measured twice adds up."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = dict.fromkeys(("capture", "detect", "align", "infer", "post"), 0.0)

    def share(self, count: int, capture_ms: float) -> Stages:
        """Return the share of one frame in the time of `count` frames that were processed together."""
        one = Stages()
        one.milliseconds = {stage: spent / count for stage, spent in self.milliseconds.items()}
        one.milliseconds["capture"] = capture_ms
        return one

    def add(self, other: Stages) -> None:
        """Add the milliseconds of every stage of `other`."""
        for stage, spent in other.milliseconds.items():
            self.milliseconds[stage] += spent

    def measure(self, stage: str) -> _Measured:
        """Add the time of the block to a stage."""
        return _Measured(self.milliseconds, stage)


class _Measured:
    """A context manager. As a class it takes a third of the time of `contextlib.contextmanager`."""

    def __init__(self, milliseconds: dict[str, float], stage: str) -> None:
        self._milliseconds, self._stage = milliseconds, stage

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._milliseconds[self._stage] += 1000.0 * (time.perf_counter() - self._start)

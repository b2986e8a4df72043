"""Time per frame -> the work to skip in the next frame, so that frames stay within their time budget.

Load is reduced one step at a time. First the detector runs half, a quarter and an eighth as often. Then only half, a
quarter and so on of the tracked faces are updated, the largest first. Frames of a camera are dropped in any case,
because only the newest is used.
"""

from __future__ import annotations

from dataclasses import dataclass

INTERVAL_STEPS = 3
"""Number of steps that make the detector run less often, before faces are skipped."""
FACE_STEPS = 5
"""Number of further steps, each of which halves the number of faces that are updated."""
OVER_FRAMES, UNDER_FRAMES = 10, 60
"""Number of consecutive frames over the budget before a step is taken, and well under it before a step is undone."""
WELL_UNDER = 0.6
"""Share of the budget below which a frame counts as well under it."""
FORGETTING = 0.2
"""Weight of the newest frame in the running mean. A single slow frame does not count as load."""


@dataclass(frozen=True, slots=True)
class Shed:
    """Work that is currently skipped."""

    interval: int = 1
    """Factor by which the interval between two runs of the detector grows."""
    faces: int = 1
    """Divisor of the number of tracked faces that are updated, the largest first."""

    def most_faces(self, count: int) -> int:
        """Return how many of `count` faces to update; at least one."""
        return max(1, -(-count // self.faces))


class Budget:
    """A time budget that measures frames and decides what to skip."""

    def __init__(self, milliseconds: float, *, detector_first: bool = True) -> None:
        """Start without skipped work.

        `milliseconds`: time budget per frame, which excludes reading the frame. `detector_first`: whether the detector
        may run less often, before fewer faces are updated.
        """
        self.milliseconds = milliseconds
        self._interval_steps = INTERVAL_STEPS if detector_first else 0
        self._steps = 0
        self._mean = 0.0
        self._over = self._under = 0

    @property
    def shed(self) -> Shed:
        """Work to skip in the next frame to stay within the budget."""
        slower = min(self._steps, self._interval_steps)
        return Shed(2**slower, 2 ** (self._steps - slower))

    def note(self, milliseconds: float) -> None:
        """Add the time of a frame, in milliseconds."""
        self._mean += (FORGETTING if self._mean else 1.0) * (milliseconds - self._mean)
        self._over = self._over + 1 if self._mean > self.milliseconds else 0
        self._under = self._under + 1 if self._mean < WELL_UNDER * self.milliseconds else 0
        if self._over >= OVER_FRAMES and self._steps < self._interval_steps + FACE_STEPS:
            self._steps, self._over = self._steps + 1, 0
        elif self._under >= UNDER_FRAMES and self._steps:
            self._steps, self._under = self._steps - 1, 0

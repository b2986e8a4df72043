"""Time that frames take -> what is left out so that they take no more than they may.

In this order, one step at a time: new faces are looked for half, a quarter and an eighth as often; then only half, a
quarter and so on of the tracked faces, the largest, are looked at. Frames themselves are skipped anyway: of a camera
only the newest is ever looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

SLOWER_LOOKS = 3
"""Steps by which looks for new faces get rarer before faces are left out."""
MOST_STEPS = 8
OVER_FRAMES, UNDER_FRAMES = 10, 60
"""Frames in a row over the budget before a step is taken, and well under it before one is taken back."""
WELL_UNDER = 0.6
"""Of the budget."""
FORGETTING = 0.2
"""Weight of the newest frame in the running mean: one slow frame is no load."""


@dataclass(frozen=True, slots=True)
class Shed:
    """What is left out now."""

    looks: int = 1
    """Times as many frames between two looks for new faces."""
    faces: int = 1
    """One in so many of the tracked faces is looked at, the largest first."""

    def most_faces(self, count: int) -> int:
        """How many of `count` faces are looked at; at least one."""
        return max(1, -(-count // self.faces))


class Budget:
    """Learns what frames take, and sheds."""

    def __init__(self, milliseconds: float) -> None:
        """`milliseconds` that a frame may take, reading it apart."""
        self.milliseconds = milliseconds
        self._steps = 0
        self._mean = 0.0
        self._over = self._under = 0

    @property
    def shed(self) -> Shed:
        """What to leave out of the next frame."""
        looks = min(self._steps, SLOWER_LOOKS)
        return Shed(2**looks, 2 ** (self._steps - looks))

    def note(self, milliseconds: float) -> None:
        """What the frame took."""
        self._mean += (FORGETTING if self._mean else 1.0) * (milliseconds - self._mean)
        self._over = self._over + 1 if self._mean > self.milliseconds else 0
        self._under = self._under + 1 if self._mean < WELL_UNDER * self.milliseconds else 0
        if self._over >= OVER_FRAMES and self._steps < MOST_STEPS:
            self._steps, self._over = self._steps + 1, 0
        elif self._under >= UNDER_FRAMES and self._steps:
            self._steps, self._under = self._steps - 1, 0

"""Meshes of one person over time -> how open the eyes are, and whether the lips speak.

The eye aspect ratio is that of Soukupová and Čech, Real-time eye blink detection using facial landmarks, CVWW 2016. The
limits of speech are choices of this project.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from functools import cache

import numpy as np

from ..template import Indices, load_template
from ..types import Floats

PAIRS = np.array([[43, 47], [44, 46], [42, 45], [37, 41], [38, 40], [36, 39], [62, 66], [60, 64]])
"""(8, 2) iBUG points whose distance is measured: per eye, left first, two lid gaps and the width; gap and width of the
inner lips."""

START = 0.93
"""Open level of an eye before it was observed, as a share of the aspect ratio of the person's neutral shape."""
FLOOR = 0.75
"""Minimum open level, as a share of the same. Eyes that stay shut must not become the person's usual eyes."""
OPEN_PERCENTILE = 80.0
OPEN_WINDOW_S = 60.0
OPEN_AFTER_S = 3.0
"""Open level: this percentile of the aspect ratio over this window; the neutral shape counts before `OPEN_AFTER_S`."""
OPEN_STEP_S = 0.1
"""Time between two samples of the open level, in seconds."""
MOST_SAMPLES = round(OPEN_WINDOW_S / OPEN_STEP_S)

SPEECH_WINDOW_S = 1.5
SPEECH_QUIET, SPEECH_SURE = 0.15, 0.8
"""Speed of the lips in widths of the neutral mouth per second, counted as twice the lesser of opening and closing, at
which the likelihood of speech is 0 and 1."""


class OpenLevel:
    """The usual aspect ratio of an eye of one person when it is open."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque()
        self._ordered: list[float] = []
        """The samples by size, so that no frame must sort them."""
        self._sampled_at = -math.inf
        self._percentile: float | None = None

    def openness(self, ratio: float, at_rest: float, time_s: float) -> float:
        """Return how open the eye is, 0 to 1 of its open level. `at_rest`: aspect ratio of the neutral shape."""
        if not 0 <= time_s - self._sampled_at < OPEN_STEP_S:
            self._sampled_at = time_s
            self._sample(ratio)
        level = START * at_rest if self._percentile is None else max(self._percentile, FLOOR * at_rest)
        return min(1.0, ratio / max(level, 1e-6))

    def _sample(self, ratio: float) -> None:
        if not math.isfinite(ratio):
            return
        self._samples.append(ratio)
        insort(self._ordered, ratio)
        if len(self._samples) > MOST_SAMPLES:
            del self._ordered[bisect_left(self._ordered, self._samples.popleft())]
        if len(self._samples) * OPEN_STEP_S >= OPEN_AFTER_S:
            place = OPEN_PERCENTILE / 100 * (len(self._ordered) - 1)
            below, share = int(place), place % 1
            above = self._ordered[min(below + 1, len(self._ordered) - 1)]
            self._percentile = (1 - share) * self._ordered[below] + share * above


class LipMotion:
    """Probability that lips speak: they open and close several times within a short time."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._steps: deque[tuple[float, float]] = deque()
        """Time and change of the gap, in widths of the mouth."""
        self._opened = self._closed = 0.0
        """Sums of the changes. Rounding errors are far below the limits of speech, even after months."""
        self.likelihood = 0.0

    def add(self, gap: float, time_s: float) -> None:
        """Add the gap between the lips, in widths of the neutral mouth."""
        if self._last is not None:
            self._steps.append((time_s, gap - self._last))
            self._count(gap - self._last, 1)
        self._last = gap
        while self._steps and time_s - self._steps[0][0] > SPEECH_WINDOW_S:
            self._count(self._steps.popleft()[1], -1)
        speed = 2 * min(self._opened, self._closed) / SPEECH_WINDOW_S
        self.likelihood = min(max((speed - SPEECH_QUIET) / (SPEECH_SURE - SPEECH_QUIET), 0.0), 1.0)

    def _count(self, step: float, sign: int) -> None:
        if step > 0:
            self._opened += sign * step
        else:
            self._closed -= sign * step


# Plain numbers are used from here on: for so few, calling numpy takes several times as long as the arithmetic.


@cache
def _ends() -> Indices:
    """Return the vertices (16,) at both ends of the `PAIRS`: the first of all pairs, then the second of all."""
    return np.asarray(load_template().landmarks[PAIRS.T.ravel()])


def distances(vertices: Floats) -> list[float]:
    """Return the distances (8,) in mm of the `PAIRS` of a mesh (V, 3) in mm."""
    points = vertices.take(_ends(), 0).tolist()
    return list(map(math.dist, points[: len(PAIRS)], points[len(PAIRS) :]))


def aspect_ratios(lengths: Sequence[float]) -> tuple[float, float]:
    """Return the eye aspect ratio of the left and the right eye from `distances`."""
    left = (lengths[0] + lengths[1]) / max(2 * lengths[2], 1e-6)
    right = (lengths[3] + lengths[4]) / max(2 * lengths[5], 1e-6)
    return left, right

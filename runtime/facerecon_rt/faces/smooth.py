"""Faces of a track -> smoothed faces, by the One Euro filter, which has little jitter at rest and little lag in motion.

The filter (Casiez, Roussel and Vogel, 1€ Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive
Systems, CHI 2012) is a first-order low-pass filter whose cutoff rises with the speed of its input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..align import CROP_SIDE_MM
from ..pose import nearest_rotation, split_camera
from ..types import Face

Reals = NDArray[np.floating[Any]]
"""Array of floats. The filter keeps its precision."""


@dataclass(frozen=True, slots=True)
class Strength:
    """Strength of the filter for quantities of about 1: radians, crop sides, blendshape weights."""

    cutoff_hz: float
    """Cutoff frequency at rest, in Hz."""
    cutoff_per_speed: float
    """Rise of the cutoff with speed, in Hz per unit and second."""


STRENGTHS = {"low": Strength(0.5, 80.0), "high": Strength(0.3, 40.0)}
"""Strengths by name. benchmarks/accuracy.py measures their effect on jitter and their lag."""
MOTION_MM = 10.0
"""Distance in mm that a full blendshape moves vertices, which is the unit of their speed."""
SPEED_CUTOFF_HZ = 1.0
"""Cutoff of the filter for the speed, in Hz, as in the paper."""


class OneEuro:
    """A One Euro filter for an array, in which each element has its own speed."""

    def __init__(self, strength: Strength) -> None:
        self._strength = strength
        self._value: Reals | None = None
        self._speed: Reals | None = None

    def __call__(self, value: Reals, seconds: float, unit: float = 1.0) -> Reals:
        """Filter the newest value, which came `seconds` after the previous one. `unit`: the change that counts as 1 for
        speeds."""
        if self._value is None or self._speed is None or seconds <= 0:
            if self._value is None:
                self._value, self._speed = value.copy(), np.zeros_like(value)
            return self._value
        self._speed = self._speed + _share(SPEED_CUTOFF_HZ, seconds) * ((value - self._value) / seconds - self._speed)
        cutoff = self._strength.cutoff_hz + self._strength.cutoff_per_speed * np.abs(self._speed) / unit
        self._value = self._value + _share(cutoff, seconds) * (value - self._value)
        return self._value


def _share(cutoff_hz: Reals | float, seconds: float) -> Reals | float:
    """Return the weight of the new value in the filtered one."""
    turns = cutoff_hz * (2 * math.pi * seconds)
    return turns / (1.0 + turns)


class FaceFilter:
    """Filters for the pose, landmarks, expression and motion of one track. The shape is averaged already."""

    def __init__(self, strength: Strength) -> None:
        names = ("place", "rotation", "scale", "landmarks", "expression", "motion", "gaze")
        self._filters = {name: OneEuro(strength) for name in names}
        self._time_s: float | None = None

    def __call__(self, face: Face, time_s: float) -> Face:
        """Smooth the face of a frame."""
        seconds = 0.0 if self._time_s is None else time_s - self._time_s
        self._time_s = time_s
        run = self._filters
        scale, rotation, translation = split_camera(face.frame_from_head)
        new_scale = math.exp(float(run["scale"](np.array(math.log(scale)), seconds)))
        # Speeds are measured in head sizes, so that distant and near heads are smoothed equally.
        side = new_scale * CROP_SIDE_MM
        place = run["place"](translation, seconds, side)
        turned = nearest_rotation(run["rotation"](rotation, seconds))
        expression = run["expression"](np.asarray(face.expression, np.float64), seconds)
        motion = run["motion"](face.vertices - face.shape, seconds, MOTION_MM)
        # Landmarks follow the head, so only their motion relative to it is filtered here.
        landmarks = run["landmarks"](np.asarray(face.landmarks - translation, np.float64), seconds, side) + place
        gaze = face.gaze
        if gaze is not None:
            gaze = run["gaze"](np.asarray(gaze, np.float64), seconds)
            gaze = (gaze / np.linalg.norm(gaze, axis=1, keepdims=True)).astype(np.float32)
        return replace(
            face,
            gaze=gaze,
            frame_from_head=np.concatenate([new_scale * turned, place[:, None]], 1).astype(np.float32),
            landmarks=landmarks.astype(np.float32),
            expression=np.clip(expression, 0, 1).astype(np.float32),
            vertices=(face.shape + motion).astype(np.float32),
        )


class Smoother:
    """Filters for the tracks of one source."""

    def __init__(self, strength: Strength) -> None:
        self._strength = strength
        self._filters: dict[int | None, FaceFilter] = {}

    def __call__(self, faces: Sequence[Face], time_s: float) -> tuple[Face, ...]:
        """Smooth the tracked faces of one frame. A track that comes back starts with a new filter."""
        filters = {face.track: self._filters.get(face.track) or FaceFilter(self._strength) for face in faces}
        self._filters = filters
        return tuple(filters[face.track](face, time_s) for face in faces)

"""Faces -> faces whose blendshapes are 0 at rest: the person's neutral weights are subtracted and the rest rescaled."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..paths import read_file
from ..types import Face, Floats, Frame

log = logging.getLogger("facerecon_rt")

SCHEMA = "facerecon-rt-calibration/1"
"""Version of the file of calibrations."""
LARGEST = 2**24
"""Maximum size in bytes of a file of calibrations."""
NOISE = 0.02
"""Weight that a face at rest may have by noise alone: about two standard deviations of the noisiest blendshape on still
photographs with the noise of a camera (benchmarks/expression.py)."""
MOST_TRACKS = 1000
"""Number of tracks whose calibration is kept. The longest unseen is forgotten, since a camera may run for months."""
MOST = 0.9
"""Maximum neutral weight that is subtracted. Above it, what is left of the range would be noise."""


def rested(weights: Floats, neutral: Floats) -> Floats:
    """Return weights (B,), 0 to 1, with the person's `neutral` weights (B,) as 0: (w - n) / (1 - n), at least 0, and
    without noise."""
    rest = np.clip(neutral, 0.0, MOST)
    return without_noise(np.asarray(np.clip((weights - rest) / (1.0 - rest), 0.0, 1.0), np.float32))


def without_noise(weights: Floats) -> Floats:
    """Return weights, 0 to 1: those up to `NOISE` as 0, those from twice as much unchanged, and a ramp between, so that
    none jumps."""
    return np.asarray(np.clip(2 * (weights - NOISE), 0.0, weights), np.float32)


@dataclass(slots=True, eq=False)
class Rest:
    """The neutral weights of one person."""

    weights: Floats
    """(B,) median of the frames so far."""
    began_s: float = 0.0
    """Seconds of the source at the first frame."""
    frames: list[Floats] = field(default_factory=list)
    """Weights of the frames so far; empty once the calibration is complete."""
    count: int = 1
    """Number of frames that it is from."""


class Calibration:
    """The neutral weights of every track, which are learnt in its first seconds or known before."""

    def __init__(
        self,
        blendshapes: Sequence[str],
        seconds: float = 0.0,
        everyone: Floats | None = None,
        known: Mapping[tuple[str, int | None], Floats] | None = None,
    ) -> None:
        """Start with the neutral weights that are known, and learn the others.

        `blendshapes`: (B,) names from the model's contract. `seconds`: time at the beginning of a track in which its
        face is neutral; 0 to learn nothing. `everyone`: neutral weights (B,) of all faces. `known`: neutral weights
        (B,) of tracks, by source and track number.
        """
        self._blendshapes = tuple(blendshapes)
        self._seconds = seconds
        self._everyone = everyone
        self._known = dict(known or {})
        self._tracks: dict[tuple[str, int | None], Rest] = {}
        self._forgot = False

    def __call__(self, faces: Sequence[Face], frame: Frame) -> tuple[Face, ...]:
        """Return the faces of a frame with calibrated expressions. Their vertices stay as they are.

        Within the first seconds of a track, the neutral weights are the median so far.
        """
        return tuple(self._rest(face, frame) for face in faces)

    def _rest(self, face: Face, frame: Frame) -> Face:
        neutral = self._known.get((frame.source, face.track), self._everyone)
        if neutral is None and self._seconds and face.track is not None:
            neutral = self._learn((frame.source, face.track), face.expression, frame.time_s)
        return face if neutral is None else replace(face, expression=rested(face.expression, neutral))

    def _learn(self, key: tuple[str, int | None], weights: Floats, time_s: float) -> Floats:
        rest = self._tracks.pop(key, None)
        if rest is None:
            self._tracks[key] = Rest(weights, time_s, [weights])
            if len(self._tracks) > MOST_TRACKS:
                if not self._forgot:
                    log.warning("calibrations of more than %d tracks: the longest unseen are forgotten", MOST_TRACKS)
                self._forgot = True
                del self._tracks[next(iter(self._tracks))]
            return weights
        self._tracks[key] = rest
        if rest.frames and 0 <= time_s - rest.began_s <= self._seconds:
            rest.frames.append(weights)
            rest.count = len(rest.frames)
            rest.weights = np.median(rest.frames, axis=0).astype(np.float32)
        else:
            rest.frames = []
        return rest.weights

    @property
    def learnt(self) -> int:
        """Number of tracks whose neutral weights were learnt."""
        return len(self._tracks)

    def to_json(self) -> str:
        """Return the neutral weights that were learnt as JSON, for `read_calibration`."""
        people = [
            {
                "source": source,
                "track": track,
                "frames": rest.count,
                "blendshapes": {
                    name: round(weight, 5)
                    for name, weight in zip(self._blendshapes, rest.weights.tolist(), strict=True)
                },
            }
            for (source, track), rest in self._tracks.items()
        ]
        return json.dumps({"schema": SCHEMA, "people": people}, indent=1) + "\n"


def read_calibration(path: str | Path, blendshapes: Sequence[str]) -> Calibration:
    """Read the file that `--save-calibration` wrote. One person in it counts for every face, several count for the
    tracks of their source and number.

    Raises UsageError where it cannot be read, or belongs to other blendshapes.
    """
    try:
        value: Any = json.loads(read_file(path, LARGEST))
        people = {
            (str(one["source"]), one["track"]): _weights(one["blendshapes"], blendshapes) for one in value["people"]
        }
        if value["schema"] != SCHEMA or not people:
            raise ValueError("no people" if value["schema"] == SCHEMA else f"its schema is {value['schema']}")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{path} is not a calibration for this model ({error}); write it with --save-calibration"
        ) from error
    if len(people) == 1:
        return Calibration(blendshapes, everyone=next(iter(people.values())))
    return Calibration(blendshapes, known=people)


def _weights(by_name: Mapping[str, float], blendshapes: Sequence[str]) -> Floats:
    weights = np.array([by_name[name] for name in blendshapes], np.float32)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and (weights <= 1).all()):
        raise ValueError("a weight is not in 0 to 1")
    return weights

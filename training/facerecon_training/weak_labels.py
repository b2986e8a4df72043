"""What another face tracker says about photographs -> weak labels: blendshape weights and where irises are.

MediaPipe Face Landmarker's scores and mesh points, as `DATA/pseudo/*.npz` holds them. They are a teacher's answers, not
truth: what it never says is left out, and what it says too often is put back to scale.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import UsageError
from facerecon_rt.types import Floats
from numpy.typing import NDArray

NEVER = ("cheekPuff", "cheekSquint", "jawForward", "noseSneer", "eyeLook")
"""Blendshapes that the tracker never gives; and looks, which irises tell better."""
SCALE = {"eyeSquint": (0.30, 0.85), "mouthPucker": (0.10, 0.95), "browDown": (0.05, 0.70), "browInnerUp": (0.05, 0.80)}
"""Scores of faces at rest and of the strongest faces, where they are not 0 and 1."""
EYE_POINTS = ((263, 362, 473), (33, 133, 468))
"""Mesh points of the left and the right eye: outer corner, inner corner, middle of the iris."""
DEVELOPMENT_SHARE = 8
"""One person in so many of a folder that names its people is never trained on: `benchmarks/expression_labels.json`."""


@dataclass(frozen=True, slots=True, eq=False)
class WeakLabels:
    """Of N photographs."""

    files: dict[str, int]
    """FOLDER/NAME.jpg, or NAME.jpg of the folder that the file describes -> its row."""
    blendshapes: Floats
    """(N, 53) 0..1, NaN where nothing is known."""
    eyes: Floats
    """(N, 2, 3, 2) pixels of the photograph: of the left and the right eye outer corner, inner corner and iris; NaN
    where they are not known."""
    landmarks: Floats
    """(N, 68, 2) pixels: the tracker's own, jaw points NaN, for they lie at fixed places of its mesh."""
    person: NDArray[np.int64]
    """(N,) who it is, -1 where that is not known."""
    valid: NDArray[np.int64]
    """(N, 4) x0, y0, x1, y1: the part of the file that is picture."""


def read_weak_labels(path: Path) -> WeakLabels:
    """One .npz. Raises UsageError where it is not such a file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            names = [str(name) for name in arrays["blendshape_names"]]
            scores = arrays["blendshapes"].astype(np.float32)
            eyes = arrays["landmarks478"].astype(np.float32)[:, EYE_POINTS, :2]
            landmarks = arrays["points68"].astype(np.float32)
            files = {str(name): row for row, name in enumerate(arrays["files"])}
            count = len(files)
            person = arrays["person"].astype(np.int64) if "person" in arrays else np.full(count, -1)
            everything = np.tile(np.array([0, 0, 1 << 20, 1 << 20]), (count, 1))
            valid = arrays["valid"].astype(np.int64) if "valid" in arrays else everything
    except (KeyError, ValueError, IndexError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} holds no weak labels ({error}); see training/README.md, or take it away") from error
    landmarks[:, :17] = np.nan
    return WeakLabels(files, in_our_names(names, scores), eyes, landmarks, person, valid)


def in_our_names(names: list[str], scores: Floats) -> Floats:
    """The tracker's names and its scores (N, K) -> (N, 53) in the order of BLENDSHAPES, to scale, NaN where it has
    nothing to say."""
    column = {name: i for i, name in enumerate(names)}
    ours = np.full((len(scores), len(BLENDSHAPES)), np.nan, np.float32)
    for i, name in enumerate(BLENDSHAPES):
        kind = name.removesuffix("_L").removesuffix("_R")
        theirs = name.replace("_L", "Left").replace("_R", "Right")
        found = column.get(theirs, column.get(kind))
        if found is None or kind.startswith(NEVER):
            continue
        rest, strong = SCALE.get(kind, (0.0, 1.0))
        ours[:, i] = np.clip((scores[:, found] - rest) / (strong - rest), 0, 1)
    return ours

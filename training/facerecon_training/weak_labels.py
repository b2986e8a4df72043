"""Another face tracker's answers about photographs -> weak labels: blendshape weights and positions of irises.

The labels are scores and mesh points of MediaPipe Face Landmarker, stored in `DATA/pseudo/*.npz`. They are a teacher's
answers and not the truth. Blendshapes that it never gives are left out, and scores that are never 0 or 1 are rescaled.
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
"""Blendshapes that the tracker never gives, and looks, which irises show better."""
SCALE = {"eyeSquint": (0.30, 0.85), "mouthPucker": (0.10, 0.95), "browDown": (0.05, 0.70), "browInnerUp": (0.05, 0.80)}
"""Scores of faces at rest and of the strongest faces, for blendshapes where they are not 0 and 1."""
EYE_POINTS = ((263, 362, 473), (33, 133, 468))
"""Mesh points of the left and the right eye: outer corner, inner corner, centre of the iris."""
DEVELOPMENT_SHARE = 8
"""Interval of the people who are never trained on, in folders that name their people:
`benchmarks/expression_labels.json`."""


@dataclass(frozen=True, slots=True, eq=False)
class WeakLabels:
    """Weak labels of N photographs."""

    files: dict[str, int]
    """FOLDER/NAME.jpg, or NAME.jpg in the folder that the file describes -> row."""
    blendshapes: Floats
    """Blendshape weights (N, 53) 0..1; NaN where nothing is known."""
    eyes: Floats
    """Outer corner, inner corner and iris of the left and the right eye, (N, 2, 3, 2) photograph pixels; NaN where not
    known."""
    landmarks: Floats
    """The tracker's landmarks (N, 68, 2) in pixels. Jaw points are NaN, because they lie at fixed places of its
    mesh."""
    person: NDArray[np.int64]
    """Person of each photograph, (N,); -1 if not known."""
    valid: NDArray[np.int64]
    """Valid part (N, 4) of each picture: x0, y0, x1, y1."""


def read_weak_labels(path: Path) -> WeakLabels:
    """Read weak labels from an .npz file. Raises UsageError for any other file."""
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
        raise UsageError(
            f"{path} holds no weak labels ({error}); replace it (see training/README.md), or remove it"
        ) from error
    landmarks[:, :17] = np.nan
    return WeakLabels(files, in_our_names(names, scores), eyes, landmarks, person, valid)


def in_our_names(names: list[str], scores: Floats) -> Floats:
    """Return the tracker's scores (N, K) as (N, 53) in the order of BLENDSHAPES, rescaled; NaN where it gives none."""
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

"""Package data -> the face template: triangles, texture coordinates and landmarks of every mesh."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from .types import Floats

Indices = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class FaceTemplate:
    """The mesh topology shared by every FaceModel. `facerecon-train prepare` makes it; see NOTICE."""

    triangles: Indices
    """(T, 3) vertex indices, counter-clockwise seen from outside."""
    uv: Floats
    """(V, 2), 0 to 1, origin at the lower left, without overlaps."""
    landmarks: Indices
    """(68,) vertex indices, iBUG order."""
    landmark_positions: Floats
    """(68, 3) mm, head frame: positions of the landmarks on the mean face."""
    symmetry: Indices
    """(V,) index of the vertex mirrored left to right."""
    jaw_candidates: Indices
    """(17, K) vertex indices along the face per jaw point, among which a turned head shows its contour."""
    sha256: str
    """SHA-256 of the package data file. The contract binds a model to it."""

    @property
    def vertex_count(self) -> int:
        """Number of vertices V."""
        return len(self.uv)


@cache
def load_template() -> FaceTemplate:
    """Return the template that ships with the package. It is loaded once."""
    data = files("facerecon_rt").joinpath("template.npz").read_bytes()
    with np.load(BytesIO(data), allow_pickle=False) as arrays:
        return FaceTemplate(
            triangles=arrays["triangles"].astype(np.int32),
            uv=arrays["uv"].astype(np.float32),
            landmarks=arrays["landmarks"].astype(np.int32),
            landmark_positions=arrays["landmark_positions"].astype(np.float32),
            symmetry=arrays["symmetry"].astype(np.int32),
            jaw_candidates=arrays["jaw_candidates"].astype(np.int32),
            sha256=hashlib.sha256(data).hexdigest(),
        )


IBUG_MIRROR: Indices = np.array(
    [
        *(*range(16, -1, -1), *range(26, 16, -1)),  # jaw, brows
        *(*range(27, 31), *range(35, 30, -1)),  # nose
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
        *(*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65),  # lips
    ],
    np.int32,
)
"""(68,) index of the landmark that each landmark becomes in the flipped picture."""

"""A mesh with colours of its own, behind the mesh of a face: eyeballs, and the lining of a mouth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..template import Indices
from ..types import Floats


@dataclass(frozen=True, slots=True, eq=False)
class ColouredMesh:
    """A mesh whose triangles belong to named materials."""

    vertices: Floats
    """(P, 3) mm, head frame."""
    triangles: Indices
    """(T, 3) vertex indices, counter-clockwise seen from where they are looked at."""
    colours: Floats
    """(P, 3) BGR (sRGB), 0 to 1."""
    materials: Mapping[str, Indices]
    """The triangles of each material: "pupil", "iris", "sclera" or "mouth"."""

"""Face -> the whole head: ears, neck and skull behind the face, as the morphable model expects them of this face."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Protocol

import numpy as np

from .errors import UsageError
from .mouth import Mouth, mouth_of
from .template import FaceTemplate, Indices
from .types import Floats

MESH_FORMS = ("face", "head")
HEAD_PATH = Path(__file__).with_name("head.npz")
MODE_STEP_MM = 0.02
"""Step in mm of the modes in the package data file."""
SHARE_STEPS = 4096
"""Number of steps of a share of 1 in the package data file."""
UV_STEPS = 65535
"""Number of steps of a texture coordinate of 1 in the package data file."""


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """The rest of the head behind the face. It shares the vertices of the face's border, so that nothing opens.

    Vertices of a whole head are the V of the face, then the E of the rest. `facerecon-train head` makes it; see NOTICE.
    """

    template: FaceTemplate
    """The mesh of the whole head. Its first V vertices are the face's, so that landmarks have the same indices."""
    face: FaceTemplate
    """The mesh of the face alone, with the texture coordinates that it has in a colour map of the whole head."""
    border: Indices
    """(B,) the face's vertices at its border to the rest."""
    sampled: Indices
    """(S,) the face's vertices from which the rest is predicted."""
    sampled_mean: Floats
    """(S, 3) mm, head frame: their places in the mean face."""
    read: Floats
    """(3 S, M): offsets of sampled vertices in mm to numbers of variance 1."""
    mean: Floats
    """(B + E, 3) mm, head frame: the mean head at the border and behind it."""
    modes: Floats
    """(M, B + E, 3) mm for each of these numbers at 1."""
    follow: Floats
    """(E, B) the share with which a vertex follows the motion of each of the border's vertices."""
    mouth: Mouth | None
    """The lining behind the lips. It is a mesh of its own, beside the V + E vertices."""

    def neutral(self, shape: Floats) -> Floats:
        """Return the whole head (V + E, 3) mm of a neutral face (V, 3) mm, head frame.

        Where the face's border is not as expected, the rest follows it smoothly.
        """
        offsets = (shape[self.sampled] - self.sampled_mean).ravel()
        expected = self.mean + np.tensordot(offsets @ self.read, self.modes, 1)
        count = len(self.border)
        behind = expected[count:] + self.follow @ (shape[self.border] - expected[:count])
        return np.concatenate([shape, behind]).astype(np.float32)

    def expressed(self, shape: Floats, vertices: Floats) -> Floats:
        """Return the whole head (V + E, 3) mm of a face with its expression: neutral and expressed (V, 3) mm."""
        moved = self.moved(vertices - shape)
        return np.asarray(self.neutral(shape) + moved, np.float32)

    def moved(self, moves: Floats) -> Floats:
        """Return the motion (..., V + E, 3) of the whole head that goes with a motion (..., V, 3) of the face."""
        return np.concatenate([moves, self.follow @ moves[..., self.border, :]], -2).astype(np.float32)


class Form(Protocol):
    """The part of a head that a mesh shows: `FaceAlone`, or a whole `Head`."""

    @property
    def template(self) -> FaceTemplate:
        """The mesh."""

    @property
    def face(self) -> FaceTemplate:
        """The mesh of the face alone, with the texture coordinates that it has in a colour map of the mesh."""

    @property
    def mouth(self) -> Mouth | None:
        """The lining of the mouth, which is a mesh of its own; None where the mouth stays a hole."""

    def neutral(self, shape: Floats) -> Floats:
        """Return the mesh (K, 3) mm of a neutral face (V, 3) mm, head frame."""

    def expressed(self, shape: Floats, vertices: Floats) -> Floats:
        """Return the mesh (K, 3) mm of a face with its expression: neutral and expressed (V, 3) mm, head frame."""

    def moved(self, moves: Floats) -> Floats:
        """Return the motion (..., K, 3) of the mesh that goes with a motion (..., V, 3) of the face."""


@dataclass(frozen=True, slots=True, eq=False)
class FaceAlone:
    """A mesh of the face and nothing else."""

    template: FaceTemplate
    """The face's mesh."""

    @property
    def face(self) -> FaceTemplate:
        """The face's mesh."""
        return self.template

    @property
    def mouth(self) -> Mouth | None:
        """None: the mouth stays a hole, through which the background is seen."""
        return None

    def neutral(self, shape: Floats) -> Floats:
        """Return the neutral face (V, 3) as it is."""
        return shape

    def expressed(self, shape: Floats, vertices: Floats) -> Floats:
        """Return the face with its expression (V, 3) as it is."""
        return vertices

    def moved(self, moves: Floats) -> Floats:
        """Return the motion (..., V, 3) as it is."""
        return moves


def mesh_form(name: str, template: FaceTemplate) -> Form:
    """Return what a mesh shows: one of `MESH_FORMS`.

    Raises UsageError for another name, and where the head was made for another template.
    """
    if name not in MESH_FORMS:
        raise UsageError(f"there is no mesh of the {name!r}; choose from {', '.join(MESH_FORMS)}")
    return load_head(template) if name == "head" else FaceAlone(template)


@cache
def load_head(template: FaceTemplate) -> Head:
    """Return the head that ships with the package. It is loaded once.

    Raises UsageError where it was made for another template.
    """
    return read_head(HEAD_PATH, template)


def read_head(path: Path, template: FaceTemplate) -> Head:
    """Read a head that `facerecon-train head` wrote. Raises UsageError where it was made for another template."""
    data = path.read_bytes()
    with np.load(BytesIO(data), allow_pickle=False) as arrays:
        made_for = str(arrays["template_sha256"])
        if made_for != template.sha256:
            raise UsageError(
                f"{path} completes faces of template {made_for:.12}, and these have template {template.sha256:.12}; "
                "build it again with facerecon-train head, or leave out --mesh head"
            )
        face_uv = 0.5 + arrays["face_scale"] * (template.uv - np.float32(0.5))
        whole = replace(
            template,
            triangles=np.vstack([template.triangles, arrays["triangles"].astype(np.int32)]),
            uv=np.vstack([face_uv, arrays["uv"] / np.float32(UV_STEPS)]).astype(np.float32),
            symmetry=np.concatenate([template.symmetry, arrays["symmetry"].astype(np.int32)]),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        return Head(
            template=whole,
            face=replace(template, uv=whole.uv[: template.vertex_count]),
            border=arrays["border"].astype(np.int32),
            sampled=arrays["sampled"].astype(np.int32),
            sampled_mean=arrays["sampled_mean"].astype(np.float32),
            read=arrays["read"].astype(np.float32),
            mean=arrays["mean"].astype(np.float32),
            modes=arrays["modes"] * np.float32(MODE_STEP_MM),
            follow=arrays["follow"] / np.float32(SHARE_STEPS),
            mouth=mouth_of(template),
        )

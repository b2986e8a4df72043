"""ICT-FaceKit files -> a morphable head, and our face template with its mean, identity modes and blendshapes.

ICT-FaceKit is by Li et al., Learning Formation of Physically-Based Face Attributes, CVPR 2020 (MIT licence). It is a
teacher during training; the shipped template and the rest of the head are derived from it.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import DAMAGED_ARRAYS, UsageError
from facerecon_rt.sinks.eyes import CORNERS
from facerecon_rt.types import Floats
from numpy.typing import NDArray
from tqdm import tqdm

from .eyeballs import find_eyeball

Indices = NDArray[np.int32]

HEAD_VERTICES = 26719
FACE_VERTICES = 6706
"""Number of vertices of ICT-FaceKit's narrow face area: vertices 0 to 6705."""
EYEBALLS = (slice(21451, 23021), slice(23021, 24591))
PARTS = {
    "face": (0, 9409),
    "head": (9409, 11248),
    "mouth_socket": (11248, 13294),
    "eye_socket": (13294, 14062),
    "gums": (14062, 17039),
    "teeth": (17039, 21451),
    "eyeballs": (21451, 24591),
}
"""Vertex ranges of the parts of the head that are rendered.

The remaining parts, tear film, occlusion shells and lashes, are left out. As opaque surfaces they would paint every eye
black.
"""
IDENTITY_MODES = 100
WHERE = "run `git clone https://github.com/ICT-VGL/ICT-FaceKit` and give its FaceXModel folder with --face-model"


@dataclass(frozen=True, slots=True, eq=False)
class MorphableHead:
    """The whole head. Vertices are mean + identity weights @ identity + expression weights @ expression."""

    mean: Floats
    """Mean head (26719, 3) mm, head frame (origin midway between the eyeballs)."""
    identity: Floats
    """Identity modes (100, 26719, 3), mm per standard deviation."""
    expression: Floats
    """Blendshapes (53, 26719, 3), mm at full activation, in the order of contract.BLENDSHAPES."""
    triangles: Indices
    """Triangles (T, 3), counter-clockwise seen from outside."""
    landmarks: Indices
    """Vertex indices (68,) of the landmarks, iBUG order."""
    origin: Floats
    """Head frame's origin (3,) in mm, in ICT-FaceKit's own coordinates."""


@dataclass(frozen=True, slots=True, eq=False)
class MorphableFace:
    """The same model on the vertices of our face template."""

    mean: Floats
    """Mean face (V, 3) mm, head frame."""
    identity: Floats
    """Identity modes (100, V, 3), mm per standard deviation."""
    expression: Floats
    """Blendshapes (53, V, 3), mm at full activation."""
    eyes: Floats
    """Eyeballs (2, 2, 3) mm of the left and the right eye.

    For each eye, they are the eyeball's centre relative to the middle between the eye's corners, and the centre of the
    iris at rest relative to the eyeball's centre.
    """


def read_head(path: Path) -> MorphableHead:
    """Read a packed `.npz`, or a FaceXModel folder as its authors lay it out, in millimetres and the head frame.

    Raises UsageError with the name of a missing or wrong file, and where to get it.
    """
    if path.is_dir():
        nested = path / "FaceXModel"
        head = _read_folder(nested if nested.is_dir() else path)
    elif path.is_file():
        head = _read_npz(path)
    else:
        raise UsageError(f"there is no face model at {path}; {WHERE}")
    origin = np.mean([head.mean[part].mean(0) for part in EYEBALLS], axis=0)
    return replace(head, mean=head.mean - origin, origin=np.asarray(origin, np.float32))


def _read_npz(path: Path) -> MorphableHead:
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path} is not an .npz file; {WHERE}")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            missing = {"mean", "identity", "expression", "expression_names", "quads", "landmarks68"} - set(arrays)
            if missing:
                raise UsageError(f"{path} lacks the arrays {sorted(missing)}; it is not a packed ICT-FaceKit; {WHERE}")
            if tuple(str(name) for name in arrays["expression_names"]) != BLENDSHAPES:
                raise UsageError(f"{path}: its expression_names are not ICT-FaceKit's 53; {WHERE}")
            head = MorphableHead(
                arrays["mean"].astype(np.float32),
                arrays["identity"].astype(np.float32),
                arrays["expression"].astype(np.float32),
                _triangles(arrays["quads"]),
                arrays["landmarks68"].astype(np.int32),
                np.zeros(3, np.float32),
            )
    except DAMAGED_ARRAYS as error:
        raise UsageError(f"{path} is not a readable packed ICT-FaceKit ({error}); {WHERE}") from error
    _check(path, head)
    return head


def _check(path: Path, head: MorphableHead) -> None:
    shapes = {
        "mean": (head.mean.shape, (HEAD_VERTICES, 3)),
        "identity": (head.identity.shape, (IDENTITY_MODES, HEAD_VERTICES, 3)),
        "expression": (head.expression.shape, (len(BLENDSHAPES), HEAD_VERTICES, 3)),
        "landmarks": (head.landmarks.shape, (68,)),
    }
    for name, (shape, expected) in shapes.items():
        if shape != expected:
            raise UsageError(f"{path}: {name} has the shape {shape}, but ICT-FaceKit has {expected}; {WHERE}")
    for indices in (head.triangles, head.landmarks):
        if indices.min() < 0 or indices.max() >= HEAD_VERTICES:
            raise UsageError(f"{path} names vertices that do not exist; {WHERE}")


def _read_folder(folder: Path) -> MorphableHead:
    names = ["generic_neutral_mesh", *(f"identity{i:03}" for i in range(IDENTITY_MODES)), *BLENDSHAPES]
    indices_path = folder / "vertex_indices.json"
    files = [indices_path, *(folder / f"{name}.obj" for name in names)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UsageError(f"{folder} lacks {missing[0]}{more}; {WHERE}")
    landmarks = _read_landmarks(indices_path)
    mean = _read_obj_vertices(files[1])
    triangles = _triangles(_read_obj_quads(files[1]))
    offsets = [
        _read_obj_vertices(file) - mean
        for file in tqdm(files[2:], desc="reading ICT-FaceKit", unit="mesh", leave=False)
    ]
    head = MorphableHead(
        mean,
        np.stack(offsets[:IDENTITY_MODES]),
        np.stack(offsets[IDENTITY_MODES:]),
        triangles,
        landmarks,
        np.zeros(3, np.float32),
    )
    _check(folder, head)
    return head


def _read_landmarks(path: Path) -> Indices:
    """Return the vertex indices (68,) of vertex_indices.json, iBUG order."""
    try:
        return np.array(json.loads(path.read_text())["idx_to_landmark_verts"], np.int32)
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} lists no landmark vertices ({error}); {WHERE}") from error


def _read_obj_vertices(path: Path) -> Floats:
    """Read the vertices (26719, 3) in mm, in the order of the file, which a mesh library would not keep.

    The files are in centimetres.
    """
    try:
        rows = [line.split()[1:4] for line in path.read_text().splitlines() if line.startswith("v ")]
        vertices = np.array(rows, np.float32).reshape(len(rows), 3)
    except ValueError as error:
        raise UsageError(f"{path} is not a readable OBJ file ({error}); {WHERE}") from error
    if len(rows) != HEAD_VERTICES:
        raise UsageError(f"{path} has {len(rows)} vertices, but ICT-FaceKit has {HEAD_VERTICES}; {WHERE}")
    return vertices * 10.0


def _read_obj_quads(path: Path) -> Indices:
    """Read the faces as (F, 4) vertex indices from 0, with -1 in the fourth column of a triangle."""
    faces = []
    for line in path.read_text().splitlines():
        if line.startswith("f "):
            corners = [int(corner.split("/")[0]) - 1 for corner in line.split()[1:]]
            faces.append(corners if len(corners) == 4 else [*corners, -1])
    if not faces:
        raise UsageError(f"{path} has no faces; {WHERE}")
    return np.array(faces, np.int32)


def _triangles(quads: NDArray[np.int32]) -> Indices:
    second = quads[quads[:, 3] >= 0][:, [0, 2, 3]]
    return np.vstack([quads[:, :3], second]).astype(np.int32)


def face_from_head(head: MorphableHead, source_vertices: Indices, source_weights: Floats) -> MorphableFace:
    """Transfer mean, modes and blendshapes to the template by barycentric coordinates.

    source_vertices (V, 3) are head vertex indices, and source_weights (V, 3) have rows with sum 1.
    """

    return MorphableFace(
        carried(head.mean, source_vertices, source_weights),
        carried(head.identity, source_vertices, source_weights),
        carried(head.expression, source_vertices, source_weights),
        _eyes(head),
    )


def carried(array: Floats, source_vertices: Indices, source_weights: NDArray[np.floating]) -> Floats:
    """Transfer values (..., H, 3) of the head's vertices to places (K,), by barycentric coordinates (K, 3)."""
    return np.asarray((array[..., source_vertices, :] * source_weights[..., None]).sum(-2), np.float32)


def _eyes(head: MorphableHead) -> Floats:
    eyes = []
    for part, corners in zip(EYEBALLS, CORNERS, strict=True):
        eyeball = find_eyeball(head.mean, np.arange(part.start, part.stop))
        middle = head.mean[head.landmarks[list(corners)]].mean(0)
        eyes.append([eyeball.centre(head.mean) - middle, eyeball.axis * eyeball.iris_distance])
    return np.array(eyes, np.float32)

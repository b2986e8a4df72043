"""A neutral face and its gaze -> eyeballs with pupil and iris."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from ..template import FaceTemplate, Indices
from ..types import Floats
from .coloured import ColouredMesh

EYE_RADIUS_MM = 14.0
"""Radius of an eyeball. ICT-FaceKit's are larger by 1 mm, so that they touch the lids of its finer mesh."""
CORNERS = ((45, 42), (36, 39))
"""iBUG landmarks of the outer and the inner corner of the subject's left and right eye."""
CENTRE_MM = np.array([[-0.16, 2.65, -8.81], [0.16, 2.65, -8.81]], np.float32)
"""Centres of both eyes in ICT-FaceKit's mean head, counted from the middle between the eye's corners."""
PUPIL_DEG, IRIS_DEG = 8.6, 25.8
"""Angles at the centre of the eye, from its axis to the rims of pupil and iris. Their radii are 2.1 and 6.1 mm."""
RINGS_DEG = (4.3, PUPIL_DEG, 17.2, IRIS_DEG, 45.0, 65.0, 90.0, 115.0, 140.0, 160.0)
SPOKES = 24
EYE_COLOURS = {"pupil": (0.02, 0.02, 0.02), "iris": (0.36, 0.24, 0.15), "sclera": (0.93, 0.92, 0.90)}
"""Colours as sRGB, 0 to 1."""


def eyes_of(shape: Floats, gaze: Floats | None, template: FaceTemplate) -> ColouredMesh:
    """Return the eyeballs of a neutral face (V, 3) mm, those of the left eye first.

    `gaze`: unit vectors (2, 3), head frame, of the left and the right eye; None for eyes that look straight ahead.
    """
    points, parts, colours = _painted_eyeball()
    directions = np.array([[0, 0, 1], [0, 0, 1]], np.float32) if gaze is None else gaze
    vertices = [
        eye_centre(shape, template, side) + EYE_RADIUS_MM * points @ _turn(direction).T
        for side, direction in enumerate(directions)
    ]
    both = {name: np.vstack([part, part + len(points)]).astype(np.int32) for name, part in parts.items()}
    return ColouredMesh(
        np.vstack(vertices).astype(np.float32), np.vstack(list(both.values())), np.vstack([colours, colours]), both
    )


def _turn(direction: Floats) -> Floats:
    """Return a rotation (3, 3) that turns +z to a direction (3,), and keeps x level."""
    x = np.cross((0.0, 1.0, 0.0), direction)
    x /= max(float(np.linalg.norm(x)), 1e-9)
    return np.stack([x, np.cross(direction, x), direction], 1).astype(np.float32)


@cache
def _painted_eyeball() -> tuple[Floats, dict[str, Indices], Floats]:
    """Return `eyeball` with vertices (E, 3) of their own for each part, triangles (T, 3) by part, and colours (E, 3)
    BGR."""
    points, parts = eyeball()
    vertices, colours, count = [], [], 0
    triangles: dict[str, Indices] = {}
    for part, corners in parts.items():
        used, local = np.unique(corners, return_inverse=True)
        vertices.append(points[used])
        triangles[part] = (local.reshape(-1, 3) + count).astype(np.int32)
        colours.append(np.tile(np.array(EYE_COLOURS[part][::-1], np.float32), (len(used), 1)))
        count += len(used)
    return np.vstack(vertices), triangles, np.vstack(colours)


def eye_centre(shape: Floats, template: FaceTemplate, side: int) -> Floats:
    """Return the centre (3,) of an eye in mm, head frame, from the corners of the eye.

    `shape`: (V, 3) mm, the neutral face. `side`: 0 for the subject's left eye, 1 for the right.
    """
    corners = shape[template.landmarks[list(CORNERS[side])]]
    return np.asarray(corners.mean(0) + CENTRE_MM[side], np.float32)


@cache
def eyeball() -> tuple[Floats, dict[str, NDArray[np.int32]]]:
    """Return a unit sphere that looks along +z: points (K, 3), and the triangles (T, 3) of pupil, iris and sclera."""
    polar, around = np.meshgrid(np.radians(RINGS_DEG), 2 * np.pi * np.arange(SPOKES) / SPOKES, indexing="ij")
    rings = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], -1)
    points = np.vstack([rings.reshape(-1, 3), [[0, 0, 1], [0, 0, -1]]]).astype(np.float32)
    here, front = np.arange(SPOKES), len(points) - 2
    right = np.roll(here, -1)
    parts: dict[str, list[NDArray[np.int64]]] = {part: [] for part in EYE_COLOURS}
    parts["pupil"].append(np.stack([np.full(SPOKES, front), here, right], 1))
    for ring, outer in enumerate(RINGS_DEG[1:]):
        part = "pupil" if outer <= PUPIL_DEG else "iris" if outer <= IRIS_DEG else "sclera"
        near, far = ring * SPOKES, (ring + 1) * SPOKES
        parts[part].append(np.stack([here + near, here + far, right + near], 1))
        parts[part].append(np.stack([right + near, here + far, right + far], 1))
    rim = (len(RINGS_DEG) - 1) * SPOKES
    parts["sclera"].append(np.stack([here + rim, np.full(SPOKES, front + 1), right + rim], 1))
    return points, {part: np.vstack(triangles).astype(np.int32) for part, triangles in parts.items()}

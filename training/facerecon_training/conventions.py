"""Landmark vertices of the morphable face -> the places where annotators put the same points.

ICT-FaceKit's landmark vertices lie above brows and below the base of the nose, by up to 8 mm. Annotators of 300-W point
at the upper half of the brow and at the base of the nose itself. A network that learns the vertices of rendered faces
and the annotations of photographs as the same points would learn a compromise, and would bend faces to reach it.

The offsets were measured with MediaPipe FaceMesh on rendered people, near the front:

    mediapipe_mesh.py runs/clean/people/held-out/images.npy mesh.npz
    measure_conventions.py runs/clean mesh.npz
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
from facerecon_rt.template import IBUG_MIRROR, load_template
from facerecon_rt.types import Floats

from .rendered.morphable import MorphableFace

OFFSETS = Path(__file__).with_name("landmark_offsets.json")
"""Offsets of the 68 points in mm in the head frame, x and y."""
BROWS, BRIDGE, EYES = slice(17, 27), slice(27, 31), slice(36, 48)
"""Points along brows, down the bridge of the nose, and around the eyes."""
NEAR_FRONT = 0.9
"""Least cosine between the direction out of the face and that to the viewer, of faces that are measured."""
FURTHEST = 0.12
"""Largest mean distance, in distances of the outer eye corners, between vertices and points of a face that counts."""


@cache
def annotated_offsets() -> Floats:
    """Return the offsets (68, 3) in mm, head frame, from landmark vertices to annotated points; 0 for the jaw."""
    across = np.array(json.loads(OFFSETS.read_text())["offset_mm"], np.float32)
    return np.pad(across, ((0, 0), (0, 1)))


def measured_offsets(
    points: Floats, identity: Floats, expression: Floats, camera: Floats, face: MorphableFace
) -> Floats:
    """Return offsets (68, 2) in mm from N rendered people: annotated `points` (N, 68, 2) pixels, identity (N, 100),
    expression (N, 53) and canvas_from_head `camera` (N, 3, 4).

    Each offset is the median over faces near the front, made symmetric. Jaw points have none, because they lie on the
    visible contour. Points of brows and bridge have none along the line that they stand on, where FaceMesh spaces its
    points in its own way. Points of eyes have none, because vertices lie on the lids.
    """
    rows = load_template().landmarks
    vertices = face.mean[rows] + np.tensordot(identity, face.identity[:, rows], 1)
    vertices = vertices + np.tensordot(expression, face.expression[:, rows], 1)
    seen = np.einsum("nij,nkj->nki", camera[:, :2, :3], vertices) + camera[:, None, :2, 3]
    eyes = np.linalg.norm(seen[:, 36] - seen[:, 45], axis=1)
    far = np.linalg.norm(points - seen, axis=2)[:, 17:].mean(1) / eyes
    towards_viewer = np.abs(camera[:, 2, 2]) / np.cbrt(np.linalg.det(camera[:, :, :3]))
    used = (towards_viewer > NEAR_FRONT) & (far < FURTHEST)
    in_head = np.linalg.inv(camera[used, :2, :2])
    offsets = np.median(np.einsum("nij,nkj->nki", in_head, (points - seen)[used]), axis=0)
    offsets = (offsets + offsets[IBUG_MIRROR] * [-1, 1]) / 2
    offsets[:17] = 0
    offsets[BROWS, 0] = 0
    offsets[BRIDGE, 1] = 0
    offsets[EYES] = 0
    return np.asarray(offsets, np.float32)

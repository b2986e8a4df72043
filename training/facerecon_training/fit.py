"""A photograph's landmarks -> the morphable head that fits them, without a network. Skin colours start from this
fit."""

from __future__ import annotations

import numpy as np
from facerecon_rt.pose import fit_camera
from facerecon_rt.types import Floats

from .rendered.render import HeadGeometry

IDENTITY_MODES_USED = 40
PRIOR_PX = 0.8
"""Landmark error in canvas pixels that one standard deviation of identity, or full expression, must reduce."""


def fit_head(head: HeadGeometry, landmarks: Floats, rounds: int = 4) -> tuple[Floats, Floats, Floats]:
    """Fit a head to landmarks (68, 2), canvas pixels, NaN where unknown.

    Returns identity (100,), expression (53,) and image_from_head (3, 4). The fit alternates the camera and a ridge
    regression of identity and expression (Huber et al., A multiresolution 3D morphable face model, 2016, section 3.3).
    """
    known = np.flatnonzero(np.isfinite(landmarks[:, 0]))
    vertices = head.landmarks[known]
    rows = (vertices[:, None] * 3 + np.arange(3)).ravel()
    count = IDENTITY_MODES_USED
    basis = np.vstack([head.identity[:count, rows], head.expression[:, rows]]).reshape(-1, len(known), 3)
    weights = np.zeros(len(basis), np.float32)
    target = landmarks[known]
    camera = np.zeros((3, 4), np.float32)
    for _ in range(rounds):
        points = head.mean[vertices] + np.tensordot(weights, basis, 1)
        camera = fit_camera(points, target)
        design = (basis @ camera[:2, :3].T).reshape(len(basis), -1).T
        rest = (target - head.mean[vertices] @ camera[:2, :3].T - camera[:2, 3]).ravel()
        weights = np.linalg.solve(design.T @ design + PRIOR_PX**2 * np.eye(len(basis)), design.T @ rest).astype(
            np.float32
        )
        weights[count:] = np.clip(weights[count:], 0, 1)
    identity = np.zeros(len(head.identity), np.float32)
    identity[:count] = np.clip(weights[:count], -2.5, 2.5)
    return identity, weights[count:], camera

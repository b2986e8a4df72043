"""Triangles -> pixels: which triangle a pixel shows, and values of the vertices between them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..template import Indices
from ..types import Floats

FRACTION_BITS = 4
"""Number of fractional bits of polygon coordinates."""


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """The pixels that a mesh covers."""

    rows: NDArray[np.intp]
    """(P,) row of each covered pixel."""
    columns: NDArray[np.intp]
    """(P,) column of each covered pixel."""
    triangle: NDArray[np.intp]
    """(P,) index of the triangle that each covered pixel shows."""
    corners: Indices
    """(P, 3) vertices of that triangle."""
    weights: Floats
    """(P, 3) weights of these vertices at the centre of the pixel; they sum to 1."""

    def between(self, values: Floats) -> Floats:
        """Return values (V, K) of the vertices, interpolated at the covered pixels, as (P, K)."""
        return np.asarray(np.einsum("pc,pck->pk", self.weights, values[self.corners]), np.float32)


def rasterize(points: Floats, triangles: Indices, size: tuple[int, int]) -> Raster:
    """Draw triangles (T, 3) of points (V, 2) in pixels, in their order: later ones cover earlier ones.

    `size`: (width, height). A pixel at the border of the mesh counts as covered where the mesh touches it. Works with
    every version of OpenCV.
    """
    width, height = size
    shown = np.zeros((height, width), np.float32)  # OpenCV draws no larger integers than 255 in every version
    fixed = np.rint(points * 2**FRACTION_BITS).astype(np.int32)
    for number, outline in enumerate(fixed[triangles], 1):
        cv2.fillConvexPoly(shown, outline, number, cv2.LINE_8, FRACTION_BITS)
    rows, columns = np.nonzero(shown)
    triangle = shown[rows, columns].astype(np.intp) - 1
    corners = triangles[triangle]
    a, b, c = (points[corners[:, corner]].astype(np.float64) for corner in range(3))
    pixels = np.stack([columns, rows], 1) - a
    ab, ac = b - a, c - a
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    area[np.abs(area) < 1e-9] = np.inf  # the first corner stands for a triangle without area
    second = (pixels[:, 0] * ac[:, 1] - pixels[:, 1] * ac[:, 0]) / area
    third = (ab[:, 0] * pixels[:, 1] - ab[:, 1] * pixels[:, 0]) / area
    # Border pixels of a narrow triangle would otherwise lie far outside it.
    weights = np.clip(np.stack([1 - second - third, second, third], 1), 0.0, 1.0)
    weights /= weights.sum(1, keepdims=True)
    return Raster(rows, columns, triangle, corners, weights.astype(np.float32))


def front_facing(vertices_frame: Floats, triangles: Indices) -> Indices:
    """Select the triangles (F, 3) whose outer side faces the viewer, from vertices (V, 3) and triangles (T, 3)."""
    a, b, c = (vertices_frame[triangles[:, corner], :2] for corner in range(3))
    u, v = b - a, c - a
    return triangles[u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0] < 0]


def far_first(vertices_frame: Floats, triangles: Indices) -> Indices:
    """Return the triangles (T, 3) in the order of their depth, the far ones first. `vertices_frame`: (V, 3) pixels,
    with depth away from the viewer."""
    return triangles[np.argsort(-vertices_frame[triangles, 2].mean(axis=1), kind="stable")]

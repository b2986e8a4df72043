"""A mesh -> a shaded picture, by OpenCV's software rasteriser with soft studio light, without a GPU."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..pose import VIEWER_FROM_FRAME
from ..template import Indices
from ..types import Floats, Image
from .raster import FRACTION_BITS, far_first, front_facing

CLAY = (0.88, 0.91, 0.94)
"""Colour of the mesh where no vertex colours are given, as BGR, 0 to 1."""
SUPERSAMPLED_PIXELS = 900 * 900
"""Maximum picture size in pixels for rendering at twice the size, which smooths outlines. Larger pictures are smooth
enough."""

Mask = NDArray[np.uint8]


def vertex_normals(vertices: ArrayLike, triangles: Indices) -> Floats:
    """Return unit normals (V, 3) in the vertices' frame, out of the face, weighted by triangle area. `vertices`: (V,
    3); `triangles`: (T, 3)."""
    points = np.asarray(vertices, np.float32)
    a, b, c = (points[triangles[:, corner]] for corner in range(3))
    weighted = np.cross(b - a, c - a)
    normals = np.zeros_like(points)
    for corner in range(3):
        np.add.at(normals, triangles[:, corner], weighted)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return normals


def render_mesh(
    vertices_frame: ArrayLike, triangles: Indices, size: tuple[int, int], colors: ArrayLike | None = None
) -> tuple[Image, Mask]:
    """Shade a mesh that lies in the frame.

    `vertices_frame`: (V, 3) frame pixels, with depth away from the viewer. `triangles`: (T, 3); those seen from behind
    are left out. `size`: (width, height) of the picture in pixels; the mesh is cut at its border. `colors`: (V, 3) BGR,
    0 to 1, before shading, by default clay.

    Returns the picture (H, W, 3) uint8 BGR and its coverage (H, W) uint8, 0 outside the mesh and 255 inside.
    """
    vertices = np.asarray(vertices_frame, np.float32)
    width, height = size
    times = 2 if width * height <= SUPERSAMPLED_PIXELS else 1
    albedo = np.asarray(CLAY if colors is None else colors, np.float32)
    shaded = light(vertex_normals(vertices, triangles) @ VIEWER_FROM_FRAME.astype(np.float32)) * albedo
    corners = (vertices[:, :2] + 0.5) * times
    rasterize = _rasterize if hasattr(cv2, "triangleRasterize") else _paint
    color, inside = rasterize(corners, vertices[:, 2], triangles, shaded, (width * times, height * times))
    if times > 1:
        color = _halve(color)
        inside = _halve(inside)
        # Pixels of the outline hold the mesh's colour only for their covered part.
        color /= np.maximum(inside, 1e-3)[..., None]
    return _bytes(color), _bytes(inside)


def light(normals: Floats) -> Floats:
    """Return the BGR light (N, 3) that surfaces with unit normals (N, 3) receive. The normals are in viewer axes (x
    right, y up, z towards the viewer).

    The light consists of a warm key light from the upper left, a cool fill from the right, sky and ground, and a rim
    light on surfaces that turn away. The rim light makes nose and cheeks stand out.
    """
    key = _lambert(normals, (-0.5, 0.55, 0.75))
    fill = _lambert(normals, (0.8, 0.05, 0.45))
    sky = 0.5 + 0.5 * normals[:, 1:2]
    facing = np.clip(normals[:, 2:3], 0.0, 1.0)
    rim = (1.0 - facing) ** 3 * (0.35 + 0.65 * sky)
    half = np.array((-0.29, 0.32, 0.90), np.float32)
    gloss = np.clip(normals @ half, 0.0, 1.0)[:, None] ** 30
    bgr = (
        key * np.array((0.60, 0.62, 0.64), np.float32)
        + fill * np.array((0.24, 0.20, 0.17), np.float32)
        + sky * np.array((0.22, 0.21, 0.20), np.float32)
        + rim * np.array((0.26, 0.24, 0.22), np.float32)
        + gloss * 0.14
        + 0.13
    )
    return np.minimum(np.asarray(bgr, np.float32), np.float32(1.0 / max(CLAY)))


def _halve(picture: Floats) -> Floats:
    return np.asarray(cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.float32)


def _bytes(picture: Floats) -> NDArray[np.uint8]:
    return np.asarray(cv2.convertScaleAbs(picture, alpha=255.0), np.uint8)


def _lambert(normals: Floats, towards: tuple[float, float, float]) -> Floats:
    direction = np.array(towards, np.float32)
    cosine: Floats = normals @ (direction / np.linalg.norm(direction))
    return np.clip(cosine, 0.0, 1.0)[:, None]


def _rasterize(
    corners: Floats, depth: Floats, triangles: Indices, colors: Floats, size: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Return colours (H, W, 3) and coverage (H, W) of 0 or 1, float32.

    `corners`: (V, 2) from the upper left corner of the picture, with a pixel width of 1. cv2.triangleRasterize supports
    only perspective cameras. Each vertex is therefore moved along its viewing ray to where such a camera, looking down
    -z with y up and a field of view of 90 degrees in height, sees it at its exact place. The camera is distant, so that
    depths stay in proportion.
    """
    width, height = size
    depth_range = max(float(np.ptp(depth)), 1e-3)
    distance = 10.0 * depth_range + (depth - depth.mean())
    right = (2.0 * corners[:, 0] - width) / height
    up = 1.0 - 2.0 * corners[:, 1] / height
    camera = np.stack([right * distance, up * distance, -distance], axis=1).astype(np.float32)
    near, far = 8.5 * depth_range, 11.5 * depth_range
    color = np.zeros((height, width, 3), np.float32)
    depths = np.full((height, width), far, np.float32)
    # The default draws triangles that are counter-clockwise to the camera, which is how this mesh looks from outside.
    cv2.triangleRasterize(camera, triangles, colors, color, depths, np.eye(4), math.pi / 2, near, far)
    return color, (depths < 11.25 * depth_range).astype(np.float32)


def _paint(
    corners: Floats, depth: Floats, triangles: Indices, colors: Floats, size: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Draw as `_rasterize` does, with OpenCV 4 of JetPack: far triangles first, each in one colour. Slower."""
    width, height = size
    points = np.column_stack([corners, depth])
    seen = far_first(points, front_facing(points, triangles))
    color, inside = np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.float32)
    fixed = np.rint((corners - 0.5) * 2**FRACTION_BITS).astype(np.int32)
    for outline, shade in zip(fixed[seen], colors[seen].mean(axis=1).tolist(), strict=True):
        cv2.fillConvexPoly(color, outline, shade, cv2.LINE_8, FRACTION_BITS)
        cv2.fillConvexPoly(inside, outline, 1.0, cv2.LINE_8, FRACTION_BITS)
    return color, inside

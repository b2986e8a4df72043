"""Identity, expression, camera, skin and light -> a rendered face with exactly known geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from facerecon_rt.align import CROP_CENTRE_MM, CROP_SIDE_MM
from facerecon_rt.pose import VIEWER_FROM_FRAME, rotation_from_euler
from facerecon_rt.types import Floats, Image
from numba import njit
from numpy.typing import NDArray

from .eyeballs import find_eyeball
from .morphable import PARTS, MorphableHead

Doubles = NDArray[np.float64]
FIELD_OF_VIEW = 0.01
"""Field of view in radians. OpenCV's rasteriser is perspective; at this distance it is orthographic to a few
micrometres."""


@dataclass(frozen=True, slots=True, eq=False)
class RenderedFace:
    """A picture of a head with its truth."""

    image: Image
    """Picture (S, S, 3) uint8 BGR."""
    identity: Floats
    """Identity (100,) in standard deviations."""
    expression: Floats
    """Blendshape weights (53,), 0..1."""
    gaze_deg: Floats
    """Yaw and pitch (2, 2) of the left and the right eye in the head."""
    image_from_head: Floats
    """Scaled-orthographic camera (3, 4): pixels and relative depth."""


class HeadGeometry:
    """The rendered part of the morphable head, with fast sums and normals."""

    def __init__(self, head: MorphableHead) -> None:
        ranges = [np.arange(*PARTS[name]) for name in PARTS]
        kept = np.concatenate(ranges)
        local = np.full(len(head.mean), -1, np.int32)
        local[kept] = np.arange(len(kept))
        triangles = local[head.triangles]
        self.triangles = triangles[(triangles >= 0).all(1)]
        self.parts = {name: local[indices] for name, indices in zip(PARTS, ranges, strict=True)}
        self.mean = head.mean[kept]
        self.identity = head.identity[:, kept].reshape(len(head.identity), -1)
        self.expression = head.expression[:, kept].reshape(len(head.expression), -1)
        self.landmarks = local[head.landmarks]
        self.origin = head.origin
        self.eyeballs = tuple(find_eyeball(self.mean, rows) for rows in np.array_split(self.parts["eyeballs"], 2))
        part_of = np.concatenate([np.full(len(indices), k) for k, indices in enumerate(ranges)])
        self._part_of_triangle = part_of[self.triangles].max(1)
        self._triangles_of: dict[tuple[str, ...], NDArray[np.int32]] = {}
        count = len(kept)
        self.eyeball_triangles = tuple(_within(self.triangles, eyeball.vertices, count) for eyeball in self.eyeballs)
        """Triangles (T, 3) of each eyeball, in rows of the eyeball."""

    def neutral(self, identity: Floats) -> Floats:
        """Return the neutral head (H, 3) mm of an identity (100,)."""
        return self.mean + (identity @ self.identity).reshape(-1, 3)

    def expressed(self, neutral: Floats, expression: Floats) -> Floats:
        """Return the head (H, 3) mm with an expression (53,) on a neutral head (H, 3)."""
        active = np.flatnonzero(expression)
        return neutral + (expression[active] @ self.expression[active]).reshape(-1, 3)

    def normals(self, vertices: Floats) -> Floats:
        """Return unit normals (H, 3), outwards, of vertices (H, 3)."""
        return mesh_normals(vertices, self.triangles)

    def triangles_of(self, parts: Sequence[str]) -> NDArray[np.int32]:
        """Return the triangles (T, 3) of some parts, in rows of the whole head."""
        key = tuple(parts)
        if key not in self._triangles_of:
            wanted = [list(PARTS).index(part) for part in parts]
            self._triangles_of[key] = np.ascontiguousarray(self.triangles[np.isin(self._part_of_triangle, wanted)])
        return self._triangles_of[key]


def _within(triangles: NDArray[np.int32], rows: NDArray[np.integer], count: int) -> NDArray[np.int32]:
    """Return the triangles (T, 3) whose corners are all among `rows`, counted within these rows.

    The triangles index `count` vertices.
    """
    local = np.full(count, -1, np.int32)
    local[rows] = np.arange(len(rows))
    inside = local[triangles]
    return np.ascontiguousarray(inside[(inside >= 0).all(1)])


def mesh_normals(vertices: Floats, triangles: NDArray[np.int32]) -> Floats:
    """Return unit normals (K, 3), weighted by area, of vertices (K, 3) and counter-clockwise triangles (T, 3)."""
    return np.asarray(_normals(np.asarray(vertices, np.float32), np.ascontiguousarray(triangles)), np.float32)


@njit(cache=True)
def _normals(vertices, triangles):  # type: ignore[no-untyped-def]
    out = np.zeros_like(vertices)
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, az = vertices[a, 0], vertices[a, 1], vertices[a, 2]
        ux, uy, uz = vertices[b, 0] - ax, vertices[b, 1] - ay, vertices[b, 2] - az
        vx, vy, vz = vertices[c, 0] - ax, vertices[c, 1] - ay, vertices[c, 2] - az
        x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in (a, b, c):
            out[k, 0] += x
            out[k, 1] += y
            out[k, 2] += z
    for k in range(len(out)):
        x, y, z = out[k, 0], out[k, 1], out[k, 2]
        scale = 1 / max(np.sqrt(x * x + y * y + z * z), 1e-9)
        out[k, 0], out[k, 1], out[k, 2] = x * scale, y * scale, z * scale
    return out


def camera_for_crop(pitch: float, yaw: float, roll: float, size: int, side: float) -> Floats:
    """Return the camera (3, 4) for Euler angles in degrees.

    It puts CROP_CENTRE_MM in the centre of a size x size picture, and CROP_SIDE_MM spans `side` pixels.
    """
    linear = side / CROP_SIDE_MM * rotation_from_euler(pitch, yaw, roll)
    middle = np.array([(size - 1) / 2, (size - 1) / 2, 0.0])
    return np.column_stack([linear, middle - linear @ np.array(CROP_CENTRE_MM)]).astype(np.float32)


def rasterise(
    vertices: Floats, triangles: NDArray[np.int32], colours: Floats, image_from_head: Floats, background: Floats
) -> Floats:
    """Render the head in front of a background (S, S, 3), and return the picture (S, S, 3).

    Vertices are (H, 3) mm, triangles (T, 3) and linear colours (H, 3). The picture is rendered at twice the size and
    averaged against jagged edges.
    """
    size = len(background)
    points = vertices @ image_from_head[:, :3].T + image_from_head[:, 3]
    # OpenCV's camera looks along -z with y up. One world unit is one pixel where the view spans the image.
    distance = size / np.tan(FIELD_OF_VIEW / 2)
    centred = np.empty_like(points)
    centred[:, 0] = 2 * (points[:, 0] + 0.5) - size
    centred[:, 1] = size - 2 * (points[:, 1] + 0.5)
    centred[:, 2] = -2 * points[:, 2] - distance
    colour = cv2.resize(background, (2 * size, 2 * size), interpolation=cv2.INTER_LINEAR)
    near, far = distance - 4 * size, distance + 4 * size
    depth = np.full((2 * size, 2 * size), far, np.float32)
    cv2.triangleRasterize(centred, triangles, colours, colour, depth, np.eye(4), FIELD_OF_VIEW, near, far)
    return np.asarray(cv2.resize(colour, (size, size), interpolation=cv2.INTER_AREA), np.float32)


def irradiance_terms(coefficients: Doubles) -> Doubles:
    """Return factors (9, 3) of 1, y, z, x, xy, yz, 3z^2-1, xz and x^2-y^2 from spherical-harmonics radiance (9, 3).

    Their sum at a normal is the irradiance over pi.
    """
    return np.asarray((_BASIS_FACTORS * _COSINE_LOBE / np.pi)[:, None] * coefficients)


def irradiance(coefficients: Doubles, normals: Floats) -> Floats:
    """Return irradiance over pi, (H, 3), from spherical-harmonics radiance (9, 3) at normals (H, 3) in viewer axes.

    Source: Ramamoorthi and Hanrahan, An efficient representation for irradiance environment maps, SIGGRAPH 2001.
    """
    return np.asarray((sh_basis(normals) * _COSINE_LOBE) @ coefficients / np.pi, np.float32)


_BASIS_FACTORS: Doubles = np.array(
    [0.282095, 0.488603, 0.488603, 0.488603, 1.092548, 1.092548, 0.315392, 1.092548, 0.546274]
)
_COSINE_LOBE: Doubles = np.pi * np.array([1.0, 2 / 3, 2 / 3, 2 / 3, 1 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 4])


def sh_basis(directions: NDArray[np.floating]) -> Doubles:
    """Return real spherical harmonics of degrees 0 to 2, (K, 9), at unit vectors (K, 3)."""
    x, y, z = np.asarray(directions, np.float64).T
    return np.stack(
        [
            np.full_like(x, 0.282095),
            0.488603 * y,
            0.488603 * z,
            0.488603 * x,
            1.092548 * x * y,
            1.092548 * y * z,
            0.315392 * (3 * z * z - 1),
            1.092548 * x * z,
            0.546274 * (x * x - y * y),
        ],
        1,
    )


def radiance_from_panorama(panorama: Floats) -> Doubles:
    """Return spherical-harmonics coefficients (9, 3), y up, of an equirectangular panorama (h, w, 3).

    The mean radiance is scaled to 1.
    """
    height, width = panorama.shape[:2]
    polar = (np.arange(height) + 0.5) / height * np.pi
    azimuth = (np.arange(width) + 0.5) / width * 2 * np.pi
    sine = np.sin(polar)[:, None]
    directions = np.stack(
        [sine * np.sin(azimuth), np.cos(polar)[:, None] * np.ones(width), sine * np.cos(azimuth)], -1
    ).reshape(-1, 3)
    solid = (sine * np.ones(width)).ravel() * (np.pi / height) * (2 * np.pi / width)
    # Values above 20 times the median are clipped, because the sun would outshine everything else.
    light = np.minimum(panorama.reshape(-1, 3), 20 * np.median(panorama))
    coefficients = sh_basis(directions).T @ (light * solid[:, None])
    return np.asarray(coefficients / (coefficients[0].mean() * 0.282095))


def turn_light(coefficients: Doubles, rotation: Doubles) -> Doubles:
    """Return coefficients (9, 3) of light turned by a rotation (3, 3), refitted at fixed directions."""
    points = _FIBONACCI
    values = sh_basis(points @ rotation) @ coefficients
    return np.asarray(np.linalg.lstsq(sh_basis(points), values, rcond=None)[0])


def sphere_directions(count: int) -> Doubles:
    """Return unit vectors (count, 3), evenly spread (a Fibonacci lattice)."""
    i = np.arange(count) + 0.5
    polar, azimuth = np.arccos(1 - 2 * i / count), np.pi * (1 + 5**0.5) * i
    return np.stack([np.sin(polar) * np.cos(azimuth), np.cos(polar), np.sin(polar) * np.sin(azimuth)], 1)


_FIBONACCI = sphere_directions(100)


def shade(
    albedo: Floats, normals: Floats, light: Doubles, highlight: Doubles, gloss: float, shininess: float
) -> Floats:
    """Return colours (H, 3) by Lambert and Blinn-Phong shading.

    Albedo is (H, 3), normals are (H, 3) in viewer axes, light is (9, 3), and `highlight` is a direction.
    """
    diffuse = albedo * np.maximum(irradiance(light, normals), 0.02)
    half = highlight + np.array([0.0, 0.0, 1.0])
    half /= np.linalg.norm(half)
    specular = gloss * np.maximum(normals @ half, 0.0) ** shininess
    return np.asarray(diffuse + specular[:, None], np.float32)


def viewer_normals(normals: Floats, image_from_head: Floats) -> Floats:
    """Return head-frame normals (H, 3) in viewer axes (x right, y up, z towards the viewer)."""
    linear = image_from_head[:, :3]
    rotation = VIEWER_FROM_FRAME @ (linear / np.cbrt(np.linalg.det(linear)))
    return np.asarray(normals @ rotation.T, np.float32)


def radiance_fit(brightness: Floats, normals: Floats, weights: Floats) -> Floats:
    """Return the part (F,) of a brightness (F,) that light explains, over normals (F, 3).

    It is a weighted least-squares fit of 9 harmonics, with a ridge on all but the constant.
    """
    basis = sh_basis(normals) * np.sqrt(weights)[:, None]
    ridge = 0.05 * weights.sum() * np.diag([0.0, *([1.0] * 8)])
    solution = np.linalg.solve(basis.T @ basis + ridge, basis.T @ (brightness * np.sqrt(weights)))
    return np.asarray(np.maximum(sh_basis(normals) @ solution, 1e-3), np.float32)

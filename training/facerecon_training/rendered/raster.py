"""Surfaces, light and a camera -> a picture and its coverage, by a z-buffer with textures, shadows and soft skin.

The code is compiled by Numba. A head of 50 000 triangles takes about ten milliseconds on one core. Up to rounding, the
result is the same on every machine, with or without a graphics driver.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from facerecon_rt.pose import VIEWER_FROM_FRAME
from facerecon_rt.types import Floats
from numba import njit
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
SUPERSAMPLING = 2
"""Samples along each side of a pixel, against jagged edges and for the transparency of hair."""
SHADOW_SIZE = 256
SHADOW_REACH_MM = 170.0
"""Half the side of the square around the head in which shadows are cast."""
SHADOW_BIAS_MM = 4.5
NOTHING = -1
FAR = np.float32(1e30)
"""Depth of empty samples. It is not infinity, because fast mathematics breaks comparisons with infinity."""
NO_TEXTURE = np.zeros((1, 1, 4), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """Reflection properties of a surface."""

    gloss: float = 0.03
    """Reflectance seen head-on: 0.03 for skin, 0.04 for water."""
    shininess: float = 20.0
    """Exponent of the Blinn-Phong highlight."""
    softness: float = 0.0
    """Reach of the light beyond the terminator, in the cosine; 0.3 for skin, which scatters light."""
    grain: float = 0.0
    """Relative strength of fine irregularities of colour and relief."""


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """A mesh with one material."""

    vertices: Floats
    """Vertices (K, 3) mm, head frame."""
    normals: Floats
    """Unit normals (K, 3), outwards."""
    triangles: NDArray[np.int32]
    """Triangles (T, 3)."""
    colours: Floats
    """Albedo (K, 3), linear BGR. With a texture it is a tint that multiplies the texture."""
    openness: Floats
    """Share of the sky that each vertex sees, (K,) 0..1 (ambient occlusion)."""
    material: Material = Material()
    uv: Floats | None = None
    """Texture coordinates (K, 2), v upwards."""
    texture: Floats | None = None
    """Texture (h, w, 4), linear BGR and alpha."""
    two_sided: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Light:
    """Light on the head, in viewer axes (x right, y up, z towards the viewer)."""

    sky: Doubles
    """Spherical-harmonics coefficients (9, 3) of BGR irradiance over pi, in the order of `render.sh_basis`."""
    lamp: Doubles
    """Unit vector (3,) to a lamp, which casts shadows."""
    lamp_colour: Doubles
    """BGR irradiance (3,) over pi at normal incidence; 0 for no lamp."""


def paint(
    surfaces: Sequence[Surface], light: Light, image_from_head: Floats, size: int, seed: int
) -> tuple[Floats, Floats]:
    """Render surfaces under light through a scaled-orthographic camera (3, 4).

    Returns the picture (size, size, 3), linear BGR, black where nothing is, and its coverage (size, size) 0..1. `seed`
    decides which samples of transparent surfaces are covered.
    """
    side = size * SUPERSAMPLING
    depth = np.full((side, side), FAR, np.float32)
    surface_of = np.full((side, side), NOTHING, np.int32)
    triangle_of = np.zeros((side, side), np.int32)
    place = np.zeros((side, side, 2), np.float32)
    linear = image_from_head[:, :3].astype(np.float64)
    scale = np.cbrt(np.linalg.det(linear))
    viewer_from_head = (VIEWER_FROM_FRAME @ (linear / scale)).astype(np.float32)
    lamp_from_head = _lamp_axes(light.lamp) @ viewer_from_head
    shadow = np.full((SHADOW_SIZE, SHADOW_SIZE), FAR, np.float32)
    from_lamp = [_seen_from_lamp(surface.vertices, lamp_from_head) for surface in surfaces]
    for index, surface in enumerate(surfaces):
        points = surface.vertices @ image_from_head[:, :3].T + image_from_head[:, 3]
        points[:, :2] = (points[:, :2] + 0.5) * SUPERSAMPLING - 0.5
        uv, texture = _textured(surface)
        triangles = np.ascontiguousarray(surface.triangles)
        _cover(
            np.asarray(points, np.float32), triangles, uv, texture, surface.texture is not None, surface.two_sided,
            index, seed, depth, surface_of, triangle_of, place,
        )  # fmt: skip
        if light.lamp_colour.any():
            _cast(from_lamp[index], triangles, uv, texture, shadow)
    picture, covered = np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32)
    sky, lamp, lamp_colour = (np.asarray(part, np.float32) for part in (light.sky, light.lamp, light.lamp_colour))
    for index, surface in enumerate(surfaces):
        uv, texture = _textured(surface)
        material = surface.material
        _shade(
            index, np.ascontiguousarray(surface.triangles),
            np.asarray(surface.normals @ viewer_from_head.T, np.float32),
            np.asarray(surface.vertices, np.float32), from_lamp[index],
            np.asarray(surface.colours, np.float32), np.asarray(surface.openness, np.float32), uv, texture,
            surface.texture is not None, surface.two_sided,
            material.gloss, material.shininess, material.softness, material.grain, sky, lamp, lamp_colour, shadow,
            surface_of, triangle_of, place, picture, covered,
        )  # fmt: skip
    return picture, covered


def openness(
    vertices: Floats, normals: Floats, triangles: NDArray[np.int32], directions: NDArray[np.floating]
) -> Floats:
    """Return the cosine-weighted share (K,) of `directions` that each vertex sees.

    Vertices and normals are (K, 3), triangles (T, 3), and directions unit vectors (D, 3), all in the head frame.
    """
    seen, total = np.zeros(len(vertices), np.float32), np.full(len(vertices), 1e-6, np.float32)
    uv = np.zeros((len(vertices), 2), np.float32)
    for direction in directions:
        cosine = np.maximum(normals @ direction, 0).astype(np.float32)
        points = _seen_from_lamp(vertices, _lamp_axes(direction).astype(np.float32))
        shadow = np.full((SHADOW_SIZE, SHADOW_SIZE), FAR, np.float32)
        _cast(points, np.ascontiguousarray(triangles), uv, NO_TEXTURE, shadow)
        seen += cosine * _lit(points, shadow)
        total += cosine
    return np.asarray(seen / total, np.float32)


def _textured(surface: Surface) -> tuple[Floats, Floats]:
    if surface.uv is None or surface.texture is None:
        return np.zeros((len(surface.vertices), 2), np.float32), NO_TEXTURE
    return np.asarray(surface.uv, np.float32), surface.texture


def _lamp_axes(lamp: NDArray[np.floating]) -> Doubles:
    """Return two axes across a unit vector and the direction of its light, as rows (3, 3)."""
    across = np.cross(lamp, [0.0, 1.0, 0.0] if abs(lamp[1]) < 0.9 else [1.0, 0.0, 0.0])
    across /= np.linalg.norm(across)
    return np.stack([across, np.cross(lamp, across), -np.asarray(lamp)])


def _seen_from_lamp(vertices: Floats, lamp_from_head: NDArray[np.floating]) -> Floats:
    """Return pixels of the shadow map and mm along the light, (K, 3), of vertices (K, 3) mm in the head frame."""
    points = vertices @ lamp_from_head.T
    points[:, :2] = (points[:, :2] / SHADOW_REACH_MM + 1) * (0.5 * SHADOW_SIZE)
    return np.asarray(points, np.float32)


@njit(cache=True)
def _hash(a: int, b: int, c: int) -> float:
    """Return a number 0..1 that depends on three numbers only."""
    h = (a * 374761393 + b * 668265263 + c * 2147483647 + 144665) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 16)) * 2246822519) & 0xFFFFFFFF
    return ((h ^ (h >> 15)) & 0xFFFFFF) / 16777216.0


@njit(cache=True)
def _alpha(texture, u, v):  # type: ignore[no-untyped-def]
    height, width = texture.shape[0], texture.shape[1]
    x, y = min(max(int(u * width), 0), width - 1), min(max(int((1 - v) * height), 0), height - 1)
    return texture[y, x, 3]


@njit(cache=True, fastmath=True)
def _cover(  # type: ignore[no-untyped-def]
    points, triangles, uv, texture, textured, two_sided, index, seed, depth, surface_of, triangle_of, place
):
    """Find the nearest surface, triangle and place in it (two barycentric coordinates) for every sample."""
    side = depth.shape[0]
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, bx, by, cx, cy = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        # y points down, so a triangle that is counter-clockwise from outside has a negative area.
        if area == 0 or (area > 0 and not two_sided):
            continue
        x0, x1 = max(int(np.ceil(min(ax, bx, cx))), 0), min(int(np.floor(max(ax, bx, cx))), side - 1)
        y0, y1 = max(int(np.ceil(min(ay, by, cy))), 0), min(int(np.floor(max(ay, by, cy))), side - 1)
        if x0 > x1 or y0 > y1:
            continue
        inverse = 1 / area
        bx_, by_ = (cy - ay) * inverse, (ax - cx) * inverse  # growth of wb with x and y
        cx_, cy_ = (ay - by) * inverse, (bx - ax) * inverse
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                wb = (x - ax) * bx_ + (y - ay) * by_
                wc = (x - ax) * cx_ + (y - ay) * cy_
                wa = 1 - wb - wc
                if wa < 0 or wb < 0 or wc < 0:
                    continue
                z = wa * points[a, 2] + wb * points[b, 2] + wc * points[c, 2]
                if z >= depth[y, x]:
                    continue
                if textured:
                    u = wa * uv[a, 0] + wb * uv[b, 0] + wc * uv[c, 0]
                    v = wa * uv[a, 1] + wb * uv[b, 1] + wc * uv[c, 1]
                    if _alpha(texture, u, v) <= _hash(x, y, seed + t):
                        continue
                depth[y, x] = z
                surface_of[y, x] = index
                triangle_of[y, x] = t
                place[y, x, 0] = wb
                place[y, x, 1] = wc


@njit(cache=True, fastmath=True)
def _cast(points, triangles, uv, texture, shadow):  # type: ignore[no-untyped-def]
    """Write the depth of the first thing that the lamp meets, per pixel of the shadow map."""
    side = shadow.shape[0]
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, bx, by, cx, cy = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0:
            continue
        if texture.shape[0] > 1:
            u, v = (uv[a, 0] + uv[b, 0] + uv[c, 0]) / 3, (uv[a, 1] + uv[b, 1] + uv[c, 1]) / 3
            if _alpha(texture, u, v) < 0.5:
                continue
        x0, x1 = max(int(np.ceil(min(ax, bx, cx))), 0), min(int(np.floor(max(ax, bx, cx))), side - 1)
        y0, y1 = max(int(np.ceil(min(ay, by, cy))), 0), min(int(np.floor(max(ay, by, cy))), side - 1)
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
                wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
                if wb < 0 or wc < 0 or wb + wc > 1:
                    continue
                z = (1 - wb - wc) * points[a, 2] + wb * points[b, 2] + wc * points[c, 2]
                shadow[y, x] = min(shadow[y, x], z)


@njit(cache=True, fastmath=True)
def _light_at(x, y, z, shadow):  # type: ignore[no-untyped-def]
    """Return the share 0..1 of the lamp's light at a place of the shadow map, blended over four pixels."""
    side = shadow.shape[0]
    i, j = int(np.floor(x)), int(np.floor(y))
    if i < 0 or j < 0 or i + 1 >= side or j + 1 >= side:
        return 1.0
    fx, fy = x - i, y - j
    limit = z - SHADOW_BIAS_MM
    first = (shadow[j, i] > limit) * (1 - fx) + (shadow[j, i + 1] > limit) * fx
    second = (shadow[j + 1, i] > limit) * (1 - fx) + (shadow[j + 1, i + 1] > limit) * fx
    return first * (1 - fy) + second * fy


@njit(cache=True)
def _lit(points, shadow):  # type: ignore[no-untyped-def]
    out = np.zeros(len(points), np.float32)
    for k in range(len(points)):
        out[k] = _light_at(points[k, 0], points[k, 1], points[k, 2], shadow)
    return out


@njit(cache=True)
def _noise(x, y, z):  # type: ignore[no-untyped-def]
    """Return smooth noise -1..1 of unit wavelength: random numbers on a grid, blended."""
    i, j, k = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
    fx, fy, fz = x - i, y - j, z - k
    fx, fy, fz = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy), fz * fz * (3 - 2 * fz)
    total = 0.0
    for c in range(8):
        dx, dy, dz = c & 1, (c >> 1) & 1, c >> 2
        weight = (fx if dx else 1 - fx) * (fy if dy else 1 - fy) * (fz if dz else 1 - fz)
        total += weight * _hash(i + dx, j + dy, k + dz)
    return 2 * total - 1


@njit(cache=True, fastmath=True)
def _samples(surface_of, index, px, py):  # type: ignore[no-untyped-def]
    """Return the number of a pixel's samples that show a surface, and column and row of the last."""
    count, sx, sy = 0, 0, 0
    for y in range(py * SUPERSAMPLING, (py + 1) * SUPERSAMPLING):
        for x in range(px * SUPERSAMPLING, (px + 1) * SUPERSAMPLING):
            if surface_of[y, x] == index:
                count += 1
                sx, sy = x, y
    return count, sx, sy


@njit(cache=True, fastmath=True)
def _between(values, corners, weights):  # type: ignore[no-untyped-def]
    """Return values (K, 3) of a triangle's corners, interpolated by weights."""
    (a, b, c), (wa, wb, wc) = corners, weights
    return (
        wa * values[a, 0] + wb * values[b, 0] + wc * values[c, 0],
        wa * values[a, 1] + wb * values[b, 1] + wc * values[c, 1],
        wa * values[a, 2] + wb * values[b, 2] + wc * values[c, 2],
    )


@njit(cache=True, fastmath=True)
def _texel(uv, texture, corners, weights):  # type: ignore[no-untyped-def]
    """Return column and row of the texture at a place in a triangle."""
    (a, b, c), (wa, wb, wc) = corners, weights
    u = wa * uv[a, 0] + wb * uv[b, 0] + wc * uv[c, 0]
    v = wa * uv[a, 1] + wb * uv[b, 1] + wc * uv[c, 1]
    tx = min(max(int(u * texture.shape[1]), 0), texture.shape[1] - 1)
    ty = min(max(int((1 - v) * texture.shape[0]), 0), texture.shape[0] - 1)
    return tx, ty


@njit(cache=True, fastmath=True)
def _sky_at(sky, k, x, y, z):  # type: ignore[no-untyped-def]
    """Return the sky's light in channel k on a surface with the normal (x, y, z)."""
    light = (
        sky[0, k] + sky[1, k] * y + sky[2, k] * z + sky[3, k] * x + sky[4, k] * x * y + sky[5, k] * y * z
        + sky[6, k] * (3 * z * z - 1) + sky[7, k] * x * z + sky[8, k] * (x * x - y * y)
    )  # fmt: skip
    return max(light, 0.02 * sky[0, k])


@njit(cache=True, fastmath=True)
def _unit(x, y, z):  # type: ignore[no-untyped-def]
    length = np.sqrt(x * x + y * y + z * z) + 1e-9
    return x / length, y / length, z / length


@njit(cache=True, fastmath=True)
def _shade(  # type: ignore[no-untyped-def]
    index, triangles, normals, vertices, in_shadow, colours, openness_, uv, texture, textured, two_sided,
    gloss, shininess, softness, grain, sky, lamp, lamp_colour, shadow, surface_of, triangle_of, place, picture, covered,
):  # fmt: skip
    """Add this surface's share to every pixel: its colour at one of its samples times the number of its samples.

    Diffuse light comes from the sky (9 spherical harmonics) and from the lamp. The lamp's light is soft where skin
    scatters it, red most. Highlights are Blinn-Phong with Schlick's Fresnel term.
    """
    size = picture.shape[0]
    hx, hy, hz = _unit(lamp[0], lamp[1], lamp[2] + 1)
    for py in range(size):
        for px in range(size):
            count, sx, sy = _samples(surface_of, index, px, py)
            if count == 0:
                continue
            t = triangle_of[sy, sx]
            a, b, c = corners = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            wb, wc = place[sy, sx, 0], place[sy, sx, 1]
            wa = 1 - wb - wc
            weights = wa, wb, wc
            nx, ny, nz = _between(normals, corners, weights)
            rough = 0.0
            if grain > 0:
                qx, qy, qz = _between(vertices, corners, weights)
                rough = grain * (
                    0.6 * _noise(qx / 1.7, qy / 1.7, qz / 1.7) + 0.4 * _noise(qx / 5.0, qy / 5.0, qz / 5.0)
                )
                nx += 0.6 * rough
                ny += 0.6 * grain * _noise(qx / 2.1 + 31, qy / 2.1, qz / 2.1)
            nx, ny, nz = _unit(nx, ny, nz)
            if two_sided and nz < 0:
                nx, ny, nz = -nx, -ny, -nz
            open_ = wa * openness_[a] + wb * openness_[b] + wc * openness_[c]
            lit = 0.0
            if lamp_colour[0] + lamp_colour[1] + lamp_colour[2] > 0:
                at_x, at_y, at_depth = _between(in_shadow, corners, weights)
                lit = _light_at(at_x, at_y, at_depth, shadow)
            cosine = nx * lamp[0] + ny * lamp[1] + nz * lamp[2]
            fresnel = gloss * (1 + 4 * (1 - max(nz, 0.0)) ** 4)
            highlight = max(nx * hx + ny * hy + nz * hz, 0.0) ** shininess * (shininess + 8) / 25.0 * fresnel
            tx = ty = 0
            if textured:
                tx, ty = _texel(uv, texture, corners, weights)
            share = count / (SUPERSAMPLING * SUPERSAMPLING)
            for k in range(3):
                albedo = wa * colours[a, k] + wb * colours[b, k] + wc * colours[c, k]
                if textured:
                    albedo *= texture[ty, tx, k]
                albedo *= 1 + rough
                around = _sky_at(sky, k, nx, ny, nz) * open_
                wrap = softness * (0.25 if k == 0 else (0.4 if k == 1 else 1.0))
                direct = max((cosine + wrap) / (1 + wrap), 0.0) * lit * lamp_colour[k]
                shine = highlight * lit * lamp_colour[k] + fresnel * around * (1.0 if shininess > 100 else 0.4)
                picture[py, px, k] += share * (albedo * (around + direct) + shine)
            covered[py, px] += share

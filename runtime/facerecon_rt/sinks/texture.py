"""Pictures of one person -> a colour map: the pictures' colours on the mesh, laid out by its texture coordinates.

The light of the pictures stays in the colours: that of a single picture, or one light that several pictures share.
Parts that no picture shows come from the other side of the face, and where that is not seen either, from the mean skin.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from ..pose import split_camera
from ..template import FaceTemplate, Indices
from ..types import Face, Floats, Frame, Image
from .light import fitted_light
from .raster import Raster, far_first, front_facing, rasterize
from .shade import vertex_normals

TEXTURE_SIZES = (512, 1024)
"""Sides of a colour map in pixels."""
GRAZING, FACING = 0.3, 0.75
"""Cosines of the angle between surface and viewer: below the first, a picture does not count; above the second, it
counts fully."""
LEAST = 0.2
"""Weight below which a place counts as not seen."""
BORDER_MM = 2.0
"""Distance in mm that a place keeps from the outline of whatever covers it, since the mesh fits by millimetres."""
OUTLINE_MM = (3.0, 9.0)
"""Distances in mm from the outline of the face, between which a picture begins to count: the mesh fits by millimetres,
and what lies behind the face must not colour it."""
TAIL_MM = 2.0
"""Depth in mm by which a place may lie behind the nearest surface around it, besides its slope."""
SHARPNESS = 3
"""Power of the weights of several pictures. A higher one mixes less, and shows more of the joints."""
UNUSUAL = 30.0
"""Distance of a colour, 0 to 255, from the mean of all pictures, at which it counts half."""
GAIN = (0.5, 2.0)
"""Limits of the factor by which the colours of a picture are first fitted to those of the best one."""
PASSES = 3
"""Number of times that several pictures are blended. Each time but the first, they are first brought into the light of
the previous blend."""
FADE = 0.12
"""Distance from the seen part, as a share of the map's side, over which its difference to the completion fades."""
SKIN = (36, 39, 27, 42, 45, 14, 12, 54, 33, 48, 4, 2)
"""iBUG points around the skin of cheeks and nose, which the mean skin is from."""
UNDER = tuple(range(3, 14))
"""iBUG points of the jaw, under which clothes may hide the skin."""
SKIN_HUES = (0.03, 0.07)
"""Differences of the shares of blue, green and red to those of the mean skin: under the jaw, colours count fully below
the first, and not at all above the second."""
DARK_SKIN = 0.25
"""Brightness as a share of that of the mean skin, below which colours under the jaw do not count."""
AVERAGE_SKIN = (136.0, 158.0, 200.0)
"""Colour (blue, green, red), 0 to 255, of skin where no picture shows any."""
LEVELS = 5
"""Maximum number of times that a picture is halved."""

Weights = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One picture of a face, for its colour map."""

    image: Image
    """(H, W, 3) uint8 BGR: the part of the frame around the face."""
    image_from_head: Floats
    """(3, 4) scaled-orthographic camera of that part: pixels, and depth away from the viewer."""
    vertices: Floats
    """(V, 3) mm, head frame: the face with the expression of the picture."""
    worth: float = 1.0
    """How well the picture shows the face, above 0."""


def view_of(face: Face, frame: Frame, most: int = 4 * TEXTURE_SIZES[-1], worth: float = 1.0) -> View:
    """Return the view of a face in its frame. The part of the frame is copied, and halved until its sides are at most
    `most` pixels."""
    camera = face.frame_from_head.astype(np.float64)
    points = face.vertices @ camera[:2, :3].T + camera[:2, 3]
    width, height = frame.size
    margin = 4
    left, top = (max(0, int(value) - margin) for value in np.floor(points.min(0)))
    right, bottom = np.minimum(np.ceil(points.max(0)).astype(int) + margin + 1, (width, height)).tolist()
    image = frame.image[top : max(bottom, top), left : max(right, left)]
    camera[:2, 3] -= left, top
    while image.size and max(image.shape[:2]) > most:
        image = np.asarray(cv2.pyrDown(image), np.uint8)
        camera /= 2  # pyrDown keeps the centre of the first pixel
    return View(image.copy(), camera.astype(np.float32), face.vertices, worth)


def colour_map(views: Iterable[View], template: FaceTemplate, size: int) -> Image:
    """Return the colour map (size, size, 3) uint8 BGR (sRGB) of one person from pictures, the best first. `views` is
    iterated up to three times.

    Its upper left corner has the texture coordinates (0, 1) of the template, where v points up. The pictures are
    blended by the angle at which they show each place, after they were brought into one light. Its mean colour is that
    of the first picture.
    """
    layout = layout_of(template, size)
    colours, seen, count = _blended(views, template, layout, None)
    for _ in range(PASSES - 1 if count > 1 else 0):
        colours, seen, _ = _blended(views, template, layout, colours)
    return layout.spread(_completed(colours, seen, layout))


def _blended(
    views: Iterable[View], template: FaceTemplate, layout: Layout, usual: Floats | None
) -> tuple[Floats, Weights, int]:
    """Return the mean colours (P, 3) of the views, how well the best one shows each place (P,), and their number.

    `usual`: colours (P, 3) of a previous mean, whose light the views get. Colours of a view that are far from them, as
    a hand's or a shadow's, count less.
    """
    total = np.zeros((len(layout.raster.rows), 3), np.float32)
    amount, seen = np.zeros((2, len(total)), np.float32)
    count = 0
    for view in views:
        count += 1
        colours, weights = sampled(view, template, layout)
        share = view.worth * weights**SHARPNESS
        if usual is None:
            colours *= _gain(colours, weights, total, amount)
        else:
            normals = layout.raster.between(vertex_normals(view.vertices, template.triangles))
            colours = fitted_light(usual, colours, normals, share).taken_from(colours, normals)
            share /= 1 + ((colours - usual) ** 2).sum(1) / UNUSUAL**2
        total += share[:, None] * colours
        amount += share
        np.maximum(seen, weights, out=seen)
    return np.asarray(total / np.maximum(amount, 1e-12)[:, None], np.float32), seen, count


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Which place of the face each pixel of a colour map shows."""

    size: int
    raster: Raster
    """The P pixels of the map that the mesh covers."""
    pixel_area: Floats
    """(T,) area of each triangle in pixels of the map."""
    mirror: NDArray[np.intp]
    """(P,) index of the covered pixel on the other side of the face."""
    skin: NDArray[np.bool_]
    """(P,) whether the pixel shows the skin of cheeks and nose."""
    under: NDArray[np.bool_]
    """(P,) whether the pixel lies under the jaw."""

    def grid(self, values: Floats) -> Floats:
        """Return values (P, K) as a map (size, size, K), 0 elsewhere."""
        grid = np.zeros((self.size, self.size, values.shape[1]), np.float32)
        grid[self.raster.rows, self.raster.columns] = values
        return grid

    def spread(self, colours: Floats) -> Image:
        """Return colours (P, 3), 0 to 255, as a map (size, size, 3) uint8. Outside the mesh it has the colours nearby,
        so that no other colour shows at its edges."""
        inside = self.grid(np.ones((len(colours), 1), np.float32))[..., 0]
        return np.asarray(np.rint(np.clip(extended(self.grid(colours), inside), 0, 255)), np.uint8)


@cache
def layout_of(template: FaceTemplate, size: int) -> Layout:
    """Return the layout of colour maps of this template, which is made once."""
    points = texture_points(template, size)
    raster = rasterize(points, template.triangles, (size, size))
    index = np.full((size, size), -1, np.intp)
    index[raster.rows, raster.columns] = np.arange(len(raster.rows))
    mirror = index[raster.rows, size - 1 - raster.columns]
    skin, jaw = (points[template.landmarks[list(indices)]] for indices in (SKIN, UNDER))
    below = np.vstack([jaw, [[jaw[-1, 0], size], [jaw[0, 0], size]]])
    masks = [
        cv2.fillPoly(np.zeros((size, size), np.uint8), [np.rint(polygon).astype(np.int32)], 1) > 0
        for polygon in (skin, below)
    ]
    return Layout(
        size,
        raster,
        _areas(points, template.triangles),
        np.where(mirror < 0, np.arange(len(mirror)), mirror),
        *(mask[raster.rows, raster.columns] for mask in masks),
    )


def texture_points(template: FaceTemplate, size: int) -> Floats:
    """Return the places (V, 2) of the vertices in a colour map, in pixels."""
    return np.asarray(np.stack([template.uv[:, 0], 1 - template.uv[:, 1]], 1) * size - 0.5, np.float32)


def sampled(view: View, template: FaceTemplate, layout: Layout) -> tuple[Floats, Weights]:
    """Return the colours (P, 3) BGR, 0 to 255, that a view has for the covered pixels of a colour map, and how well it
    shows them (P,), 0 to 1. 0 is for places that are turned away, covered, or outside the picture."""
    raster = layout.raster
    if not view.image.size:
        return np.zeros((len(raster.rows), 3), np.float32), np.zeros(len(raster.rows), np.float32)
    height, width = view.image.shape[:2]
    points = view.vertices @ view.image_from_head[:, :3].T + view.image_from_head[:, 3]
    scale, rotation, _ = split_camera(view.image_from_head)
    places = raster.between(points)
    # The third row of the camera points away from the viewer.
    towards = -(vertex_normals(view.vertices, template.triangles) @ rotation[2].astype(np.float32))
    cosine = raster.between(towards[:, None])[:, 0]
    weights = _smooth_step((cosine - GRAZING) / (FACING - GRAZING))
    weights *= _uncovered(points, places, cosine, template.triangles, scale, (width, height))
    x, y = places[:, 0], places[:, 1]
    weights *= (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1) & (weights > LEAST)
    finer = _areas(points[:, :2], template.triangles) / np.maximum(layout.pixel_area, 1e-9)
    level = np.asarray(0.5 * np.log2(np.maximum(finer, 1.0)), np.float32)
    colours = _looked_up(view.image, x, y, level[raster.triangle])
    weights[layout.under] *= _skin_likeness(colours, weights, layout)[layout.under]
    return colours, _without_specks(weights, layout)


def _without_specks(weights: Weights, layout: Layout) -> Weights:
    """Return weights (P,) that grow smoothly from where they are 0, since a speck that is seen looks like dirt."""
    grid = 1 - layout.grid(1 - weights[:, None])[..., 0]  # eyes and mouth end nothing
    reach = layout.size // 256
    shrunk = cv2.erode(grid, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    smooth = cv2.GaussianBlur(shrunk, (0, 0), reach)[layout.raster.rows, layout.raster.columns]
    return np.asarray(np.minimum(weights, smooth), np.float32)


def _skin_likeness(colours: Floats, weights: Weights, layout: Layout) -> Weights:
    """Return how similar the hue of colours (P, 3) is to that of the mean skin (P,), 0 to 1. Shaded skin has the same
    hue."""
    shares = colours / np.maximum(colours.sum(1, keepdims=True), 1.0)
    tone = mean_skin(colours, weights, layout)
    difference = np.linalg.norm(shares - tone / tone.sum(), axis=1)
    hue = 1 - _smooth_step((difference - SKIN_HUES[0]) / (SKIN_HUES[1] - SKIN_HUES[0]))
    return hue * _smooth_step(colours.sum(1) / (DARK_SKIN * tone.sum()) - 1)


def _uncovered(
    points: Floats, places: Floats, cosine: Floats, triangles: Indices, scale: float, size: tuple[int, int]
) -> Weights:
    """Return how well places (P, 3) in pixels are seen (P,), 0 to 1. A place that lies behind the mesh or at its
    outline is not seen."""
    # Pictures of faces are many pixels wide. A coarser map of depths is as good, and keeps the border's width small.
    step = max(1.0, scale / 1.5)
    shape = (int(size[0] / step) + 2, int(size[1] / step) + 2)
    raster = rasterize(points[:, :2] / step, far_first(points, front_facing(points, triangles)), shape)
    depth = np.full(shape[::-1], np.inf, np.float32)
    depth[raster.rows, raster.columns] = raster.between(points[:, 2:])[:, 0]
    reach = max(1, round(BORDER_MM * scale / step))
    nearest = cv2.erode(depth, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    columns = np.clip(np.rint(places[:, 0] / step), 0, shape[0] - 1).astype(np.intp)
    rows = np.clip(np.rint(places[:, 1] / step), 0, shape[1] - 1).astype(np.intp)
    upright = np.clip(cosine, GRAZING, 1.0)
    slope = np.sqrt(1 - upright**2) / upright * (reach + 1) * step * 1.5
    outlines, _ = cv2.findContours(
        np.isfinite(depth).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )  # without the holes of eyes and mouth
    filled = cv2.drawContours(np.zeros(depth.shape, np.uint8), outlines, -1, 1, cv2.FILLED)
    # The border of the picture is not an outline of the face.
    inwards = cv2.distanceTransform(np.pad(filled, 1, mode="edge"), cv2.DIST_L2, 5)[1:-1, 1:-1][rows, columns]
    inside = (inwards * step / scale - OUTLINE_MM[0]) / (OUTLINE_MM[1] - OUTLINE_MM[0])
    return np.asarray(_smooth_step(inside) * (places[:, 2] - nearest[rows, columns] <= TAIL_MM * scale + slope))


def _looked_up(image: Image, x: Floats, y: Floats, level: Floats) -> Floats:
    """Return the colours (P, 3) of an image at places (P,) in pixels. Each colour comes from the image halved `level`
    times, so that fine patterns do not turn into noise."""
    # OpenCV looks up maps with sides below 32768.
    columns = 1024
    padding = -len(x) % columns
    x, y = (np.pad(values, (0, padding)).reshape(-1, columns).astype(np.float32) for values in (x, y))
    colours = np.zeros((len(level), 3), np.float32)
    most = min(LEVELS, int(np.ceil(level.max(initial=0.0))))
    for number in range(most + 1):
        share = np.maximum(0.0, 1.0 - np.abs(np.minimum(level, most) - number))
        if share.any():
            how = cv2.INTER_CUBIC if number == 0 else cv2.INTER_LINEAR
            found = cv2.remap(image, x / 2**number, y / 2**number, how, borderMode=cv2.BORDER_REPLICATE)
            colours += share[:, None] * found.reshape(-1, 3)[: len(level)]
        if number < most:
            image = np.asarray(cv2.pyrDown(image), np.uint8)
    return colours


def _gain(colours: Floats, weights: Weights, total: Floats, amount: Floats) -> Floats:
    """Return the factor (3,) per channel that scales colours to the mean of the pictures that were blended so far
    (`total` / `amount`), from places that both show well."""
    both = (weights > 0.5) & (amount > 0.1)
    if both.sum() < 100:
        return np.ones(3, np.float32)
    own, others = np.median(colours[both], 0), np.median(total[both] / amount[both, None], 0)
    return np.asarray(np.clip(others / np.maximum(own, 1.0), *GAIN), np.float32)


def _completed(colours: Floats, seen: Weights, layout: Layout) -> Floats:
    """Return the colours (P, 3) with unseen places filled from the other side, else with the mean skin.

    The filled part is shifted so that it meets the seen part without a joint. The shift fades with the distance.
    """
    tone = mean_skin(colours, seen, layout)
    across = _smooth_step((seen[layout.mirror] - LEAST) / 0.5)[:, None]
    other = tone + _faded(colours[layout.mirror] - tone, across, layout)
    own = _smooth_step((seen - LEAST) / 0.5)[:, None]
    return np.asarray(other + _faded(colours - other, own, layout), np.float32)


def mean_skin(colours: Floats, seen: Weights, layout: Layout) -> Floats:
    """Return the median colour (3,) of the seen parts of cheeks and nose, or of all seen parts if neither is seen."""
    for where in (layout.skin & (seen > 0.5), seen > 0):
        if where.sum() >= 100:
            return np.asarray(np.median(colours[where], 0), np.float32)
    return np.array(AVERAGE_SKIN, np.float32)


def _faded(difference: Floats, share: Floats, layout: Layout) -> Floats:
    """Return a difference (P, 3) where it is known by a share (P, 1) of 1, and elsewhere a smooth continuation that
    fades to 0."""
    known = layout.grid(share)[..., 0]
    if not known.any():
        return np.zeros_like(difference)
    rows, columns = layout.raster.rows, layout.raster.columns
    around = extended(layout.grid(difference * share), known, divided=False)[rows, columns]
    away = cv2.distanceTransform((known < 0.5).astype(np.uint8), cv2.DIST_L2, 5)[rows, columns]
    fade = np.exp(-away / (FADE * layout.size))[:, None]
    return np.asarray(share * difference + (1 - share) * fade * around, np.float32)


def extended(values: Floats, known: Floats, *, divided: bool = True) -> Floats:
    """Return values (S, S, K) with smooth continuations where `known` (S, S), 0 to 1, is 0. They are means of the known
    values nearby.

    `divided`: whether the values are not yet multiplied by `known`.
    """
    values = values * known[..., None] if divided else values
    if min(values.shape[:2]) <= 2 or known.min() >= 1:
        mean = values.sum((0, 1)) / max(float(known.sum()), 1e-9)
        return np.asarray(values + (1 - np.minimum(known, 1.0))[..., None] * mean, np.float32)
    half_size = ((values.shape[1] + 1) // 2, (values.shape[0] + 1) // 2)
    half, less = (
        cv2.resize(one, half_size, interpolation=cv2.INTER_AREA).reshape(*half_size[::-1], -1)
        for one in (values, known)
    )
    # The means are over known pixels only, however few they are.
    coarse = extended(np.asarray(half / np.maximum(less, 1e-9), np.float32), (less[..., 0] > 1e-6).astype(np.float32))
    back = cv2.resize(coarse, values.shape[1::-1], interpolation=cv2.INTER_LINEAR).reshape(values.shape)
    share = np.minimum(known, 1.0)[..., None]
    return np.asarray(values + (1 - share) * back, np.float32)


def vertex_colours(colours: Image, template: FaceTemplate) -> Image:
    """Return the colours (V, 3) uint8 BGR that a colour map has at the vertices."""
    at = texture_points(template, len(colours))
    found = _looked_up(colours, at[:, 0], at[:, 1], np.zeros(len(at), np.float32))
    return np.asarray(np.rint(np.clip(found, 0, 255)), np.uint8)


def as_png(colours: Image) -> bytes:
    """Encode a colour map as PNG."""
    return bytes(cv2.imencode(".png", colours)[1].tobytes())


def textured(
    vertices_frame: Floats, template: FaceTemplate, colours: Image, size: tuple[int, int]
) -> tuple[Image, NDArray[np.bool_]]:
    """Draw a mesh with its colour map, without light.

    `vertices_frame`: (V, 3) pixels, with depth away from the viewer. `size`: (width, height). Returns the picture
    (H, W, 3) uint8 BGR, and where it shows the mesh (H, W).
    """
    triangles = far_first(vertices_frame, front_facing(vertices_frame, template.triangles))
    raster = rasterize(vertices_frame[:, :2], triangles, size)
    at = raster.between(texture_points(template, len(colours)))
    picture, inside = np.zeros((size[1], size[0], 3), np.uint8), np.zeros(size[::-1], np.bool_)
    level = np.zeros(len(raster.rows), np.float32)
    found = _looked_up(colours, at[:, 0], at[:, 1], level)
    picture[raster.rows, raster.columns] = np.rint(np.clip(found, 0, 255)).astype(np.uint8)
    inside[raster.rows, raster.columns] = True
    return picture, inside


def _areas(points: Floats, triangles: Indices) -> Floats:
    """Return the areas (T,) of triangles of points (V, 2)."""
    a, b, c = (points[triangles[:, corner]] for corner in range(3))
    (abx, aby), (acx, acy) = (b - a).T, (c - a).T
    return np.asarray(np.abs(abx * acy - aby * acx) / 2, np.float32)


def _smooth_step(values: Floats) -> Floats:
    clipped = np.clip(values, 0.0, 1.0)
    return np.asarray(clipped * clipped * (3 - 2 * clipped), np.float32)

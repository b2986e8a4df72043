"""Scenes -> pictures with meshes, landmarks, pose axes and labels drawn over the frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ..align import CROP_SIDE_MM, Square, align, square_from_camera
from ..pose import rotation_from_euler
from ..template import FaceTemplate, Indices, load_template
from ..types import Attention, Face, Floats, Frame, Image, Scene
from .eyes import eyes_of
from .hide import COVERS, MARGIN, Cover, cover_faces
from .raster import front_facing
from .shade import CLAY, render_mesh

Style = Literal["shaded", "wireframe", "landmarks"] | Cover
OVERLAYS: tuple[Style, ...] = ("shaded", "wireframe", "landmarks")
"""Styles that draw the faces over the frame."""
STYLES: tuple[Style, ...] = (*OVERLAYS, *COVERS)
SINK_STYLES = (*STYLES, "montage")
"""Styles of the pictures of an output."""
Painter = Callable[[Scene], Image]
"""Function that draws a scene as a picture."""
Color = tuple[int, int, int]
"""Colour as (blue, green, red), 0 to 255."""

ACCENTS: tuple[Color, ...] = (
    (190, 212, 64), (92, 190, 255), (255, 176, 96), (140, 130, 255), (96, 214, 160), (246, 150, 196),
)  # fmt: skip
"""Colours of tracks and faces: turquoise, amber, sky, coral, green, lilac."""
AXES: tuple[tuple[tuple[float, float, float], Color], ...] = (
    ((1.0, 0.0, 0.0), (88, 82, 245)),
    ((0.0, 1.0, 0.0), (104, 206, 76)),
    ((0.0, 0.0, 1.0), (250, 146, 62)),
)
"""Head axes and their colours: x red to the subject's left, y green up, z blue out of the face."""
AXIS_MM = 62.0
GAZE_MM = 45.0
GAZE: Color = (70, 235, 255)
EYES = (slice(42, 48), slice(36, 42))
"""Indices of the iBUG points around the left and the right eye."""
INK: Color = (34, 30, 28)
PAPER: Color = (250, 250, 250)

HOLLOW: Color = (124, 120, 117)
LETTER_WEIGHT = 450
HERSHEY_PER_PIXEL = 1 / 30

TILE_PIXELS = (256, 512)
"""Minimum and maximum side of a montage's tile, in pixels."""
CROP_ROOM = 1.12
"""Side of a montage's square relative to the network's crop."""
VIEWS_YAW_DEG = (0.0, -38.0)

CONTOURS: tuple[tuple[range, bool], ...] = (
    (range(17), False),
    (range(17, 22), False),
    (range(22, 27), False),
    (range(27, 31), False),
    (range(31, 36), False),
    (range(36, 42), True),
    (range(42, 48), True),
    (range(48, 60), True),
    (range(60, 68), True),
)
"""iBUG-68 lines and whether they close: jaw, brows, bridge and base of the nose, eyes, outer and inner lips."""

_SHIFT = 4
"""Number of fractional bits of line coordinates, so that lines do not jump from pixel to pixel."""


def painter(style: str, template: FaceTemplate | None = None, margin: float = MARGIN, *, eyes: bool = False) -> Painter:
    """Return the function that draws scenes in one of the `SINK_STYLES`. `margin`, `eyes`: as
    `draw_scene`."""
    if style == "montage":
        return partial(montage, template=template, eyes=eyes)
    (known,) = (name for name in STYLES if name == style)
    return partial(draw_scene, style=known, template=template, margin=margin, eyes=eyes)


def draw_scene(
    scene: Scene,
    *,
    style: Style = "shaded",
    axes: bool = True,
    landmarks: bool = True,
    gaze: bool = True,
    ids: bool = True,
    alpha: float = 0.85,
    margin: float = MARGIN,
    template: FaceTemplate | None = None,
    eyes: bool = False,
) -> Image:
    """Draw every face over a copy of the frame, near faces over far ones. Returns (H, W, 3) uint8 BGR.

    `style`: draw the mesh shaded, as a wireframe, or not at all; blur, pixelate and mask cover every face with `margin`
    around it (`hide.cover_faces`) and draw nothing on it but its label. `alpha`: opacity of the mesh, 0 to 1. `axes`:
    draw the head axes: x red to the subject's left, y green up, z blue out of the face. `gaze`: draw a line from each
    eye along its gaze, for models that predict gaze. `ids`: write track and confidence. `eyes`: give the
    shaded mesh eyeballs."""
    covered = next((cover for cover in COVERS if cover == style), None)
    picture = scene.frame.image.copy() if covered is None else cover_faces(scene, covered, margin)
    axes, landmarks, gaze = (wanted and covered is None for wanted in (axes, landmarks, gaze))
    for index, face in sorted(enumerate(scene.faces), key=lambda numbered: _side(numbered[1])):
        accent = ACCENTS[(index if face.track is None else face.track) % len(ACCENTS)]
        if style == "shaded":
            _draw_shaded(picture, face, template or load_template(), alpha, eyes)
        elif style == "wireframe":
            _draw_wireframe(picture, face, template or load_template(), accent, alpha)
        if landmarks:
            _draw_landmarks(picture, face, accent)
        if axes:
            _draw_axes(picture, face)
        if gaze and face.gaze is not None:
            _draw_gaze(picture, face, face.gaze)
        if ids:
            _draw_label(picture, face, accent)
    return picture


def montage(
    scene: Scene, face_index: int | None = None, *, template: FaceTemplate | None = None, eyes: bool = False
) -> Image:
    """Draw one row per face, or the row of one face. A row shows the crop, the crop with mesh and landmarks, and the
    mesh from the front and half from the side. Returns uint8 BGR, or a copy of the frame where it has no face."""
    faces = scene.faces if face_index is None else (scene.faces[face_index],)
    if not faces:
        return scene.frame.image.copy()
    template = template or load_template()
    tile = int(np.clip(max(map(_side, faces)), *TILE_PIXELS))
    rows = []
    for face in faces:
        crop = _crop_scene(scene.frame, face, tile)
        over = draw_scene(crop, axes=False, ids=False, template=template, eyes=eyes)
        views = [_studio(face, yaw, tile, template, eyes) for yaw in VIEWS_YAW_DEG]
        rows.append(_join([crop.frame.image, over, *views], axis=1))
    gap = tile // 32
    return np.pad(_join(rows, axis=0), ((gap, gap), (gap, gap), (0, 0)), constant_values=PAPER[0])


def vertices_in_frame(face: Face) -> Floats:
    """Return the face's vertices (V, 3) in frame pixels, with depth away from the viewer."""
    return face.vertices @ face.frame_from_head[:, :3].T + face.frame_from_head[:, 3]


def put_text(picture: Image, text: str, left: int, baseline: int, size: int, color: Color) -> None:
    """Write text into the picture, from `left` on, on the line `baseline`, with letters of `size` pixels."""
    if (font := _font()) is not None:
        cv2.putText(picture, text, (left, baseline), color, font, size, LETTER_WEIGHT)
        return
    scale, width = size * HERSHEY_PER_PIXEL, max(1, size // 14)
    cv2.putText(picture, text, (left, baseline), cv2.FONT_HERSHEY_SIMPLEX, scale, color, width, cv2.LINE_AA)


def text_width(text: str, size: int) -> int:
    """Return the width in pixels of a text with letters of `size` pixels."""
    if (font := _font()) is not None:
        (_, _, width, _) = cv2.getTextSize((0, 0), text, (0, 0), font, size, LETTER_WEIGHT)
    else:
        ((width, _), _) = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size * HERSHEY_PER_PIXEL, max(1, size // 14))
    return int(width)


def _side(face: Face) -> float:
    """Return the size of the face in the picture in pixels. Line widths and letters scale with it."""
    return square_from_camera(face.frame_from_head).side


def _solid(face: Face, template: FaceTemplate, eyes: bool) -> tuple[Floats, Indices, Floats | None]:
    """Return vertices (V, 3) mm, triangles (T, 3) and colours (V, 3) of a face, with its eyes if they are wanted."""
    if not eyes:
        return face.vertices, template.triangles, None
    found = eyes_of(face.shape, face.gaze, template)
    clay = np.tile(np.array(CLAY, np.float32), (len(face.vertices), 1))
    triangles = np.vstack([template.triangles, found.triangles + np.int32(len(clay))])
    return np.vstack([face.vertices, found.vertices]), triangles, np.vstack([clay, found.colours])


def _draw_shaded(picture: Image, face: Face, template: FaceTemplate, alpha: float, eyes: bool) -> None:
    solid, triangles, colours = _solid(face, template, eyes)
    vertices = solid @ face.frame_from_head[:, :3].T + face.frame_from_head[:, 3]
    window = _window(picture, vertices, margin=1)
    if window is None:
        return
    corner, region = window
    mesh, coverage = render_mesh(vertices - corner, triangles, region.shape[1::-1], colours)
    _blend(region, mesh, coverage.astype(np.float32) * (alpha / 255))


def _draw_wireframe(picture: Image, face: Face, template: FaceTemplate, accent: Color, alpha: float) -> None:
    vertices = vertices_in_frame(face)
    window = _window(picture, vertices, margin=2)
    if window is None:
        return
    corner, region = window
    corners = (vertices - corner)[front_facing(vertices, template.triangles), :2]
    # Lines are drawn at twice the size and reduced, so that they are half a pixel wide. They are fainter on a small
    # face, where they would merge.
    alpha *= float(np.clip(_side(face) / 400, 0.5, 1.0))
    lines = np.zeros((2 * region.shape[0], 2 * region.shape[1]), np.uint8)
    cv2.polylines(lines, list(_fixed(2 * corners + 0.5)), True, 255, _width(face, 500), cv2.LINE_AA, _SHIFT)
    weight = cv2.resize(lines, region.shape[1::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
    _blend(region, np.full_like(region, accent), weight * (alpha / 255))


def _draw_landmarks(picture: Image, face: Face, accent: Color) -> None:
    width = _width(face, 300)
    window = _window(picture, face.landmarks, margin=4 * width)
    if window is None:
        return
    corner, region = window
    fixed = _fixed((face.landmarks - corner)[:, :2])
    drawn = region.copy()
    for color, extra in ((INK, 2), (accent, 0)):
        for contour, closed in CONTOURS:
            cv2.polylines(drawn, [fixed[contour]], closed, color, width + extra, cv2.LINE_AA, _SHIFT)
    if _side(face) > 120:
        radius = round((0.8 + width * 0.7) * 2**_SHIFT)
        for point in fixed:
            cv2.circle(drawn, point.tolist(), radius, PAPER, cv2.FILLED, cv2.LINE_AA, _SHIFT)
    cv2.addWeighted(drawn, 0.85, region, 0.15, 0, dst=region)


def _draw_axes(picture: Image, face: Face) -> None:
    """Draw the head axes from the bridge of the nose, the axis that points away from the viewer first."""
    rotation = face.frame_from_head[:, :3]
    start = face.landmarks[27]
    width = _width(face, 150)
    ends = [(start + rotation @ np.array(axis, np.float32) * AXIS_MM, color) for axis, color in AXES]
    for end, color in sorted(ends, key=lambda numbered: -numbered[0][2]):
        (x1, y1), (x2, y2) = _fixed(np.stack([start, end])[:, :2]).tolist()
        cv2.line(picture, (x1, y1), (x2, y2), INK, width + 2, cv2.LINE_AA, _SHIFT)
        cv2.line(picture, (x1, y1), (x2, y2), color, width, cv2.LINE_AA, _SHIFT)
        cv2.circle(picture, (x2, y2), round(width * 1.1 * 2**_SHIFT), color, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def _draw_gaze(picture: Image, face: Face, gaze: Floats) -> None:
    """Draw a line from the middle of each eye along its gaze."""
    width = _width(face, 200)
    for eye, direction in zip(EYES, gaze, strict=True):
        start = face.landmarks[eye].mean(0)
        end = start + face.frame_from_head[:, :3] @ direction * GAZE_MM
        (x1, y1), (x2, y2) = _fixed(np.stack([start, end])[:, :2]).tolist()
        cv2.line(picture, (x1, y1), (x2, y2), INK, width + 2, cv2.LINE_AA, _SHIFT)
        cv2.line(picture, (x1, y1), (x2, y2), GAZE, width, cv2.LINE_AA, _SHIFT)


def _draw_label(picture: Image, face: Face, accent: Color) -> None:
    """Write track and confidence on a dark plate above the face, inside the picture."""
    text = f"{face.confidence:.2f}" if face.track is None else f"#{face.track}  {face.confidence:.2f}"
    if face.attention is not None:
        text += f"  {_state(face.attention)}"
    size = int(np.clip(_side(face) / 20, 11, 96))
    pad = size // 2
    width, height = text_width(text, size) + 3 * pad, size + pad
    left = int(np.clip(face.box[0], 0, max(0, picture.shape[1] - width)))
    top = int(np.clip(face.box[1] - height, 0, max(0, picture.shape[0] - height)))
    plate = picture[top : top + height, left : left + width]
    cv2.addWeighted(plate, 0.3, np.full_like(plate, INK), 0.7, 0, dst=plate)
    plate[:, : max(2, pad // 3)] = accent
    put_text(picture, text, left + 3 * pad // 2, top + height - round(pad * 0.8), size, PAPER)


def _state(attention: Attention) -> str:
    """Return the words for the state of a person that stands beside the track."""
    eyes = "eyes closed" if attention.closed_s else f"eyes {sum(attention.eyes_open) / 2:.1f}"
    words = [eyes, "yawns" if attention.yawning else "", "speaks" if attention.speaking > 0.5 else ""]
    if attention.off_zone_s is not None:
        words.append(attention.zone or f"off {attention.off_zone_s:.1f} s")
    return "  ".join(filter(None, [*words, attention.drowsiness or ""]))


def _crop_scene(frame: Frame, face: Face, tile: int) -> Scene:
    """Cut out an upright square around one face, tile x tile pixels, and fill it with paper colour outside the
    frame."""
    square = square_from_camera(face.frame_from_head)
    crop = align(frame.image, Square(square.x, square.y, square.side * CROP_ROOM), tile)
    scale, corner = float(crop.frame_from_crop[0, 0]), crop.frame_from_crop[:, 3]
    x1, y1 = np.clip(np.ceil((-0.5 - corner[:2]) / scale), 0, tile).astype(int)
    x2, y2 = np.clip(np.floor((np.array(frame.size) - 0.5 - corner[:2]) / scale), 0, tile).astype(int)
    image = np.full_like(crop.image, PAPER)
    image[y1:y2, x1:x2] = crop.image[y1:y2, x1:x2]
    camera = face.frame_from_head.copy()
    camera[:, 3] -= corner
    moved = replace(face, frame_from_head=camera / scale, landmarks=(face.landmarks - corner) / scale)
    return Scene(replace(frame, image=image), (moved,))


def _studio(face: Face, yaw: float, tile: int, template: FaceTemplate, eyes: bool) -> Image:
    """Draw the mesh alone on paper, turned by `yaw` degrees."""
    scale = tile / (CROP_SIDE_MM * CROP_ROOM)
    solid, triangles, colours = _solid(face, template, eyes)
    turned = solid @ rotation_from_euler(0, yaw, 0).T * scale
    middle = (turned.min(0) + turned.max(0)) / 2
    mesh, coverage = render_mesh(turned - middle + (tile - 1) / 2, triangles, (tile, tile), colours)
    picture = np.full((tile, tile, 3), PAPER, np.uint8)
    # Eyes and mouth are holes in the mesh. Grey holes look like a bust, white ones like a mask.
    contours, nesting = cv2.findContours((coverage > 127).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    for contour, (_, _, _, parent) in zip(contours, nesting[0] if len(contours) else (), strict=True):
        if parent >= 0:
            cv2.drawContours(picture, [contour], -1, HOLLOW, cv2.FILLED)
    _blend(picture, mesh, coverage.astype(np.float32) * np.float32(1 / 255))
    return picture


def _join(pictures: list[Image], axis: int) -> Image:
    """Join pictures side by side (axis 1) or below each other (axis 0), with paper between them."""
    shape = list(pictures[0].shape)
    shape[axis] = pictures[0].shape[0] // 32
    gap = np.full(shape, PAPER, np.uint8)
    return np.concatenate([part for picture in pictures for part in (gap, picture)][1:], axis=axis)


@cache
def _font() -> cv2.FontFace | None:
    """Return the font, or None with OpenCV 4, which JetPack brings: it has stroked letters only."""
    return cv2.FontFace("sans") if hasattr(cv2, "FontFace") else None


def _width(face: Face, pixels: int) -> int:
    """Return the line width: one pixel per `pixels` of face."""
    return max(1, round(_side(face) / pixels))


def _fixed(points: Floats) -> NDArray[np.int32]:
    """Convert pixels to the fixed-point numbers that OpenCV draws with."""
    return np.asarray(np.rint(points * 2**_SHIFT), np.int32)


def _window(picture: Image, points: Floats, margin: int) -> tuple[Floats, Image] | None:
    """Return the part of the picture that holds the points (N, 3): its corner (x, y, 0) and a view of its pixels. None
    when the points lie outside."""
    height, width = picture.shape[:2]
    x1, y1 = np.maximum(np.floor(points[:, :2].min(0)).astype(int) - margin, 0)
    x2, y2 = np.minimum(np.ceil(points[:, :2].max(0)).astype(int) + margin + 1, (width, height))
    return (np.array([x1, y1, 0], np.float32), picture[y1:y2, x1:x2]) if x2 > x1 and y2 > y1 else None


def _blend(region: Image, over: Image, weight: Floats) -> None:
    """Blend `over` into the region in place, by `weight` (H, W), 0 to 1."""
    region[:] = cv2.blendLinear(region, over, 1 - weight, weight)

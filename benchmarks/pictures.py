"""Sample clip -> the README's pictures: a result, a small picture for each output, and the meaning of the Euler angles.

python benchmarks/pictures.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from facerecon_rt import Face, Pipeline, Reconstructor, Scene, load_template, open_source
from facerecon_rt.head import load_head
from facerecon_rt.pose import rotation_from_euler
from facerecon_rt.sinks.draw import draw_scene, montage
from facerecon_rt.sinks.parts import parts_of
from facerecon_rt.sinks.shade import CLAY, render_mesh
from facerecon_rt.types import Image
from facerecon_training.prepare import draw_clay

RESULTS = Path(__file__).with_name("results")
CLIP = Path("tests/data/talking_head.mp4")
MODEL = Path("models/face.onnx")
MOMENTS = (36, 77, 118)
"""Indices of the clip's frames that are shown."""
SMALL = 240
"""Side of the small pictures in pixels."""
HEAD_CENTRE_MM, HEAD_SIDE_MM = (0.0, -48.0, -60.0), 335.0
"""What a picture of a head shows: its centre and its side in mm."""
INK, BAR, PAPER = (60, 60, 60), (150, 110, 40), (250, 250, 250)
"""Colours in BGR."""


def euler_picture(face: Face, size: int = 300) -> Image:
    """Draw a face at neutral, yaw +30, pitch +30 and roll +30, side by side."""
    cells = []
    for angle in ("", "yaw", "pitch", "roll"):
        cell = draw_clay(face.shape, size, **({angle: 30.0} if angle else {}))
        label = f"{angle} +30" if angle else "0"
        cv2.putText(cell, label, (12, size - 12), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (90, 60, 30), 1, cv2.LINE_AA)
        cells.append(cell)
    return np.hstack(cells)


def head_of(picture: Image, face: Face) -> Image:
    """Cut the square around the face's box, enlarged by half, out of the frame. Returns (SMALL, SMALL, 3) uint8 BGR."""
    left, top, right, bottom = face.box.tolist()
    side = 1.5 * (right - left)
    first_x, first_y = (max(0, round(middle - side / 2)) for middle in ((left + right) / 2, (top + bottom) / 2))
    cut = picture[first_y : first_y + round(side), first_x : first_x + round(side)]
    return np.asarray(cv2.resize(cut, (SMALL, SMALL), interpolation=cv2.INTER_AREA), np.uint8)


def bars(face: Face, names: Sequence[str], count: int = 8) -> Image:
    """Draw the `count` largest blendshape weights as bars. Returns (SMALL, SMALL, 3) uint8 BGR."""
    picture = np.full((SMALL, SMALL, 3), PAPER, np.uint8)
    step = SMALL // count
    strongest = sorted(zip(face.expression.tolist(), names, strict=True), reverse=True)[:count]
    for row, (weight, name) in enumerate(strongest):
        y = row * step + step // 2
        cv2.putText(picture, name, (6, y + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA)
        cv2.rectangle(picture, (134, y - 6), (134 + round(98 * weight), y + 6), BAR, cv2.FILLED)
        cv2.rectangle(picture, (134, y - 6), (232, y + 6), INK, 1)
    return picture


def output_pictures(scene: Scene, blendshapes: Sequence[str]) -> dict[str, Image]:
    """Return a small picture for each output of a face, by name. `blendshapes` are the names in the contract."""
    (face,) = scene.faces
    return {
        "mesh": draw_clay(face.vertices, SMALL, yaw=-30.0),
        "landmarks": head_of(draw_scene(scene, style="landmarks", axes=False, ids=False), face),
        "pose": head_of(draw_scene(scene, style="landmarks", landmarks=False, ids=False), face),
        "blendshapes": bars(face, blendshapes),
    }


def head_picture(scene: Scene) -> Image:
    """Return the head of `--mesh head --eyes` beside its frame: from the front, from two sides and from behind."""
    (face,) = scene.faces
    head = load_head(load_template())
    vertices = head.expressed(face.shape, face.vertices)
    triangles, colours = head.template.triangles, np.tile(np.array(CLAY, np.float32), (len(vertices), 1))
    parts = parts_of(head, vertices, face.shape, face.gaze, eyes=True)
    if parts is not None:
        triangles = np.vstack([triangles, parts.triangles + np.int32(len(vertices))])
        vertices, colours = np.vstack([vertices, parts.vertices]), np.vstack([colours, parts.colours])
    cells = [head_of(scene.frame.image, face)]
    for yaw in (0.0, 45.0, 90.0, 160.0):
        turned = (vertices - HEAD_CENTRE_MM) @ rotation_from_euler(0, yaw, 0).T * (SMALL / HEAD_SIDE_MM)
        points = (turned + np.array([SMALL / 2, SMALL / 2, 0])).astype(np.float32)
        picture, coverage = render_mesh(points, triangles, (SMALL, SMALL), colours)
        alpha = coverage[..., None] / np.float32(255)
        cells.append(np.asarray(alpha * picture + (1 - alpha) * 255, np.uint8))
    return np.hstack(cells)


def main() -> None:
    """Write sample.jpg, euler.jpg, head.jpg and the small pictures in outputs/."""
    scenes: list[Scene] = []
    with Reconstructor(MODEL, provider="cpu") as reconstructor, open_source(CLIP) as source:
        names = reconstructor.contract.blendshapes
        scenes.extend(scene for scene in Pipeline(reconstructor).run(source) if scene.frame.index in MOMENTS)
    rows = [montage(scene, eyes=True) for scene in scenes]
    width = min(row.shape[1] for row in rows)
    cv2.imwrite(str(RESULTS / "sample.jpg"), np.vstack([row[:, :width] for row in rows]))
    cv2.imwrite(str(RESULTS / "euler.jpg"), euler_picture(scenes[0].faces[0]))
    heads = np.vstack([head_picture(scene) for scene in scenes[:2]])
    cv2.imwrite(str(RESULTS / "head.jpg"), heads, [cv2.IMWRITE_JPEG_QUALITY, 85])
    (RESULTS / "outputs").mkdir(exist_ok=True)
    for name, picture in output_pictures(scenes[1], names).items():
        cv2.imwrite(str(RESULTS / "outputs" / f"{name}.jpg"), picture)


if __name__ == "__main__":
    main()

"""Sample clip -> the README's pictures: what a result looks like, and what the Euler angles mean.

python benchmarks/pictures.py
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from facerecon_rt import Face, Pipeline, Reconstructor, Scene, load_template, open_source
from facerecon_rt.align import CROP_CENTRE_MM
from facerecon_rt.draw import montage
from facerecon_rt.pose import rotation_from_euler
from facerecon_rt.shade import render_mesh
from facerecon_rt.types import Image

RESULTS = Path(__file__).with_name("results")
CLIP = Path("tests/data/talking_head.mp4")
MODEL = Path("models/face.onnx")
MOMENTS = (36, 77, 118)
"""Frames of the clip that are shown."""


def turned(face: Face, pitch: float, yaw: float, roll: float, size: int) -> Image:
    """The face's neutral shape at the given angles in degrees, from the front, in clay."""
    linear = size / 210.0 * rotation_from_euler(pitch, yaw, roll)
    points = (face.shape - np.array(CROP_CENTRE_MM)) @ linear.T + [(size - 1) / 2, (size - 1) / 2, 0.0]
    picture, coverage = render_mesh(points.astype(np.float32), load_template().triangles, (size, size))
    alpha = coverage[..., None] / np.float32(255)
    return np.asarray(alpha * picture + (1 - alpha) * 250, np.uint8)


def euler_picture(face: Face, size: int = 300) -> Image:
    """Neutral, yaw +30, pitch +30, roll +30, side by side."""
    cells = []
    for label, angles in (
        ("0", (0, 0, 0)),
        ("yaw +30", (0, 30, 0)),
        ("pitch +30", (30, 0, 0)),
        ("roll +30", (0, 0, 30)),
    ):
        cell = turned(face, *angles, size)
        cv2.putText(cell, label, (12, size - 12), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (90, 60, 30), 1, cv2.LINE_AA)
        cells.append(cell)
    return np.hstack(cells)


def main() -> None:
    """Write sample.jpg and euler.jpg."""
    scenes: list[Scene] = []
    with Reconstructor(MODEL, provider="cpu") as reconstructor, open_source(CLIP) as source:
        scenes.extend(scene for scene in Pipeline(reconstructor).run(source) if scene.frame.index in MOMENTS)
    rows = [montage(scene) for scene in scenes]
    width = min(row.shape[1] for row in rows)
    cv2.imwrite(str(RESULTS / "sample.jpg"), np.vstack([row[:, :width] for row in rows]))
    cv2.imwrite(str(RESULTS / "euler.jpg"), euler_picture(scenes[0].faces[0]))


if __name__ == "__main__":
    main()

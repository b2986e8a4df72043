"""Sample clip -> the README's pictures: what a result looks like, and what the Euler angles mean.

python benchmarks/pictures.py
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from facerecon_rt import Face, Pipeline, Reconstructor, Scene, open_source
from facerecon_rt.draw import montage
from facerecon_rt.types import Image
from facerecon_training.prepare import draw_clay

RESULTS = Path(__file__).with_name("results")
CLIP = Path("tests/data/talking_head.mp4")
MODEL = Path("models/face.onnx")
MOMENTS = (36, 77, 118)
"""Frames of the clip that are shown."""


def euler_picture(face: Face, size: int = 300) -> Image:
    """Neutral, yaw +30, pitch +30, roll +30, side by side."""
    cells = []
    for angle in ("", "yaw", "pitch", "roll"):
        cell = draw_clay(face.shape, size, **({angle: 30.0} if angle else {}))
        label = f"{angle} +30" if angle else "0"
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

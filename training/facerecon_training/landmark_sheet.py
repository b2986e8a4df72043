"""Packed photographs -> a sheet that shows their landmarks, and a message where left and right are swapped."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from facerecon_rt.template import IBUG_MIRROR
from facerecon_rt.types import Floats, Image
from numpy.typing import NDArray

from .arrays import read_arrays

OUTER_CORNERS = 36, 45
"""Landmarks at the outer corners of the subject's right and left eye."""
RIGHT, MIDDLE, LEFT = (60, 60, 255), (255, 255, 255), (60, 220, 60)
"""Colours, BGR, of the subject's sides."""
COLUMNS = 8


def check_landmarks(packed: Path) -> None:
    """Write sheet.jpg into a folder of packed photographs, and say where their points are not in iBUG's order."""
    points = read_arrays(packed / "labels.npz")["landmarks"]
    sheet = packed / "sheet.jpg"
    cv2.imwrite(str(sheet), landmark_sheet(np.load(packed / "images.npy", mmap_mode="r"), points))
    right, left = (points[:, corner, 0] for corner in OUTER_CORNERS)
    swapped = int((right > left).sum())
    if swapped > len(points) / 2:
        print(
            f"{packed.name}: in {swapped} of {len(points)} photographs, the subject's right eye (point 37) is on the "
            "right of the left eye (point 46). iBUG's order counts from the subject's right side, which is on the left "
            f"of the picture. Look at {sheet}: points of that side are red"
        )


def landmark_sheet(images: NDArray[np.uint8], points: Floats, most: int = 40) -> Image:
    """Draw at most `most` of the canvases (N, S, S, 3) with their landmarks (N, 68, 2), spread over all of them."""
    mirror, own = np.array(IBUG_MIRROR), np.arange(len(IBUG_MIRROR))
    # iBUG counts from the subject's right to the left.
    colours = [(LEFT, MIDDLE, RIGHT)[sign + 1] for sign in np.sign(mirror - own).tolist()]
    cells = []
    for index in np.linspace(0, len(images) - 1, min(most, len(images))).astype(int):
        cell = np.array(images[index])
        for (x, y), colour in zip(points[index].tolist(), colours, strict=True):
            if np.isfinite(x):
                cv2.circle(cell, (round(x), round(y)), 2, colour, -1, cv2.LINE_AA)
        cells.append(cell)
    columns = min(COLUMNS, len(cells))
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    return np.vstack([np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)])

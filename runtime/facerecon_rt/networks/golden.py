"""A drawn face and a network's answer to it -> whether a provider computes the file correctly.

Broken drivers and engines return wrong numbers, not errors. Each file therefore stores in its contract an answer for
one picture that every machine can draw, and is tested with it when it is opened. It is PyTorch's answer, or in int8
files their own in exact arithmetic: a drawn face is unlike the photographs by which the steps of int8 were chosen, so
that rounding may move its landmarks by more than a pixel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..align import CROP_CENTRE_MM, CROP_SIDE_MM
from ..contract import GOLDEN_COLUMNS, ModelContract
from ..template import load_template
from ..types import Floats, Image

Doubles = NDArray[np.float64]
TOLERANCES = {"fp32": 0.05, "fp16": 0.2, "int8": 0.8}
"""Maximum mean distance to the golden answer for each precision, in crop pixels and in mm."""
SKIN, LIPS, DARK, BEHIND = (140, 165, 215), (95, 85, 175), (35, 40, 55), (90, 90, 80)
"""Colours as (blue, green, red), 0 to 255."""
DOTS = (
    (range(17, 27), 3.0, DARK),  # brows
    (range(36, 48), 2.6, DARK),  # eyes
    (range(31, 36), 2.0, DARK),  # nostrils
    (range(48, 68), 3.2, LIPS),
)
"""Landmarks, the radius in mm of the dots drawn on them, and their colour."""


def golden_crop(size: int) -> Image:
    """Draw an upright face of soft dots at the landmarks of the mean face. Returns (size, size, 3) uint8 BGR."""
    scale = size / CROP_SIDE_MM
    points = (load_template().landmark_positions - CROP_CENTRE_MM)[:, :2] * [scale, -scale] + (size - 1) / 2
    y, x = np.mgrid[:size, :size].astype(np.float64)
    chin, brows = points[8], points[19:25].mean(0)
    middle, radii = (chin + brows) / 2, np.array([0.62, 0.78]) * (chin[1] - brows[1])
    inside = 1 - np.hypot((x - middle[0]) / radii[0], (y - middle[1]) / radii[1])
    # The light comes from the upper left.
    shade = 1 + 0.15 * ((middle[0] - x) + (middle[1] - y)) / size
    picture = _blend(
        np.full((size, size, 3), BEHIND, np.float64), np.multiply(shade[..., None], SKIN), np.clip(inside * 12, 0, 1)
    )
    for landmarks, radius, colour in DOTS:
        squared = np.min([(x - px) ** 2 + (y - py) ** 2 for px, py in points[list(landmarks)]], axis=0)
        picture = _blend(picture, colour, np.exp(-squared / (2 * (radius * scale) ** 2)))
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _blend(below: Doubles, above: ArrayLike, share: Doubles) -> Doubles:
    return below + share[..., None] * (np.asarray(above) - below)


def golden_answer(landmarks: Floats, vertices: Floats) -> tuple[float, ...]:
    """Return the part of a network's answer to the golden crop that the contract stores.

    `landmarks`: (68, 3). `vertices`: (V, 3). Each landmark has its place in the crop in pixels, and the vertex it lies
    on in mm.
    """
    rows = np.concatenate([landmarks[:, :2], vertices[load_template().landmarks]], 1)
    return tuple(round(float(value), 3) for value in rows.ravel())


def distances(contract: ModelContract, landmarks: Floats, vertices: Floats) -> tuple[float, float]:
    """Return the mean distances in crop pixels and in mm of an answer (68, 3), (V, 3) to the golden answer, which the
    contract must have."""
    expected = np.reshape(contract.golden, (68, GOLDEN_COLUMNS))
    answer = np.reshape(golden_answer(landmarks, vertices), (68, GOLDEN_COLUMNS))
    off = answer - expected
    return float(np.linalg.norm(off[:, :2], axis=1).mean()), float(np.linalg.norm(off[:, 2:], axis=1).mean())


def failure(contract: ModelContract, landmarks: Floats, vertices: Floats) -> str:
    """Return a description of how an answer (68, 3), (V, 3) to the golden crop is wrong; "" for a correct answer. The
    contract must have a golden answer."""
    pixels, millimetres = distances(contract, landmarks, vertices)
    allowed = TOLERANCES[contract.precision]
    # The comparison is not "larger than", so that NaN counts as wrong.
    if pixels <= allowed and millimetres <= allowed:
        return ""
    return (
        f"its self-test fails: landmarks of the golden crop are off by {pixels:.2f} pixels and vertices by "
        f"{millimetres:.2f} mm, more than the allowed {allowed}"
    )

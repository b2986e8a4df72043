"""Blendshape weights -> lines in the skin, as a texture that darkens it.

ICT-FaceKit's meshes are too coarse for the folds by which people tell a lowered brow from a low brow, and a wrinkled
nose from a broad nose. This module draws the folds between landmarks of the mean head. They deepen with the expression.
Older people have them even at rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.types import Floats
from numpy.typing import NDArray

SIDE = 384
"""Side of the texture in pixels."""
LEFT_MM, TOP_MM, SPAN_MM = -100.0, 110.0, 240.0
"""The texture's left and upper edge in the head frame, and its extent. It is seen from the front."""
_INDEX = {name: i for i, name in enumerate(BLENDSHAPES)}
Lines = list[NDArray[np.floating]]
"""Polylines (K, 2) in mm."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Lines that deepen together."""

    lines: Callable[[Floats, float], Lines]
    """Function of landmarks (68, 2) in mm and a side (1 for the subject's left, -1 for the right) -> lines."""
    by: Mapping[str, float]
    """Blendshapes without _L or _R that deepen the lines, with their shares."""
    width_mm: float
    depth: float
    """Share of the light that the deepest line takes."""


def _corner(landmarks: Floats, left: int, right: int, side: float) -> Floats:
    return np.asarray(landmarks[left if side > 0 else right])


def _glabella(p: Floats, side: float) -> Lines:
    x, y = _corner(p, 22, 21, side)
    return [np.array([[x - side * 6, y - 9], [x - side * 5, y], [x - side * 3, y + 9]])]


def _root(p: Floats, side: float) -> Lines:
    y = p[27, 1]
    return [np.array([[0, y + up], [side * 4, y + up - 0.5], [side * 8, y + up + 1]]) for up in (-1.0, 3.5)]


def _bunny(p: Floats, side: float) -> Lines:
    y = p[27, 1]
    return [
        np.array([[side * 4, y - 5 - k], [side * 9, y - 8 - k], [side * 14, y - 8 - 1.3 * k]]) for k in (0.0, 4.0, 8.0)
    ]


def _wing(p: Floats, side: float) -> Lines:
    x, y = _corner(p, 35, 31, side)
    return [np.array([[x + side * 1, y + 14], [x + side * 6, y + 10], [x + side * 8, y + 2]])]


def _forehead_middle(p: Floats, side: float) -> Lines:
    y = _corner(p, 23, 20, side)[1]
    return [
        np.array([[0, y + k - 2], [side * 10, y + k - 1], [side * 22, y + k + 1]]) for k in (11.0, 18.0, 25.0, 32.0)
    ]


def _forehead_side(p: Floats, side: float) -> Lines:
    x, y = _corner(p, 24, 19, side)
    return [
        np.array([[x - side * 14, y + k], [x, y + k + 2], [x + side * 14, y + k - 2]]) for k in (9.0, 16.0, 23.0, 30.0)
    ]


def _crow(p: Floats, side: float) -> Lines:
    x, y = _corner(p, 45, 36, side)
    return [
        np.array([[x + side * 4, y + k], [x + side * 9, y + 2.2 * k], [x + side * 15, y + 3 * k]]) for k in (-3, 0, 3)
    ]


def _bag(p: Floats, side: float) -> Lines:
    (a, b), (c, d) = _corner(p, 42, 39, side), _corner(p, 45, 36, side)
    middle, height = (a + c) / 2, (b + d) / 2
    return [np.array([[a + side, b - 5], [middle, height - 12 - k], [c + side * 2, d - 7 - k]]) for k in (0.0, 3.5)]


def _nasolabial(p: Floats, side: float) -> Lines:
    (x, y), (x2, y2) = _corner(p, 35, 31, side), _corner(p, 54, 48, side)
    middle = [(x + x2) / 2 + side * 13, (y + y2) / 2]
    return [np.array([[x + side * 4, y + 6], [x + side * 9, y], middle, [x2 + side * 11, y2 + 1]])]


def _bracket(p: Floats, side: float) -> Lines:
    x, y = _corner(p, 54, 48, side)
    return [np.array([[x + side * 4, y + 6], [x + side * 6.5, y], [x + side * 4, y - 7]])]


def _marionette(p: Floats, side: float) -> Lines:
    x, y = _corner(p, 54, 48, side)
    return [np.array([[x + side * 2, y - 1], [x + side * 6, y - 9], [x + side * 7, y - 18]])]


def _chin(p: Floats, side: float) -> Lines:
    y = 0.55 * p[57, 1] + 0.45 * p[8, 1]
    return [np.array([[0, y + 2], [side * 8, y], [side * 13, y - 4]])]


FOLDS = (
    Fold(_glabella, {"browDown": 1.0, "browInnerUp": 0.2}, 2.4, 0.55),
    Fold(_root, {"noseSneer": 0.7, "browDown": 0.5}, 2.2, 0.45),
    Fold(_bunny, {"noseSneer": 1.0}, 2.0, 0.45),
    Fold(_wing, {"noseSneer": 1.0, "mouthUpperUp": 0.5}, 3.0, 0.4),
    Fold(_forehead_middle, {"browInnerUp": 1.0}, 2.4, 0.35),
    Fold(_forehead_side, {"browOuterUp": 1.0}, 2.4, 0.35),
    Fold(_crow, {"cheekSquint": 0.8, "eyeSquint": 0.5, "mouthSmile": 0.4}, 1.8, 0.35),
    Fold(_bag, {"cheekSquint": 0.8, "eyeSquint": 0.7, "mouthSmile": 0.3}, 2.4, 0.3),
    Fold(_nasolabial, {"mouthSmile": 1.0, "mouthUpperUp": 0.7, "noseSneer": 0.7, "mouthStretch": 0.4}, 3.6, 0.5),
    Fold(_bracket, {"mouthDimple": 1.0, "mouthPress": 0.8, "mouthSmile": 0.4}, 2.4, 0.4),
    Fold(_marionette, {"mouthFrown": 1.0, "mouthShrugLower": 0.3}, 2.8, 0.4),
    Fold(_chin, {"mouthShrugLower": 1.0, "mouthFrown": 0.4, "mouthPress": 0.3}, 3.6, 0.4),
)
"""Folds of the face. They follow Ekman and Friesen's Facial Action Coding System, 1978."""


class Wrinkles:
    """The folds of one person."""

    def __init__(self, landmarks: Floats, random: np.random.Generator) -> None:
        """Draw the folds between landmarks (68, 3) of the mean head, a little different in each person."""
        self.age = float(random.uniform(0, 1))
        self.maps: list[Floats] = []
        """Pairs of masks (SIDE, SIDE), 0..1, of the folds on the subject's left and right."""
        self.depths: list[float] = []
        self.at_rest: list[float] = []
        points = np.asarray(landmarks[:, :2], np.float32)
        for fold in FOLDS:
            shift = random.normal(0, 1.0, 2)
            self.depths.append(fold.depth * (0.5 + 0.75 * self.age) * random.uniform(0.6, 1.2))
            self.at_rest.append(self.age**2 * random.uniform(0, 0.6))
            for side in (1.0, -1.0):
                lines = [
                    line + shift * [side, 1] + random.normal(0, 0.4, line.shape) for line in fold.lines(points, side)
                ]
                self.maps.append(_drawn(lines, fold.width_mm * random.uniform(0.8, 1.2)))

    def texture(self, weights: Floats) -> Floats:
        """Return the texture (SIDE, SIDE, 4) of a face with blendshape weights (53,): factors of the skin's albedo, and
        alpha 1."""
        amounts = []
        for fold, depth, rest in zip(FOLDS, self.depths, self.at_rest, strict=True):
            for side in "LR":
                pulled = sum(
                    share * weights[_INDEX[f"{name}_{side}" if f"{name}_{side}" in _INDEX else name]]
                    for name, share in fold.by.items()
                )
                amounts.append(depth * min(rest + pulled, 1.2))
        dark = np.tensordot(np.array(amounts, np.float32), np.stack(self.maps), 1).clip(0, 0.75)
        # Light that comes out of a fold has passed through skin, which is red.
        factors = 1 - dark[:, :, None] * np.array([1.0, 0.95, 0.75], np.float32)
        return np.dstack([factors, np.ones_like(dark)]).astype(np.float32)


def texture_coordinates(head_vertices: Floats) -> Floats:
    """Return texture coordinates (H, 2), v upwards, of the vertices (H, 3) of the mean head in mm."""
    u = (head_vertices[:, 0] - LEFT_MM) / SPAN_MM
    v = 1 - (TOP_MM - head_vertices[:, 1]) / SPAN_MM
    # The back of the head has no folds. Its place is a corner of the texture without lines.
    behind = head_vertices[:, 2] < -20
    return np.stack([np.where(behind, 0.99, u), np.where(behind, 0.99, v)], 1).clip(0.01, 0.99).astype(np.float32)


def _drawn(lines: Sequence[NDArray[np.floating]], width_mm: float) -> Floats:
    """Return a mask (SIDE, SIDE) of soft lines that are deepest in their middle."""
    canvas = np.zeros((SIDE, SIDE), np.float32)
    scale = SIDE / SPAN_MM
    for line in lines:
        smooth = _smoothed(line)
        pixels = np.stack([smooth[:, 0] - LEFT_MM, TOP_MM - smooth[:, 1]], 1) * scale
        for k in range(len(pixels) - 1):
            fade = np.sin(np.pi * (k + 1) / len(pixels)) ** 0.5
            ends = np.round(pixels[k : k + 2] * 8).astype(np.int32)
            one = (int(ends[0, 0]), int(ends[0, 1])), (int(ends[1, 0]), int(ends[1, 1]))
            cv2.line(canvas, *one, float(fade), 1, cv2.LINE_AA, shift=3)
    sigma = 0.4 * width_mm * scale
    blurred = cv2.GaussianBlur(canvas, (0, 0), sigma) * sigma * 2.2
    return np.asarray(blurred.clip(0, 1), np.float32)


def _smoothed(line: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return points of a quadratic spline through a polyline's corners."""
    at = np.linspace(0, len(line) - 1, 16)
    degree = min(len(line) - 1, 2)
    fit = [np.polyval(np.polyfit(np.arange(len(line)), line[:, axis], degree), at) for axis in (0, 1)]
    return np.stack(fit, 1)

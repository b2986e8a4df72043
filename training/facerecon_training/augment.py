"""Canvas -> crop as an imperfect camera and detector would give it. Labels follow the crop."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import cv2
import numpy as np
from facerecon_rt.align import Square, align
from facerecon_rt.template import IBUG_MIRROR
from facerecon_rt.types import Floats, Image
from numpy.typing import NDArray

from .photographs import CANVAS_MARGIN, CANVAS_SIZE
from .rendered.eyes import blink_labels, draw_lids


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """Strength and probability of each augmentation. Shifts and scales are cut at two and a half standard
    deviations, and turns at 45 degrees."""

    roll_deg: float = 14.0
    shift: float = 0.04
    """Standard deviation of the shift, as a share of the crop's side."""
    log_scale: float = 0.08
    flip: float = 0.5
    """Probability of mirroring. It applies to photographs only."""
    grey: float = 0.1
    blur: float = 0.15
    low_resolution: float = 0.15
    noise: float = 0.25
    jpeg: float = 0.2
    occluder: float = 0.15
    closed_eyes: float = 0.1
    """Probability of drawing the lids down in a photograph with open eyes."""
    cut: float = 0.1
    """Probability that the picture's edge cuts the face off. The part beyond a line is black, as `align` leaves it."""
    half_hidden: float = 0.05
    """Probability that half of the face is hidden."""
    dark: float = 0.06
    """Probability that a picture gets dark, by a gamma of 2 to 6."""
    gentle: float = 0.5
    """Share of the crops that are augmented gently, nearly as the runtime cuts them out of good pictures."""

    def gently(self) -> AugmentConfig:
        """Return the configuration of a gentle augmentation, with GENTLE times the jitter and the probabilities.

        The chance to be mirrored, and to get lids drawn, remains.
        """
        kept = ("flip", "closed_eyes", "gentle")
        return replace(self, **{f.name: GENTLE * getattr(self, f.name) for f in fields(self) if f.name not in kept})


GENTLE = 0.35
"""Strength of a gentle augmentation. The runtime reads a face again where its square is off by more than 0.05 sides or
11 degrees, so that most crops are off by less."""


def ideal_square() -> Square:
    """Return the square of the crop in a canvas, without jitter."""
    return Square((CANVAS_SIZE - 1) / 2, (CANVAS_SIZE - 1) / 2, CANVAS_SIZE / CANVAS_MARGIN)


def jittered_square(config: AugmentConfig, random: np.random.Generator, ideal: Square | None = None) -> Square:
    """Return the ideal square, moved, scaled and turned by up to 45 degrees. The default is that of the canvas."""
    ideal = ideal or ideal_square()
    shift = np.clip(random.normal(0, config.shift, 2), -2.5 * config.shift, 2.5 * config.shift) * ideal.side
    limit = 2.5 * config.log_scale
    scale = math.exp(float(np.clip(random.normal(0, config.log_scale), -limit, limit)))
    roll = math.radians(float(np.clip(random.normal(0, config.roll_deg), -45, 45)))
    return Square(ideal.x + float(shift[0]), ideal.y + float(shift[1]), ideal.side * scale, ideal.roll + roll)


def bad_square(random: np.random.Generator) -> Square:
    """Return a square that misses the face or shows a fraction of it. Its confidence must be 0."""
    ideal = ideal_square()
    angle = random.uniform(0, 2 * math.pi)
    if random.random() < 0.5:
        reach = random.uniform(0.55, 0.75) * ideal.side
        x, y = ideal.x + reach * math.cos(angle), ideal.y + reach * math.sin(angle)
        return Square(x, y, ideal.side * random.uniform(0.6, 1.0), random.uniform(-0.7, 0.7))
    reach = random.uniform(0.1, 0.4) * ideal.side
    x, y = ideal.x + reach * math.cos(angle), ideal.y + reach * math.sin(angle)
    return Square(x, y, ideal.side * random.uniform(0.2, 0.4), random.uniform(-0.7, 0.7))


def crop_from_canvas(canvas: Image, square: Square, size: int) -> tuple[Image, Floats]:
    """Cut a crop out of a canvas by the runtime's own align.

    Returns the crop (size, size, 3) and crop_from_canvas (3, 4).
    """
    crop = align(canvas, square, size)
    canvas_from_crop = np.vstack([crop.frame_from_crop.astype(np.float64), [0, 0, 0, 1]])
    return crop.image, np.linalg.inv(canvas_from_crop)[:3].astype(np.float32)


def flipped(canvas: Image, landmarks: Floats) -> tuple[Image, Floats]:
    """Mirror a canvas and its (68, 2) landmarks. Left and right points change places."""
    mirrored = landmarks[IBUG_MIRROR].copy()
    mirrored[:, 0] = canvas.shape[1] - 1 - mirrored[:, 0]
    return np.ascontiguousarray(canvas[:, ::-1]), mirrored


class Blinked(NamedTuple):
    """A canvas with its eyes unchanged or drawn closed."""

    canvas: Image
    landmarks: Floats
    """Landmarks (68, 2), canvas pixels."""
    weights: Floats
    """Weights (2,) of eyeBlink for the left and the right eye."""
    known: NDArray[np.bool_]
    """Whether each weight is known, (2,)."""
    drawn: bool


def blinked(canvas: Image, landmarks: Floats, config: AugmentConfig, random: np.random.Generator) -> Blinked:
    """Draw lids over open eyes with the probability `closed_eyes`. The landmarks are (68, 2) canvas pixels."""
    weights, known = blink_labels(landmarks)
    drawn = False
    if random.random() < config.closed_eyes and (known & (weights == 0)).all():
        closed = 1.0 if random.random() < 0.7 else random.uniform(0.2, 1.0)
        left, right = ((1, 1), (1, 0), (0, 1))[random.choice(3, p=(0.5, 0.25, 0.25))]
        canvas, landmarks, weights = draw_lids(canvas, landmarks, np.array([left * closed, right * closed], np.float32))
        drawn = bool(weights.any())
    return Blinked(canvas, landmarks, weights, known, drawn)


def degrade(crop: Image, config: AugmentConfig, patch: Image, random: np.random.Generator) -> Image:
    """Degrade a crop, each step with its probability.

    The steps are colour, light, occluders cut out of `patch`, low resolution, blur, noise, JPEG and cut edges.
    """
    image = _recolour(crop, config, random)
    if random.random() < config.half_hidden:
        image = _hide_half(image, patch, random)
    if random.random() < config.occluder:
        image = _occlude(image, patch, random)
    if random.random() < config.low_resolution:
        small = int(random.uniform(0.2, 0.7) * len(image))
        reduced = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.resize(reduced, image.shape[:2]), np.uint8)
    if random.random() < config.blur:
        if random.random() < 0.5:
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), random.uniform(0.4, 2.0)), np.uint8)
        else:
            image = _motion_blur(image, int(random.integers(3, 10)), random.uniform(0, math.pi))
    if random.random() < config.noise:
        noise = np.empty(image.shape, np.int16)
        # One value per channel: OpenCV takes a number for the first channel alone.
        cv2.randn(noise, np.zeros(3), np.full(3, random.uniform(2, 16)))
        image = np.asarray(cv2.add(image.astype(np.int16), noise).clip(0, 255), np.uint8)
    if random.random() < config.jpeg:
        _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(12, 90))])
        image = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    if random.random() < config.cut:
        image = _cut(image, random)
    return np.asarray(image, np.uint8)


def _cut(image: Image, random: np.random.Generator) -> Image:
    """Blacken the crop beyond a line that leaves 40 to 90 % of it, nearly along one of its sides."""
    size = len(image)
    angle = random.integers(4) * math.pi / 2 + random.normal(0, 0.15)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    beyond = x * math.cos(angle) + y * math.sin(angle) > random.uniform(-0.1, 0.4) * size
    return np.where(beyond[..., None], 0, image).astype(np.uint8)


def _hide_half(image: Image, patch: Image, random: np.random.Generator) -> Image:
    """Hide one half of the crop, left, right or below, behind a flat colour or the patch."""
    size = len(image)
    angle = (0, math.pi, math.pi / 2)[random.integers(3)] + random.normal(0, 0.2)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    beyond = x * math.cos(angle) + y * math.sin(angle) > random.uniform(-0.05, 0.2) * size
    filling = cv2.resize(patch, (size, size)) if random.random() < 0.5 else random.integers(0, 256, 3)
    return np.where(beyond[..., None], filling, image).astype(np.uint8)


def _recolour(image: Image, config: AugmentConfig, random: np.random.Generator) -> Image:
    """Apply a gain, an offset and a gamma to each channel, in one table."""
    levels = np.linspace(0, 1, 256)[:, None]
    gamma = np.exp(random.normal(0, 0.25)) if random.random() > config.dark else random.uniform(2, 6)
    gain = np.exp(random.normal(0, 0.18)) * np.exp(random.normal(0, 0.07, 3))
    table = 255 * (levels**gamma * gain + random.normal(0, 0.05))
    image = np.asarray(cv2.LUT(image, table.clip(0, 255).astype(np.uint8)[None]), np.uint8)
    if random.random() < config.grey:
        image = np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8)
    return image


def _occlude(image: Image, patch: Image, random: np.random.Generator) -> Image:
    """Cover part of the crop with an ellipse or a turned box, filled from the patch or with a flat colour."""
    size = len(image)
    mask = np.zeros((size, size), np.uint8)
    centre = tuple(random.integers(0, size, 2).tolist())
    axes = tuple((random.uniform(0.08, 0.32, 2) * size).astype(int).tolist())
    if random.random() < 0.5:
        cv2.ellipse(mask, centre, axes, random.uniform(0, 180), 0, 360, 255, -1)
    else:
        corners = cv2.boxPoints((centre, (2 * axes[0], 2 * axes[1]), random.uniform(0, 180)))
        cv2.fillConvexPoly(mask, corners.astype(np.int32), 255)
    if random.random() < 0.5:
        filling = cv2.resize(patch, (size, size))
    else:
        filling = np.full_like(image, random.integers(0, 256, 3).astype(np.uint8))
    return np.where(mask[..., None] > 0, filling, image).astype(np.uint8)


def _motion_blur(image: Image, length: int, angle: float) -> Image:
    kernel = np.zeros((length, length), np.float32)
    middle = (length - 1) / 2
    dx, dy = math.cos(angle) * middle, math.sin(angle) * middle
    start, end = (round(middle - dx), round(middle - dy)), (round(middle + dx), round(middle + dy))
    cv2.line(kernel, start, end, 1.0)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)

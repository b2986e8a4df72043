"""Labelled pictures -> scenes to learn from: faces of every size, turned, hidden, blurred, dark, on other pictures."""

from __future__ import annotations

import math

import cv2
import numpy as np
from facerecon_rt.pose import Doubles
from facerecon_rt.types import Floats, Image

from .detector_data import DetectorCache

LEAST_SIDE = 7.0
"""Pixels: smaller faces are ignored, neither learnt nor punished."""
LARGEST_SIDE = 235.0
SMALL_FACES = (8.0, 80.0)
"""Sides in a mosaic, pixels."""
CONTEXT = ("helen-train", "afw", "lfpw-train", "head_pose")
"""Photographs with something to see around the face."""
GROUP_SHARES = {
    "helen-train": 0.22, "afw": 0.12, "lfpw-train": 0.2, "head_pose": 0.14, "aaf-train": 0.22, "youtube-train": 0.1,
}  # fmt: skip
CONTEXT_SHARES = {"helen-train": 0.32, "afw": 0.18, "lfpw-train": 0.3, "head_pose": 0.2}


class SceneMaker:
    """Draws scenes of size x size pixels from the cache; seed and step decide what is in them."""

    def __init__(self, cache: DetectorCache, size: int, seed: int) -> None:
        self.cache = cache
        self.size = size
        self.seed = seed
        self.rng = np.random.default_rng(seed)
        usable = ~cache.held_out
        self._of_group = {str(g): np.flatnonzero((cache.groups == g) & usable) for g in np.unique(cache.groups)}

    def batch(self, step: int, count: int) -> tuple[list[Image], list[Floats]]:
        """The scenes of one training step: the same ones after a resume."""
        self.rng = np.random.default_rng([self.seed, step])
        scenes = [self.scene() for _ in range(count)]
        return [image for image, _ in scenes], [labels for _, labels in scenes]

    def scene(self) -> tuple[Image, Floats]:
        """One picture (S, S, 3) uint8 BGR and its labels (K, 4): centre x, y, side, 1 known or 0 to ignore."""
        rng = self.rng
        canvas, labels = self._background()
        draw = rng.random()
        if draw < 0.5:
            # A portrait: one photograph whose face is large, and perhaps a few small ones before it.
            shares = CONTEXT_SHARES if rng.random() < 0.8 else GROUP_SHARES
            labels = self._paste(canvas, labels, self._draw(shares), loguniform(rng, 40, LARGEST_SIDE), force=True)
            count = int(rng.integers(0, 4)) if rng.random() < 0.5 else 0
        else:
            # A mosaic: many small faces among pieces of other pictures; sometimes pieces only.
            count = 0 if draw > 0.95 else int(rng.integers(3, 11))
            for _ in range(int(rng.integers(0, 4))):
                labels = self._paste(canvas, labels, self._draw({"backgrounds": 1.0}), 0.0)
        for _ in range(count):
            labels = self._paste(canvas, labels, self._draw(GROUP_SHARES), loguniform(rng, *SMALL_FACES))
        for label in labels:
            if label[3] and rng.random() < 0.15:
                occlude(rng, canvas, label, self.cache.image(self._draw({"backgrounds": 1.0})))
        return degrade(rng, canvas), np.array(labels, np.float32).reshape(-1, 4)

    def _draw(self, shares: dict[str, float]) -> int:
        names = [name for name in shares if len(self._of_group.get(name, ()))]
        weights = np.array([shares[name] for name in names])
        return int(self.rng.choice(self._of_group[str(self.rng.choice(names, p=weights / weights.sum()))]))

    def _background(self) -> tuple[Image, list[list[float]]]:
        """A piece of a background picture, or one colour."""
        rng, size = self.rng, self.size
        if rng.random() < 0.1:
            colour = rng.integers(0, 256, 3) if rng.random() < 0.5 else np.full(3, rng.integers(0, 256))
            return np.full((size, size, 3), colour, np.uint8), []
        index = self._draw({"backgrounds": 1.0})
        image = self.cache.image(index)
        # Large enough that the turned picture covers the canvas.
        cover = size / min(image.shape[:2])
        angle = rng.uniform(-0.3, 0.3)
        scale = cover * (math.cos(angle) + abs(math.sin(angle))) * loguniform(rng, 1.0, 2.0)
        middle = np.array([image.shape[1] / 2, image.shape[0] / 2])
        matrix = similarity(scale, angle, rng.random() < 0.5, middle, np.array([size / 2, size / 2]))
        canvas = warp(image, matrix, scale, (size, size), cv2.BORDER_REFLECT_101)
        return canvas, move_labels(self.cache.faces[index], matrix, scale, size)

    def _paste(
        self, canvas: Image, labels: list[list[float]], index: int, side: float, force: bool = False
    ) -> list[list[float]]:
        """Puts picture `index` on the canvas so that its first face gets `side` pixels -> the labels that now hold.

        Where it would cover a face already there it tries elsewhere and then gives up, unless `force`.
        """
        rng, size = self.rng, self.size
        image, faces = self.cache.image(index), self.cache.faces[index]
        height, width = image.shape[:2]
        if side > 0:
            scale = side / float(faces[0, 2])
            anchor = faces[0, :2].astype(np.float64)
        else:
            scale = loguniform(rng, 0.1, 0.5) * size / max(height, width)
            anchor = np.array([width / 2, height / 2])
        angle = float(rng.uniform(-0.7, 0.7)) if rng.random() < 0.4 else float(rng.normal(0, 0.12))
        flip = bool(rng.random() < 0.5)
        # Large faces may reach beyond the canvas, but their middle and most of them lie in it.
        room = min(0.35 * side, size / 2 - 1) if side > 0 else 0.0
        for _ in range(8):
            target = rng.uniform(room, size - room, 2)
            matrix = similarity(scale, angle, flip, anchor, target)
            corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]) @ matrix.T
            x1, y1 = np.maximum(np.floor(corners.min(0)), 0).astype(int)
            x2, y2 = np.minimum(np.ceil(corners.max(0)) + 1, size).astype(int)
            if x2 - x1 < 4 or y2 - y1 < 4:
                continue
            covered = [share_covered(label, x1, y1, x2, y2) for label in labels]
            if force or not covered or max(covered) < 0.15:
                break
        else:
            return labels
        shifted = matrix - np.array([[0, 0, x1], [0, 0, y1]])
        box = (int(x2 - x1), int(y2 - y1))
        tile = warp(image, shifted, scale, box, cv2.BORDER_REPLICATE)
        mask = np.full((height, width), 255, np.uint8)
        if rng.random() < 0.5:
            # Soft edges: otherwise the edges of pasted pictures would announce faces.
            margin = max(1, int(rng.uniform(0.02, 0.1) * min(height, width)))
            mask[:margin], mask[-margin:], mask[:, :margin], mask[:, -margin:] = 0, 0, 0, 0
            mask = np.asarray(cv2.blur(mask, (margin * 2 + 1, margin * 2 + 1)), np.uint8)
        alpha = cv2.warpAffine(mask, shifted, box, flags=cv2.INTER_LINEAR)[..., None].astype(np.uint16)
        part = canvas[y1:y2, x1:x2]
        part[:] = ((tile * alpha + part * (255 - alpha) + 127) // 255).astype(np.uint8)
        kept = [label for label in labels if share_covered(label, x1, y1, x2, y2) < 0.15]
        return kept + move_labels(faces, matrix, scale, size)


def loguniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Every doubling as likely as every other."""
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def similarity(scale: float, angle: float, flip: bool, anchor: Doubles, target: Doubles) -> Doubles:
    """(2, 3) canvas_from_image that turns, mirrors and scales, and brings `anchor` to `target`."""
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    linear = np.array([[c, -s], [s, c]]) @ np.diag([-1.0 if flip else 1.0, 1.0])
    return np.hstack([linear, (target - linear @ anchor)[:, None]])


def warp(image: Image, matrix: Doubles, scale: float, size: tuple[int, int], border: int) -> Image:
    """The image through canvas_from_image `matrix`; reduced by area averaging first where it shrinks."""
    if scale < 0.7:
        height, width = image.shape[:2]
        reduced = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(cv2.resize(image, reduced, interpolation=cv2.INTER_AREA), np.uint8)
        rx, ry = width / reduced[0], height / reduced[1]
        # image = (reduced + 0.5) * r - 0.5
        image_from_reduced = np.array([[rx, 0, 0.5 * rx - 0.5], [0, ry, 0.5 * ry - 0.5], [0, 0, 1]])
        matrix = matrix @ image_from_reduced
    return np.asarray(cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=border), np.uint8)


def move_labels(faces: Floats, matrix: Doubles, scale: float, size: int) -> list[list[float]]:
    """Labels of an image through canvas_from_image; those out of the canvas are dropped, the doubtful ignored."""
    moved = []
    for x, y, side, known in faces.astype(np.float64):
        cx, cy = (float(v) for v in matrix @ [x, y, 1.0])
        half = side * scale / 2
        if not (-half < cx < size + half and -half < cy < size + half):
            continue
        inside = 0 <= cx < size - 0.5 and 0 <= cy < size - 0.5
        moved.append([cx, cy, 2 * half, float(known > 0.5 and inside and 2 * half >= LEAST_SIDE)])
    return moved


def share_covered(label: list[float], x1: int, y1: int, x2: int, y2: int) -> float:
    """Share of a label's box that a rectangle covers."""
    x, y, side, _ = label
    width = min(x + side / 2, x2) - max(x - side / 2, x1)
    height = min(y + side / 2, y2) - max(y - side / 2, y1)
    return max(0.0, width) * max(0.0, height) / side**2


def occlude(rng: np.random.Generator, canvas: Image, label: list[float], cover: Image) -> None:
    """Hides part of a face in place: a bar across it or a patch, of one colour or cut from another picture."""
    x, y, side, _ = label
    if rng.random() < 0.5:
        width, height = side * rng.uniform(0.8, 1.2), side * rng.uniform(0.12, 0.45)
        middle = (x + side * rng.uniform(-0.1, 0.1), y + side * rng.uniform(-0.5, 0.55))
    else:
        width, height = side * rng.uniform(0.15, 0.5, 2)
        middle = (x + side * rng.uniform(-0.5, 0.5), y + side * rng.uniform(-0.5, 0.5))
    x1, y1 = (max(0, int(m - v / 2)) for m, v in zip(middle, (width, height), strict=True))
    part = canvas[y1 : max(y1, int(middle[1] + height / 2)), x1 : max(x1, int(middle[0] + width / 2))]
    if part.size == 0:
        return
    if rng.random() < 0.5:
        part[:] = rng.integers(0, 256, 3)
    else:
        part[:] = cv2.resize(cover, (part.shape[1], part.shape[0]), interpolation=cv2.INTER_AREA)


def degrade(rng: np.random.Generator, image: Image) -> Image:
    """What cameras do: light, colour, blur, noise, compression."""
    ramp = np.arange(256) / 255
    gain = rng.uniform(0.12, 0.5) if rng.random() < 0.1 else math.exp(rng.normal(0, 0.2))
    tone = ramp ** math.exp(rng.normal(0, 0.25)) * gain + rng.normal(0, 0.05)
    cast = np.exp(rng.normal(0, 0.08, 3)) if rng.random() < 0.6 else np.ones(3)
    table = np.clip(tone[:, None] * cast * 255, 0, 255).astype(np.uint8)
    image = np.asarray(cv2.LUT(image, table[None]), np.uint8)
    if rng.random() < 0.15:
        image = np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8)
    draw = rng.random()
    if draw < 0.15:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6)), np.uint8)
    elif draw < 0.22:
        length = int(rng.integers(3, 8))
        kernel = np.zeros((length, length), np.float32)
        cv2.line(kernel, (0, int(rng.integers(length))), (length - 1, int(rng.integers(length))), 1.0)
        image = np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)
    if rng.random() < 0.25:
        # Half a megabyte of random numbers per picture is slow to draw: a turned piece of one buffer does.
        noise = NOISE[int(rng.integers(64)) :, int(rng.integers(64)) :][: image.shape[0], : image.shape[1]]
        image = cv2.add(image, noise * rng.uniform(2, 14), dtype=cv2.CV_8U)
    if rng.random() < 0.4:
        _, packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 95))])
        image = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    return np.asarray(image, np.uint8)


NOISE = np.random.default_rng(0).standard_normal((704, 704, 3), np.float32)
"""Standard deviation 1; covers scenes of up to 640 pixels."""

"""Labelled pictures -> training scenes: faces of every size and roll, cut off, hidden, blurred, dark, on other
pictures."""

from __future__ import annotations

import math

import cv2
import numpy as np
from facerecon_rt.pose import Doubles
from facerecon_rt.types import Floats, Image

from .config import LARGEST_SCENE
from .data import LABEL, DetectorCache

LEAST_SIDE = 6.0
"""Side in pixels below which faces are ignored: they are neither learned nor penalised."""
LARGE_FACES = (40.0, 280.0)
"""Range of sides in a portrait, in pixels of a scene of 256."""
SMALL_FACES = (6.5, 80.0)
"""Range of sides in a mosaic, in pixels."""
HUGE_FACES = (300.0, 800.0)
"""Range of sides, in pixels of a scene of 256, of faces so near that the network never sees a whole face."""
NO_FACE = 420.0
"""Side from which on a part of a face does not count as a face. From the largest of LARGE_FACES up to this side, faces
are ignored."""
LEAST_VISIBLE, HARDLY_VISIBLE = 0.42, 0.05
"""Shares of a box inside the picture. From the first on a face must be found; below the second it is no face."""
LEAST_UNCOVERED = 0.4
"""Share of a box that an occluder leaves. With less, the face is ignored."""
SHARP = 12.0
"""Side of a face in standard deviations of the blur. Less sharp faces are ignored."""
CUT_OFF = 0.35
"""Probability that a large face is put across the picture's edge. For a small face it is half as large."""
BEYOND, BESIDE = (-0.3, 0.2), (-1.6, -0.6)
"""Position of its centre relative to the edge, in sides, positive inside.

In the second range the face is left out, and its neck, hair and clothes stay.
"""
WRITTEN_ON = 0.2
"""Probability of letters, which are not faces, in a scene."""
TURNED = 0.3
"""Probability that a photograph is turned by any angle, and that a scene is turned by a quarter or a half."""
LETTERBOXED = 0.3
"""Probability that a scene ends in black on the right or below, as after the runtime's padding."""
OCCLUDED = 0.3
GROUP_SHARES = {
    "helen-train": 0.22, "afw": 0.12, "lfpw-train": 0.2, "head_pose": 0.14, "aaf-train": 0.22, "youtube-train": 0.1,
}  # fmt: skip
CONTEXT_SHARES = {"helen-train": 0.32, "afw": 0.18, "lfpw-train": 0.3, "head_pose": 0.2}


class SceneMaker:
    """Maker of scenes of size x size pixels from the cache. Seed and step determine each scene."""

    def __init__(self, cache: DetectorCache, size: int, seed: int) -> None:
        self.cache = cache
        self.size = size
        self.seed = seed
        self.rng = np.random.default_rng(seed)
        usable = ~cache.held_out
        self._of_group = {str(g): np.flatnonzero((cache.groups == g) & usable) for g in np.unique(cache.groups)}

    def batch(self, step: int, count: int) -> tuple[list[Image], list[Floats]]:
        """Return the scenes of a training step and their labels. They are the same after a resume."""
        self.rng = np.random.default_rng([self.seed, step])
        scenes = [self.scene() for _ in range(count)]
        return [image for image, _ in scenes], [labels for _, labels in scenes]

    def scene(self) -> tuple[Image, Floats]:
        """Return a picture (S, S, 3) uint8 BGR and its labels (K, 5): centre x, y, side, 1 known or 0 to ignore,
        roll."""
        rng, unit = self.rng, self.size / 256
        canvas, labels = self._background()
        if rng.random() < WRITTEN_ON:
            write(rng, canvas)
        draw = rng.random()
        if draw < 0.5:
            # A portrait shows a photograph with a large face, and perhaps a few small faces in front of it.
            shares = CONTEXT_SHARES if rng.random() < 0.8 else GROUP_SHARES
            sides = HUGE_FACES if rng.random() < 0.04 else LARGE_FACES
            labels = self._paste(canvas, labels, self._draw(shares), unit * loguniform(rng, *sides), force=True)
            count = int(rng.integers(0, 4)) if rng.random() < 0.5 else 0
        else:
            # A mosaic shows many small faces among pieces of other pictures, or sometimes only pieces.
            count = 0 if draw > 0.95 else int(rng.integers(3, 11))
            for _ in range(int(rng.integers(0, 4))):
                labels = self._paste(canvas, labels, self._draw({"backgrounds": 1.0}), 0.0)
        for _ in range(count):
            labels = self._paste(canvas, labels, self._draw(GROUP_SHARES), loguniform(rng, *SMALL_FACES))
        for index in range(len(labels)):
            if labels[index][3] and rng.random() < OCCLUDED:
                occlude(rng, canvas, labels, index, self.cache.image(self._draw({"backgrounds": 1.0})))
        if rng.random() < TURNED:
            canvas, labels = quarter_turns(canvas, labels, int(rng.integers(1, 4)))
        canvas, blur = degrade(rng, canvas)
        width, height = self.size, self.size
        if rng.random() < LETTERBOXED:
            across, share = rng.random() < 0.5, rng.uniform(0.5, 1.0)
            width, height = (width, round(share * height)) if across else (round(share * width), height)
            canvas[height:], canvas[:, width:] = 0, 0
        return canvas, judged(
            labels, width, height, LARGE_FACES[1] * unit, NO_FACE * unit, max(LEAST_SIDE, SHARP * blur)
        )

    def _draw(self, shares: dict[str, float]) -> int:
        names = [name for name in shares if len(self._of_group.get(name, ()))]
        draw = self.rng.random() * sum(shares[name] for name in names)
        for name in names:
            draw -= shares[name]
            if draw < 0:
                break
        of_group = self._of_group[name]
        return int(of_group[self.rng.integers(len(of_group))])

    def _background(self) -> tuple[Image, list[list[float]]]:
        """Return a piece of a background picture or a flat colour, with its labels."""
        rng, size = self.rng, self.size
        if rng.random() < 0.1:
            colour = rng.integers(0, 256, 3) if rng.random() < 0.5 else np.full(3, rng.integers(0, 256))
            return np.full((size, size, 3), colour, np.uint8), []
        index = self._draw({"backgrounds": 1.0})
        image = self.cache.image(index)
        # The scale is large enough that the turned picture covers the canvas.
        cover = size / min(image.shape[:2])
        angle = rng.uniform(-0.3, 0.3)
        scale = cover * (math.cos(angle) + abs(math.sin(angle))) * loguniform(rng, 1.0, 2.0)
        middle = np.array([image.shape[1] / 2, image.shape[0] / 2])
        matrix = similarity(scale, angle, rng.random() < 0.5, middle, np.array([size / 2, size / 2]))
        canvas = warp(image, matrix, scale, (size, size), cv2.BORDER_REFLECT_101)
        return canvas, move_labels(self.cache.faces[index], matrix, size)

    def _paste(
        self, canvas: Image, labels: list[list[float]], index: int, side: float, force: bool = False
    ) -> list[list[float]]:
        """Paste picture `index` on the canvas so that its first face gets `side` pixels, and return the new labels.

        If the picture would cover another face, another place is tried a few times and then the picture is left out,
        unless `force` is set.
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
        draw = rng.random()
        if draw < TURNED:
            angle = float(rng.uniform(-math.pi, math.pi))
        else:
            angle = float(rng.uniform(-0.7, 0.7)) if draw < TURNED + 0.25 else float(rng.normal(0, 0.12))
        flip = bool(rng.random() < 0.5)
        # Most of a large face and its centre lie inside the canvas, or one edge cuts the face off.
        room = min(0.35 * side, size / 2 - 1) if side > 0 else 0.0
        cut = side > 0 and rng.random() < (CUT_OFF if force else CUT_OFF / 2)
        beside = rng.random() < 0.2
        for _ in range(8):
            target = rng.uniform(room, size - room, 2)
            if cut:
                beyond = rng.uniform(*(BESIDE if beside else BEYOND)) * side
                target[rng.integers(2)] = beyond if rng.random() < 0.5 else size - beyond
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
        part = canvas[y1:y2, x1:x2]
        if rng.random() < 0.5:
            mask = np.full((height, width), 255, np.uint8)
            cv2.copyTo(tile, cv2.warpAffine(mask, shifted, box, flags=cv2.INTER_NEAREST), part)
        else:
            # Soft edges are needed, because hard edges of pasted pictures would reveal faces.
            mask = np.zeros((height, width), np.float32)
            margin = max(1, int(rng.uniform(0.02, 0.1) * min(height, width)))
            mask[margin:-margin, margin:-margin] = 1.0
            mask = np.asarray(cv2.blur(mask, (margin * 2 + 1, margin * 2 + 1)), np.float32)
            alpha = np.asarray(cv2.warpAffine(mask, shifted, box, flags=cv2.INTER_LINEAR), np.float32)
            part[:] = cv2.blendLinear(tile, np.ascontiguousarray(part), alpha, 1 - alpha)
        kept = [label for label in labels if share_covered(label, x1, y1, x2, y2) < 0.15]
        return kept + move_labels(faces, matrix, size)


def loguniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a random number for which every doubling is equally likely."""
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def similarity(scale: float, angle: float, flip: bool, anchor: Doubles, target: Doubles) -> Doubles:
    """Return canvas_from_image (2, 3), which turns, mirrors and scales, and brings `anchor` to `target`."""
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    linear = np.array([[c, -s], [s, c]]) @ np.diag([-1.0 if flip else 1.0, 1.0])
    return np.hstack([linear, (target - linear @ anchor)[:, None]])


def warp(image: Image, matrix: Doubles, scale: float, size: tuple[int, int], border: int) -> Image:
    """Warp an image by canvas_from_image `matrix`.

    An image that shrinks is first halved by area averaging, until it is at most 1.41 times as fine as the canvas.
    OpenCV halves in a tenth of the time that another ratio takes.
    """
    for _ in range(round(math.log2(max(1 / scale, 1.0)))):
        height, width = image.shape[:2]
        halved = (max(1, width // 2), max(1, height // 2))
        # An odd last row or column is left out, because only averaging by exactly two is fast.
        image = np.asarray(cv2.resize(image[: 2 * halved[1], : 2 * halved[0]], halved, interpolation=cv2.INTER_AREA))
        # image = 2 half + 0.5
        matrix = matrix @ np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])
    return np.asarray(cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=border), np.uint8)


def move_labels(faces: Floats, matrix: Doubles, size: int) -> list[list[float]]:
    """Move an image's labels by canvas_from_image, and drop labels outside the canvas."""
    moved = []
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    for x, y, side, known, roll in faces.astype(np.float64):
        cx, cy = (float(v) for v in matrix @ [x, y, 1.0])
        half = side * scale / 2
        if -half < cx < size + half and -half < cy < size + half:
            # The roll follows from the direction of the head's "up", which a mirror turns the other way.
            up_x, up_y = (float(v) for v in matrix[:, :2] @ [math.sin(roll), -math.cos(roll)])
            moved.append([cx, cy, 2 * half, float(known), math.atan2(up_x, -up_y)])
    return moved


def quarter_turns(canvas: Image, labels: list[list[float]], count: int) -> tuple[Image, list[list[float]]]:
    """Turn a square picture and its labels clockwise, `count` times by a quarter."""
    last = len(canvas) - 1
    turned = np.ascontiguousarray(np.rot90(canvas, -count))
    for _ in range(count):
        labels = [
            [last - y, x, side, known, math.remainder(roll + math.pi / 2, 2 * math.pi)]
            for x, y, side, known, roll in labels
        ]
    return turned, labels


def judged(
    labels: list[list[float]], width: int, height: int, largest: float, no_face: float, smallest: float
) -> Floats:
    """Return the labels (K, 5) of a picture of width x height pixels, with faces that are hard to see set to ignore.

    Invisible faces are left out. Faces with sides from `smallest` to `largest` are to be found; from `no_face` on they
    do not count as faces.
    """
    kept = []
    for x, y, side, known, roll in labels:
        visible = 1 - share_outside(x, y, side, width, height)
        if visible < HARDLY_VISIBLE or side >= no_face:
            continue
        clear = smallest <= side <= largest and visible >= LEAST_VISIBLE
        kept.append([x, y, side, float(known > 0.5 and clear), roll])
    return np.array(kept, np.float32).reshape(-1, LABEL)


def share_outside(x: float, y: float, side: float, width: int, height: int) -> float:
    """Return the share of a box, by its centre and side, that lies outside a picture of width x height pixels."""
    across = min(x + side / 2, width) - max(x - side / 2, 0.0)
    down = min(y + side / 2, height) - max(y - side / 2, 0.0)
    return 1 - max(0.0, across) * max(0.0, down) / side**2


def share_covered(label: list[float], x1: int, y1: int, x2: int, y2: int) -> float:
    """Return the share of a label's box that a rectangle covers."""
    x, y, side, *_ = label
    width = min(x + side / 2, x2) - max(x - side / 2, x1)
    height = min(y + side / 2, y2) - max(y - side / 2, y1)
    return max(0.0, width) * max(0.0, height) / side**2


def write(rng: np.random.Generator, canvas: Image) -> None:
    """Draw a few rows of letters on the canvas, in place."""
    size, colour = len(canvas), tuple(int(v) for v in rng.integers(0, 256, 3))
    font, height = int(rng.integers(8)), loguniform(rng, 5, 0.4 * size)
    x, y = int(rng.uniform(-0.2, 0.6) * size), int(rng.uniform(0, 0.5) * size)
    # OpenCV's letters are 22 pixels high at a scale of 1.
    thickness = max(1, round(height * rng.uniform(0.06, 0.25)))
    for _ in range(int(rng.integers(1, 5))):
        y += round(1.5 * height)
        letters = "".join(chr(code) for code in rng.integers(ord("A"), ord("z"), int(rng.integers(3, 12))))
        cv2.putText(canvas, letters, (x, y), font, height / 22, colour, thickness, cv2.LINE_AA)


def occlude(rng: np.random.Generator, canvas: Image, labels: list[list[float]], index: int, cover: Image) -> None:
    """Hide part of face `index` in place, by a flat colour or a piece of another picture.

    The occluder is a bar across the face, a patch, a mask, or everything on one side of the face. A face is set to
    ignore if little of it stays visible.
    """
    x, y, side, _, roll = labels[index]
    c, s = side * math.cos(roll), side * math.sin(roll)
    corners = occluder(rng) @ np.array([[c, s], [-s, c]]) + [x, y]
    mask = np.zeros(canvas.shape[:2], np.uint8)
    # The coordinates are in sixteenths of a pixel.
    cv2.fillPoly(mask, [np.round(corners * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    hidden = mask > 0
    if rng.random() < 0.5:
        canvas[hidden] = rng.integers(0, 256, 3)
    else:
        canvas[hidden] = cv2.resize(cover, canvas.shape[1::-1])[hidden]
    for label in labels:
        left, top, right, bottom = (round(label[i] + sign * label[2] / 2) for sign in (-1, 1) for i in (0, 1))
        part = mask[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
        if part.size and part.mean() > 1 - LEAST_UNCOVERED:
            label[3] = 0.0


def occluder(rng: np.random.Generator) -> Doubles:
    """Return the corners (K, 2) of an occluder, in sides from the box's centre, x right and y down in the upright
    face."""
    draw = rng.random()
    if draw < 0.3:
        width, height = rng.uniform(0.8, 1.2), rng.uniform(0.12, 0.45)
        middle = np.array([rng.uniform(-0.1, 0.1), rng.uniform(-0.5, 0.55)])
    elif draw < 0.5:
        width, height = rng.uniform(0.15, 0.5, 2)
        middle = rng.uniform(-0.5, 0.5, 2)
    elif draw < 0.75:
        # A mask from the bridge of the nose to the chin.
        mask = np.array(
            [[-0.52, -0.12], [0, -0.12], [0.52, -0.12], [0.47, 0.3], [0.2, 0.58], [-0.2, 0.58], [-0.47, 0.3]]
        )
        return np.asarray(mask + rng.normal(0, 0.03, mask.shape) + [0, rng.uniform(-0.05, 0.2)])
    else:
        # A wall or another head: everything beyond a line that passes near the centre.
        angle = rng.integers(4) * math.pi / 2 + rng.normal(0, 0.3)
        near, far, half = rng.uniform(-0.03, 0.3), rng.uniform(0.6, 2.0), rng.uniform(0.7, 2.0)
        wall = np.array([[near, -half], [far, -half], [far, half], [near, half]])
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        return np.asarray(wall @ turn)
    return middle + np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2


def degrade(rng: np.random.Generator, image: Image) -> tuple[Image, float]:
    """Degrade a picture as cameras do, by light, colour, blur, noise and compression.

    Returns the picture and the standard deviation of the blur in pixels.
    """
    ramp = np.arange(256) / 255
    gain = rng.uniform(0.12, 0.5) if rng.random() < 0.1 else math.exp(rng.normal(0, 0.2))
    gamma = loguniform(rng, 2.0, 6.5) if rng.random() < 0.06 else math.exp(rng.normal(0, 0.25))
    tone = ramp**gamma * gain + rng.normal(0, 0.05)
    cast = np.exp(rng.normal(0, 0.08, 3)) if rng.random() < 0.6 else np.ones(3)
    table = np.clip(tone[:, None] * cast * 255, 0, 255).astype(np.uint8)
    image = np.asarray(cv2.LUT(image, table[None]), np.uint8)
    if rng.random() < 0.15:
        image = np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8)
    draw, blur = rng.random(), 0.0
    if draw < 0.16:
        blur = loguniform(rng, 0.4, 4.0)
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), blur), np.uint8)
    elif draw < 0.24:
        length = int(loguniform(rng, 3, 20))
        blur = length / math.sqrt(12) / 2  # the blur acts along one direction
        kernel = np.zeros((length, length), np.float32)
        cv2.line(kernel, (0, int(rng.integers(length))), (length - 1, int(rng.integers(length))), 1.0)
        image = np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)
    if rng.random() < 0.25:
        # Half a megabyte of random numbers per picture takes long to draw, so a shifted piece of one buffer is used.
        noise = NOISE[int(rng.integers(64)) :, int(rng.integers(64)) :][: image.shape[0], : image.shape[1]]
        image = np.asarray(cv2.add(image, noise * rng.uniform(2, 14), dtype=cv2.CV_8U), np.uint8)
    if rng.random() < 0.4:
        _, packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 95))])
        image = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return np.array(image, np.uint8), blur


NOISE = np.random.default_rng(0).standard_normal((LARGEST_SCENE + 64, LARGEST_SCENE + 64, 3), np.float32)
"""Noise of standard deviation 1, from which a shifted piece is taken."""

"""A rendered head and its camera -> what people wear and do in front of it: glasses, hats, locks of hair, hands.

Drawn over the finished picture as flat shapes whose outlines are places on and around the head, so that they follow its
pose; what the head would hide of them is left out by side (the far temple of a pair of glasses).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from facerecon_rt.types import Floats, Image
from numpy.typing import NDArray

SUBPIXEL_BITS = 3


def add_accessories(image: Image, image_from_head: Floats, landmarks: Floats, random: np.random.Generator) -> Image:
    """(S, S, 3) uint8 BGR, (3, 4) camera, (68, 3) landmarks of this head in mm -> the picture with up to three things
    in it."""
    if random.random() < 0.22:
        image = _glasses(image, image_from_head, landmarks, random)
    if random.random() < 0.2:
        image = _locks(image, image_from_head, random)
    if random.random() < 0.12:
        image = _hat(image, image_from_head, random)
    if random.random() < 0.08:
        image = _hand(image, image_from_head, random)
    return image


def _project(image_from_head: Floats, points: NDArray[np.floating]) -> NDArray[np.int32]:
    """(K, 3) mm -> (K, 2) fixed-point pixels."""
    places = points @ image_from_head[:2, :3].T + image_from_head[:2, 3]
    return np.round(places * (1 << SUBPIXEL_BITS)).astype(np.int32)


def _scale(image_from_head: Floats) -> float:
    return float(np.linalg.norm(image_from_head[0, :3]))


def _blend(image: Image, layer: Image, mask: NDArray[np.uint8], opacity: float = 1.0) -> Image:
    alpha = (mask[..., None] / np.float32(255)) * opacity
    return np.asarray(image + alpha * (layer.astype(np.float32) - image), np.uint8)


def _shaded(colour: NDArray[np.floating], shape: tuple[int, ...], random: np.random.Generator) -> Image:
    """One colour under a light that falls off across the picture, with grain."""
    height, width = shape[:2]
    corners = (1 + random.uniform(-0.35, 0.35, (2, 2))).astype(np.float32)
    light = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    light = light * (1 + random.uniform(0, 0.05) * random.normal(size=(height, width)))
    return np.asarray((colour * light[..., None]).clip(0, 255), np.uint8)


def _glasses(image: Image, camera: Floats, landmarks: Floats, random: np.random.Generator) -> Image:
    """Two rims in a plane before the eyes, a bridge, the nearer temple to the ear; lenses clear, tinted or dark."""
    eyes = [landmarks[36:42].mean(0), landmarks[42:48].mean(0)]
    width, height = random.uniform(21, 30), random.uniform(14, 25)
    squareness, drop = random.uniform(0.45, 1.0), random.uniform(-1, 5)
    angles = np.linspace(0, 2 * math.pi, 40, endpoint=False)
    cosine, sine = np.cos(angles), np.sin(angles)
    outline = np.stack(
        [
            width * np.sign(cosine) * np.abs(cosine) ** squareness,
            height * np.sign(sine) * np.abs(sine) ** squareness,
            np.zeros(40),
        ],
        1,
    )
    front = max(float(eye[2]) for eye in eyes) + random.uniform(10, 16)
    centres = [np.array([math.copysign(max(abs(float(e[0])), width + 3), e[0]), e[1] - drop, front]) for e in eyes]
    rims = [_project(camera, centre + outline) for centre in centres]
    colour = random.uniform(0, 60, 3) if random.random() < 0.75 else random.uniform(0, 230, 3)
    line = max(1, round(random.uniform(0.8, 4.5) * _scale(camera)))
    lens = np.zeros(image.shape[:2], np.uint8)
    for rim in rims:
        cv2.fillPoly(lens, [rim], 255, cv2.LINE_AA, SUBPIXEL_BITS)
    kind = random.random()
    tint = np.full_like(image, random.uniform(0, 60, 3).astype(np.uint8))
    if kind < 0.25:
        image = _blend(image, tint, lens, random.uniform(0.6, 1.0))
    elif kind < 0.6:
        glare = _shaded(np.full(3, 230.0), image.shape, random)
        image = _blend(image, glare, lens, random.uniform(0.0, 0.3))
    frame = np.zeros(image.shape[:2], np.uint8)
    for rim in rims:
        cv2.polylines(frame, [rim], True, 255, line, cv2.LINE_AA, SUBPIXEL_BITS)
    inner = np.array([width, height * 0.2, 0])
    bridge = [centres[0] + inner, centres[1] + inner * [-1, 1, 1]]
    cv2.polylines(frame, [_project(camera, np.array(bridge))], False, 255, line, cv2.LINE_AA, SUBPIXEL_BITS)
    for centre, side in zip(centres, (-1, 1), strict=True):
        # The third row is depth away from the viewer: the temple on the near side of the head is seen.
        if side * camera[2, 0] < 0.05 * _scale(camera):
            hinge = centre + np.array([side * width, height * 0.4, 0])
            ear = np.array([side * 76.0, hinge[1] - 2, -85.0])
            temple = _project(camera, np.array([hinge, ear]))
            cv2.polylines(frame, [temple], False, 255, line, cv2.LINE_AA, SUBPIXEL_BITS)
    return _blend(image, np.full_like(image, colour.astype(np.uint8)), frame)


def _locks(image: Image, camera: Floats, random: np.random.Generator) -> Image:
    """Curved strands from the hair line over forehead and temples."""
    colour = random.uniform(5, 120) * random.normal(1, 0.15, 3) * np.array([0.6, 0.8, 1.0])
    mask = np.zeros(image.shape[:2], np.uint8)
    side, wide = random.choice([-1.0, 1.0]), random.random() < 0.5
    for _ in range(int(random.integers(4, 40))):
        start = np.array([random.uniform(-70, 70), random.uniform(72, 95), 15.0])
        fall = random.uniform(15, 75 if wide else 45)
        end = start + np.array([side * random.uniform(0, 60), -fall, random.uniform(0, 25)])
        if random.random() < 0.4:  # beside the face
            x = math.copysign(random.uniform(66, 85), start[0])
            start, end = np.array([x * 0.8, 85, 0]), np.array([x, random.uniform(-110, 20), -10])
        bend = (start + end) / 2 + random.normal(0, 10, 3)
        t = np.linspace(0, 1, 12)[:, None]
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
        thick = max(1, round(random.uniform(0.5, 5) * _scale(camera)))
        cv2.polylines(mask, [_project(camera, curve)], False, 255, thick, cv2.LINE_AA, SUBPIXEL_BITS)
    return _blend(image, _shaded(colour.clip(0, 255), image.shape, random), mask, random.uniform(0.8, 1.0))


def _hat(image: Image, camera: Floats, random: np.random.Generator) -> Image:
    """A cap, band or hood: everything of the head above a line on the forehead, sometimes with a brim."""
    line = random.uniform(35, 75)
    angles = np.linspace(0, 2 * math.pi, 32, endpoint=False)
    tilt = random.uniform(-0.2, 0.4)
    ring = np.stack([84 * np.cos(angles), line + tilt * 30 * np.cos(angles - 1), -45 + 105 * np.sin(angles)], 1)
    top = ring * [0.9, 1, 0.9] + [0, random.uniform(25, 110), 0]
    colour = random.uniform(0, 255, 3)
    mask = np.zeros(image.shape[:2], np.uint8)
    hull = cv2.convexHull(_project(camera, np.vstack([ring, top])))
    cv2.fillConvexPoly(mask, hull, 255, cv2.LINE_AA, SUBPIXEL_BITS)
    if random.random() < 0.4:
        front = ring[(np.sin(angles) > 0.3)]
        brim = np.vstack([front, front * [1.1, 1, 1] + [0, -random.uniform(0, 12), random.uniform(20, 60)]])
        cv2.fillConvexPoly(mask, cv2.convexHull(_project(camera, brim)), 255, cv2.LINE_AA, SUBPIXEL_BITS)
    return _blend(image, _shaded(colour, image.shape, random), mask)


def _hand(image: Image, camera: Floats, random: np.random.Generator) -> Image:
    """A palm and fingers in a skin colour, on cheek, chin or mouth."""
    middle = np.median(image[image.shape[0] // 3 : 2 * image.shape[0] // 3].reshape(-1, 3), axis=0)
    colour = (middle * random.normal(1, 0.1, 3)).clip(0, 255)
    place = np.array([random.uniform(-75, 75), random.uniform(-110, -20), 60.0])
    direction = random.uniform(0.2, 0.8) * math.pi
    mask = np.zeros(image.shape[:2], np.uint8)
    shadow = np.zeros_like(mask)
    scale = _scale(camera)
    for finger in range(int(random.integers(2, 6))):
        angle = direction + 0.16 * (finger - 2)
        start = place + np.array([16.0 * (finger - 2), -35.0, 0])
        tip = start + random.uniform(55, 80) * np.array([math.cos(angle), math.sin(angle), 0])
        segment = _project(camera, np.array([start, tip]))
        cv2.polylines(shadow, [segment], False, 255, max(1, round(19 * scale)), cv2.LINE_AA, SUBPIXEL_BITS)
        cv2.polylines(mask, [segment], False, 255, max(1, round(15 * scale)), cv2.LINE_AA, SUBPIXEL_BITS)
    palm = _project(camera, (place - np.array([0, 45, 0]))[None])[0] / (1 << SUBPIXEL_BITS)
    cv2.circle(mask, (round(palm[0]), round(palm[1])), round(36 * scale), 255, -1, cv2.LINE_AA)
    image = _blend(image, (image * 0.6).astype(np.uint8), shadow)
    return _blend(image, _shaded(colour, image.shape, random), mask)

"""Random numbers, and photographs -> colours of a head: skin, brows, lips, hair, eyes, teeth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from facerecon_rt.types import Floats, Image
from numba import njit
from numpy.typing import NDArray

from .render import HeadGeometry, radiance_fit, viewer_normals

SKIN_TONES_BGR = np.array(
    [
        [0.60, 0.69, 0.87],
        [0.50, 0.60, 0.80],
        [0.42, 0.53, 0.74],
        [0.33, 0.44, 0.65],
        [0.24, 0.34, 0.54],
        [0.17, 0.25, 0.42],
        [0.11, 0.17, 0.30],
        [0.08, 0.11, 0.20],
    ],
    np.float32,
)
"""Skin tones in sRGB from light to dark. Tones between neighbours are interpolated linearly."""
HAIR_BGR = np.array(
    [
        [0.01, 0.01, 0.01],
        [0.015, 0.02, 0.035],
        [0.03, 0.05, 0.09],
        [0.12, 0.22, 0.36],
        [0.4, 0.4, 0.4],
        [0.04, 0.09, 0.22],
    ],
    np.float32,
)
IRIS_BGR = np.array([[0.04, 0.07, 0.13], [0.08, 0.18, 0.26], [0.30, 0.35, 0.28], [0.50, 0.38, 0.25]], np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class SkinMap:
    """Masks (H,), 0..1, of regions of the head, on the rendered vertices."""

    lips: Floats
    brows: Floats
    beard: Floats
    cheeks: Floats
    lids: Floats
    scalp: Floats
    iris: Floats
    pupil: Floats


def skin_map(head: HeadGeometry) -> SkinMap:
    """Return masks by distance to the landmarks of the mean head."""
    points, landmarks = head.mean, head.mean[head.landmarks]
    face = np.zeros(len(points), np.float32)
    face[head.parts["face"]] = 1.0
    shell = face.copy()
    shell[head.parts["head"]] = 1.0

    lips = face * _inside(landmarks[48:60, :2], points[:, :2], 1.5) * (points[:, 2] > landmarks[48, 2] - 6)
    brows = face * np.maximum(_near_line(landmarks[17:22], points, 4.0), _near_line(landmarks[22:27], points, 4.0))
    lids = face * np.maximum(
        _near_line(landmarks[[36, 37, 38, 39, 40, 41, 36]], points, 2.5),
        _near_line(landmarks[[42, 43, 44, 45, 46, 47, 42]], points, 2.5),
    )
    below_nose = _ramp(landmarks[33, 1] - points[:, 1], 0.0, 8.0)
    jaw = _ramp(landmarks[2, 1] - points[:, 1], 0.0, 12.0)
    beard = face * np.maximum(jaw, below_nose * (np.abs(points[:, 0]) < 32)) * (1 - lips) * (points[:, 2] > -70)
    cheek = np.array([[48.0, -35.0, 20.0], [-48.0, -35.0, 20.0]], np.float32)
    cheeks = face * np.exp(-(np.linalg.norm(points[:, None] - cheek, axis=2).min(1) ** 2) / (2 * 16.0**2))
    # The scalp begins above a tilted line over the forehead and behind the temples.
    above = points[:, 1] - (62.0 - 0.75 * np.maximum(10.0 - points[:, 2], 0.0))
    scalp = shell * _ramp(above, 0.0, 8.0) * (points[:, 1] > -60)
    ears = face * (np.abs(points[:, 0]) > 76)
    iris, pupil = np.zeros_like(face), np.zeros_like(face)
    eyes = head.parts["eyeballs"]
    for eye in np.array_split(eyes, 2):
        centre = points[eye].mean(0)
        radius = np.linalg.norm(points[eye][:, :2] - centre[:2], axis=1)
        front = points[eye][:, 2] > centre[2]
        iris[eye] = front * (1 - _ramp(radius, 5.6, 6.4))
        pupil[eye] = front * (1 - _ramp(radius, 1.8, 2.5))
    return SkinMap(lips, brows, beard, cheeks, lids, scalp * (1 - ears), iris, pupil)


def _ramp(value: Floats, start: float, end: float) -> Floats:
    return np.asarray(np.clip((value - start) / (end - start), 0.0, 1.0), np.float32)


def _near_line(line: Floats, points: Floats, width: float) -> Floats:
    """Return 1 on a polyline (K, 3), falling to 0 at `width` mm."""
    distance = np.full(len(points), np.inf, np.float32)
    for a, b in pairwise(line):
        t = np.clip(((points - a) @ (b - a)) / ((b - a) @ (b - a)), 0, 1)
        distance = np.minimum(distance, np.linalg.norm(points - a - t[:, None] * (b - a), axis=1))
    return np.asarray(1 - _ramp(distance, 0.5 * width, width), np.float32)


def _inside(polygon: Floats, points: Floats, soft: float) -> Floats:
    contour = polygon.astype(np.float32).reshape(-1, 1, 2)
    signed = [cv2.pointPolygonTest(contour, (float(x), float(y)), True) for x, y in points]
    return _ramp(np.array(signed, np.float32), -soft, soft)


def smooth_noise(points: Floats, wavelength: float, random: np.random.Generator) -> Floats:
    """Return a smooth random field (H,) of mean 0 and about unit variance: a sum of random plane waves.

    `points` are (H, 3) in mm, like `wavelength`.
    """
    waves = random.normal(size=(12, 3)).astype(np.float32) * (2 * np.pi / wavelength / np.sqrt(3))
    phases = random.uniform(0, 2 * np.pi, 12).astype(np.float32)
    return np.asarray(_waves(np.asarray(points, np.float32), waves, phases), np.float32)


@njit(cache=True, fastmath=True)
def _waves(points, waves, phases):  # type: ignore[no-untyped-def]
    out = np.zeros(len(points), np.float32)
    for i in range(len(points)):
        total = np.float32(0)
        for k in range(len(waves)):
            angle = points[i, 0] * waves[k, 0] + points[i, 1] * waves[k, 1] + points[i, 2] * waves[k, 2] + phases[k]
            total += np.cos(angle)
        out[i] = total / np.float32(2.449)
    return out


def random_tone(random: np.random.Generator) -> Floats:
    """Return a random skin albedo (3,) BGR."""
    place = (len(SKIN_TONES_BGR) - 1.001) * random.beta(1.0, 1.5)
    lower = int(place)
    tone = SKIN_TONES_BGR[lower] + (place - lower) * (SKIN_TONES_BGR[lower + 1] - SKIN_TONES_BGR[lower])
    return np.asarray((tone * random.normal(1, 0.03, 3)) ** 2.2 * random.uniform(0.8, 1.3), np.float32)


BALD, BEARDED = 0.1, 0.28
"""Shares of bald people, and of bearded people among those without make-up."""


@dataclass(frozen=True, slots=True, eq=False)
class Complexion:
    """Colours of a head without light."""

    albedo: Floats
    """Albedo (H, 3), linear BGR."""
    hair: Floats
    """Colour (3,) of the hair, linear BGR."""
    bald: bool
    bearded: bool


@dataclass(frozen=True, slots=True, eq=False)
class FaceColours:
    """A symmetric Gaussian model of the colours of photographed faces, with whole skins if there are any."""

    mean: Floats
    """Logarithm (F, 3) of albedo over the face's median, on the face part's vertices."""
    basis: Floats
    """Basis (K, F, 3) in standard deviations."""
    skins: Floats | None = None
    """Albedo (S, H', 3), linear BGR, of the face and head parts."""


COMPONENTS = 24


def learn_colours(colours: Floats, mirror: NDArray[np.integer], skins: Floats | None = None) -> FaceColours:
    """Return the Gaussian model of albedo (P, F, 3) of photographed faces.

    `mirror` (F,) is each vertex' mirror image. A face and its mirror image count as one, so that light from a side,
    which such albedo still contains, cancels out.
    """
    logs = []
    for one in colours:
        albedo = np.maximum(one.astype(np.float32), 0.01)
        log = np.log(albedo / np.median(albedo, axis=0)).clip(-2.5, 1.0)
        logs.append((log + log[mirror]).ravel() / 2)
    faces = np.stack(logs)
    mean = faces.mean(0)
    centred = faces - mean
    values, vectors = np.linalg.eigh(centred @ centred.T)
    kept = min(COMPONENTS, len(faces) - 1)
    chosen = np.argsort(values)[::-1][:kept]
    # Rows have unit length along the components, times one standard deviation.
    basis = (vectors[:, chosen].T @ centred) / np.sqrt(len(faces))
    shape = (-1, colours.shape[1], 3)
    return FaceColours(mean.reshape(shape[1:]), basis.reshape(shape).astype(np.float32), skins)


def random_complexion(
    head: HeadGeometry, where: SkinMap, random: np.random.Generator, colours: FaceColours | None = None
) -> Complexion:
    """Return random skin, hair, teeth and eye sockets of a person who does not exist.

    With a model of photographed faces, half of the people get colours from it. A fifth get one of its whole skins, if
    it has any.
    """
    tone = random_tone(random)
    hair = HAIR_BGR[random.integers(len(HAIR_BGR))] * random.uniform(0.6, 1.4)
    if tone.mean() < 0.12:
        hair = HAIR_BGR[random.integers(3)]
    kind = random.random() if colours is not None else 1.0
    points = head.mean
    if colours is not None and kind < 0.5:
        albedo = _like_photographs(head, colours, tone, random)
    elif colours is not None and colours.skins is not None and kind < 0.7:
        albedo = _mixed_skins(head, colours.skins, random)
    else:
        albedo = _invented(where, points, tone, random)
    albedo *= (1 + 0.03 * random.uniform(0, 1.5) * smooth_noise(points, 30.0, random))[:, None]
    made_up = random.random() < 0.2
    if made_up:
        lip = np.array([0.12, 0.08, 0.5]) * random.uniform(0.5, 1.4, 3) * min(2 * tone.mean() + 0.5, 1)
        albedo = mix(albedo, lip, where.lips * random.uniform(0.3, 0.9))
        albedo = mix(albedo, tone * random.uniform(0.3, 0.9, 3), where.lids * random.uniform(0, 0.7))
    if random.random() < 0.1:  # freckles
        spots = np.clip(smooth_noise(points, 4.0, random) - 1.4, 0, 1) * random.uniform(0.1, 0.5)
        albedo = mix(albedo, tone * [0.3, 0.4, 0.6], spots * (1 - where.lips))
    bald = bool(random.random() < BALD)
    bearded = bool(not made_up and random.random() < BEARDED)
    stubble = random.random()
    if not made_up and stubble < 0.25:
        albedo = mix(albedo, hair * 0.8 + 0.02, where.beard * random.uniform(0.05, 0.5) * _patchy(points, 30.0, random))
    return Complexion(_inside_colours(albedo, head, random), np.asarray(hair, np.float32), bald, bearded)


def _like_photographs(head: HeadGeometry, colours: FaceColours, tone: Floats, random: np.random.Generator) -> Floats:
    code = np.clip(random.normal(0, 0.8, len(colours.basis)), -2, 2)
    log = colours.mean + np.tensordot(code.astype(np.float32), colours.basis, 1)
    face = head.parts["face"]
    # Outside the narrow face, a photograph shows hair and background instead of skin.
    edge = np.clip((head.mean[face, 2] + 20) / 40, 0, 1) * np.clip((78 - np.abs(head.mean[face, 0])) / 8, 0, 1)
    edge = edge * np.clip((90 - head.mean[face, 1]) / 45, 0, 1) * np.clip((head.mean[face, 1] + 125) / 30, 0, 1)
    albedo = np.tile(tone, (len(head.mean), 1))
    albedo[face] *= np.exp(log * (random.uniform(0.8, 1.1) * edge)[:, None])
    return np.asarray(albedo.clip(0.004, 1.1), np.float32)


def _mixed_skins(head: HeadGeometry, skins: Floats, random: np.random.Generator) -> Floats:
    """Return one whole skin, or a mixture of two, with a shifted tone."""
    first, second = skins[random.integers(len(skins), size=2)]
    share = random.choice([0.0, random.uniform(0, 1)])
    mixed = first ** (1 - share) * np.maximum(second, 1e-3) ** share
    mixed = mixed * np.exp(random.normal(0, 0.2)) * random.normal(1, 0.06, 3)
    albedo = np.tile(np.median(mixed, axis=0).astype(np.float32), (len(head.mean), 1))
    albedo[: len(mixed)] = mixed
    return np.asarray(albedo.clip(0.004, 1.1), np.float32)


def _invented(where: SkinMap, points: Floats, tone: Floats, random: np.random.Generator) -> Floats:
    albedo = np.tile(tone, (len(points), 1))
    for wavelength, strength in ((90.0, 0.04), (25.0, 0.025), (8.0, 0.02)):
        albedo *= 1 + strength * random.uniform(0, 1.3) * smooth_noise(points, wavelength, random)[:, None]
    albedo = mix(albedo, tone * [0.8, 0.8, 1.1], where.cheeks * random.uniform(0, 0.5))
    albedo = mix(albedo, tone * random.uniform(0.6, 0.95), where.lids * random.uniform(0, 0.8))
    albedo = mix(albedo, tone * [0.62, 0.58, 0.82], where.lips * random.uniform(0.5, 1.0))
    return mix(albedo, tone * 0.4, where.brows * random.uniform(0, 0.3) * _patchy(points, 6.0, random))


def _inside_colours(albedo: Floats, head: HeadGeometry, random: np.random.Generator) -> Floats:
    """Set the colours of teeth, gums, mouth and eye sockets."""
    albedo[head.parts["eyeballs"]] = 0.7
    albedo[head.parts["teeth"]] = np.array([0.58, 0.68, 0.74]) * random.uniform(0.7, 1.1)
    albedo[head.parts["gums"]] = np.array([0.22, 0.2, 0.5]) * random.uniform(0.6, 1.0)
    albedo[head.parts["mouth_socket"]] = np.array([0.08, 0.07, 0.2]) * random.uniform(0.5, 1.3)
    albedo[head.parts["eye_socket"]] = np.array([0.28, 0.28, 0.5]) * random.uniform(0.6, 1.0)
    return np.asarray(albedo, np.float32)


def random_skin(head: HeadGeometry, where: SkinMap, random: np.random.Generator) -> Floats:
    """Return BGR albedo (H, 3) of a person who does not exist, with painted hair and eyes, for pictures without
    assets."""
    complexion = random_complexion(head, where, random)
    albedo = mix(complexion.albedo, complexion.hair, where.brows * 0.7)
    albedo[head.parts["eyeballs"]] = np.array([0.72, 0.75, 0.80])
    iris = IRIS_BGR[random.integers(len(IRIS_BGR))] * random.uniform(0.7, 1.3)
    albedo = mix(albedo, iris, where.iris)
    return mix(albedo, np.array([0.01, 0.01, 0.01]), where.pupil)


def mix(albedo: Floats, colour: NDArray[np.floating], amount: Floats) -> Floats:
    """Mix a colour (3,) into albedo (H, 3) by amounts (H,), and return (H, 3)."""
    return np.asarray(albedo + (colour - albedo) * amount[:, None], np.float32)


def _patchy(points: Floats, wavelength: float, random: np.random.Generator) -> Floats:
    patches: Floats = np.clip(0.85 + 0.25 * smooth_noise(points, wavelength, random), 0, 1)
    return patches


def colours_from_photograph(
    head: HeadGeometry, vertices: Floats, image: Image, image_from_head: Floats
) -> tuple[Floats, Floats]:
    """Return BGR albedo (F, 3) of the face part's vertices, and how well each is seen (F,) 0..1.

    The inputs are a photograph and a fitted head in it. Light is divided out by fitting 9 spherical harmonics to the
    brightness over the normals (Basri and Jacobs, PAMI 2003).
    """
    face = head.parts["face"]
    normals = viewer_normals(head.normals(vertices), image_from_head)[face]
    points = vertices[face] @ image_from_head[:, :3].T + image_from_head[:, 3]
    places = np.asarray(points[:, None, :2], np.float32)
    sampled = cv2.remap(image, places[..., 0], places[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    colours = sampled.reshape(-1, 3) / np.float32(255.0)
    seen = _ramp(normals[:, 2], 0.15, 0.45)
    linear = np.asarray(colours, np.float32) ** 2.2
    light = radiance_fit(linear.mean(1), normals, seen)
    albedo = linear / np.clip(light / np.median(light[seen > 0.5]), 0.35, 3.0)[:, None]
    return np.asarray(albedo, np.float32), seen


def symmetrised(albedo: Floats, seen: Floats, mirror: Iterable[int]) -> tuple[Floats, Floats]:
    """Fill vertices that are not seen with colours of the other side of the face."""
    other = np.asarray(mirror)
    own = seen / np.maximum(seen + 0.25 * seen[other] * (1 - seen), 1e-6)
    filled = albedo * own[:, None] + albedo[other] * (1 - own[:, None])
    return np.asarray(filled, np.float32), np.maximum(seen, seen[other])

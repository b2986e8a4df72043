"""Random numbers -> expressions and gaze: groups of blendshapes that faces make, also one-sided ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.types import Floats

EYE_LOOK_DEG = 30.0
"""Angle in degrees by which an eye turns at an eyeLook weight of 1. Beyond about 30 degrees people turn the head."""
EYE_LOOK = tuple(
    tuple(BLENDSHAPES.index(f"eyeLook{way}_{side}") for way in ("Out", "In", "Up", "Down")) for side in "LR"
)
"""Indices (2, 4) of the left and the right eye: the weights for outwards, inwards, up and down."""
_INDEX = {name: i for i, name in enumerate(BLENDSHAPES)}

SIDED = (
    "browDown", "browInnerUp", "browOuterUp", "cheekPuff", "cheekSquint", "eyeSquint", "eyeWide", "mouthDimple",
    "mouthFrown", "mouthLowerDown", "mouthPress", "mouthSmile", "mouthStretch", "mouthUpperUp", "noseSneer",
)  # fmt: skip
"""Blendshapes with a left and a right half."""
WHOLE = (
    "jawForward", "jawLeft", "jawRight", "mouthClose", "mouthFunnel", "mouthPucker", "mouthLeft", "mouthRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
)  # fmt: skip
OPPOSITES = {
    "jawLeft": ("jawRight",),
    "mouthLeft": ("mouthRight",),
    "mouthFunnel": ("mouthPress_L", "mouthPress_R"),
}
"""Blendshapes that exclude others."""
FACES: dict[str, dict[str, float]] = {
    "laugh": {"mouthSmile": 0.9, "cheekSquint": 0.7, "eyeSquint": 0.6, "jawOpen": 0.4, "mouthUpperUp": 0.5},
    "smile": {"mouthSmile": 0.8, "cheekSquint": 0.5, "mouthDimple": 0.3},
    "grin": {"mouthSmile": 0.8, "mouthUpperUp": 0.6, "mouthLowerDown": 0.5, "eyeSquint": 0.4},
    "surprise": {"browInnerUp": 0.9, "browOuterUp": 0.9, "eyeWide": 0.9, "jawOpen": 0.5},
    "fear": {"browInnerUp": 0.9, "browDown": 0.3, "eyeWide": 0.8, "mouthStretch": 0.7, "jawOpen": 0.25},
    "anger": {"browDown": 0.9, "eyeSquint": 0.5, "mouthPress": 0.7, "noseSneer": 0.5},
    "rage": {"browDown": 0.9, "noseSneer": 0.8, "mouthUpperUp": 0.7, "mouthLowerDown": 0.7, "jawOpen": 0.4},
    "sadness": {"browInnerUp": 0.8, "mouthFrown": 0.8, "mouthShrugLower": 0.5},
    "disgust": {"noseSneer": 0.9, "mouthUpperUp": 0.8, "browDown": 0.5, "eyeSquint": 0.4},
    "doubt": {"mouthShrugLower": 0.7, "mouthShrugUpper": 0.5, "mouthFrown": 0.5, "browOuterUp": 0.5},
    "kiss": {"mouthPucker": 0.9, "mouthFunnel": 0.2},
    "oh": {"mouthFunnel": 0.8, "jawOpen": 0.35},
    "pressed": {"mouthPress": 0.8, "mouthRollLower": 0.5, "mouthRollUpper": 0.5},
    "squint": {"eyeSquint": 1.0, "cheekSquint": 0.5, "browDown": 0.4},
    "puff": {"cheekPuff": 0.9, "mouthPress": 0.3},
    "bite": {"mouthRollLower": 0.9, "mouthUpperUp": 0.2},
    "frown": {"mouthFrown": 0.9, "mouthPress": 0.3, "browDown": 0.4},
    "stern": {"browDown": 0.9, "mouthPress": 0.6, "mouthFrown": 0.3},
    "grimace": {
        "noseSneer": 0.8,
        "browDown": 0.6,
        "mouthUpperUp": 0.7,
        "mouthLowerDown": 0.6,
        "eyeSquint": 0.9,
        "cheekSquint": 0.8,
    },
    "pain": {
        "eyeBlink": 1.0,
        "noseSneer": 0.7,
        "browDown": 0.9,
        "cheekSquint": 0.9,
        "mouthStretch": 0.6,
        "mouthUpperUp": 0.4,
    },
}
"""Faces that people make, as weights at full strength.

They follow Ekman and Friesen's Facial Action Coding System, 1978, with ARKit's shapes instead of action units.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """Blendshape weights and gaze of a face."""

    weights: Floats
    """Blendshape weights (53,), 0..1, including eyeLook."""
    gaze_deg: Floats
    """Yaw and pitch (2, 2) of the left and the right eye in the head, positive to the subject's left and up."""


def random_expression(random: np.random.Generator, facing: tuple[float, float] | None = None) -> Expression:
    """Return a random expression.

    In 7 % of all cases the face is at rest except for its gaze. One face in three makes one of `FACES`. Up to four
    blendshapes with strengths of 0.25 to 1 are added, and jaw, smile, lids and gaze.

    `facing` is the direction of the camera in the head, yaw and pitch in degrees, so that some faces look into it.
    """
    weights = np.zeros(len(BLENDSHAPES), np.float32)
    kind = random.random()
    if kind > 0.07:
        if kind < 0.40:
            _make_face(weights, random)
        _move_parts(weights, random, int(random.choice(5, p=(0.25, 0.32, 0.23, 0.12, 0.08))))
        _talk_and_smile(weights, random)
    for one, others in OPPOSITES.items():
        if weights[_INDEX[one]] > 0:
            weights[[_INDEX[other] for other in others]] = 0.0
    # Lips close over an open jaw, and only as far as it is open.
    weights[_INDEX["jawOpen"]] = max(weights[_INDEX["jawOpen"]], weights[_INDEX["mouthClose"]])
    gaze = random_gaze(random, facing)
    if kind > 0.07 and _lids(weights, random) and random.random() < 0.6:
        gaze[:, 1] = random.uniform(-28, -6)  # people who look down lower their lids
    for side in "LR":
        if weights[_INDEX[f"eyeBlink_{side}"]] > 0.2:
            weights[_INDEX[f"eyeWide_{side}"]] = 0.0
    weights[list(EYE_LOOK[0] + EYE_LOOK[1])] = eye_look_from_gaze(gaze).ravel()
    return Expression(np.clip(weights, 0, 1), gaze)


def eye_look_from_gaze(gaze_deg: Floats) -> Floats:
    """Return eyeLook weights (2, 4), 0..1, in the order of `EYE_LOOK`, from yaw and pitch (2, 2) of both eyes."""
    yaw, pitch = gaze_deg[:, 0] / EYE_LOOK_DEG, gaze_deg[:, 1] / EYE_LOOK_DEG
    outwards = yaw * np.array([1.0, -1.0])
    return np.asarray(np.clip(np.stack([outwards, -outwards, pitch, -pitch], 1), 0, 1), np.float32)


def gaze_vectors(gaze_deg: Floats) -> Floats:
    """Return unit vectors (..., 3) in the head frame from yaw and pitch (..., 2) in degrees."""
    yaw, pitch = np.moveaxis(np.radians(gaze_deg), -1, 0)
    return np.stack([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)], -1).astype(np.float32)


def random_gaze(random: np.random.Generator, facing: tuple[float, float] | None = None) -> Floats:
    """Return random yaw and pitch (2, 2) of both eyes in degrees.

    One in three looks into the camera where the head allows it, one in six straight ahead, and the others anywhere.
    Both eyes look at the same thing, which may be near.
    """
    kind = random.random()
    if facing is not None and kind < 0.35 and abs(facing[0]) < EYE_LOOK_DEG and abs(facing[1]) < 25:
        yaw, pitch = np.array(facing) + random.normal(0, 2, 2)
    elif kind > 0.85:
        yaw, pitch = random.normal(0, 3, 2)
    elif random.random() < 0.5:
        yaw, pitch = random.normal(0, 14), random.normal(0, 10)
    else:
        yaw, pitch = random.uniform(-30, 30), random.uniform(-28, 28)
    nearness = random.exponential(1.5)
    gaze = np.array([[yaw - nearness, pitch], [yaw + nearness, pitch]])
    return np.asarray(np.clip(gaze, -EYE_LOOK_DEG, EYE_LOOK_DEG), np.float32)


def _put(weights: Floats, name: str, left: float, right: float) -> None:
    """Raise a blendshape, or its two halves, to these weights."""
    if name in _INDEX:
        weights[_INDEX[name]] = max(weights[_INDEX[name]], left)
        return
    for side, weight in (("_L", left), ("_R", right)):
        weights[_INDEX[name + side]] = max(weights[_INDEX[name + side]], weight)


def _make_face(weights: Floats, random: np.random.Generator) -> None:
    face = FACES[str(random.choice(list(FACES)))]
    strength = random.uniform(0.4, 1.15)
    left, right = (1.0, 1.0) if random.random() < 0.75 else random.uniform(0.3, 1, 2)
    for name, weight in face.items():
        part = strength * weight * random.uniform(0.6, 1.2)
        _put(weights, name, min(part * left, 1), min(part * right, 1))


def _move_parts(weights: Floats, random: np.random.Generator, count: int) -> None:
    """Raise `count` random blendshapes.

    Of the shapes with two halves, half are even, a fifth uneven, and three in ten on one side alone.
    """
    for name in random.choice(SIDED + WHOLE, count, replace=False):
        strength = random.uniform(0.25, 1.0)
        left, right = (
            (1.0, 1.0),
            tuple(random.uniform(0.5, 1, 2)),
            (0.0, 1.0),
            (1.0, 0.0),
        )[random.choice(4, p=(0.5, 0.2, 0.15, 0.15))]
        _put(weights, str(name), strength * left, strength * right)


def _talk_and_smile(weights: Floats, random: np.random.Generator) -> None:
    if random.random() < 0.35:
        _put(weights, "jawOpen", random.beta(1.2, 2.2), 0)
    if random.random() < 0.15:
        smile = random.uniform(0.2, 1)
        _put(weights, "mouthSmile", smile * random.uniform(0.85, 1), smile * random.uniform(0.85, 1))


def _lids(weights: Floats, random: np.random.Generator) -> bool:
    """Close the lids of one face in four, three in ten of these on one side alone, mostly fully.

    Returns whether both lids are lowered without being closed.
    """
    if random.random() > 0.25:
        return False
    closed = random.uniform(0.85, 1.0) if random.random() < 0.5 else random.uniform(0, 1)
    for side in "LR":
        weights[_INDEX[f"eyeBlink_{side}"]] = closed
        if closed > 0.5:
            weights[_INDEX[f"eyeSquint_{side}"]] *= 0.3
    if random.random() < 0.3:  # a wink, for which people often pull up the cheek
        open_, shut = ("L", "R") if random.random() < 0.5 else ("R", "L")
        weights[_INDEX[f"eyeBlink_{open_}"]] = random.uniform(0, 0.2)
        if random.random() < 0.5:
            weights[_INDEX[f"cheekSquint_{shut}"]] = random.uniform(0.3, 1)
        return False
    return 0.1 < closed < 0.85

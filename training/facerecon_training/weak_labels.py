"""Another face tracker's answers about photographs -> weak labels: blendshape weights and positions of irises.

The labels are scores and mesh points of MediaPipe Face Landmarker, stored in `DATA/pseudo/*.npz`. They are a teacher's
answers and not the truth. Blendshapes that it never gives are left out, and scores that are never 0 or 1 are rescaled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import DAMAGED_ARRAYS, UsageError
from facerecon_rt.types import Floats
from numpy.typing import NDArray

from .rendered.expressions import EYE_LOOK

NEVER = ("cheekPuff", "cheekSquint", "jawForward", "noseSneer")
"""Blendshapes that the tracker never gives."""
SCALE = {
    "browDown": (0.05, 0.70), "browInnerUp": (0.05, 0.80), "browOuterUp": (0.08, 0.85), "eyeBlink": (0.12, 0.75),
    "eyeSquint": (0.30, 0.85), "eyeWide": (0.02, 0.35), "jawLeft": (0.01, 0.30), "jawOpen": (0.01, 0.72),
    "jawRight": (0.01, 0.30), "mouthClose": (0.01, 0.30), "mouthDimple": (0.01, 0.35), "mouthFrown": (0.00, 0.35),
    "mouthFunnel": (0.01, 0.40),
    "mouthLeft": (0.01, 0.35), "mouthLowerDown": (0.02, 0.90), "mouthPress": (0.04, 0.50), "mouthPucker": (0.10, 0.95),
    "mouthRight": (0.01, 0.35), "mouthRollLower": (0.01, 0.60), "mouthRollUpper": (0.02, 0.60),
    "mouthShrugLower": (0.00, 0.70), "mouthShrugUpper": (0.02, 0.35), "mouthStretch": (0.01, 0.70),
    "mouthUpperUp": (0.00, 0.85),
}  # fmt: skip
"""Scores of faces at rest and of the strongest of the photographs' faces, for blendshapes where they are not 0 and
1."""
LOOK_DEG = 25.0
"""Angle in degrees by which an eye turns at an eyeLook score of 1, from the position of irises over such scores."""
LABELS = Path(__file__).with_name("expression_labels.json")
"""Labels that a vision language model gave by looking at the photographs: FOLDER/NAME.jpg -> label -> present or
unsure. Any other label is absent."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """Blendshape weights for a label that was given by looking. Halves of a blendshape share the weight."""

    blendshapes: tuple[str, ...]
    """Blendshapes that the label speaks of."""
    least: float
    """The first of them has at least this weight where the label is present."""
    most: float
    """All of them have at most this weight where the label is absent."""


MEANINGS = {
    "browUp": Meaning(("browInnerUp", "browOuterUp"), 0.4, 0.1),
    "browDown": Meaning(("browDown",), 0.6, 0.1),
    "squint": Meaning(("eyeSquint",), 0.6, 0.15),
    "eyesWide": Meaning(("eyeWide",), 0.5, 0.05),
    "frown": Meaning(("mouthFrown",), 0.5, 0.05),
    "noseSneer": Meaning(("noseSneer",), 0.7, 0.0),
    "mouthPressOrRoll": Meaning(("mouthPress", "mouthRollLower", "mouthRollUpper"), 0.3, 0.1),
    "upperLipRaise": Meaning(("mouthUpperUp",), 0.4, 0.1),
    "cheekPuff": Meaning(("cheekPuff",), 0.7, 0.0),
    "mouthLeft": Meaning(("mouthLeft",), 0.5, 0.05),
    "mouthRight": Meaning(("mouthRight",), 0.5, 0.05),
}
LOOK_LABELS = {
    "gazeLeft": ("eyeLookOut_L", "eyeLookIn_R", "eyeLookIn_L", "eyeLookOut_R"),
    "gazeRight": ("eyeLookIn_L", "eyeLookOut_R", "eyeLookOut_L", "eyeLookIn_R"),
    "gazeUp": ("eyeLookUp_L", "eyeLookUp_R", "eyeLookDown_L", "eyeLookDown_R"),
    "gazeDown": ("eyeLookDown_L", "eyeLookDown_R", "eyeLookUp_L", "eyeLookUp_R"),
}
"""Label -> two weights that are at least LEAST_LOOK where it is present, and two that are 0."""
LEAST_LOOK = 0.5
ABSENT_TRUST, PRESENT_TRUST = 3.0, 9.0
"""Trust in weights that were given by looking, relative to the trust in a tracker's weights. Most expressions are
absent from most photographs, so that the few where they are present count more."""
LIP_OPENING = {
    "jawOpen": 0.333, "mouthFunnel": 0.130, "mouthUpperUp": 0.087, "mouthLowerDown": 0.074, "mouthClose": -0.408,
}  # fmt: skip
"""Opening between the middles of the lips that each blendshape adds to ICT-FaceKit's mean face at weight 1, in
distances of the outer eye corners."""
REST_OPENING = 0.009
"""Opening of the mean face itself."""
LEAST_OPENING = 0.02
"""Opening from which on a mouth counts as open."""
LIP_POINTS, EYE_CORNERS = (13, 14), (33, 263)
"""Mesh points: the middles of the lips' inner edges, and the outer corners of the eyes."""
EYE_POINTS = ((263, 362, 473), (33, 133, 468))
"""Mesh points of the left and the right eye: outer corner, inner corner, centre of the iris."""
DEVELOPMENT_SHARE = 8
"""Interval of the people who are never trained on, in folders that name their people:
`benchmarks/expression_labels.json`."""


@dataclass(frozen=True, slots=True, eq=False)
class WeakLabels:
    """Weak labels of N photographs."""

    files: dict[str, int]
    """FOLDER/NAME.jpg, or NAME.jpg in the folder that the file describes -> row."""
    blendshapes: Floats
    """Blendshape weights (N, 53) 0..1; NaN where nothing is known."""
    trust: Floats
    """Trust (N, 53) in each weight: 1, or ABSENT_TRUST and PRESENT_TRUST where they were given by looking."""
    eyes: Floats
    """Outer corner, inner corner and iris of the left and the right eye, (N, 2, 3, 2) photograph pixels; NaN where not
    known."""
    landmarks: Floats
    """The tracker's landmarks (N, 68, 2) in pixels. Jaw points are NaN, because they lie at fixed places of its
    mesh."""
    person: NDArray[np.int64]
    """Person of each photograph, (N,); -1 if not known."""
    valid: NDArray[np.int64]
    """Valid part (N, 4) of each picture: x0, y0, x1, y1."""


def read_weak_labels(path: Path) -> WeakLabels:
    """Read weak labels from an .npz file. Raises UsageError for any other file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            names = [str(name) for name in arrays["blendshape_names"]]
            scores = arrays["blendshapes"].astype(np.float32)
            points = arrays["landmarks478"].astype(np.float32)
            eyes, opening = points[:, EYE_POINTS, :2], lip_opening(points)
            landmarks = arrays["points68"].astype(np.float32)
            files = {str(name): row for row, name in enumerate(arrays["files"])}
            count = len(files)
            person = arrays["person"].astype(np.int64) if "person" in arrays else np.full(count, -1)
            everything = np.tile(np.array([0, 0, 1 << 20, 1 << 20]), (count, 1))
            valid = arrays["valid"].astype(np.int64) if "valid" in arrays else everything
    except DAMAGED_ARRAYS as error:
        raise UsageError(
            f"{path} holds no weak labels ({error}); replace it (see training/README.md), or remove it"
        ) from error
    landmarks[:, :17] = np.nan
    blendshapes = with_opening(in_our_names(names, scores), opening)
    trust = np.ones(blendshapes.shape, np.float32)
    for name, labels in json.loads(LABELS.read_text()).items():
        row = files.get(name, files.get(name.removeprefix(f"{path.stem}/"), -1))
        if row >= 0:
            blendshapes[row] = corrected(blendshapes[row], labels)
            trust[row] = trust_of(labels)
    return WeakLabels(files, blendshapes, trust, eyes, landmarks, person, valid)


def in_our_names(names: list[str], scores: Floats) -> Floats:
    """Return the tracker's scores (N, K) as (N, 53) in the order of BLENDSHAPES, rescaled; NaN where it gives none."""
    column = {name: i for i, name in enumerate(names)}
    ours = np.full((len(scores), len(BLENDSHAPES)), np.nan, np.float32)
    for i, name in enumerate(BLENDSHAPES):
        kind = name.removesuffix("_L").removesuffix("_R")
        theirs = name.replace("_L", "Left").replace("_R", "Right")
        found = column.get(theirs, column.get(kind))
        if found is None or kind.startswith(NEVER):
            continue
        rest, strong = SCALE.get(kind, (0.0, 1.0))
        ours[:, i] = np.clip((scores[:, found] - rest) / (strong - rest), 0, 1)
    return ours


def lip_opening(points: Floats) -> Floats:
    """Return the opening (N,) between the lips of a tracker's mesh points (N, 478, 3), in distances of the outer eye
    corners. Both are measured in space, so that a turned head changes neither."""
    upper, lower = (points[:, index] for index in LIP_POINTS)
    right, left = (points[:, index] for index in EYE_CORNERS)
    apart = np.linalg.norm(left - right, axis=1)
    return np.asarray(np.linalg.norm(upper - lower, axis=1) / np.maximum(apart, 1e-6), np.float32)


def with_opening(blendshapes: Floats, opening: Floats) -> Floats:
    """Return weights (N, 53) that open the mouth of the mean face as far as the tracker's own mesh is open.

    `opening` (N,) is that of `lip_opening`. The tracker's scores alone open a mouth half as far as it is, as long as it
    is open by less than 0.1. Lips that bare teeth open further in the ratio of mouthUpperUp to jawOpen, and the jaw
    opens the rest of the way.
    """
    fixed = blendshapes.copy()
    jaw, lips = BLENDSHAPES.index("jawOpen"), [*_halves("mouthUpperUp"), *_halves("mouthLowerDown")]
    bare, low = (np.nan_to_num(fixed[:, columns]).mean(1) for columns in (lips[:2], [jaw]))
    further = np.maximum(_missing(fixed, opening), 0) * bare / (bare + low + 1e-3)
    by_lips = LIP_OPENING["mouthUpperUp"] + LIP_OPENING["mouthLowerDown"]
    fixed[:, lips] = np.clip(fixed[:, lips] + (further / by_lips)[:, None], 0, 1)
    fixed[:, jaw] = np.clip(fixed[:, jaw] + _missing(fixed, opening) / LIP_OPENING["jawOpen"], 0, 1)
    return fixed


def _missing(blendshapes: Floats, opening: Floats) -> Floats:
    """Return the opening (N,) that weights (N, 53) lack, negative where they open too far; 0 for closed mouths."""
    by_weights = np.full(len(blendshapes), REST_OPENING, np.float32)
    for name, opened in LIP_OPENING.items():
        by_weights += opened * np.nan_to_num(blendshapes[:, _halves(name)]).mean(1)
    return np.where(opening >= LEAST_OPENING, opening - by_weights, np.float32(0))


def trust_of(labels: Mapping[str, str]) -> Floats:
    """Return the trust (53,) in the weights of a photograph with labels given by looking.

    Labels that are unsure, and looks that are absent, leave the trust of a tracker's weights, 1.
    """
    trust = np.ones(len(BLENDSHAPES), np.float32)
    for label, meaning in MEANINGS.items():
        if labels.get(label) == "present":
            trust[_halves(meaning.blendshapes[0])] = PRESENT_TRUST
        elif label not in labels:
            trust[[index for name in meaning.blendshapes for index in _halves(name)]] = ABSENT_TRUST
    for label, looks in LOOK_LABELS.items():
        if labels.get(label) == "present":
            trust[[BLENDSHAPES.index(name) for name in looks]] = PRESENT_TRUST
    return trust


def corrected(blendshapes: Floats, labels: Mapping[str, str]) -> Floats:
    """Return a tracker's weights (53,) with what was seen in the photograph.

    Labels that are unsure leave the tracker's weights as they are, and so do looks that are absent.
    """
    fixed = blendshapes.copy()
    for label, meaning in MEANINGS.items():
        places = [_halves(name) for name in meaning.blendshapes]
        everywhere = [index for halves in places for index in halves]
        if labels.get(label) == "present":
            fixed[places[0]] = np.fmax(fixed[places[0]], meaning.least)
        elif label not in labels:
            fixed[everywhere] = np.fmin(fixed[everywhere], meaning.most)
    for label, names in LOOK_LABELS.items():
        indices = [BLENDSHAPES.index(name) for name in names]
        if labels.get(label) == "present":
            fixed[indices[:2]] = np.fmax(fixed[indices[:2]], LEAST_LOOK)
            fixed[indices[2:]] = 0.0
    return fixed


def _halves(name: str) -> list[int]:
    return [i for i, one in enumerate(BLENDSHAPES) if one.removesuffix("_L").removesuffix("_R") == name]


def gaze_from_eye_look(blendshapes: Floats) -> Floats:
    """Return yaw and pitch (2, 2) of the left and the right eye in radians, from blendshape weights (53,).

    Both eyes look at the same thing, so they share the mean of both. A tracker's two eyes differ by its noise.
    """
    out, inwards, up, down = np.array([[blendshapes[index] for index in eye] for eye in EYE_LOOK]).T
    yaw = ((out - inwards) * [1, -1]).mean()
    pitch = (up - down).mean()
    return np.radians(np.full((2, 2), [yaw, pitch]) * LOOK_DEG).astype(np.float32)

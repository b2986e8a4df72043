"""Exported file and its weights -> the differences of their answers, and whether they are within tolerance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from facerecon_rt.annotated import landmark_figures
from facerecon_rt.contract import OUTPUTS, OUTPUTS_1
from facerecon_rt.networks.golden import TOLERANCES, distances, golden_crop
from facerecon_rt.networks.session import FaceSession, RawFaces
from facerecon_rt.pose import rotation_angle_deg, split_camera
from facerecon_rt.types import Floats
from facerecon_training.model import FaceModel
from numpy.typing import ArrayLike, NDArray

from .crops import Crops, FaceCrops

EYE_CORNERS = [36, 45]
"""Landmarks that an NME needs. Crops may lack others, such as the jaw in sets of 49 points."""
BATCH_SIZES = (1, 7)
"""Batch sizes of the verification: one face, and a number that no graph was traced with."""

UNITS = {
    "shape": "mm",
    "vertices": "mm",
    "expression": "0..1",
    "rotation": "deg",
    "landmarks": "px",
    "confidence": "0..1",
    "gaze": "deg",
    "identity": "std",
    "identity_variance": "std^2",
    "NME": "points",
}
"""Units of the table's rows. Weights without gaze have no rows gaze, identity and identity_variance."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Tolerances of one precision against PyTorch."""

    by: Literal["mean", "largest"]
    """Figure of a row that must be within tolerance."""
    allowed: Mapping[str, float]
    """Row -> tolerance, in the row's unit."""


GATES: dict[str, Gate] = {
    # The file sums float32 in another order than PyTorch, and stores its decoders in half.
    "fp32": Gate(
        "largest",
        {
            "shape": 0.02,
            "vertices": 0.02,
            "expression": 1e-4,
            "rotation": 0.01,
            "landmarks": 0.01,
            "confidence": 1e-4,
            "gaze": 0.01,
            "identity": 1e-3,
            "identity_variance": 1e-4,
            "NME": 1e-3,
        },
    ),
    "fp16": Gate(
        "mean",
        {
            "shape": 0.05,
            "vertices": 0.05,
            "expression": 2e-3,
            "rotation": 0.05,
            "landmarks": 0.05,
            "confidence": 2e-3,
            "gaze": 0.05,
            "identity": 0.01,
            "identity_variance": 2e-3,
            "NME": 0.02,
        },
    ),
    "int8": Gate(
        "mean",
        {
            "shape": 0.5,
            "vertices": 0.5,
            "expression": 0.02,
            "rotation": 0.7,
            "landmarks": 0.5,
            "confidence": 0.02,
            "gaze": 0.7,
            "identity": 0.15,
            "identity_variance": 0.03,
            "NME": 0.15,
        },
    ),
}
"""Tolerances by precision."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table of differences."""

    name: str
    unit: str
    mean: float
    """Mean over crops. For points, a crop counts with the root of its mean squared distance."""
    p99: float
    """99th percentile over crops."""
    largest: float
    """Largest difference of any point or number. The row NME is a single number, which is its mean, too."""
    allowed: float
    by: Literal["mean", "largest"]

    @property
    def decisive(self) -> float:
        """The figure that is compared with `allowed`."""
        return self.mean if self.by == "mean" else self.largest

    @property
    def passed(self) -> bool:
        """Whether the row is within tolerance; False for NaN."""
        return self.decisive <= self.allowed


def run_torch(model: FaceModel, crops: Crops, batch: int = 32) -> RawFaces:
    """Return PyTorch's answers about crops."""
    with torch.inference_mode():
        parts = [
            model(torch.from_numpy(crops[i : i + batch]).permute(0, 3, 1, 2).float())
            for i in range(0, len(crops), batch)
        ]
    names = OUTPUTS if model.config.gaze else OUTPUTS_1
    return RawFaces(**{name: torch.cat([getattr(p, name) for p in parts]).numpy() for name in names})


def run_onnx(session: FaceSession, crops: Crops, batch_size: int) -> RawFaces:
    """Return an exported file's answers about crops, in batches of `batch_size`."""
    parts = [session.run(crops[i : i + batch_size]) for i in range(0, len(crops), batch_size)]
    names = session.contract.outputs
    return RawFaces(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """PyTorch's answers about crops, which every exported file is compared with."""

    images: Crops
    """Crops (N, S, S, 3). They are repeated if they are fewer than the largest batch of `BATCH_SIZES`."""
    landmarks: Floats
    """Annotated landmarks (N, 68, 2) in crop pixels, NaN where not annotated."""
    answers: RawFaces

    @classmethod
    def of(cls, model: FaceModel, crops: FaceCrops) -> Reference:
        """Run the model on the crops."""
        count = max(len(crops.images), *BATCH_SIZES)
        images = np.resize(crops.images, (count, *crops.images.shape[1:]))
        return cls(images, np.resize(crops.landmarks, (count, 68, 2)), run_torch(model, images))


def self_test(session: FaceSession) -> Row:
    """Return the error in the answer to the golden crop, by which the runtime judges a file that it opens: in crop
    pixels or in mm, whichever is larger."""
    crops = golden_crop(session.contract.input_size)[None].repeat(session.contract.batch or 1, axis=0)
    answer = session.run(crops, ["landmarks", "vertices"])
    # np.max, because max(0.1, nan) is 0.1.
    error = float(np.max(distances(session.contract, answer.landmarks[0], answer.vertices[0])))
    return Row("self-test", "px, mm", error, error, error, TOLERANCES[session.contract.precision], "mean")


def verify(session: FaceSession, reference: Reference, gate: Gate) -> list[Row]:
    """Compare an exported file with PyTorch on the same crops, in every batch size of `BATCH_SIZES`."""
    found = [run_onnx(session, reference.images, size) for size in BATCH_SIZES]
    return compare(reference.answers, found, gate, reference.landmarks)


def compare(
    reference: RawFaces, candidates: Sequence[RawFaces], gate: Gate, landmarks: Floats | None = None
) -> list[Row]:
    """Compare answers about the same N crops with a reference, and return one row per output over all candidates.

    `landmarks` is (N, 68, 2) in crop pixels, NaN where not annotated. If it is given, another row holds the
    increase of the NME of the inner 51 points, in percentage points.
    """
    rows = []
    for name, unit in UNITS.items():
        if name == "NME" or (name != "rotation" and getattr(reference, name) is None):
            continue
        parts = [_differences(name, reference, candidate) for candidate in candidates]
        values = np.concatenate(parts)
        crops = np.sqrt((values**2).mean(1)) if unit in ("mm", "px") else values.mean(1)
        rows.append(_row(name, crops, float(values.max()), gate))
    known = np.zeros(0, bool) if landmarks is None else np.asarray(np.isfinite(landmarks[:, EYE_CORNERS]).all((1, 2)))
    if landmarks is not None and known.any():
        worse = [_nme(one, landmarks, known) - _nme(reference, landmarks, known) for one in candidates]
        increase = np.max(worse)  # NaN if one of them is
        rows.append(_row("NME", np.array([increase]), float(increase), gate))
    return rows


def _row(name: str, crops: NDArray[np.float64], largest: float, gate: Gate) -> Row:
    p99 = float(np.percentile(crops, 99))
    return Row(name, UNITS[name], float(crops.mean()), p99, largest, gate.allowed[name], gate.by)


def _nme(faces: RawFaces, landmarks: Floats, known: NDArray[np.bool_]) -> float:
    return landmark_figures(faces.landmarks[known, :, :2], landmarks[known])["nme_inner51"]


def _differences(name: str, a: RawFaces, b: RawFaces) -> NDArray[np.float64]:
    """Return the differences (N, K) per crop, in the row's unit: distances of points, angles of rotations, or
    magnitudes."""
    if name == "rotation":
        pairs = zip(a.crop_from_head, b.crop_from_head, strict=True)
        return np.array([[_angle_deg(*pair)] for pair in pairs])
    if name == "gaze":
        assert a.gaze is not None and b.gaze is not None
        # The angle is computed from the chord, which keeps its digits for small angles.
        chord = np.linalg.norm(np.asarray(a.gaze, np.float64) - b.gaze, axis=2)
        return np.asarray(np.degrees(2 * np.arcsin(np.clip(chord / 2, 0, 1))))
    difference = np.asarray(getattr(a, name), np.float64) - np.asarray(getattr(b, name), np.float64)
    if name in ("shape", "vertices", "landmarks"):
        return np.asarray(np.linalg.norm(difference, axis=2))
    return np.asarray(np.abs(difference).reshape(len(difference), -1))


def _angle_deg(crop_from_head: ArrayLike, other: ArrayLike) -> float:
    if not (np.isfinite(crop_from_head).all() and np.isfinite(other).all()):
        return float("nan")
    return rotation_angle_deg(split_camera(crop_from_head)[1], split_camera(other)[1])


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text, aligned for a terminal."""
    lines = [f"{'output':<18}{'unit':<7}{'mean':>11}{'p99':>11}{'largest':>11}{'allowed':>11}"]
    for row in rows:
        verdict = "" if row.passed else "  differs too much"
        figures = "".join(f"{value:>11.2e}" for value in (row.mean, row.p99, row.largest, row.allowed))
        lines.append(f"{row.name:<18}{row.unit:<7}{figures} ({row.by}){verdict}")
    return "\n".join(lines)

"""Exported file and what it was made from -> how far their answers are apart, and whether that is near enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from facerecon_rt.pose import rotation_angle_deg, split_camera
from facerecon_rt.session import FaceSession, RawFaces
from facerecon_training.model import FaceModel
from numpy.typing import ArrayLike, NDArray

from .crops import Crops

BATCH_SIZES = (1, 7)
"""One face, and a number that no graph was traced with."""

UNITS = {
    "shape": "mm",
    "vertices": "mm",
    "expression": "0..1",
    "rotation": "deg",
    "landmarks": "px",
    "confidence": "0..1",
}
"""The rows of the table."""

FP32_TOLERANCES: Mapping[str, float] = {
    "shape": 0.01,
    "vertices": 0.01,
    "expression": 1e-4,
    "rotation": 0.01,
    "landmarks": 0.01,
    "confidence": 1e-4,
}
"""The largest difference allowed, in the row's unit: float32 summed in another order."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    unit: str
    largest: float
    mean: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """False for NaN too."""
        return self.largest <= self.tolerance


def run_torch(model: FaceModel, crops: Crops) -> RawFaces:
    """What PyTorch says about the crops."""
    with torch.inference_mode():
        output = model(torch.from_numpy(crops).permute(0, 3, 1, 2).float())
    return RawFaces(**{name: tensor.numpy() for name, tensor in output._asdict().items()})


def run_onnx(session: FaceSession, crops: Crops, batch_size: int) -> RawFaces:
    """What the exported file says about the crops, `batch_size` at a time."""
    parts = [session.run(crops[i : i + batch_size]) for i in range(0, len(crops), batch_size)]
    return RawFaces(
        **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(RawFaces)}
    )


def verify(
    session: FaceSession, model: FaceModel, crops: Crops, tolerances: Mapping[str, float] = FP32_TOLERANCES
) -> list[Row]:
    """The exported file against PyTorch on the same crops, in every one of `BATCH_SIZES`."""
    crops = np.resize(crops, (max(len(crops), max(BATCH_SIZES)), *crops.shape[1:]))  # repeated where they are too few
    reference = run_torch(model, crops)
    return compare([reference] * len(BATCH_SIZES), [run_onnx(session, crops, n) for n in BATCH_SIZES], tolerances)


def compare(
    references: Sequence[RawFaces], candidates: Sequence[RawFaces], tolerances: Mapping[str, float] = FP32_TOLERANCES
) -> list[Row]:
    """Pairs of answers about the same crops -> the largest and the mean difference per output over all pairs."""
    rows = []
    for name, unit in UNITS.items():
        values = np.concatenate([_differences(name, *pair) for pair in zip(references, candidates, strict=True)])
        rows.append(Row(name, unit, float(values.max()), float(values.mean()), tolerances[name]))
    return rows


def _differences(name: str, a: RawFaces, b: RawFaces) -> NDArray[np.float64]:
    """Distances of points, angles of rotations, magnitudes of numbers; flat, in the row's unit."""
    if name == "rotation":
        pairs = zip(a.crop_from_head, b.crop_from_head, strict=True)
        return np.array([_angle_deg(*pair) for pair in pairs])
    difference = np.asarray(getattr(a, name), np.float64) - np.asarray(getattr(b, name), np.float64)
    if name in ("shape", "vertices", "landmarks"):
        return np.asarray(np.linalg.norm(difference, axis=2).ravel())
    return np.asarray(np.abs(difference).ravel())


def _angle_deg(crop_from_head: ArrayLike, other: ArrayLike) -> float:
    if not (np.isfinite(crop_from_head).all() and np.isfinite(other).all()):
        return float("nan")
    return rotation_angle_deg(split_camera(crop_from_head)[1], split_camera(other)[1])


def table(rows: Sequence[Row]) -> str:
    """The rows as text, aligned for a terminal."""
    lines = [f"{'output':<12}{'unit':<6}{'largest':>12}{'mean':>12}{'allowed':>12}"]
    for row in rows:
        verdict = "" if row.passed else "  too far"
        lines.append(f"{row.name:<12}{row.unit:<6}{row.largest:>12.2e}{row.mean:>12.2e}{row.tolerance:>12.2e}{verdict}")
    return "\n".join(lines)

"""Several shapes of one person -> one average shape, over photographs or over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..errors import UsageError
from ..networks.basis import Basis, fuse_identities
from ..template import load_template
from ..types import Face, Floats

ONES = np.ones(3, np.float32)
MEMORY = 300.0
"""Maximum weight of the running mean, in frames. Older frames are gradually forgotten."""

Average = Literal["precision", "robust", "mean"]
LEAST_WEIGHT = 1e-3
"""Minimum weight of a face in an average. A face of confidence 0 counts for next to nothing."""
HUBER = 1.345
"""Multiple of the median distance from which shapes lose weight (Huber 1981)."""
LEAST_DISTANCE_MM = 1e-3
"""Minimum limit of the distance, a micrometre. Photographs may be copies of each other with a distance of 0."""
ROBUST_STEPS = 10


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """Photographs of one person, reconstructed together."""

    shape: Floats
    """(V, 3) mm, head frame: the person's neutral face, averaged over the photographs or fused from their codes."""
    spread_mm: Floats
    """(V,) mm: weighted root-mean-square distance of the photographs' shapes to their average.

    It shows how far the photographs disagree. If `shape` is fused by precision, the distances are still those to the
    average, so that equal photographs have a spread of 0.
    """
    faces: tuple[Face | None, ...]
    """Face of each photograph, with its own pose and expression and the common shape; None where no face was found."""
    weights: Floats
    """(N,) weight of each photograph; they sum to 1, and are 0 where no face was found."""
    error_mm: Floats | None = None
    """(V,) mm: expected error of the shape, root mean square, without position, rotation and size of the head; None
    unless the photographs were averaged by precision."""


def average_shapes(shapes: Floats, confidences: Floats, method: Average = "robust") -> tuple[Floats, Floats, Floats]:
    """Average shapes (N, V, 3) mm with confidences (N,). Returns the average (V, 3) mm, the spread per vertex (V,) mm,
    and the weights (N,).

    "mean" weighs every photograph equally. The other methods weigh by confidence, and lower the weight of shapes
    further from the average than is usual in the set: Huber's weights on the shape's distance, iterated (Huber 1981).
    Raises UsageError for no shapes.
    """
    count = len(shapes)
    if not count:
        raise UsageError("there are no shapes to average; give at least one")
    robust = method != "mean"
    base = np.maximum(confidences, LEAST_WEIGHT) if robust else np.ones(count, np.float32)
    weights = base / base.sum()
    mean = np.tensordot(weights, shapes, 1)
    for _ in range(ROBUST_STEPS if robust and count > 2 else 0):
        distance = np.sqrt([_squares(shape, mean).mean() for shape in shapes])
        limit = max(HUBER * float(np.median(distance)), LEAST_DISTANCE_MM)
        weights = base * np.minimum(1.0, limit / np.maximum(distance, 1e-9))
        weights = weights / weights.sum()
        mean = np.tensordot(weights, shapes, 1)
    variance = sum(weight * _squares(shape, mean) for weight, shape in zip(weights, shapes, strict=True))
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32), weights.astype(np.float32)


def _squares(shape: Floats, mean: Floats) -> Floats:
    """Return the squared distances (V,) of a shape's vertices (V, 3) from the mean. One shape at a time, since the
    shapes of a long video fill half of the memory already."""
    return np.asarray(((shape - mean) ** 2).sum(1))


def with_shape(face: Face, shape: Floats, spread_mm: Floats) -> Face:
    """Return the face with another identity. Expression and pose stay, and vertices and landmarks follow the new
    shape."""
    vertices = shape + (face.vertices - face.shape)
    moved = (shape - face.shape)[load_template().landmarks]
    landmarks = face.landmarks + moved @ face.frame_from_head[:, :3].T
    return replace(
        face, shape=shape, vertices=vertices, landmarks=np.asarray(landmarks, np.float32), spread_mm=spread_mm
    )


def set_from_faces(faces: Sequence[Face | None], average: Average = "robust", basis: Basis | None = None) -> ImageSet:
    """Average the faces (or None) of one person's photographs to an image set.

    "precision" fuses the identity codes by `fuse_identities`, with the weights of "robust" as their trust, and needs
    the model's basis. Raises UsageError when there is no face, or no basis or identity code for "precision".
    """
    found = [face for face in faces if face is not None]
    if not found:
        raise UsageError("no face was found in any photograph of the set; check that they show a face")
    shape, spread, found_weights = average_shapes(
        np.stack([face.shape for face in found]), np.array([face.confidence for face in found], np.float32), average
    )
    error = None
    if average == "precision":
        codes = [face.identity for face in found if face.identity is not None]
        variances = [face.identity_variance for face in found if face.identity_variance is not None]
        if basis is None or not len(codes) == len(variances) == len(found):
            raise UsageError("averaging by precision needs the model's basis and identity codes; choose `robust`")
        code, variance = fuse_identities(np.stack(codes), np.stack(variances), found_weights / found_weights.max())
        shape, error = basis.neutral(code), basis.expected_error(variance)
    weights = np.zeros(len(faces), np.float32)
    weights[[face is not None for face in faces]] = found_weights
    shared = tuple(None if face is None else with_shape(face, shape, spread) for face in faces)
    return ImageSet(shape, spread, shared, weights, error)


class ShapeAverage:
    """Running confidence-weighted mean of a shape, and its spread (West, Updating mean and variance, CACM 1979)."""

    def __init__(self) -> None:
        self._weight = 0.0
        self._mean: Floats | None = None
        self._squares: Floats | None = None

    def add(self, shape: Floats, weight: float) -> tuple[Floats, Floats]:
        """Add a shape (V, 3) mm with its weight. Returns the mean so far (V, 3) and the spread per vertex (V,), both in
        mm."""
        weight = max(weight, LEAST_WEIGHT)
        if self._mean is None or self._squares is None:
            self._weight, self._mean = weight, shape.copy()
            self._squares = np.zeros(len(shape), np.float32)
        else:
            self._weight = min(self._weight + weight, MEMORY)
            share = np.float32(weight / self._weight)
            offset = shape - self._mean
            step = share * offset
            # The sum is a new array, because the caller still holds the old one.
            self._mean = self._mean + step
            step *= offset
            self._squares += step @ ONES
            self._squares *= 1 - share
        return self._mean, np.sqrt(self._squares)

    def distance_mm(self, shape: Floats) -> float:
        """Return the root mean square distance of a shape (V, 3) from the mean so far, in mm; 0 before there is a
        mean."""
        if self._mean is None:
            return 0.0
        offset = shape - self._mean
        return math.sqrt(float(np.vdot(offset, offset)) / len(offset))

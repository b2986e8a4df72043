"""Identity codes with their variances -> the error of sets that are fused by precision, and the error they expect."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from facerecon_rt.faces.shapes import average_shapes
from facerecon_rt.networks.basis import Basis, fuse_identities
from facerecon_rt.pose import similarity_align
from facerecon_rt.sinks.shade import vertex_normals
from facerecon_rt.template import load_template
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from .consistency import SET_SIZES, sets_of
from .evaluate import PredictedPeople
from .model import FaceModel, FaceOutput

CALIBRATION_BINS = 5


@dataclass(frozen=True, slots=True)
class FusedSet:
    """Errors of the shape of one set of pictures, in mm after a similarity."""

    size: int
    """Number of pictures."""
    expected_rmse_mm: float
    """Root mean square error that the variances promise."""
    rmse_mm: float
    robust_rmse_mm: float
    """Error of the average of shapes, for comparison."""
    surface_mm: tuple[float, float, float]
    """Median, mean and standard deviation of the distances of `surface_distances`."""


def basis_of(model: FaceModel) -> Basis:
    """Return the decoder of a model."""
    decoder = model.reconstructor
    mean, shape, expression = (
        array.detach().cpu().numpy().reshape(-1, len(load_template().symmetry), 3)
        for array in (decoder.mean, decoder.shape_basis, decoder.expression_basis)
    )
    return Basis(mean[0], shape, expression, "")


def surface_distances(true: NDArray[np.floating], predicted: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the distance (V,) in mm of each true vertex (V, 3) to the predicted surface (V, 3).

    The surface is the plane of the nearest predicted vertex, so that motion along the surface does not count. NoW
    (Sanyal et al., CVPR 2019) measures distances of scans to a mesh after a similarity; scans are rendered people here,
    and the similarity uses all vertices.
    """
    _, nearest = cKDTree(predicted).query(true)
    normals = vertex_normals(predicted.astype(np.float32), load_template().triangles)
    return np.asarray(np.abs(((true - predicted[nearest]) * normals[nearest]).sum(1)))


def fused_sets(output: FaceOutput, seen: PredictedPeople, basis: Basis) -> list[FusedSet]:
    """Fuse disjoint sets of each person's pictures, of all sizes in SET_SIZES."""
    codes, variances = output.identity.numpy(), output.identity_variance.numpy()
    shapes, confidences, true = output.shape.numpy(), output.confidence.numpy(), seen.shape.numpy()
    fused, expected = [], []
    for size in SET_SIZES:
        for rows in (one for person in sets_of(seen.person, size) for one in person):
            average, _, weights = average_shapes(shapes[rows], confidences[rows])
            code, variance = fuse_identities(codes[rows], variances[rows], weights / weights.max())
            expected.append(variance)
            target = true[rows[0]].astype(np.float64)
            placed = similarity_align(basis.neutral(code), target)
            distances = surface_distances(target, placed)
            fused.append(
                FusedSet(
                    size,
                    0.0,
                    _rms(np.linalg.norm(placed - target, axis=1)),
                    _rms(np.linalg.norm(similarity_align(average, target) - target, axis=1)),
                    (float(np.median(distances)), float(distances.mean()), float(distances.std())),
                )
            )
    errors = basis.expected_error(np.stack(expected))
    return [replace(one, expected_rmse_mm=_rms(error)) for one, error in zip(fused, errors, strict=True)]


def fused_set_figures(sets: list[FusedSet], seen: PredictedPeople) -> dict[str, dict[str, float]]:
    """Return figures for each set size, and those of the mean face."""
    rows = {}
    for size in sorted({one.size for one in sets}):
        of_size = [one for one in sets if one.size == size]
        rows[str(size)] = {
            "sets": float(len(of_size)),
            "expected_rmse_mm": _rms([one.expected_rmse_mm for one in of_size]),
            "rmse_mm": _rms([one.rmse_mm for one in of_size]),
            "robust_rmse_mm": _rms([one.robust_rmse_mm for one in of_size]),
            **_surface([one.surface_mm for one in of_size]),
        }
    _, firsts = np.unique(seen.person, return_index=True)
    mean = seen.mean[0].numpy()
    errors, surfaces = [], []
    for target in seen.shape.numpy()[firsts].astype(np.float64):
        placed = similarity_align(mean, target)
        errors.append(_rms(np.linalg.norm(placed - target, axis=1)))
        distances = surface_distances(target, placed)
        surfaces.append((float(np.median(distances)), float(distances.mean()), float(distances.std())))
    rows["mean face"] = {"sets": float(len(errors)), "rmse_mm": _rms(errors), **_surface(surfaces)}
    return rows


def calibration(sets: list[FusedSet]) -> dict[str, dict[str, float]]:
    """Return expected and true errors in bins of equally many sets, from the surest to the least sure."""
    order = sorted(sets, key=lambda one: one.expected_rmse_mm)
    bins = [part for part in np.array_split(np.arange(len(order)), CALIBRATION_BINS) if len(part)]
    return {
        str(number + 1): {
            "expected_rmse_mm": _rms([order[i].expected_rmse_mm for i in part]),
            "rmse_mm": _rms([order[i].rmse_mm for i in part]),
        }
        for number, part in enumerate(bins)
    }


def _surface(triples: list[tuple[float, float, float]]) -> dict[str, float]:
    means = np.mean(triples, axis=0)
    return {f"surface_{name}_mm": float(value) for name, value in zip(("median", "mean", "std"), means, strict=True)}


def _rms(values: NDArray[np.floating] | list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))

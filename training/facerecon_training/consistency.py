"""Shapes and their people -> how well the shapes tell people apart, and how much a set of photographs improves them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from facerecon_rt.faces.shapes import average_shapes
from facerecon_rt.pose import rmse_mm
from facerecon_rt.types import Floats
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

SET_SIZES = (1, 2, 5, 10)


def auc(larger: NDArray[np.floating], smaller: NDArray[np.floating]) -> float:
    """Return the probability that a value of `larger` exceeds a value of `smaller`.

    It is the area under the ROC curve (Hanley and McNeil 1982). Raises ValueError if either array is empty.
    """
    if not len(larger) or not len(smaller):
        raise ValueError("the area under a ROC curve needs values of both kinds")
    return float(mannwhitneyu(larger, smaller).statistic / (len(larger) * len(smaller)))


def pair_figures(shapes: Floats, people: NDArray[np.int64]) -> dict[str, float]:
    """Return distances between photographs of one person and of two people, and the AUC of the distance.

    `shapes` are neutral shapes (P, V, 3) in mm, and `people` (P,) are their people. The certainty is the AUC over all
    pairs. The distance is the RMS over vertices, without alignment. `_whitened` is measured in principal components of
    the shapes themselves. Each is scaled to unit variance, so that the large components do not decide alone.
    """
    flat = shapes.reshape(len(shapes), -1)
    first, second = np.triu_indices(len(shapes), 1)
    same = people[first] == people[second]
    gram = flat @ flat.T
    squared = np.maximum(np.diag(gram)[first] + np.diag(gram)[second] - 2 * gram[first, second], 0)
    distance = np.sqrt(squared / shapes.shape[1])
    centred = flat - flat.mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    kept = max(1, min(20, int((values > 1e-3 * values[0]).sum()), len(shapes) - 1))
    white = left[:, :kept]
    white = white / np.linalg.norm(white, axis=1, keepdims=True)
    angle = 1 - (white[first] * white[second]).sum(1)
    return {
        "photographs": float(len(shapes)),
        "people": float(len(np.unique(people))),
        "same_person_mm": float(distance[same].mean()),
        "two_people_mm": float(distance[~same].mean()),
        "auc": auc(distance[~same], distance[same]),
        "auc_whitened": auc(angle[~same], angle[same]),
    }


def can_be_paired(people: NDArray[np.int64]) -> bool:
    """Return whether there are two photographs of one person, and photographs of two people, for `pair_figures`."""
    _, counts = np.unique(people, return_counts=True)
    return len(counts) > 1 and bool(counts.max() > 1)


def sets_of(people: NDArray[np.int64], size: int) -> list[list[NDArray[np.int64]]]:
    """Return disjoint sets of `size` pictures for each person with as many, as indices into `people` (P,)."""
    groups = [np.flatnonzero(people == person) for person in np.unique(people)]
    return [
        [group[i : i + size] for i in range(0, len(group) - size + 1, size)] for group in groups if len(group) >= size
    ]


def set_figures(
    shapes: Floats, confidences: Floats, people: NDArray[np.int64], true_shapes: Floats | None = None
) -> dict[str, dict[str, float]]:
    """Return figures for each set size, from the shapes of several photographs per person.

    The figures are the spread in mm; the error in mm (RMSE after rigid alignment) if the truth (P, V, 3) is known; and
    the distance between the averages of two disjoint sets of one person, and of two people.
    """
    figures: dict[str, dict[str, float]] = {}
    for size in SET_SIZES:
        sets = sets_of(people, size)
        if not sets:
            continue
        averages = [[average_shapes(shapes[one], confidences[one])[:2] for one in ones] for ones in sets]
        row = {"sets": float(sum(map(len, sets)))}
        if size > 1:
            row["spread_mm"] = float(np.mean([spread.mean() for ones in averages for _, spread in ones]))
        if true_shapes is not None:
            errors = [
                rmse_mm(mean, true_shapes[one[0]])
                for ones, members in zip(averages, sets, strict=True)
                for (mean, _), one in zip(ones, members, strict=True)
            ]
            row["rmse_mm"] = float(np.mean(errors))
        same = [rmse_mm(a, b) for ones in averages for (a, _), (b, _) in combinations(ones[:4], 2)]
        firsts: Sequence[Floats] = [ones[0][0] for ones in averages]
        other = [rmse_mm(a, b) for a, b in list(combinations(firsts, 2))[:1000]]
        if same:
            row["same_person_mm"] = float(np.mean(same))
        if other:
            row["two_people_mm"] = float(np.mean(other))
        figures[str(size)] = row
    return figures

"""Decimation: flat parts go first, vertices stay where they are, borders stay whole."""

from __future__ import annotations

from collections import Counter

import numpy as np
from facerecon_training.rendered.decimate import decimate
from numpy.typing import NDArray

SIDE = 21


def sheet(height: float) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """A sheet of 21 x 21 vertices with a ridge in the middle."""
    x, y = np.meshgrid(np.arange(SIDE, dtype=float), np.arange(SIDE, dtype=float))
    z = np.where(x == SIDE // 2, height, 0.0)
    corner = (np.arange(SIDE - 1)[:, None] * SIDE + np.arange(SIDE - 1)).ravel()
    first = np.stack([corner, corner + 1, corner + SIDE + 1], 1)
    second = np.stack([corner, corner + SIDE + 1, corner + SIDE], 1)
    return np.stack([x, y, z], -1).reshape(-1, 3), np.vstack([first, second]).astype(np.int32)


def border(triangles: NDArray[np.int32]) -> set[int]:
    counts = Counter(frozenset((a, b)) for t in triangles.tolist() for a, b in zip(t, [*t[1:], t[0]], strict=True))
    assert set(counts.values()) == {1, 2}
    return {v for edge, count in counts.items() if count == 1 for v in edge}


def area(points: NDArray[np.float64], triangles: NDArray[np.int32]) -> NDArray[np.float64]:
    """(T,) area in the plane, with its sign."""
    a, b, c = points[triangles][..., :2].transpose(1, 0, 2)
    return np.asarray((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2


def test_a_reduced_sheet_covers_the_same_square_without_folds() -> None:
    points, triangles = sheet(0.0)
    reduced = decimate(points, triangles, 60, {0, SIDE - 1, SIDE * (SIDE - 1), SIDE * SIDE - 1})
    areas = area(points, reduced)
    assert areas.min() > 0
    assert areas.sum() == (SIDE - 1) ** 2
    assert len(np.unique(reduced)) == 60


def test_a_ridge_keeps_its_height() -> None:
    points, triangles = sheet(3.0)
    reduced = decimate(points, triangles, 100, {0, SIDE - 1, SIDE * (SIDE - 1), SIDE * SIDE - 1})
    used = points[np.unique(reduced)]
    ridge = used[used[:, 0] == SIDE // 2]
    assert (ridge[:, 2] == 3.0).all()
    assert {0.0, float(SIDE - 1)} <= set(ridge[:, 1].tolist())
    # Its vertices are joined along the ridge, so that it is as high between them.
    along = np.unique(reduced)[used[:, 0] == SIDE // 2]
    edges = {frozenset((a, b)) for t in reduced.tolist() for a, b in zip(t, [*t[1:], t[0]], strict=True)}
    assert all(frozenset(pair) in edges for pair in zip(along[:-1].tolist(), along[1:].tolist(), strict=True))


def test_locked_vertices_stay_and_the_first_go() -> None:
    points, triangles = sheet(0.0)
    edge = range(SIDE)  # y = 0
    first = {v for v in edge if v % 4}
    locked = set(edge) - first | {SIDE * (SIDE - 1), SIDE * SIDE - 1}
    reduced = decimate(points, triangles, 120, locked, first)
    left = set(np.unique(reduced).tolist())
    assert locked <= left
    assert not first & left
    assert {v for v in border(reduced) if v < SIDE} == locked & set(edge)


def test_nothing_goes_where_everything_is_locked() -> None:
    points, triangles = sheet(1.0)
    kept = decimate(points, triangles, 10, set(range(SIDE * SIDE)))
    assert sorted(map(tuple, kept.tolist())) == sorted(map(tuple, triangles.tolist()))

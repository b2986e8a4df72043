"""A triangle mesh -> a mesh on some of its vertices, with locked vertices and an unbroken border.

Edges collapse to one of their ends, in the order of the quadric error of Garland and Heckbert (Surface simplification
using quadric error metrics, SIGGRAPH 1997). Every vertex that is left is therefore a vertex of the original mesh, and a
border keeps its vertices. Libraries for decimation promise neither.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Indices = NDArray[np.int32]
Vector = tuple[float, float, float]

BORDER_WEIGHT = 10.0
"""Weight of planes through the border's edges, relative to those of triangles, which keep the border's outline."""
ROUNDNESS = 1e-3
"""Weight of the squared length of a collapsed edge, times the area around it, relative to the quadric error."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The worst triangles that a collapse may make."""

    quality: float
    """1 for an equilateral triangle, 0 for a line."""
    cosine: float
    """Cosine of the largest angle by which a triangle may turn."""


USUAL = Limits(quality=0.15, cosine=0.5)
FORCED = Limits(quality=0.01, cosine=0.0)


def decimate(
    points: Doubles, triangles: Indices, count: int, locked: Collection[int], first: Collection[int] = ()
) -> Indices:
    """Return triangles (U, 3) on about `count` of the points (N, 3).

    Vertices in `locked` stay. Vertices in `first` go before all others, whatever their error. A vertex of the border
    only moves along the border. More vertices stay than `count` where every further collapse would fold the mesh.
    """
    mesh = _Mesh(points, triangles)
    mesh.collapse(count, set(locked), set(first))
    return np.array(list(mesh.corners.values()), np.int32)


class _Mesh:
    """A mesh whose edges collapse. Its numbers are Python's, which are faster here than arrays of three."""

    def __init__(self, points: Doubles, triangles: Indices) -> None:
        self._points: list[Vector] = [(x, y, z) for x, y, z in points.tolist()]
        self.corners: dict[int, tuple[int, int, int]] = {t: (a, b, c) for t, (a, b, c) in enumerate(triangles.tolist())}
        self.around: dict[int, set[int]] = {v: set() for v in np.unique(triangles).tolist()}
        """The triangles of each vertex."""
        for t, corners in self.corners.items():
            for v in corners:
                self.around[v].add(t)
        self._quadrics = self._all_quadrics()
        self._changes: Counter[int] = Counter()

    @property
    def count(self) -> int:
        return len(self.around)

    def collapse(self, count: int, locked: set[int], first: set[int]) -> None:
        """Collapse edges until `count` vertices are left, but none that would remove a vertex in `locked`."""
        heap: list[tuple[bool, float, int, int, int]] = []

        def add(v: int) -> None:
            if v not in locked:
                for to in self._neighbours(v):
                    changes = self._changes[v] + self._changes[to]
                    heapq.heappush(heap, (v not in first, self._cost(v, to), v, to, changes))

        for v in self.around:
            add(v)
        while heap and self.count > count:
            usual, _, v, to, changes = heapq.heappop(heap)
            fresh = v in self.around and to in self.around and changes == self._changes[v] + self._changes[to]
            if fresh and self._may_collapse(v, to, USUAL if usual else FORCED):
                self._merge(v, to)
                ring = [to, *self._neighbours(to)]
                self._changes.update(ring)
                for near in ring:
                    add(near)

    def _neighbours(self, v: int) -> Counter[int]:
        """Return the neighbours of a vertex, with the number of triangles at each edge: 1 at the border."""
        return Counter(other for t in sorted(self.around[v]) for other in self.corners[t] if other != v)

    def _cost(self, v: int, to: int) -> float:
        xx, xy, xz, xw, yy, yz, yw, zz, zw, ww = map(float.__add__, self._quadrics[v], self._quadrics[to])
        x, y, z = self._points[to]
        error = x * (xx * x + 2 * (xy * y + xz * z + xw)) + y * (yy * y + 2 * (yz * z + yw)) + z * (zz * z + 2 * zw)
        edge = _minus(self._points[to], self._points[v])
        return error + ww + ROUNDNESS * (xx + yy + zz) * _dot(edge, edge)

    def _may_collapse(self, v: int, to: int, limits: Limits) -> bool:
        mine, other = self._neighbours(v), self._neighbours(to)
        if 1 in mine.values() and mine[to] != 1:
            return False  # it would leave the border
        # More common neighbours than triangles at the edge would make an edge of more than two triangles.
        if len(mine.keys() & other.keys()) != mine[to]:
            return False
        for t in self.around[v] - self.around[to]:
            old = [self._points[corner] for corner in self.corners[t]]
            new = [self._points[to if corner == v else corner] for corner in self.corners[t]]
            before, after = _area_vector(old), _area_vector(new)
            size = _dot(after, after) ** 0.5
            if _dot(before, after) < limits.cosine * _dot(before, before) ** 0.5 * size:
                return False
            edges = [_minus(new[i], new[i - 1]) for i in range(3)]
            if size * 2 * 3**0.5 <= limits.quality * sum(_dot(edge, edge) for edge in edges):
                return False
        return True

    def _merge(self, v: int, to: int) -> None:
        self._quadrics[to] = [a + b for a, b in zip(self._quadrics[to], self._quadrics.pop(v), strict=True)]
        for t in self.around.pop(v):
            corners = self.corners[t]
            if to in corners:
                del self.corners[t]
                for corner in set(corners) - {v}:
                    self.around[corner].discard(t)
            else:
                a, b, c = (to if corner == v else corner for corner in corners)
                self.corners[t] = (a, b, c)
                self.around[to].add(t)

    def _all_quadrics(self) -> dict[int, list[float]]:
        """Return the upper triangle of the quadric (4, 4) of each vertex, row by row."""
        quadrics = {v: [0.0] * 10 for v in self.around}
        edges = Counter(frozenset(pair) for corners in self.corners.values() for pair in _pairs(corners))
        for corners in self.corners.values():
            vector = _area_vector([self._points[v] for v in corners])
            planes = [(_dot(vector, vector) ** 0.5, vector, tuple(corners))]
            for a, b in _pairs(corners):
                if edges[frozenset((a, b))] == 1:
                    edge = _minus(self._points[b], self._points[a])
                    planes.append((BORDER_WEIGHT * _dot(edge, edge), _cross(edge, vector), (a, b)))
            for weight, across, through in planes:
                length = max(_dot(across, across) ** 0.5, 1e-12)
                normal = [one / length for one in across]
                plane = [*normal, -sum(n * p for n, p in zip(normal, self._points[through[0]], strict=True))]
                products = [weight * plane[i] * plane[j] for i in range(4) for j in range(i, 4)]
                for v in through:
                    quadrics[v] = [a + b for a, b in zip(quadrics[v], products, strict=True)]
        return quadrics


def _pairs(corners: tuple[int, int, int]) -> tuple[tuple[int, int], ...]:
    a, b, c = corners
    return (a, b), (b, c), (c, a)


def _minus(a: Vector, b: Vector) -> Vector:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _area_vector(corners: list[Vector]) -> Vector:
    """Return the normal of a triangle, as long as twice its area."""
    return _cross(_minus(corners[1], corners[0]), _minus(corners[2], corners[0]))

"""The lips' inner edge -> a dark pocket behind the lips, so that an open mouth does not show the inside of the head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .template import FaceTemplate, Indices
from .types import Floats

LIPS, INNER_LIPS = slice(48, 68), slice(60, 68)
"""iBUG landmarks of the lips, and of their inner outline."""
BRIDGE = 27
"""iBUG landmark that no expression moves much: the upper end of the nose."""
RINGS = (
    (1.0, 1.0, 0.0),
    (0.97, 1.0, 4.0),
    (0.93, 0.9, 10.0),
    (0.85, 0.75, 18.0),
    (0.65, 0.6, 26.0),
    (0.0, 0.5, 30.0),
)
"""The rings from the lips to the end, which is a point: size relative to the lips' edge, share of the lips' mean motion
that the ring follows, and depth in mm."""


@dataclass(frozen=True, slots=True, eq=False)
class Mouth:
    """The lining of a mouth as a mesh of its own. Its first R vertices lie on the lips' inner edge.

    Every vertex is a fixed weighted mean of some of the face's vertices, shifted by a fixed offset. Therefore the
    lining opens and closes with the lips, also by the sum of morph targets.
    """

    ring: Indices
    """(R,) the face's vertices along the inner edge of the lips."""
    used: Indices
    """(R + 1,) the face's vertices on which the lining depends."""
    shares: Floats
    """(L, R + 1) weights of these vertices. Those of each vertex of the lining sum to 1."""
    offsets: Floats
    """(L, 3) mm, head frame: the shift behind the weighted mean."""
    triangles: Indices
    """(T, 3) indices of the lining's vertices, counter-clockwise seen through the lips."""

    def lining(self, vertices: Floats) -> Floats:
        """Return the lining (L, 3) mm of a face or head (V or more, 3) mm, head frame."""
        return np.asarray(self.moved(vertices) + self.offsets, np.float32)

    def moved(self, moves: Floats) -> Floats:
        """Return the motion (..., L, 3) of the lining that goes with a motion (..., V or more, 3) of the face."""
        moved = self.shares @ moves[..., self.used, :]
        # Products of matrices round; the lips' edge is copied.
        moved[..., : len(self.ring), :] = moves[..., self.ring, :]
        return np.asarray(moved, np.float32)


def mouth_of(template: FaceTemplate) -> Mouth | None:
    """Return the lining that fits a template's lips. None where the template has no opening between them."""
    ring = _lip_edge(template)
    if ring is None:
        return None
    count = len(ring)
    places = template.landmark_positions
    below = places[INNER_LIPS].mean(0) - places[BRIDGE]
    shares, offsets = [], []
    for size, follows, depth in RINGS:
        own = np.full((count, count), (follows - size) / count) + size * np.eye(count)
        shift = (1 - follows) * below - np.array([0.0, 0.0, depth])
        shares.append(np.column_stack([own, np.full(count, 1 - follows)]))
        offsets.append(np.tile(shift, (count, 1)))
    shares[-1], offsets[-1] = shares[-1][:1], offsets[-1][:1]  # the end
    here = np.arange(count)
    right, end = np.roll(here, -1), count * (len(RINGS) - 1)
    triangles = []
    for near in range(0, end - count, count):
        far = near + count
        triangles.append(np.stack([here + near, here + far, right + near], 1))
        triangles.append(np.stack([right + near, here + far, right + far], 1))
    last = end - count
    triangles.append(np.stack([here + last, np.full(count, end), right + last], 1))
    return Mouth(
        ring=ring,
        used=np.append(ring, template.landmarks[BRIDGE]).astype(np.int32),
        shares=np.vstack(shares).astype(np.float32),
        offsets=np.vstack(offsets).astype(np.float32),
        triangles=np.vstack(triangles).astype(np.int32),
    )


def _lip_edge(template: FaceTemplate) -> Indices | None:
    """Return the hole (R,) of the mesh between the lips, in the order in which the lips' triangles walk it. None where
    there is no hole."""
    triangles = template.triangles
    walked = {(a, b) for t in triangles.tolist() for a, b in zip(t, [*t[1:], t[0]], strict=True)}
    following = {a: b for a, b in walked if (b, a) not in walked}
    lips = template.uv[template.landmarks[LIPS]]
    for start in sorted(following):
        edge = [start]
        while (after := following.pop(edge[-1], start)) != start:
            edge.append(after)
        inside = template.uv[edge]
        if (inside > lips.min(0)).all() and (inside < lips.max(0)).all():
            return np.array(edge, np.int32)
    return None

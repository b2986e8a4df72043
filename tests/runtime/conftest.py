"""What the runtime's tests share: a head that is a ball, with a mesh small enough to reason about."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pytest
from facerecon_rt.align import box_from_square, square_from_camera
from facerecon_rt.pose import rotation_from_euler
from facerecon_rt.template import FaceTemplate
from facerecon_rt.types import Face, Floats

RADIUS_MM = 80.0


class MakeFace(Protocol):
    """The type of the fixture `ball_face`."""

    def __call__(
        self, x: float, y: float, *, scale: float = 0.5, yaw: float = 0.0, track: int | None = None
    ) -> Face: ...


@pytest.fixture(scope="session")
def ball() -> FaceTemplate:
    """A ball of 80 mm: rings of latitude, its 68 landmarks on vertices of the front half."""
    rings, spokes = 15, 24
    ring, spoke = (grid.ravel() for grid in np.meshgrid(np.arange(1, rings), np.arange(spokes), indexing="ij"))
    bands_uv = np.stack([spoke / spokes, 1 - ring / rings], axis=1)
    uv = np.vstack([bands_uv, [[0.5, 1.0], [0.5, 0.0]]]).astype(np.float32)
    here = np.arange(spokes)
    right = np.roll(here, -1)
    bands = [
        triangle + band * spokes
        for band in range(rings - 2)
        for triangle in (np.stack([here, here + spokes, right], 1), np.stack([right, here + spokes, right + spokes], 1))
    ]
    north, south = (rings - 1) * spokes, (rings - 1) * spokes + 1
    last = (rings - 2) * spokes
    caps = [
        np.stack([np.full(spokes, north), here, right], 1),
        np.stack([np.full(spokes, south), right + last, here + last], 1),
    ]
    points = _sphere(uv)
    front = np.flatnonzero(points[:, 2] > 10)
    landmarks = front[np.linspace(0, len(front) - 1, 68).astype(int)].astype(np.int32)
    return FaceTemplate(
        triangles=np.vstack(bands + caps).astype(np.int32),
        uv=uv,
        landmarks=landmarks,
        landmark_positions=points[landmarks],
        symmetry=np.arange(len(uv), dtype=np.int32),
        jaw_candidates=np.zeros((17, 1), np.int32),
        sha256="ball",
    )


@pytest.fixture(scope="session")
def ball_face(ball: FaceTemplate) -> MakeFace:
    """`ball_face(x, y, scale=0.5)`: the ball with its centre at a pixel of the frame, so many pixels per mm."""

    def make(x: float, y: float, *, scale: float = 0.5, yaw: float = 0.0, track: int | None = None) -> Face:
        vertices = _sphere(ball.uv)
        camera = np.column_stack([scale * rotation_from_euler(0, yaw, 0), [x, y, 0.0]]).astype(np.float32)
        return Face(
            shape=vertices,
            vertices=vertices,
            expression=np.zeros(53, np.float32),
            frame_from_head=camera,
            landmarks=vertices[ball.landmarks] @ camera[:, :3].T + camera[:, 3],
            confidence=0.9,
            box=box_from_square(square_from_camera(camera)),
            track=track,
        )

    return make


def _sphere(uv: Floats) -> Floats:
    """(V, 2) -> (V, 3) mm, head frame; u runs once around, v from the south pole to the north pole."""
    longitude, latitude = 2 * np.pi * uv[:, 0], np.pi * (uv[:, 1] - 0.5)
    across = np.cos(latitude)
    points = np.stack([across * np.sin(longitude), np.sin(latitude), across * np.cos(longitude)], axis=1)
    return (RADIUS_MM * points).astype(np.float32)

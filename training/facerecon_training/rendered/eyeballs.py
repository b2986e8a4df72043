"""Gaze -> eyeballs that turn about their centres, with an iris."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from facerecon_rt.types import Floats
from numpy.typing import NDArray

IRIS_MM = 6.1
"""Radius of the iris on ICT-FaceKit's eyeballs, which are a quarter larger than people's."""
IRIS_PIXELS, EYE_PIXELS = 53.0, 256.0
"""Radius of the iris in a texture of this size, whose middle is the iris' middle."""


@dataclass(frozen=True, slots=True, eq=False)
class Eyeball:
    """One eyeball of the mean head."""

    vertices: NDArray[np.int64]
    """(K,) rows of the head."""
    centre_offset: Floats
    """(3,) mm from the mean of its vertices to the centre of its sphere, about which it turns."""
    axis: Floats
    """(3,) unit vector through the middle of the iris, at rest: in ICT-FaceKit, as in people, some 5 degrees outwards
    of where the eye looks."""
    radius: float
    """mm"""
    uv: Floats
    """(K, 2) places in a texture that shows the eye from the front, v upwards."""

    @property
    def iris_distance(self) -> float:
        """mm from the centre to the plane of the iris."""
        return float(np.sqrt(self.radius**2 - IRIS_MM**2))

    def centre(self, head_vertices: Floats) -> Floats:
        """(H, 3) mm -> (3,) the centre of this eyeball in that head."""
        return np.asarray(head_vertices[self.vertices].mean(0) + self.centre_offset, np.float32)


def find_eyeball(mean: Floats, vertices: NDArray[np.int64]) -> Eyeball:
    """(H, 3) mm of the mean head and the rows of one eyeball -> where its centre and its iris are.

    The centre is that of the sphere that fits best; the cornea bulges out of it around the iris.
    """
    points = mean[vertices].astype(np.float64)
    system = np.column_stack([2 * points, np.ones(len(points))])
    solution = np.linalg.lstsq(system, (points**2).sum(1), rcond=None)[0]
    centre = solution[:3]
    radius = float(np.sqrt(solution[3] + centre @ centre))
    offset = points - centre
    bulge = offset[(np.linalg.norm(offset, axis=1) > radius + 0.6) & (offset[:, 2] > 0)]
    axis = bulge.mean(0) if len(bulge) else np.array([0.0, 0.0, 1.0])
    axis /= np.linalg.norm(axis)
    across = np.cross([0.0, 1.0, 0.0], axis)
    across /= np.linalg.norm(across)
    local = offset @ np.stack([across, np.cross(axis, across), axis], 1)
    uv = 0.5 + IRIS_PIXELS / EYE_PIXELS * local[:, :2] / IRIS_MM
    uv[local[:, 2] < 0] = 0.5 + 0.3 * np.sign(local[local[:, 2] < 0, :2])  # the back is white
    return Eyeball(
        vertices,
        (centre - points.mean(0)).astype(np.float32),
        axis.astype(np.float32),
        radius,
        np.clip(uv, 0.12, 0.88).astype(np.float32),
    )


def gaze_rotation(gaze_deg: Floats) -> Floats:
    """(2,) yaw and pitch, degrees -> (3, 3): the head frame's +z becomes that direction."""
    yaw, pitch = np.radians(gaze_deg)
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    lift = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    return np.asarray(turn @ lift, np.float32)


def turned(eyeball: Eyeball, head_vertices: Floats, gaze_deg: Floats) -> Floats:
    """(H, 3) mm and (2,) yaw and pitch, degrees -> (K, 3) the eyeball's vertices, looking there."""
    centre = eyeball.centre(head_vertices)
    return np.asarray((head_vertices[eyeball.vertices] - centre) @ gaze_rotation(gaze_deg).T + centre, np.float32)

"""Gaze -> eyeballs with an iris that turn about their centres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from facerecon_rt.types import Floats
from numpy.typing import NDArray

IRIS_MM = 6.1
"""Radius of the iris on ICT-FaceKit's eyeballs, which are a quarter larger than real eyeballs."""
IRIS_PIXELS, EYE_PIXELS = 53.0, 256.0
"""Radius of the iris in a texture of this size. The iris is in the centre of the texture."""


@dataclass(frozen=True, slots=True, eq=False)
class Eyeball:
    """An eyeball of the mean head."""

    vertices: NDArray[np.integer]
    """Rows (K,) of its vertices in the head."""
    centre_offset: Floats
    """Vector (3,) in mm from the mean of its vertices to the centre of its sphere, about which it turns."""
    axis: Floats
    """Unit vector (3,) through the centre of the iris at rest.

    In ICT-FaceKit, as in people, it points about 5 degrees outwards of the gaze.
    """
    radius: float
    """Radius in mm."""
    uv: Floats
    """Texture coordinates (K, 2), v upwards, of a texture that shows the eye from the front."""

    @property
    def iris_distance(self) -> float:
        """Distance in mm from the centre to the plane of the iris."""
        return float(np.sqrt(self.radius**2 - IRIS_MM**2))

    def centre(self, head_vertices: Floats) -> Floats:
        """Return the centre (3,) of this eyeball in a head (H, 3) mm."""
        return np.asarray(head_vertices[self.vertices].mean(0) + self.centre_offset, np.float32)


def find_eyeball(mean: Floats, vertices: NDArray[np.integer]) -> Eyeball:
    """Find the centre and the iris of an eyeball, from the mean head (H, 3) mm and the eyeball's rows.

    The centre is that of the best-fitting sphere. The cornea bulges out of it around the iris.
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
    """Return the rotation (3, 3) that turns the head frame's +z to yaw and pitch (2,) in degrees."""
    yaw, pitch = np.radians(gaze_deg)
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    lift = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    return np.asarray(turn @ lift, np.float32)


def turned(eyeball: Eyeball, head_vertices: Floats, gaze_deg: Floats) -> Floats:
    """Return the eyeball's vertices (K, 3) in a head (H, 3) mm, looking at yaw and pitch (2,) in degrees."""
    centre = eyeball.centre(head_vertices)
    return np.asarray((head_vertices[eyeball.vertices] - centre) @ gaze_rotation(gaze_deg).T + centre, np.float32)

"""A face and its camera's intrinsics -> the position of the head in millimetres from the camera, and its rotation.

A scaled-orthographic camera has no distance and no perspective. A head away from the image centre therefore seems to be
turned although it is not, and only its size shows the distance. The focal length resolves both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..errors import UsageError
from ..pose import Doubles, split_camera
from ..template import load_template
from ..types import Face

MOST_PX = 1e9
"""Maximum focal length in pixels. A lens with a field of view of a thousandth of a degree has it."""
INNER = slice(17, 68)
"""iBUG landmarks that lie on fixed vertices. Those of the jaw lie on the visible contour."""


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """A pinhole camera without distortion. Undistort frames of wide lenses first (cv2.undistort)."""

    fx: float
    fy: float
    cx: float
    cy: float
    """Focal lengths and centre, all in pixels of the upright frame, origin at the centre of the top-left pixel."""

    def __post_init__(self) -> None:
        """Check the values. Raises UsageError."""
        focal_lengths, middle = (self.fx, self.fy), (self.cx, self.cy)
        if not (all(0 < f <= MOST_PX for f in focal_lengths) and all(abs(c) <= MOST_PX for c in middle)):
            raise UsageError(
                f"intrinsics {self.fx:g}, {self.fy:g}, {self.cx:g}, {self.cy:g}: focal lengths must be above 0 and "
                f"at most {MOST_PX:g} pixels"
            )

    @classmethod
    def from_field_of_view(cls, degrees: float, width: int, height: int) -> Intrinsics:
        """Return the intrinsics for a horizontal field of view and a frame size in pixels. The optical axis is in the
        middle, and pixels are square. Raises UsageError."""
        if not 0 < degrees < 180:
            raise UsageError(f"the horizontal field of view must be above 0 and below 180 degrees, got {degrees:g}")
        focal = width / 2 / math.tan(math.radians(degrees) / 2)
        return cls(focal, focal, (width - 1) / 2, (height - 1) / 2)

    @property
    def matrix(self) -> Doubles:
        """Camera matrix (3, 3) in OpenCV's form."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]])


def with_metric_pose(face: Face, lens: Intrinsics | float, size: tuple[int, int]) -> Face:
    """Return the face with `camera_from_head`. `lens`: intrinsics, or the horizontal field of view in degrees of frames
    of `size` (width, height). Raises UsageError for another field of view."""
    intrinsics = lens if isinstance(lens, Intrinsics) else Intrinsics.from_field_of_view(lens, *size)
    return replace(face, camera_from_head=camera_from_head(face, intrinsics).astype(np.float32))


def camera_from_head(face: Face, intrinsics: Intrinsics) -> Doubles:
    """Return the transform (4, 4) from head millimetres to camera millimetres; camera axes x right, y down, z forward.

    It starts at the scaled-orthographic camera, seen along the ray to the head, and minimises the reprojection error of
    the inner 51 landmarks (Levenberg-Marquardt, cv2.solvePnPRefineLM). The distance is as exact as the face's size,
    since one photograph does not distinguish a large distant head from a small near one.
    """
    start = from_orthographic(face, intrinsics)
    points = face.vertices[load_template().landmarks][INNER].astype(np.float64)
    pixels = face.landmarks[INNER, :2].astype(np.float64)
    turn, _ = cv2.Rodrigues(start[:3, :3])
    turn, place = cv2.solvePnPRefineLM(points, pixels, intrinsics.matrix, None, turn, start[:3, 3:].copy())
    refined = np.eye(4)
    refined[:3, :3] = cv2.Rodrigues(turn)[0]
    refined[:3, 3] = np.ravel(place)
    # Points that fit no head lead behind the camera or to infinity. The start is better than that.
    return refined if np.isfinite(refined).all() and refined[2, 3] > 0 else start


def from_orthographic(face: Face, intrinsics: Intrinsics) -> Doubles:
    """Return the transform (4, 4) from the scaled-orthographic camera alone."""
    scale, rotation, (u, v, _) = split_camera(face.frame_from_head)
    depth = math.sqrt(intrinsics.fx * intrinsics.fy) / scale
    ray = np.array([(u - intrinsics.cx) / intrinsics.fx, (v - intrinsics.cy) / intrinsics.fy, 1.0])
    pose = np.eye(4)
    pose[:3, :3] = turn_to(ray) @ rotation
    pose[:3, 3] = depth * ray
    return pose


def turn_to(ray: Doubles) -> Doubles:
    """Return the shortest rotation (3, 3) from the optical axis to a direction (3,) in front of the camera."""
    x, y, z = ray / np.linalg.norm(ray)
    angle = math.atan2(math.hypot(x, y), z)
    length = math.hypot(x, y)
    axis = np.array([-y, x, 0.0]) / length if length else np.zeros(3)
    return np.asarray(cv2.Rodrigues(angle * axis)[0])

"""A face and its camera's intrinsics -> where the head is, in millimetres from the camera, and how it is turned there.

A scaled-orthographic camera knows neither distance nor perspective: a head off the middle of the picture seems turned
although it is not, and its size stands for its distance. With the focal length both come out.
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
"""Of a focal length: a lens that sees a thousandth of a degree has it."""
INNER = slice(17, 68)
"""iBUG landmarks that lie on fixed vertices; the jaw's lie on the visible contour."""


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """A pinhole camera without distortion; undistort frames of wide lenses first (cv2.undistort)."""

    fx: float
    fy: float
    cx: float
    cy: float
    """All in pixels of the upright frame, origin at the centre of the top-left one."""

    def __post_init__(self) -> None:
        """Raises UsageError."""
        focal_lengths, middle = (self.fx, self.fy), (self.cx, self.cy)
        if not (all(0 < f <= MOST_PX for f in focal_lengths) and all(abs(c) <= MOST_PX for c in middle)):
            raise UsageError(
                f"intrinsics {self.fx:g}, {self.fy:g}, {self.cx:g}, {self.cy:g}: focal lengths are above 0 and up to "
                f"{MOST_PX:g} pixels"
            )

    @classmethod
    def from_field_of_view(cls, degrees: float, width: int, height: int) -> Intrinsics:
        """The horizontal field of view and the frame's size; the optical axis in the middle, pixels square."""
        if not 0 < degrees < 180:
            raise UsageError(f"a field of view of {degrees:g} degrees; give the horizontal one, above 0 and below 180")
        focal = width / 2 / math.tan(math.radians(degrees) / 2)
        return cls(focal, focal, (width - 1) / 2, (height - 1) / 2)

    @property
    def matrix(self) -> Doubles:
        """(3, 3), as OpenCV has it."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]])


def with_metric_pose(face: Face, intrinsics: Intrinsics) -> Face:
    """The face with `camera_from_head`."""
    return replace(face, camera_from_head=camera_from_head(face, intrinsics).astype(np.float32))


def camera_from_head(face: Face, intrinsics: Intrinsics) -> Doubles:
    """(4, 4): head millimetres to camera millimetres; camera axes x right, y down, z forward.

    Starts where the scaled-orthographic camera says, seen along the ray to the head, and refines by the reprojection
    error of the inner 51 landmarks (Levenberg-Marquardt, cv2.solvePnPRefineLM). As exact in distance as the
    face's size is: one photograph does not tell a large head far away from a small one nearby.
    """
    start = from_orthographic(face, intrinsics)
    points = face.vertices[load_template().landmarks][INNER].astype(np.float64)
    pixels = face.landmarks[INNER, :2].astype(np.float64)
    turn, _ = cv2.Rodrigues(start[:3, :3])
    turn, place = cv2.solvePnPRefineLM(points, pixels, intrinsics.matrix, None, turn, start[:3, 3:].copy())
    refined = np.eye(4)
    refined[:3, :3] = cv2.Rodrigues(turn)[0]
    refined[:3, 3] = np.ravel(place)
    # Behind the camera, or nowhere: points that fit no head. What was known before is better.
    return refined if np.isfinite(refined).all() and refined[2, 3] > 0 else start


def from_orthographic(face: Face, intrinsics: Intrinsics) -> Doubles:
    """(4, 4), of the scaled-orthographic camera alone."""
    scale, rotation, (u, v, _) = split_camera(face.frame_from_head)
    depth = math.sqrt(intrinsics.fx * intrinsics.fy) / scale
    ray = np.array([(u - intrinsics.cx) / intrinsics.fx, (v - intrinsics.cy) / intrinsics.fy, 1.0])
    pose = np.eye(4)
    pose[:3, :3] = turn_to(ray) @ rotation
    pose[:3, 3] = depth * ray
    return pose


def turn_to(ray: Doubles) -> Doubles:
    """(3,) a direction in front of the camera -> the shortest rotation (3, 3) that takes the optical axis to it."""
    x, y, z = ray / np.linalg.norm(ray)
    angle = math.atan2(math.hypot(x, y), z)
    length = math.hypot(x, y)
    axis = np.array([-y, x, 0.0]) / length if length else np.zeros(3)
    return np.asarray(cv2.Rodrigues(angle * axis)[0])

"""Points and cameras -> rotations, Euler angles, and rigid and scaled-orthographic fits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .types import Floats

Doubles = NDArray[np.float64]

Rows = list[list[float]]
"""A matrix as plain numbers. For so few numbers, calling numpy takes several times as long as the arithmetic."""

ROUNDING = 2e-6
"""Tolerance for orthonormal rows, by which float32 rounds a rotation."""
VIEWER_FROM_FRAME: Doubles = np.diag([1.0, -1.0, -1.0])
"""Transform from frame axes (x right, y down, z away) to viewer axes (x right, y up, z towards the viewer): a half turn
about x."""


def nearest_rotation(matrix: ArrayLike) -> Doubles:
    """Return the rotation nearest to any matrix (..., 3, 3) in the Frobenius norm (Higham 1989), with determinant
    +1."""
    u, _, vt = np.linalg.svd(np.asarray(matrix, np.float64))
    sign = np.sign(np.linalg.det(u @ vt))
    u[..., :, 2] *= sign[..., None]
    return np.asarray(u @ vt)


def mean_rotation(rotations: ArrayLike, weights: ArrayLike | None = None) -> Doubles:
    """Return the chordal L2 mean (..., 3, 3) of rotations (N, ..., 3, 3) (Hartley et al., Rotation Averaging, IJCV
    2013)."""
    counts = None if weights is None else np.asarray(weights, np.float64)
    return nearest_rotation(np.average(np.asarray(rotations, np.float64), axis=0, weights=counts))


def rotation_angle_deg(a: ArrayLike, b: ArrayLike) -> float:
    """Return the geodesic distance between two rotations (3, 3), in degrees."""
    first, second, third = (np.asarray(a, np.float64) @ np.asarray(b, np.float64).T).tolist()
    sine = math.hypot(third[1] - second[2], first[2] - third[0], second[0] - first[1])
    return math.degrees(math.atan2(sine, first[0] + second[1] + third[2] - 1.0))


def scale_of(first: Sequence[float], second: Sequence[float], third: Sequence[float]) -> float:
    """Return the scale in pixels per mm from the rows of a scaled-orthographic camera: the cube root of the
    determinant."""
    determinant = (
        first[0] * (second[1] * third[2] - second[2] * third[1])
        - first[1] * (second[0] * third[2] - second[2] * third[0])
        + first[2] * (second[0] * third[1] - second[1] * third[0])
    )
    return math.copysign(abs(determinant) ** (1 / 3), determinant)


def split_camera(frame_from_head: ArrayLike) -> tuple[float, Doubles, Doubles]:
    """Split a scaled-orthographic camera (3, 4) into scale (pixels per mm), rotation (3, 3) and translation (3,)."""
    rows = _rows(frame_from_head)
    scale, rotation = _split(rows)
    return scale, np.array(rotation), np.array([row[3] for row in rows])


def _rows(matrix: ArrayLike) -> Rows:
    """Return the first three rows of a matrix."""
    rows: Rows = np.asarray(matrix, np.float64).tolist()
    return rows[:3]


def _split(camera: Rows) -> tuple[float, Rows]:
    """Return the scale and the rotation of a camera (3, 4). Those of a camera without a size are not finite."""
    scale = scale_of(*camera)
    inverse = 1 / scale if scale else math.nan
    rotation = [[a * inverse, b * inverse, c * inverse] for a, b, c, _ in camera]
    # Networks already return rotations, and a singular value decomposition takes far longer than this check.
    if _is_off(rotation):
        rotation = nearest_rotation(rotation).tolist()
    return scale, rotation


def _is_off(rotation: Rows) -> bool:
    """Return whether the rows are not orthonormal by more than `ROUNDING`."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    return (
        abs(xx * xx + xy * xy + xz * xz - 1) > ROUNDING
        or abs(yx * yx + yy * yy + yz * yz - 1) > ROUNDING
        or abs(zx * zx + zy * zy + zz * zz - 1) > ROUNDING
        or abs(xx * yx + xy * yy + xz * yz) > ROUNDING
        or abs(xx * zx + xy * zy + xz * zz) > ROUNDING
        or abs(yx * zx + yy * zy + yz * zz) > ROUNDING
    )


def euler_from_camera(frame_from_head: ArrayLike) -> tuple[float, float, float]:
    """Return (pitch, yaw, roll) in degrees of a camera (3, 4).

    The head's rotation as the viewer sees it is Ry(yaw) Rx(-pitch) Rz(-roll), axes x right, y up, z towards the viewer.
    Yaw > 0 when the subject turns to their left, pitch > 0 upwards, roll > 0 when the head leans to the subject's left.
    Yaw is in [-180, 180], pitch in [-90, 90]. At pitch = +-90 yaw and roll are not unique, and roll is then 0.
    """
    return _euler(_viewer_from_head(frame_from_head))


def euler_from_viewer(viewer_from_head: ArrayLike) -> tuple[float, float, float]:
    """Return (pitch, yaw, roll) in degrees of a rotation (3, 3) from head axes to viewer axes, as
    `euler_from_camera`."""
    return _euler(_rows(viewer_from_head))


def _euler(viewer_from_head: Rows) -> tuple[float, float, float]:
    (xx, _, xz), (yx, yy, yz), (zx, _, zz) = viewer_from_head
    # In this order of the arguments, a number that is not finite stays one.
    sin_pitch = max(min(yz, 1.0), -1.0)
    pitch = math.degrees(math.asin(sin_pitch))
    if abs(sin_pitch) > 1.0 - 1e-9:
        return pitch, math.degrees(math.atan2(-zx, xx)), 0.0
    return pitch, math.degrees(math.atan2(xz, zz)), math.degrees(math.atan2(-yx, yy))


def viewer_from_head(frame_from_head: ArrayLike) -> Doubles:
    """Return the head's rotation (3, 3) of a camera (3, 4) or (4, 4) as the viewer sees it: axes x right, y up, z
    towards the viewer."""
    return np.array(_viewer_from_head(frame_from_head))


def _viewer_from_head(frame_from_head: ArrayLike) -> Rows:
    right, down, away = _split(_rows(frame_from_head))[1]
    # This is the product with `VIEWER_FROM_FRAME`; "0 -" leaves no negative zeros.
    return [right, [0.0 - value for value in down], [0.0 - value for value in away]]


def quaternion(rotation: ArrayLike) -> Doubles:
    """Return the unit quaternion (4,) of a rotation (3, 3), in the order w, x, y, z with w >= 0.

    It is solved for its largest element first (Shepperd 1978), so that it is exact near half turns too.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = _rows(rotation)
    # Each row is the quaternion times four times one of its elements, w, x, y or z.
    multiples = (
        (1 + xx + yy + zz, zy - yz, xz - zx, yx - xy),
        (zy - yz, 1 + xx - yy - zz, xy + yx, xz + zx),
        (xz - zx, xy + yx, 1 - xx + yy - zz, yz + zy),
        (yx - xy, xz + zx, yz + zy, 1 - xx - yy + zz),
    )
    largest = max(range(4), key=lambda index: multiples[index][index])
    found = multiples[largest]
    length = math.hypot(*found) * (-1 if found[0] < 0 else 1)
    return np.array([value / length for value in found])


def rotation_from_quaternion(wxyz: ArrayLike) -> Doubles:
    """Return the rotation (3, 3) of a quaternion (4,) in the order w, x, y, z, of any length but 0."""
    w, x, y, z = (np.asarray(wxyz, np.float64) / np.linalg.norm(wxyz)).tolist()
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def gaze_angles(direction: ArrayLike, frame_from_head: ArrayLike) -> tuple[float, float]:
    """Return (yaw, pitch) of a gaze in degrees, seen from the camera: positive to the subject's left and upwards, (0,
    0) towards the camera.

    `direction`: (3,) head frame. `frame_from_head`: the head's camera (3, 4).
    """
    a, b, c = np.asarray(direction, np.float64).tolist()
    x, y, z = (row[0] * a + row[1] * b + row[2] * c for row in _viewer_from_head(frame_from_head))
    return math.degrees(math.atan2(x, z)), math.degrees(math.atan2(y, math.hypot(x, z)))


def rotation_from_euler(pitch: float, yaw: float, roll: float) -> Doubles:
    """Return the rotation (3, 3) frame_from_head (frame: x right, y down, z away) of angles in degrees, defined as in
    `euler_from_camera`."""
    p, y, r = np.radians([-pitch, yaw, -roll])
    rx = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rz = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return np.asarray(VIEWER_FROM_FRAME @ ry @ rx @ rz)


def fit_camera(points_head: ArrayLike, points_frame: ArrayLike) -> Floats:
    """Fit the camera (3, 4) frame_from_head to points (K, 3) in mm and their pixels (K, 2).

    The camera is scaled-orthographic, with depth 0 at the mean of the points, which must not lie in one plane. Linear
    least squares give the affine camera, whose rows are then replaced by scale times a rotation (Bruckstein et al.
    1999).
    """
    head = np.asarray(points_head, np.float64)
    frame = np.asarray(points_frame, np.float64)
    head_mean, frame_mean = head.mean(0), frame.mean(0)
    affine, *_ = np.linalg.lstsq(head - head_mean, frame - frame_mean, rcond=None)
    u, _, vt = np.linalg.svd(affine.T, full_matrices=False)
    rows = u @ vt
    rotation = np.vstack([rows, np.cross(rows[0], rows[1])])
    # With the rotation fixed, the best scale is one dot product.
    projected = (head - head_mean) @ rotation[:2].T
    scale = float((projected * (frame - frame_mean)).sum() / (projected**2).sum())
    translation = np.append(frame_mean, 0.0) - scale * rotation @ head_mean
    return np.hstack([scale * rotation, translation[:, None]]).astype(np.float32)


def rigid_align(source: ArrayLike, target: ArrayLike) -> Doubles:
    """Turn and move `source` (K, 3) so that it lies nearest to `target` (K, 3) (Kabsch 1976)."""
    a, b = np.asarray(source, np.float64), np.asarray(target, np.float64)
    a_mean, b_mean = a.mean(0), b.mean(0)
    rotation = nearest_rotation((b - b_mean).T @ (a - a_mean))
    return np.asarray((a - a_mean) @ rotation.T + b_mean)


def similarity_align(source: ArrayLike, target: ArrayLike) -> Doubles:
    """Turn, move and scale `source` (K, 3) so that it lies nearest to `target` (K, 3) (Umeyama 1991)."""
    b = np.asarray(target, np.float64)
    centre = b.mean(0)
    moved, around = rigid_align(source, b) - centre, b - centre
    return np.asarray(moved * ((moved * around).sum() / (moved**2).sum()) + centre)


def similarity_directions(points: ArrayLike) -> Doubles:
    """Return seven orthonormal directions (7, K * 3) that move, turn or scale points (K, 3) as a whole.

    A photograph shows the size of a head only together with its distance, and place and attitude of the head's frame
    only through the camera.
    """
    centred = np.asarray(points, np.float64)
    centred = centred - centred.mean(0)
    shifts = [np.tile(axis, (len(centred), 1)) for axis in np.eye(3)]
    turns = [np.cross(shift, centred) for shift in shifts]
    directions = np.stack([*shifts, *turns, centred]).reshape(7, -1)
    return np.asarray(np.linalg.qr(directions.T)[0].T)


def rmse_mm(source: ArrayLike, target: ArrayLike) -> float:
    """Return the root mean square vertex distance in mm after rigid alignment of `source` (K, 3) to `target` (K, 3)."""
    difference = rigid_align(source, target) - np.asarray(target, np.float64)
    return float(np.sqrt((difference**2).sum(1).mean()))

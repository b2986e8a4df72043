"""Heads in front of a real lens: the position and the rotation are exact."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from facerecon_rt.errors import UsageError
from facerecon_rt.faces.metric import Intrinsics, camera_from_head, from_orthographic, turn_to, with_metric_pose
from facerecon_rt.pose import fit_camera, rotation_angle_deg, rotation_from_euler
from facerecon_rt.template import load_template
from facerecon_rt.types import Face, Floats
from numpy.typing import NDArray

LENS = Intrinsics(900.0, 910.0, 630.0, 355.0)


def seen(pose: NDArray[np.float64], lens: Intrinsics = LENS) -> Face:
    """Return the mean face at a pose (4, 4) through a pinhole, with the best orthographic fit, as a network would give
    it."""
    template = load_template()
    head = template.landmark_positions.astype(np.float64)
    camera = head @ pose[:3, :3].T + pose[:3, 3]
    pixels = camera[:, :2] / camera[:, 2:] * [lens.fx, lens.fy] + [lens.cx, lens.cy]
    vertices = np.zeros((template.vertex_count, 3), np.float32)
    vertices[template.landmarks] = head
    blank: Floats = np.zeros(53, np.float32)
    orthographic = fit_camera(head, pixels)
    # The best fit of a near face moves the origin; a network is trained to give the origin's own place.
    landmarks = np.concatenate([pixels, np.zeros((68, 1))], 1).astype(np.float32)
    return Face(vertices, vertices, blank, orthographic, landmarks, 1.0, np.zeros(4, np.float32))


def pose_of(place: tuple[float, float, float], pitch: float, yaw: float, roll: float) -> NDArray[np.float64]:
    pose = np.eye(4)
    pose[:3, :3] = rotation_from_euler(pitch, yaw, roll)
    pose[:3, 3] = place
    return pose


@pytest.mark.parametrize("place", [(0, 0, 600), (-250, 100, 500), (300, -150, 900), (0, 0, 300)])
@pytest.mark.parametrize("turn", [(0, 0, 0), (10, 30, -5), (-20, -45, 10)])
def test_a_head_is_found_where_it_is(place: tuple[float, float, float], turn: tuple[float, float, float]) -> None:
    pose = pose_of(place, *turn)
    found = camera_from_head(seen(pose), LENS)
    np.testing.assert_allclose(found[:3, 3], place, atol=0.5)
    assert rotation_angle_deg(found[:3, :3], pose[:3, :3]) < 0.1
    np.testing.assert_array_equal(found[3], [0, 0, 0, 1])


def test_a_head_off_the_middle_that_faces_ahead_is_not_turned() -> None:
    face = seen(pose_of((-300, 0, 700), 0, 0, 0))
    straight = rotation_from_euler(0, 0, 0)
    orthographic = np.asarray(face.frame_from_head[:, :3], np.float64)
    orthographic /= np.cbrt(np.linalg.det(orthographic))
    assert rotation_angle_deg(orthographic, straight) > 15  # as the picture shows it
    assert rotation_angle_deg(from_orthographic(face, LENS)[:3, :3], straight) < 5
    assert rotation_angle_deg(camera_from_head(face, LENS)[:3, :3], straight) < 0.1


def test_points_that_fit_no_head_leave_what_was_known() -> None:
    face = seen(pose_of((0, 0, 600), 0, 0, 0))
    nonsense = dataclasses.replace(face, landmarks=np.full((68, 3), np.nan, np.float32))
    np.testing.assert_allclose(camera_from_head(nonsense, LENS), from_orthographic(nonsense, LENS), atol=1e-6)


def test_the_axis_is_turned_to_the_ray() -> None:
    for ray in ([0.0, 0.0, 2.0], [0.5, -0.2, 1.0], [-3.0, 1.0, 1.0]):
        direction = np.array(ray) / np.linalg.norm(ray)
        np.testing.assert_allclose(turn_to(np.array(ray)) @ [0, 0, 1], direction, atol=1e-9)


def test_a_field_of_view_is_a_focal_length() -> None:
    lens = Intrinsics.from_field_of_view(90.0, 1280, 720)
    np.testing.assert_allclose((lens.fx, lens.fy, lens.cx, lens.cy), (640, 640, 639.5, 359.5))
    np.testing.assert_array_equal(lens.matrix[2], [0, 0, 1])
    for degrees in (0, 180, -5):
        with pytest.raises(UsageError, match="field of view"):
            Intrinsics.from_field_of_view(degrees, 1280, 720)
    with pytest.raises(UsageError, match="focal lengths must be above 0"):
        Intrinsics(0, 900, 1, 1)


def test_the_face_carries_it_in_float32() -> None:
    face = with_metric_pose(seen(pose_of((0, 0, 600), 0, 0, 0)), LENS, (1280, 720))
    assert face.camera_from_head is not None
    assert face.camera_from_head.shape == (4, 4)
    assert face.camera_from_head.dtype == np.float32
    projected, _ = cv2.projectPoints(
        face.vertices[load_template().landmarks].astype(np.float64),
        cv2.Rodrigues(face.camera_from_head[:3, :3].astype(np.float64))[0],
        face.camera_from_head[:3, 3].astype(np.float64),
        LENS.matrix,
        None,
    )
    np.testing.assert_allclose(projected[:, 0], face.landmarks[:, :2], atol=0.05)

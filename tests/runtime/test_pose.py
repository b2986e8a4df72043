"""Rotations, Euler angles and fits, compared with numbers worked out by hand. Frame axes: x right, y down, z away."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from facerecon_rt.pose import (
    euler_from_camera,
    fit_camera,
    gaze_angles,
    mean_rotation,
    nearest_rotation,
    quaternion,
    rigid_align,
    rmse_mm,
    rotation_angle_deg,
    rotation_from_euler,
    similarity_align,
    similarity_directions,
    split_camera,
)
from facerecon_rt.template import load_template
from numpy.typing import ArrayLike

HALF, ROOT = 0.5, math.sqrt(3) / 2  # sine and cosine of 30 degrees
LEFT, UP, NOSE = np.eye(3)  # of the head


def camera_of(rotation: ArrayLike, scale: float = 1.0, at: ArrayLike = (0.0, 0.0, 0.0)) -> np.ndarray:
    return np.column_stack([scale * np.asarray(rotation), at])


def test_a_head_that_faces_the_camera_has_no_angles() -> None:
    np.testing.assert_array_equal(rotation_from_euler(0, 0, 0), np.diag([1, -1, -1]))
    assert euler_from_camera(camera_of(np.diag([1, -1, -1]))) == (0, 0, 0)


def test_yaw_is_positive_when_the_subject_turns_to_their_left() -> None:
    """The subject's left is the right of the picture."""
    np.testing.assert_allclose(rotation_from_euler(0, 30, 0) @ NOSE, [HALF, 0, -ROOT], atol=1e-12)
    np.testing.assert_allclose(rotation_from_euler(0, 30, 0) @ UP, [0, -1, 0], atol=1e-12)


def test_pitch_is_positive_when_the_subject_looks_up() -> None:
    np.testing.assert_allclose(rotation_from_euler(30, 0, 0) @ NOSE, [0, -HALF, -ROOT], atol=1e-12)
    np.testing.assert_allclose(rotation_from_euler(30, 0, 0) @ LEFT, [1, 0, 0], atol=1e-12)


def test_roll_is_positive_when_the_head_leans_to_the_subjects_left() -> None:
    np.testing.assert_allclose(rotation_from_euler(0, 0, 30) @ UP, [HALF, -ROOT, 0], atol=1e-12)
    np.testing.assert_allclose(rotation_from_euler(0, 0, 30) @ NOSE, [0, 0, -1], atol=1e-12)


def test_roll_comes_first_then_pitch_then_yaw() -> None:
    """After looking 30 degrees up and then turning by 90, the nose points to the left and up."""
    np.testing.assert_allclose(rotation_from_euler(30, 90, 0) @ NOSE, [ROOT, -HALF, 0], atol=1e-12)
    # Rolled before all that, the nose stays where it is.
    np.testing.assert_allclose(rotation_from_euler(30, 90, 77) @ NOSE, [ROOT, -HALF, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("linear", "angles"),
    [
        # The columns are the directions of the head's left, up and nose. The first head looks to the right edge.
        ([[0, 0, 1], [0, -1, 0], [1, 0, 0]], (0, 90, 0)),
        ([[0, 0, -1], [0, -1, 0], [-1, 0, 0]], (0, -90, 0)),
        ([[0, 1, 0], [1, 0, 0], [0, 0, -1]], (0, 0, 90)),
        ([[-1, 0, 0], [0, 1, 0], [0, 0, -1]], (0, 0, 180)),
        ([[1, 0, 0], [0, -ROOT, -HALF], [0, HALF, -ROOT]], (30, 0, 0)),
    ],
)
def test_angles_of_a_camera_written_by_hand(linear: ArrayLike, angles: tuple[float, float, float]) -> None:
    found = euler_from_camera(camera_of(linear, 3.0, (100, 200, 300)))
    np.testing.assert_allclose(np.abs(found) if 180 in angles else found, angles, atol=1e-6)


@pytest.mark.parametrize(
    ("pitch", "yaw", "roll"), list(itertools.product((-89, -40, 0, 15), (-170, -90, 0, 25), (-135, 0, 60)))
)
def test_angles_come_back(pitch: float, yaw: float, roll: float) -> None:
    camera = camera_of(rotation_from_euler(pitch, yaw, roll), 0.7, (5, 6, 7))
    np.testing.assert_allclose(euler_from_camera(camera), (pitch, yaw, roll), atol=1e-6)


@pytest.mark.parametrize("pitch", [90.0, -90.0])
@pytest.mark.parametrize("yaw", [-120.0, 0.0, 35.0])
def test_straight_up_and_down_roll_is_zero_and_the_rotation_still_comes_back(pitch: float, yaw: float) -> None:
    rotation = rotation_from_euler(pitch, yaw, 20)
    angles = euler_from_camera(camera_of(rotation))
    assert angles[0] == pytest.approx(pitch, abs=1e-4)
    assert angles[2] == 0
    np.testing.assert_allclose(rotation_from_euler(*angles), rotation, atol=1e-6)


def test_a_camera_is_split_into_scale_rotation_and_translation() -> None:
    rotation = rotation_from_euler(10, 20, 30)
    scale, found, translation = split_camera(camera_of(rotation, 2.5, (1, 2, 3)))
    assert scale == pytest.approx(2.5)
    np.testing.assert_allclose(found, rotation, atol=1e-12)
    np.testing.assert_array_equal(translation, [1, 2, 3])


def test_a_camera_without_a_size_has_no_finite_pose() -> None:
    scale, rotation, _ = split_camera(np.zeros((3, 4), np.float32))
    assert scale == 0 and np.isnan(rotation).all()
    assert np.isnan(euler_from_camera(np.zeros((3, 4)))).all()
    assert np.isnan(euler_from_camera(np.full((3, 4), np.nan))).all()


def test_the_nearest_rotation_is_one_and_never_a_mirror() -> None:
    matrices = np.random.default_rng(0).normal(size=(20, 3, 3))
    rotations = nearest_rotation(matrices)
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (20, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    np.testing.assert_allclose(nearest_rotation(3 * rotations), rotations, atol=1e-12)
    np.testing.assert_allclose(nearest_rotation(np.diag([3.0, 2.0, -1.0])), np.eye(3), atol=1e-12)


def test_the_mean_of_turning_left_and_right_looks_straight_on() -> None:
    left, right, straight = (rotation_from_euler(0, yaw, 0) for yaw in (40, -40, 0))
    np.testing.assert_allclose(mean_rotation([left, right]), straight, atol=1e-12)


def test_the_mean_rotation_can_be_weighed() -> None:
    """The mean angle has the tangent 3 sin 60 / (1 + 3 cos 60)."""
    mean = mean_rotation([rotation_from_euler(0, 0, 0), rotation_from_euler(0, 60, 0)], [1, 3])
    expected = math.degrees(math.atan2(3 * ROOT, 1 + 3 * HALF))
    np.testing.assert_allclose(mean, rotation_from_euler(0, expected, 0), atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-4, 30.0, 90.0, 179.999, 180.0])
def test_the_angle_between_rotations_is_the_one_they_were_turned_by(angle: float) -> None:
    start = rotation_from_euler(10, -20, 30)
    for turn in (rotation_from_euler(0, angle, 0), rotation_from_euler(0, 0, -angle)):
        turned = start @ rotation_from_euler(0, 0, 0).T @ turn
        assert rotation_angle_deg(start, turned) == pytest.approx(angle, abs=1e-6)


def test_fit_camera_recovers_a_known_camera() -> None:
    """Pixels do not determine the depth, which is set to 0 at the middle of the points."""
    points = load_template().landmark_positions.astype(np.float64)
    camera = camera_of(rotation_from_euler(-12, 34, 56), 1.7, (320, 240, 0))
    seen = points @ camera[:, :3].T + camera[:, 3]
    found = fit_camera(points, seen[:, :2])
    np.testing.assert_allclose(found[:, :3], camera[:, :3], atol=1e-5)
    np.testing.assert_allclose(found[:2, 3], camera[:2, 3], atol=1e-4)
    assert (points @ found[2, :3] + found[2, 3]).mean() == pytest.approx(0, abs=1e-4)


def test_fit_camera_gives_a_scaled_rotation_for_points_that_do_not_fit() -> None:
    points = load_template().landmark_positions.astype(np.float64)
    noise = np.random.default_rng(0)
    camera = fit_camera(points, noise.normal(size=(68, 2)) * 40)
    scale, rotation, _ = split_camera(camera)
    np.testing.assert_allclose(camera[:, :3], scale * rotation, atol=1e-5)


def test_kabsch_undoes_a_movement_and_never_mirrors() -> None:
    points = load_template().landmark_positions.astype(np.float64)
    moved = points @ rotation_from_euler(20, -50, 80).T + [10, 20, 30]
    np.testing.assert_allclose(rigid_align(moved, points), points, atol=1e-9)
    lopsided = points + np.where(points[:, :1] > 0, [[0.0, 12.0, 0.0]], 0.0)
    mirrored = lopsided * [-1, 1, 1]
    assert rmse_mm(mirrored, lopsided) > 1


def test_rmse_is_what_no_movement_takes_away() -> None:
    cross = np.vstack([np.eye(3), -np.eye(3)])
    assert rmse_mm(cross @ rotation_from_euler(5, 6, 7).T + 100, cross) == pytest.approx(0, abs=1e-9)
    assert rmse_mm(3 * cross, cross) == pytest.approx(2)


@pytest.mark.parametrize(
    ("direction", "yaw", "pitch"),
    [
        (NOSE, 0, 0),
        ((HALF, 0, ROOT), 30, 0),  # to the subject's left
        ((-HALF, 0, ROOT), -30, 0),
        ((0, HALF, ROOT), 0, 30),  # upwards
        ((HALF * ROOT, HALF, ROOT * ROOT), 30, 30),
        ((0, 0, -1), 180, 0),
    ],
)
def test_gaze_is_positive_to_the_subjects_left_and_upwards(direction: ArrayLike, yaw: float, pitch: float) -> None:
    found = gaze_angles(direction, camera_of(np.diag([1, -1, -1]), 3.0, (100, 200, 300)))
    assert found == pytest.approx((yaw, pitch), abs=1e-6)


def test_the_heads_turn_counts_in_where_it_looks() -> None:
    """Eyes that look straight ahead look where the head points. Eyes that turn back by the head's angle look into the
    camera."""
    assert gaze_angles(NOSE, camera_of(rotation_from_euler(0, 30, 0), 2.0)) == pytest.approx((30, 0), abs=1e-6)
    assert gaze_angles(NOSE, camera_of(rotation_from_euler(20, -40, 0), 2.0)) == pytest.approx((-40, 20), abs=1e-6)
    assert gaze_angles((-HALF, 0, ROOT), camera_of(rotation_from_euler(0, 30, 0))) == pytest.approx((0, 0), abs=1e-6)
    # A head that leans by a quarter turn to the subject's left has its up at the picture's right.
    assert gaze_angles((0, HALF, ROOT), camera_of(rotation_from_euler(0, 0, 90))) == pytest.approx((30, 0), abs=1e-6)


def test_gaze_need_not_be_a_unit_vector() -> None:
    assert gaze_angles((2 * HALF, 0, 2 * ROOT), camera_of(np.diag([1, -1, -1]))) == pytest.approx((30, 0), abs=1e-6)


def test_quaternions_of_all_turns_are_exact() -> None:
    rng = np.random.default_rng(4)
    halves = [np.diag([1.0, -1, -1]), np.diag([-1.0, 1, -1]), np.diag([-1.0, -1, 1])]
    for rotation in [np.eye(3), *halves, *(nearest_rotation(rng.normal(size=(3, 3))) for _ in range(50))]:
        w, x, y, z = found = quaternion(rotation)
        assert w >= 0 and np.linalg.norm(found) == pytest.approx(1)
        turned = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
        np.testing.assert_allclose(turned, rotation, atol=1e-12)


def test_a_similarity_takes_away_place_attitude_and_size() -> None:
    points = load_template().landmark_positions
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(similarity_align(2.5 * points @ turn.T + [1, 2, 3], points), points, atol=1e-3)


def test_seven_directions_move_turn_and_scale_points_and_bend_none() -> None:
    points = np.random.default_rng(0).normal(0, 30, (20, 3))
    directions = similarity_directions(points)
    np.testing.assert_allclose(directions @ directions.T, np.eye(7), atol=1e-12)
    for way in directions.reshape(7, 20, 3):
        # A small step along it is a similarity, up to the square of its size.
        np.testing.assert_allclose(similarity_align(points, points + 1e-3 * way), points + 1e-3 * way, atol=1e-6)

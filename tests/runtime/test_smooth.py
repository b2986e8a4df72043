"""Faces at rest tremble less, faces in motion hardly lag, and nothing else changes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from facerecon_rt.faces.smooth import STRENGTHS, FaceFilter, OneEuro, Smoother, Strength
from facerecon_rt.pose import nearest_rotation, split_camera
from facerecon_rt.types import Face

from .conftest import MakeFace

FPS = 30.0


def shaken(face: Face, random: np.random.Generator, pixels: float = 0.3) -> Face:
    """Return the face with the noise of a sensor."""
    camera = face.frame_from_head.astype(np.float64)
    scale, rotation, translation = split_camera(camera)
    rotation = nearest_rotation(rotation + random.normal(0, 0.003, (3, 3)))
    moved = translation + np.append(random.normal(0, pixels, 2), 0)
    return dataclasses.replace(
        face,
        frame_from_head=np.concatenate([scale * rotation, moved[:, None]], 1).astype(np.float32),
        landmarks=(face.landmarks + random.normal(0, pixels, (68, 3))).astype(np.float32),
        expression=np.clip(face.expression + random.normal(0, 0.005, len(face.expression)), 0, 1).astype(np.float32),
    )


def test_the_first_value_passes_and_a_constant_stays() -> None:
    run = OneEuro(STRENGTHS["high"])
    for _ in range(5):
        np.testing.assert_array_equal(run(np.array([3.0, -1.0]), 1 / FPS), [3.0, -1.0])


def test_the_filter_is_the_papers() -> None:
    run = OneEuro(Strength(1.0, 0.5))
    run(np.array(0.0), 0.0)
    seconds = 0.1
    # By hand: share at 1 Hz is 1 / (1 + 1 / (2 pi 0.1)); the speed is 10 / s times that; the cutoff 1 + speed / 2.
    share = 1 / (1 + 1 / (2 * np.pi * seconds))
    cutoff = 1 + 0.5 * share * 10
    expected = 1 / (1 + 1 / (2 * np.pi * cutoff * seconds))
    assert run(np.array(1.0), seconds) == pytest.approx(expected)


def test_a_fast_motion_lags_less_than_a_slow_one() -> None:
    def behind(speed: float) -> float:
        run = OneEuro(STRENGTHS["low"])
        values = [float(run(np.array(speed * frame / FPS), 1 / FPS)) for frame in range(60)]
        return (speed * 59 / FPS - values[-1]) / speed

    assert behind(2.0) < behind(0.1) < 0.1
    assert behind(2.0) < 0.005  # seconds


def test_the_unit_is_what_speeds_are_counted_in() -> None:
    one, other = OneEuro(STRENGTHS["low"]), OneEuro(STRENGTHS["low"])
    for value in (0.0, 1.0, 1.5, 3.0):
        np.testing.assert_allclose(
            one(np.array(value), 1 / FPS), other(np.array(250 * value), 1 / FPS, unit=250.0) / 250, rtol=1e-12
        )


@pytest.mark.parametrize("name", STRENGTHS)
def test_a_head_at_rest_trembles_less(name: str, ball_face: MakeFace) -> None:
    random = np.random.default_rng(0)
    face, run = ball_face(100.0, 80.0, scale=0.8, yaw=10.0, track=1), FaceFilter(STRENGTHS[name])
    shaky = [shaken(face, random) for _ in range(90)]
    steady = [run(one, frame / FPS) for frame, one in enumerate(shaky)]
    for field in ("landmarks", "frame_from_head", "expression"):
        before = np.std([getattr(one, field) for one in shaky[30:]], axis=0).mean()
        after = np.std([getattr(one, field) for one in steady[30:]], axis=0).mean()
        assert after < 0.6 * before, field
    np.testing.assert_allclose(np.mean([one.landmarks for one in steady[30:]], 0), face.landmarks, atol=1.0)
    rotation = split_camera(steady[-1].frame_from_head)[1]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    assert steady[-1].shape is shaky[-1].shape


def test_far_from_the_corner_of_the_picture_a_head_is_no_less_steady(ball_face: MakeFace) -> None:
    spreads = []
    for x in (100.0, 3000.0):
        random, run = np.random.default_rng(0), FaceFilter(STRENGTHS["low"])
        steady = [run(shaken(ball_face(x, 80.0, track=1), random), frame / FPS) for frame in range(60)]
        spreads.append(np.std([one.landmarks[:, :2] for one in steady[20:]], axis=0).mean())
    assert spreads[1] == pytest.approx(spreads[0], rel=0.05)


def test_each_track_has_a_filter_of_its_own_and_one_that_comes_back_starts_anew(ball_face: MakeFace) -> None:
    run = Smoother(STRENGTHS["high"])
    here, there = ball_face(50.0, 50.0, track=1), ball_face(300.0, 50.0, track=2)
    run((here, there), 0.0)
    first, second = run((here, there), 0.1)
    np.testing.assert_allclose(first.landmarks, here.landmarks, atol=1e-3)
    np.testing.assert_allclose(second.landmarks, there.landmarks, atol=1e-3)
    run((there,), 0.2)
    moved = ball_face(200.0, 50.0, track=1)
    again, _ = run((moved, there), 0.3)
    np.testing.assert_allclose(again.landmarks, moved.landmarks, atol=1e-3)


def test_time_that_does_not_pass_changes_nothing(ball_face: MakeFace) -> None:
    run = FaceFilter(STRENGTHS["low"])
    face = ball_face(50.0, 50.0, track=1)
    run(face, 1.0)
    np.testing.assert_allclose(run(ball_face(60.0, 50.0, track=1), 1.0).landmarks, face.landmarks, atol=1e-3)


def test_gaze_trembles_less_and_stays_a_direction(ball_face: MakeFace) -> None:
    random = np.random.default_rng(0)
    face, run = ball_face(100.0, 80.0, track=1), FaceFilter(STRENGTHS["low"])
    shaky, steady = [], []
    for frame in range(90):
        angle = np.radians(10) + random.normal(0, 0.003, 2)
        gaze = np.stack([np.sin(angle), np.zeros(2), np.cos(angle)], 1).astype(np.float32)
        shaky.append(gaze)
        found = run(dataclasses.replace(face, gaze=gaze), frame / FPS).gaze
        assert found is not None and found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
        steady.append(found)
    assert np.std(steady[30:], axis=0)[:, 0].mean() < 0.6 * np.std(shaky[30:], axis=0)[:, 0].mean()
    np.testing.assert_allclose(np.mean(steady[30:], axis=0)[:, 0], np.sin(np.radians(10)), atol=0.01)


def test_a_face_without_gaze_stays_without(ball_face: MakeFace) -> None:
    run = FaceFilter(STRENGTHS["low"])
    assert run(ball_face(50.0, 50.0, track=1), 0.0).gaze is None
    assert run(ball_face(51.0, 50.0, track=1), 0.1).gaze is None

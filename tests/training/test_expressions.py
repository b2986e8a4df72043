"""What faces do: everything often enough, on one side too, and eyes that look at one thing."""

from __future__ import annotations

import numpy as np
import pytest
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.networks.mirror import blendshape_mirror
from facerecon_rt.pose import gaze_angles
from facerecon_rt.types import Floats
from facerecon_training.rendered.expressions import (
    EYE_LOOK,
    EYE_LOOK_DEG,
    FACES,
    OPPOSITES,
    SIDED,
    WHOLE,
    eye_look_from_gaze,
    gaze_vectors,
    random_expression,
    random_gaze,
)
from facerecon_training.rendered.render import camera_for_crop

INDEX = {name: i for i, name in enumerate(BLENDSHAPES)}
COUNT = 4000
HALF, ROOT = 0.5, np.sqrt(3) / 2


@pytest.fixture(scope="module")
def many() -> tuple[Floats, Floats]:
    """(COUNT, 53) weights and (COUNT, 2, 2) gazes."""
    random = np.random.default_rng(0)
    drawn = [random_expression(random) for _ in range(COUNT)]
    return np.stack([one.weights for one in drawn]), np.stack([one.gaze_deg for one in drawn])


def test_every_blendshape_is_a_group_or_follows_eyes_lids_and_jaw() -> None:
    names = {f"{name}_{side}" for name in SIDED for side in "LR"} | set(WHOLE)
    apart = {"jawOpen", "eyeBlink_L", "eyeBlink_R", *(BLENDSHAPES[i] for eye in EYE_LOOK for i in eye)}
    assert names | apart == set(BLENDSHAPES)
    assert not names & apart
    assert {name for face in FACES.values() for name in face} <= {*SIDED, *WHOLE, "jawOpen", "eyeBlink"}


def test_expressions_are_possible_ones(many: tuple[Floats, Floats]) -> None:
    weights, _ = many
    assert weights.dtype == np.float32
    assert weights.min() >= 0
    assert weights.max() <= 1
    assert (weights[:, INDEX["mouthClose"]] <= weights[:, INDEX["jawOpen"]]).all()
    for one, others in OPPOSITES.items():
        for other in others:
            assert not (weights[:, INDEX[one]] * weights[:, INDEX[other]]).any()
    for outwards, inwards, up, down in EYE_LOOK:
        assert not (weights[:, outwards] * weights[:, inwards]).any()
        assert not (weights[:, up] * weights[:, down]).any()
    # Eyes are not open wide and closed.
    for side in "LR":
        blinks = weights[:, INDEX[f"eyeBlink_{side}"]] > 0.2
        assert not weights[blinks, INDEX[f"eyeWide_{side}"]].any()


@pytest.mark.parametrize("name", BLENDSHAPES)
def test_every_blendshape_is_strong_often_enough_to_be_learnt(name: str, many: tuple[Floats, Floats]) -> None:
    weights = many[0][:, INDEX[name]]
    assert (weights > 0.3).mean() > 0.025
    assert (weights > 0.5).mean() > 0.015
    assert (weights > 0.7).mean() > 0.005
    assert (weights < 0.05).mean() > 0.4


@pytest.mark.parametrize("name", [*SIDED, "eyeBlink"])
def test_each_side_moves_alone_now_and_then(name: str, many: tuple[Floats, Floats]) -> None:
    left, right = many[0][:, INDEX[f"{name}_L"]], many[0][:, INDEX[f"{name}_R"]]
    assert ((left > 0.3) & (right < 0.2)).mean() > 0.002
    assert ((right > 0.3) & (left < 0.2)).mean() > 0.002
    assert (left == right).mean() > 0.8, "mostly both are the same, at rest or not"


def test_winks_close_one_eye(many: tuple[Floats, Floats]) -> None:
    blinks = many[0][:, [INDEX["eyeBlink_L"], INDEX["eyeBlink_R"]]]
    winks = (blinks.max(1) > 0.8) & (blinks.min(1) < 0.2)
    assert 0.02 < winks.mean() < 0.1


def test_one_face_in_seven_rests_but_for_its_eyes(many: tuple[Floats, Floats]) -> None:
    still = np.delete(many[0], [i for eye in EYE_LOOK for i in eye] + [INDEX["eyeBlink_L"], INDEX["eyeBlink_R"]], 1)
    assert (still == 0).all(1).mean() == pytest.approx(1 / 7, abs=0.02)


def test_neither_side_is_the_stronger_one(many: tuple[Floats, Floats]) -> None:
    weights, _ = many
    mirrored = weights[:, blendshape_mirror(BLENDSHAPES)]
    np.testing.assert_allclose(weights.mean(0), mirrored.mean(0), atol=0.02)


# Gaze


@pytest.mark.parametrize(
    ("yaw", "pitch", "vector"),
    [
        (0, 0, (0, 0, 1)),
        (30, 0, (HALF, 0, ROOT)),  # to the subject's left
        (0, 30, (0, HALF, ROOT)),  # up
        (-30, 0, (-HALF, 0, ROOT)),
        (90, 30, (ROOT, HALF, 0)),  # yaw about the upright axis, whatever the pitch
    ],
)
def test_yaw_is_to_the_subjects_left_and_pitch_upwards(
    yaw: float, pitch: float, vector: tuple[float, float, float]
) -> None:
    np.testing.assert_allclose(gaze_vectors(np.array([yaw, pitch], np.float32)), vector, atol=1e-6)


def test_eyes_that_look_left_look_out_on_the_left_and_in_on_the_right() -> None:
    eye_look = eye_look_from_gaze(np.array([[15, -30], [15, -30]], np.float32))
    # outwards, inwards, up, down
    np.testing.assert_allclose(eye_look, [[0.5, 0, 0, 1], [0, 0.5, 0, 1]], atol=1e-6)
    assert [BLENDSHAPES[i] for i in EYE_LOOK[0]] == ["eyeLookOut_L", "eyeLookIn_L", "eyeLookUp_L", "eyeLookDown_L"]
    # Cross-eyed: both inwards, and no further than all the way.
    np.testing.assert_allclose(eye_look_from_gaze(np.array([[-60, 6], [60, 6]]))[:, :3], [[0, 1, 0.2]] * 2, atol=1e-6)


def test_the_looks_of_an_expression_are_those_of_its_gaze(many: tuple[Floats, Floats]) -> None:
    weights, gaze = many
    for i in range(0, COUNT, 100):
        np.testing.assert_array_equal(weights[i, list(EYE_LOOK[0] + EYE_LOOK[1])], eye_look_from_gaze(gaze[i]).ravel())


def test_both_eyes_look_at_one_thing(many: tuple[Floats, Floats]) -> None:
    """Equally high, and never apart: lines of sight meet in front of the face."""
    _, gaze = many
    np.testing.assert_array_equal(gaze[:, 0, 1], gaze[:, 1, 1])
    assert (gaze[:, 1, 0] >= gaze[:, 0, 0]).all()
    assert 1 < (gaze[:, 1, 0] - gaze[:, 0, 0]).mean() < 5
    assert np.abs(gaze).max() <= EYE_LOOK_DEG
    assert (gaze[..., 0] > 20).mean() > 0.05 and (gaze[..., 0] < -20).mean() > 0.05
    assert (gaze[..., 1] > 10).mean() > 0.05 and (gaze[..., 1] < -10).mean() > 0.05


@pytest.mark.parametrize(("pitch", "yaw"), [(0.0, 20.0), (10.0, 0.0), (0.0, -25.0), (-12.0, 10.0)])
def test_a_third_looks_into_the_camera_that_a_turned_head_sees(pitch: float, yaw: float) -> None:
    random = np.random.default_rng(0)
    camera = camera_for_crop(pitch, yaw, 0, 128, 100)
    angles = []
    for _ in range(600):
        gaze = random_gaze(random, facing=(-yaw, -pitch)).mean(0)
        angles.append(np.abs(gaze_angles(gaze_vectors(gaze), camera)).max())
    assert 0.3 < (np.array(angles) < 6).mean() < 0.55


def test_nobody_looks_into_a_camera_that_eyes_cannot_reach() -> None:
    for facing in ((-60.0, 0.0), (0.0, 40.0)):
        away, anywhere = (np.random.default_rng(1) for _ in range(2))
        for _ in range(50):
            np.testing.assert_array_equal(random_gaze(away, facing), random_gaze(anywhere))


def test_people_with_lowered_lids_mostly_look_down(many: tuple[Floats, Floats]) -> None:
    weights, gaze = many
    blinks = weights[:, [INDEX["eyeBlink_L"], INDEX["eyeBlink_R"]]]
    lowered = ((blinks > 0.15) & (blinks < 0.8)).all(1)
    assert lowered.sum() > 20
    assert (gaze[lowered, 0, 1] < -5).mean() > 0.5
    assert (gaze[~lowered, 0, 1] < -5).mean() < 0.4

"""What rendered faces do: every blendshape often enough, one-sided ones too, and eyes that look at one thing."""

from __future__ import annotations

import numpy as np
import pytest
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.types import Floats
from facerecon_training.rendered.expressions import (
    EYE_LOOK_DEG,
    Expression,
    gaze_vectors,
    looks_from_gaze,
    random_expression,
    random_gaze,
)

INDEX = {name: i for i, name in enumerate(BLENDSHAPES)}
LOOKS = [i for name, i in INDEX.items() if name.startswith("eyeLook")]


@pytest.fixture(scope="module")
def many() -> list[Expression]:
    random = np.random.default_rng(0)
    return [random_expression(random, facing=(-10.0, 5.0)) for _ in range(4000)]


@pytest.fixture(scope="module")
def weights(many: list[Expression]) -> Floats:
    return np.stack([one.weights for one in many])


def test_weights_are_possible_ones(weights: Floats) -> None:
    assert weights.min() >= 0
    assert weights.max() <= 1
    assert (weights[:, INDEX["mouthClose"]] <= weights[:, INDEX["jawOpen"]]).all()
    for one, other in (("jawLeft", "jawRight"), ("mouthLeft", "mouthRight")):
        assert not (weights[:, INDEX[one]] * weights[:, INDEX[other]]).any()


def test_every_blendshape_is_strong_often_enough(weights: Floats) -> None:
    # mouthClose cannot be stronger than the jaw is open, which it is in one face in three.
    strong = (weights > 0.25).mean(0)
    assert {name for name, i in INDEX.items() if strong[i] < 0.02} <= {"mouthClose"}
    assert strong[INDEX["mouthClose"]] > 0.005


def test_sides_move_alone_too(weights: Floats) -> None:
    left, right = weights[:, INDEX["mouthFrown_L"]], weights[:, INDEX["mouthFrown_R"]]
    moved = np.maximum(left, right) > 0.25
    alone = np.minimum(left, right)[moved] == 0
    assert 0.1 < alone.mean() < 0.5
    assert 0.2 < (left[moved][alone] > 0).mean() < 0.8


def test_winks_close_one_eye(weights: Floats) -> None:
    blinks = weights[:, [INDEX["eyeBlink_L"], INDEX["eyeBlink_R"]]]
    winks = (blinks.max(1) > 0.8) & (blinks.min(1) < 0.2)
    assert 0.02 < winks.mean() < 0.1


def test_one_face_in_fourteen_rests(weights: Floats) -> None:
    still = np.delete(weights, LOOKS, axis=1).max(1) == 0
    assert 0.05 < still.mean() < 0.25


def test_looks_are_what_the_gaze_makes_them(many: list[Expression], weights: Floats) -> None:
    left_out = [one.gaze_deg[0, 0] / EYE_LOOK_DEG for one in many]
    np.testing.assert_allclose(weights[:, INDEX["eyeLookOut_L"]], np.clip(left_out, 0, 1), atol=1e-6)
    np.testing.assert_allclose(weights[:, INDEX["eyeLookIn_L"]], np.clip(np.negative(left_out), 0, 1), atol=1e-6)


def test_to_the_subjects_left_is_out_for_the_left_eye_and_in_for_the_right() -> None:
    looks = looks_from_gaze(np.array([[15.0, 30.0], [15.0, -60.0]], np.float32))
    np.testing.assert_allclose(looks, [[0.5, 0, 1, 0], [0, 0.5, 0, 1]], atol=1e-6)


def test_gaze_vectors_point_to_the_subjects_left_and_up() -> None:
    vectors = gaze_vectors(np.array([[0.0, 0], [90, 0], [0, 90], [-30, 0]], np.float32))
    np.testing.assert_allclose(vectors, [[0, 0, 1], [1, 0, 0], [0, 1, 0], [-0.5, 0, 0.75**0.5]], atol=1e-6)


def test_both_eyes_look_at_one_thing() -> None:
    random = np.random.default_rng(1)
    gazes = np.stack([random_gaze(random) for _ in range(500)])
    assert np.abs(gazes).max() <= EYE_LOOK_DEG
    np.testing.assert_array_equal(gazes[:, 0, 1], gazes[:, 1, 1])
    # What is near makes eyes turn inwards: the left one to the right.
    assert (gazes[:, 0, 0] <= gazes[:, 1, 0] + 1e-4).all()


def test_some_look_into_the_camera() -> None:
    random = np.random.default_rng(2)
    gazes = np.stack([random_gaze(random, facing=(-20.0, 8.0)).mean(0) for _ in range(1000)])
    near = np.linalg.norm(gazes - [-20.0, 8.0], axis=1) < 5
    assert 0.25 < near.mean() < 0.5

"""Identities from frame to frame: balls move, and networks see them with the usual errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from facerecon_rt.align import CROP_SIDE_MM, Square, box_from_square, square_from_camera
from facerecon_rt.faces.shapes import MEMORY, ShapeAverage
from facerecon_rt.faces.track import HIDDEN, STILL_SCALE, STILL_SIDES, Track, Tracker, drifted, still, unknown
from facerecon_rt.types import Face

MakeFace = Callable[..., Face]
SCALE = 0.5
SIDE = SCALE * CROP_SIDE_MM


def look(tracker: Tracker, people: Sequence[Face]) -> tuple[Face, ...]:
    """Process one frame: each visible track sees the person nearest to its place, and detection finds the others."""
    seen = []
    for track in tracker.visible:
        place = track.next_square()
        nearest = min(people, key=lambda face: distance(square_of(face), place), default=None)
        if nearest is None or distance(square_of(nearest), place) > 0.4 * place.side:
            seen.append((track, replace(nobody(), box=box_from_square(place))))
        else:
            seen.append((track, nearest))
    new = unknown([square_of(face) for face in people], [face for _, face in seen if face.confidence >= 0.5])
    return tracker.update(seen, [face for face in people if square_of(face) in new], 0.5)


def square_of(face: Face) -> Square:
    return square_from_camera(face.frame_from_head)


def distance(a: Square, b: Square) -> float:
    return float(np.hypot(a.x - b.x, a.y - b.y))


def nobody() -> Face:
    """Return the network's answer to a crop without a face."""
    empty = np.zeros((1, 3), np.float32)
    return Face(empty, empty, np.zeros(53, np.float32), np.eye(3, 4, dtype=np.float32), empty, 0.0, np.zeros(4, "f4"))


def numbers(faces: Sequence[Face]) -> list[int | None]:
    return [face.track for face in faces]


# Places


def test_noise_does_not_move_the_place_and_a_step_does(ball_face: MakeFace) -> None:
    track = Track(1, ball_face(100, 200))
    track.update(ball_face(100, 200))
    before = track.next_square()
    for sign in (1, -1, 1):
        track.update(ball_face(100 + sign * 0.8 * STILL_SIDES * SIDE, 200))
        assert track.next_square() == before
    track.update(ball_face(100 + 2 * STILL_SIDES * SIDE, 200))
    assert track.next_square().x > before.x + 2 * STILL_SIDES * SIDE


def test_a_slow_walk_is_followed_within_the_noise(ball_face: MakeFace) -> None:
    track = Track(1, ball_face(100, 200))
    for step in range(200):
        x = 100 + 0.1 * STILL_SIDES * SIDE * step
        assert abs(track.next_square().x - x) < 1.5 * STILL_SIDES * SIDE
        track.update(ball_face(x, 200))


def test_growing_and_leaning_are_no_noise() -> None:
    square = Square(10, 20, 100, 0.1)
    assert still(square, replace(square, side=100 * (1 + 0.9 * STILL_SCALE)))
    assert not still(square, replace(square, side=100 * (1 + 1.2 * STILL_SCALE)))
    assert not still(square, replace(square, roll=0.2))
    # Half a turn either way is the same attitude.
    assert still(replace(square, roll=3.14), replace(square, roll=-3.14))


# Numbers


def test_a_face_keeps_its_number_while_it_moves(ball_face: MakeFace) -> None:
    tracker = Tracker()
    for step in range(30):
        assert numbers(look(tracker, [ball_face(100 + 12 * step, 200)])) == [1]


def test_each_new_face_gets_the_next_number(ball_face: MakeFace) -> None:
    tracker = Tracker()
    people = [ball_face(100 + 300 * place, 200) for place in range(3)]
    assert numbers(look(tracker, people[:1])) == [1]
    assert numbers(look(tracker, people[:2])) == [1, 2]
    assert numbers(look(tracker, people)) == [1, 2, 3]


def test_a_number_survives_a_short_occlusion(ball_face: MakeFace) -> None:
    tracker = Tracker()
    for _ in range(3):
        look(tracker, [ball_face(100, 200)])
    for _ in range(25):
        assert look(tracker, []) == ()
    assert numbers(look(tracker, [ball_face(130, 190)])) == [1]


def test_after_a_long_absence_a_face_is_someone_new_and_no_number_is_used_twice(ball_face: MakeFace) -> None:
    tracker = Tracker(forget_after=5)
    look(tracker, [ball_face(100, 200)])
    for _ in range(6):
        look(tracker, [])
    assert tracker.tracks == []
    assert numbers(look(tracker, [ball_face(100, 200)])) == [2]


def test_a_face_far_from_where_one_was_lost_is_someone_new(ball_face: MakeFace) -> None:
    tracker = Tracker()
    look(tracker, [ball_face(100, 200)])
    look(tracker, [])
    assert numbers(look(tracker, [ball_face(100 + SIDE, 200)])) == [2]


def test_a_face_of_quite_another_size_is_someone_new(ball_face: MakeFace) -> None:
    tracker = Tracker()
    look(tracker, [ball_face(100, 200)])
    look(tracker, [])
    assert numbers(look(tracker, [ball_face(100, 200, scale=2.5 * SCALE)])) == [2]


def test_two_lost_faces_go_back_to_their_own_numbers(ball_face: MakeFace) -> None:
    tracker = Tracker()
    people = [ball_face(100, 200), ball_face(180, 200)]
    look(tracker, people)
    look(tracker, [])
    assert numbers(look(tracker, people[::-1])) == [2, 1]


@pytest.mark.parametrize("speed", [4, 8, 14])
def test_two_faces_that_cross_keep_their_numbers(ball_face: MakeFace, speed: int) -> None:
    """One person walks to the right behind a person who stands, and is hidden while they overlap."""
    tracker = Tracker()
    standing = ball_face(300, 200)
    for x in range(60, 540, speed):
        walking = ball_face(x, 200)
        faces = look(tracker, [standing] if abs(x - 300) < 0.5 * SIDE else [standing, walking])
        assert numbers(faces)[0] == 1
        assert set(numbers(faces)) <= {1, 2}
    assert numbers(faces) == [1, 2]
    assert distance(square_of(faces[1]), square_of(walking)) < 1


def test_where_two_cross_the_one_in_front_keeps_its_number_though_it_is_the_younger(ball_face: MakeFace) -> None:
    tracker = Tracker()
    look(tracker, [ball_face(100, 200)])
    look(tracker, [ball_face(112, 200), ball_face(400, 200)])
    older, younger = tracker.tracks
    face = ball_face(395, 200)  # the face is at both places, and the younger track sees it
    assert numbers(tracker.update([(older, face), (younger, face)], [], 0.5)) == [2]
    assert (tracker.visible, older.missed) == ([younger], 1)


def test_of_two_who_stand_alike_the_face_is_whose_shape_it_has(ball_face: MakeFace) -> None:
    tracker = Tracker()
    round_face = ball_face(100, 200)
    wide_face = replace(ball_face(300, 200), shape=round_face.shape * np.array([1.2, 1, 1], np.float32))
    look(tracker, [round_face, wide_face])
    round_track, wide_track = tracker.tracks
    between = replace(ball_face(200, 200), shape=wide_face.shape)
    assert numbers(tracker.update([(round_track, between), (wide_track, between)], [], 0.5)) == [2]
    # The shape also identifies a person who comes out from behind.
    look(tracker, [])
    back = replace(ball_face(160, 200), shape=round_face.shape)
    assert numbers(tracker.update([], [back], 0.5)) == [1]


@pytest.mark.parametrize(
    ("frames", "sides", "number"), [(1, 0.7, 1), (1, 0.9, 2), (9, 0.9, 1), (9, 1.1, 2), (24, 1.2, 1)]
)
def test_who_is_missed_for_longer_may_have_walked_further(
    ball_face: MakeFace, frames: int, sides: float, number: int
) -> None:
    tracker = Tracker()
    look(tracker, [ball_face(100, 200)])
    for _ in range(frames):
        look(tracker, [])
    assert numbers(look(tracker, [ball_face(100 + sides * SIDE, 200)])) == [number]


@pytest.mark.parametrize("gone_over", [False, True])
def test_who_comes_out_from_behind_and_who_stood_before_get_their_own_numbers(
    ball_face: MakeFace, gone_over: bool
) -> None:
    """The track of the wide face in front goes over to the round face behind it while both are at one place."""
    tracker = Tracker()
    round_face, wide = ball_face(80, 200), ball_face(300, 200).shape * np.array([1.2, 1, 1], np.float32)
    look(tracker, [round_face, replace(ball_face(300, 200), shape=wide)])
    behind, front = tracker.tracks
    for _ in range(5):
        seen = [(behind, nobody())] if not behind.missed else []
        tracker.update([*seen, (front, replace(ball_face(100, 200), shape=wide))], [], 0.5)
    assert tracker.behind == (behind,)
    here, there = ball_face(100, 200), ball_face(80 + 0.8 * SIDE, 200)
    if gone_over:
        there = replace(there, shape=wide)
    else:
        here = replace(here, shape=wide)
    faces = tracker.update([(front, here)], [there], 0.5)
    assert {face.track: float(square_of(face).x) for face in faces} == {
        1: square_of(here if gone_over else there).x,
        2: square_of(there if gone_over else here).x,
    }
    assert distance(front.next_square(), square_of(there if gone_over else here)) < 1
    assert (tracker.entered, tracker.left) == ((), ())
    assert tracker.visible == [behind, front]


def test_only_who_stood_before_a_face_can_be_taken_for_it(ball_face: MakeFace) -> None:
    """Two people in different places; one is lost for a moment. The other keeps its number whatever its shape is."""
    tracker = Tracker()
    wide = ball_face(300, 200).shape * np.array([1.2, 1, 1], np.float32)
    look(tracker, [ball_face(100, 200), replace(ball_face(300, 200), shape=wide)])
    first, second = tracker.tracks
    tracker.update([(first, nobody()), (second, replace(ball_face(300, 200), shape=wide))], [], 0.5)
    back = replace(ball_face(110, 200), shape=wide)
    assert numbers(tracker.update([(second, ball_face(300, 200))], [back], 0.5)) == [2, 1]


def test_a_face_behind_another_is_waited_for_longer(ball_face: MakeFace) -> None:
    tracker = Tracker(forget_after=5)
    look(tracker, [ball_face(100, 200), ball_face(300, 200)])
    hidden, front = tracker.tracks
    before = ball_face(85, 200)
    tracker.update([(hidden, nobody()), (front, before)], [], 0.5)
    for _ in range(40):
        assert numbers(tracker.update([(front, before)], [], 0.5)) == [2]
    assert tracker.tracks == [hidden, front]
    assert numbers(tracker.update([(front, before)], [ball_face(170, 200)], 0.5)) == [2, 1]


def test_a_face_behind_another_is_not_waited_for_for_ever(ball_face: MakeFace) -> None:
    tracker = Tracker(forget_after=5)
    look(tracker, [ball_face(100, 200), ball_face(300, 200)])
    hidden, front = tracker.tracks
    before = ball_face(85, 200)
    tracker.update([(hidden, nobody()), (front, before)], [], 0.5)
    for _ in range(HIDDEN + 4):
        tracker.update([(front, before)], [], 0.5)
    assert tracker.tracks == [hidden, front]
    tracker.update([(front, before)], [], 0.5)
    assert (tracker.tracks, tracker.left) == ([front], (1,))


def test_two_tracks_on_one_face_become_one(ball_face: MakeFace) -> None:
    """The younger track slides onto the older track's face, and is not shown twice."""
    tracker = Tracker()
    look(tracker, [ball_face(100, 200), ball_face(300, 200)])
    older, younger = tracker.tracks
    face = ball_face(150, 200)
    assert numbers(tracker.update([(older, face), (younger, face)], [], 0.5)) == [1]
    assert tracker.visible == [older]


def test_one_face_found_by_two_detections_is_one_track(ball_face: MakeFace) -> None:
    tracker = Tracker()
    assert numbers(tracker.update([], [ball_face(100, 200), ball_face(103, 200)], 0.5)) == [1]


def test_a_doubtful_face_is_not_shown(ball_face: MakeFace) -> None:
    tracker = Tracker()
    doubtful = replace(ball_face(100, 200), confidence=0.49)
    assert tracker.update([], [doubtful], 0.5) == ()
    look(tracker, [ball_face(100, 200)])
    (track,) = tracker.visible
    assert tracker.update([(track, doubtful)], [], 0.5) == ()
    assert (tracker.visible, track.missed) == ([], 1)


def test_only_detections_beside_the_faces_already_seen_are_unknown(ball_face: MakeFace) -> None:
    face = ball_face(100, 200)
    same, near, other = square_of(face), square_of(ball_face(110, 200)), square_of(ball_face(160, 200))
    assert unknown([same, near, other], [face]) == [other]
    assert unknown([same, other], []) == [same, other]


# Cuts


def somebody(face: Face, seed: int) -> Face:
    """Return the face with the appearance and the shape of another person, by `seed`."""
    appearance = np.random.default_rng(seed).normal(0, 1, (4, 128)).astype(np.float32)
    appearance /= np.linalg.norm(appearance, axis=1, keepdims=True)
    return replace(face, appearance=appearance, shape=face.shape * np.array([1 + 0.05 * seed, 1, 1], np.float32))


def test_a_cut_to_another_person_at_the_same_place_begins_a_track(ball_face: MakeFace) -> None:
    tracker, anna, bert = Tracker(), somebody(ball_face(100, 200), 1), somebody(ball_face(100, 200), 2)
    for _ in range(5):
        assert numbers(look(tracker, [anna])) == [1]
    (first,) = look(tracker, [bert])
    assert (first.track, tracker.entered, tracker.left) == (2, (2,), (1,))
    (later,) = look(tracker, [bert])
    assert (later.track, tracker.entered, tracker.left) == (2, (), ())
    # The second person's shape holds nothing of the first.
    np.testing.assert_array_equal(first.shape, bert.shape)
    np.testing.assert_allclose(later.shape, bert.shape, atol=1e-4)
    assert numbers(look(tracker, [anna])) == [3]


def test_of_two_only_the_one_who_is_another_begins_anew(ball_face: MakeFace) -> None:
    tracker = Tracker()
    anna, bert, cleo = (somebody(ball_face(x, 200), seed) for x, seed in ((100, 1), (300, 2), (300, 3)))
    for _ in range(3):
        assert numbers(look(tracker, [anna, bert])) == [1, 2]
    assert numbers(look(tracker, [anna, cleo])) == [1, 3]
    assert (tracker.entered, tracker.left) == ((3,), (2,))


def test_a_cut_to_another_person_nearby_begins_a_track_too(ball_face: MakeFace) -> None:
    """The second person is so far from the first person's place that nobody is seen there."""
    tracker, anna, bert = Tracker(), somebody(ball_face(100, 200), 1), somebody(ball_face(100 + 0.6 * SIDE, 200), 2)
    for _ in range(3):
        look(tracker, [anna])
    assert numbers(look(tracker, [bert])) == [2]
    # A person who was lost for longer may have turned meanwhile, and keeps the number.
    tracker = Tracker()
    for people in ([anna], [anna], [], []):
        look(tracker, people)
    assert numbers(look(tracker, [bert])) == [1]


def test_where_the_picture_stays_there_is_no_cut(ball_face: MakeFace) -> None:
    """A head that passes in front of another head changes the track's face completely, but hardly the picture."""
    tracker, anna, bert = Tracker(), somebody(ball_face(100, 200), 1), somebody(ball_face(100, 200), 2)
    for _ in range(3):
        look(tracker, [anna])
    track = tracker.tracks[0]
    assert track.cut_to(bert)
    assert numbers(tracker.update([(track, bert)], [], 0.5, scene_changed=False)) == [1]
    assert (tracker.entered, tracker.left) == ((), ())


def test_somebody_in_another_light_stays_the_same(ball_face: MakeFace) -> None:
    tracker, anna = Tracker(), somebody(ball_face(100, 200), 1)
    lit = replace(somebody(anna, 9), shape=anna.shape * np.float32(1.003))
    for _ in range(3):
        look(tracker, [anna])
    assert numbers(look(tracker, [lit])) == [1]
    assert (tracker.entered, tracker.left) == ((), ())


# Expected places


def test_a_track_looks_ahead_by_half_a_step(ball_face: MakeFace) -> None:
    track = Track(1, ball_face(100, 200))
    for x in (100, 110, 120):
        track.update(ball_face(x, 200))
    assert track.next_square().x == pytest.approx(125)
    assert track.next_square().side == pytest.approx(SIDE)


def test_a_lost_face_is_looked_for_where_it_was_last(ball_face: MakeFace) -> None:
    track = Track(1, ball_face(100, 200))
    for x in (100, 110):
        track.update(ball_face(x, 200))
    track.missed = 3
    assert track.next_square().x == pytest.approx(110)
    track.update(ball_face(160, 200))
    # A jump across frames that nobody saw is no speed.
    assert track.next_square().x == pytest.approx(160)


# The averaged shape


def test_the_shape_is_the_weighted_mean_of_its_frames() -> None:
    """With weights 1 and 3, the mean is 0.25 * 0 + 0.75 * 4 = 3, and the spread is sqrt(0.25 * 9 + 0.75 * 1) =
    sqrt(3)."""
    average = ShapeAverage()
    mean, spread = average.add(np.zeros((1, 3), np.float32), 1)
    np.testing.assert_array_equal(mean, [[0, 0, 0]])
    np.testing.assert_array_equal(spread, [0])
    mean, spread = average.add(np.array([[0, 4, 0]], np.float32), 3)
    np.testing.assert_allclose(mean, [[0, 3, 0]])
    np.testing.assert_allclose(spread, [np.sqrt(3)], rtol=1e-6)


def test_many_frames_average_as_all_at_once() -> None:
    random = np.random.default_rng(0)
    shapes = random.normal(size=(40, 10, 3)).astype(np.float32)
    weights = random.uniform(0.5, 1, 40)
    average = ShapeAverage()
    for shape, weight in zip(shapes, weights, strict=True):
        mean, spread = average.add(shape, float(weight))
    expected = np.average(shapes, axis=0, weights=weights)
    np.testing.assert_allclose(mean, expected, atol=1e-5)
    variance = np.average(((shapes - expected) ** 2).sum(2), axis=0, weights=weights)
    np.testing.assert_allclose(spread, np.sqrt(variance), atol=1e-5)


def test_what_was_given_out_before_does_not_change() -> None:
    average = ShapeAverage()
    first, _ = average.add(np.zeros((1, 3), np.float32), 1)
    average.add(np.ones((1, 3), np.float32), 1)
    assert not first.any()


def test_old_frames_are_forgotten_in_the_end() -> None:
    average = ShapeAverage()
    for value in (0.0, 1.0):
        for _ in range(int(3 * MEMORY)):
            mean, _ = average.add(np.full((1, 3), value, np.float32), 1)
    assert mean.min() > 0.9


def test_frames_of_no_confidence_still_have_a_mean() -> None:
    average = ShapeAverage()
    average.add(np.zeros((1, 3), np.float32), 0)
    mean, _ = average.add(np.full((1, 3), 2, np.float32), 0)
    np.testing.assert_allclose(mean, [[1, 1, 1]])


def test_on_a_track_only_the_identity_is_averaged(ball_face: MakeFace) -> None:
    first, second = ball_face(100, 200), ball_face(110, 200, yaw=20)
    smile = np.array([0, -2, 0], np.float32)
    second = replace(second, shape=second.shape * 1.1, vertices=second.shape * 1.1 + smile)
    tracker = Tracker()
    look(tracker, [first])
    (face,) = look(tracker, [second])
    np.testing.assert_allclose(face.shape, (first.shape + second.shape) / 2, atol=1e-3)
    np.testing.assert_allclose(face.vertices, face.shape + smile, atol=1e-3)
    assert face.frame_from_head is second.frame_from_head
    assert face.landmarks is second.landmarks
    assert face.spread_mm is not None
    np.testing.assert_allclose(face.spread_mm, np.linalg.norm(second.shape - first.shape, axis=1) / 2, atol=1e-3)


# Detections beside tracks


def test_a_leap_or_a_sudden_turn_is_doubted(ball_face: MakeFace) -> None:
    track = Track(1, ball_face(100, 100))
    track.update(ball_face(100, 100))
    assert not track.jumped(ball_face(100 + 0.2 * SIDE, 100, yaw=20))
    assert track.jumped(ball_face(100 + 0.3 * SIDE, 100))
    assert not track.jumped(ball_face(100, 100, yaw=24))
    assert track.jumped(ball_face(100, 100, yaw=26))
    assert not track.jumped(ball_face(100, 100, yaw=24, scale=0.65))
    assert track.jumped(ball_face(100, 100, yaw=26, scale=0.65))


def test_a_detection_that_touches_a_face_without_agreeing_says_where_to_look_again(ball_face: MakeFace) -> None:
    faces = [ball_face(100, 100), ball_face(300, 100)]
    agreeing, beside, elsewhere = (square_of(ball_face(x, 100)) for x in (104, 125, 500))
    assert drifted([agreeing, elsewhere], faces) == []
    assert drifted([elsewhere, beside], faces) == [(0, beside)]
    assert drifted([agreeing, beside], faces) == []
    assert drifted([], faces) == []


def test_a_detection_that_is_turned_from_the_face_says_where_to_look_again(ball_face: MakeFace) -> None:
    face = ball_face(100, 100)
    square = square_of(face)
    on_its_side, leaning = replace(square, roll=math.radians(90)), replace(square, roll=math.radians(-30))
    assert drifted([on_its_side], [face]) == [(0, on_its_side)]
    assert drifted([leaning], [face]) == []


def test_who_comes_and_goes_is_said_once(ball_face: MakeFace) -> None:
    tracker = Tracker(forget_after=2)
    tracker.update([], [ball_face(50.0, 50.0), ball_face(300.0, 50.0)], 0.5)
    assert (tracker.entered, tracker.left) == ((1, 2), ())
    first, second = tracker.visible
    tracker.update([(first, ball_face(50.0, 50.0)), (second, replace(ball_face(300.0, 50.0), confidence=0.0))], [], 0.5)
    assert (tracker.entered, tracker.left) == ((), ())
    seen = []
    for _ in range(4):
        tracker.update([(first, ball_face(50.0, 50.0))], [], 0.5)
        seen.append(tracker.left)
    assert seen == [(), (2,), (), ()]

"""Load is reduced in the documented order, and taken back."""

from __future__ import annotations

from pathlib import Path

import pytest
from facerecon_rt.faces.budget import FACE_STEPS, INTERVAL_STEPS, OVER_FRAMES, UNDER_FRAMES, Budget, Shed
from facerecon_rt.faces.pipeline import Pipeline
from facerecon_rt.faces.reconstruct import Reconstructor
from facerecon_rt.faces.track import MOST_SKIPPED, Tracker
from facerecon_rt.sinks.record import record_from_scene
from facerecon_rt.types import Frame

from .conftest import MakeFace, PaintSpots

FOUR = [(0.15, 0.25), (0.6, 0.25), (0.15, 0.75), (0.6, 0.75)]


def after(budget: Budget, frames: int, milliseconds: float) -> Shed:
    for _ in range(frames):
        budget.note(milliseconds)
    return budget.shed


def test_looks_get_rarer_first_and_then_faces_fewer() -> None:
    budget = Budget(10.0)
    seen = [budget.shed, *(after(budget, OVER_FRAMES, 20.0) for _ in range(6))]
    assert [(shed.interval, shed.faces) for shed in seen] == [(1, 1), (2, 1), (4, 1), (8, 1), (8, 2), (8, 4), (8, 8)]


def test_one_slow_frame_is_no_load() -> None:
    budget = Budget(10.0)
    after(budget, 20, 5.0)
    budget.note(40.0)
    assert after(budget, 20, 5.0) == Shed()


def test_where_the_detector_keeps_its_pace_faces_are_skipped_first() -> None:
    budget = Budget(10.0, detector_first=False)
    assert after(budget, OVER_FRAMES, 50.0) == Shed(1, 2)
    assert after(budget, 1000, 50.0) == Shed(1, 2**FACE_STEPS)


def test_it_ends_somewhere_and_comes_back() -> None:
    budget = Budget(10.0)
    assert after(budget, 1000, 50.0) == Shed(8, 2**FACE_STEPS)
    after(budget, 30, 1.0)  # the mean comes down
    assert after(budget, UNDER_FRAMES, 1.0).faces == 2 ** (FACE_STEPS - 1)
    assert after(budget, (INTERVAL_STEPS + FACE_STEPS) * UNDER_FRAMES, 1.0) == Shed()


def test_close_to_the_budget_nothing_changes() -> None:
    budget = Budget(10.0)
    after(budget, OVER_FRAMES, 20.0)
    before = budget.shed
    after(budget, 40, 8.0)
    assert after(budget, 1000, 8.0) == before == Shed(2, 1)


def test_at_least_one_face_is_looked_at() -> None:
    assert [Shed(8, 4).most_faces(count) for count in (0, 1, 4, 5, 9)] == [1, 1, 1, 2, 3]


@pytest.fixture
def reconstructor(model: Path) -> Reconstructor:
    return Reconstructor(model)


def test_a_pipeline_over_its_budget_looks_at_fewer_faces_and_says_so(
    reconstructor: Reconstructor, spots: PaintSpots
) -> None:
    frames = [Frame(spots(256, 192, FOUR), "clip", index, still=False) for index in range(120)]
    with reconstructor:
        generous = [len(scene.faces) for scene in Pipeline(reconstructor, budget_ms=1e6).run(frames[:20])]
        assert generous == [4] * 20
        scenes = list(Pipeline(reconstructor, budget_ms=1e-6).run(frames))
    assert (len(scenes[0].faces), scenes[0].shed) == (4, None)
    assert scenes[-1].shed == {"looks": 8, "faces": 32}
    assert len(scenes[-1].faces) == 1
    assert record_from_scene(scenes[-1], reconstructor.contract.blendshapes)["shed"] == {"looks": 8, "faces": 32}
    assert "shed" not in record_from_scene(scenes[0], reconstructor.contract.blendshapes)


def test_faces_that_are_passed_over_keep_their_numbers_and_cost_no_looks(
    reconstructor: Reconstructor, spots: PaintSpots
) -> None:
    frames = [Frame(spots(256, 192, FOUR), "clip", index, still=False) for index in range(160)]
    with reconstructor:
        pipeline = Pipeline(reconstructor, budget_ms=1e-6)
        scenes = [pipeline.process(frame) for frame in frames]
    assert [scene.entered for scene in scenes if scene.entered] == [(1, 2, 3, 4)]
    (stream,) = pipeline._streams
    assert len(stream.tracker.tracks) == 4
    # The detector runs every 10, 20, 40 and then 80 frames.
    assert sum(scene.stages_ms["detect"] > 0 for scene in scenes) < 8


def test_a_face_that_is_passed_over_for_long_is_forgotten(ball_face: MakeFace) -> None:
    tracker = Tracker()
    tracker.update([], [ball_face(50.0, 50.0), ball_face(300.0, 50.0)], 0.5)
    first, _ = tracker.visible
    for _ in range(MOST_SKIPPED + 30):
        tracker.update([(first, ball_face(50.0, 50.0))], [], 0.5)
    assert [track.number for track in tracker.tracks] == [1]


def test_a_face_that_is_passed_over_and_moves_away_is_the_same_where_it_is_found(ball_face: MakeFace) -> None:
    tracker = Tracker()
    tracker.update([], [ball_face(50.0, 50.0), ball_face(300.0, 50.0)], 0.5)
    first, second = tracker.visible
    for _ in range(8):
        tracker.update([(first, ball_face(50.0, 50.0))], [], 0.5)
    assert second.wide_box[2] > second.box[2] + 0.1 * (second.box[2] - second.box[0])  # it is covered this far
    faces = tracker.update([(first, ball_face(50.0, 50.0))], [ball_face(350.0, 60.0)], 0.5)
    assert [face.track for face in faces] == [1, 2] and tracker.entered == ()
    assert [track.number for track in tracker.tracks] == [1, 2]


def test_a_newcomer_beside_a_face_that_is_passed_over_has_a_number_of_its_own(
    reconstructor: Reconstructor, spots: PaintSpots
) -> None:
    frames = [Frame(spots(256, 192, FOUR), "clip", index, still=False) for index in range(120)]
    newcomer = Frame(spots(256, 192, [*FOUR, (0.75, 0.25)]), "clip", 120, still=False)
    with reconstructor:
        pipeline = Pipeline(reconstructor, budget_ms=1e-6, detect_every=1)
        for frame in frames:
            assert len(pipeline.process(frame).faces) <= 4
        (stream,) = pipeline._streams
        stream.since_detection = 100
        scene = pipeline.process(newcomer)
    assert scene.entered == (5,)

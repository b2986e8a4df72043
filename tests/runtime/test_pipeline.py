"""Frames in, scenes out: the detector runs only when it must, and people keep their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facerecon_rt.align import Square, box_overlap, square_from_camera
from facerecon_rt.errors import UsageError
from facerecon_rt.faces import streams
from facerecon_rt.faces.metric import Intrinsics
from facerecon_rt.faces.pipeline import Pipeline
from facerecon_rt.faces.reconstruct import Reconstructor, off_faces
from facerecon_rt.faces.zones import Zone
from facerecon_rt.networks.ensemble import Network
from facerecon_rt.networks.session import RawFaces
from facerecon_rt.types import Attention, Detection, Event, Face, Floats, Frame, Image, Scene

from .conftest import MakeFace

Box = tuple[int, int, int, int]

LEFT: Box = (20, 40, 120, 140)
RIGHT: Box = (220, 30, 340, 150)


class Lamps:
    """A detector that finds those of its boxes whose middle is bright in the picture, and counts its calls."""

    def __init__(self, *boxes: Box) -> None:
        self.boxes: list[Floats] = [np.array(box, np.float32) for box in boxes]
        self.calls = 0

    def detect(self, image: Image) -> list[Detection]:
        self.calls += 1
        middles = [((box[:2] + box[2:]) / 2).astype(int) for box in self.boxes]
        return [Detection(box, 0.9) for box, (x, y) in zip(self.boxes, middles, strict=True) if image[y, x, 0] > 100]


class Script:
    """A detector with a given answer to each of its calls."""

    def __init__(self, *calls: Sequence[Box]) -> None:
        self.calls = list(calls)

    def detect(self, image: Image) -> list[Detection]:
        return [Detection(np.array(box, np.float32), 0.9) for box in self.calls.pop(0)]


class Counting:
    """A network that notes the number of crops of each run."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.contract, self.provider, self.sha256 = network.contract, network.provider, network.sha256
        self.sizes: list[int] = []

    def run(self, images: Image) -> RawFaces:
        self.sizes.append(len(images))
        return self.network.run(images)


class Widening(Counting):
    """A network whose faces are wider for brighter crops, by up to a fifth."""

    def run(self, images: Image) -> RawFaces:
        raw = super().run(images)
        wider = 1 + images.mean((1, 2, 3)) / 255 / 5
        return replace(raw, shape=raw.shape * np.stack([wider, wider**0, wider**0], -1)[:, None].astype(np.float32))


def picture(*boxes: Box) -> Image:
    """Return a black picture that is bright at the boxes."""
    image = np.zeros((200, 400, 3), np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = 200
    return image


def video(pictures: Sequence[Image], source: str = "talk.mp4") -> list[Frame]:
    return [Frame(image, source, index=i, still=False, fps=25, capture_ms=3) for i, image in enumerate(pictures)]


def tracks(scene: Scene) -> list[int | None]:
    return [face.track for face in scene.faces]


@pytest.fixture
def lamps() -> Lamps:
    return Lamps(LEFT, RIGHT)


@pytest.fixture
def reconstructor(model: Path, lamps: Lamps) -> Iterator[Reconstructor]:
    # The model sees a face in the middle of any crop, so that several crops of a face would not agree.
    with Reconstructor(model, detector=lamps, mirror=False) as opened:
        yield opened


def test_photographs_are_not_tracked(reconstructor: Reconstructor, lamps: Lamps) -> None:
    frames = [Frame(picture(LEFT, RIGHT), f"{i}.jpg") for i in range(3)]
    scenes = list(Pipeline(reconstructor).run(frames))
    assert [tracks(scene) for scene in scenes] == [[None, None]] * 3
    assert lamps.calls == 3


def test_a_tracked_face_is_detected_only_every_so_often(reconstructor: Reconstructor, lamps: Lamps) -> None:
    pipeline = Pipeline(reconstructor, detect_every=5)
    calls = []
    for frame in video([picture(LEFT)] * 11):
        scene = pipeline.process(frame)
        assert tracks(scene) == [1]
        calls.append(lamps.calls)
    assert calls == [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3]


def test_looks_for_more_faces_than_are_wanted_are_rare(reconstructor: Reconstructor, lamps: Lamps) -> None:
    list(Pipeline(reconstructor, detect_every=2, max_faces=1).run(video([picture(LEFT)] * 11)))
    assert lamps.calls == 2
    lamps.calls = 0
    list(Pipeline(reconstructor, detect_every=2, max_faces=2).run(video([picture(LEFT)] * 11)))
    assert lamps.calls == 6


def test_an_empty_frame_is_always_searched(reconstructor: Reconstructor, lamps: Lamps) -> None:
    scenes = list(Pipeline(reconstructor, detect_every=100).run(video([picture()] * 4)))
    assert [scene.faces for scene in scenes] == [()] * 4
    assert lamps.calls == 4


def test_a_newcomer_is_seen_at_the_next_look(reconstructor: Reconstructor) -> None:
    pictures = [picture(LEFT)] * 3 + [picture(LEFT, RIGHT)] * 4
    scenes = list(Pipeline(reconstructor, detect_every=5).run(video(pictures)))
    assert [tracks(scene) for scene in scenes] == [[1]] * 5 + [[1, 2]] * 2


def test_scenes_say_who_enters(reconstructor: Reconstructor) -> None:
    scenes = list(Pipeline(reconstructor, detect_every=2).run(video([picture(LEFT)] * 2 + [picture(LEFT, RIGHT)] * 2)))
    assert [scene.entered for scene in scenes] == [(1,), (), (2,), ()]
    assert [scene.left for scene in scenes] == [()] * 4
    assert next(iter(Pipeline(reconstructor).run([Frame(picture(LEFT), "a.jpg")]))).entered == ()


def test_a_lost_face_is_searched_at_once_and_found_again(reconstructor: Reconstructor, lamps: Lamps) -> None:
    pictures = [picture(LEFT)] * 3 + [picture()] * 2 + [picture(LEFT)] * 3
    scenes = list(Pipeline(reconstructor, detect_every=100).run(video(pictures)))
    assert [tracks(scene) for scene in scenes] == [[1]] * 3 + [[]] * 2 + [[1]] * 3
    # The detector runs on the first frame, the two dark frames, and the frame in which the face is back.
    assert lamps.calls == 4


def test_a_face_that_jumped_away_from_its_track_is_found_in_the_same_frame(model: Path) -> None:
    """The jump is so large that the track's crop is black, and so small that the detection overlaps the track's last
    box."""
    before, after = (70, 20, 170, 120), (118, 20, 218, 120)
    frames = video([picture(before), picture(before), picture((190, 40, 218, 100))])
    script = Script([before], [after])
    with Reconstructor(model, detector=script) as reconstructor:
        scenes = list(Pipeline(reconstructor, detect_every=100).run(frames))
    assert [tracks(scene) for scene in scenes] == [[1], [1], [1]]
    np.testing.assert_allclose(scenes[-1].faces[0].box, after, atol=0.1)


def test_a_track_that_drifted_off_its_face_is_put_back_by_the_detector(model: Path) -> None:
    """The track's crop shows a third of the face and the detector's crop the whole face, so the model is more confident
    of the latter."""
    before, after = (70, 20, 170, 120), (110, 20, 210, 120)
    edge = picture((140, 0, 260, 160)) // 8
    script = Script([before], [after])
    with Reconstructor(model, detector=script) as reconstructor:
        # All frames are dark, because a sudden change of light and shape would be a cut.
        pictures = [picture(before) // 8, edge, edge]
        scenes = list(Pipeline(reconstructor, detect_every=2).run(video(pictures)))
    assert [tracks(scene) for scene in scenes] == [[1], [1], [1]]
    np.testing.assert_allclose(scenes[1].faces[0].box, before, atol=1.5)
    np.testing.assert_allclose(scenes[2].faces[0].box, after, atol=1.5)


def test_a_cut_is_looked_into_at_once_and_begins_a_track(reconstructor: Reconstructor, lamps: Lamps) -> None:
    """Brighter crops give wider faces: the two faces differ by more than a millimetre."""
    reconstructor.network = Widening(reconstructor.network)
    anna, bert = picture(LEFT) // 200 * 255, picture((50, 70, 90, 110), RIGHT)
    anna[50:80, 30:60] = 120
    scenes = list(Pipeline(reconstructor, detect_every=100).run(video([anna] * 4 + [bert] * 3)))
    assert [tracks(scene) for scene in scenes] == [[1]] * 4 + [[2, 3]] * 3
    assert (scenes[4].entered, scenes[4].left) == ((2, 3), (1,))
    assert lamps.calls == 2


def test_a_new_face_is_looked_at_twice_and_a_tracked_one_once(reconstructor: Reconstructor) -> None:
    counting = Counting(reconstructor.network)
    reconstructor.network = counting
    list(Pipeline(reconstructor, detect_every=2).run(video([picture(LEFT, RIGHT)] * 4)))
    assert counting.sizes == [2, 2, 2, 2, 2]


def test_the_largest_faces_are_kept_in_their_order(reconstructor: Reconstructor) -> None:
    pipeline = Pipeline(reconstructor, max_faces=1)
    for still in (True, False):
        (face,) = pipeline.process(Frame(picture(LEFT, RIGHT), "x", still=still)).faces
        np.testing.assert_allclose(face.box, RIGHT, atol=0.1)
    both = Pipeline(reconstructor, max_faces=2).process(Frame(picture(LEFT, RIGHT), "x"))
    assert len(both.faces) == 2


def test_a_near_face_half_outside_does_not_come_before_the_face_in_the_middle(model: Path) -> None:
    inside, outside = (100, 40, 200, 140), (310, 10, 470, 170)
    with Reconstructor(model, detector=Lamps(inside, outside), mirror=False) as reconstructor:
        lit = picture(inside, (310, 10, 400, 170))
        (face,) = Pipeline(reconstructor, max_faces=1).process(Frame(lit, "x")).faces
        assert len(reconstructor.faces(lit)) == 2
    np.testing.assert_allclose(face.box, inside, atol=0.1)


def test_sinks_have_a_scene_before_the_caller_has(reconstructor: Reconstructor) -> None:
    class Memory:
        def __init__(self) -> None:
            self.scenes: list[Scene] = []

        def write(self, scene: Scene) -> None:
            self.scenes.append(scene)

    one, two = Memory(), Memory()
    for scene in Pipeline(reconstructor).run(video([picture(LEFT)] * 2), [one, two]):
        assert one.scenes[-1] is two.scenes[-1] is scene
    assert len(one.scenes) == 2


def test_every_source_has_its_own_people(reconstructor: Reconstructor) -> None:
    pipeline = Pipeline(reconstructor)
    here, there = video([picture(LEFT)] * 3, "cam0"), video([picture(RIGHT)] * 3, "cam1")
    for one, two in zip(here, there, strict=True):
        assert tracks(pipeline.process(one)) == [1]
        assert tracks(pipeline.process(two)) == [1]


def test_the_tracks_of_many_videos_are_not_all_kept(
    reconstructor: Reconstructor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "IDLE_FRAMES", 20)
    pipeline = Pipeline(reconstructor)
    live = video([picture(LEFT)] * 40, "cam0")
    for number in range(40):
        pipeline.process(video([picture(LEFT)], f"{number}.mp4")[0])
        # A source that keeps sending frames is not forgotten.
        (face,) = pipeline.process(live[number]).faces
        assert face.track == 1
    seen = [stream.tracker.tracks[0].seen for stream in pipeline._streams]
    assert sorted(seen) == [1] * (20 // 2) + [40]


def test_faces_of_several_cameras_are_one_run_and_the_same_as_alone(model: Path) -> None:
    lamps = Lamps(LEFT, RIGHT)
    cameras = [video([picture(*lit)] * 4, f"cam{number}") for number, lit in enumerate(([LEFT], [LEFT, RIGHT], []))]
    with Reconstructor(model, detector=lamps) as reconstructor:
        alone = [list(Pipeline(reconstructor, detect_every=100).run(frames)) for frames in cameras]
        counting = reconstructor.network = Counting(reconstructor.network)
        pipeline = Pipeline(reconstructor, detect_every=100)
        together = [pipeline.process_together(group) for group in zip(*cameras, strict=True)]
    # Detected faces take two runs over all cameras, and tracked faces one.
    assert counting.sizes[-3:] == [3, 3, 3]
    for number, scenes in enumerate(alone):
        for scene, group in zip(scenes, together, strict=True):
            assert group[number].frame is scene.frame
            assert tracks(group[number]) == tracks(scene)
            for face, same in zip(group[number].faces, scene.faces, strict=True):
                np.testing.assert_allclose(face.landmarks, same.landmarks, atol=1e-3)


def test_no_camera_is_forgotten_while_it_runs_however_many_there_are(reconstructor: Reconstructor) -> None:
    pipeline = Pipeline(reconstructor, detect_every=1000)
    cameras = [video([picture(LEFT)] * 3, f"cam{number}") for number in range(40)]
    for number in range(3):
        for camera in cameras:
            assert tracks(pipeline.process(camera[number])) == [1]
    assert [stream.tracker.tracks[0].seen for stream in pipeline._streams] == [3] * 40


@pytest.mark.parametrize("lens", [Intrinsics(600, 600, 200, 100), 60.0], ids=["matrix", "field of view"])
def test_with_a_lens_faces_are_somewhere(reconstructor: Reconstructor, lens: Intrinsics | float) -> None:
    pipeline = Pipeline(reconstructor, lens=lens)
    for frame in (*video([picture(LEFT)] * 2), Frame(picture(LEFT), "a.jpg")):
        (face,) = pipeline.process(frame).faces
        assert face.camera_from_head is not None
        assert 100 < face.camera_from_head[2, 3] < 3000
    (face,) = Pipeline(reconstructor).process(frame).faces
    assert face.camera_from_head is None


def test_smoothing_is_for_tracks_and_comes_by_name(reconstructor: Reconstructor) -> None:
    pipeline = Pipeline(reconstructor, smooth="high")
    for frame in (*video([picture(LEFT)] * 3), Frame(picture(LEFT), "a.jpg")):
        assert len(pipeline.process(frame).faces) == 1
    (stream,) = pipeline._streams
    assert stream.smoother is not None
    with pytest.raises(UsageError, match="unknown smoothing 'much'; choose from off, low, high"):
        Pipeline(reconstructor, smooth="much")


def test_after_a_loss_whoever_is_there_is_somebody_new(reconstructor: Reconstructor) -> None:
    pipeline = Pipeline(reconstructor)
    seen = []
    for index, time_s in enumerate((0.0, 0.1, 0.2, 30.0, 30.1)):
        frame = Frame(picture(LEFT), "rtsp://host/door", index, time_s, still=False, live=True)
        seen.append(tracks(pipeline.process(frame)))
    assert seen == [[1], [1], [1], [2], [2]]
    # Another camera under the same name begins anew.
    frame = Frame(picture(LEFT), "rtsp://host/door", 0, 0.1, still=False, live=True)
    assert tracks(pipeline.process(frame)) == [3]
    # In a file the same gap is a slow film.
    film = [Frame(picture(LEFT), "slow.mp4", index, 30.0 * index, still=False) for index in range(3)]
    assert [tracks(scene) for scene in Pipeline(reconstructor).run(film)] == [[1]] * 3


def test_a_loss_ends_tracks_and_their_events(reconstructor: Reconstructor) -> None:
    pipeline = Pipeline(reconstructor, attention=[Zone("anywhere")])
    scenes = []
    for index, time_s in enumerate((0.0, 0.1, 30.0, 30.1, 30.2)):
        frame = Frame(picture(LEFT), "rtsp://host/door", index, time_s, still=False, live=True)
        scenes.append(pipeline.process(frame))
    assert [(scene.entered, scene.left) for scene in scenes] == [((1,), ()), ((), ()), ((2,), (1,)), ((), ()), ((), ())]
    told = [(event.phase, event.track, event.time_s) for scene in scenes for event in scene.events]
    assert told == [("begin", 1, 0.0), ("end", 1, 0.1), ("begin", 2, 30.0)]


def test_no_number_is_given_twice_to_a_camera_that_was_away(
    reconstructor: Reconstructor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "IDLE_FRAMES", 5)
    pipeline = Pipeline(reconstructor)
    (first,) = pipeline.process(video([picture(LEFT)], "cam0")[0]).faces
    for frame in video([picture(LEFT)] * 10, "cam1"):
        pipeline.process(frame)
    (again,) = pipeline.process(video([picture(LEFT)], "cam0")[0]).faces
    assert (first.track, again.track) == (1, 2)


def test_a_scene_says_how_it_was_made_and_where_the_time_went(reconstructor: Reconstructor) -> None:
    (frame,) = video([picture(LEFT)])
    scene = Pipeline(reconstructor).process(frame)
    assert scene.frame is frame
    assert (scene.provider, scene.precision, scene.model) == ("cpu", "fp32", reconstructor.network.sha256)
    assert list(scene.stages_ms) == ["capture", "detect", "align", "infer", "post"]
    assert scene.stages_ms["capture"] == 3
    assert all(milliseconds > 0 for milliseconds in scene.stages_ms.values())


def test_the_identity_settles_over_a_video(reconstructor: Reconstructor) -> None:
    """The tiny model's face grows with the brightness. The averaged face grows half as much over two frames."""
    dark, bright = picture(LEFT), picture(LEFT)
    bright[bright > 0] = 255
    scenes = list(Pipeline(reconstructor).run(video([dark, bright])))
    (first,), (second,) = (scene.faces for scene in scenes)
    (alone,) = reconstructor.faces(bright)
    np.testing.assert_allclose(second.shape, (first.shape + alone.shape) / 2, atol=1e-3)
    np.testing.assert_allclose(second.landmarks, alone.landmarks, atol=1e-2)


class Present:
    """A watch whose only event is that a face is there: from its first frame until its track or the source ends."""

    def __init__(self, zones: Sequence[Zone]) -> None:
        self.since: dict[int, float] = {}
        self.time_s = 0.0

    def __call__(
        self, faces: Sequence[Face], time_s: float, left: Sequence[int] = ()
    ) -> tuple[dict[int | None, Attention], tuple[Event, ...]]:
        self.time_s = time_s
        new = [face.track for face in faces if face.track is not None and face.track not in self.since]
        self.since |= dict.fromkeys(new, time_s)
        return {}, tuple(Event("there", "begin", track, time_s, time_s) for track in new)

    def end(self) -> tuple[Event, ...]:
        since, self.since = self.since, {}
        return tuple(Event("there", "end", track, self.time_s, began) for track, began in since.items())


def test_a_limit_of_faces_leaves_the_others_out_of_everything(
    reconstructor: Reconstructor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other face is still tracked, and covered in pictures."""
    monkeypatch.setattr(streams, "Watch", Present)
    frames = video([picture(LEFT, RIGHT)] * 10 + [picture()] * 40)
    told: dict[int | None, set[int | None]] = {}
    for limit in (None, 1):
        pipeline = Pipeline(reconstructor, detect_every=1, max_faces=limit, attention=[])
        scenes = list(pipeline.run(frames))
        shown = {track for scene in scenes for track in tracks(scene)}
        assert {number for scene in scenes for number in scene.entered} == shown
        assert {number for scene in scenes for number in scene.left} == shown
        assert {event.track for scene in scenes for event in scene.events} == shown
        assert len(scenes[5].elsewhere) == 2 - len(shown)
        told[limit] = shown
    assert told[None] == {1, 2} and len(told[1]) == 1


def test_events_that_run_at_the_end_end_for_sinks_that_take_events(
    reconstructor: Reconstructor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "Watch", Present)

    class Notes:
        def __init__(self) -> None:
            self.events: list[Scene] = []

        def write(self, scene: Scene) -> None:
            pass

        def write_events(self, scene: Scene) -> None:
            self.events.append(scene)

    for count in (10, 4):  # to the end, and until the caller stops
        notes = Notes()
        pipeline = Pipeline(reconstructor, attention=[])
        frames = [replace(frame, time_s=frame.index / 25) for frame in video([picture(LEFT)] * 10)]
        scenes = pipeline.run(frames, [notes])
        for _ in range(count):
            next(scenes)
        scenes.close()
        (last,) = notes.events
        (event,) = last.events
        assert (event.phase, event.track, event.time_s) == ("end", 1, (count - 1) / 25)
        assert (last.frame.source, last.frame.index, last.faces) == ("talk.mp4", count - 1, ())
        assert not last.frame.image.size, "a picture is not kept"
        assert pipeline.ends() == [], "an end is told once"
    # One video ends where the next one begins.
    notes = Notes()
    pipeline = Pipeline(reconstructor, attention=[])
    ends = []
    for scene in pipeline.run([*video([picture(LEFT)] * 4), *video([picture(LEFT)] * 4, "b.mp4")], [notes]):
        ends.append([one.frame.source for one in notes.events])
        assert scene.faces
    assert ends == [[]] * 5 + [["talk.mp4"]] * 3
    assert [one.frame.source for one in notes.events] == ["talk.mp4", "b.mp4"]


def test_ends_of_events_hide_no_error(reconstructor: Reconstructor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sinks may be closed already, or have failed before."""
    monkeypatch.setattr(streams, "Watch", Present)

    class Broken:
        def write(self, scene: Scene) -> None:
            if scene.frame.index == 2:
                raise BrokenPipeError

        def write_events(self, scene: Scene) -> None:
            raise ValueError("I/O operation on closed file")

    frames = video([picture(LEFT)] * 4)
    with pytest.raises(BrokenPipeError):
        list(Pipeline(reconstructor, attention=[]).run(frames, [Broken()]))
    scenes = Pipeline(reconstructor, attention=[]).run(frames[:2], [Broken()])
    next(scenes)
    scenes.close()
    with pytest.raises(ValueError, match="closed file"):
        list(Pipeline(reconstructor, attention=[]).run(frames[:2], [Broken()]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_faces": 0}, "at least 1"),
        ({"budget_ms": 0.0}, "above 0"),
        ({"budget_ms": -1.0}, "above 0"),
        ({"lens": 200.0}, "field of view"),
        ({"lens": float("nan")}, "field of view"),
    ],
)
def test_options_without_a_meaning_are_refused_at_once(
    reconstructor: Reconstructor, options: dict[str, float], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Pipeline(reconstructor, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.float32)])
@pytest.mark.parametrize("still", [True, False])
def test_a_frame_that_is_no_picture_is_refused(reconstructor: Reconstructor, image: Image, still: bool) -> None:
    with pytest.raises(UsageError, match="give uint8"):
        Pipeline(reconstructor).process(Frame(image, "x", still=still))


@pytest.mark.parametrize("busy", [False, True], ids=["a limit of faces", "an exceeded budget"])
def test_where_faces_are_covered_a_newcomer_is_found_in_the_first_frame(model: Path, busy: bool) -> None:
    """Neither the limit nor the budget may let the detector pause: an uncovered face cannot be taken back."""
    lamps = Lamps(LEFT, RIGHT)
    with Reconstructor(model, detector=lamps, hints=True) as reconstructor:
        limits: dict[str, Any] = {"budget_ms": 0.001} if busy else {"max_faces": 1}
        pipeline = Pipeline(reconstructor, detect_every=1, **limits)
        frames = video([picture(LEFT)] * 60 + [picture(LEFT, RIGHT)])
        *_, before, scene = [pipeline.process(frame) for frame in frames]
    assert lamps.calls == len(frames)
    assert before.elsewhere == ()
    boxes = [face.box for face in scene.faces] + list(scene.elsewhere)
    assert any(box_overlap(box, np.array(RIGHT, np.float32)) > 0.4 for box in boxes)


def test_a_file_that_is_read_again_begins_with_new_tracks(reconstructor: Reconstructor) -> None:
    pipeline = Pipeline(reconstructor, smooth="high")
    scenes = [pipeline.process(frame) for _ in range(2) for frame in video([picture(LEFT)] * 4, "a.mp4")]
    assert [tracks(scene) for scene in scenes] == [[1]] * 4 + [[2]] * 4
    assert (scenes[4].entered, scenes[4].left) == ((2,), (1,))
    np.testing.assert_array_equal(scenes[4].faces[0].landmarks, scenes[0].faces[0].landmarks)


def test_a_slow_camera_is_tracked_once_its_rate_is_known(reconstructor: Reconstructor) -> None:
    pipeline = Pipeline(reconstructor)
    seen = []
    for index, time_s in enumerate((0.0, 10.0, 20.0, 32.0, 40.0, 100.0)):  # the last after a loss
        frame = Frame(picture(LEFT), "cam0", index, time_s, still=False, live=True)
        seen.append(tracks(pipeline.process(frame)))
    assert seen == [[1], [2], [2], [2], [2], [3]]


def test_a_slow_camera_is_not_forgotten_beside_fast_ones(
    reconstructor: Reconstructor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "IDLE_FRAMES", 5)
    pipeline = Pipeline(reconstructor)

    def at(source: str, index: int, time_s: float) -> list[int | None]:
        frame = Frame(picture(LEFT), source, index, time_s, captured_at=9.0 + time_s, still=False, live=True)
        return tracks(pipeline.process(frame))

    assert at("slow", 0, 0.0) == [1]
    for index in range(20):
        at("fast", index, index / 20)
    assert at("slow", 1, 1.0) == [1]
    for index in range(20, 40):
        at("fast", index, 7000.0 + index)
    assert len(list(pipeline._streams)) == 1  # it has gone for good


def test_a_lost_camera_ends_its_events_and_is_told_to_sinks_of_events(reconstructor: Reconstructor) -> None:
    class Notes:
        def __init__(self) -> None:
            self.events: list[Scene] = []

        def write(self, scene: Scene) -> None:
            pass

        def write_events(self, scene: Scene) -> None:
            self.events.append(scene)

    frames = [Frame(picture(LEFT), "cam0", index, index / 25, still=False, live=True) for index in range(4)]
    groups = [[frames[0]], [frames[1]], [], [frames[2]], [frames[3]]]
    losses = iter([[], [], ["cam0", "unknown"], [], []])
    notes = Notes()
    scenes = list(
        Pipeline(reconstructor, attention=[Zone("anywhere")]).run_together(groups, [notes], lambda: next(losses))
    )
    assert [tracks(scene) for scene in scenes] == [[1]] * 4
    lost, end = notes.events
    assert (lost.lost, lost.frame.index, lost.frame.image.size, lost.faces) == (True, 1, 0, ())
    assert [(event.phase, event.time_s) for event in lost.events] == [("end", 1 / 25)]
    assert not end.lost


def test_a_detection_that_sticks_out_of_its_face_is_covered_too(ball_face: MakeFace) -> None:
    face = ball_face(80, 60)
    square = square_from_camera(face.frame_from_head)
    beside = Square(square.x + 0.3 * square.side, square.y, square.side)
    (box,) = off_faces([square, beside], [face])
    assert 0.3 < box_overlap(box, face.box) < 1 and box[2] > face.box[2]

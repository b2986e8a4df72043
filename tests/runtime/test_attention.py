"""Attention: openness, blinks, PERCLOS, yawns, speech, zones and drowsiness of faces whose lids and lips are known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from facerecon_rt.cli import main
from facerecon_rt.errors import UsageError
from facerecon_rt.faces.attention import BIN_S, SPEAKS, WINDOW_S, Shares, Watch
from facerecon_rt.faces.lids_and_lips import (
    SPEECH_QUIET,
    SPEECH_SURE,
    SPEECH_WINDOW_S,
    START,
    LipMotion,
    OpenLevel,
    aspect_ratios,
    distances,
)
from facerecon_rt.faces.pipeline import Pipeline
from facerecon_rt.faces.reconstruct import Reconstructor
from facerecon_rt.faces.zones import Zone, zone_from_text
from facerecon_rt.pose import rotation_from_euler
from facerecon_rt.sinks.record import event_records, record_from_scene
from facerecon_rt.sources.files import open_source
from facerecon_rt.template import load_template
from facerecon_rt.types import Attention, Event, Face, Floats, Frame, Scene

from ..conftest import ROOT

CLIP = ROOT / "tests" / "data" / "talking_head.mp4"


def mesh(openness: float = 1.0, lips: float = 0.0) -> Floats:
    """A mesh (V, 3) whose eyes are 30 mm wide and 10 mm open at openness 1, and whose mouth is 50 mm wide."""
    template = load_template()
    points = np.zeros((68, 3), np.float32)
    for first in (36, 42):
        points[first : first + 6, :2] = [[0, 0], [10, 5], [20, 5], [30, 0], [20, -5], [10, -5]]
        points[first : first + 6, 1] *= openness
    points[[60, 64], 0] = 0, 50
    points[[62, 66], 1] = 25 * lips, -25 * lips
    vertices = np.zeros((template.vertex_count, 3), np.float32)
    vertices[template.landmarks] = points
    return vertices


def face(
    openness: float = 1.0,
    *,
    lips: float = 0.0,
    yaw: float = 0.0,
    pitch: float = 0.0,
    gaze: Floats | None = None,
    track: int = 1,
) -> Face:
    camera = np.column_stack([rotation_from_euler(pitch, yaw, 12.0) * 2.0, [100, 100, 0]]).astype(np.float32)
    return Face(
        shape=mesh(1 / START),  # its open level is START of this
        vertices=mesh(openness, lips),
        expression=np.zeros(53, np.float32),
        frame_from_head=camera,
        landmarks=np.zeros((68, 3), np.float32),
        confidence=0.9,
        box=np.array([0, 0, 10, 10], np.float32),
        track=track,
        gaze=gaze,
    )


class Film:
    """Faces at a frame rate, one after the other."""

    def __init__(self, *zones: Zone, fps: float = 50.0) -> None:
        self.watch = Watch(zones)
        self.fps = fps
        self.frames = 0
        self.events: list[Event] = []

    @property
    def time_s(self) -> float:
        return self.frames / self.fps

    def show(self, make: Callable[[float], Face], seconds: float) -> Face:
        """Show the face that `make` gives for the seconds since now."""
        begin = self.time_s
        for _ in range(round(seconds * self.fps)):
            seen = make(self.time_s - begin)
            attention, events = self.watch([seen], self.time_s)
            last = replace(seen, attention=attention[seen.track])
            self.events += events
            self.frames += 1
        return last

    def told(self, kind: str) -> list[tuple[str, float]]:
        return [(event.phase, round(event.time_s, 2)) for event in self.events if event.kind == kind]


def awake(_: float = 0.0) -> Face:
    return face()


def blink(at_s: float, half_s: float = 0.1) -> Callable[[float], Face]:
    """Lids that close and open again linearly, and are shut at `at_s`."""
    return lambda t: face(min(1.0, abs(t - at_s) / half_s))


def test_the_aspect_ratio_is_the_lid_gap_by_the_eye_width() -> None:
    assert aspect_ratios(distances(mesh())) == pytest.approx((1 / 3, 1 / 3))
    assert aspect_ratios(distances(mesh(0.25))) == pytest.approx((1 / 12, 1 / 12))


@pytest.mark.parametrize("turn", [-40.0, 0.0, 35.0])
def test_openness_is_a_share_of_the_persons_own_open_eyes(turn: float) -> None:
    film = Film()
    shown = film.show(lambda t: face(0.5, yaw=turn), 0.5)
    assert shown.attention is not None
    assert shown.attention.eyes_open == pytest.approx((0.5, 0.5), abs=0.01), "before anything is known of the person"
    narrow = Film()
    narrow.show(lambda t: face(0.85, yaw=turn), 6)  # open eyes that are narrower than the shape says
    shown = narrow.show(lambda t: face(0.425, yaw=turn), 0.1)
    assert shown.attention is not None and shown.attention.eyes_open == pytest.approx((0.5, 0.5), abs=0.01)


def test_a_winking_eye_is_told_apart() -> None:
    wink = face()
    vertices = wink.vertices.copy()
    left = load_template().landmarks[42:48]
    vertices[left, 1] = 0
    attention, events = Watch()([replace(wink, vertices=vertices)], 0.0)
    assert attention[wink.track].eyes_open == pytest.approx((0.0, 1.0), abs=0.01)
    assert events == ()


@pytest.mark.parametrize("fps", [25.0, 30.0, 60.0])
def test_a_blink_has_the_duration_it_has_at_any_frame_rate(fps: float) -> None:
    film = Film(fps=fps)
    film.show(awake, 4)
    film.show(blink(0.5), 2)
    (event,) = film.events
    # Openness falls below 0.6 at 0.06 s before it is shut, and rises above 0.65 at 0.065 s after.
    assert (event.kind, event.phase, event.track) == ("blink", "end", 1)
    assert event.began_s == pytest.approx(4.44, abs=0.25 / fps)
    assert event.time_s - event.began_s == pytest.approx(0.125, abs=0.4 / fps)


def test_a_squint_is_no_blink_and_a_long_closure_is_closed_eyes() -> None:
    film = Film()
    film.show(awake, 3)
    film.show(lambda t: face(0.55), 0.3)
    film.show(awake, 1)
    assert film.events == []
    film.show(lambda t: face(0.05), 1.2)
    film.show(awake, 1)
    (begin, end) = film.events
    assert (begin.kind, begin.phase, end.kind, end.phase) == ("eyes_closed", "begin", "eyes_closed", "end")
    assert begin.began_s == pytest.approx(4.3, abs=0.02) and end.time_s - end.began_s == pytest.approx(1.2, abs=0.03)


def test_perclos_and_blink_rate_count_the_last_minute() -> None:
    film = Film()
    shown = film.show(awake, 15)
    assert shown.attention is not None and shown.attention.perclos is None
    for _ in range(6):  # one 0.4 s closure, of which 0.3 s are below 20 %, every 4 s: as if pressed shut
        film.show(lambda t: face(float(np.clip(abs(t - 0.2) / 0.75 - 0.0, 0, 1)) if t < 0.3 else 1.0), 0.3)
        shown = film.show(awake, 3.7)
    assert shown.attention is not None and shown.attention.perclos is not None
    # The eyes are below 20 % while |t - 0.2| < 0.15.
    assert shown.attention.perclos == pytest.approx(6 * 0.25 / 39, abs=0.006)
    assert shown.attention.blinks_per_min == pytest.approx(60 * 6 / 39, abs=0.1)
    shown = film.show(awake, 61)
    assert shown.attention is not None and shown.attention.perclos == pytest.approx(0.0, abs=1e-9)
    assert shown.attention.blinks_per_min == 0


def test_a_yawn_is_a_mouth_that_stays_wide_open() -> None:
    film = Film()
    film.show(awake, 1)
    film.show(lambda t: face(lips=0.7), 1.0)
    film.show(awake, 1)
    assert film.told("yawn") == []
    shown = film.show(lambda t: face(lips=0.7), 4.0)
    assert shown.attention is not None and shown.attention.yawning
    film.show(awake, 1)
    assert film.told("yawn") == [("begin", 3.0), ("end", 7.0)]
    ends = [event for event in film.events if event.kind == "yawn" and event.phase == "end"]
    assert ends[0].began_s == pytest.approx(3.0, abs=0.03)


def test_lips_that_open_and_close_speak_and_lips_that_stay_or_open_once_do_not() -> None:
    film = Film()
    for still in (lambda t: face(lips=0.3), lambda t: face(lips=min(0.45, 0.15 * t))):
        assert film.show(still, 3).attention.speaking < 0.1  # type: ignore[union-attr]
    shown = film.show(lambda t: face(lips=0.1 + 0.1 * float(np.sin(2 * np.pi * 4 * t))), 3)
    # 4 syllables a second of 0.2 widths each way: 1.6 widths per second.
    assert shown.attention is not None and shown.attention.speaking == 1.0
    film.show(awake, 3)
    assert [phase for phase, _ in film.told("speaking")] == ["begin", "end"]


ROAD, MIRROR = Zone("road", (-15, 15), (-10, 10)), Zone("mirror", (30, 60))


def test_the_likelihood_of_speech_counts_the_last_moments_alone_after_an_hour_too() -> None:
    rng = np.random.default_rng(3)
    times, gaps = np.arange(90_000) / 25, rng.uniform(0, 0.05, 90_000)
    lips = LipMotion()
    for time_s, gap in zip(times.tolist(), gaps.tolist(), strict=True):
        lips.add(gap, time_s)
    steps = np.diff(gaps)[times[1:] >= times[-1] - SPEECH_WINDOW_S]
    speed = 2 * min(steps[steps > 0].sum(), -steps[steps < 0].sum()) / SPEECH_WINDOW_S
    lips_sure = (speed - SPEECH_QUIET) / (SPEECH_SURE - SPEECH_QUIET)
    assert 0.1 < lips_sure < 0.9 and lips.likelihood == pytest.approx(lips_sure, abs=1e-9)


def test_eyes_off_the_road_are_an_event_after_two_seconds() -> None:
    film = Film(ROAD, MIRROR)
    shown = film.show(awake, 2)
    assert shown.attention is not None
    assert (shown.attention.zone, shown.attention.off_zone_s, shown.attention.origin) == ("road", 0.0, "head")
    film.show(lambda t: face(yaw=-25), 0.1)  # too short a glance to count
    film.show(awake, 0.9)
    shown = film.show(lambda t: face(yaw=5, pitch=-30), 3)
    assert shown.attention is not None and shown.attention.zone is None
    assert shown.attention.off_zone_s == pytest.approx(2.98, abs=0.03)
    film.show(lambda t: face(yaw=40, pitch=5), 2)
    assert film.told("off_zone") == [("begin", 3.0), ("end", 6.0)]
    zones = [(event.phase, event.name, round(event.time_s, 1)) for event in film.events if event.kind == "zone"]
    assert zones == [("begin", "road", 0.0), ("end", "road", 3.0), ("begin", "mirror", 6.0)]


def test_gaze_counts_before_the_head_and_closed_eyes_keep_it() -> None:
    film = Film(ROAD)
    ahead = np.array([[0, 0, 1], [0, 0, 1]], np.float32)
    turned = np.array([[np.sin(0.7), 0, np.cos(0.7)]] * 2, np.float32)  # 40 degrees to the subject's left
    film.show(lambda t: face(yaw=0, gaze=ahead), 4)
    shown = film.show(lambda t: face(gaze=turned), 1)
    assert shown.attention is not None
    assert (shown.attention.origin, shown.attention.zone) == ("gaze", None)
    assert np.hypot(*shown.attention.direction) == pytest.approx(np.degrees(0.7), abs=0.2)
    film.show(lambda t: face(gaze=ahead), 1)
    shown = film.show(lambda t: face(0.05, gaze=turned), 0.4)
    assert shown.attention is not None and shown.attention.zone == "road"


def test_half_closed_eyes_look_where_they_look() -> None:
    film = Film(ROAD)
    ahead, turned = (np.array([[np.sin(a), 0, np.cos(a)]] * 2, np.float32) for a in (0, 0.7))
    film.show(lambda t: face(gaze=ahead), 2)
    shown = film.show(lambda t: face(0.55, gaze=turned), 3)
    assert shown.attention is not None and shown.attention.zone is None
    assert film.told("off_zone") == [("begin", 2.0)]


@pytest.mark.parametrize("origin", ["gaze", "head"])
def test_eyes_that_stay_closed_look_at_nothing(origin: str) -> None:
    film = Film(ROAD)
    gaze = np.array([[0, 0, 1]] * 2, np.float32) if origin == "gaze" else None
    film.show(lambda t: face(gaze=gaze), 2)
    film.show(lambda t: face(0.05, gaze=gaze), 3)
    film.show(lambda t: face(gaze=gaze), 2)
    zones = [(event.phase, event.name, round(event.time_s, 1)) for event in film.events if event.kind == "zone"]
    assert zones == [("begin", "road", 0.0), ("end", "road", 2.5), ("begin", "road", 5.0)]
    assert film.told("off_zone") == [("begin", pytest.approx(2.5, abs=0.05)), ("end", 5.0)]


def test_drowsiness_rises_at_once_and_falls_late() -> None:
    film = Film(fps=25)
    shown = film.show(awake, 25)
    assert shown.attention is not None and shown.attention.drowsiness == "alert"
    film.show(lambda t: face(0.05), 2.0)  # a microsleep
    (rise,) = [event for event in film.events if event.kind == "drowsiness"]
    assert (rise.phase, rise.name) == ("begin", "drowsy") and rise.time_s == pytest.approx(26.5, abs=0.08)
    assert film.show(awake, 25).attention.drowsiness == "drowsy"  # type: ignore[union-attr]
    assert film.show(awake, 20).attention.drowsiness == "tired"  # type: ignore[union-attr]
    assert film.show(awake, 40).attention.drowsiness == "alert"  # type: ignore[union-attr]


def test_drowsiness_that_begins_in_a_faces_last_frame_is_no_event() -> None:
    film = Film(fps=25)
    film.show(awake, 1)
    shown = awake()
    while shown.attention is None or shown.attention.drowsiness != "drowsy":
        shown = film.show(lambda t: face(0.05), 0.04)
    film.events += film.watch([], film.time_s, left=(1,))[1]
    assert film.told("drowsiness") == []


def test_drowsiness_that_outlasts_a_gap_is_told_again() -> None:
    film = Film(fps=25)
    film.show(awake, 1)
    film.show(lambda t: face(0.05), 2)
    assert [phase for phase, _ in film.told("drowsiness")] == ["begin"]
    film.frames += 50  # two seconds unseen
    shown = film.show(awake, 1)
    assert shown.attention is not None and shown.attention.drowsiness == "drowsy"
    assert film.told("drowsiness")[1:] == [("end", 2.96), ("begin", 5.0)]


def test_eyes_that_are_shut_a_tenth_of_the_time_are_tired() -> None:
    film = Film(fps=25)
    for _ in range(10):
        shown = film.show(lambda t: face(0.1 if t < 0.4 else 1.0), 4)
    assert shown.attention is not None and shown.attention.perclos == pytest.approx(0.1, abs=0.012)
    assert shown.attention.drowsiness == "tired"


def test_a_face_of_one_frame_has_no_events_of_no_length() -> None:
    film = Film(ROAD, fps=1)  # every frame comes after a gap
    film.show(awake, 5)
    assert film.events == [] and film.watch([], film.time_s, left=(1,))[1] == ()
    film = Film(ROAD, fps=4)
    film.show(awake, 0.25)
    assert film.events == []
    film.show(awake, 0.25)
    film.events += film.watch([], film.time_s, left=(1,))[1]
    assert [(event.phase, event.time_s, event.began_s) for event in film.events] == [("begin", 0, 0), ("end", 0.25, 0)]


def test_speech_that_is_cut_off_where_it_begins_is_no_event() -> None:
    def talking(t: float) -> Face:
        return face(lips=0.2 if int(t * 10) % 2 else 0.0)

    film = Film()
    shown = awake()
    while shown.attention is None or shown.attention.speaking <= SPEAKS:
        shown = film.show(lambda t: talking(film.time_s), 0.02)
    assert film.told("speaking") == []
    film.frames += 100  # two seconds unseen
    film.show(awake, 0.1)
    assert film.told("speaking") == []


@pytest.mark.parametrize("repeats", [1, 2, 5])
def test_frames_of_one_time_change_nothing(repeats: int) -> None:
    """A camera may give two frames the same time, or one frame twice."""
    film, ahead = Film(ROAD, fps=25), np.array([[0, 0, 1], [0, 0, 1]], np.float32)
    mouth = np.random.default_rng(0).uniform(0, 0.2, 2000)

    def show(openness: float, yaw: float) -> Attention:
        for _ in range(repeats):
            lips = mouth[film.frames] if film.frames < 100 else 0.0
            seen = face(openness, lips=lips, yaw=yaw, gaze=ahead)
            found, events = film.watch([seen], film.time_s)
            film.events += events
        film.frames += 1
        return found[1]

    for index in range(1700):
        phase = index % 50
        last = show(0.1 if phase < 5 else 1.0, 40.0 if index >= 1610 else 0.0)
    blinks = [event for event in film.events if event.kind == "blink"]
    assert len(blinks) == 34 and all(0.1 < event.time_s - event.began_s < 0.25 for event in blinks)
    # Five frames of 50 are shut, over the last minute.
    assert last.perclos == pytest.approx(0.1, abs=0.003)
    assert last.blinks_per_min == pytest.approx(30, abs=0.6)
    assert [phase for phase, _ in film.told("speaking")] == ["begin", "end"]
    assert film.told("off_zone") == [("begin", 64.4)]
    assert all(event.time_s > event.began_s for event in film.events if event.phase == "end")


def test_a_blink_or_a_look_within_one_time_is_no_event() -> None:
    watch = Watch((ROAD,))
    told: list[Event] = []
    for time_s, openness, yaw in (
        (0.0, 1.0, 0.0),  # on the road, and at the same time not
        (0.0, 1.0, 40.0),
        *((0.04 * index, 1.0, 40.0) for index in range(1, 20)),
        (0.8, 0.05, 40.0),  # shut and open at the same time
        (0.8, 1.0, 40.0),
        (0.8, 0.05, 40.0),
        (0.8, 1.0, 40.0),
        (0.84, 1.0, 40.0),
    ):
        found, events = watch([face(openness, yaw=yaw)], time_s)
        told += events
    assert [event for event in told if event.phase == "end" and event.time_s <= event.began_s] == []
    assert [event.kind for event in told if event.kind != "blink"] == []
    assert found[1].off_zone_s == pytest.approx(0.84)


def test_a_face_that_leaves_ends_its_events_and_a_gap_counts_for_nothing() -> None:
    film = Film(ROAD)
    film.show(awake, 1)
    film.show(lambda t: face(0.05), 0.6)
    _, events = film.watch([], film.time_s, left=(1,))
    assert {(event.kind, event.phase) for event in events} == {("eyes_closed", "end"), ("zone", "end")}
    assert film.watch([], 99.0, left=(1,))[1] == ()
    film = Film()
    film.show(awake, 1)
    film.show(lambda t: face(0.05), 0.2)
    film.frames += 100  # two seconds unseen
    film.show(awake, 1)
    assert film.events == []


def test_people_are_watched_apart() -> None:
    watch = Watch()
    for index in range(200):
        faces = [face(track=1), face(0.05 if 100 <= index < 110 else 1.0, track=2)]
        _, events = watch(faces, index / 50)
        for event in events:
            assert (event.kind, event.track) == ("blink", 2)
            return
    pytest.fail("no blink")


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("road=yaw:-15..15,pitch:-10..10", Zone("road", (-15, 15), (-10, 10))),
        ("left_mirror=yaw:20.5..60", Zone("left_mirror", (20.5, 60))),
        ("phone=pitch:-60..-25", Zone("phone", pitch=(-60, -25))),
    ],
)
def test_a_zone_is_read(text: str, zone: Zone) -> None:
    assert zone_from_text(text) == zone


@pytest.mark.parametrize(
    "text", ["road", "road=", "=yaw:0..1", "a b=yaw:0..1", "road=yaw:5", "road=yaw:1..2,", "r=yaw:a..b"]
)
def test_a_broken_zone_says_how_to_write_it(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a zone; write NAME=yaw:FROM\.\.TO.*letters, digits, _ and -"):
        zone_from_text(text)
    with pytest.raises(UsageError, match="smaller angle first"):
        zone_from_text("road=yaw:15..-15")


def scenes(clip: Path, zones: tuple[Zone, ...] = ()) -> Iterator[Scene]:
    model = ROOT / "models" / "face.int8-cpu.onnx"
    with Reconstructor(model, provider="cpu") as reconstructor, open_source(str(clip)) as source:
        yield from Pipeline(reconstructor, attention=zones).run(source)


def test_the_blinks_of_the_rendered_clip_are_found_when_they_happen() -> None:
    events = [event for scene in scenes(CLIP) for event in scene.events if event.kind == "blink"]
    truth = [
        frame["expression"].get("eyeBlink_L", 0)
        for frame in json.loads(CLIP.with_suffix(".json").read_text())["frames"]
    ]
    shut = [i / 25 for i in range(1, 149) if truth[i] > 0.5 and truth[i] >= truth[i - 1] and truth[i] >= truth[i + 1]]
    middles = [(event.began_s + event.time_s) / 2 for event in events]
    assert len(shut) >= 3
    np.testing.assert_allclose(middles, [0.9, 2.6, 4.3], atol=0.04)
    # Lids move linearly for 0.12 s each way in the clip, and are less than 60 % open for 0.144 s.
    assert all(0.05 < event.time_s - event.began_s < 0.25 for event in events)


def test_records_tell_attention_and_events_have_lines_of_their_own(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    command = ["--model", str(ROOT / "models" / "face.int8-cpu.onnx"), "--input", str(CLIP), "--provider", "cpu"]
    assert main([*command, "--zone", "ahead=yaw:-20..20", "--output", str(out), "--frames", "40", "--quiet"]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    records, events = [line for line in lines if "event" not in line], [line for line in lines if "event" in line]
    assert len(records) == 40 and all(line["schema"] == "facerecon-rt/1" for line in lines)
    alone = [{key: one[key] for key in one if key not in ("schema", "source", "frame")} for one in events]
    of_records = [event for record in records for event in record.get("events", [])]
    assert alone[: len(of_records)] == of_records
    # What still runs after the last frame ends on lines alone.
    assert all(event["phase"] == "end" for event in alone[len(of_records) :])
    running = [event["event"] for event in of_records if event["phase"] == "begin"]
    ended = [event["event"] for event in alone if event["phase"] == "end" and event["event"] != "blink"]
    assert sorted(running) == sorted(ended)
    (blinked,) = [event for event in events if event["event"] == "blink"]
    assert blinked["time_s"] == pytest.approx(0.96, abs=0.05) and 0.05 < blinked["duration_s"] < 0.25
    assert any(event["event"] == "zone" and event["zone"] == "ahead" for event in events)
    attention = records[-1]["faces"][0]["attention"]
    assert attention["direction"]["from"] == "gaze"
    looks = records[-1]["faces"][0]["gaze"]["euler_deg"]
    assert (attention["direction"]["yaw"], attention["direction"]["pitch"]) == (looks["yaw"], looks["pitch"])
    assert attention["perclos"] is None and attention["eyes_open"]["left"] > 0.8


def test_a_photograph_and_a_run_without_it_have_no_attention() -> None:
    frame = Frame(np.zeros((8, 8, 3), np.uint8), "photo.jpg")
    scene = Scene(frame, (face(),))
    record = record_from_scene(scene, ["a"] * 53)
    assert "events" not in record and event_records(scene) == []
    assert "attention" not in record["faces"][0]  # type: ignore[index]


def test_a_set_has_no_attention(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "m.onnx", "--input", "x", "--set", "--attention"]) == 2
    assert "give one of them" in capsys.readouterr().err


def test_the_open_level_is_the_percentile_of_the_last_minute() -> None:
    level, ratios = OpenLevel(), np.random.default_rng(1).uniform(0.2, 0.4, 900).round(2).tolist()  # many are equal
    for index, ratio in enumerate(ratios):
        openness = level.openness(ratio, 0.1, index / 8)
        if index + 1 >= 30:
            usual = np.percentile(ratios[max(0, index - 599) : index + 1], 80)
            assert openness == pytest.approx(min(1.0, ratio / usual))
    assert level.openness(math.nan, 0.1, 113.0) != 0.0
    assert level.openness(0.2, 0.1, 113.125) == pytest.approx(0.2 / np.percentile([*ratios[-599:], 0.2], 80))


def test_shares_are_of_the_last_minute_and_exact_after_a_day() -> None:
    shares, rng = Shares(), np.random.default_rng(2)
    times = np.cumsum(rng.choice([1 / 30, 0.05, 0.0], 40_000))
    shut = rng.random(40_000) < 0.1
    for before, now, true in zip(times, times[1:], shut[1:], strict=False):
        shares.add(float(now), float(now - before), bool(true))
    last = times[1:] > times[-1] - WINDOW_S
    steps = np.diff(times)
    assert shares.seconds == pytest.approx(WINDOW_S, abs=BIN_S + 0.05)
    assert shares.share == pytest.approx(steps[last & shut[1:]].sum() / steps[last].sum(), abs=0.002)

"""Calibration: a face at rest has no blendshapes, a full movement stays complete, and each person has an own rest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from facerecon_rt.cli import main
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import UsageError
from facerecon_rt.faces import calibrate as module
from facerecon_rt.faces.calibrate import Calibration, read_calibration, rested, without_noise
from facerecon_rt.types import Face, Floats, Frame

from .conftest import MakeFace

ROOT = Path(__file__).parents[2]
MODEL, VIDEO = ROOT / "models" / "face.onnx", ROOT / "tests" / "data" / "talking_head.mp4"


def with_weight(face: Face, weight: float) -> Face:
    return replace(face, expression=np.full(53, weight, np.float32))


def a_frame(time_s: float, source: str = "cam0") -> Frame:
    return Frame(np.zeros((8, 8, 3), np.uint8), source, time_s=time_s, still=False)


def test_rest_is_0_and_a_full_movement_stays_1() -> None:
    neutral = np.array([0.2, 0.2, 0.2, 0.2, 0.0, 1.0], np.float32)
    weights = np.array([0.2, 0.6, 1.0, 0.1, 0.3, 0.95], np.float32)
    # A weight that is 1 at rest keeps a tenth of its range.
    np.testing.assert_allclose(rested(weights, neutral), [0, 0.5, 1, 0, 0.3, 0.5], atol=1e-6)


def test_noise_is_0_stronger_weights_stay_and_nothing_jumps() -> None:
    neutral = np.full(6, 0.5, np.float32)
    # (w - 0.5) / 0.5 is 0.01, 0.02, 0.03, 0.04, 0.05 and 1.
    weights = np.array([0.505, 0.51, 0.515, 0.52, 0.525, 1.0], np.float32)
    np.testing.assert_allclose(rested(weights, neutral), [0, 0, 0.02, 0.04, 0.05, 1], atol=1e-5)
    fine = np.linspace(0, 1, 10_001, dtype=np.float32)
    steps = np.diff(without_noise(fine))
    assert steps.min() >= 0
    assert steps.max() < 2.5 / 10_000


def test_the_first_seconds_are_rest_and_a_blink_in_them_does_not_count(ball_face: MakeFace) -> None:
    calibration = Calibration(BLENDSHAPES, seconds=1.0)
    face = ball_face(0, 0, track=1)
    found = []
    for time_s, weight in ((5.0, 0.2), (5.25, 0.2), (5.5, 0.9), (5.75, 0.2), (6.0, 0.2), (6.25, 0.6), (6.5, 0.2)):
        (calibrated,) = calibration([with_weight(face, weight)], a_frame(time_s))
        found.append(float(calibrated.expression[0]))
    np.testing.assert_allclose(found, [0, 0, 0.875, 0, 0, 0.5, 0], atol=1e-6)


def test_every_track_of_every_source_has_its_own_rest(ball_face: MakeFace) -> None:
    calibration = Calibration(BLENDSHAPES, seconds=1.0)
    people = [with_weight(ball_face(0, 0, track=track), 0.1 * track) for track in (1, 2)]
    for source in ("cam0", "cam1"):
        calibration([with_weight(face, 0.3) if source == "cam1" else face for face in people], a_frame(0, source))
    for source, expected in (("cam0", [0.4 / 0.9, 0.3 / 0.8]), ("cam1", [0.2 / 0.7, 0.2 / 0.7])):
        found = calibration([with_weight(face, 0.5) for face in people], a_frame(9, source))
        np.testing.assert_allclose([face.expression[3] for face in found], expected, atol=1e-6)


def test_a_camera_that_runs_for_months_forgets_who_left(ball_face: MakeFace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facerecon_rt.faces.calibrate.MOST_TRACKS", 3)
    calibration = Calibration(BLENDSHAPES, seconds=1.0)
    for track in (1, 2, 1, 3, 4):  # track 2 is unseen for the longest time when track 4 comes
        calibration([with_weight(ball_face(0, 0, track=track), 0.1)], a_frame(0))
    assert [person["track"] for person in json.loads(calibration.to_json())["people"]] == [1, 3, 4]


def test_photographs_have_no_first_seconds(ball_face: MakeFace) -> None:
    face = with_weight(ball_face(0, 0), 0.4)
    assert Calibration(BLENDSHAPES, seconds=1.0)([face], a_frame(0)) == (face,)


def saved(tmp_path: Path, *rests: float) -> Path:
    calibration = Calibration(BLENDSHAPES, seconds=1.0)
    points = np.zeros((4, 3), np.float32)
    landmarks, camera = np.zeros((68, 3), np.float32), np.eye(3, 4, dtype=np.float32)
    for track, rest in enumerate(rests, 1):
        weights: Floats = np.full(53, rest, np.float32)
        face = Face(points, points, weights, camera, landmarks, 1.0, camera[0], track=track)
        calibration([face], a_frame(0))
    (tmp_path / "rest.json").write_text(calibration.to_json())
    return tmp_path / "rest.json"


def test_a_calibration_is_saved_and_read_again(tmp_path: Path, ball_face: MakeFace) -> None:
    faces = [with_weight(ball_face(0, 0, track=track), 0.6) for track in (1, 2, 3)]
    # One person counts for everybody, in photographs too.
    one = read_calibration(saved(tmp_path, 0.2), BLENDSHAPES)
    anybody = [*faces, with_weight(ball_face(0, 0), 0.6)]
    np.testing.assert_allclose([f.expression[0] for f in one(anybody, a_frame(0, "b"))], [0.5] * 4, atol=1e-6)
    # Several people count for their tracks. Track 3 has no entry.
    two = read_calibration(saved(tmp_path, 0.2, 0.5), BLENDSHAPES)
    np.testing.assert_allclose([f.expression[0] for f in two(faces, a_frame(0))], [0.5, 0.2, 0.6], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "other/1"}, "its schema is other/1"),
        ({"people": []}, "no people"),
        ({"people": [{"source": "a", "track": 1, "blendshapes": {"jawOpen": 0.1}}]}, "'browDown_L'"),
        ({"people": [{"source": "a", "track": 1, "blendshapes": dict.fromkeys(BLENDSHAPES, 1.5)}]}, "not in 0 to 1"),
    ],
)
def test_a_file_that_is_no_calibration_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = saved(tmp_path, 0.2)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UsageError, match=message):
        read_calibration(path, BLENDSHAPES)
    with pytest.raises(UsageError, match="cannot read"):
        read_calibration(tmp_path / "none.json", BLENDSHAPES)


def test_people_whose_track_is_no_number_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, 0.2, 0.5)
    value = json.loads(path.read_text())
    for person in value["people"]:
        person["track"] = [person["track"]]
    path.write_text(json.dumps(value))
    with pytest.raises(UsageError, match="is not a calibration for this model"):
        read_calibration(path, BLENDSHAPES)


def test_calibrations_that_are_forgotten_are_said_once(
    ball_face: MakeFace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MOST_TRACKS", 3)
    calibration = Calibration(BLENDSHAPES, seconds=1.0)
    calibration([ball_face(0, 0, track=track) for track in range(6)], a_frame(0))
    assert calibration.learnt == 3
    assert caplog.messages == ["calibrations of more than 3 tracks: the longest unseen are forgotten"]


def test_the_command_calibrates_saves_and_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--model", str(MODEL), "--input", str(VIDEO), "--frames", "40"]
    rest = tmp_path / "rest.json"

    def weights(name: str, *more: str) -> Floats:
        assert main([*command, "--output", str(tmp_path / name), *more]) == 0
        records = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        found: Floats = np.array([list(r["faces"][0]["blendshapes"].values()) for r in records], np.float32)
        return found

    raw = weights("raw.jsonl")
    learnt = weights("learnt.jsonl", "--calibrate", "0.5", "--save-calibration", str(rest))
    assert f"wrote {rest}; give it to --calibrate in later runs" in capsys.readouterr().err
    again = weights("again.jsonl", "--calibrate", str(rest))
    (person,) = json.loads(rest.read_text())["people"]
    assert (person["track"], person["frames"]) == (1, 13)  # 0 to 0.48 s of 25 frames per second
    neutral = np.median(raw[:13], 0)
    np.testing.assert_allclose(list(person["blendshapes"].values()), neutral, atol=2e-5)
    left = np.clip((raw - neutral) / (1 - neutral), 0, 1)
    expected = np.select([left < 0.02, left < 0.04], [0.0, 2 * left - 0.04], left)
    np.testing.assert_allclose(again, expected, atol=2e-4)
    np.testing.assert_allclose(learnt[13:], again[13:], atol=1e-4)
    assert learnt[:13].mean() < raw[:13].mean() / 4
    assert main([*command, "--save-calibration", str(rest)]) == 2
    assert "give that as well" in capsys.readouterr().err
    assert main([*command, "--calibrate", "1", "--set"]) == 2
    assert "not to --set" in capsys.readouterr().err


def test_a_photograph_calibrates_and_one_without_a_face_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2

    grabbed = cv2.VideoCapture(str(VIDEO))
    _, image = grabbed.read()
    grabbed.release()
    assert cv2.imwrite(str(tmp_path / "rest.png"), image)
    assert cv2.imwrite(str(tmp_path / "grey.png"), np.full_like(image, 128))
    command = ["--model", str(MODEL), "--input", str(tmp_path / "rest.png"), "--quiet"]
    command += ["--output", str(tmp_path / "r.jsonl")]
    assert main([*command, "--calibrate", str(tmp_path / "rest.png")]) == 0
    record = json.loads((tmp_path / "r.jsonl").read_text())
    assert set(record["faces"][0]["blendshapes"].values()) == {0.0}
    assert main([*command, "--calibrate", str(tmp_path / "grey.png")]) == 5
    assert "no face was found in" in capsys.readouterr().err


def test_a_saved_calibration_stays_where_nobody_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    black, rest = tmp_path / "black.png", tmp_path / "rest.json"
    cv2.imwrite(str(black), np.zeros((64, 64, 3), np.uint8))
    before = saved(tmp_path, 0.2).rename(rest).read_bytes()
    command = ["--model", str(MODEL), "--input", str(black), "--output", str(tmp_path / "r.jsonl")]
    assert main([*command, "--calibrate", "1", "--save-calibration", str(rest)]) == 0
    assert rest.read_bytes() == before
    assert "no calibration is written" in capsys.readouterr().err

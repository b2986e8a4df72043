"""Scenes -> JSON records: every field, valid JSON, enough digits, Apple's names."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import UsageError
from facerecon_rt.pose import quaternion, rotation_from_euler, viewer_from_head
from facerecon_rt.sinks.jsonl import JsonLinesSink
from facerecon_rt.sinks.record import SCHEMA, arkit_blendshapes, record_from_scene, record_text
from facerecon_rt.types import Face, Floats, Frame, Scene

from ..conftest import ROOT

APPLE = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen",
    "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight",
    "mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight",
    "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft",
    "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip
"""ARFaceAnchor.BlendShapeLocation, all 52."""


def a_face(
    *,
    expression: Floats | None = None,
    spread_mm: Floats | None = None,
    disagreement: dict[str, float] | None = None,
    gaze: Floats | None = None,
    doubts: tuple[str, ...] = (),
) -> Face:
    rng = np.random.default_rng(1)
    rotation = rotation_from_euler(pitch=10, yaw=-20, roll=5)
    vertices = rng.normal(0, 60, (80, 3)).astype(np.float32)
    return Face(
        shape=vertices,
        vertices=vertices,
        expression=rng.uniform(0, 1, 53).astype(np.float32) if expression is None else expression,
        frame_from_head=np.column_stack([17.3 * rotation, [1234.5678, 2345.6789, 0]]).astype(np.float32),
        landmarks=rng.normal(500, 90, (68, 3)).astype(np.float32),
        confidence=0.98765432,
        box=np.array([10, 20, 110.123, 120.456], np.float32),
        track=3,
        spread_mm=spread_mm,
        disagreement=disagreement,
        gaze=gaze,
        doubts=doubts,
    )


def a_scene(*faces: Face) -> Scene:
    frame = Frame(np.zeros((48, 64, 3), np.uint8), "cam0", index=7, time_s=0.28, captured_at=100.0, still=False)
    stages = {"capture": 1.23456, "infer": 4.5}
    return Scene(frame, faces, stages, provider="cpu", precision="int8", model="ab" * 32)


def parsed(scene: Scene, *, arkit: bool = False) -> Any:
    """Return the record as a consumer reads it."""
    return json.loads(json.dumps(record_from_scene(scene, BLENDSHAPES, arkit=arkit, now=100.025), allow_nan=False))


def test_a_record_says_where_a_frame_comes_from_and_how_it_was_made() -> None:
    record = parsed(a_scene())
    assert record == {
        "schema": SCHEMA,
        "source": "cam0",
        "frame": 7,
        "time_s": 0.28,
        "age_ms": 25.0,
        "size": [64, 48],
        "provider": "cpu",
        "precision": "int8",
        "model": "ab" * 32,
        "faces": [],
        "stages_ms": {"capture": 1.235, "infer": 4.5},
    }


def test_a_face_is_recorded_with_pose_landmarks_and_blendshapes() -> None:
    (face,) = parsed(a_scene(a_face(doubts=("small", "turned"))))["faces"]
    assert list(face) == ["track", "box", "confidence", "pose", "landmarks", "blendshapes", "doubts"]
    assert face["doubts"] == ["small", "turned"]
    assert (face["track"], face["confidence"], face["box"]) == (3, 0.9877, [10.0, 20.0, 110.12, 120.46])
    assert face["pose"]["euler_deg"] == pytest.approx({"pitch": 10, "yaw": -20, "roll": 5}, abs=0.01)
    assert (len(face["landmarks"]), len(face["landmarks"][0])) == (68, 3)
    assert tuple(face["blendshapes"]) == BLENDSHAPES


def test_gaze_is_recorded_in_the_head_and_as_seen_from_the_camera() -> None:
    """The head is turned 20 degrees to the right and 10 up, and leans by 5. The eyes look ahead, slightly apart."""
    apart = np.radians(2)
    gaze = np.array([[np.sin(apart), 0, np.cos(apart)], [-np.sin(apart), 0, np.cos(apart)]], np.float32)
    (face,) = parsed(a_scene(a_face(gaze=gaze)))["faces"]
    assert list(face) == ["track", "box", "confidence", "pose", "landmarks", "blendshapes", "gaze"]
    assert face["gaze"] == {
        "left": [0.0349, 0.0, 0.9994],
        "right": [-0.0349, 0.0, 0.9994],
        "euler_deg": {"pitch": 10.0, "yaw": -20.0},
    }


def test_the_recorded_matrix_projects_to_a_hundredth_of_a_pixel() -> None:
    face = a_face()
    (recorded,) = parsed(a_scene(face))["faces"]
    camera = np.array(recorded["pose"]["frame_from_head"])
    exact = face.frame_from_head.astype(np.float64)
    moved = face.vertices @ (camera[:, :3] - exact[:, :3]).T + camera[:, 3] - exact[:, 3]
    assert np.abs(moved).max() < 0.01


def test_sets_and_ensembles_record_how_far_to_trust_them() -> None:
    spread = np.array([0.5, 1.5], np.float32)
    (face,) = parsed(a_scene(a_face(spread_mm=spread, disagreement={"shape_mm": 0.123456})))["faces"]
    assert face["spread_mm"] == {"mean": 1.0, "max": 1.5}
    assert face["disagreement"] == {"shape_mm": 0.1235}


def test_numbers_that_are_not_finite_become_null() -> None:
    expression, landmarks = np.zeros(53, np.float32), np.full((68, 3), 1.25, np.float32)
    expression[0] = np.nan
    landmarks[1, 2] = np.inf
    face = parsed(a_scene(replace(a_face(expression=expression), landmarks=landmarks)))["faces"][0]
    assert face["blendshapes"][BLENDSHAPES[0]] is None and face["blendshapes"][BLENDSHAPES[1]] == 0
    assert face["landmarks"][:2] == [[1.25] * 3, [1.25, 1.25, None]]


def test_the_record_of_a_scene_is_written_once_for_all_outputs(tmp_path: Path) -> None:
    scene = a_scene(a_face())
    targets = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for target in targets:
        with JsonLinesSink(target, BLENDSHAPES) as sink:
            sink.write(scene)
    first, second = (target.read_text() for target in targets)
    assert first == second  # the age is that of the first output too
    assert json.loads(first)["faces"] == parsed(scene)["faces"]
    assert json.loads(record_text(scene, BLENDSHAPES, arkit=True))["faces"] == parsed(scene, arkit=True)["faces"]
    later = replace(scene, faces=())
    assert json.loads(record_text(later, BLENDSHAPES))["faces"] == []


def test_exactly_apples_52_names_come_out() -> None:
    assert len(APPLE) == 52
    assert sorted(arkit_blendshapes(np.zeros(53), BLENDSHAPES)) == sorted(APPLE)


def test_left_stays_left_and_the_split_ones_are_averaged() -> None:
    weights = dict.fromkeys(BLENDSHAPES, 0.0) | {
        "eyeBlink_L": 0.9,
        "mouthSmile_R": 0.7,
        "jawLeft": 0.3,
        "browInnerUp_L": 0.8,
        "cheekPuff_L": 0.2,
        "cheekPuff_R": 0.4,
    }
    apple = arkit_blendshapes([weights[name] for name in BLENDSHAPES], BLENDSHAPES)
    expected = {"eyeBlinkLeft": 0.9, "mouthSmileRight": 0.7, "jawLeft": 0.3, "browInnerUp": 0.4, "cheekPuff": 0.3}
    assert {name: weight for name, weight in apple.items() if weight} == pytest.approx(expected)


def test_a_record_can_carry_apples_names() -> None:
    (face,) = parsed(a_scene(a_face()), arkit=True)["faces"]
    assert sorted(face["blendshapes"]) == sorted(APPLE)


def test_other_blendshapes_have_no_apple_names() -> None:
    with pytest.raises(UsageError, match="do not ask for ARKit names"):
        arkit_blendshapes([0.0], ["smile"])


def test_the_example_on_the_page_agrees_with_itself() -> None:
    """Implementers compare their signs with it."""
    page = (ROOT / "runtime" / "docs" / "record.md").read_text()
    pitch, yaw, roll = map(float, re.findall(r'"(?:pitch|yaw|roll)": (-?[0-9.]+)', page)[:3])
    (said,) = re.findall(r'"quaternion": \[([-0-9., ]+)\]', page)
    camera = np.hstack([rotation_from_euler(pitch, yaw, roll), np.zeros((3, 1))])
    np.testing.assert_allclose([float(one) for one in said.split(",")], quaternion(viewer_from_head(camera)), atol=1e-5)

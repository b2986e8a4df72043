"""A scene -> its JSON record: one object per frame or photograph, with only values that JSON can represent."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..contract import BLENDSHAPES
from ..errors import UsageError
from ..pose import Doubles, euler_from_camera, gaze_angles, quaternion, viewer_from_head
from ..regular import source_name
from ..types import Attention, Event, Face, Floats, Scene

SCHEMA = "facerecon-rt/1"
"""Version of the record. Fields are only added under it."""
_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_making = threading.Lock()
_SIDES = {"_L": "Left", "_R": "Right"}
MERGED = ("browInnerUp", "cheekPuff")
"""Blendshapes that ICT-FaceKit splits into left and right, and Apple does not."""


def record_from_scene(
    scene: Scene, blendshapes: Sequence[str], *, arkit: bool = False, now: float | None = None
) -> dict[str, object]:
    """Return the record of one scene, ready for json.dumps. A number that is not finite becomes null.

    `blendshapes`: (B,) names of the expression weights, from the model's contract. `arkit`: use Apple's 52 names and
    weights instead. `now`: time.monotonic() at which the age is measured, by default the present. Raises UsageError as
    `arkit_blendshapes` does.
    """
    frame = scene.frame
    sometimes: dict[str, object] = {} if scene.shed is None else {"shed": dict(scene.shed)}
    if scene.entered:
        sometimes["entered"] = list(scene.entered)
    if scene.left:
        sometimes["left"] = list(scene.left)
    if scene.events:
        sometimes["events"] = [_event(event) for event in scene.events]
    age_s = (time.monotonic() if now is None else now) - frame.captured_at
    return {
        "schema": SCHEMA,
        "source": source_name(frame.source),
        "frame": frame.index,
        "time_s": _number(frame.time_s, 4),
        "age_ms": _number(age_s * 1000, 2),
        "size": list(frame.size),
        "provider": scene.provider,
        "precision": scene.precision,
        "model": scene.model,
        "faces": [_face(face, blendshapes, arkit) for face in scene.faces],
        "stages_ms": {stage: _number(value, 3) for stage, value in scene.stages_ms.items()},
        **sometimes,
    }


def as_json(record: Mapping[str, object]) -> str:
    """Return a record on one line."""
    return _ENCODER.encode(record)


def record_text(scene: Scene, blendshapes: Sequence[str], *, arkit: bool = False) -> str:
    """Return the record of a scene on one line. It is made once for all outputs, whose threads may ask at the same
    time, so its age is that at the first of them. Arguments and errors are those of `record_from_scene`."""
    key = record_text, tuple(blendshapes), arkit
    with _making:
        text = scene.texts.get(key)
        if text is None:
            text = scene.texts[key] = as_json(record_from_scene(scene, blendshapes, arkit=arkit))
    return text


def event_records(scene: Scene) -> list[dict[str, object]]:
    """Return the events of a scene as lines of their own, ready for json.dumps. Only they have the field `event`."""
    frame = scene.frame
    place = {"schema": SCHEMA, "source": source_name(frame.source), "frame": frame.index}
    return [{**place, **_event(event)} for event in scene.events]


def _event(event: Event) -> dict[str, object]:
    record: dict[str, object] = {
        "event": event.kind,
        "phase": event.phase,
        "track": event.track,
        "time_s": _number(event.time_s, 4),
    }
    if event.phase == "end":
        record["duration_s"] = _number(event.time_s - event.began_s, 4)
    if event.name is not None:
        record["level" if event.kind == "drowsiness" else "zone"] = event.name
    return record


def attention_record(attention: Attention) -> dict[str, object]:
    """Return the attention of a face for a record."""
    left, right = attention.eyes_open
    yaw, pitch = attention.direction
    record: dict[str, object] = {
        "eyes_open": {"left": _number(left, 3), "right": _number(right, 3)},
        "closed_s": _number(attention.closed_s, 3),
        "blinks_per_min": _maybe(attention.blinks_per_min, 1),
        "perclos": _maybe(attention.perclos, 4),
        "yawning": attention.yawning,
        "speaking": _number(attention.speaking, 3),
        "direction": {"from": attention.origin, "pitch": _number(pitch, 2), "yaw": _number(yaw, 2)},
        "drowsiness": attention.drowsiness,
    }
    if attention.off_zone_s is not None:
        record |= {"zone": attention.zone, "off_zone_s": _number(attention.off_zone_s, 3)}
    return record


def arkit_blendshapes(weights: ArrayLike, names: Sequence[str]) -> dict[str, float]:
    """Convert weights (53,), 0 to 1, in the order of ICT-FaceKit's `names` to Apple's 52 by name. Left is the subject's
    left.

    browInnerUp and cheekPuff are the mean of their two sides. Apple's single weight moves both sides at once, and the
    mean has the smallest error. tongueOut is always 0, because the model has no tongue. Raises UsageError when `names`
    are not ICT-FaceKit's.
    """
    if set(names) != set(BLENDSHAPES):
        raise UsageError("this model's blendshapes are not the 53 of ICT-FaceKit; do not ask for ARKit names")
    by_name = dict(zip(names, np.asarray(weights, np.float64).tolist(), strict=True))
    apple = {name: (by_name.pop(f"{name}_L") + by_name.pop(f"{name}_R")) / 2 for name in MERGED}
    for name, weight in by_name.items():
        apple[apple_name(name)] = weight
    apple["tongueOut"] = 0.0
    return {name: apple[name] for name in sorted(apple)}


def apple_name(name: str) -> str:
    """Return Apple's name of one of ICT-FaceKit's blendshapes, `eyeBlinkLeft` for `eyeBlink_L`."""
    stem, side = name[:-2], _SIDES.get(name[-2:])
    return name if side is None else stem if stem in MERGED else stem + side


def _face(face: Face, blendshapes: Sequence[str], arkit: bool) -> dict[str, object]:
    pitch, yaw, roll = euler_from_camera(face.frame_from_head)
    if arkit:
        apple = arkit_blendshapes(face.expression, blendshapes)
        weights = {name: _number(weight, 5) for name, weight in apple.items()}
    else:
        weights = dict(zip(blendshapes, _many_numbers(face.expression, 5), strict=True))
    pose: dict[str, object] = {
        # With six decimals, a vertex 200 mm from the origin still projects to within a thousandth of a pixel.
        "frame_from_head": [_numbers(row, 6) for row in face.frame_from_head],
        "euler_deg": {"pitch": _number(pitch, 2), "yaw": _number(yaw, 2), "roll": _number(roll, 2)},
        "quaternion": _numbers(quaternion(viewer_from_head(face.frame_from_head)), 6),
    }
    record: dict[str, object] = {
        "track": face.track,
        "box": _numbers(face.box, 2),
        "confidence": _number(face.confidence, 4),
        "pose": pose,
        "landmarks": _many_numbers(face.landmarks, 2),
        "blendshapes": weights,
    }
    if face.gaze is not None:
        record["gaze"] = gaze_record(face.gaze, face.frame_from_head)
    if face.attention is not None:
        record["attention"] = attention_record(face.attention)
    if face.doubts:
        record["doubts"] = list(face.doubts)
    if face.camera_from_head is not None:
        pose["camera_from_head"] = [_numbers(row, 6) for row in face.camera_from_head]
    if face.spread_mm is not None:
        spread = {"mean": float(face.spread_mm.mean()), "max": float(face.spread_mm.max())}
        record["spread_mm"] = {name: _number(value, 3) for name, value in spread.items()}
    if face.disagreement is not None:
        record["disagreement"] = {name: _number(value, 4) for name, value in face.disagreement.items()}
    return record


def gaze_record(gaze: Floats, frame_from_head: Floats) -> dict[str, object]:
    """Return the gaze of both eyes, and the angles of their mean, for a record.

    `gaze`: unit vectors (2, 3), head frame. `frame_from_head`: the head's camera (3, 4). The angles use the axes of the
    pose's `euler_deg`, seen from the camera: yaw is positive to the subject's left, pitch is positive upwards, and (0,
    0) is towards the camera.
    """
    yaw, pitch = gaze_angles(gaze.mean(0), frame_from_head)
    return {
        "left": _numbers(gaze[0], 4),
        "right": _numbers(gaze[1], 4),
        "euler_deg": {"pitch": _number(pitch, 2), "yaw": _number(yaw, 2)},
    }


def _numbers(values: Floats | Doubles, digits: int) -> list[float | None]:
    return [_number(value, digits) for value in values.tolist()]


def _many_numbers(values: Floats | Doubles, digits: int) -> list[Any]:
    """Return an array as nested lists of rounded numbers. From some dozens of numbers on, numpy rounds faster."""
    wide = values.astype(np.float64)
    if np.isfinite(wide).all():
        rounded: list[Any] = np.round(wide, digits).tolist()
        return rounded
    return [_many_numbers(row, digits) for row in wide] if wide.ndim > 1 else _numbers(wide, digits)


def _maybe(value: float | None, digits: int) -> float | None:
    return None if value is None else _number(value, digits)


def _number(value: float, digits: int) -> float | None:
    return round(float(value), digits) if math.isfinite(value) else None

"""Faces -> the Live Link Face app's format: CSV files per track, and packets for Unreal Engine."""

from __future__ import annotations

import csv
import io
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import ArrayLike

from ..pose import euler_from_viewer, rotation_from_quaternion
from ..types import Scene
from .outputs import OutputNames, check_writable, write_whole
from .take import TrackKeys
from .takes import Takes

ORDER = (
    "EyeBlinkLeft", "EyeLookDownLeft", "EyeLookInLeft", "EyeLookOutLeft", "EyeLookUpLeft", "EyeSquintLeft",
    "EyeWideLeft", "EyeBlinkRight", "EyeLookDownRight", "EyeLookInRight", "EyeLookOutRight", "EyeLookUpRight",
    "EyeSquintRight", "EyeWideRight", "JawForward", "JawLeft", "JawRight", "JawOpen", "MouthClose", "MouthFunnel",
    "MouthPucker", "MouthLeft", "MouthRight", "MouthSmileLeft", "MouthSmileRight", "MouthFrownLeft", "MouthFrownRight",
    "MouthDimpleLeft", "MouthDimpleRight", "MouthStretchLeft", "MouthStretchRight", "MouthRollLower", "MouthRollUpper",
    "MouthShrugLower", "MouthShrugUpper", "MouthPressLeft", "MouthPressRight", "MouthLowerDownLeft",
    "MouthLowerDownRight", "MouthUpperUpLeft", "MouthUpperUpRight", "BrowDownLeft", "BrowDownRight", "BrowInnerUp",
    "BrowOuterUpLeft", "BrowOuterUpRight", "CheekPuff", "CheekSquintLeft", "CheekSquintRight", "NoseSneerLeft",
    "NoseSneerRight", "TongueOut",
)  # fmt: skip
"""Apple's 52 blendshapes in Epic's order, with a capital."""
ANGLES = (
    "HeadYaw", "HeadPitch", "HeadRoll", "LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll", "RightEyeYaw", "RightEyePitch",
    "RightEyeRoll",
)  # fmt: skip
"""Angles in radians, with the signs of the record: yaw to the subject's left, pitch upwards, roll to their left. Those
of the eyes are relative to the head."""
VALUES = len(ORDER) + len(ANGLES)
DEFAULT_FPS = 60
"""Frames per second of timecodes where the source has none, as in the app."""


def live_link_values(weights: Mapping[str, float], rotation: ArrayLike, eyes: ArrayLike) -> list[float]:
    """Return the 61 values of a face, in the order of `ORDER` and `ANGLES`.

    `weights`: Apple's 52 by name. `rotation`: (4,) w, x, y, z of the head, as `TrackKeys.rotations`. `eyes`: (2, 2)
    radians, as `TrackKeys.eyes`.
    """
    pitch, yaw, roll = np.radians(euler_from_viewer(rotation_from_quaternion(rotation))).tolist()
    (left_yaw, left_pitch), (right_yaw, right_pitch) = np.asarray(eyes, np.float64).tolist()
    faces = [float(weights[name[0].lower() + name[1:]]) for name in ORDER]
    return [*faces, yaw, pitch, roll, left_yaw, left_pitch, 0.0, right_yaw, right_pitch, 0.0]


def timecode(seconds: float, fps: float) -> str:
    """Return seconds as HH:MM:SS:FF.mmm, as the app writes them: frames and thousandths of a frame.

    A rate that is not whole, such as 29.97, counts as the next whole rate. Hours begin again after 99.
    """
    rate = round(fps) or DEFAULT_FPS
    thousandths = round(seconds * rate * 1000)
    frames, thousandths = divmod(thousandths, 1000)
    whole, frame = divmod(frames, rate)
    return f"{whole // 3600 % 100:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}:{frame:02d}.{thousandths:03d}"


def live_link_csv(keys: TrackKeys, fps: float) -> str:
    """Return the CSV text of a track."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["Timecode", "BlendshapeCount", *ORDER, *ANGLES])
    for seconds, weights, rotation, eyes in zip(keys.times, keys.weights, keys.rotations, keys.eyes, strict=True):
        values = live_link_values(dict(zip(keys.names, weights.tolist(), strict=True)), rotation, eyes)
        rows.writerow([timecode(float(seconds), fps), VALUES, *(f"{value:.6f}" for value in values)])
    return text.getvalue()


def live_link_packet(device: str, subject: str, values: Sequence[float], seconds: float, fps: float) -> bytes:
    """Return a packet of the app's UDP protocol, version 6.

    `device`: an UUID of 36 characters. `subject`: name of the face in Unreal Engine.
    """
    rate = round(fps) or DEFAULT_FPS
    frame, rest = divmod(seconds * rate, 1.0)
    texts = b"".join(struct.pack(">i", len(text.encode())) + text.encode() for text in (device, subject))
    return (
        struct.pack(">B", 6)
        + texts
        + struct.pack(">ifii", int(frame) % 2**31, rest, rate, 1)
        + struct.pack(f">B{VALUES}f", VALUES, *values)
    )


class LiveLinkCsvSink:
    """A sink that writes a CSV file per track at the end. Each face of a photograph has a file of one row."""

    def __init__(self, path: Path, blendshapes: Sequence[str]) -> None:
        """Check the path. Raises UsageError when the file cannot be written."""
        check_writable(path)
        self._names = OutputNames(path)
        self._blendshapes = tuple(blendshapes)
        self._takes = Takes(self._blendshapes)
        self._fps: dict[str, float] = {}

    def __enter__(self) -> LiveLinkCsvSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, scene: Scene) -> None:
        """Note the faces of a video, or write those of a photograph. Raises UsageError when they cannot be written."""
        self._fps[scene.frame.source] = scene.frame.fps
        if not scene.frame.still:
            self._write(self._takes.see(scene))
            return
        for face in scene.faces:
            keys = TrackKeys(self._blendshapes)
            keys.add(face, scene.frame)
            self._write([(scene.frame.source, {"face": keys})])

    def close(self) -> None:
        """Write the tracks. Raises UsageError when they cannot be written."""
        self._write(self._takes.take_all())

    def _write(self, takes: Sequence[tuple[str, Mapping[str, TrackKeys]]]) -> None:
        for source, tracks in takes:
            for keys in tracks.values():
                write_whole(self._names.next_for(source), live_link_csv(keys, self._fps[source]).encode())

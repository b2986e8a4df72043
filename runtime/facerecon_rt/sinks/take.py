"""Faces of a source -> the keys of its tracks: a few numbers per face and frame, from which takes are written."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence

import numpy as np

from ..pose import VIEWER_FROM_FRAME, Doubles, quaternion, split_camera, viewer_from_head
from ..types import Face, Floats, Frame
from .record import arkit_blendshapes

DISTANCE_M = 0.6
"""Distance of a head from the camera where the lens is unknown: that of somebody in front of a screen."""
METRES_PER_MM = 0.001
EYE_LOOK_RADIANS = math.radians(30.0)
"""Angle in radians by which an eye turns at a weight of 1 of an eyeLook blendshape."""


class TrackKeys:
    """The keys of one track, and its neutral face. Pictures and meshes of frames are not kept."""

    def __init__(self, blendshapes: Sequence[str]) -> None:
        """Start without keys. `blendshapes`: (B,) names from the model's contract."""
        self._blendshapes = tuple(blendshapes)
        self.names: tuple[str, ...] = ()
        """(52,) Apple's names of the weights, once there is a key."""
        self.shape: Floats = np.zeros((0, 3), np.float32)
        """(V, 3) mm, head frame: the neutral face at the newest key, which is averaged over the track."""
        self.metric = True
        """Whether places are metres from the camera. Else the lens is unknown, and the distance is `DISTANCE_M`."""
        self.gazes = True
        """Whether eyes turn by the model's gaze. Else they turn by the eyeLook weights."""
        self._times = array("d")
        self._numbers = array("f")

    def add(self, face: Face, frame: Frame) -> None:
        """Add the key of a frame, which must be later than the previous key. Raises the UsageError of
        `arkit_blendshapes`."""
        weights = arkit_blendshapes(face.expression, self._blendshapes)
        turn, place = head_pose(face, frame.size)
        self.names, self.shape = tuple(weights), face.shape
        self.metric &= face.camera_from_head is not None
        self.gazes &= face.gaze is not None
        self._times.append(frame.time_s)
        self._numbers.extend(weights.values())
        self._numbers.extend(np.concatenate([turn, place, eye_angles(face.gaze, weights).ravel()]).tolist())

    def __len__(self) -> int:
        return len(self._times)

    @property
    def last_s(self) -> float:
        """Seconds of the source at the newest key. There must be a key."""
        return self._times[-1]

    @property
    def times(self) -> Doubles:
        """(K,) seconds of the source."""
        return np.array(self._times, np.float64)

    @property
    def weights(self) -> Floats:
        """(K, 52) weights in the order of `names`."""
        return self._rows[:, : len(self.names)]

    @property
    def rotations(self) -> Floats:
        """(K, 4) w, x, y, z: the head's rotation, from head axes to x right, y up, z towards the viewer."""
        return self._rows[:, -11:-7]

    @property
    def places(self) -> Floats:
        """(K, 3) metres: the origin of the head from the camera. Axes: x right, y up, z towards the viewer."""
        return self._rows[:, -7:-4]

    @property
    def eyes(self) -> Floats:
        """(K, 2, 2) radians: yaw to the subject's left and pitch upwards, of the left and the right eye."""
        return self._rows[:, -4:].reshape(-1, 2, 2)

    @property
    def _rows(self) -> Floats:
        return np.array(self._numbers, np.float32).reshape(len(self), -1)


def head_pose(face: Face, size: tuple[int, int]) -> tuple[Doubles, Doubles]:
    """Return the head's rotation (4,) as w, x, y, z, and its place (3,) in metres from the camera. Axes: x right, y up,
    z towards the viewer.

    `size`: (width, height) of the frame in pixels. Without a lens, the camera is scaled-orthographic: the place has the
    distance `DISTANCE_M`, and the picture's centre is straight ahead.
    """
    if face.camera_from_head is not None:
        camera = face.camera_from_head.astype(np.float64)
        return quaternion(viewer_from_head(camera)), VIEWER_FROM_FRAME @ camera[:3, 3] * METRES_PER_MM
    scale, _, (x, y, _) = split_camera(face.frame_from_head)
    across, up = x - (size[0] - 1) / 2, (size[1] - 1) / 2 - y
    place = np.array([across / scale * METRES_PER_MM, up / scale * METRES_PER_MM, -DISTANCE_M])
    return quaternion(viewer_from_head(face.frame_from_head)), place


def eye_angles(gaze: Floats | None, weights: Mapping[str, float]) -> Doubles:
    """Return yaw and pitch (2, 2) in radians of the left and the right eye, positive to the subject's left and up.

    `gaze`: unit vectors (2, 3), head frame; None for a model without gaze, whose eyes turn by Apple's eyeLook weights.
    """
    if gaze is not None:
        x, y, z = gaze.astype(np.float64).T
        return np.stack([np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))], 1)
    left = weights["eyeLookOutLeft"] - weights["eyeLookInLeft"]
    right = weights["eyeLookInRight"] - weights["eyeLookOutRight"]
    up = [weights[f"eyeLookUp{side}"] - weights[f"eyeLookDown{side}"] for side in ("Left", "Right")]
    return EYE_LOOK_RADIANS * np.array([[left, up[0]], [right, up[1]]])

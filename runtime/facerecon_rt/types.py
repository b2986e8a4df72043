"""The values that flow through the runtime: Frame -> Detection -> Crop -> Face -> Scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""Picture (H, W, 3) uint8, BGR."""
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One upright picture from a source. Pixels: x right, y down, origin at the centre of the top-left pixel."""

    image: Image
    source: str
    """Path or URI without password, as in the record."""
    index: int = 0
    """Frame number within the source, from 0."""
    time_s: float = 0.0
    """Time in seconds: in the media for a file, since the source was opened for a live source."""
    captured_at: float = 0.0
    """Value of time.monotonic() when the picture was captured or read. Ages are measured from it."""
    capture_ms: float = 0.0
    """Time in ms for reading and decoding the picture."""
    still: bool = True
    """Whether the picture is a photograph; False for a frame of a video or camera, whose faces are tracked."""
    fps: float = 0.0
    """Frames per second of the video or camera; 0 for a photograph or where unknown."""
    live: bool = False
    """Whether the frame is from a camera or stream, which does not wait."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """A face found in a frame, before its shape is known."""

    box: Floats
    """(4,) xyxy, frame pixels: the square face box of `align.box_from_square`."""
    score: float
    """Score of the detector, 0 to 1."""
    roll: float = 0.0
    """Angle in radians, clockwise in the picture, by which the head is turned from upright."""
    doubtful: bool = False
    """Whether the detector is unsure, so that the FaceModel decides whether this is a face."""


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """A square picture of one head, the input of the network."""

    image: Image
    """(S, S, 3) uint8 BGR."""
    frame_from_crop: Floats
    """(3, 4) similarity from crop pixels and relative depth to frame pixels and relative depth."""


Drowsiness = Literal["alert", "tired", "drowsy"]


@dataclass(frozen=True, slots=True, eq=False)
class Attention:
    """State of a tracked person in one frame, by `faces.attention`."""

    eyes_open: tuple[float, float]
    """Openness of the left and the right eye, 0 (closed) to 1 (as open as is usual for this person)."""
    closed_s: float
    """Seconds since the eyes began to close; 0 while they are open."""
    blinks_per_min: float | None
    """Blinks per minute over the last minute; None until the face was seen for 20 s."""
    perclos: float | None
    """Share of the last minute in which the eyes were closed by at least 80 %; None until the face was seen for 20
    s."""
    yawning: bool
    speaking: float
    """Likelihood that the person speaks, from the motion of the lips, 0 to 1."""
    origin: str
    """"gaze" where the model predicts gaze, "head" where the head's direction stands in for it."""
    direction: tuple[float, float]
    """(yaw, pitch) in degrees of the gaze, or of the head; axes as the pose's angles."""
    zone: str | None
    """Name of the zone that the person looks at; None for none."""
    off_zone_s: float | None
    """Seconds since the person last looked at a zone; 0 while looking at one; None without zones."""
    drowsiness: Drowsiness | None
    """Level of drowsiness; None until it is known."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a tracked person begins or ends, by `faces.attention`."""

    kind: str
    """"blink", "eyes_closed", "yawn", "speaking", "zone", "off_zone" or "drowsiness"."""
    phase: str
    """"begin" or "end". A blink is known only when it ends."""
    track: int
    time_s: float
    """Time of the beginning or the end in seconds of the source. The frame that reports it may come up to 2 s later."""
    began_s: float
    """Time in seconds at which it began."""
    name: str | None = None
    """Name of the zone, or the level of drowsiness."""


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One reconstructed face. Head frame: +x the subject's left, +y up, +z out of the face, millimetres."""

    shape: Floats
    """(V, 3) mm, head frame: the neutral face, identity only. It is averaged over the frames of a track, or over the
    photographs of a set."""
    vertices: Floats
    """(V, 3) mm, head frame: `shape` plus this frame's expression."""
    expression: Floats
    """(53,) blendshape weights, 0 to 1, in the contract's order."""
    frame_from_head: Floats
    """(3, 4) scaled-orthographic camera. Its rows are frame x, frame y (pixels) and relative depth (pixels, away from
    the camera); the left 3x3 is scale (pixels per mm) times a rotation."""
    landmarks: Floats
    """(68, 3) iBUG order, frame pixels and relative depth, where annotators put them: jaw points lie on the visible
    contour, not on fixed vertices. They belong to this frame alone, while `vertices` of a track have the averaged
    shape."""
    confidence: float
    """Confidence that this is a clearly visible face, 0 to 1."""
    box: Floats
    """(4,) xyxy, frame pixels: the square face box."""
    track: int | None = None
    """Track id in a video; None in a photograph."""
    spread_mm: Floats | None = None
    """(V,) mm: spread per vertex between the photographs of a set or the frames of a track; None for one image."""
    disagreement: Mapping[str, float] | None = None
    """Mean distance of an ensemble's members to their average: {"shape_mm", "vertices_mm", "landmarks_px",
    "rotation_deg"}. Pixels are the frame's. None without an ensemble."""
    gaze: Floats | None = None
    """(2, 3) unit vectors, head frame: gaze of the left and the right eye; None from a model of contract 1."""
    identity: Floats | None = None
    """(K,) identity code of this picture alone; None from an ensemble and from a model of contract 1."""
    identity_variance: Floats | None = None
    """(K,) variance of the code's error."""
    appearance: Floats | None = None
    """(4, 128) coarse description of the face (`cuts.appearance`), which reveals cuts in a video; or None."""
    doubts: tuple[str, ...] = ()
    """Reasons why the face may be less exact, among "small", "cut off", "turned", "blurred" and "covered" (see
    `faces.doubts`). `Pipeline` sets them."""
    attention: Attention | None = None
    """State of the person's eyes, mouth and direction; None for a photograph, and without `Pipeline(attention=...)`."""
    camera_from_head: Floats | None = None
    """(4, 4) transform from head millimetres to camera millimetres, where the camera's intrinsics are given; None
    elsewhere. Camera axes: x right, y down, z forward."""


NO_PICTURE: Image = np.empty((0, 0, 3), np.uint8)
"""The picture of a frame whose picture was not kept."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A frame with all faces found in it."""

    frame: Frame
    faces: tuple[Face, ...]
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds per stage: capture, detect, align, infer, post."""
    provider: str = ""
    precision: str = ""
    model: str = ""
    """SHA-256 of the model file; for an ensemble, of the files' hashes joined in order."""
    entered: tuple[int, ...] = ()
    """Tracks that begin in this frame."""
    left: tuple[int, ...] = ()
    """Tracks that end with this frame: their faces were not seen for 25 frames, or the video was cut to another person
    at their places."""
    events: tuple[Event, ...] = ()
    """Blinks, yawns and the like that begin or end with this frame."""
    elsewhere: tuple[Floats, ...] = ()
    """Face boxes (4,) xyxy, frame pixels, of places where there may be a face that `faces` does not hold: tracks that
    were missed or skipped in this frame, faces beyond the maximum number, and detections that were not believed or
    stick out of the face that was read there."""
    lost: bool = False
    """Whether the source was lost after this frame. Such a scene has neither picture nor faces, and only sinks that
    take events alone get it."""
    shed: Mapping[str, int] | None = None
    """Work left out to stay within the time budget, as {"looks", "faces"} of `budget.Shed`; None for none."""
    texts: dict[object, str] = field(default_factory=dict, init=False, repr=False)
    """Texts that were made of this scene, such as its record, for all outputs that need them (`sinks.record`)."""


def face_label(index: int, face: Face) -> str:
    """Return `track1` for a face with a track, else `face0` by its place in the scene."""
    return f"face{index}" if face.track is None else f"track{face.track}"

"""The values that flow through the runtime: Frame -> Detection -> Crop -> Face -> Scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""(H, W, 3) uint8, BGR."""
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One upright picture from a source. Pixels: x right, y down, origin at the centre of the top-left pixel."""

    image: Image
    source: str
    """Path or URI without password; what the record names."""
    index: int = 0
    """Frame number within the source, from 0."""
    time_s: float = 0.0
    """Media time in a file, seconds since the source was opened for a live one."""
    captured_at: float = 0.0
    """time.monotonic() when the picture was in hand; what ages are measured from."""
    capture_ms: float = 0.0
    """How long reading and decoding it took."""
    still: bool = True
    """A photograph; False for a frame of a video or camera, whose faces are tracked."""
    fps: float = 0.0
    """Frames per second of the video or camera; 0 for a photograph or where unknown."""
    live: bool = False
    """Of a camera or stream, which does not wait."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """One face found in a frame, before anything is known about its shape."""

    box: Floats
    """(4,) xyxy, frame pixels: the square face box of `align.box_from_square`."""
    score: float
    """0..1."""
    roll: float = 0.0
    """Radians, clockwise in the picture: how far the head is turned from upright."""
    doubtful: bool = False
    """Whether the detector leaves it to the FaceModel to say that this is a face."""


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """A square picture of one head, as the network sees it."""

    image: Image
    """(S, S, 3) uint8 BGR."""
    frame_from_crop: Floats
    """(3, 4): similarity that takes crop pixels and relative depth to frame pixels and relative depth."""


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One reconstructed face. Head frame: +x the subject's left, +y up, +z out of the face, millimetres."""

    shape: Floats
    """(V, 3) mm, head frame: the neutral face, identity only; averaged over its frames on a track, and over the
    photographs in a set."""
    vertices: Floats
    """(V, 3) mm, head frame: `shape` plus this frame's expression."""
    expression: Floats
    """(53,) 0..1, blendshape weights in the contract's order."""
    frame_from_head: Floats
    """(3, 4): scaled-orthographic camera; rows are frame x, frame y (pixels) and relative depth (pixels, away from the
    camera); the left 3x3 is scale (pixels per mm) times a rotation."""
    landmarks: Floats
    """(68, 3) iBUG order, frame pixels and relative depth. As annotated: jaw points on the visible contour,
    not on fixed vertices. Those of this frame alone: on a track, `vertices` carry the shape averaged over time."""
    confidence: float
    """0..1: is this a face, seen well enough."""
    box: Floats
    """(4,) xyxy, frame pixels: the square face box."""
    track: int | None = None
    """Track id in a video; None in a photograph."""
    spread_mm: Floats | None = None
    """(V,) mm: how far the photographs of a set, or the frames of a track, disagree per vertex; None for one image."""
    disagreement: Mapping[str, float] | None = None
    """Ensembles only: {"shape_mm", "vertices_mm", "landmarks_px", "rotation_deg"}, mean distance of the members to
    their average; pixels are the frame's."""
    gaze: Floats | None = None
    """(2, 3) unit vectors, head frame: where the left and the right eye look; None from a model of contract 1."""
    looks: Floats | None = None
    """(4, 128) what the face looks like, coarsely, by `cuts.looks`: tells cuts in a video; None where it has no
    contrast."""
    doubts: tuple[str, ...] = ()
    """Reasons why the face may be less exact, of "small", "cut off", "turned", "blurred" and "covered" (see
    `faces.doubts`). `Pipeline` fills them in."""
    camera_from_head: Floats | None = None
    """(4, 4) where the camera's intrinsics were given: head millimetres to camera millimetres; camera axes x right,
    y down, z forward."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A frame with everything found in it."""

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
    """Tracks that end with it: their faces have been out of sight for 25 frames, or there was a cut to another person
    at their places."""
    shed: Mapping[str, int] | None = None
    """What was left out to keep within a budget, as `budget.Shed` has it: {"looks", "faces"}; None for nothing."""


def face_label(index: int, face: Face) -> str:
    """`track1` for a face with a track, else `face0` by its place in the scene."""
    return f"face{index}" if face.track is None else f"track{face.track}"

"""Pointing'04: photographs of heads whose direction is nominally known -> canvases for training, evaluation figures.

Gourier, Hall and Crowley, Estimating face orientation from robust detection of salient facial structures, FG Net
Workshop on Visual Observation of Deictic Gestures, 2004. People sat in the middle of a room and looked at marks: labels
are where they were asked to look, in steps of 15 degrees.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from facerecon_rt.align import Square, align, square_from_box
from facerecon_rt.faces.detect import Detector
from facerecon_rt.pose import rotation_from_euler
from facerecon_rt.sources.files import read_image
from facerecon_rt.types import Floats
from numpy.typing import NDArray

from ..photographs import CANVAS_MARGIN, CANVAS_SIZE

TRAINING_PEOPLE = frozenset({"01", "02", "03", "04", "05", "06"})
"""Of Pointing'04; the others are for evaluation."""
STEEPEST_TILT = 60
"""Degrees; at 90 the pictures show hair."""


@dataclass(frozen=True, slots=True)
class PointingPhotograph:
    """One photograph and what its name says."""

    path: Path
    person: str
    tilt: int
    """Degrees, upwards positive."""
    pan: int
    """Degrees, positive to the picture's left, the subject's right."""

    @property
    def for_training(self) -> bool:
        """Is this person one to learn from?"""
        return self.person in TRAINING_PEOPLE


def pointing_photographs(folder: Path) -> Iterator[PointingPhotograph]:
    """Every `personNNS<II><tilt><pan>.jpg` of a folder, in name order; other files are passed over."""
    for path in sorted(folder.glob("person*.jpg")):
        match = re.fullmatch(r"person(\d\d)\d{3}([+-]\d+)([+-]\d+)", path.stem)
        if match:
            yield PointingPhotograph(path, match[1], int(match[2]), int(match[3]))


def direction_in_picture(tilt: float, pan: float) -> Floats:
    """Nominal degrees -> (3,) unit vector out of the face: picture x right, y down, z away from the viewer."""
    return rotation_from_euler(tilt, -pan, 0.0)[:, 2].astype(np.float32)


def pack_head_poses(folder: Path, detector: Detector, target: Path) -> int:
    """Write `target/images.npy` (N, 192, 192, 3) uint8 canvases around the detected heads of TRAINING_PEOPLE and
    `target/labels.npz` with direction (N, 3) and person (N,) -> N."""
    canvases, directions, people = [], [], []
    for photograph in pointing_photographs(folder):
        if not photograph.for_training or abs(photograph.tilt) > STEEPEST_TILT:
            continue
        image = read_image(photograph.path)
        found = detector.detect(image)
        if found:
            tight = square_from_box(found[0].box)
            square = Square(tight.x, tight.y, tight.side * CANVAS_MARGIN, 0.0)
            canvases.append(align(image, square, CANVAS_SIZE).image)
            directions.append(direction_in_picture(photograph.tilt, photograph.pan))
            people.append(int(photograph.person))
    if canvases:
        target.mkdir(parents=True, exist_ok=True)
        np.save(target / "images.npy", np.stack(canvases))
        np.savez(target / "labels.npz", direction=np.stack(directions), person=np.array(people, np.int32))
    return len(canvases)


def pose_figures(measured: NDArray[np.float64], nominal: NDArray[np.float64]) -> dict[str, float]:
    """(P, 2) pitch and yaw, (P, 2) nominal tilt and pan, degrees -> mean absolute errors.

    Labels are where people were told to look: sign and zero are fitted (the better sign, the median).
    """

    def error(axis: int) -> float:
        differences = [sign * measured[:, axis] - nominal[:, axis] for sign in (1, -1)]
        return float(min(np.abs(d - np.median(d)).mean() for d in differences))

    return {"pan_deg": error(1), "tilt_deg": error(0)}

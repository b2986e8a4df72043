"""Pointing'04: photographs of heads with nominally known direction -> canvases for training, evaluation figures.

Source: Gourier, Hall and Crowley, Estimating face orientation from robust detection of salient facial structures, FG
Net Workshop on Visual Observation of Deictic Gestures, 2004. People sat in the middle of a room and looked at marks.
The labels say where they were asked to look, in steps of 15 degrees.
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
from facerecon_rt.sinks.outputs import make_folder
from facerecon_rt.sources.files import read_image
from facerecon_rt.types import Floats
from numpy.typing import NDArray

from ..arrays import new_pictures, save_arrays
from ..conventions import BROWS
from ..photographs import CANVAS_MARGIN, CANVAS_SIZE
from ..weak_labels import WeakLabels, corrected, trust_of

TRAINING_PEOPLE = frozenset({"01", "02", "03", "04", "05", "06"})
"""People of Pointing'04 who are trained on. The others are for evaluation."""
STEEPEST_TILT = 60
"""Steepest tilt that is trained on, in degrees. At 90 the pictures show hair."""


@dataclass(frozen=True, slots=True)
class PointingPhotograph:
    """A photograph with the labels of its file name."""

    path: Path
    person: str
    tilt: int
    """Tilt in degrees, positive upwards."""
    pan: int
    """Pan in degrees, positive to the picture's left, which is the subject's right."""

    @property
    def for_training(self) -> bool:
        """Whether this person is trained on."""
        return self.person in TRAINING_PEOPLE

    @property
    def is_seen_well(self) -> bool:
        """Whether other face trackers find the points of this face reliably."""
        return abs(self.tilt) <= 30 and abs(self.pan) <= 45

    @classmethod
    def of(cls, path: Path) -> PointingPhotograph | None:
        """Return the photograph with the labels of its file name, or None for any other name."""
        match = re.fullmatch(r"person(\d\d)\d{3}([+-]\d+)([+-]\d+)", path.stem)
        return cls(path, match[1], int(match[2]), int(match[3])) if match else None


def pointing_photographs(folder: Path) -> Iterator[PointingPhotograph]:
    """Yield every `personNNS<II><tilt><pan>.jpg` of a folder in name order. Other files are ignored."""
    for path in sorted(folder.glob("person*.jpg")):
        photograph = PointingPhotograph.of(path)
        if photograph is not None:
            yield photograph


def direction_in_picture(tilt: float, pan: float) -> Floats:
    """Return the unit vector (3,) out of the face for nominal degrees: picture x right, y down, z away from the
    viewer."""
    return rotation_from_euler(tilt, -pan, 0.0)[:, 2].astype(np.float32)


def pack_head_poses(folder: Path, detector: Detector, target: Path) -> int:
    """Write canvases around the detected heads of TRAINING_PEOPLE, and return their number N.

    `target/images.npy` is (N, CANVAS_SIZE, CANVAS_SIZE, 3) uint8. `target/labels.npz` holds direction (N, 3) and person
    (N,).
    """
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
        make_folder(target)
        new_pictures(target / "images.npy", (len(canvases), CANVAS_SIZE, CANVAS_SIZE, 3))[:] = canvases
        save_arrays(target / "labels.npz", direction=np.stack(directions), person=np.array(people, np.int32))
    return len(canvases)


def neutral_faces(labels: WeakLabels) -> WeakLabels:
    """Return the labels of the photographs of TRAINING_PEOPLE whose faces are seen well, with faces at rest.

    All of these faces are at rest, as a look at each of them shows. Only lids and gaze follow the tilt. Points of brows
    are left out, because the tracker's mesh has none at the ends of brows.
    """
    chosen = []
    for name in labels.files:
        photograph = PointingPhotograph.of(Path(name))
        if photograph is not None and photograph.for_training and photograph.is_seen_well:
            chosen.append((name, labels.files[name], int(photograph.person)))
    rows = [row for _, row, _ in chosen]
    landmarks = labels.landmarks[rows]
    landmarks[:, BROWS] = np.nan
    return WeakLabels(
        files={name: i for i, (name, _, _) in enumerate(chosen)},
        blendshapes=np.array([corrected(labels.blendshapes[row], {}) for row in rows]),
        trust=np.array([trust_of({}) for _ in rows]),
        eyes=labels.eyes[rows],
        landmarks=landmarks,
        person=np.array([person for _, _, person in chosen]),
        valid=labels.valid[rows],
    )


def pose_figures(measured: NDArray[np.float64], nominal: NDArray[np.float64]) -> dict[str, float]:
    """Return the mean absolute errors of pitch and yaw (P, 2) against nominal tilt and pan (P, 2), in degrees.

    Labels say where people were asked to look. The sign and the zero are therefore fitted: the better sign, the median.
    """

    def error(axis: int) -> float:
        differences = [sign * measured[:, axis] - nominal[:, axis] for sign in (1, -1)]
        return float(min(np.abs(d - np.median(d)).mean() for d in differences))

    return {"pan_deg": error(1), "tilt_deg": error(0)}

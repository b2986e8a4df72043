"""A face detector and pictures that it has never seen -> how well it finds faces. Works for our detector and for
YuNet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from facerecon_rt.align import box_overlap
from facerecon_rt.annotated import annotated_photographs
from facerecon_rt.errors import UsageError
from facerecon_rt.faces.detect import Detector, open_detector
from facerecon_rt.faces.yunet import YunetDetector
from facerecon_rt.sources.files import open_source, read_image
from facerecon_rt.types import Detection, Floats, Image

from ..rendered.head_pose import pointing_photographs
from .data import NATIVE, YUNET, DetectorCache, label_from_landmarks

HIT_DISTANCE, HIT_FACTOR = 0.3, 1.35
"""A face counts as found if a box's centre is within this many sides of its own, and the sides within this factor."""


def measure_detector(path: Path, data: Path) -> dict[str, dict[str, float]]:
    """Return tables of figures of a detector file, ours or YuNet's, on data that training never sees.

    Pictures without annotation (crowd, head pose) are compared with YuNet. Kinds of pictures that `data` lacks are left
    out. Raises UsageError if there are none at all.
    """
    detector, larger = open_detector(path), open_detector(path, size=640)
    yunet = YunetDetector(data / YUNET, size=NATIVE)
    figures: dict[str, dict[str, float]] = {}
    for group in ("lfpw-test", "youtube-test"):
        if not (data / "faces" / group).is_dir():
            continue
        found = measure_found(detector, annotated(data / "faces" / group))
        figures[f"detector, {group}"] = {
            "found %": 100 * found.recall,
            "centre error, sides": found.centre_error,
            "scale error %": 100 * found.scale_error,
            "roll error, degrees": found.roll_error_deg,
        }
    for quarter in (1, 2, 3) if (data / "faces" / "lfpw-test").is_dir() else ():
        found = measure_found(detector, turned(annotated(data / "faces" / "lfpw-test"), quarter))
        figures[f"detector, lfpw-test turned by {90 * quarter} degrees"] = {
            "found %": 100 * found.recall,
            "roll error, degrees": found.roll_error_deg,
        }
    shares = {video.name: frames(video) for video in sorted((data / "videos").glob("head_*.mp4"))}
    shares["identities"] = (read_image(photograph) for photograph in sorted((data / "identities").rglob("*.jpg")))
    figures["detector, pictures with a face %"] = {
        name: 100 * some / total
        for name, (some, total) in ((name, share_with_a_face(detector, images)) for name, images in shares.items())
        if total
    }
    crowd = data / "videos" / "crowd_1080p.mp4"
    if crowd.is_file():
        ours, theirs, both = crowd_agreement(larger, yunet, frames(crowd, every=15))
        figures["detector, crowd at 640"] = {"faces": ours, "faces YuNet finds in full frames": theirs, "both": both}
    figures["detector, head pose, agrees with YuNet %"] = {
        f"pan {pan}": 100 * agreed / total
        for pan, (agreed, _, total) in found_by_pan(detector, yunet, data / "head_pose").items()
    }
    measured = {title: row for title, row in figures.items() if row}
    if not measured:
        raise UsageError(f"nothing to measure on: {data} has none of the folders that training/README.md lists")
    return measured


@dataclass(frozen=True, slots=True)
class Found:
    """Figures of how well annotated faces are found, with one face per picture."""

    pictures: int
    recall: float
    """Share of the faces that are found, as `best_hit` counts."""
    centre_error: float
    """Mean error over the found faces, in sides of the annotated box."""
    scale_error: float
    """Mean of |log side / annotated side| over the found faces."""
    roll_error_deg: float
    """Mean absolute error of the roll over the found faces."""

    def line(self) -> str:
        """Return the figures as text."""
        return (
            f"{self.recall:.2%} of {self.pictures} found; mean errors: centre {self.centre_error:.4f} sides, "
            f"scale {self.scale_error:.2%}, roll {self.roll_error_deg:.1f} degrees"
        )


def best_hit(found: list[Detection], label: Floats) -> tuple[float, float, float] | None:
    """Return the errors of the nearest detection that counts as this face, or None.

    They are the centre error in sides, |log| of the scale error, and |roll error| in degrees.
    """
    x, y, side, _, roll = (float(v) for v in label)
    hits = []
    for detection in found:
        x1, y1, x2, y2 = (float(v) for v in detection.box)
        distance = math.hypot((x1 + x2) / 2 - x, (y1 + y2) / 2 - y) / side
        factor = abs(math.log((x2 - x1) / side))
        if distance <= HIT_DISTANCE and factor <= math.log(HIT_FACTOR):
            turn = math.degrees(abs(math.remainder(detection.roll - roll, 2 * math.pi)))
            hits.append((distance, factor, turn))
    return min(hits, default=None)


def measure_found(detector: Detector, pictures: Iterable[tuple[Image, Floats]]) -> Found:
    """Measure a detector on pictures, each with the label (5,) of its face, as in LabelledImage."""
    hits = [best_hit(detector.detect(image), label) for image, label in pictures]
    errors = [hit for hit in hits if hit is not None]
    centre, scale, roll = np.mean(errors, axis=0) if errors else (math.nan, math.nan, math.nan)
    return Found(len(hits), len(errors) / max(1, len(hits)), float(centre), float(scale), float(roll))


def turned(pictures: Iterable[tuple[Image, Floats]], quarters: int) -> Iterator[tuple[Image, Floats]]:
    """Yield pictures and labels turned clockwise, `quarters` times by 90 degrees."""
    for image, label in pictures:
        x, y, side, known, roll = (float(v) for v in label)
        for _ in range(quarters):
            x, y = image.shape[0] - 1 - y, x
            image = np.ascontiguousarray(np.rot90(image, -1))
        yield image, np.array([x, y, side, known, roll + quarters * math.pi / 2], np.float32)


def annotated(folder: Path) -> Iterator[tuple[Image, Floats]]:
    """Yield photographs with .pts files, and the labels of their faces."""
    for photograph in annotated_photographs(folder):
        yield read_image(photograph.path), np.array(label_from_landmarks(photograph.landmarks), np.float32)


def held_out_photographs(cache: DetectorCache) -> Iterator[tuple[Image, Floats]]:
    """Yield the held-out photographs with the annotated face's label. Faces that only YuNet saw are left out."""
    for index in np.flatnonzero(cache.held_out & (cache.groups != "backgrounds")):
        yield cache.image(int(index)), cache.faces[index][0]


def held_out_backgrounds(cache: DetectorCache) -> Iterator[Image]:
    """Yield the held-out backgrounds."""
    for index in np.flatnonzero(cache.held_out & (cache.groups == "backgrounds")):
        yield cache.image(int(index))


def false_per_background(detector: Detector, cache: DetectorCache) -> float:
    """Return the number of detections per held-out background."""
    counts = [len(detector.detect(image)) for image in held_out_backgrounds(cache)]
    return sum(counts) / max(1, len(counts))


def frames(path: Path, every: int = 1) -> Iterator[Image]:
    """Yield every `every`-th frame of a video. Raises SourceError for a file that is not a video."""
    with open_source(path) as video:
        yield from (frame.image for frame in islice(video, 0, None, every))


def share_with_a_face(detector: Detector, pictures: Iterable[Image]) -> tuple[int, int]:
    """Return the number of pictures with a detection, and the number of all pictures."""
    found = [bool(detector.detect(image)) for image in pictures]
    return sum(found), len(found)


def agreement(ours: list[Detection], theirs: list[Detection], overlap: float = 0.35) -> int:
    """Return how many of `theirs` have a box of `ours` on them, one to one.

    The intersection over union must be at least `overlap`.
    """
    left = list(ours)
    agreed = 0
    for other in theirs:
        best = max(left, key=lambda d: box_overlap(d.box, other.box), default=None)
        if best is not None and box_overlap(best.box, other.box) >= overlap:
            left.remove(best)
            agreed += 1
    return agreed


def crowd_agreement(ours: Detector, theirs: Detector, pictures: Iterable[Image]) -> tuple[int, int, int]:
    """Return the numbers of faces that ours finds, that theirs finds, and that both find, over all pictures."""
    counts = [0, 0, 0]
    for image in pictures:
        a, b = ours.detect(image), theirs.detect(image)
        counts = [counts[0] + len(a), counts[1] + len(b), counts[2] + agreement(a, b)]
    return counts[0], counts[1], counts[2]


def found_by_pan(detector: Detector, reference: Detector, folder: Path) -> dict[int, tuple[int, int, int]]:
    """Return counts of Pointing'04's evaluation pictures for each |pan|.

    The counts are pictures with a face that agrees with the reference's box, pictures with a face anywhere, and all
    pictures. Tilts of 90 degrees, where only hair is seen, are left out.
    """
    counts: dict[int, tuple[int, int, int]] = {}
    for photograph in pointing_photographs(folder):
        if photograph.for_training or abs(photograph.tilt) == 90:
            continue
        image = read_image(photograph.path)
        found, wanted = detector.detect(image), reference.detect(image)[:1]
        agreed, some, total = counts.get(abs(photograph.pan), (0, 0, 0))
        counts[abs(photograph.pan)] = (agreed + (agreement(found, wanted) > 0), some + bool(found), total + 1)
    return dict(sorted(counts.items()))

"""Photographs with iBUG landmarks -> the error of a model's landmarks, measured as in 300-W."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import SourceError
from .faces.reconstruct import Reconstructor
from .paths import is_folder, read_file
from .sources.files import IMAGE_SUFFIXES, read_image
from .types import Face, Floats

INNER_49: tuple[int, ...] = tuple(i for i in range(17, 68) if i not in (60, 64))
"""iBUG indices of a 49-point file, which has no jaw and no inner mouth corners."""
INNER_51 = list(range(17, 68))
MOST_PTS_BYTES = 2**20
FARTHEST_PX = 1e6
"""Maximum distance of a landmark from the picture's corner, in pixels."""
LEAST_FACE_PX = 1.0
"""Minimum width and height that the landmarks span, in pixels."""
NEAR = 0.6
"""Maximum distance between the middles of a found and an annotated face, as a share of the latter's size. A more
distant face is another face."""


@dataclass(frozen=True, slots=True, eq=False)
class Annotated:
    """A photograph and its landmarks."""

    path: Path
    landmarks: Floats
    """(68, 2) iBUG order, frame pixels, origin at the centre of the top-left pixel; NaN where not annotated."""


def read_pts(path: Path) -> Floats:
    """Read an iBUG .pts file of 68 or 49 points (1-based pixels) into landmarks (68, 2), with NaN for missing points.

    Raises SourceError, which names the file, for a file of another kind.
    """
    try:
        text = read_file(path, MOST_PTS_BYTES).decode()
        values = np.array(text[text.index("{") + 1 : text.index("}")].split(), np.float64).reshape(-1, 2) - 1.0
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise SourceError(f"{path} is not an iBUG .pts file: {str(error)[:100]}") from error
    if not np.all(np.abs(values) <= FARTHEST_PX):  # also catches NaN
        raise SourceError(f"{path} has points far outside of any picture; annotate it again")
    if len(values) not in (68, len(INNER_49)):
        raise SourceError(f"{path} has {len(values)} points; only 68, or 49 without the jaw, are supported")
    if min(np.ptp(values, axis=0)) < LEAST_FACE_PX:
        raise SourceError(f"{path} has all points on a line or in one place; annotate it again")
    points = values.astype(np.float32)
    if len(points) == 68:
        return points
    landmarks = np.full((68, 2), np.nan, np.float32)
    landmarks[list(INNER_49)] = points
    return landmarks


def annotated_photographs(folder: Path) -> Iterator[Annotated]:
    """Yield every photograph, such as `x.jpg`, that has an `x.pts` beside it, in name order. Raises SourceError for a
    folder without such photographs."""
    if not is_folder(folder):
        raise SourceError(f"{folder} is not a folder of photographs with .pts files")
    found = False
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise SourceError(f"cannot read {folder}: {error.strerror}") from error
    pictures = {path.stem: path for path in inside if path.suffix.lower() in IMAGE_SUFFIXES}
    for points in (path for path in inside if path.suffix == ".pts"):
        image = pictures.get(points.stem)
        if image is not None:
            found = True
            yield Annotated(image, read_pts(points))
    if not found:
        raise SourceError(f"{folder} holds no photograph with a .pts file of the same name")


def landmark_figures(predicted: Floats, true: Floats) -> dict[str, float]:
    """Return the mean NME in percent of the annotated landmarks, and of all 68 where all are annotated.

    `predicted`, `true`: (P, 68, 2) pixels, NaN where not annotated. The inter-ocular NME divides by the distance of the
    outer eye corners, and the bbox NME by the root of the area of the true points' box (300-W, Sagonas et al. 2013;
    Bulat and Tzimiropoulos 2017).
    """
    error = np.linalg.norm(predicted - true, axis=2)
    ocular = np.linalg.norm(true[:, 36] - true[:, 45], axis=1)
    box = np.sqrt(np.prod(np.nanmax(true, 1) - np.nanmin(true, 1), axis=1))
    inner = np.nanmean(error[:, INNER_51], axis=1) / ocular
    figures = {
        "nme_inner51": float(100 * np.mean(inner)),
        "failures_inner51_over_10": float(100 * np.mean(inner > 0.1)),
    }
    if np.isfinite(true).all():
        figures["nme_68"] = float(100 * np.mean(error.mean(1) / ocular))
        figures["nme_68_bbox"] = float(100 * np.mean(error.mean(1) / box))
    return figures


def photograph_figures(
    reconstructor: Reconstructor, photographs: Iterable[Annotated]
) -> tuple[dict[str, float], list[Face]]:
    """Return the `landmark_figures` of the faces found nearest to the annotated ones, and those faces.

    The figures include the number of photographs and the percentage found. Boxes come from the detector. Raises
    SourceError where no annotated face was found.
    """
    predicted, truth, faces, count = [], [], [], 0
    for photograph in photographs:
        count += 1
        true = photograph.landmarks
        inner = true[17:]
        centre, size = np.nanmean(inner, 0), np.max(np.nanmax(inner, 0) - np.nanmin(inner, 0))
        found = reconstructor.faces(read_image(photograph.path))
        distances = [float(np.linalg.norm(face.landmarks[17:, :2].mean(0) - centre)) for face in found]
        if distances and min(distances) < NEAR * size:
            face = found[int(np.argmin(distances))]
            faces.append(face)
            predicted.append(face.landmarks[:, :2])
            truth.append(true)
    if not faces:
        raise SourceError(f"none of the {count} annotated faces was found; check that these are photographs of faces")
    figures = landmark_figures(np.stack(predicted), np.stack(truth))
    return {"photographs": count, "found_percent": 100 * len(faces) / count, **figures}, faces

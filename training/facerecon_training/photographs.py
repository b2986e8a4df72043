"""Folders of annotated photographs -> upright canvases around each head, with landmarks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from facerecon_rt.align import Square, frame_from_crop, square_from_camera
from facerecon_rt.annotated import annotated_photographs
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import SourceError
from facerecon_rt.pose import fit_camera
from facerecon_rt.sinks.outputs import make_folder
from facerecon_rt.sources.files import read_image
from facerecon_rt.template import load_template
from facerecon_rt.types import Floats, Image
from tqdm import tqdm

from .arrays import new_pictures, save_arrays
from .weak_labels import DEVELOPMENT_SHARE, WeakLabels

CANVAS_SIZE = 224
CANVAS_MARGIN = 1.4
"""Side of a canvas relative to the side of a crop. The margin is room for shifts, turns and zooms."""
HALF_PIXEL = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 0.5]])
"""Offset that turns a (2, 3) affine map into one whose pixels are counted from the picture's corner."""


def camera_from_landmarks(landmarks: Floats) -> Floats:
    """Return the scaled-orthographic camera (3, 4) of the mean face that fits landmarks (68, 2), some of them NaN.

    Jaw points lie on the visible contour and not on fixed places of the head, so only the inner 51 points count.
    """
    known = np.isfinite(landmarks[:, 0])
    known[:17] = False
    return fit_camera(load_template().landmark_positions[known], landmarks[known])


def canvas_from_photograph(image: Image, landmarks: Floats, *, reflect: bool) -> tuple[Image, Floats]:
    """Return an upright canvas of CANVAS_SIZE pixels around a photograph's head, and the points in it.

    `landmarks` (68 + K, 2) are the landmarks and other points. Raises SourceError for landmarks that are hundreds of
    times as large as the picture.
    """
    tight = square_from_camera(camera_from_landmarks(landmarks[:68]))
    square = Square(tight.x, tight.y, tight.side * CANVAS_MARGIN, tight.roll)
    frame_from_canvas = frame_from_crop(square, CANVAS_SIZE)[:2, [0, 1, 3]].astype(np.float64)
    scale = square.side / CANVAS_SIZE
    if scale > 1.5:
        factor = 1.0 / scale
        if min(image.shape[:2]) * factor < 1:
            raise SourceError("its landmarks span far more than the picture; annotate the photograph again")
        image = np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)
        frame_from_canvas = (frame_from_canvas + HALF_PIXEL) * factor - HALF_PIXEL
        reduced = (landmarks + 0.5) * factor - 0.5
    else:
        reduced = landmarks
    border = cv2.BORDER_REFLECT_101 if reflect else cv2.BORDER_CONSTANT
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    canvas = cv2.warpAffine(image, frame_from_canvas, (CANVAS_SIZE, CANVAS_SIZE), flags=flags, borderMode=border)
    canvas_from_frame = cv2.invertAffineTransform(frame_from_canvas)
    points = reduced @ canvas_from_frame[:, :2].T + canvas_from_frame[:, 2]
    return np.asarray(canvas, np.uint8), points.astype(np.float32)


_Photograph = tuple[Path, tuple[slice, slice] | None, Floats, str]
"""Path, the valid part of the picture (None for all of it), landmarks (68, 2) in that part, and the person."""


def pack_photographs(folder: Path, target: Path, weak: WeakLabels | None = None) -> int:
    """Write `target/images.npy` and `target/labels.npz` for one folder, and return the number N of photographs.

    The images are (N, CANVAS_SIZE, CANVAS_SIZE, 3) uint8. The labels are:

    - landmarks (N, 68, 2) canvas pixels, NaN where not annotated
    - person (N,), from file names up to their last underscore, so that frames of one person share it
    - blendshapes (N, 53) and eyes (N, 2, 3, 2) canvas pixels of `WeakLabels`, NaN where nothing is known
    - trust (N, 53) of `WeakLabels`
    """
    photographs = list(annotated_photographs(folder))
    rows = [weak.files.get(f"{folder.name}/{one.path.name}", -1) if weak is not None else -1 for one in photographs]
    faces = ((one.path, None, one.landmarks, one.path.stem.rpartition("_")[0] or one.path.stem) for one in photographs)
    return _pack(faces, len(photographs), rows, weak, target)


def pack_weakly_labelled(folder: Path, weak: WeakLabels, target: Path) -> int:
    """Write the same files for a folder whose photographs have only weak labels, including landmarks.

    Returns the number of photographs. People who are kept for development are left out. Where the labels do not name
    the person, each photograph shows another one.
    """
    rows = [row for row in weak.files.values() if weak.person[row] < 0 or weak.person[row] % DEVELOPMENT_SHARE]
    names = list(weak.files)

    def faces() -> Iterator[_Photograph]:
        for row in rows:
            x0, y0, x1, y1 = (int(value) for value in weak.valid[row])
            part = slice(y0, y1), slice(x0, x1)
            person = str(weak.person[row]) if weak.person[row] >= 0 else names[row]
            yield folder / names[row], part, weak.landmarks[row] - [x0, y0], person

    corner = weak.valid[:, None, None, :2]
    return _pack(faces(), len(rows), rows, replace(weak, eyes=weak.eyes - corner), target)


def _pack(faces: Iterable[_Photograph], count: int, rows: list[int], weak: WeakLabels | None, target: Path) -> int:
    """Write the files of these photographs. `rows` are their rows in the weak labels, or -1."""
    make_folder(target)
    images = new_pictures(target / "images.npy", (count, CANVAS_SIZE, CANVAS_SIZE, 3))
    landmarks = np.zeros((count, 68, 2), np.float32)
    blendshapes = np.full((count, len(BLENDSHAPES)), np.nan, np.float32)
    trust = np.ones((count, len(BLENDSHAPES)), np.float32)
    eyes = np.full((count, 2, 3, 2), np.nan, np.float32)
    people = []
    progress = tqdm(faces, total=count, desc=f"packing {target.name}", unit="photo", leave=False)
    for i, (path, part, points, person) in enumerate(progress):
        row, image = rows[i], read_image(path)
        if part is not None:
            image = np.ascontiguousarray(image[part])
        others = weak.eyes[row].reshape(-1, 2) if weak is not None and row >= 0 else np.full((6, 2), np.nan, np.float32)
        try:
            images[i], placed = canvas_from_photograph(image, np.concatenate([points, others]), reflect=i % 2 == 0)
        except SourceError as error:
            raise SourceError(f"{path}: {error}") from error
        landmarks[i], eyes[i] = placed[:68], placed[68:].reshape(2, 3, 2)
        if weak is not None and row >= 0:
            blendshapes[i], trust[i] = weak.blendshapes[row], weak.trust[row]
        people.append(person)
    images.flush()
    _, number = np.unique(people, return_inverse=True)
    save_arrays(
        target / "labels.npz",
        landmarks=landmarks,
        person=number.astype(np.int32),
        blendshapes=blendshapes,
        trust=trust,
        eyes=eyes,
    )
    return count

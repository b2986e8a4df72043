"""Folders of annotated photographs -> upright canvases around each head, with landmarks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from facerecon_rt.align import Square, frame_from_crop, square_from_camera
from facerecon_rt.errors import SourceError
from facerecon_rt.pose import fit_camera
from facerecon_rt.template import load_template
from facerecon_rt.types import Floats, Image
from tqdm import tqdm

INNER_49: tuple[int, ...] = tuple(i for i in range(17, 68) if i not in (60, 64))
"""iBUG indices of a 49-point file: no jaw, no inner mouth corners."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
CANVAS_SIZE = 192
CANVAS_MARGIN = 1.4
"""Side of a canvas over the side of a crop: room for shifts, turns and zooms."""
HALF_PIXEL = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 0.5]])
"""What is added to a (2, 3) affine map so that its pixels are counted from the picture's corner."""


@dataclass(frozen=True, slots=True, eq=False)
class Annotated:
    """One photograph and its landmarks."""

    path: Path
    landmarks: Floats
    """(68, 2) iBUG order, frame pixels, origin at the centre of the top-left pixel; NaN where not annotated."""


def read_pts(path: Path) -> Floats:
    """An iBUG .pts file of 68 or 49 points (1-based pixels) -> (68, 2) landmarks, NaN where there is none.

    Raises SourceError naming the file when it is not one.
    """
    try:
        text = path.read_text()
        values = np.array(text[text.index("{") + 1 : text.index("}")].split(), np.float32).reshape(-1, 2) - 1.0
    except ValueError as error:
        raise SourceError(f"{path} is not an iBUG .pts file: {error}") from error
    if len(values) == 68:
        return values
    if len(values) != len(INNER_49):
        raise SourceError(f"{path} has {len(values)} points; 68, or 49 without the jaw, are understood")
    landmarks = np.full((68, 2), np.nan, np.float32)
    landmarks[list(INNER_49)] = values
    return landmarks


def annotated_photographs(folder: Path) -> Iterator[Annotated]:
    """Every `x.jpg|png` with an `x.pts` beside it, in name order. Raises SourceError when there is none."""
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder of photographs with .pts files")
    found = False
    for points in sorted(folder.glob("*.pts")):
        image = next((points.with_suffix(s) for s in IMAGE_SUFFIXES if points.with_suffix(s).is_file()), None)
        if image is not None:
            found = True
            yield Annotated(image, read_pts(points))
    if not found:
        raise SourceError(f"{folder} holds no photograph with a .pts file of the same name")


def camera_from_landmarks(landmarks: Floats) -> Floats:
    """(68, 2) landmarks, some NaN -> the scaled-orthographic camera (3, 4) of the mean face that fits them.

    Jaw points lie on the visible contour, not on fixed places of the head, so the inner 51 decide.
    """
    known = np.isfinite(landmarks[:, 0])
    known[:17] = False
    return fit_camera(load_template().landmark_positions[known], landmarks[known])


def canvas_from_photograph(image: Image, landmarks: Floats, *, reflect: bool) -> tuple[Image, Floats]:
    """A photograph and its (68, 2) landmarks -> an upright canvas (CANVAS_SIZE square) and the landmarks in it."""
    tight = square_from_camera(camera_from_landmarks(landmarks))
    square = Square(tight.x, tight.y, tight.side * CANVAS_MARGIN, tight.roll)
    frame_from_canvas = frame_from_crop(square, CANVAS_SIZE)[:2, [0, 1, 3]].astype(np.float64)
    scale = square.side / CANVAS_SIZE
    if scale > 1.5:
        factor = 1.0 / scale
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        frame_from_canvas = (frame_from_canvas + HALF_PIXEL) * factor - HALF_PIXEL
        reduced = (landmarks + 0.5) * factor - 0.5
    else:
        reduced = landmarks
    border = cv2.BORDER_REFLECT_101 if reflect else cv2.BORDER_CONSTANT
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    canvas = cv2.warpAffine(image, frame_from_canvas, (CANVAS_SIZE, CANVAS_SIZE), flags=flags, borderMode=border)
    canvas_from_frame = cv2.invertAffineTransform(frame_from_canvas)
    return canvas, (reduced @ canvas_from_frame[:, :2].T + canvas_from_frame[:, 2]).astype(np.float32)


def pack_photographs(folder: Path, target: Path) -> int:
    """Write `target/images.npy` (N, 192, 192, 3) uint8 and `target/labels.npz` for one folder -> N.

    Labels: landmarks (N, 68, 2) canvas pixels, NaN where not annotated; person (N,), file names up to their last
    underscore, so that frames of one person share it.
    """
    photographs = list(annotated_photographs(folder))
    target.mkdir(parents=True, exist_ok=True)
    shape = (len(photographs), CANVAS_SIZE, CANVAS_SIZE, 3)
    images = np.lib.format.open_memmap(target / "images.npy", "w+", np.uint8, shape)
    landmarks = np.zeros((len(photographs), 68, 2), np.float32)
    people = []
    for i, photograph in enumerate(tqdm(photographs, desc=f"packing {folder.name}", unit="photo", leave=False)):
        image = cv2.imread(str(photograph.path), cv2.IMREAD_COLOR)
        if image is None:
            raise SourceError(f"{photograph.path} is not a readable image")
        images[i], landmarks[i] = canvas_from_photograph(image, photograph.landmarks, reflect=i % 2 == 0)
        people.append(photograph.path.stem.rpartition("_")[0] or photograph.path.stem)
    images.flush()
    _, person = np.unique(people, return_inverse=True)
    np.savez(target / "labels.npz", landmarks=landmarks, person=person.astype(np.int32))
    return len(photographs)

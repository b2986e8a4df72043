"""Folders of annotated photographs -> upright canvases around each head, with landmarks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from facerecon_rt.align import Square, frame_from_crop, square_from_camera
from facerecon_rt.annotated import annotated_photographs
from facerecon_rt.errors import SourceError
from facerecon_rt.pose import fit_camera
from facerecon_rt.sources import read_image
from facerecon_rt.template import load_template
from facerecon_rt.types import Floats, Image
from tqdm import tqdm

CANVAS_SIZE = 192
CANVAS_MARGIN = 1.4
"""Side of a canvas over the side of a crop: room for shifts, turns and zooms."""
HALF_PIXEL = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 0.5]])
"""What is added to a (2, 3) affine map so that its pixels are counted from the picture's corner."""


def camera_from_landmarks(landmarks: Floats) -> Floats:
    """(68, 2) landmarks, some NaN -> the scaled-orthographic camera (3, 4) of the mean face that fits them.

    Jaw points lie on the visible contour, not on fixed places of the head, so the inner 51 decide.
    """
    known = np.isfinite(landmarks[:, 0])
    known[:17] = False
    return fit_camera(load_template().landmark_positions[known], landmarks[known])


def canvas_from_photograph(image: Image, landmarks: Floats, *, reflect: bool) -> tuple[Image, Floats]:
    """A photograph and its (68, 2) landmarks -> an upright canvas (CANVAS_SIZE square) and the landmarks in it. Raises
    SourceError where they are hundreds of times as large as the picture."""
    tight = square_from_camera(camera_from_landmarks(landmarks))
    square = Square(tight.x, tight.y, tight.side * CANVAS_MARGIN, tight.roll)
    frame_from_canvas = frame_from_crop(square, CANVAS_SIZE)[:2, [0, 1, 3]].astype(np.float64)
    scale = square.side / CANVAS_SIZE
    if scale > 1.5:
        factor = 1.0 / scale
        if min(image.shape[:2]) * factor < 1:
            raise SourceError("its landmarks span far more than the picture; annotate it again")
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
        image = read_image(photograph.path)
        try:
            images[i], landmarks[i] = canvas_from_photograph(image, photograph.landmarks, reflect=i % 2 == 0)
        except SourceError as error:
            raise SourceError(f"{photograph.path}: {error}") from error
        people.append(photograph.path.stem.rpartition("_")[0] or photograph.path.stem)
    images.flush()
    _, person = np.unique(people, return_inverse=True)
    np.savez(target / "labels.npz", landmarks=landmarks, person=person.astype(np.int32))
    return len(photographs)

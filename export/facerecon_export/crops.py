"""Folder of photographs -> crops as the network sees them, to verify an exported model with."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from facerecon_rt.align import align, square_from_camera
from facerecon_rt.errors import SourceError
from facerecon_rt.types import Image
from facerecon_training.photographs import IMAGE_SUFFIXES, camera_from_landmarks, read_pts
from numpy.typing import NDArray

Crops = NDArray[np.uint8]
"""(N, S, S, 3) uint8 BGR."""


def verification_crops(folder: Path | None, size: int, count: int = 28) -> tuple[Crops, str]:
    """Crops from `folder`; from $FACERECON_DATA/faces/lfpw-test where it is None; made up where that is not there.

    Also says, in words, which of them it was.
    """
    data = os.environ.get("FACERECON_DATA")
    if folder is None and data and (Path(data) / "faces" / "lfpw-test").is_dir():
        folder = Path(data) / "faces" / "lfpw-test"
    if folder is None:
        return synthetic_crops(size, count), f"{count} made-up pictures, no faces (give real ones with --crops FOLDER)"
    crops = load_crops(folder, size, count)
    return crops, f"{len(crops)} crops of {folder}"


def load_crops(folder: Path, size: int, count: int) -> Crops:
    """Up to `count` pictures, evenly spread over the folder in name order.

    `x.jpg` with `x.pts` beside it is aligned by its landmarks; a picture without is taken as a crop, and scaled.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; give one with photographs, or leave --crops out")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise SourceError(f"{folder}: no photograph in it ({', '.join(IMAGE_SUFFIXES)}); give a folder that has some")
    chosen = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    return np.stack([_load_crop(paths[i], size) for i in chosen])


def _load_crop(path: Path, size: int) -> Image:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SourceError(f"{path}: cannot be read as a picture; remove it or give another folder")
    points = path.with_suffix(".pts")
    if not points.is_file():
        return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
    square = square_from_camera(camera_from_landmarks(read_pts(points)))
    return align(np.asarray(image, np.uint8), square, size).image


def synthetic_crops(size: int, count: int) -> Crops:
    """Smooth colours, always the same ones: every level of brightness, but no faces."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return np.stack([cv2.resize(c, (size, size), interpolation=cv2.INTER_CUBIC) for c in coarse]).astype(np.uint8)

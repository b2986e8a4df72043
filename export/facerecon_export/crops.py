"""Folder of photographs -> crops as the network sees them, to calibrate and to verify exported models with."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
import numpy as np
from facerecon_rt.align import align, square_from_camera
from facerecon_rt.annotated import read_pts
from facerecon_rt.data_folder import default_data
from facerecon_rt.errors import SourceError, UsageError
from facerecon_rt.paths import exists, is_folder
from facerecon_rt.sources.files import IMAGE_SUFFIXES, read_image
from facerecon_rt.types import Floats, Image
from facerecon_training.photographs import camera_from_landmarks
from numpy.typing import NDArray
from tqdm import tqdm

Crops = NDArray[np.uint8]
"""(N, S, S, 3) uint8 BGR."""

LEAST_CROPS = 200
"""Real ones, to calibrate with and to judge a lower precision by."""


@dataclass(frozen=True, slots=True, eq=False)
class FaceCrops:
    """Crops, and where their landmarks are if somebody has annotated them."""

    images: Crops
    landmarks: Floats
    """(N, 68, 2) crop pixels; NaN where not annotated."""
    source: str
    """In words."""
    real: bool
    """False for made-up pictures."""


def faces_of_data(name: str) -> Path | None:
    """The folder $FACERECON_DATA/faces/NAME; None where it does not exist."""
    data = default_data()
    folder = data / "faces" / name if data else None
    return folder if folder is not None and is_folder(folder) else None


def verification_crops(folder: Path | None, size: int, count: int = 224) -> FaceCrops:
    """Crops from `folder`; from $FACERECON_DATA/faces/lfpw-test where it is None; made up where that is not there."""
    folder = folder or faces_of_data("lfpw-test")
    if folder is None:
        unknown = np.full((28, 68, 2), np.nan, np.float32)
        which = f"{len(unknown)} made-up pictures, no faces (give real ones with --crops FOLDER)"
        return FaceCrops(synthetic_crops(size, len(unknown)), unknown, which, real=False)
    return load_crops(folder, size, count)


def calibration_folder(folder: Path | None) -> Path:
    """`folder`, or $FACERECON_DATA/faces/helen-train. Raises UsageError where neither is there."""
    folder = folder or faces_of_data("helen-train")
    if folder is None:
        raise UsageError(
            "int8 is calibrated on real photographs: give them with --calibration FOLDER, set $FACERECON_DATA, or ask "
            "for --precision fp32 fp16"
        )
    return folder


class Pictures(Protocol):
    """Crops or photographs."""

    @property
    def images(self) -> Sized:
        """One each."""

    @property
    def source(self) -> str:
        """In words."""

    @property
    def real(self) -> bool:
        """False for made-up pictures."""


SomePictures = TypeVar("SomePictures", bound=Pictures)


def enough(crops: SomePictures, purpose: str, option: str) -> SomePictures:
    """The pictures. Raises UsageError where they are made up or fewer than a lower precision can be trusted with."""
    if not crops.real or len(crops.images) < LEAST_CROPS:
        raise UsageError(
            f"{purpose} needs at least {LEAST_CROPS} real pictures, not {crops.source}; give more: {option} FOLDER, "
            "or ask for --precision fp32 alone"
        )
    return crops


def load_crops(folder: Path, size: int, count: int) -> FaceCrops:
    """Up to `count` pictures of a folder.

    `x.jpg` with `x.pts` beside it is aligned by its landmarks; a picture without is taken as a crop, and scaled.
    """
    shown = tqdm(picture_paths(folder, count), f"reading {folder.name}", unit="img", leave=False, disable=None)
    crops, landmarks = zip(*(_load_crop(path, size) for path in shown), strict=True)
    return FaceCrops(np.stack(crops), np.stack(landmarks), f"{len(crops)} crops of {folder}", real=True)


def picture_paths(folder: Path, count: int) -> list[Path]:
    """Up to `count` pictures, evenly spread over the folder in name order. Raises SourceError where there is none."""
    if not is_folder(folder):
        raise SourceError(f"{folder}: no such folder; give one with photographs")
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    except OSError as error:
        raise SourceError(f"cannot read {folder}: {error.strerror}") from error
    if not paths:
        raise SourceError(f"{folder}: no photograph in it ({', '.join(IMAGE_SUFFIXES)}); give a folder that has some")
    return [paths[i] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)]


def _load_crop(path: Path, size: int) -> tuple[Image, Floats]:
    image = read_image(path)
    points = path.with_suffix(".pts")
    if not exists(points):
        scaled = np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
        return scaled, np.full((68, 2), np.nan, np.float32)
    landmarks = read_pts(points)
    crop = align(image, square_from_camera(camera_from_landmarks(landmarks)), size)
    crop_from_frame = cv2.invertAffineTransform(crop.frame_from_crop[:2, [0, 1, 3]].astype(np.float64))
    return crop.image, np.asarray(landmarks @ crop_from_frame[:, :2].T + crop_from_frame[:, 2], np.float32)


def synthetic_crops(size: int, count: int) -> Crops:
    """Smooth colours, always the same ones: every level of brightness, but no faces."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return np.stack([cv2.resize(c, (size, size), interpolation=cv2.INTER_CUBIC) for c in coarse]).astype(np.uint8)

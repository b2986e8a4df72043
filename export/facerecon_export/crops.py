"""Folder of photographs, or of prepared training data -> crops as the network sees them, for calibration and for
verification."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass, replace
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
from facerecon_training.augment import crop_from_canvas, ideal_square
from facerecon_training.data import Packed, people_squares
from facerecon_training.photographs import camera_from_landmarks
from facerecon_training.prepare import read_face
from numpy.typing import NDArray
from tqdm import tqdm

Crops = NDArray[np.uint8]
"""Crops, (N, S, S, 3) uint8 BGR."""

LEAST_CROPS = 200
"""Minimum number of real crops to calibrate with, and to judge a lower precision by."""


@dataclass(frozen=True, slots=True, eq=False)
class FaceCrops:
    """Crops, with their landmarks where they are annotated."""

    images: Crops
    landmarks: Floats
    """Landmarks (N, 68, 2), crop pixels; NaN for crops without annotation."""
    source: str
    """Description of the pictures, for messages and the report."""
    real: bool
    """Whether the pictures are photographs or rendered people; False for artificial pictures."""


def faces_of_data(name: str) -> Path | None:
    """Return the folder $FACERECON_DATA/faces/NAME, or None if it does not exist."""
    data = default_data()
    folder = data / "faces" / name if data else None
    return folder if folder is not None and is_folder(folder) else None


def verification_crops(folder: Path | None, size: int, count: int = 224) -> FaceCrops:
    """Return crops from `folder` to verify a file with.

    Without a folder they come from $FACERECON_DATA/faces/lfpw-test. Without that folder they are artificial.
    """
    folder = folder or faces_of_data("lfpw-test")
    if folder is None:
        unknown = np.full((28, 68, 2), np.nan, np.float32)
        which = f"{len(unknown)} artificial pictures without faces (give photographs with --crops FOLDER)"
        return FaceCrops(synthetic_crops(size, len(unknown)), unknown, which, real=False)
    return load_crops(folder, size, count)


def calibration_folder(folder: Path | None) -> Path:
    """Return `folder`, or $FACERECON_DATA/faces/helen-train. Raises UsageError if neither exists."""
    folder = folder or faces_of_data("helen-train")
    if folder is None:
        raise UsageError(
            "int8 needs pictures of faces for calibration: give photographs, or the folder of `facerecon-train "
            "prepare`, with --calibration FOLDER, set $FACERECON_DATA, or ask for --precision fp32 fp16"
        )
    return folder


class Pictures(Protocol):
    """A set of crops or photographs."""

    @property
    def images(self) -> Sized:
        """The pictures."""

    @property
    def source(self) -> str:
        """Description of the pictures, for messages and the report."""

    @property
    def real(self) -> bool:
        """Whether the pictures are photographs; False for artificial pictures."""


SomePictures = TypeVar("SomePictures", bound=Pictures)


def enough(
    crops: SomePictures, purpose: str, option: str, otherwise: str = ", or ask for --precision fp32 alone"
) -> SomePictures:
    """Return the pictures if they are enough to judge a lower precision by.

    Raises UsageError for artificial pictures, and for fewer than `LEAST_CROPS`. Its message names the option that gives
    more, and what to do `otherwise`.
    """
    if not crops.real or len(crops.images) < LEAST_CROPS:
        raise UsageError(
            f"{purpose} needs at least {LEAST_CROPS} real pictures, not {crops.source}; give more: {option} FOLDER"
            f"{otherwise}"
        )
    return crops


def load_crops(folder: Path, size: int, count: int) -> FaceCrops:
    """Return up to `count` crops of a folder of photographs, or of a folder that `facerecon-train prepare` made.

    A picture `x.jpg` with `x.pts` beside it is aligned by its landmarks. A picture without landmarks counts as a crop,
    and is scaled. Raises SourceError, and UsageError for damaged prepared data.
    """
    if exists(folder / "people" / "train" / "labels.npz"):
        return _prepared_crops(folder, size, count)
    shown = tqdm(picture_paths(folder, count), f"reading {folder.name}", unit="img", leave=False, disable=None)
    crops, landmarks = zip(*(_load_crop(path, size) for path in shown), strict=True)
    return FaceCrops(np.stack(crops), np.stack(landmarks), f"{len(crops)} crops of {folder}", real=True)


def _prepared_crops(folder: Path, size: int, count: int) -> FaceCrops:
    """Return crops of the pictures that a network is trained on, without augmentation and without their landmarks: as
    many of rendered people as of each packed folder of photographs."""
    photographs = [*sorted((folder / "photographs").glob("*")), folder / "head_pose"]
    sources = [folder / "people" / "train", *(path for path in photographs if exists(path / "labels.npz"))]
    packed = [Packed.read(source) for source in sources]
    crops: list[Image] = []
    for number, (one, most) in enumerate(zip(packed, _shares(count, [len(one.images) for one in packed]), strict=True)):
        chosen = np.linspace(0, len(one.images) - 1, most).round().astype(int)
        squares = [ideal_square()] * most
        if number == 0:
            labels = {name: values[chosen] for name, values in one.labels.items()}
            squares = people_squares(replace(one, labels=labels), read_face(folder))
        canvases = (np.ascontiguousarray(one.images[index]) for index in chosen)
        crops += [crop_from_canvas(canvas, at, size)[0] for canvas, at in zip(canvases, squares, strict=True)]
    which = f"{len(crops)} crops of the training data in {folder}"
    return FaceCrops(np.stack(crops), np.full((len(crops), 68, 2), np.nan, np.float32), which, real=True)


def _shares(count: int, sizes: Sequence[int]) -> list[int]:
    """Return how many of `count` pictures each folder of these sizes gives: as many each, or all that it has."""
    shares = [0] * len(sizes)
    smallest_first = sorted(range(len(sizes)), key=lambda index: sizes[index])
    for left, index in zip(range(len(sizes), 0, -1), smallest_first, strict=True):
        shares[index] = min(sizes[index], -(-(count - sum(shares)) // left))
    return shares


def picture_paths(folder: Path, count: int) -> list[Path]:
    """Return up to `count` paths of pictures, evenly spread over the folder in name order.

    Raises SourceError if the folder does not exist, cannot be read, or holds no pictures.
    """
    if not is_folder(folder):
        raise SourceError(f"{folder}: there is no such folder; give a folder with photographs")
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    except OSError as error:
        raise SourceError(f"cannot read {folder}: {error.strerror}") from error
    if not paths:
        raise SourceError(
            f"{folder}: the folder holds no photograph ({', '.join(IMAGE_SUFFIXES)}); give another folder"
        )
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
    """Return artificial crops, always the same: smooth colours of every brightness, and no faces."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    return np.stack([cv2.resize(c, (size, size), interpolation=cv2.INTER_CUBIC) for c in coarse]).astype(np.uint8)

"""Photographs without faces, or random numbers -> backgrounds, occluders, and crops without a face."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from facerecon_rt.errors import UsageError
from facerecon_rt.types import Image

LARGEST_SIDE = 640
"""Shorter side in pixels that large photographs are reduced to. All of them stay in memory, and crops are smaller."""
INVENTED_SIZE = 192
INVENTED_PICTURES = 400
"""Number of generated pictures where no photographs without faces may be read."""


def background_files(folder: Path) -> list[Path]:
    """Return every .jpg of a folder. Raises UsageError if there is none."""
    files = sorted(folder.glob("*.jpg"))
    if not files:
        raise UsageError(f"{folder} holds no .jpg; put photographs without faces there, or prepare with --clean")
    return files


def read_backgrounds(files: Sequence[Path]) -> list[Image]:
    """Return the pictures that can be read, (H, W, 3) uint8 BGR, their shorter sides reduced to LARGEST_SIDE."""
    images = (cv2.imread(str(file), cv2.IMREAD_COLOR) for file in files)
    return [_reduced(np.asarray(image, np.uint8)) for image in images if image is not None]


def _reduced(image: Image) -> Image:
    factor = LARGEST_SIDE / min(image.shape[:2])
    if factor >= 1:
        return image
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)


def random_patch(images: Pictures, random: np.random.Generator, smallest: float, largest: float) -> Image:
    """Return a random square of a random image, its side between two fractions of the image's shorter side.

    Without images, return a whole generated picture.
    """
    if not images:
        return invented_picture(random)
    image = images[int(random.integers(len(images)))]
    side = int(random.uniform(smallest, largest) * min(image.shape[:2]))
    y, x = (int(random.integers(0, extent - side + 1)) for extent in image.shape[:2])
    patch: Image = image[y : y + side, x : x + side]
    return patch


class Pictures(Protocol):
    """Pictures (H, W, 3) uint8 BGR by number: a list, or `Invented`."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Image: ...


class Invented:
    """Generated pictures in place of photographs without faces. Each is drawn when it is first asked for."""

    def __init__(self, seed: int) -> None:
        """Make pictures that depend on `seed` alone."""
        self._seed = seed
        self._drawn: dict[int, Image] = {}

    def __len__(self) -> int:
        return INVENTED_PICTURES

    def __getitem__(self, number: int, /) -> Image:
        if not 0 <= number < len(self):
            raise IndexError(number)
        if number not in self._drawn:
            self._drawn[number] = invented_picture(np.random.default_rng((self._seed, number)))
        return self._drawn[number]


def invented_picture(random: np.random.Generator) -> Image:
    """Return a generated picture (192, 192, 3) uint8 BGR: a colour gradient with smooth coloured noise of several
    sizes.

    The amplitude falls with spatial frequency as in photographs (Field, JOSA A 1987).
    """
    whole = (INVENTED_SIZE, INVENTED_SIZE)
    picture = cv2.resize(random.uniform(0, 255, (2, 2, 3)).astype(np.float32), whole, interpolation=cv2.INTER_LINEAR)
    strength, colourful = random.uniform(0, 80), random.uniform(0, 1)
    for octave, cells in enumerate((3, 6, 12, 24, 48)):
        grain = random.normal(size=(cells, cells, 3)).astype(np.float32)
        grain = colourful * grain + (1 - colourful) * grain[..., :1]
        picture += strength / 2**octave * cv2.resize(grain, whole, interpolation=cv2.INTER_CUBIC)
    return np.asarray(picture.clip(0, 255), np.uint8)

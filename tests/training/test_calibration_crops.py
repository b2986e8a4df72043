"""The exporter's crops of prepared training data: every kind of picture, cut out as in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from facerecon_export.crops import _shares, load_crops
from facerecon_training.augment import crop_from_canvas, ideal_square
from facerecon_training.data import Packed, people_squares
from facerecon_training.prepare import read_face


def test_prepared_training_data_give_crops_of_every_kind(prepared: Path) -> None:
    crops = load_crops(prepared, 32, 9)
    assert crops.source == f"9 crops of the training data in {prepared}"
    assert crops.real
    assert np.isnan(crops.landmarks).all()
    people = Packed.read(prepared / "people" / "train")
    photographs = Packed.read(prepared / "photographs" / "youtube-train")
    squares = people_squares(people, read_face(prepared))
    cut = [(people, index, squares[index]) for index in (0, 8, 15, 23)]  # evenly spread over 24
    cut += [(photographs, index, ideal_square()) for index in (0, 1, 2, 4, 5)]
    for image, (packed, index, square) in zip(crops.images, cut, strict=True):
        np.testing.assert_array_equal(image, crop_from_canvas(np.array(packed.images[index]), square, 32)[0])


def test_few_prepared_pictures_are_all_taken(prepared: Path) -> None:
    assert len(load_crops(prepared, 32, 200).images) == 24 + 6


@pytest.mark.parametrize(
    ("count", "sizes", "shares"),
    [(9, [24, 6], [4, 5]), (320, [20, 1000], [20, 300]), (200, [24, 6], [24, 6]), (10, [5, 5, 5], [4, 3, 3])],
)
def test_what_a_small_folder_lacks_the_others_give(count: int, sizes: list[int], shares: list[int]) -> None:
    assert _shares(count, sizes) == shares

"""Crops to verify with, from folders made here."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from facerecon_export.crops import LEAST_CROPS, FaceCrops, enough, load_crops, synthetic_crops, verification_crops
from facerecon_rt.errors import SourceError, UsageError
from facerecon_rt.template import load_template


def photograph(path: Path, level: int, size: tuple[int, int] = (100, 100)) -> None:
    cv2.imwrite(str(path), np.full((*size, 3), level, np.uint8))


def test_a_picture_without_landmarks_is_taken_as_a_crop(tmp_path: Path) -> None:
    photograph(tmp_path / "b.png", 200)
    photograph(tmp_path / "a.png", 100)
    crops = load_crops(tmp_path, 32, 10)
    assert crops.images.shape == (2, 32, 32, 3)
    assert crops.images[:, 0, 0, 0].tolist() == [100, 200]
    assert np.isnan(crops.landmarks).all()


def test_a_picture_with_landmarks_is_aligned_by_them(tmp_path: Path) -> None:
    # The mean face at 1 pixel per mm, the middle of its crop at (300, 200) with a white dot on it.
    image = np.zeros((400, 500, 3), np.uint8)
    cv2.circle(image, (300, 200), 6, (255, 255, 255), -1)
    cv2.imwrite(str(tmp_path / "face.png"), image)
    points = load_template().landmark_positions[:, :2] * [1, -1] + [300, 200 - 30] + 1
    text = "\n".join(f"{x} {y}" for x, y in points)
    (tmp_path / "face.pts").write_text(f"version: 1\nn_points: 68\n{{\n{text}\n}}\n")
    crops = load_crops(tmp_path, 64, 1)
    rows, columns = np.nonzero(crops.images[0, :, :, 0] > 127)
    assert abs(rows.mean() - 31.5) < 0.6
    assert abs(columns.mean() - 31.5) < 0.6
    # The landmarks keep their places in the face: 64 pixels for 190 mm, with the head frame's origin above the middle.
    expected = load_template().landmark_positions[:, :2] * [1, -1] * (64 / 190) + [31.5, 31.5 - 30 * 64 / 190]
    np.testing.assert_allclose(crops.landmarks[0, 17:], expected[17:], atol=0.2)


def test_crops_are_spread_over_the_folder(tmp_path: Path) -> None:
    for i in range(9):
        photograph(tmp_path / f"{i}.png", i * 10)
    assert load_crops(tmp_path, 32, 3).images[:, 0, 0, 0].tolist() == [0, 40, 80]


def test_made_up_crops_are_always_the_same_and_differ_from_each_other() -> None:
    crops = synthetic_crops(64, 3)
    assert crops.shape == (3, 64, 64, 3)
    np.testing.assert_array_equal(crops, synthetic_crops(64, 3))
    assert (crops[0] != crops[1]).any()


def test_where_the_crops_come_from_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FACERECON_DATA", raising=False)
    assert "artificial" in verification_crops(None, 32).source
    assert not verification_crops(None, 32).real
    folder = tmp_path / "faces" / "lfpw-test"
    folder.mkdir(parents=True)
    photograph(folder / "a.png", 1)
    monkeypatch.setenv("FACERECON_DATA", str(tmp_path))
    assert verification_crops(None, 32).source == f"1 crops of {folder}"
    photograph(tmp_path / "own.png", 1)
    assert verification_crops(tmp_path, 32).source == f"1 crops of {tmp_path}"


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="absent: there is no such folder"):
        load_crops(tmp_path / "absent", 32, 1)
    with pytest.raises(SourceError, match="the folder holds no photograph"):
        load_crops(tmp_path, 32, 1)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"broken\.jpg is a text file, not a photograph"):
        load_crops(tmp_path, 32, 1)


def test_too_few_crops_name_the_option() -> None:
    def crops(count: int, real: bool = True) -> FaceCrops:
        images = np.zeros((count, 8, 8, 3), np.uint8)
        return FaceCrops(images, np.full((count, 68, 2), np.nan, np.float32), f"{count} crops", real)

    assert enough(crops(LEAST_CROPS), "int8", "--calibration")
    for few in (crops(LEAST_CROPS - 1), crops(LEAST_CROPS, real=False)):
        with pytest.raises(UsageError, match=r"int8 needs at least 200 .*--calibration FOLDER"):
            enough(few, "int8", "--calibration")

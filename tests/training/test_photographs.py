"""Annotated photographs to canvases: every point stays on the content it was put on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from facerecon_rt.align import square_from_camera
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import SourceError
from facerecon_rt.template import load_template
from facerecon_rt.types import Floats, Image
from facerecon_training.photographs import (
    CANVAS_MARGIN,
    CANVAS_SIZE,
    camera_from_landmarks,
    canvas_from_photograph,
    pack_photographs,
    pack_weakly_labelled,
)
from facerecon_training.rendered.render import camera_for_crop
from facerecon_training.weak_labels import DEVELOPMENT_SHARE, WeakLabels


def write_pts(path: Path, points: Floats) -> Path:
    lines = "\n".join(f"{x:.4f} {y:.4f}" for x, y in points + 1)
    path.write_text(f"version: 1\nn_points: {len(points)}\n{{\n{lines}\n}}\n")
    return path


def photograph(side: float, roll: float = 0.0, size: int = 900) -> tuple[Image, Floats]:
    """The mean face's landmarks as soft round dots on grey, the head's square `side` pixels wide."""
    camera = camera_for_crop(5, 10, roll, size, side)
    landmarks = (load_template().landmark_positions @ camera[:, :3].T + camera[:, 3])[:, :2].astype(np.float32)
    image = np.full((size, size, 3), 40, np.float32)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    for px, py in landmarks[[8, 30, 36, 45]]:
        dot = np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * (side / 60) ** 2))
        image += 200 * dot[..., None]
    return image.clip(0, 255).astype(np.uint8), landmarks


def brightest(image: Image, near: Floats, reach: int = 6) -> Floats:
    """(2,) centre of brightness within `reach` pixels of a point."""
    x0, y0 = (round(float(v)) - reach for v in near)
    window = image[y0 : y0 + 2 * reach + 1, x0 : x0 + 2 * reach + 1].astype(np.float64).mean(2)
    window = np.clip(window - 45, 0, None)
    y, x = np.mgrid[y0 : y0 + 2 * reach + 1, x0 : x0 + 2 * reach + 1]
    return np.array([(x * window).sum(), (y * window).sum()], np.float32) / np.float32(window.sum())


def test_the_camera_of_landmarks_needs_no_jaw() -> None:
    camera = camera_for_crop(8, -20, 5, 200, 150)
    landmarks = (load_template().landmark_positions @ camera[:, :3].T + camera[:, 3])[:, :2].astype(np.float32)
    landmarks[:17] = np.nan
    np.testing.assert_allclose(camera_from_landmarks(landmarks)[:2], camera[:2], atol=0.05)


@pytest.mark.parametrize("side", [120.0, 560.0])
@pytest.mark.parametrize("roll", [0.0, 35.0])
def test_landmarks_stay_on_the_same_content(side: float, roll: float) -> None:
    image, landmarks = photograph(side, roll)
    canvas, moved = canvas_from_photograph(image, landmarks, reflect=False)
    assert canvas.shape == (CANVAS_SIZE, CANVAS_SIZE, 3)
    for landmark in (8, 30, 36, 45):
        np.testing.assert_allclose(brightest(canvas, moved[landmark]), moved[landmark], atol=0.15)


def test_a_canvas_shows_the_head_upright_and_in_the_middle() -> None:
    image, landmarks = photograph(300, roll=35)
    _, moved = canvas_from_photograph(image, landmarks, reflect=True)
    square = square_from_camera(camera_from_landmarks(moved))
    assert square.roll == pytest.approx(0, abs=1e-3)
    assert (square.x, square.y) == pytest.approx(((CANVAS_SIZE - 1) / 2, (CANVAS_SIZE - 1) / 2), abs=0.05)
    assert square.side == pytest.approx(CANVAS_SIZE / CANVAS_MARGIN, rel=1e-3)


def test_outside_the_photograph_a_canvas_is_reflected_or_black() -> None:
    image, landmarks = photograph(800)
    reflected, _ = canvas_from_photograph(image, landmarks, reflect=True)
    black, _ = canvas_from_photograph(image, landmarks, reflect=False)
    assert reflected[0, 0].tolist() == [40, 40, 40]
    assert black[0, 0].tolist() == [0, 0, 0]


def test_packing_keeps_landmarks_and_groups_frames_of_one_person(tmp_path: Path) -> None:
    image, landmarks = photograph(200, size=400)
    folder = tmp_path / "faces"
    folder.mkdir()
    for name in ("anna_b_1", "anna_b_2", "otto"):
        cv2.imwrite(str(folder / f"{name}.png"), image)
        write_pts(folder / f"{name}.pts", landmarks)
    assert pack_photographs(folder, tmp_path / "packed") == 3
    with np.load(tmp_path / "packed" / "labels.npz") as labels:
        assert labels["person"].tolist() == [0, 0, 1]
        _, expected = canvas_from_photograph(image, landmarks, reflect=True)
        np.testing.assert_allclose(labels["landmarks"][0], expected, atol=0.01)
    images = np.load(tmp_path / "packed" / "images.npy")
    assert images.shape == (3, CANVAS_SIZE, CANVAS_SIZE, 3)
    assert images.dtype == np.uint8


def weak_labels(files: list[str], landmarks: Floats, **changes: Any) -> WeakLabels:
    """Each with a jaw half open and eyes whose irises are the middles between their corners."""
    count = len(files)
    blendshapes = np.full((count, 53), np.nan, np.float32)
    blendshapes[:, BLENDSHAPES.index("jawOpen")] = 0.5
    corners = landmarks[[[45, 42], [36, 39]]]
    eyes = np.concatenate([corners, corners.mean(1, keepdims=True)], 1)
    made = WeakLabels(
        {name: row for row, name in enumerate(files)},
        blendshapes,
        np.where(np.isfinite(blendshapes), np.float32(3), np.float32(1)),
        np.repeat(eyes[None], count, 0),
        np.repeat(landmarks[None], count, 0),
        np.full(count, -1),
        np.tile(np.array([0, 0, 1 << 20, 1 << 20]), (count, 1)),
    )
    return replace(made, **changes)


def test_weak_labels_come_along_where_there_are_any(tmp_path: Path) -> None:
    image, landmarks = photograph(500, roll=20)
    folder = tmp_path / "helen-train"
    folder.mkdir()
    for name in ("a", "b"):
        cv2.imwrite(str(folder / f"{name}.png"), image)
        write_pts(folder / f"{name}.pts", landmarks)
    weak = weak_labels(["helen-train/b.png", "afw/a.png"], landmarks)
    pack_photographs(folder, tmp_path / "packed", weak)
    with np.load(tmp_path / "packed" / "labels.npz") as labels:
        scores, eyes, points = labels["blendshapes"], labels["eyes"], labels["landmarks"]
        trust = labels["trust"]
    np.testing.assert_array_equal(trust > 1, np.isfinite(scores))
    assert np.isnan(scores[0]).all() and np.isnan(eyes[0]).all()
    assert scores[1, BLENDSHAPES.index("jawOpen")] == 0.5
    assert np.isnan(scores[1]).sum() == 52
    # In canvas pixels, on the same content as the landmarks.
    np.testing.assert_allclose(eyes[1, 0, 0], points[1, 45], atol=1e-3)
    np.testing.assert_allclose(eyes[1, 1, 1], points[1, 39], atol=1e-3)
    np.testing.assert_allclose(eyes[1, :, 2], points[1, [[45, 42], [36, 39]]].mean(1), atol=1e-3)


def test_a_folder_of_weak_labels_alone_is_packed_without_the_people_kept_for_development(tmp_path: Path) -> None:
    """The picture's border is cut off, and what is known of it moves along."""
    image, landmarks = photograph(300, size=500)
    bordered = cv2.copyMakeBorder(image, 40, 0, 60, 0, cv2.BORDER_CONSTANT, value=(0, 0, 255))
    shifted = landmarks + np.array([60, 40], np.float32)
    folder = tmp_path / "expressive"
    folder.mkdir()
    names = [f"film_{i}.png" for i in range(4)]
    for name in names:
        cv2.imwrite(str(folder / name), bordered)
    jawless = shifted.copy()
    jawless[:17] = np.nan
    weak = weak_labels(
        names,
        jawless,
        person=np.array([3, DEVELOPMENT_SHARE, 3, 0]),
        valid=np.tile(np.array([60, 40, 560, 540]), (4, 1)),
    )
    assert pack_weakly_labelled(folder, weak, tmp_path / "packed") == 2
    images = np.load(tmp_path / "packed" / "images.npy")
    with np.load(tmp_path / "packed" / "labels.npz") as labels:
        assert labels["person"].tolist() == [0, 0]
        points, eyes = labels["landmarks"], labels["eyes"]
        assert (labels["blendshapes"][:, BLENDSHAPES.index("jawOpen")] == 0.5).all()
    assert np.isnan(points[:, :17]).all()
    assert not (images[..., 2].astype(int) - images[..., 0] > 100).any(), "the red border is gone"
    _, expected = canvas_from_photograph(image, np.where(np.isnan(jawless), np.nan, landmarks), reflect=True)
    np.testing.assert_allclose(points[0, 17:], expected[17:], atol=0.05)
    np.testing.assert_allclose(eyes[0, 0, 0], expected[45], atol=0.05)
    for landmark in (30, 36, 45):
        np.testing.assert_allclose(brightest(images[0], points[0, landmark]), points[0, landmark], atol=0.2)


def test_weak_labels_without_people_are_each_of_another_person(tmp_path: Path) -> None:
    image, landmarks = photograph(300, size=500)
    names = [f"film_{i}.png" for i in range(3)]
    for name in names:
        cv2.imwrite(str(tmp_path / name), image)
    weak = weak_labels(names, landmarks, person=np.full(3, -1))
    assert pack_weakly_labelled(tmp_path, weak, tmp_path / "packed") == 3
    with np.load(tmp_path / "packed" / "labels.npz") as labels:
        assert labels["person"].tolist() == [0, 1, 2]


def test_landmarks_that_span_far_more_than_the_picture_are_named(tmp_path: Path) -> None:
    image, landmarks = photograph(100)
    cv2.imwrite(str(tmp_path / "far.png"), image[:2, :2])
    write_pts(tmp_path / "far.pts", landmarks * 1000)
    with pytest.raises(SourceError, match=r"far\.png: its landmarks span far more than the picture"):
        pack_photographs(tmp_path, tmp_path / "packed")


def test_a_photograph_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    write_pts(tmp_path / "broken.pts", photograph(100)[1])
    with pytest.raises(SourceError, match=r"broken\.jpg is a text file, not a photograph"):
        pack_photographs(tmp_path, tmp_path / "packed")

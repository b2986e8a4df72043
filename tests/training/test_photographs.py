"""Annotated photographs to canvases: every point stays on the content it was put on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from facerecon_rt.align import square_from_camera
from facerecon_rt.errors import SourceError
from facerecon_rt.template import load_template
from facerecon_rt.types import Floats, Image
from facerecon_training.photographs import (
    CANVAS_MARGIN,
    CANVAS_SIZE,
    camera_from_landmarks,
    canvas_from_photograph,
    pack_photographs,
)
from facerecon_training.rendered.render import camera_for_crop


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

"""Photographs with landmarks, and the error of predicted landmarks."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from facerecon_rt.annotated import (
    INNER_49,
    INNER_51,
    annotated_photographs,
    landmark_figures,
    photograph_figures,
    read_pts,
)
from facerecon_rt.errors import SourceError
from facerecon_rt.faces.reconstruct import Reconstructor
from facerecon_rt.types import Floats

from .conftest import PaintSpots


def write_pts(path: Path, points: Floats) -> Path:
    lines = "\n".join(f"{x:.4f} {y:.4f}" for x, y in points + 1)
    path.write_text(f"version: 1\nn_points: {len(points)}\n{{\n{lines}\n}}\n")
    return path


def test_68_points_count_from_zero(tmp_path: Path) -> None:
    points = np.arange(136, dtype=np.float32).reshape(68, 2)
    np.testing.assert_allclose(read_pts(write_pts(tmp_path / "a.pts", points)), points, atol=1e-4)


def test_49_points_leave_jaw_and_inner_mouth_corners_unknown(tmp_path: Path) -> None:
    points = np.arange(98, dtype=np.float32).reshape(49, 2)
    landmarks = read_pts(write_pts(tmp_path / "a.pts", points))
    unknown = np.flatnonzero(np.isnan(landmarks).all(1))
    assert unknown.tolist() == [*range(17), 60, 64]
    np.testing.assert_allclose(landmarks[list(INNER_49)], points, atol=1e-4)


@pytest.mark.parametrize("content", [b"", b"68 points", b"{ 1 2 3 }", b"{ one two }", b"\xff\xfe{ 1 2 }"])
def test_a_file_that_is_no_pts_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.pts"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"bad\.pts is not an iBUG \.pts file"):
        read_pts(path)


@pytest.mark.parametrize("number", ["nan", "inf", "1e38", "-1e38", "1e400", "1e7", "9" * 5000])
def test_points_that_lie_in_no_picture_are_named(tmp_path: Path, number: str) -> None:
    path = write_pts(tmp_path / "far.pts", np.arange(136, dtype=np.float32).reshape(68, 2))
    path.write_text(path.read_text().replace("{\n1.0000", "{\n" + number))
    with pytest.raises(SourceError, match=r"far\.pts has points far outside of any picture"):
        read_pts(path)


@pytest.mark.parametrize("axis", [0, 1])
def test_points_that_span_no_face_are_named(tmp_path: Path, axis: int) -> None:
    points = np.arange(136, dtype=np.float32).reshape(68, 2)
    points[:, axis] = 5
    with pytest.raises(SourceError, match=r"flat\.pts has all points on a line or in one place"):
        read_pts(write_pts(tmp_path / "flat.pts", points))


def test_points_are_read_from_files_alone(tmp_path: Path) -> None:
    (tmp_path / "a.pts").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "b.pts")
    with (tmp_path / "c.pts").open("wb") as file:
        file.truncate(10**9)
    for name, why in (("a", "a pipe or a device"), ("b", "a pipe or a device"), ("c", "more than"), ("d", "No such")):
        with pytest.raises(SourceError, match=rf"cannot read .*/{name}\.pts: .*{why}"):
            read_pts(tmp_path / f"{name}.pts")


def test_another_number_of_points_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"five\.pts has 5 points; only 68, or 49 without the jaw"):
        read_pts(write_pts(tmp_path / "five.pts", np.zeros((5, 2), np.float32)))


def test_photographs_come_in_name_order_and_only_with_points(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "without.jpg"):
        (tmp_path / name).touch()
    for name in ("b.pts", "a.pts", "alone.pts"):
        write_pts(tmp_path / name, np.arange(136, dtype=np.float32).reshape(68, 2))
    assert [found.path.name for found in annotated_photographs(tmp_path)] == ["a.jpg", "b.png"]


def test_a_folder_without_annotated_photographs_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere is not a folder of photographs"):
        next(annotated_photographs(tmp_path / "nowhere"))
    (tmp_path / "a.jpg").touch()
    with pytest.raises(SourceError, match=r"holds no photograph with a \.pts file of the same name"):
        next(annotated_photographs(tmp_path))


def face_in_a_square() -> Floats:
    """Return landmarks (1, 68, 2) on a line, with the outer eye corners 100 px apart, in a box of 200 x 50 px."""
    points = np.zeros((1, 68, 2), np.float32)
    points[0, :, 0] = np.linspace(0, 200, 68)
    points[0, :, 1] = np.linspace(0, 50, 68)
    points[0, 36], points[0, 45] = (50, 25), (150, 25)
    return points


def test_an_error_is_counted_in_eye_distances_and_in_boxes() -> None:
    true = face_in_a_square()
    figures = landmark_figures(true + np.array([3.0, 4.0], np.float32), true)
    assert figures["nme_68"] == pytest.approx(5.0, abs=1e-4)
    assert figures["nme_inner51"] == pytest.approx(5.0, abs=1e-4)
    assert figures["nme_68_bbox"] == pytest.approx(100 * 5 / np.sqrt(200 * 50), abs=1e-4)
    assert figures["failures_inner51_over_10"] == 0


def test_an_error_of_the_jaw_alone_leaves_the_inner_points_alone() -> None:
    true = face_in_a_square()
    predicted = true.copy()
    predicted[:, :17] += 100
    figures = landmark_figures(predicted, true)
    assert figures["nme_inner51"] == 0
    assert figures["nme_68"] == pytest.approx(100 * 17 / 68 * np.sqrt(2), abs=1e-3)


def test_points_that_are_not_annotated_do_not_count() -> None:
    true = face_in_a_square()
    unknown = [i for i in range(68) if i not in INNER_49]
    true[:, unknown] = np.nan
    figures = landmark_figures(np.nan_to_num(true) + np.array([0.0, 10.0], np.float32), true)
    assert figures["nme_inner51"] == pytest.approx(10.0, abs=1e-4)
    assert "nme_68" not in figures
    assert set(INNER_49) < set(INNER_51)


def test_the_face_nearest_to_the_annotated_one_is_measured(model: Path, spots: PaintSpots, tmp_path: Path) -> None:
    with Reconstructor(model) as reconstructor:
        for name, at in (("a", [(0.25, 0.3), (0.7, 0.6)]), ("b", [(0.7, 0.6)])):
            cv2.imwrite(str(tmp_path / f"{name}.png"), spots(256, 192, at))
            (face,) = (f for f in reconstructor.faces(spots(256, 192, [at[-1]])))
            write_pts(tmp_path / f"{name}.pts", face.landmarks[:, :2] + (0 if name == "a" else [3.0, 4.0]))
        eyes = float(np.linalg.norm(face.landmarks[36, :2] - face.landmarks[45, :2]))
        figures, faces = photograph_figures(reconstructor, annotated_photographs(tmp_path))
    assert (figures["photographs"], figures["found_percent"], len(faces)) == (2, 100.0, 2)
    assert figures["nme_inner51"] == pytest.approx(100 * 5 / eyes / 2, rel=0.02)


def test_a_face_annotated_without_its_jaw_is_found(model: Path, spots: PaintSpots, tmp_path: Path) -> None:
    picture = spots(256, 192, [(0.25, 0.3)])
    cv2.imwrite(str(tmp_path / "a.PNG"), picture)  # cameras write the suffix in capitals
    with Reconstructor(model) as reconstructor:
        (face,) = reconstructor.faces(picture)
        write_pts(tmp_path / "a.pts", face.landmarks[list(INNER_49), :2])
        figures, _ = photograph_figures(reconstructor, annotated_photographs(tmp_path))
    assert figures["found_percent"] == 100
    assert figures["nme_inner51"] == pytest.approx(0, abs=0.1)


def test_a_face_elsewhere_counts_as_not_found(model: Path, spots: PaintSpots, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), spots(256, 192, [(0.25, 0.3)]))
    with Reconstructor(model) as reconstructor:
        (face,) = reconstructor.faces(spots(256, 192, [(0.25, 0.3)]))
        write_pts(tmp_path / "a.pts", face.landmarks[:, :2] + 100)
        with pytest.raises(SourceError, match="none of the 1 annotated faces was found"):
            photograph_figures(reconstructor, annotated_photographs(tmp_path))


def test_the_real_folders_are_read(data_folder: Path) -> None:
    for name, points in (("helen-train", 68), ("aaf-train", 49)):
        first = next(annotated_photographs(data_folder / "faces" / name))
        assert np.isfinite(first.landmarks[:, 0]).sum() == points

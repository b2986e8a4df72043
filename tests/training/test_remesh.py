"""The template's making, on a bent sheet instead of the head: symmetric, nothing turned over, every landmark kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facerecon_rt.template import IBUG_MIRROR, load_template
from facerecon_training.rendered.morphable import FACE_VERTICES, PARTS, MorphableHead
from facerecon_training.rendered.remesh import (
    JAW_CANDIDATES,
    _closest_on_triangles,
    _is_right,
    build_template,
    save_template,
    unwrap,
)
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


def grid(columns: int, rows: int) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """A bent sheet over -80..80 by -110..70 mm, symmetric in x, with a nose."""
    x, y = np.meshgrid(np.linspace(-80, 80, columns), np.linspace(-110, 70, rows))
    z = 40 - 0.006 * x**2 - 0.004 * (y + 30) ** 2 + 20 * np.exp(-(x**2 + (y + 35) ** 2) / 200)
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    right, above, across = corner + 1, corner + columns, corner + columns + 1
    # Diagonals mirrored at the midline, as every triangle must have its mirror image.
    left_half = (corner % columns) < columns // 2
    first = np.where(left_half[:, None], np.stack([corner, right, across], 1), np.stack([corner, right, above], 1))
    second = np.where(left_half[:, None], np.stack([corner, across, above], 1), np.stack([right, across, above], 1))
    return np.stack([x, y, z], -1).reshape(-1, 3), np.vstack([first, second]).astype(np.int32)


def doubled_area(points: NDArray[np.float64], triangles: NDArray[np.int32]) -> NDArray[np.float64]:
    """Signed, in the plane."""
    a, b, c = points[triangles].transpose(1, 0, 2)
    return np.asarray((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])


@pytest.fixture(scope="module")
def template(ball_head: MorphableHead) -> Arrays:
    """Built from a sheet of 81 x 81 vertices, about as many as the narrow face has."""
    points, triangles = grid(81, 81)
    mean = ball_head.mean.copy()
    mean[: PARTS["face"][1]] = 500.0
    mean[: len(points)] = points
    positions = load_template().landmark_positions
    landmarks = np.linalg.norm(points[:, None, :2] - positions[:, :2], axis=2).argmin(0).astype(np.int32)
    return build_template(replace(ball_head, mean=mean, triangles=triangles, landmarks=landmarks))


@pytest.fixture(scope="module")
def vertices(template: Arrays) -> NDArray[np.float64]:
    points, _ = grid(81, 81)
    weights = template["source_weights"].astype(np.float64)
    return np.asarray((points[template["source_vertices"].astype(int)] * weights[..., None]).sum(1))


def test_mirroring_landmarks_twice_leaves_them() -> None:
    np.testing.assert_array_equal(IBUG_MIRROR[IBUG_MIRROR], np.arange(68))
    assert [i for i in range(68) if IBUG_MIRROR[i] == i] == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]


def test_each_landmark_off_the_midline_is_right_or_its_mirror_image_is() -> None:
    for landmark in range(68):
        sides = _is_right(landmark) + _is_right(int(IBUG_MIRROR[landmark]))
        assert sides == (0 if IBUG_MIRROR[landmark] == landmark else 1)


def test_the_shipped_template_mirrors_onto_itself() -> None:
    shipped = load_template()
    np.testing.assert_array_equal(shipped.symmetry[shipped.symmetry], np.arange(shipped.vertex_count))
    np.testing.assert_array_equal(shipped.symmetry[shipped.landmarks], shipped.landmarks[IBUG_MIRROR])
    mirrored = shipped.landmark_positions[IBUG_MIRROR] * [-1, 1, 1]
    np.testing.assert_allclose(shipped.landmark_positions, mirrored, atol=0.35)


def test_the_shipped_templates_texture_has_no_overlap() -> None:
    shipped = load_template()
    assert (doubled_area(shipped.uv.astype(np.float64), shipped.triangles) > 0).all()


def test_a_template_has_about_4000_vertices_inside_the_face(template: Arrays) -> None:
    assert 3900 < len(template["uv"]) < 4200
    assert template["source_vertices"].max() < FACE_VERTICES
    np.testing.assert_allclose(template["source_weights"].astype(float).sum(1), 1, atol=1e-6)
    assert template["source_weights"].min() >= 0


def test_a_template_is_its_own_mirror_image(template: Arrays, vertices: NDArray[np.float64]) -> None:
    symmetry = template["symmetry"].astype(int)
    np.testing.assert_array_equal(symmetry[symmetry], np.arange(len(vertices)))
    np.testing.assert_allclose(vertices[symmetry], vertices * [-1, 1, 1], atol=1e-5)
    triangles = {tuple(sorted(t)) for t in template["triangles"].tolist()}
    assert {tuple(sorted(symmetry[list(t)])) for t in triangles} == triangles


def test_every_triangle_of_a_template_faces_out(template: Arrays, vertices: NDArray[np.float64]) -> None:
    assert (doubled_area(vertices, template["triangles"].astype(np.int32)) > 0).all()


def test_landmarks_stay_on_their_vertices(template: Arrays, vertices: NDArray[np.float64]) -> None:
    landmarks = template["landmarks"].astype(int)
    np.testing.assert_allclose(vertices[landmarks], template["landmark_positions"], atol=1e-4)
    np.testing.assert_array_equal(template["symmetry"][landmarks], landmarks[IBUG_MIRROR])
    # The sheet is no face, but from the front its landmarks are where ours are, up to its own grid.
    apart = template["landmark_positions"] - load_template().landmark_positions
    assert np.abs(apart[17:, :2]).max() < 2


def test_jaw_candidates_end_at_their_landmark_and_lie_inwards(template: Arrays, vertices: NDArray[np.float64]) -> None:
    candidates = template["jaw_candidates"].astype(int)
    assert candidates.shape == (17, JAW_CANDIDATES)
    np.testing.assert_array_equal(candidates[:, -1], template["landmarks"][:17])
    jaw = vertices[candidates[:, -1:], :2]
    assert np.linalg.norm(vertices[candidates, :2] - jaw, axis=2).max() < 45


def test_a_saved_template_is_read_back(tmp_path: Path, template: Arrays) -> None:
    save_template(template, tmp_path / "template.npz")
    with np.load(tmp_path / "template.npz", allow_pickle=False) as arrays:
        assert set(arrays) == set(template)
        np.testing.assert_array_equal(arrays["triangles"], template["triangles"])


def test_unwrapping_turns_no_triangle_over() -> None:
    points, triangles = grid(21, 23)
    uv = unwrap(points, triangles)
    assert (doubled_area(uv, triangles) > 0).all()
    assert (uv >= 0).all()
    assert (uv <= 1).all()
    # Head up, and left stays left: the same corner of the mesh is the same corner of the texture.
    assert uv[points[:, 1].argmax(), 1] > 0.75
    assert uv[points[:, 0].argmax(), 0] > 0.75


def test_the_nearest_point_of_a_triangle_is_inside_on_an_edge_or_a_corner() -> None:
    vertices = np.array([[0.0, 0, 0], [4, 0, 0], [0, 4, 0], [9, 9, 9]])
    triangles = np.array([[0, 1, 2]], np.int32)
    for point, expected in (([1, 1, 5], [0.5, 0.25, 0.25]), ([-2, -2, 0], [1, 0, 0]), ([2, -3, 0], [0.5, 0.5, 0])):
        corners, weights = _closest_on_triangles(np.array(point, float), triangles, vertices)
        assert corners.tolist() == [0, 1, 2]
        if expected != [0.5, 0.5, 0]:
            np.testing.assert_allclose(weights, expected)
        else:  # clipping is not exact beside an edge, but it stays on it
            assert weights[2] == 0
            assert weights.sum() == pytest.approx(1)


def test_of_several_triangles_the_nearest_counts() -> None:
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 3], [1, 0, 3], [0, 1, 3]])
    triangles = np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    corners, _ = _closest_on_triangles(np.array([0.2, 0.2, 2.0]), triangles, vertices)
    assert corners.tolist() == [3, 4, 5]

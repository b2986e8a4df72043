"""The shipped template is consistent: one surface, one texture, symmetric, with 68 landmarks."""

from __future__ import annotations

import numpy as np
import pytest
from facerecon_rt.template import FaceTemplate, Indices, load_template

MIRRORED_LANDMARKS = np.array(
    [
        *range(16, -1, -1),  # jaw
        *range(26, 16, -1),  # brows
        *range(27, 31),  # bridge of the nose
        *range(35, 30, -1),  # base of the nose
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
        *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),  # outer lips
        *(64, 63, 62, 61, 60, 67, 66, 65),  # inner lips
    ]
)


@pytest.fixture(scope="module")
def template() -> FaceTemplate:
    return load_template()


def edges(triangles: Indices) -> Indices:
    """Return the sides (3 T, 2) of triangles (T, 3), in the direction of each triangle's orientation."""
    return np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])


def test_it_is_loaded_once(template: FaceTemplate) -> None:
    assert load_template() is template


def test_every_vertex_belongs_to_a_triangle_and_every_index_to_a_vertex(template: FaceTemplate) -> None:
    assert template.triangles.shape[1] == 3
    assert np.array_equal(np.unique(template.triangles), np.arange(template.vertex_count))


def test_no_triangle_is_a_line_or_given_twice(template: FaceTemplate) -> None:
    ordered = np.sort(template.triangles, axis=1)
    assert (np.diff(ordered, axis=1) > 0).all()
    assert len(np.unique(ordered, axis=0)) == len(ordered)


def test_neighbouring_triangles_turn_the_same_way(template: FaceTemplate) -> None:
    """Two triangles then have their common side in opposite directions, and no directed side occurs twice."""
    walked = edges(template.triangles)
    assert len(np.unique(walked, axis=0)) == len(walked)


def test_the_68_landmarks_are_68_vertices(template: FaceTemplate) -> None:
    assert template.landmarks.shape == (68,)
    assert template.landmark_positions.shape == (68, 3)
    assert len(np.unique(template.landmarks)) == 68
    assert template.landmarks.min() >= 0
    assert template.landmarks.max() < template.vertex_count


def test_each_jaw_landmark_is_among_its_own_candidates(template: FaceTemplate) -> None:
    assert len(template.jaw_candidates) == 17
    assert (template.jaw_candidates == template.landmarks[:17, None]).any(1).all()
    assert 0 <= template.jaw_candidates.min() <= template.jaw_candidates.max() < template.vertex_count


def test_mirroring_twice_changes_nothing(template: FaceTemplate) -> None:
    assert np.array_equal(template.symmetry[template.symmetry], np.arange(template.vertex_count))


def test_the_mirrored_mesh_has_the_same_triangles_turned_around(template: FaceTemplate) -> None:
    mirrored = template.symmetry[template.triangles][:, ::-1]
    assert {tuple(edge) for edge in edges(mirrored)} == {tuple(edge) for edge in edges(template.triangles)}


def test_the_mirror_takes_landmarks_to_their_counterparts(template: FaceTemplate) -> None:
    assert np.array_equal(template.symmetry[template.landmarks], template.landmarks[MIRRORED_LANDMARKS])
    mirrored = template.landmark_positions[MIRRORED_LANDMARKS] * [-1, 1, 1]
    np.testing.assert_allclose(mirrored, template.landmark_positions, atol=1e-3)


def test_the_landmarks_lie_where_a_face_has_them(template: FaceTemplate) -> None:
    """The iBUG order begins at the subject's right, which is the left of the picture and -x in the head frame."""
    points = template.landmark_positions
    eyes, nose, mouth, chin = points[36:48].mean(0), points[30], points[48:60].mean(0), points[8]
    assert points[0, 0] < points[36, 0] < points[39, 0] < 0 < points[42, 0] < points[45, 0] < points[16, 0]
    assert eyes[1] > nose[1] > mouth[1] > chin[1]
    assert points[:, 2].argmax() == 30
    np.testing.assert_allclose(eyes[:2], [0, 0], atol=5)
    assert 55 < points[42:48, 0].mean() - points[36:42, 0].mean() < 70


def test_the_texture_has_no_flips_and_stays_within_its_square(template: FaceTemplate) -> None:
    assert template.uv.min() >= 0
    assert template.uv.max() <= 1
    a, b, c = (template.uv[template.triangles[:, corner]].astype(np.float64) for corner in range(3))
    twice_area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert twice_area.min() > 0


def test_the_texture_is_as_symmetric_as_the_mesh(template: FaceTemplate) -> None:
    np.testing.assert_allclose(template.uv[template.symmetry], template.uv * [-1, 1] + [1, 0], atol=1e-6)

"""Scenes -> pictures: the rasteriser is exact, and the overlays lie on the faces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from facerecon_rt.pose import VIEWER_FROM_FRAME
from facerecon_rt.sinks import draw
from facerecon_rt.sinks.draw import (
    CONTOURS,
    GAZE_MM,
    OVERLAYS,
    PAPER,
    draw_scene,
    montage,
    vertices_in_frame,
)
from facerecon_rt.sinks.raster import front_facing
from facerecon_rt.sinks.shade import light, render_mesh, vertex_normals
from facerecon_rt.template import FaceTemplate
from facerecon_rt.types import Face, Frame, Image, Scene

MakeFace = Callable[..., Face]


def grey(width: int = 160, height: int = 120) -> Image:
    return np.full((height, width, 3), 128, np.uint8)


def scene_of(*faces: Face, image: Image | None = None) -> Scene:
    return Scene(Frame(grey() if image is None else image, "photo.jpg"), faces)


def changed_box(before: Image, after: Image) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero((before != after).any(-1))
    return int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max())


# The rasteriser


@pytest.mark.parametrize("size", [(200, 120), (120, 200), (1300, 1000)])
@pytest.mark.parametrize("yaw", [0.0, 50.0])
def test_the_silhouette_is_where_the_vertices_project(
    ball: FaceTemplate, ball_face: MakeFace, size: tuple[int, int], yaw: float
) -> None:
    vertices = vertices_in_frame(ball_face(0.4 * size[0], 0.6 * size[1], scale=0.5, yaw=yaw))
    _, coverage = render_mesh(vertices, ball.triangles, size)
    ys, xs = np.nonzero(coverage > 127)
    found = [xs.min(), ys.min(), xs.max(), ys.max()]
    assert np.abs(np.array(found) - [*vertices[:, :2].min(0), *vertices[:, :2].max(0)]).max() <= 1.0


def test_coverage_is_exact_to_a_fraction_of_a_pixel() -> None:
    # From the left edge of pixel 10 to the middle of pixel 20, from the top of row 5 to the bottom of row 14.
    x1, x2, y1, y2 = 9.5, 20.0, 4.5, 14.5
    square = np.array([[x1, y1, 0], [x2, y1, 0], [x2, y2, 0], [x1, y2, 0]], np.float32)
    _, coverage = render_mesh(square, np.array([[0, 2, 1], [0, 3, 2]], np.int32), (32, 24))
    assert (coverage[5:15, 10:20] == 255).all()
    assert np.abs(coverage[5:15, 20].astype(int) - 128).max() <= 2
    assert coverage.astype(int).sum() == coverage[5:15, 10:21].astype(int).sum()


def test_the_near_surface_hides_the_far_one() -> None:
    corners = np.array([[0, 0], [0, 40], [40, 40], [40, 0]], np.float32)
    near, far = (np.column_stack([corners, np.full(4, z, np.float32)]) for z in (-30.0, 30.0))
    quad = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    colors = np.repeat(np.array([[1, 0, 0], [0, 0, 1]], np.float32), 4, axis=0)
    for order in (np.vstack([quad, quad + 4]), np.vstack([quad + 4, quad])):
        picture, _ = render_mesh(np.vstack([near, far]), order, (41, 41), colors)
        assert picture[20, 20, 0] > 100
        assert picture[20, 20, 2] == 0


def test_opencv_4_which_jetpack_brings_draws_nearly_the_same(
    ball: FaceTemplate, ball_face: MakeFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = scene_of(ball_face(80, 60, scale=0.4, yaw=30.0, track=3))
    with_5 = draw_scene(scene, ids=False, template=ball).astype(int)
    monkeypatch.delattr(cv2, "triangleRasterize", raising=False)
    monkeypatch.delattr(cv2, "FontFace", raising=False)
    draw._font.cache_clear()
    try:
        assert np.abs(with_5 - draw_scene(scene, ids=False, template=ball)).mean() < 2
        label = draw_scene(scene, style="landmarks", axes=False, landmarks=False, template=ball)
        x1, y1, x2, y2 = changed_box(scene.frame.image, label)
        assert 30 < x2 - x1 < 160 and 8 < y2 - y1 < 40
    finally:
        draw._font.cache_clear()


def test_triangles_seen_from_behind_are_left_out() -> None:
    corners = np.array([[0, 0, 0], [0, 40, 0], [40, 40, 0]], np.float32)
    towards, away = np.array([[0, 1, 2]], np.int32), np.array([[2, 1, 0]], np.int32)
    assert render_mesh(corners, towards, (41, 41))[1].any()
    assert not render_mesh(corners, away, (41, 41))[1].any()
    assert len(front_facing(corners, towards)) == 1
    assert len(front_facing(corners, away)) == 0


def test_normals_point_out_of_the_head(ball: FaceTemplate, ball_face: MakeFace) -> None:
    points = ball_face(0, 0).vertices
    normals = vertex_normals(points, ball.triangles)
    assert ((normals * points).sum(1) / np.linalg.norm(points, axis=1)).min() > 0.98


def test_light_comes_from_the_upper_left() -> None:
    up_left, down_right, viewer = light(np.array([[-0.5, 0.5, 0.7], [0.5, -0.5, 0.7], [0, 0, 1]], np.float32)).mean(1)
    assert up_left > viewer > down_right > 0.1


def test_a_picture_is_lit_as_its_normals_say(ball: FaceTemplate, ball_face: MakeFace) -> None:
    vertices = vertices_in_frame(ball_face(50, 50))
    picture, _ = render_mesh(vertices, ball.triangles, (101, 101), np.ones((len(vertices), 3), np.float32))
    toward_viewer = np.argmin(vertices[:, 2])
    normal = vertex_normals(vertices, ball.triangles)[toward_viewer] @ VIEWER_FROM_FRAME.astype(np.float32)
    x, y = np.rint(vertices[toward_viewer, :2]).astype(int)
    assert np.allclose(picture[y, x] / 255, np.minimum(light(normal[None])[0], 1), atol=0.03)


# Overlays


@pytest.mark.parametrize("style", OVERLAYS)
def test_an_overlay_stays_on_the_face_and_leaves_the_frame_alone(
    ball: FaceTemplate, ball_face: MakeFace, style: Any
) -> None:
    scene = scene_of(ball_face(80, 60, scale=0.4))
    picture = draw_scene(scene, style=style, axes=False, ids=False, template=ball)
    assert (scene.frame.image == 128).all()
    x1, y1, x2, y2 = changed_box(scene.frame.image, picture)
    margin = 4
    assert 80 - 32 - margin <= x1 < x2 <= 80 + 32 + margin
    assert 60 - 32 - margin <= y1 < y2 <= 60 + 32 + margin


@pytest.mark.parametrize("style", OVERLAYS)
@pytest.mark.parametrize("centre", [(0, 0), (160, 60), (80, 119), (-500, 60), (80, 900)])
def test_a_face_may_lie_partly_or_wholly_outside_the_frame(
    ball: FaceTemplate, ball_face: MakeFace, style: Any, centre: tuple[int, int]
) -> None:
    picture = draw_scene(scene_of(ball_face(*centre, track=3)), style=style, template=ball)
    assert picture.shape == (120, 160, 3)


def test_a_face_larger_than_the_frame_is_drawn(ball: FaceTemplate, ball_face: MakeFace) -> None:
    scene = scene_of(ball_face(80, 60, scale=20.0))
    for style in OVERLAYS:
        assert draw_scene(scene, style=style, template=ball).shape == (120, 160, 3)


def test_alpha_mixes_mesh_and_photograph(ball: FaceTemplate, ball_face: MakeFace) -> None:
    scene = scene_of(ball_face(80, 60))
    bare: Any = {"axes": False, "landmarks": False, "ids": False}
    full, half, none = (draw_scene(scene, alpha=a, template=ball, **bare)[60, 80].astype(int) for a in (1.0, 0.5, 0.0))
    assert (none == 128).all()
    assert np.abs(half - (full + 128) / 2).max() <= 1


def test_the_near_face_is_drawn_over_the_far_one(ball: FaceTemplate, ball_face: MakeFace) -> None:
    small, large = ball_face(70, 60, scale=0.3, track=1), ball_face(90, 60, scale=0.6, track=2)
    first, second = (draw_scene(scene_of(*faces), template=ball) for faces in ((small, large), (large, small)))
    assert np.array_equal(first, second)


def test_axes_point_to_the_subjects_left_and_up(ball: FaceTemplate, ball_face: MakeFace) -> None:
    picture = draw_scene(
        scene_of(ball_face(80, 60, scale=0.6)), style="landmarks", landmarks=False, ids=False, template=ball
    )
    image = picture.astype(int)
    red = np.argwhere((image[..., 2] > 200) & (image[..., 1] < 110)).mean(0)
    green = np.argwhere((image[..., 1] > 180) & (image[..., 2] < 130) & (image[..., 0] < 130)).mean(0)
    # A frontal subject's left is the picture's right.
    assert red[1] > green[1] + 10
    assert green[0] < red[0] - 10


def test_a_line_from_each_eye_shows_where_it_looks(ball: FaceTemplate, ball_face: MakeFace) -> None:
    """The left eye looks to the subject's left, which is the picture's right, and the right eye looks up."""
    face = ball_face(80, 60, scale=0.5)
    landmarks = face.landmarks.copy()
    landmarks[42:48], landmarks[36:42] = [95, 50, 0], [65, 50, 0]
    gaze = np.array([[0.6, 0, 0.8], [0, 0.6, 0.8]], np.float32)
    bare: Any = {"style": "landmarks", "landmarks": False, "axes": False, "ids": False, "template": ball}
    picture = draw_scene(scene_of(replace(face, landmarks=landmarks, gaze=gaze)), **bare)
    x1, y1, x2, y2 = changed_box(grey()[:, 80:], picture[:, 80:])
    length = 0.6 * GAZE_MM * 0.5
    assert (x1 + 80, x2 + 80, y1, y2) == pytest.approx((95, 95 + length, 50, 50), abs=3)
    x1, y1, x2, y2 = changed_box(grey()[:, :80], picture[:, :80])
    assert (x1, x2, y1, y2) == pytest.approx((65, 65, 50 - length, 50), abs=3)
    unseen = scene_of(replace(face, landmarks=landmarks))
    assert np.array_equal(draw_scene(unseen, **bare), grey())
    assert np.array_equal(draw_scene(scene_of(replace(face, gaze=gaze)), gaze=False, **bare), grey())


@pytest.mark.parametrize("centre", [(0, 0), (159, 0), (80, 119)])
def test_a_label_stays_inside_the_picture(ball: FaceTemplate, ball_face: MakeFace, centre: tuple[int, int]) -> None:
    scene = scene_of(ball_face(*centre, track=12))
    picture = draw_scene(scene, style="landmarks", axes=False, landmarks=False, template=ball)
    x1, y1, x2, y2 = changed_box(scene.frame.image, picture)
    assert x2 - x1 > 30
    assert y2 - y1 > 8


def test_the_contours_use_every_landmark_once() -> None:
    assert sorted(index for contour, _ in CONTOURS for index in contour) == list(range(68))
    closed = [contour for contour, is_closed in CONTOURS if is_closed]
    assert closed == [range(36, 42), range(42, 48), range(48, 60), range(60, 68)]


# Montages


def test_a_montage_has_one_row_of_four_tiles_per_face(ball: FaceTemplate, ball_face: MakeFace) -> None:
    scene = scene_of(ball_face(40, 60, scale=0.3), ball_face(120, 60, scale=0.3))
    sheet, row = montage(scene, template=ball), montage(scene, 1, template=ball)
    tile, gap = 256, 8
    assert row.shape == (tile + 2 * gap, 4 * tile + 5 * gap, 3)
    assert sheet.shape == (2 * tile + 3 * gap, 4 * tile + 5 * gap, 3)
    assert np.array_equal(sheet[-row.shape[0] :], row)


def test_a_montage_shows_the_crop_and_the_mesh_beside_it(ball: FaceTemplate, ball_face: MakeFace) -> None:
    image = grey()
    image[60 - 3 : 60 + 4, 80 - 3 : 80 + 4] = (0, 0, 255)
    row = montage(scene_of(ball_face(80, 60), image=image), template=ball)
    tile, gap = 256, 8
    crop, over, front, half = (row[gap : gap + tile, gap + k * (tile + gap) :][:, :tile] for k in range(4))
    # The head's origin lies above the middle of the crop, where the chin counts too.
    ys, xs = np.nonzero((crop[..., 2] > 200) & (crop[..., 0] < 60))
    assert abs(xs.mean() - 127.5) < 3
    assert ys.mean() < 120
    assert (crop != over).any()
    for view in (front, half):
        assert tuple(view[0, 0]) == PAPER
        assert tuple(view[127, 127]) != PAPER


def test_what_lies_outside_the_frame_is_paper_in_a_montage(ball: FaceTemplate, ball_face: MakeFace) -> None:
    row = montage(scene_of(ball_face(0, 60)), template=ball)
    assert tuple(row[8 + 128, 8 + 20]) == PAPER
    assert tuple(row[8 + 128, 8 + 200]) == (128, 128, 128)


def test_a_montage_without_faces_is_the_frame() -> None:
    scene = scene_of()
    sheet = montage(scene)
    assert np.array_equal(sheet, scene.frame.image)
    assert not np.shares_memory(sheet, scene.frame.image)

"""Views of a face: their places in the picture, and an average that stays where the face is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from facerecon_rt.align import Square, compose, frame_from_crop
from facerecon_rt.contract import ModelContract
from facerecon_rt.faces import reconstruct
from facerecon_rt.faces.reconstruct import Reconstructor
from facerecon_rt.networks import views
from facerecon_rt.networks.session import RawFaces
from facerecon_rt.networks.views import VIEWS, average_of_views, views_of
from facerecon_rt.pose import rotation_from_euler
from facerecon_rt.template import load_template
from facerecon_rt.types import Image

SIZE = 64


def raw_faces(random: np.random.Generator, count: int, vertices: int = 9) -> RawFaces:
    """Return faces with random values and cameras of a scale and a rotation."""
    cameras = np.stack(
        [
            np.column_stack([0.5 * rotation_from_euler(*random.uniform(-30, 30, 3)), random.uniform(20, 40, 3)])
            for _ in range(count)
        ]
    )
    return RawFaces(
        shape=random.normal(0, 50, (count, vertices, 3)).astype(np.float32),
        vertices=random.normal(0, 50, (count, vertices, 3)).astype(np.float32),
        expression=random.random((count, 53), np.float32),
        crop_from_head=cameras.astype(np.float32),
        landmarks=random.uniform(0, SIZE, (count, 68, 3)).astype(np.float32),
        confidence=random.random(count, np.float32),
        gaze=np.tile(np.array([0, 0, 1], np.float32), (count, 2, 1)),
        identity=random.normal(0, 1, (count, 8)).astype(np.float32),
        identity_variance=random.random((count, 8), np.float32),
    )


def test_views_are_smaller_and_moved_along_the_diagonal_of_the_upright_head(monkeypatch: pytest.MonkeyPatch) -> None:
    assert views_of(Square(100, 50, 200, 0.3))[0] == Square(100, 50, 200, 0.3)
    monkeypatch.setattr(views, "VIEWS", ((0.9, 0.1),))
    (upright,), (turned,) = (views_of(Square(100, 50, 200, roll)) for roll in (0, np.pi / 2))
    assert (upright.x, upright.y, upright.side, upright.roll) == pytest.approx((120, 70, 180, 0))
    assert (turned.x, turned.y, turned.side, turned.roll) == pytest.approx((80, 70, 180, np.pi / 2))


@pytest.mark.parametrize("roll", [0.0, 0.7])
def test_views_that_agree_in_the_frame_average_to_the_first(roll: float) -> None:
    first = raw_faces(np.random.default_rng(1), 2)
    square = Square(300, 200, 150, roll)
    frame_from_first = frame_from_crop(square, SIZE)
    seen = []
    for view in views_of(square):
        frame_from_view = np.vstack([frame_from_crop(view, SIZE), [0, 0, 0, 1]])
        view_from_first = (np.linalg.inv(frame_from_view) @ np.vstack([frame_from_first, [0, 0, 0, 1]]))[:3]
        landmarks = first.landmarks @ view_from_first[:, :3].T + view_from_first[:, 3]
        seen.append(replace(first, crop_from_head=compose(view_from_first, first.crop_from_head), landmarks=landmarks))
    order = [(view, face) for face in range(2) for view in range(len(VIEWS))]
    together = replace(
        first,
        **{
            name: np.stack([getattr(seen[view], name)[face] for view, face in order])
            for name in first.__slots__
            if getattr(first, name) is not None
        },
    )
    found = average_of_views(together, SIZE)
    for name in first.__slots__:
        expected = getattr(first, name)
        if expected is None:
            assert getattr(found, name) is None
        else:
            np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-4, atol=2e-3, err_msg=name)


def test_what_views_do_not_share_is_averaged() -> None:
    random = np.random.default_rng(2)
    raw = raw_faces(random, len(VIEWS))
    found = average_of_views(raw, SIZE)
    assert found.identity is not None and raw.identity is not None
    np.testing.assert_allclose(found.identity[0], raw.identity.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.expression[0], raw.expression.mean(0), rtol=1e-5)
    assert found.confidence[0] == raw.confidence[0]


class FindsMark:
    """A network that sees a face where a bright mark lies in the crop."""

    provider, sha256 = "cpu", "mark"

    def __init__(self, contract: ModelContract) -> None:
        self.contract = contract

    def run(self, images: Image) -> RawFaces:
        raw = raw_faces(np.random.default_rng(3), len(images), load_template().vertex_count)
        light = images.astype(np.float64).mean(3) ** 2
        y, x = (np.indices(light.shape[1:])[axis] for axis in (0, 1))
        total = light.sum((1, 2))
        middle = np.stack([(light * x).sum((1, 2)), (light * y).sum((1, 2)), 0 * total], 1) / total[:, None]
        landmarks = np.tile(middle[:, None], (1, 68, 1)).astype(np.float32)
        camera = raw.crop_from_head.copy()
        camera[:, :, :3] = 0.5 * np.eye(3)
        camera[:, :, 3] = middle
        return replace(raw, landmarks=landmarks, crop_from_head=camera, identity=None, identity_variance=None)


def test_several_faces_of_several_pictures_are_read_at_their_places(model: Path) -> None:
    places = [[(60, 50, 0.4), (150, 120, -0.9)], [], [(100, 90, 0.0)]]
    pictures, squares = [], []
    for of in places:
        picture = np.zeros((180, 220, 3), np.uint8)
        for x, y, _ in of:
            cv2.circle(picture, (x, y), 4, (255, 255, 255), cv2.FILLED, cv2.LINE_AA)
        pictures.append(picture)
        squares.append([Square(x + 3, y - 4, 70, roll) for x, y, roll in of])
    with Reconstructor(model) as opened:
        opened.network = FindsMark(opened.contract)
        found = opened.faces_at_each(pictures, squares, mirror=True)
    assert [len(faces) for faces in found] == [2, 0, 1]
    for faces, of in zip(found, places, strict=True):
        for face, (x, y, _) in zip(faces, of, strict=True):
            np.testing.assert_allclose(face.landmarks[:, :2], np.tile([[x, y]], (68, 1)), atol=0.3)
            np.testing.assert_allclose(face.frame_from_head[:2, 3], [x, y], atol=0.3)


def test_a_crowd_is_read_in_several_runs(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.zeros((180, 220, 3), np.uint8)
    cv2.circle(picture, (100, 90), 4, (255, 255, 255), cv2.FILLED, cv2.LINE_AA)
    squares = [[Square(100 + shift, 90, 70) for shift in range(5)]]
    with Reconstructor(model) as opened:
        opened.network = FindsMark(opened.contract)
        (together,) = opened.faces_at_each([picture], squares, mirror=True)
        monkeypatch.setattr(reconstruct, "FACES_TOGETHER", 2)
        (apart,) = opened.faces_at_each([picture], squares, mirror=True)
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_array_equal(one.landmarks, other.landmarks)


def test_pixels_of_a_disagreement_are_those_of_the_first_view() -> None:
    raw = replace(raw_faces(np.random.default_rng(4), len(VIEWS)), disagreement=np.ones((len(VIEWS), 4), np.float32))
    found = average_of_views(raw, SIZE).disagreement
    assert found is not None
    share = float(np.mean([share for share, _ in VIEWS]))
    np.testing.assert_allclose(found, np.array([[1, 1, share, 1]]), rtol=1e-6)

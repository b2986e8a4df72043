"""Random people: the same for one seed, labels that say where the face is, and no photograph in clean ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from facerecon_rt.errors import UsageError
from facerecon_rt.pose import fit_camera
from facerecon_rt.types import Floats
from facerecon_training.fit import fit_head
from facerecon_training.photographs import CANVAS_SIZE
from facerecon_training.prepare import colour_model, face_colours
from facerecon_training.rendered import people
from facerecon_training.rendered.backgrounds import (
    LARGEST_SIDE,
    Invented,
    background_files,
    invented_picture,
    random_patch,
    read_backgrounds,
)
from facerecon_training.rendered.expressions import (
    EYE_LOOK,
    Expression,
    eye_look_from_gaze,
    gaze_vectors,
    random_expression,
)
from facerecon_training.rendered.morphable import MorphableHead, read_head
from facerecon_training.rendered.people import (
    PeopleRenderer,
    pack_people,
    random_angles,
    random_identity,
    read_panoramas,
    shoulders,
)
from facerecon_training.rendered.raster import Light, paint
from facerecon_training.rendered.render import HeadGeometry, RenderedFace, camera_for_crop
from facerecon_training.rendered.skin import random_complexion

from tests.interrupted import default_interrupts

LIGHT = np.vstack([np.full((1, 3), 1 / 0.282095), np.zeros((8, 3))])


@pytest.fixture(scope="module")
def renderer(ball_geometry: HeadGeometry) -> PeopleRenderer:
    return PeopleRenderer(ball_geometry, [LIGHT], [])


def test_identities_are_standard_normal_and_bounded() -> None:
    random = np.random.default_rng(0)
    many = np.stack([random_identity(random) for _ in range(300)])
    assert np.abs(many).max() <= 2.5
    assert many.mean() == pytest.approx(0, abs=0.02)
    assert many.std() == pytest.approx(1.05, abs=0.1)


def test_most_people_face_the_camera_and_some_show_their_profile() -> None:
    random = np.random.default_rng(0)
    pitch, yaw, roll = np.array([random_angles(random) for _ in range(2000)]).T
    assert 0.55 < (np.abs(yaw) < 25).mean() < 0.75
    assert 0.8 < (np.abs(pitch) < 20).mean() < 0.95
    assert yaw.min() < -70
    assert 70 < yaw.max() <= 90
    assert pitch.min() < -30
    assert 30 < pitch.max() <= 60
    assert np.abs(roll).max() < 40
    assert (np.abs(yaw) > 50).mean() > 0.06


def test_one_seed_gives_one_person(renderer: PeopleRenderer) -> None:
    first, again, other = (renderer.person(np.random.default_rng(seed), views=2) for seed in (5, 5, 6))
    for view, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(view.image, same.image)
        np.testing.assert_array_equal(view.image_from_head, same.image_from_head)
    assert (first[0].identity == first[1].identity).all()
    assert (first[0].image_from_head != first[1].image_from_head).any()
    assert (first[0].identity != other[0].identity).any()


def test_labels_lead_back_into_the_picture(renderer: PeopleRenderer) -> None:
    head = renderer.head
    for seed in range(3):
        for view in renderer.person(np.random.default_rng(seed), views=2):
            vertices = head.expressed(head.neutral(view.identity), view.expression)[head.landmarks]
            points = vertices @ view.image_from_head[:, :3].T + view.image_from_head[:, 3]
            assert view.image.shape == (CANVAS_SIZE, CANVAS_SIZE, 3)
            assert view.image.dtype == np.uint8
            assert points[:, :2].min() > 0
            assert points[:, :2].max() < CANVAS_SIZE - 1


@pytest.fixture(scope="module")
def looking(ball_geometry: HeadGeometry, tmp_path_factory: pytest.TempPathFactory) -> PeopleRenderer:
    """A renderer whose people have black irises in white eyes."""
    assets = tmp_path_factory.mktemp("assets")
    (assets / "eyes").mkdir()
    iris = np.full((256, 256, 3), 255, np.uint8)
    cv2.circle(iris, (128, 128), 53, (0, 0, 0), -1)
    cv2.imwrite(str(assets / "eyes" / "brown.jpg"), iris)
    return PeopleRenderer(ball_geometry, [LIGHT], [], assets)


@pytest.mark.parametrize("gaze", [(0.0, 0.0), (22.0, 0.0), (-22.0, 0.0), (0.0, 12.0), (10.0, -10.0)])
@pytest.mark.parametrize("yaw", [0.0, 15.0])
def test_irises_are_seen_where_the_labels_say_that_people_look(
    looking: PeopleRenderer, gaze: tuple[float, float], yaw: float
) -> None:
    head, random = looking.head, np.random.default_rng(0)
    complexion = random_complexion(head, looking.where, random)
    dressing = looking._dress(random, head.mean, complexion)
    expression = Expression(np.zeros(53, np.float32), np.array([gaze, gaze], np.float32))
    camera = camera_for_crop(0, yaw, 0, CANVAS_SIZE, 5 * CANVAS_SIZE / 1.4)
    day = Light(np.vstack([np.ones((1, 3)), np.zeros((8, 3))]), np.array([0.0, 0.0, 1.0]), np.zeros(3))
    direction = gaze_vectors(np.array(gaze, np.float32))
    for eyeball in head.eyeballs:
        centre = eyeball.centre(head.mean)
        close = camera.copy()
        close[:2, 3] += (CANVAS_SIZE - 1) / 2 - (close[:, :3] @ centre + close[:, 3])[:2]
        picture, _ = paint(looking._surfaces(head.mean, dressing, expression), day, close, CANVAS_SIZE, 0)
        bare = replace(dressing, iris=np.ones((2, 2, 4), np.float32))
        white, _ = paint(looking._surfaces(head.mean, bare, expression), day, close, CANVAS_SIZE, 0)
        y, x = np.nonzero((white - picture).mean(2) > 0.5 * white.mean(2))  # what the iris made dark
        place = close[:, :3] @ (centre + eyeball.iris_distance * direction) + close[:, 3]
        scale = float(np.linalg.norm(close[0, :3]))
        # The lids of the hole, 7 mm high, cut some of it off above and below.
        assert x.mean() == pytest.approx(place[0], abs=0.8 * scale)
        assert y.mean() == pytest.approx(place[1], abs=1.2 * scale)


def test_shoulders_are_below_the_face(ball_geometry: HeadGeometry) -> None:
    points, triangles = shoulders(ball_geometry)
    chin = ball_geometry.mean[ball_geometry.parts["face"], 1].min()
    assert points[:, 1].max() < chin + 10
    assert np.ptp(points[:, 0]) > 2 * np.ptp(ball_geometry.mean[ball_geometry.parts["face"], 0])
    assert triangles.max() == len(points) - 1


def test_a_person_keeps_hair_and_eyes_and_changes_all_else(looking: PeopleRenderer) -> None:
    views = looking.person(np.random.default_rng(4), views=6)
    assert len({view.gaze_deg.tobytes() for view in views}) == 6
    assert len({view.expression.tobytes() for view in views}) > 3
    assert len({view.identity.tobytes() for view in views}) == 1
    for view in views:
        np.testing.assert_array_equal(
            view.expression[list(EYE_LOOK[0] + EYE_LOOK[1])], eye_look_from_gaze(view.gaze_deg).ravel()
        )


def test_packed_people_are_rendered_ones(tmp_path: Path, renderer: PeopleRenderer) -> None:
    pack_people(renderer, 2, 7, tmp_path / "people")
    images = np.load(tmp_path / "people" / "images.npy")
    with np.load(tmp_path / "people" / "labels.npz", allow_pickle=False) as labels:
        assert labels["person"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
        view = renderer.person(np.random.default_rng((7, 1)))[2]
        np.testing.assert_array_equal(images[6], view.image)
        np.testing.assert_array_equal(labels["canvas_from_head"][6], view.image_from_head)
        np.testing.assert_array_equal(labels["expression"][6], view.expression)
        np.testing.assert_array_equal(labels["gaze_deg"][6], view.gaze_deg)
        np.testing.assert_array_equal(labels["identity"][6], view.identity)


def test_render_processes_end_whatever_handler_their_parent_has() -> None:
    """A handler of SIGTERM is inherited by forks. Another process tries it, because the failure is to wait for ever."""
    script = """
import signal
from facerecon_training.rendered.people import render_processes
signal.signal(signal.SIGTERM, lambda *_: None)
for _ in range(5):
    with render_processes() as pool:
        assert list(pool.imap(abs, [-1, -2])) == [1, 2]
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_render_processes_say_nothing_on_ctrl_c() -> None:
    """A terminal sends Ctrl-C to all processes of a command."""
    script = """
import os, signal
from facerecon_training.rendered.people import render_processes
with render_processes() as pool:
    list(pool.map(abs, range(9)))
    try:
        os.killpg(0, signal.SIGINT)
        signal.pause()
    except KeyboardInterrupt:
        pass
    assert list(pool.map(abs, [-1, -2])) == [1, 2]
"""
    with default_interrupts():
        done = subprocess.run(
            [sys.executable, "-c", script], timeout=60, start_new_session=True, capture_output=True, text=True
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_without_panoramas_the_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"lighting holds no \.hdr panorama"):
        read_panoramas(tmp_path / "lighting")


def test_a_panorama_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "dusk.hdr").write_bytes(b"no light")
    with pytest.raises(UsageError, match=r"dusk\.hdr is not a readable Radiance"):
        read_panoramas(tmp_path)


def test_without_backgrounds_the_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"backgrounds holds no \.jpg; .*--clean"):
        background_files(tmp_path / "backgrounds")


def test_backgrounds_are_squares_of_the_photographs(tmp_path: Path) -> None:
    image = np.zeros((60, 90, 3), np.uint8)
    image[:, 45:] = 250
    cv2.imwrite(str(tmp_path / "half.jpg"), image)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    images = read_backgrounds(background_files(tmp_path))
    assert len(images) == 1
    sides = [random_patch(images, np.random.default_rng(i), 0.5, 1.0).shape for i in range(20)]
    assert all(height == width and 30 <= height <= 60 for height, width, _ in sides)


def test_large_backgrounds_are_reduced(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "large.jpg"), np.zeros((2 * LARGEST_SIDE, 3 * LARGEST_SIDE, 3), np.uint8))
    assert read_backgrounds(background_files(tmp_path))[0].shape == (LARGEST_SIDE, 3 * LARGEST_SIDE // 2, 3)


def test_generated_backgrounds_are_the_same_for_a_seed_in_any_order() -> None:
    one, other = Invented(3), Invented(3)
    forwards = [one[number] for number in range(5)]
    np.testing.assert_array_equal(forwards, [other[number] for number in (4, 3, 2, 1, 0)][::-1])
    assert (forwards[0] != Invented(4)[0]).any()
    sides = {random_patch(one, np.random.default_rng(number), 0.15, 0.9).shape[0] for number in range(20)}
    assert 0.15 * 192 - 1 <= min(sides) < max(sides) <= 0.9 * 192
    with pytest.raises(IndexError):
        one[len(one)]


def test_invented_pictures_are_smooth_varied_and_repeatable() -> None:
    pictures = [invented_picture(np.random.default_rng(i)) for i in range(12)]
    np.testing.assert_array_equal(pictures[3], invented_picture(np.random.default_rng(3)))
    assert all(p.shape == (192, 192, 3) and p.dtype == np.uint8 for p in pictures)
    means = np.array([p.mean((0, 1)) for p in pictures])
    assert means.std(0).min() > 15
    assert max(p.std() for p in pictures) > 40
    for picture in pictures:
        steps = np.abs(np.diff(picture.astype(np.float32), axis=1)).mean()
        assert steps < 0.25 * picture.std() + 1


def landmark_error(head: HeadGeometry, points: Floats, vertices: Floats, camera: Floats) -> float:
    """Mean distance in pixels where there are points."""
    seen = vertices[head.landmarks] @ camera[:, :3].T + camera[:, 3]
    return float(np.nanmean(np.linalg.norm(seen[:, :2] - points, axis=1)))


@pytest.mark.parametrize("first", [0, 17])
def test_a_fitted_head_explains_landmarks_better_than_the_mean_one(data_folder: Path, first: int) -> None:
    head = HeadGeometry(read_head(data_folder / "face_model" / "ict_facekit.npz"))
    errors = []
    for seed in range(6):
        random = np.random.default_rng(seed)
        vertices = head.expressed(head.neutral(random_identity(random)), random_expression(random).weights)[
            head.landmarks
        ]
        camera = camera_for_crop(5, 15, 0, CANVAS_SIZE, CANVAS_SIZE / 1.4)
        points = (vertices @ camera[:, :3].T + camera[:, 3])[:, :2].astype(np.float32)
        points[:first] = np.nan  # 17: as in a file of 49 points
        identity, expression, fitted = fit_head(head, points)
        mean_camera = fit_camera(head.mean[head.landmarks][first:], points[first:])
        explained = landmark_error(head, points, head.expressed(head.neutral(identity), expression), fitted)
        errors.append((explained, landmark_error(head, points, head.mean, mean_camera)))
    explained, mean = np.mean(errors, axis=0)
    assert explained < 0.65 * mean
    assert explained < 1.6


def test_people_of_the_real_head_wear_photographed_skin(data_folder: Path, tmp_path: Path) -> None:
    head: MorphableHead = read_head(data_folder / "face_model" / "ict_facekit.npz")
    geometry = HeadGeometry(head)
    source = data_folder / "faces" / "helen-train"
    for pts in sorted(source.glob("*.pts"))[:6]:
        for path in (pts, pts.with_suffix(".jpg")):
            (tmp_path / path.name).symlink_to(path)
    colours = face_colours(geometry, head, [tmp_path])
    assert 1 <= len(colours) <= 6
    assert colours.shape[1:] == (len(geometry.parts["face"]), 3)
    few = colour_model(geometry, head, colours, tmp_path)
    assert few is None, "six photographs are too few to learn how skins differ"
    tints = np.linspace(0.7, 1.3, 8)[:, None, None]
    eight: Floats = np.asarray(colours[:1] * tints, np.float32)
    (tmp_path / "skins_albedo.npz").write_bytes(b"PK\x03\x04 is not all of an archive")
    with pytest.raises(UsageError, match=r"skins_albedo.npz cannot be read .*; download the data again"):
        colour_model(geometry, head, eight, tmp_path)
    (tmp_path / "skins_albedo.npz").unlink()
    model = colour_model(geometry, head, eight, tmp_path)
    assert model is not None and model.skins is None
    renderer = PeopleRenderer(geometry, read_panoramas(data_folder / "lighting"), [], face_colours=model)
    (view,) = renderer.person(np.random.default_rng(1), views=1)
    points_head = geometry.expressed(geometry.neutral(view.identity), view.expression)[geometry.landmarks]
    points = points_head @ view.image_from_head[:, :3].T + view.image_from_head[:, 3]
    assert points[:, :2].min() > 0
    assert points[:, :2].max() < CANVAS_SIZE


def test_an_interrupted_rendering_continues(
    tmp_path: Path, renderer: PeopleRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_people(renderer, 3, 7, tmp_path / "whole")
    target, labels_of, calls = tmp_path / "people", people.labels_of, iter([False, True])

    def interrupted(faces: Sequence[RenderedFace]) -> dict[str, Any]:
        if next(calls):
            raise KeyboardInterrupt
        return labels_of(faces)

    monkeypatch.setattr(people, "PART", 2)
    monkeypatch.setattr(people, "labels_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack_people(renderer, 3, 7, target)
    assert not (target / "labels.npz").exists()
    monkeypatch.setattr(people, "labels_of", labels_of)
    np.lib.format.open_memmap(target / "images.npy", "r+")[0] = 7  # shows that it is not rendered again
    pack_people(renderer, 3, 7, target)
    assert sorted(path.name for path in target.iterdir()) == ["images.npy", "labels.npz"]
    whole, own = np.load(tmp_path / "whole" / "images.npy"), np.load(target / "images.npy")
    assert (own[0] == 7).all()
    np.testing.assert_array_equal(own[1:], whole[1:])
    with np.load(target / "labels.npz") as one, np.load(tmp_path / "whole" / "labels.npz") as other:
        assert set(one) == set(other)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])

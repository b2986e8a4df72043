"""Face model, light and photographs to a prepared folder; everything that is missing is named before any long work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from facerecon_rt.annotated import read_pts
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import SourceError, UsageError
from facerecon_rt.template import IBUG_MIRROR, load_template
from facerecon_training.augment import AugmentConfig
from facerecon_training.data import BatchConfig, Batches, Packed
from facerecon_training.landmark_sheet import LEFT, RIGHT
from facerecon_training.photographs import CANVAS_SIZE
from facerecon_training.photometric import SkinModel
from facerecon_training.prepare import (
    EXPRESSIVE,
    PrepareConfig,
    check_same_face,
    is_clean,
    people_sheet,
    photograph_folders,
    prepare,
    read_face,
    write_photographs,
    write_settings,
)
from facerecon_training.rendered.morphable import MorphableFace, MorphableHead, read_head
from facerecon_training.rendered.people import PeopleRenderer, pack_people, read_panoramas
from facerecon_training.rendered.render import HeadGeometry, camera_for_crop, rasterise


@pytest.fixture(scope="module")
def face_model(tmp_path_factory: pytest.TempPathFactory, ball_head: MorphableHead) -> Path:
    """The ball-headed face model, packed."""
    path = tmp_path_factory.mktemp("face_model") / "ball.npz"
    np.savez(
        path,
        mean=ball_head.mean,
        identity=ball_head.identity.astype(np.float16),
        expression=ball_head.expression.astype(np.float16),
        expression_names=np.array(BLENDSHAPES),
        quads=np.hstack([ball_head.triangles, np.full((len(ball_head.triangles), 1), -1, np.int32)]),
        landmarks68=ball_head.landmarks,
    )
    return path


@pytest.fixture
def config(data: Path, face_model: Path, tmp_path: Path) -> PrepareConfig:
    return PrepareConfig(data, face_model, tmp_path / "out", people=1, held_out_people=1, invented_skins=20)


def add_photographs(folder: Path, head: HeadGeometry, count: int = 2) -> None:
    """Photographs of the ball head in plain skin, with their points."""
    folder.mkdir(parents=True)
    for i in range(count):
        camera = camera_for_crop(3, 8 * i, 0, 240, 180)
        skin = np.full((len(head.mean), 3), 0.3, np.float32) + 0.2 * head.normals(head.mean)[:, 2:]
        picture = rasterise(head.mean, head.triangles, np.clip(skin, 0, 1), camera, np.zeros((240, 240, 3), np.float32))
        cv2.imwrite(str(folder / f"{i}.png"), (255 * picture).astype(np.uint8))
        points = (head.mean[head.landmarks] @ camera[:, :3].T + camera[:, 3])[:, :2] + 1
        text = "\n".join(f"{x} {y}" for x, y in points)
        (folder / f"{i}.pts").write_text(f"version: 1\nn_points: 68\n{{\n{text}\n}}\n")


def test_clean_data_hold_nothing_of_any_photograph(
    config: PrepareConfig, ball_geometry: HeadGeometry, tmp_path: Path
) -> None:
    add_photographs(config.data / "faces" / "family", ball_geometry)
    out = config.out
    out.mkdir()
    (out / "people_sheet.png").touch()  # what is there is not drawn anew, and nobody looks at it here
    prepare(replace(config, clean=True))
    assert not (out / "photographs").exists()
    assert not (out / "face_colours.npy").exists()
    assert is_clean(out)
    # Byte for byte what a renderer draws that was given no photograph.
    geometry = HeadGeometry(read_head(config.face_model))
    alone = PeopleRenderer(geometry, read_panoramas(config.data / "lighting"), [])
    pack_people(alone, 1, 2, tmp_path / "alone")
    images = (out / "people" / "train" / "images.npy").read_bytes()
    assert images == (tmp_path / "alone" / "images.npy").read_bytes()
    batch, layout = next(iter(Batches(out, None, BatchConfig(), AugmentConfig(), 64, 0, 0))), BatchConfig()
    assert batch.rendered.sum() == layout.size - layout.backgrounds


def test_photographs_are_packed_and_lend_their_skin(config: PrepareConfig, ball_geometry: HeadGeometry) -> None:
    add_photographs(config.data / "faces" / "family", ball_geometry)
    add_photographs(config.data / "faces" / "family-test", ball_geometry)
    out = config.out
    out.mkdir()
    (out / "people_sheet.png").touch()
    prepare(config)
    assert [path.name for path in (out / "photographs").iterdir()] == ["family"]
    assert np.load(out / "photographs" / "family" / "images.npy").shape == (2, CANVAS_SIZE, CANVAS_SIZE, 3)
    assert len(np.load(out / "face_colours.npy")) >= 1
    assert not is_clean(out)
    assert cv2.imread(str(out / "contact_sheet.png")) is not None
    face = read_face(out)
    assert face.mean.shape == (load_template().vertex_count, 3)
    assert face.identity.shape == (100, *face.mean.shape)
    # The balls are 30 mm to each side, and look straight ahead.
    np.testing.assert_allclose(face.eyes[:, 1, :2], 0, atol=0.3)
    assert (face.eyes[:, 1, 2] > 12).all()
    # Again: nothing is made anew, and other settings are refused before they are mixed in.
    before = (out / "people" / "train" / "images.npy").stat().st_mtime_ns
    prepare(config)
    assert (out / "people" / "train" / "images.npy").stat().st_mtime_ns == before
    with pytest.raises(
        UsageError, match=r"prepare\.json: the folder was prepared with clean = False, not True; give another --out"
    ):
        prepare(replace(config, clean=True))


def test_photographs_are_drawn_with_their_points_and_swapped_sides_and_new_ones_are_said(
    config: PrepareConfig, ball_geometry: HeadGeometry, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = config.data / "faces" / "mine"
    add_photographs(mine, ball_geometry)
    swapped = config.data / "faces" / "swapped-sets"
    add_photographs(swapped, ball_geometry)
    for path in swapped.glob("*.pts"):
        points = read_pts(path)[IBUG_MIRROR] + 1
        text = "\n".join(f"{x} {y}" for x, y in points)
        path.write_text(f"version: 1\nn_points: 68\n{{\n{text}\n}}\n")
    write_photographs(config, [mine, swapped])
    said = capsys.readouterr().out
    assert "mine: 2 photographs\n" in said and "swapped-sets: 2 photographs of 2 people\n" in said
    assert "swapped-sets: in 2 of 2 photographs" in said and "mine: in" not in said
    packed = config.out / "photographs" / "mine"
    sheet = cv2.imread(str(packed / "sheet.jpg"))
    assert sheet is not None and sheet.shape == (CANVAS_SIZE, 2 * CANVAS_SIZE, 3)
    points = np.load(packed / "labels.npz")["landmarks"][0]
    for corner, colour in ((36, RIGHT), (45, LEFT)):
        x, y = points[corner].round().astype(int)
        assert np.abs(sheet[y, x].astype(int) - colour).max() < 90
    for suffix in (".png", ".pts"):
        shutil.copy(mine / f"0{suffix}", mine / f"2{suffix}")
    write_photographs(config, [mine, swapped])
    said = capsys.readouterr().out
    assert f"mine: has 3 photographs now, but 2 were packed; delete {packed}" in said and "swapped" not in said


def test_weak_labels_and_expressive_faces_are_packed_where_there_are_any(
    config: PrepareConfig, ball_geometry: HeadGeometry
) -> None:
    add_photographs(config.data / "faces" / "family", ball_geometry)
    pseudo = config.data / "pseudo"
    (pseudo / "expressive").mkdir(parents=True)
    shutil.copy(config.data / "faces" / "family" / "0.png", pseudo / "expressive" / "film_1.png")
    camera = camera_for_crop(3, 0, 0, 240, 180)
    points = (ball_geometry.mean[ball_geometry.landmarks] @ camera[:, :3].T + camera[:, 3])[:, :2]
    mesh = np.zeros((1, 478, 3), np.float32)
    for numbers, corners in (((263, 362), (45, 42)), ((33, 133), (36, 39))):
        mesh[0, list(numbers), :2] = points[list(corners)]
    mesh[0, [473, 468], :2] = points[[[45, 42], [36, 39]]].mean(1)
    labels: dict[str, Any] = {
        "blendshape_names": np.array(["mouthSmileLeft"]),
        "blendshapes": np.array([[0.25]], np.float16),
        "landmarks478": mesh,
        "points68": points[None].astype(np.float32),
    }
    np.savez(pseudo / "photographs.npz", files=np.array(["family/0.png"]), **labels)
    np.savez(pseudo / "expressive.npz", files=np.array(["film_1.png"]), person=np.array([5]), **labels)
    out = config.out
    out.mkdir()
    for name in ("people_sheet.png", "contact_sheet.png"):
        (out / name).touch()
    prepare(config)
    smile = BLENDSHAPES.index("mouthSmile_L")
    with np.load(out / "photographs" / "family" / "labels.npz") as family:
        assert family["blendshapes"][0, smile] == 0.25
        assert np.isnan(family["blendshapes"][1]).all()
        np.testing.assert_allclose(family["eyes"][0, :, 0], family["landmarks"][0, [45, 36]], atol=0.2)
    with np.load(out / "photographs" / EXPRESSIVE / "labels.npz") as expressive:
        assert expressive["blendshapes"][0, smile] == 0.25
        assert np.isnan(expressive["landmarks"][0, :17]).all()
    batch = next(iter(Batches(out, None, BatchConfig(), AugmentConfig(), 64, 0, 0)))
    assert (batch.expression_weights[:, smile] > 0)[~batch.rendered].any()
    # Data prepared clean read none of that.
    again = replace(config, clean=True, out=config.out.with_name("clean"))
    again.out.mkdir()
    for name in ("people_sheet.png", "contact_sheet.png", "skin.npz"):
        (again.out / name).touch()
    prepare(again)
    assert not (again.out / "photographs").exists()


def test_expressive_faces_alone_are_wanted_by_name(config: PrepareConfig, ball_geometry: HeadGeometry) -> None:
    add_photographs(config.data / "faces" / "family", ball_geometry, 1)
    alone = replace(config, photographs=(EXPRESSIVE,))
    with pytest.raises(UsageError, match=r"there is no .*pseudo/expressive; leave expressive out of --photographs"):
        photograph_folders(alone)
    (config.data / "pseudo" / EXPRESSIVE).mkdir(parents=True)
    assert photograph_folders(alone) == []
    assert [folder.name for folder in photograph_folders(replace(config, photographs=("family",)))] == ["family"]
    # With and without them are two settings of a prepared folder.
    write_settings(replace(config, photographs=("family", EXPRESSIVE)), ["family"])
    with pytest.raises(UsageError, match=r"was prepared with expressive = True, not False"):
        write_settings(replace(config, photographs=("family",)), ["family"])


def test_a_folder_keeps_its_face_model(tmp_path: Path, ball_face: MorphableFace) -> None:
    path = tmp_path / "face.npz"
    check_same_face(path, ball_face)
    sha256 = load_template().sha256
    np.savez(path, mean=ball_face.mean, identity=ball_face.identity, template_sha256=sha256)
    check_same_face(path, ball_face)
    for other in (replace(ball_face, mean=ball_face.mean + 1), replace(ball_face, identity=-ball_face.identity)):
        with pytest.raises(UsageError, match=r"face\.npz was prepared from another --face-model; give another --out"):
            check_same_face(path, other)
    # A new template changes the face, whatever the model.
    np.savez(path, mean=ball_face.mean + 1, identity=ball_face.identity, template_sha256="earlier")
    check_same_face(path, ball_face)


def test_what_an_earlier_release_prepared_is_refused(tmp_path: Path, ball_face: MorphableFace) -> None:
    arrays: dict[str, Any] = {
        "mean": ball_face.mean,
        "identity": ball_face.identity,
        "expression": ball_face.expression,
    }
    np.savez(tmp_path / "face.npz", template_sha256=load_template().sha256, **arrays)
    with pytest.raises(UsageError, match=r"face\.npz was prepared by an earlier release; delete .* and prepare again"):
        read_face(tmp_path)


def test_a_sheet_shows_two_people_a_row_in_four_views(ball_geometry: HeadGeometry, data: Path) -> None:
    renderer = PeopleRenderer(ball_geometry, read_panoramas(data / "lighting"), [])
    sheet = people_sheet(renderer, 0, people=2)
    assert sheet.shape == (CANVAS_SIZE, 8 * CANVAS_SIZE, 3)
    first = renderer.person(np.random.default_rng((0, 0)))[0]
    np.testing.assert_array_equal(sheet[:, :CANVAS_SIZE], first.image)


def test_what_was_prepared_before_there_were_clean_data_is_not_clean(config: PrepareConfig) -> None:
    config.out.mkdir()
    old = {"photographs": ["b", "a"], "people": 1, "held_out_people": 1, "face_colours": True, "seed": 0}
    (config.out / "prepare.json").write_text(json.dumps(old))
    assert not is_clean(config.out)
    with pytest.raises(UsageError, match="prepared with clean = False, not True"):
        write_settings(replace(config, clean=True), [])
    with pytest.raises(UsageError, match="prepared with photographs"):
        write_settings(config, ["a", "c"])
    write_settings(config, ["b", "a"])
    with pytest.raises(UsageError, match="prepared with people = 1, not 2"):
        write_settings(replace(config, people=2), ["a", "b"])


def test_all_folders_are_trained_on_but_test_ones(config: PrepareConfig, ball_geometry: HeadGeometry) -> None:
    for name in ("b", "a", "a-test"):
        add_photographs(config.data / "faces" / name, ball_geometry, 1)
    (config.data / "faces" / "notes.txt").touch()
    assert [folder.name for folder in photograph_folders(config)] == ["a", "b"]
    assert [folder.name for folder in photograph_folders(replace(config, photographs=("b",)))] == ["b"]


@pytest.mark.parametrize(
    ("name", "error", "complaint"),
    [
        ("faces", UsageError, r"faces holds no folder of annotated photographs; .*--clean"),
        ("lighting", UsageError, r"lighting holds no \.hdr panorama"),
        ("backgrounds", UsageError, r"backgrounds holds no \.jpg; .*--clean"),
    ],
)
def test_a_missing_folder_of_data_is_named_before_anything_is_written(
    config: PrepareConfig, ball_geometry: HeadGeometry, name: str, error: type[Exception], complaint: str
) -> None:
    add_photographs(config.data / "faces" / "family", ball_geometry, 1)
    shutil.rmtree(config.data / name)
    with pytest.raises(error, match=complaint):
        prepare(config)
    assert not config.out.exists()


def test_a_folder_of_photographs_that_is_not_there_or_has_no_points_is_named(
    config: PrepareConfig, ball_geometry: HeadGeometry
) -> None:
    add_photographs(config.data / "faces" / "family", ball_geometry, 1)
    (config.data / "faces" / "empty").mkdir()
    for names, complaint in (
        (("family", "friends"), r"faces/friends is not a folder of photographs"),
        ((), r"faces/empty holds no photograph with a \.pts file"),
    ):
        with pytest.raises(SourceError, match=complaint):
            prepare(replace(config, photographs=names))
    assert not config.out.exists()


@pytest.mark.parametrize("clean", [True, False])
def test_a_wrong_face_model_is_named_before_anything_is_written(
    config: PrepareConfig, ball_geometry: HeadGeometry, clean: bool
) -> None:
    add_photographs(config.data / "faces" / "family", ball_geometry, 1)
    with pytest.raises(UsageError, match=r"lighting lacks vertex_indices\.json and 154 more; .*--face-model"):
        prepare(replace(config, clean=clean, face_model=config.data / "lighting"))
    assert not config.out.exists()


def test_a_prepared_folder_of_another_template_is_refused(tmp_path: Path, ball_face: MorphableFace) -> None:
    np.savez(tmp_path / "face.npz", mean=ball_face.mean, template_sha256="another")
    with pytest.raises(UsageError, match=r"face\.npz was prepared for another face template"):
        read_face(tmp_path)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("face.npz", read_face),
        ("prepare.json", is_clean),
        ("labels.npz", Packed.read),
        ("images.npy", Packed.read),
        ("skin.npz", lambda folder: SkinModel.read(folder / "skin.npz")),
    ],
)
@pytest.mark.parametrize("how", ["emptied", "text", "halved", "bytes", "other arrays"])
def test_a_prepared_file_that_was_damaged_is_named(
    name: str, read: Callable[[Path], object], how: str, prepared: Path, tmp_path: Path
) -> None:
    packed = prepared / "people" / "train"
    for source in (prepared / "face.npz", packed / "labels.npz", packed / "images.npy"):
        shutil.copy(source, tmp_path)
    np.savez(tmp_path / "skin.npz", mean=np.zeros(3), basis=np.zeros((1, 3)))
    (tmp_path / "prepare.json").write_text('{"clean": true}')
    read(tmp_path)
    path = tmp_path / name
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    if how == "other arrays":
        with path.open("wb") as file:
            np.savez(file, other=np.zeros(3))
    elif how == "bytes":
        data[: len(data) // 2] ^= 0x55
        path.write_bytes(data.tobytes())
    else:
        path.write_bytes({"emptied": b"", "text": b"[" * 5000, "halved": data[: len(data) // 2].tobytes()}[how])
    with pytest.raises(
        UsageError, match=rf"{name} cannot be read .*; delete it and run `facerecon-train prepare`"
    ) as said:
        read(tmp_path)
    assert "\n" not in str(said.value)

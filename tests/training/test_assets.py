"""What people wear and grow: it follows the head, takes another colour, and what is wrong with a file is said."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from facerecon_rt.errors import UsageError
from facerecon_training.rendered.assets import (
    KINDS,
    OPACITY,
    Asset,
    grown_normals,
    lid_edges,
    read_assets,
    read_texture,
)
from facerecon_training.rendered.morphable import read_head
from facerecon_training.rendered.people import PeopleRenderer
from facerecon_training.rendered.render import HeadGeometry
from facerecon_training.rendered.skin import random_complexion
from scipy.spatial import cKDTree

ORIGIN = np.array([0.0, 36.0, 84.0], np.float32)
"""Of the head frame in the files' coordinates."""


def add_asset(folder: Path, kind: str, points: Any, name: str = "", **changes: Any) -> Path:
    """One file with its texture: upper half opaque BGRA (0.2, 0.4, 0.6), lower half transparent white."""
    folder.mkdir(parents=True, exist_ok=True)
    name = name or kind
    texture = np.full((4, 4, 4), 255, np.uint8)
    texture[:2] = [51, 102, 153, 255]
    texture[2:, :, 3] = 0
    cv2.imwrite(str(folder / f"{name}.png"), texture)
    vertices = np.asarray(points, np.float32) + ORIGIN
    arrays: dict[str, Any] = {
        "vertices": vertices,
        "triangles": np.array([[0, 1, 2]], np.int32),
        "uv": np.tile(np.array([[0, 1], [0, 0], [1, 1]], np.float32), (-(-len(vertices) // 3), 1))[: len(vertices)],
        "texture": f"{name}.png",
        "kind": kind,
        **changes,
    }
    np.savez(folder / f"{name}.npz", **{key: value for key, value in arrays.items() if value is not None})
    return folder / f"{name}.npz"


def only(folder: Path, head: HeadGeometry) -> Asset:
    (asset,) = (one for of_kind in read_assets(folder, head, ORIGIN).values() for one in of_kind)
    return asset


ABOVE = [[0, 100, -20], [10, 100, -20], [0, 100, -10]]
"""Over the ball head, whose crown is at y = 95."""


def test_without_a_folder_there_are_none(
    tmp_path: Path, ball_geometry: HeadGeometry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even those of the folder that happens to be the current one."""
    add_asset(tmp_path, "hair", ABOVE)
    monkeypatch.chdir(tmp_path)
    assert read_assets(None, ball_geometry, ORIGIN) == {kind: [] for kind in KINDS}
    assert read_assets(tmp_path / "empty", ball_geometry, ORIGIN) == {kind: [] for kind in KINDS}


def test_files_are_sorted_by_kind_and_placed_in_the_head_frame(tmp_path: Path, ball_geometry: HeadGeometry) -> None:
    add_asset(tmp_path, "hair", ABOVE)
    add_asset(tmp_path, "glasses", [[-30, 0, 40], [30, 0, 40], [0, 5, 40]], name="round")
    np.savez(tmp_path / "skins_albedo.npz", albedo=np.zeros(3))
    np.savez(tmp_path / "shoe.npz", kind="shoe")
    found = read_assets(tmp_path, ball_geometry, ORIGIN)
    assert [(kind, [one.name for one in found[kind]]) for kind in KINDS if found[kind]] == [
        ("hair", ["hair"]),
        ("glasses", ["round"]),
    ]
    np.testing.assert_allclose(found["hair"][0].vertices, ABOVE, atol=1e-4)


@pytest.mark.parametrize("kind", ["hair", "hat", "glasses", "eyebrows", "eyelashes"])
def test_an_asset_moves_with_the_head(tmp_path: Path, ball_geometry: HeadGeometry, kind: str) -> None:
    points = [[-30, 6, 20], [-20, 7, 22], [25, -5, 21]] if kind in ("glasses", "eyebrows", "eyelashes") else ABOVE
    add_asset(tmp_path, kind, points)
    asset = only(tmp_path, ball_geometry)
    np.testing.assert_allclose(asset.on(np.zeros_like(ball_geometry.mean)), asset.vertices, atol=1e-5)
    shift = np.tile(np.array([1.0, -2.0, 3.0], np.float32), (len(ball_geometry.mean), 1))
    np.testing.assert_allclose(asset.on(shift) - asset.vertices, np.tile([1, -2, 3], (3, 1)), atol=1e-4)


def test_an_asset_on_a_wider_head_is_as_wide_there(tmp_path: Path, ball_geometry: HeadGeometry) -> None:
    """Ten per cent wider: brows at x = 30 move out by 3 mm, a smooth hat by much the same everywhere around."""
    add_asset(tmp_path, "eyebrows", [[30, 12, 20], [-30, 12, 20], [0, 12, 26]])
    identity = np.zeros(100, np.float32)
    identity[0] = 10.0
    displacement = ball_geometry.neutral(identity) - ball_geometry.mean
    moved = only(tmp_path, ball_geometry).on(displacement) - np.array([[30, 12, 20], [-30, 12, 20], [0, 12, 26]])
    np.testing.assert_allclose(moved[:, 0], [3, -3, 0], atol=0.25)
    np.testing.assert_allclose(moved[:, 1:], 0, atol=1e-4)


def test_a_beard_follows_the_vertices_it_names(tmp_path: Path, ball_geometry: HeadGeometry) -> None:
    chosen = np.array([9000, 9050, 5])
    add_asset(tmp_path, "beard", ball_geometry.mean[chosen] + [0, 0, 1], ict_vertex=chosen)
    asset = only(tmp_path, ball_geometry)
    displacement = np.random.default_rng(0).normal(size=ball_geometry.mean.shape).astype(np.float32)
    np.testing.assert_allclose(asset.on(displacement) - asset.vertices, displacement[chosen], atol=1e-5)


def test_lashes_follow_the_lid_that_they_grow_from(tmp_path: Path, ball_geometry: HeadGeometry) -> None:
    """Upper lashes go down with an upper lid, lower ones stay."""
    head = ball_geometry
    edges = lid_edges(head)
    middle = np.median(head.mean[edges, 1])
    upper, lower = (edges[side] for side in (head.mean[edges, 1] > middle, head.mean[edges, 1] <= middle))
    assert len(upper) > 4 and len(lower) > 4
    add_asset(tmp_path, "eyelashes", [*(head.mean[upper[:2]] + [0, 1, 3]), head.mean[lower[0]] + [0, -1, 3]])
    asset = only(tmp_path, head)
    displacement = np.zeros_like(head.mean)
    displacement[upper, 1] = -6.0
    moved = asset.on(displacement) - asset.vertices
    np.testing.assert_allclose(moved, [[0, -6, 0], [0, -6, 0], [0, 0, 0]], atol=1e-5)


def test_a_textures_colour_is_that_of_its_opaque_part(tmp_path: Path, ball_geometry: HeadGeometry) -> None:
    for kind in ("hair", "eyelashes"):
        add_asset(tmp_path / kind, kind, ABOVE)
        asset = only(tmp_path / kind, ball_geometry)
        np.testing.assert_allclose(asset.colour, np.array([0.2, 0.4, 0.6]) ** 2.2, atol=1e-4)
        assert asset.texture[0, 0, 3] == pytest.approx(OPACITY.get(kind, 1.0))
        assert asset.texture[3, 0, 3] == 0
    # A texture without alpha is opaque.
    cv2.imwrite(str(tmp_path / "plain.png"), np.full((2, 2, 3), 255, np.uint8))
    np.testing.assert_array_equal(read_texture(tmp_path / "plain.png"), np.ones((2, 2, 4)))


def test_hair_covers_the_scalp_under_it_and_not_the_face(tmp_path: Path, ball_geometry: HeadGeometry) -> None:
    head = ball_geometry
    x, z = np.meshgrid(np.linspace(-40, 40, 15), np.linspace(-60, 20, 15))
    cap = np.stack([x.ravel(), np.full(x.size, 97.0), z.ravel()], 1)
    add_asset(tmp_path, "hair", np.vstack([cap, head.mean[head.landmarks[30]] + [[0, 0, 3.0]]]))
    roots = only(tmp_path, head).roots
    assert roots.shape == (len(head.mean),)
    crown = np.linalg.norm(head.mean - [0, 95, -65], axis=1).argmin()
    assert roots[crown] > 0.9
    assert roots[head.landmarks[30]] == 0  # though some of it lies on the nose
    add_asset(tmp_path / "other", "beard", ABOVE)
    assert not only(tmp_path / "other", head).roots.any()


def test_hair_is_worn_in_the_colour_of_the_person(tmp_path: Path, ball_geometry: HeadGeometry) -> None:
    """The tint times the texture is the hair's colour, whatever the texture's own."""
    add_asset(tmp_path, "eyebrows", [[-30, 12, 20], [-20, 12, 22], [-25, 15, 20]])
    add_asset(tmp_path, "hair", ABOVE)
    light = np.vstack([np.full((1, 3), 1 / 0.282095), np.zeros((8, 3))])
    geometry = copy(ball_geometry)
    geometry.origin = ORIGIN
    renderer = PeopleRenderer(geometry, [light], [], tmp_path)
    dressed = 0
    for seed in range(6):
        random, again = (np.random.default_rng(seed) for _ in range(2))
        complexion = random_complexion(geometry, renderer.where, random)
        dressing = renderer._dress(random, geometry.mean, random_complexion(geometry, renderer.where, again))
        for asset, points, tint in dressing.assets:
            assert points.shape == asset.vertices.shape
            if asset.kind == "hair":
                dressed += 1
                np.testing.assert_allclose(tint * (asset.colour + 0.02), complexion.hair, rtol=1e-4)
    assert dressed >= 3


@pytest.mark.parametrize("name", ["vertices", "triangles", "uv", "texture"])
def test_an_array_that_is_missing_is_named(tmp_path: Path, ball_geometry: HeadGeometry, name: str) -> None:
    missing: dict[str, Any] = {name: None}
    add_asset(tmp_path, "hair", ABOVE, **missing)
    with pytest.raises(UsageError, match=rf"hair\.npz lacks the arrays \['{name}'\]; remove it from the folder"):
        read_assets(tmp_path, ball_geometry, ORIGIN)


def test_a_texture_that_is_missing_or_unreadable_is_named(tmp_path: Path, ball_geometry: HeadGeometry) -> None:
    add_asset(tmp_path, "hair", ABOVE, texture="elsewhere.png")
    with pytest.raises(UsageError, match=r"elsewhere\.png is not a readable texture; put it beside the \.npz"):
        read_assets(tmp_path, ball_geometry, ORIGIN)
    (tmp_path / "elsewhere.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"elsewhere\.png is not a readable texture"):
        read_assets(tmp_path, ball_geometry, ORIGIN)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"no archive"])
def test_a_file_that_is_no_npz_is_named(tmp_path: Path, ball_geometry: HeadGeometry, content: bytes) -> None:
    (tmp_path / "hair.npz").write_bytes(content)
    with pytest.raises(UsageError, match=r"hair\.npz is not a readable \.npz file") as caught:
        read_assets(tmp_path, ball_geometry, ORIGIN)
    assert "\n" not in str(caught.value)


def test_normals_of_hair_follow_the_heads_roundness() -> None:
    """Cards that stand edge on to the viewer are lit like the skull under them."""
    places = np.array([[0, 120, -10], [100, 20, -10]], np.float32)
    along = np.array([[1, 0, 0], [0, 0, -1]], np.float32)
    flat = grown_normals(places, along, 1.0)
    np.testing.assert_allclose(flat, [[0, 1, 0], [1, 0, 0]], atol=1e-5)
    mixed = grown_normals(places, along, 0.75)
    np.testing.assert_allclose(np.linalg.norm(mixed, axis=1), 1, atol=1e-4)
    assert (mixed * flat).sum(1).min() > 0.9


def test_the_real_assets_fit_the_real_head(data_folder: Path) -> None:
    if not (data_folder / "assets").is_dir():
        pytest.skip("no assets in FACERECON_DATA")
    head = HeadGeometry(read_head(data_folder / "face_model" / "ict_facekit.npz"))
    found = read_assets(data_folder / "assets", head, head.origin)
    assert all(found[kind] for kind in KINDS)
    shell = cKDTree(head.mean[np.concatenate([head.parts["face"], head.parts["head"]])])
    for kind in ("eyebrows", "eyelashes", "beard"):
        for asset in found[kind]:
            assert np.percentile(shell.query(asset.vertices)[0], 90) < 6, asset.name
    for asset in found["hair"]:
        assert asset.roots.sum() > 100, asset.name

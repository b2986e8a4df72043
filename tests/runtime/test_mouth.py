"""The lining of a head's mouth: it opens with the lips, stays behind them, and is dark in every format."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.head import Head, load_head
from facerecon_rt.mouth import Mouth, mouth_of
from facerecon_rt.networks.basis import Basis
from facerecon_rt.sinks.files import open_sink
from facerecon_rt.sinks.parts import COLOURS, MOUTH_COLOUR, parts_of
from facerecon_rt.sinks.shade import CLAY, render_mesh
from facerecon_rt.template import FaceTemplate, load_template
from facerecon_rt.types import Face, Floats, Frame, Scene
from numpy.typing import NDArray

from .test_takes import Gltf

TEMPLATE = load_template()
COUNT = 5882
EXPRESSIONS: tuple[dict[str, float], ...] = (
    {},
    {"jawOpen": 1.0},
    {"mouthSmile": 1.0},
    {"jawOpen": 1.0, "mouthSmile": 1.0, "mouthFunnel": 0.5},
)
CLOSED: dict[str, float] = {"mouthPress": 1.0}
"""Weights with which the lips of the mean face touch."""
VIEWS = ((0, 0, 1), (1, 0, 1), (-1, 0, 1), (0, 0.5, 1), (0, -0.5, 1))
"""Directions to the viewer."""


@pytest.fixture(scope="module")
def head() -> Head:
    return load_head(TEMPLATE)


@pytest.fixture(scope="module")
def mouth(head: Head) -> Mouth:
    assert head.mouth is not None
    return head.mouth


@pytest.fixture(scope="module")
def basis() -> Basis:
    with np.load(Path(__file__).parents[2] / "models" / "face.basis.npz") as arrays:
        mean, shape, expression = (arrays[name].astype(np.float32) for name in ("mean", "shape", "expression"))
        return Basis(mean, shape, expression, "")


def weights_of(named: dict[str, float]) -> Floats:
    """(53,) weights. A name stands for both sides."""
    both = {f"{name}{side}": weight for name, weight in named.items() for side in ("", "_L", "_R")}
    return np.array([both.get(name, 0.0) for name in BLENDSHAPES], np.float32)


@pytest.fixture(scope="module")
def people(basis: Basis) -> list[Floats]:
    """Neutral faces: the mean, and a random person."""
    random = np.random.default_rng(4)
    return [basis.mean, basis.neutral(random.normal(size=len(basis.shape)))]


@pytest.fixture(scope="module")
def open_mouth(people: list[Floats], basis: Basis) -> Scene:
    """A photograph of somebody whose mouth is open, from the front. All of it is pink."""
    weights = weights_of({"jawOpen": 1.0})
    camera = np.array([[1.8, 0, 0, 200], [0, -1.8, 0, 200], [0, 0, -1.8, 0]], np.float32)
    vertices = basis.expressed(people[1], weights)
    face = Face(
        shape=people[1],
        vertices=vertices,
        expression=weights,
        frame_from_head=camera,
        landmarks=(vertices @ camera[:, :3].T + camera[:, 3])[TEMPLATE.landmarks].astype(np.float32),
        confidence=0.95,
        box=np.array([70, 70, 330, 330], np.float32),
    )
    return Scene(Frame(np.full((400, 400, 3), (200, 180, 240), np.uint8), "photo.jpg"), (face,))


def write(path: Path, scene: Scene, basis: Basis | None = None, **options: Any) -> None:
    decoder = None if basis is None else lambda: basis
    with open_sink(str(path), blendshapes=BLENDSHAPES, mesh="head", basis=decoder, **options) as sink:
        sink.write(scene)


# Geometry


def test_it_is_small_and_closes_the_hole_between_the_lips_with_the_same_winding(head: Head, mouth: Mouth) -> None:
    """Walked with the lips' own vertices, every edge of lips and lining has two triangles, in opposite directions."""
    assert len(mouth.offsets) < 300
    assert set(mouth.used.tolist()) <= set(range(TEMPLATE.vertex_count))
    ring = len(mouth.ring)
    names = np.concatenate([mouth.ring, COUNT + np.arange(ring, len(mouth.offsets))])
    triangles = np.vstack([head.template.triangles, names[mouth.triangles]]).tolist()
    walked = Counter((a, b) for t in triangles for a, b in zip(t, [*t[1:], t[0]], strict=True))
    assert max(walked.values()) == 1
    lips = set(mouth.ring.tolist())
    assert {a for a, b in walked if (b, a) not in walked}.isdisjoint(lips | set(names.tolist()))


@pytest.mark.parametrize("named", EXPRESSIONS)
def test_its_ring_lies_on_the_lips_whatever_the_expression(
    tmp_path: Path, mouth: Mouth, basis: Basis, open_mouth: Scene, named: dict[str, float]
) -> None:
    """In a file, as a program evaluates it: the mesh with its morph targets."""
    weights = weights_of(named)
    face = replace(open_mouth.faces[0], expression=weights)
    write(tmp_path / "face.glb", replace(open_mouth, faces=(face,)), basis)
    glb = Gltf(tmp_path / "face.glb")
    (mesh,) = (mesh for mesh in glb.file.meshes if mesh.name == "face")
    skin, lining = (1000 * glb.morphed("face", mesh.weights, part) for part in (0, 1))
    assert np.abs(lining[: len(mouth.ring)] - skin[mouth.ring]).max() <= 1e-4
    assert np.abs(lining - mouth.lining(skin.astype(np.float32))).max() < 0.02


def test_its_end_lies_30_mm_behind_the_lips_and_follows_half_of_their_motion(mouth: Mouth, basis: Basis) -> None:
    lining, moved = mouth.lining(basis.mean), mouth.moved(basis.expression[BLENDSHAPES.index("jawOpen")])
    ring = len(mouth.ring)
    assert lining[:ring, 2].mean() - lining[-1, 2] == pytest.approx(30, abs=5)
    assert lining[-1, 0] == pytest.approx(0, abs=0.5)
    np.testing.assert_allclose(moved[-1], moved[:ring].mean(0) / 2, atol=0.2)
    deeper = [np.linalg.norm(moved[at : at + ring].mean(0)) for at in range(0, len(lining) - 1, ring)]
    assert all(np.diff(deeper) < 0.1)


def crossed(points: Floats, vertices: Floats, triangles: NDArray[np.integer], view: Any) -> tuple[Any, Any]:
    """Whether the outer side of the skin lies between each point (P,) and the viewer, and whether it is the first skin
    behind the point."""
    near = np.asarray(view, np.float32) / np.linalg.norm(view)
    right = np.cross((0, 1, 0), near)
    right = right / np.linalg.norm(right)
    axes = np.stack([right, np.cross(near, right), near]).astype(np.float32)
    places, corners = points @ axes.T, (vertices @ axes.T)[triangles]
    a, ab, ac = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    x, y = (places[:, None, axis] - a[:, axis] for axis in (0, 1))
    second = (x * ac[:, 1] - y * ac[:, 0]) / area
    third = (ab[:, 0] * y - ab[:, 1] * x) / area
    depth = a[:, 2] + second * ab[:, 2] + third * ac[:, 2] - places[:, 2:]
    hit = (second >= 0) & (third >= 0) & (second + third <= 1)
    behind = np.where(hit & (depth < -0.01), depth, -np.inf)
    first = behind.argmax(1)
    return (hit & (depth > 0.01) & (area > 0)).any(1), np.isfinite(behind.max(1)) & (area[first] > 0)


@pytest.mark.parametrize("named", [*EXPRESSIONS, CLOSED])
def test_it_stays_behind_the_lips_and_inside_the_head(
    head: Head, mouth: Mouth, basis: Basis, people: list[Floats], named: dict[str, float]
) -> None:
    """Whoever goes on behind a point in front of lips, cheeks or chin would first meet their outer side."""
    for shape in people:
        whole = head.expressed(shape, basis.expressed(shape, weights_of(named)))
        behind = mouth.lining(whole)[len(mouth.ring) :]
        for view in VIEWS:
            hidden, outside = crossed(behind, whole, head.template.triangles, view)
            assert not (outside & ~hidden).any()
            if named == CLOSED:
                assert hidden.all()


def test_points_in_front_of_the_lips_would_be_found(head: Head, basis: Basis) -> None:
    before = head.neutral(basis.mean)[TEMPLATE.landmarks[[51, 57]]] + np.array([0, 0, 1], np.float32)
    hidden, outside = crossed(before, head.neutral(basis.mean), head.template.triangles, (0, 0, 1))
    assert not hidden.any()
    assert outside.all()


def test_a_template_without_a_hole_between_the_lips_has_no_lining(mouth: Mouth) -> None:
    shut = [np.array([mouth.ring[0], b, a]) for a, b in zip(mouth.ring[1:], mouth.ring[2:], strict=False)]
    assert mouth_of(replace(TEMPLATE, triangles=np.vstack([TEMPLATE.triangles, *shut]).astype(np.int32))) is None


def test_another_template_has_its_own_lips(ball: FaceTemplate) -> None:
    assert mouth_of(ball) is None


# Colours


def test_an_open_mouth_is_dark_in_a_picture(head: Head, open_mouth: Scene) -> None:
    face = open_mouth.faces[0]
    whole = head.expressed(face.shape, face.vertices)
    parts = parts_of(head, whole, face.shape, None, eyes=True)
    assert parts is not None
    solid = np.vstack([whole, parts.vertices]) @ face.frame_from_head[:, :3].T + face.frame_from_head[:, 3]
    colours = np.vstack([np.tile(np.array(CLAY, np.float32), (len(whole), 1)), parts.colours])
    x, y = np.rint(face.landmarks[[62, 66], :2].mean(0)).astype(int)
    middle = slice(y - 8, y + 9), slice(x - 8, x + 9)
    for triangles, covered in (
        (head.template.triangles, False),
        (np.vstack([head.template.triangles, parts.triangles + len(whole)]), True),
    ):
        picture, inside = render_mesh(solid, triangles, (400, 400), colours)
        assert (inside[middle] == (255 if covered else 0)).all()
    blue, green, red = picture[middle].reshape(-1, 3).T.astype(int)
    assert picture[middle].max() < 90
    assert (red > green + 10).all()
    assert (red > blue + 10).all()
    cheek = np.rint(face.landmarks[[2, 31], :2].mean(0)).astype(int)
    assert picture[cheek[1], cheek[0]].min() > 120


@pytest.mark.parametrize("texture", [None, 512])
@pytest.mark.parametrize("decoded", [True, False])
def test_a_glb_has_a_rough_dark_material_without_the_colour_map(
    tmp_path: Path, basis: Basis, open_mouth: Scene, texture: int | None, decoded: bool
) -> None:
    write(tmp_path / "face.glb", open_mouth, basis if decoded else None, texture=texture)
    glb = Gltf(tmp_path / "face.glb")
    (mesh,) = (mesh for mesh in glb.file.meshes if mesh.name == "face")
    skin, lining = mesh.primitives
    assert skin.attributes.TEXCOORD_0 is not None
    assert lining.attributes.TEXCOORD_0 is None
    material = glb.file.materials[lining.material]
    assert material.name == "mouth"
    look = material.pbrMetallicRoughness
    assert (look.metallicFactor, look.roughnessFactor, look.baseColorTexture) == (0.0, 1.0, None)
    red, green, blue, alpha = look.baseColorFactor
    assert 0.06 > red > 2 * max(green, blue)  # linear
    assert alpha == 1
    painted = glb.file.materials[skin.material].pbrMetallicRoughness.baseColorTexture
    assert (painted is not None) == (texture is not None)


def test_obj_and_ply_have_the_dark_colour_behind_the_eyes(tmp_path: Path, mouth: Mouth, open_mouth: Scene) -> None:
    trimesh = pytest.importorskip("trimesh", reason="the extra `mesh` is not installed")
    both: tuple[tuple[str, dict[str, Any]], ...] = (("plain", {}), ("all", {"texture": 512, "eyes": True}))
    for name, options in both:
        for suffix in ("obj", "ply"):
            write(tmp_path / f"{name}.{suffix}", open_mouth, **options)
        colours = trimesh.load(tmp_path / f"{name}.ply", process=False).visual.vertex_colors
        dark = np.rint(np.array(MOUTH_COLOUR) * 255)
        assert (colours[-len(mouth.offsets) :, :3] == dark).all()
        assert colours[:COUNT, :3].min() > dark.max()
        parts = [row.split()[1] for row in (tmp_path / f"{name}.obj").read_text().splitlines() if "usemtl" in row]
        assert parts == ["face", *(COLOURS if options else ["mouth"])]
        said = (tmp_path / f"{name}.mtl").read_text().split("newmtl ")
        assert said[-1].splitlines()[:3] == ["mouth", "Ka 0.220 0.070 0.060", "Kd 0.220 0.070 0.060"]
        assert "map_Kd" not in said[-1]

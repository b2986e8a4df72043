"""`--mesh head`: one surface with the face's own vertices, that follows its shape and its jaw without a crack."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facerecon_rt.cli import main
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import UsageError
from facerecon_rt.head import HEAD_PATH, Head, load_head, read_head
from facerecon_rt.networks.basis import Basis
from facerecon_rt.sinks.files import open_sink
from facerecon_rt.sinks.identities import Identities, vertices_from_record
from facerecon_rt.sinks.shade import vertex_normals
from facerecon_rt.sinks.texture import TEXTURE_SIZES
from facerecon_rt.template import FaceTemplate, Indices, load_template
from facerecon_rt.types import Face, Floats, Frame, Image, Scene
from numpy.typing import NDArray

from .test_takes import Gltf

trimesh: Any = pytest.importorskip("trimesh", reason="the extra `mesh` is not installed")

ROOT = Path(__file__).parents[2]
MODEL, VIDEO = ROOT / "models" / "face.onnx", ROOT / "tests" / "data" / "talking_head.mp4"
JAW = BLENDSHAPES.index("jawOpen")
VALIDATE = """
const validator = require('gltf-validator');
validator.validateBytes(new Uint8Array(require('fs').readFileSync(process.argv[1])))
  .then(report => console.log(JSON.stringify(report.issues)));
"""


@pytest.fixture(scope="module")
def template() -> FaceTemplate:
    return load_template()


@pytest.fixture(scope="module")
def head(template: FaceTemplate) -> Head:
    return load_head(template)


@pytest.fixture(scope="module")
def basis() -> Basis:
    with np.load(ROOT / "models" / "face.basis.npz") as arrays:
        mean, shape, expression = (arrays[name].astype(np.float32) for name in ("mean", "shape", "expression"))
        return Basis(mean, shape, expression, "")


@pytest.fixture(scope="module")
def people(basis: Basis) -> list[Floats]:
    """Neutral faces of ten random people."""
    random = np.random.default_rng(4)
    return [basis.neutral(random.normal(size=len(basis.shape))) for _ in range(10)]


@pytest.fixture(scope="module")
def face(basis: Basis, people: list[Floats]) -> Face:
    """Somebody whose mouth is open, from the front."""
    weights = np.zeros(53, np.float32)
    weights[JAW] = 1.0
    camera = np.array([[1.8, 0, 0, 200], [0, -1.8, 0, 200], [0, 0, -1.8, 0]], np.float32)
    vertices = basis.expressed(people[0], weights)
    points = (vertices @ camera[:, :3].T + camera[:, 3]).astype(np.float32)
    return Face(
        shape=people[0],
        vertices=vertices,
        expression=weights,
        frame_from_head=camera,
        landmarks=points[load_template().landmarks],
        confidence=0.95,
        box=np.array([70, 70, 330, 330], np.float32),
    )


def photograph(face: Face, image: Image | None = None) -> Scene:
    picture = np.full((400, 400, 3), 90, np.uint8) if image is None else image
    return Scene(Frame(picture, "photo.jpg"), (face,))


def edge_counts(triangles: NDArray[np.integer]) -> Counter[tuple[int, int]]:
    """How often each edge (low, high) is used."""
    return Counter((min(a, b), max(a, b)) for t in triangles.tolist() for a, b in zip(t, [*t[1:], t[0]], strict=True))


def test_the_head_has_one_border_more_than_eyes_and_mouth_and_it_is_the_end_of_the_neck(
    head: Head, template: FaceTemplate
) -> None:
    """A crack would be a border of its own: only eyes, mouth and neck have one, and no edge has three triangles."""
    counts = edge_counts(head.template.triangles)
    assert set(counts.values()) == {1, 2}
    before = {edge for edge, count in edge_counts(template.triangles).items() if count == 1}
    after = {edge for edge, count in counts.items() if count == 1}
    outer = set(head.border.tolist())
    assert len(outer) == len(head.border)
    holes = {edge for edge in before if not set(edge) <= outer}
    assert {edge for edge in after if edge[0] < template.vertex_count} == holes
    neck = after - holes
    assert len(neck) > 20
    assert all(min(edge) >= template.vertex_count for edge in neck)
    place = head.neutral(template_mean(head))
    assert all(place[v, 1] < -60 for edge in neck for v in edge)
    # Every direction is walked once: all triangles face outwards together.
    triangles = head.template.triangles
    walked = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    assert len(np.unique(walked, axis=0)) == len(walked)
    assert np.array_equal(np.unique(triangles), np.arange(len(place)))


def template_mean(head: Head) -> Floats:
    with np.load(ROOT / "models" / "face.basis.npz") as arrays:
        return np.asarray(arrays["mean"], np.float32)


def test_the_head_is_small_and_has_as_many_vertices_as_promised(head: Head, template: FaceTemplate) -> None:
    assert HEAD_PATH.stat().st_size < 800_000
    assert 1500 <= head.template.vertex_count - template.vertex_count <= 2500


def test_its_first_vertices_are_those_of_the_face(head: Head, template: FaceTemplate, face: Face) -> None:
    count = template.vertex_count
    assert np.array_equal(head.template.triangles[: len(template.triangles)], template.triangles)
    assert np.array_equal(head.expressed(face.shape, face.vertices)[:count], face.vertices)
    assert np.array_equal(head.template.landmarks, template.landmarks)


def test_left_and_right_are_mirror_images(head: Head, basis: Basis) -> None:
    whole, mirror = head.neutral(basis.mean), head.template.symmetry
    assert np.array_equal(mirror[mirror], np.arange(len(mirror)))
    count = len(basis.mean)
    # The network's mean face is a millimetre from symmetric.
    assert np.abs(whole[mirror] * [-1, 1, 1] - whole)[count:].max() < 3.0


def test_heads_of_people_have_ears_and_a_skull_where_people_have_them(head: Head, people: list[Floats]) -> None:
    """By anthropometry (NASA RP-1024): heads of adults are 13.5 to 17.5 cm wide without ears, and ears stand off."""
    for shape in people:
        whole = head.neutral(shape)
        behind = whole[len(shape) :]
        skull = behind[behind[:, 1] > 45]
        assert 130 < np.ptp(skull[:, 0]) < 180
        level = behind[np.abs(behind[:, 1] + 10) < 35]
        assert np.ptp(level[:, 0]) > np.ptp(skull[:, 0]) + 10
        assert 165 < whole[:, 2].max() - behind[behind[:, 1] > -40, 2].min() < 240


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_seam_has_no_step_and_no_fold_also_with_the_jaw_open(
    head: Head, basis: Basis, people: list[Floats], weight: float
) -> None:
    """Triangles of the rest at the border turn by at most 75 degrees from the mean head's, and none vanishes."""
    seam = np.asarray(np.isin(head.template.triangles, head.border).any(axis=1))
    seam[: len(load_template().triangles)] = False
    triangles = head.template.triangles[seam]

    def normals(points: Floats) -> NDArray[np.float64]:
        a, b, c = points[triangles].transpose(1, 0, 2).astype(np.float64)
        return np.cross(b - a, c - a)

    before = normals(head.neutral(basis.mean))
    for shape in people:
        after = normals(head.expressed(shape, shape + weight * basis.expression[JAW]))
        size = np.linalg.norm(after, axis=1) / np.linalg.norm(before, axis=1)
        assert size.min() > 0.2
        assert size.max() < 5
        cosines = (before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
        assert cosines.min() > np.cos(np.radians(75))


def test_the_throat_follows_the_jaw_and_the_skull_stays(head: Head, basis: Basis) -> None:
    moved = np.linalg.norm(head.moved(basis.expression[JAW]), axis=1)
    whole, count = head.neutral(basis.mean), len(basis.mean)
    rest = np.arange(len(whole)) >= count
    border = moved[head.border].max()
    assert border > 8  # under the chin
    near = rest & np.isin(
        np.arange(len(whole)),
        head.template.triangles[np.isin(head.template.triangles, head.border[moved[head.border] > 8]).any(1)],
    )
    assert moved[near].max() > 5
    assert moved[rest & (whole[:, 1] > 30)].max() < 0.6
    assert moved[rest].max() < border + 0.5


def test_a_face_beside_its_place_takes_the_head_along(head: Head, basis: Basis) -> None:
    """The border is glued whatever the face is; the rest follows most of a shift that no head of the model has."""
    shift = np.array([0.0, 0.0, 6.0], np.float32)
    moved = head.neutral(basis.mean + shift)[len(basis.mean) :] - head.neutral(basis.mean)[len(basis.mean) :]
    assert np.median(moved[:, 2]) > 3
    assert np.abs(moved).max() < 12


def test_a_turned_over_triangle_would_show_in_the_colour_map(head: Head) -> None:
    """Texture coordinates lie in the map, keep the orientation of every triangle, and leave the face in the middle."""
    uv = head.template.uv
    assert uv.min() >= 0
    assert uv.max() <= 1
    a, b, c = uv[head.template.triangles].astype(np.float64).transpose(1, 0, 2)
    assert ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).min() > 0
    np.testing.assert_array_equal(head.face.uv, uv[: len(head.face.uv)])


def test_another_template_is_refused_with_what_to_do(template: FaceTemplate) -> None:
    other = replace(template, sha256="0" * 64)
    with pytest.raises(UsageError, match=r"and these have template 0{12}; build it again with facerecon-train head"):
        load_head(other)
    with pytest.raises(UsageError, match="build it again"):
        read_head(HEAD_PATH, other)


# In files


def read_obj(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Vertices, normals and triangles (T, 3) of an OBJ file, with corners from 0."""
    rows = [line.split() for line in path.read_text().splitlines()]
    vertices = np.array([row[1:] for row in rows if row[:1] == ["v"]], float)
    normals = np.array([row[1:] for row in rows if row[:1] == ["vn"]], float)
    triangles = np.array([[int(c.split("/")[0]) - 1 for c in row[1:]] for row in rows if row[:1] == ["f"]])
    return vertices, normals, triangles


def with_mouth(head: Head, whole: Floats) -> tuple[Floats, Indices]:
    """Vertices and triangles of a head and of the lining of its mouth."""
    assert head.mouth is not None
    count = head.template.vertex_count
    lined = np.vstack([whole[:count], head.mouth.lining(whole)])
    return lined, np.vstack([head.template.triangles, head.mouth.triangles + np.int32(count)])


def test_obj_ply_and_glb_of_a_photograph_are_the_head_with_its_expression(
    tmp_path: Path, face: Face, head: Head, basis: Basis
) -> None:
    for suffix in ("obj", "ply", "glb"):
        target = str(tmp_path / f"f.{suffix}")
        with open_sink(target, blendshapes=BLENDSHAPES, basis=lambda: basis, mesh="head") as sink:
            sink.write(photograph(face))
    whole = head.expressed(face.shape, face.vertices)
    lined, corners = with_mouth(head, whole)
    vertices, normals, triangles = read_obj(tmp_path / "f.obj")
    np.testing.assert_allclose(vertices, lined, atol=1e-4)
    assert np.array_equal(triangles, corners)
    np.testing.assert_allclose(normals, vertex_normals(lined, corners), atol=1e-3)
    ply = trimesh.load(tmp_path / "f.ply", process=False)
    np.testing.assert_allclose(ply.vertices, lined, atol=1e-4)
    glb = Gltf(tmp_path / "f.glb")
    (mesh,) = (mesh for mesh in glb.file.meshes if mesh.name == "face")
    np.testing.assert_allclose(1000 * glb.morphed("face", mesh.weights), whole, atol=0.02)


def test_a_sequence_and_a_folder_have_heads_too(tmp_path: Path, face: Face, head: Head) -> None:
    for target in (f"{tmp_path}/t_{{frame}}.obj", f"{tmp_path}/folder/"):
        with open_sink(target, blendshapes=BLENDSHAPES, mesh="head") as sink:
            sink.write(photograph(face))
    whole = head.expressed(face.shape, face.vertices)
    for path in (tmp_path / "t_000000.obj", tmp_path / "folder" / "photo_face0.obj"):
        np.testing.assert_allclose(read_obj(path)[0], with_mouth(head, whole)[0], atol=1e-4)


def test_colours_go_on_behind_the_face_without_a_joint(tmp_path: Path, face: Face, head: Head) -> None:
    """The colours of a picture that is bluer to the right: those behind the border are those of the border."""
    image = np.full((400, 400, 3), (120, 150, 200), np.uint8)
    image[..., 0] += np.arange(400, dtype=np.uint8) // 8
    with open_sink(str(tmp_path / "f.ply"), blendshapes=BLENDSHAPES, texture=TEXTURE_SIZES[0], mesh="head") as sink:
        sink.write(photograph(replace(face, vertices=face.shape), image))
    colours = trimesh.load(tmp_path / "f.ply", process=False).visual.vertex_colors[:, :3].astype(int)
    edges = np.array(list(edge_counts(head.template.triangles)))
    across = edges[np.isin(edges, head.border).sum(1) == 1]
    across = across[(across >= head.face.vertex_count).any(1)]
    assert np.abs(colours[across[:, 0]] - colours[across[:, 1]]).max() < 16
    np.testing.assert_allclose(np.median(colours[head.face.vertex_count :], 0), (200, 150, 145), atol=12)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a take, records and identities of the sample clip, and a mesh made of them."""
    folder = tmp_path_factory.mktemp("head")
    arguments = ["--model", str(MODEL), "--input", str(VIDEO), "--frames", "12", "--quiet", "--mesh", "head"]
    for name in ("take.glb", "neutral.obj", "records.jsonl", "identity.npz"):
        arguments += ["--output", str(folder / name)]
    assert main(arguments) == 0
    made = ["mesh", str(folder / "records.jsonl"), "--identity", str(folder / "identity.npz"), "--frame", "11"]
    assert main([*made, "--mesh", "head", "--output", str(folder / "frame.obj")]) == 0
    return folder


def test_a_take_evaluated_at_a_frame_is_the_head_that_mesh_rebuilds(run: Path, head: Head) -> None:
    take = Gltf(run / "take.glb")
    _, weights = take.keys("track1", "weights")
    rebuilt, _, triangles = read_obj(run / "frame.obj")
    assert np.array_equal(triangles, with_mouth(head, rebuilt.astype(np.float32))[1])
    neutral, _, _ = read_obj(run / "neutral.obj")
    for part, where in enumerate((slice(5882), slice(5882, None))):
        np.testing.assert_allclose(1000 * take.morphed("track1", weights[11], part), rebuilt[where], atol=0.1)
        np.testing.assert_allclose(1000 * take.morphed("track1", np.zeros(52), part), neutral[where], atol=0.01)


def test_a_minute_of_a_head_is_less_than_15_mb(tmp_path: Path, face: Face, basis: Basis) -> None:
    tracked = replace(face, track=1)
    with open_sink(str(tmp_path / "m.glb"), blendshapes=BLENDSHAPES, basis=lambda: basis, mesh="head") as sink:
        for index in range(1800):
            frame = Frame(np.zeros((400, 400, 3), np.uint8), "a.mp4", index, index / 30, still=False)
            sink.write(Scene(frame, (tracked,)))
    assert (tmp_path / "m.glb").stat().st_size < 15e6


def test_the_khronos_validator_has_nothing_to_say(run: Path, tmp_path: Path, face: Face, basis: Basis) -> None:
    node = shutil.which("node")
    folders = [Path(folder) for folder in os.environ.get("NODE_PATH", "").split(os.pathsep) if folder]
    if node is None or not any((folder / "gltf-validator").is_dir() for folder in folders):
        pytest.skip("gltf-validator is not installed: npm install gltf-validator, and set NODE_PATH")
    photo = tmp_path / "photo.glb"
    with open_sink(str(photo), blendshapes=BLENDSHAPES, basis=lambda: basis, mesh="head", texture=512) as sink:
        sink.write(photograph(face))
    for path in (run / "take.glb", photo):
        done = subprocess.run([node, "-e", VALIDATE, path], check=True, capture_output=True, text=True, timeout=120)
        issues: dict[str, Any] = json.loads(done.stdout)
        assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]


# The command line


def test_a_head_without_meshes_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = str(tmp_path / "r.jsonl")
    assert main(["--model", str(MODEL), "--input", str(VIDEO), "--output", out, "--mesh", "head"]) == 2
    assert "--mesh head completes meshes; give an output that has them" in capsys.readouterr().err


def test_a_mesh_of_something_else_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no mesh of the 'body'; choose from face, head"):
        open_sink("f.obj", blendshapes=BLENDSHAPES, mesh="body")


def test_identities_of_other_faces_are_refused(head: Head) -> None:
    other = Identities(
        np.zeros((1, 5, 3), np.float32),
        np.zeros((1, 5), np.float32),
        ("a.jpg",),
        (-1,),
        (0,),
        (0,),
        ("jawOpen",),
        np.zeros((1, 5, 3), np.float32),
        "",
    )
    record = {"source": "a.jpg", "frame": 0, "faces": [{"track": None, "blendshapes": {"jawOpen": 0.5}}]}
    with pytest.raises(UsageError, match="faces of 5 vertices, and the mesh needs 4032"):
        vertices_from_record(record, other, form=head)

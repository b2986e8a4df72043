"""Colour maps: colours of the picture arrive at their texture coordinates, and unseen places are filled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from facerecon_rt.align import CROP_CENTRE_MM
from facerecon_rt.cli import main
from facerecon_rt.errors import UsageError
from facerecon_rt.faces.reconstruct import Reconstructor, largest
from facerecon_rt.pose import rotation_from_euler
from facerecon_rt.sinks import looks as looks_module
from facerecon_rt.sinks.draw import vertices_in_frame
from facerecon_rt.sinks.files import open_sink
from facerecon_rt.sinks.light import fitted_light
from facerecon_rt.sinks.looks import Look, Looks
from facerecon_rt.sinks.meshes import write_mesh
from facerecon_rt.sinks.raster import rasterize
from facerecon_rt.sinks.shade import vertex_normals
from facerecon_rt.sinks.texture import (
    AVERAGE_SKIN,
    colour_map,
    extended,
    layout_of,
    sampled,
    textured,
    view_of,
)
from facerecon_rt.sources.files import read_image
from facerecon_rt.template import load_template
from facerecon_rt.types import Face, Floats, Frame, Image, Scene

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "face.onnx"
TEMPLATE = load_template()
SIZE = 512
WIDTH = 400


@pytest.fixture(scope="module")
def mean_face() -> Floats:
    """The mean face (V, 3) in mm of the shipped weights."""
    with np.load(ROOT / "models" / "face.basis.npz") as arrays:
        return np.asarray(arrays["mean"], np.float32)


def face_at(vertices: Floats, *, yaw: float = 0.0, scale: float = 1.8, x: float = 200.0, y: float = 200.0) -> Face:
    """Return a face with these vertices in a frame of 400 x 400 pixels, with its centre at (x, y)."""
    linear = scale * rotation_from_euler(0, yaw, 0)
    camera = np.column_stack([linear, np.array([x, y, 0]) - linear @ np.array(CROP_CENTRE_MM)]).astype(np.float32)
    points = vertices @ camera[:, :3].T + camera[:, 3]
    box = np.array([x - 100, y - 100, x + 100, y + 100], np.float32)
    return Face(
        shape=vertices,
        vertices=vertices,
        expression=np.zeros(53, np.float32),
        frame_from_head=camera,
        landmarks=points[TEMPLATE.landmarks].astype(np.float32),
        confidence=0.95,
        box=box,
    )


def gradient() -> Image:
    """Return a picture whose blue grows to the right and whose green grows downwards, so that its colours tell the
    place."""
    across = np.linspace(40, 200, WIDTH, dtype=np.float32)
    blue, green = np.meshgrid(across, across)
    return np.asarray(np.rint(np.stack([blue, green, np.full_like(blue, 150)], 2)), np.uint8)


def at_vertices(colours: Image) -> Floats:
    """Return the colours (V, 3) of a colour map at the vertices, by their texture coordinates."""
    u, v = TEMPLATE.uv.T
    pixels = np.stack([u, 1 - v], 1) * len(colours) - 0.5
    columns, rows = np.clip(np.rint(pixels), 0, len(colours) - 1).astype(int).T
    return np.asarray(colours[rows, columns], np.float32)


def facing(face: Face) -> Floats:
    """Return the cosine (V,) of the angle between the surface and the viewer."""
    placed = vertices_in_frame(face) * [1, -1, -1]
    cosine: Floats = vertex_normals(placed.astype(np.float32), TEMPLATE.triangles)[:, 2]
    return cosine


def test_each_place_of_the_map_has_the_colour_where_the_picture_shows_it(mean_face: Floats) -> None:
    face, picture = face_at(mean_face), gradient()
    colours = at_vertices(colour_map([view_of(face, Frame(picture, "x.jpg"))], TEMPLATE, SIZE))
    x, y = vertices_in_frame(face)[:, :2].T
    expected = np.stack([40 + 160 * x / (WIDTH - 1), 40 + 160 * y / (WIDTH - 1), np.full_like(x, 150)], 1)
    # Vertices at the outline, inside the nostrils and between the lips are left out.
    clear = (facing(face) > 0.8) & (np.linalg.norm(mean_face - (0, -20, 40), axis=1) < 70)
    assert clear.sum() > 800
    # A pixel of the map is a millimetre wide at most; the colours of the picture change by 0.7 within one.
    assert np.percentile(np.abs(colours - expected)[clear], 95) < 2
    assert np.median(np.abs(colours - expected)[clear]) < 1


def test_a_picture_drawn_with_its_own_colours_looks_the_same(mean_face: Floats) -> None:
    random = np.random.default_rng(1)
    coarse = random.uniform(60, 220, (40, 40, 3)).astype(np.float32)
    picture = np.asarray(cv2.resize(coarse, (WIDTH, WIDTH), interpolation=cv2.INTER_CUBIC).clip(0, 255), np.uint8)
    face = face_at(mean_face, yaw=20)
    view = view_of(face, Frame(picture, "x.jpg"))
    for size in (512, 1024):
        drawn, inside = textured(vertices_in_frame(face), TEMPLATE, colour_map([view], TEMPLATE, size), (WIDTH, WIDTH))
        error = np.abs(drawn.astype(np.float32) - picture)[inside]
        assert inside.sum() > 20_000
        assert np.median(error) < 6


def test_what_a_turned_head_hides_is_like_the_other_side(mean_face: Floats) -> None:
    """The picture has a red spot on the subject's right cheek. The head turns its left side away."""
    face = face_at(mean_face, yaw=50)
    points = vertices_in_frame(face)
    picture = np.full((WIDTH, WIDTH, 3), (90, 130, 180), np.uint8)
    cheek = points[TEMPLATE.landmarks[3], :2]  # of the right cheek
    cv2.circle(picture, tuple(np.rint(cheek).astype(int).tolist()), 12, (60, 60, 220), cv2.FILLED)
    view = view_of(face, Frame(picture, "x.jpg"))
    spot = TEMPLATE.landmarks[3]
    hidden = TEMPLATE.symmetry[spot]
    assert facing(face)[spot] > 0.5 > 0 > facing(face)[hidden]
    colours = at_vertices(colour_map([view], TEMPLATE, SIZE))
    np.testing.assert_allclose(colours[spot], (60, 60, 220), atol=4)
    np.testing.assert_allclose(colours[hidden], (60, 60, 220), atol=12)


def test_what_nobody_sees_has_the_mean_skin(mean_face: Floats) -> None:
    """The whole picture has the colour of skin, and the camera does not see under the chin."""
    face = face_at(mean_face)
    picture = np.full((WIDTH, WIDTH, 3), (90, 130, 180), np.uint8)
    colours = at_vertices(colour_map([view_of(face, Frame(picture, "x.jpg"))], TEMPLATE, SIZE))
    hidden = facing(face) < 0
    assert hidden.sum() > 50
    assert np.abs(colours[hidden] - (90, 130, 180)).max() < 3
    outside = view_of(face_at(mean_face, x=5000), Frame(picture, "x.jpg"))
    assert np.abs(at_vertices(colour_map([outside], TEMPLATE, SIZE)) - AVERAGE_SKIN).max() < 1


@pytest.mark.parametrize("yaw", [0.0, 40.0])
def test_the_background_does_not_colour_the_face(mean_face: Floats, yaw: float) -> None:
    """The mesh is larger than the head in the picture by 2 mm on each side, like a mesh that fits badly."""
    face = face_at(mean_face, yaw=yaw)
    points = vertices_in_frame(face)[:, :2]
    raster = rasterize(points, TEMPLATE.triangles, (WIDTH, WIDTH))
    head = np.zeros((WIDTH, WIDTH), np.uint8)
    head[raster.rows, raster.columns] = 1
    outlines, _ = cv2.findContours(head, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(head, outlines, -1, 1, cv2.FILLED)
    smaller = cv2.erode(head, np.ones((7, 7), np.uint8)).astype(bool)
    picture = np.full((WIDTH, WIDTH, 3), (250, 40, 20), np.uint8)
    picture[smaller] = (90, 130, 180)
    colours = at_vertices(colour_map([view_of(face, Frame(picture, "x.jpg"))], TEMPLATE, SIZE))
    assert np.abs(colours - (90, 130, 180)).max() < 8


def test_the_nose_does_not_colour_the_cheek_behind_it(mean_face: Floats) -> None:
    """The head is turned by 45 degrees, and every pixel that shows the nose is green. The far cheek keeps the skin's
    colour."""
    face = face_at(mean_face, yaw=45)
    points = vertices_in_frame(face)
    tip = TEMPLATE.landmarks[30]
    near = np.linalg.norm(mean_face - mean_face[tip], axis=1) < 22
    order = np.argsort(-points[TEMPLATE.triangles, 2].mean(1))
    raster = rasterize(points[:, :2], TEMPLATE.triangles[order], (WIDTH, WIDTH))
    picture = np.full((WIDTH, WIDTH, 3), (90, 130, 180), np.uint8)
    nose = near[raster.corners].all(1)
    picture[raster.rows[nose], raster.columns[nose]] = (40, 200, 60)
    layout = layout_of(TEMPLATE, SIZE)
    colours, weights = sampled(view_of(face, Frame(picture, "x.jpg")), TEMPLATE, layout)
    away = ~near[layout.raster.corners].any(1)
    green = np.abs(colours - (40, 200, 60)).max(1) < 30
    # Without the depth, this is the ghost of the nose on the cheek.
    assert (green & away).sum() > 20
    assert weights[green & away].max() < 0.02


def test_of_two_pictures_each_place_comes_from_the_one_that_faces_it(mean_face: Floats) -> None:
    left, right = face_at(mean_face, yaw=-45), face_at(mean_face, yaw=45)
    first = np.full((WIDTH, WIDTH, 3), (80, 120, 180), np.uint8)
    second = first.copy()
    # The brightness of the second picture is fitted to the first. A spot that only it shows remains.
    spot = TEMPLATE.landmarks[13]
    assert facing(left)[spot] < 0 < 0.5 < facing(right)[spot] or facing(right)[spot] < 0 < 0.5 < facing(left)[spot]
    shows, other = (right, left) if facing(right)[spot] > 0 else (left, right)
    place = np.rint(vertices_in_frame(shows)[spot, :2]).astype(int)
    cv2.circle(second, tuple(place.tolist()), 12, (60, 60, 220), cv2.FILLED)
    second = np.asarray(np.rint(second * 0.8), np.uint8)
    views = [view_of(other, Frame(first, "a.jpg")), view_of(shows, Frame(second, "b.jpg"))]
    colours = at_vertices(colour_map(views, TEMPLATE, SIZE))
    np.testing.assert_allclose(colours[spot], (60, 60, 220), atol=6)
    np.testing.assert_allclose(np.median(colours, 0), (80, 120, 180), atol=3)


def test_pictures_in_different_light_are_brought_into_one(mean_face: Floats) -> None:
    """The face has spots. Three pictures show it from three sides, and a lamp comes from another side in each."""
    layout = layout_of(TEMPLATE, SIZE)
    spots = np.random.default_rng(3).uniform(0.6, 1.0, (SIZE // 32, SIZE // 32, 1)).astype(np.float32)
    skin_tone = np.array((110, 140, 180), np.float32)
    spotted = cv2.resize(spots, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)[..., None] * skin_tone
    normals = vertex_normals(mean_face, TEMPLATE.triangles)
    at = layout.raster.between(normals)
    views = []
    for yaw, lamp in ((0.0, (0.4, 0.0, 0.2)), (-40.0, (-0.5, 0.2, 0.0)), (40.0, (0.0, -0.5, 0.1))):
        gain = 0.8 + at @ np.array([lamp, lamp, (0.0, 0.3, 0.2)], np.float32).T
        skin = layout.spread(spotted[layout.raster.rows, layout.raster.columns] * gain)
        face = face_at(mean_face, yaw=yaw)
        views.append(view_of(face, Frame(textured(vertices_in_frame(face), TEMPLATE, skin, (WIDTH, WIDTH))[0], "")))
    colours = colour_map(views, TEMPLATE, SIZE)[layout.raster.rows, layout.raster.columns].astype(np.float32)
    other, own = [], []
    for view in views:
        found, weights = sampled(view, TEMPLATE, layout)
        seen = weights > 0
        light = fitted_light(colours, found, at, weights)
        other.append(np.median(np.abs(colours - found)[seen]))
        own.append(np.median(np.abs(light.put_on(colours, at) - found)[seen]))
    assert max(other) > 8
    assert max(own) < 0.9  # 1.2 where only brightness is fitted


def test_continuations_are_the_colours_nearby() -> None:
    known = np.zeros((64, 64), np.float32)
    known[:, :8] = known[:, -8:] = 1
    values = np.zeros((64, 64, 1), np.float32)
    values[:, :8], values[:, -8:] = 100, 200
    filled = extended(values, known)[..., 0]
    np.testing.assert_array_equal(filled[:, :8], 100)
    np.testing.assert_array_equal(filled[:, -8:], 200)
    assert 140 < filled[32, 32] < 160
    assert filled[32, 12] < 125 < 175 < filled[32, 51]


# Best pictures of a track


def test_of_many_frames_a_bounded_number_is_kept_and_the_best_ones(mean_face: Floats) -> None:
    look = Look(SIZE)
    picture = np.asarray(np.random.default_rng(0).integers(0, 120, (WIDTH, WIDTH, 3)), np.uint8)
    for index in range(60):
        best, yaw = index in (31, 32), (index % 5 - 2) * 15.0
        face = replace(face_at(mean_face, yaw=yaw), confidence=0.95 if best else 0.6 + index / 1000)
        look.add(face, Frame(picture + np.uint8(120) * best, "v.mp4", index, index / 30, still=False))
    kept = {yaw: look._kept[0, yaw] for yaw in (-30, 0, 30)}
    assert set(look._kept) == {(0, yaw) for yaw in kept}
    assert [len(pictures) for pictures in kept.values()] == [1, 1, 1]
    # The frames 31 (yaw -15) and 32 (yaw 0) are bright.
    bright = {yaw: float(pictures[0].view().image.mean()) > 120 for yaw, pictures in kept.items()}
    assert bright[0]
    assert not bright[30]


def test_colours_are_kept_for_a_bounded_number_of_people(
    mean_face: Floats, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(looks_module, "MOST_PEOPLE", 2)
    looks = Looks(SIZE, TEMPLATE)
    faces = tuple(replace(face_at(mean_face), track=number) for number in (1, 2, 3))
    looks.see(Scene(Frame(gradient(), "v.mp4", still=False), faces))
    assert "colours are kept for 2 people" in caplog.text
    assert looks.take("v.mp4", "track3") is None
    first = looks.take("v.mp4", "track1")
    assert first is not None
    assert first.shape == (SIZE, SIZE, 3)


# Files


def test_an_obj_names_its_material_and_its_picture_also_when_it_is_renamed(tmp_path: Path, mean_face: Floats) -> None:
    trimesh = pytest.importorskip("trimesh", reason="the extra `mesh` is not installed")
    pytest.importorskip("PIL", reason="Pillow is not installed")
    frame = Frame(gradient(), "photo.jpg")
    with open_sink(str(tmp_path / "face.obj"), blendshapes=["x"] * 53, texture=512) as sink:
        sink.write(Scene(frame, (face_at(mean_face),)))
        assert {path.name for path in tmp_path.iterdir()} == {"face.obj", "face.mtl", "face_texture.png"}
        sink.write(Scene(frame, (face_at(mean_face, yaw=10),)))
    names = [f"face_000{number}{suffix}" for number in (1, 2) for suffix in (".mtl", ".obj", "_texture.png")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    for number in (1, 2):
        mesh = trimesh.load(tmp_path / f"face_000{number}.obj", process=False)
        picture = np.asarray(mesh.visual.material.image)
        written = read_image(tmp_path / f"face_000{number}_texture.png")
        np.testing.assert_array_equal(picture[..., ::-1], written)
        assert written.shape == (512, 512, 3)


def test_a_ply_has_the_colours_of_its_vertices(tmp_path: Path, mean_face: Floats) -> None:
    trimesh = pytest.importorskip("trimesh", reason="the extra `mesh` is not installed")
    colours = colour_map([view_of(face_at(mean_face), Frame(gradient(), "x.jpg"))], TEMPLATE, SIZE)
    write_mesh(tmp_path / "face.ply", mean_face, TEMPLATE, texture=colours)
    read = trimesh.load(tmp_path / "face.ply", process=False).visual.vertex_colors[:, 2::-1]
    assert np.abs(read - at_vertices(colours)).max() < 5


def test_a_glb_has_the_picture_as_srgb_base_colour(tmp_path: Path, mean_face: Floats) -> None:
    pygltflib = pytest.importorskip("pygltflib", reason="the extra `gltf` is not installed")
    colours = colour_map([view_of(face_at(mean_face), Frame(gradient(), "x.jpg"))], TEMPLATE, SIZE)
    write_mesh(tmp_path / "face.glb", mean_face, TEMPLATE, texture=colours)
    file = pygltflib.GLTF2().load(tmp_path / "face.glb")
    (material,) = file.materials
    assert material.pbrMetallicRoughness.baseColorFactor == [1.0, 1.0, 1.0, 1.0]
    assert material.pbrMetallicRoughness.metallicFactor == 0.0
    image = file.images[file.textures[material.pbrMetallicRoughness.baseColorTexture.index].source]
    view = file.bufferViews[image.bufferView]
    data = file.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
    # glTF takes the values of a base colour for sRGB: those of the photograph, unchanged.
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), colours)


def test_a_take_has_the_colours_of_its_track(tmp_path: Path, mean_face: Floats) -> None:
    pygltflib = pytest.importorskip("pygltflib", reason="the extra `gltf` is not installed")
    with Reconstructor(MODEL) as reconstructor:
        names, basis = reconstructor.contract.blendshapes, reconstructor.basis
        with open_sink(str(tmp_path / "take.glb"), blendshapes=names, basis=basis, texture=512) as sink:
            for index in range(3):
                face = replace(face_at(mean_face, yaw=10.0 * index), track=1)
                sink.write(Scene(Frame(gradient(), "v.mp4", index, index / 30, still=False, fps=30), (face,)))
    file = pygltflib.GLTF2().load(tmp_path / "take.glb")
    materials = [file.materials[primitive.material].name for mesh in file.meshes for primitive in mesh.primitives]
    assert materials == ["skin of track1", "pupil", "iris", "sclera"]
    assert len(file.images) == 1


# The command


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--output", "x.obj", "--no-pictures"], "--no-pictures forbids them"),
        (["--output", "x.obj", "--style", "blur"], "--style blur covers every face"),
        (["--output", "x.jsonl"], "give an output that has them"),
        (["--serve", "127.0.0.1:0"], "give an output that has them"),
    ],
)
def test_what_a_texture_cannot_go_with_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--input", "photo.jpg", "--texture", *more]) == UsageError.exit_code
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_callers_are_refused_too(tmp_path: Path) -> None:
    for options, said in (({"pictures": False}, "no-pictures"), ({"style": "mask"}, "mask")):
        with pytest.raises(UsageError, match=said):
            open_sink(str(tmp_path / "x.obj"), blendshapes=["x"], texture=512, **options)
    with pytest.raises(UsageError, match="512 or 1024"):
        open_sink(str(tmp_path / "x.obj"), blendshapes=["x"], texture=600)


def test_a_texture_never_replaces_an_input(tmp_path: Path, mean_face: Floats) -> None:
    source = tmp_path / "face_texture.png"
    source.write_bytes(b"the photograph")
    with (
        open_sink(str(tmp_path / "face.obj"), blendshapes=["x"] * 53, texture=512) as sink,
        pytest.raises(UsageError, match="would be overwritten"),
    ):
        sink.write(Scene(Frame(gradient(), str(source)), (face_at(mean_face),)))
    assert source.read_bytes() == b"the photograph"


def test_a_set_has_one_texture_in_every_mesh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The set consists of three frames of the sample clip."""
    video = cv2.VideoCapture(str(ROOT / "tests" / "data" / "talking_head.mp4"))
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index in range(120):
        _, image = video.read()
        if index in (0, 40, 110):
            cv2.imwrite(str(folder / f"{index}.png"), image)
    arguments = ["--model", str(MODEL), "--set", "--input", str(folder), "--texture", "512", "--quiet"]
    assert main([*arguments, "--output", str(tmp_path / "one.obj")]) == 0, capsys.readouterr().err
    picture = read_image(tmp_path / "one_texture.png")
    assert picture.shape == (512, 512, 3)
    with Reconstructor(MODEL) as reconstructor:
        photograph = read_image(folder / "0.png")
        face = largest(reconstructor.faces(photograph))
    assert face is not None
    assert _difference(face, photograph, picture) < 12  # the set has other light and other expressions too


def _difference(face: Face, photograph: Image, colours: Image) -> float:
    """Return the median difference between a photograph and the face drawn with a colour map, where the photograph
    shows the face."""
    drawn, _ = textured(vertices_in_frame(face), TEMPLATE, colours, photograph.shape[1::-1])
    layout = layout_of(TEMPLATE, len(colours))
    _, weights = sampled(view_of(face, Frame(photograph, "x")), TEMPLATE, layout)
    seen = np.repeat(layout.grid((weights[:, None] > 0) * np.float32(255)), 3, 2).astype(np.uint8)
    shown, inside = textured(vertices_in_frame(face), TEMPLATE, seen, photograph.shape[1::-1])
    where = inside & (shown[..., 0] > 127)
    assert where.sum() > 0.6 * inside.sum()
    return float(np.median(np.abs(drawn.astype(np.float32) - photograph)[where]))


@pytest.mark.parametrize("name", ["image_0003.jpg", "image_0053.jpg", "image_0150.jpg"])
def test_a_photograph_drawn_with_its_colours_looks_like_it(data_folder: Path, name: str) -> None:
    photograph = read_image(data_folder / "faces" / "lfpw-test" / name)
    with Reconstructor(MODEL) as reconstructor:
        face = largest(reconstructor.faces(photograph))
    assert face is not None
    colours = colour_map([view_of(face, Frame(photograph, name))], TEMPLATE, SIZE)
    assert _difference(face, photograph, colours) < 6

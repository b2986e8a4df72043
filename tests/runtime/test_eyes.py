"""Eyes of meshes: they look along the gaze, and their vertices come after those of the face."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from facerecon_rt.align import CROP_CENTRE_MM
from facerecon_rt.pose import rotation_from_euler
from facerecon_rt.sinks.draw import draw_scene, montage
from facerecon_rt.sinks.eyes import EYE_COLOURS, EYE_RADIUS_MM, eye_centre, eyes_of
from facerecon_rt.sinks.files import open_sink
from facerecon_rt.template import load_template
from facerecon_rt.types import Face, Floats, Frame, Scene

ROOT = Path(__file__).parents[2]
TEMPLATE = load_template()
COUNT = TEMPLATE.vertex_count


@pytest.fixture(scope="module")
def face() -> Face:
    """The mean face from the front, in the middle of a frame of 400 x 400 pixels, with eyes that look 25 degrees to its
    left."""
    with np.load(ROOT / "models" / "face.basis.npz") as arrays:
        shape = arrays["mean"].astype(np.float32)
    linear = 1.8 * rotation_from_euler(0, 0, 0)
    camera = np.column_stack([linear, np.array([200, 200, 0]) - linear @ np.array(CROP_CENTRE_MM)]).astype(np.float32)
    points = (shape @ camera[:, :3].T + camera[:, 3]).astype(np.float32)
    return Face(
        shape=shape,
        vertices=shape,
        expression=np.zeros(53, np.float32),
        frame_from_head=camera,
        landmarks=points[TEMPLATE.landmarks],
        confidence=0.95,
        box=np.array([70, 70, 330, 330], np.float32),
        gaze=np.tile([np.sin(np.radians(25)), 0, np.cos(np.radians(25))], (2, 1)).astype(np.float32),
    )


def photograph(face: Face) -> Scene:
    return Scene(Frame(np.full((400, 400, 3), 90, np.uint8), "photo.jpg"), (face,))


def test_the_pupils_lie_where_the_gaze_is(face: Face) -> None:
    assert face.gaze is not None
    eyes = eyes_of(face.shape, face.gaze, TEMPLATE)
    pupils = np.unique(eyes.materials["pupil"])
    half = len(eyes.vertices) // 2
    for side, of in enumerate((pupils[pupils < half], pupils[pupils >= half])):
        centre = eye_centre(face.shape, TEMPLATE, side)
        towards = eyes.vertices[of] - centre
        np.testing.assert_allclose(np.linalg.norm(towards, axis=1), EYE_RADIUS_MM, atol=1e-3)
        cosines = towards @ face.gaze[side] / EYE_RADIUS_MM
        # A pupil has a radius of 2.1 mm.
        assert np.sqrt(1 - cosines.min() ** 2) * EYE_RADIUS_MM == pytest.approx(2.1, abs=0.01)
        assert cosines.max() == pytest.approx(1, abs=1e-5)
    for name, part in eyes.materials.items():
        np.testing.assert_allclose(eyes.colours[np.unique(part)], [EYE_COLOURS[name][::-1]] * len(np.unique(part)))


def test_eyes_without_gaze_look_ahead(face: Face) -> None:
    eyes = eyes_of(face.shape, None, TEMPLATE)
    pupil = eyes.vertices[np.unique(eyes.materials["pupil"])]
    front = pupil[pupil[:, 0] > 0].mean(0) - eye_centre(face.shape, TEMPLATE, 0)
    np.testing.assert_allclose(front[:2], 0, atol=1e-3)
    assert front[2] > 13


@pytest.mark.parametrize("texture", [None, 512])
def test_an_obj_has_the_face_first_and_materials_of_the_eyes(tmp_path: Path, face: Face, texture: int | None) -> None:
    trimesh = pytest.importorskip("trimesh", reason="the extra `mesh` is not installed")
    with open_sink(str(tmp_path / "face.obj"), blendshapes=["x"] * 53, eyes=True, texture=texture) as sink:
        sink.write(photograph(face))
        sink.write(photograph(face))  # both files are numbered then
    for number in (1, 2):
        text = (tmp_path / f"face_000{number}.obj").read_text().splitlines()
        rows: Floats = np.array([line.split()[1:] for line in text if line.startswith("v ")], np.float32)
        np.testing.assert_allclose(rows[:COUNT], face.vertices, atol=1e-3)
        eyes = eyes_of(face.shape, face.gaze, TEMPLATE)
        np.testing.assert_allclose(rows[COUNT:], eyes.vertices, atol=1e-3)
        assert [line.split()[1] for line in text if line.startswith("usemtl")] == ["face", "pupil", "iris", "sclera"]
        scene = trimesh.load(tmp_path / f"face_000{number}.obj")
        assert sum(len(part.faces) for part in scene.geometry.values()) == len(TEMPLATE.triangles) + len(eyes.triangles)
        said = (tmp_path / f"face_000{number}.mtl").read_text()
        assert ("map_Kd" in said) == (texture is not None)
        assert not texture or f"map_Kd face_000{number}_texture.png" in said


def test_a_ply_has_coloured_eyes(tmp_path: Path, face: Face) -> None:
    trimesh = pytest.importorskip("trimesh", reason="the extra `mesh` is not installed")
    with open_sink(str(tmp_path / "face.ply"), blendshapes=["x"] * 53, eyes=True) as sink:
        sink.write(photograph(face))
    mesh = trimesh.load(tmp_path / "face.ply", process=False)
    eyes = eyes_of(face.shape, face.gaze, TEMPLATE)
    np.testing.assert_allclose(mesh.vertices[COUNT:], eyes.vertices, atol=1e-3)
    np.testing.assert_allclose(mesh.visual.vertex_colors[COUNT:, 2::-1], eyes.colours * 255, atol=1)


def test_drawn_meshes_have_eyes_that_turn(face: Face) -> None:
    """The pupil of the subject's left eye is dark in the picture, and moves to the right with the gaze."""
    columns = []
    for gaze in (None, face.gaze):
        scene = photograph(replace(face, gaze=gaze))
        drawn = draw_scene(scene, axes=False, landmarks=False, gaze=False, ids=False, alpha=1.0, eyes=True)
        middle = np.rint(scene.faces[0].landmarks[42:48, :2].mean(0)).astype(int)
        around = drawn[middle[1] - 3 : middle[1] + 4, middle[0] - 20 : middle[0] + 21].astype(int).sum(2).min(0)
        columns.append(float(np.average(np.arange(-20, 21), weights=np.maximum(0, 200 - around))))
    # 12 mm sin 25 degrees at 1.8 pixels per mm.
    assert columns[0] == pytest.approx(0, abs=2)
    assert columns[1] - columns[0] == pytest.approx(12 * np.sin(np.radians(25)) * 1.8, abs=3)
    assert (montage(photograph(face), eyes=True) != montage(photograph(face))).any()

"""The example photo_to_glb.py, run as its docstring says."""

from __future__ import annotations

import runpy
import subprocess
import sys
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from facerecon_rt import Reconstructor, load_template, open_source, read_image
from facerecon_rt.faces.reconstruct import largest
from facerecon_rt.pose import rotation_from_euler
from facerecon_rt.sinks.draw import vertices_in_frame
from facerecon_rt.sinks.shade import vertex_normals

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "runtime" / "examples" / "photo_to_glb.py"
MODEL = ROOT / "models" / "face.onnx"


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frame of the sample clip whose head is turned."""
    path = tmp_path_factory.mktemp("photographs") / "photo.png"
    with open_source(ROOT / "tests" / "data" / "talking_head.mp4") as source:
        frame = next(frame for frame in source if frame.index == 30)
    assert cv2.imwrite(str(path), frame.image)
    return path


def refusal(*arguments: Path) -> tuple[int, str]:
    """Exit code and standard error of its `main`, in this process."""
    said = StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(said):
        patch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments), "--model", str(MODEL)])
        code: int = runpy.run_path(str(SCRIPT))["main"]()
    return code, said.getvalue()


def test_the_model_is_the_largest_face_in_metres_and_in_the_photographs_colours(
    photograph: Path, tmp_path: Path
) -> None:
    trimesh = pytest.importorskip("trimesh", reason="the extra `mesh` is not installed")
    pygltflib = pytest.importorskip("pygltflib", reason="the extra `gltf` is not installed")
    command: list[str | Path] = [sys.executable, "-W", "error", SCRIPT, photograph, tmp_path / "face.glb"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"wrote {tmp_path / 'face.glb'}\n", "")
    mesh = trimesh.load(tmp_path / "face.glb", force="mesh", process=False)
    file = pygltflib.GLTF2().load(tmp_path / "face.glb")
    assert file.materials[0].pbrMetallicRoughness.metallicFactor == 0
    view = file.bufferViews[file.accessors[file.meshes[0].primitives[0].attributes.COLOR_0].bufferView]
    data = file.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
    colours = np.frombuffer(data, np.uint8).reshape(-1, 4)
    image = read_image(photograph)
    with Reconstructor(MODEL) as reconstructor:
        face = largest(reconstructor.faces(image))
    assert face is not None
    template = load_template()
    np.testing.assert_allclose(mesh.vertices, face.vertices / 1000, atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, template.triangles)
    linear = colours[:, :3].astype(np.float64) / 255
    shown = 255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    vertices = vertices_in_frame(face)
    frontal = vertex_normals(vertices, template.triangles)[:, 2] < -0.6
    assert frontal.sum() > 1000
    x, y = np.rint(vertices[frontal, :2]).astype(int).T
    difference = np.abs(shown[frontal] - image[y, x, ::-1])
    # They differ only by rounding to whole pixels and to 8 bits of linear light.
    assert np.median(difference) < 4
    assert len(np.unique(colours[~frontal], axis=0)) > 100


def test_hidden_skin_takes_the_colour_of_the_other_side(photograph: Path) -> None:
    pytest.importorskip("trimesh", reason="the extra `mesh` is not installed")
    vertex_colours = runpy.run_path(str(SCRIPT))["vertex_colours"]
    with Reconstructor(MODEL) as reconstructor:
        face = largest(reconstructor.faces(read_image(photograph)))
    assert face is not None
    # The head hides one cheek, in front of a picture whose red grows to the right.
    camera = np.hstack([rotation_from_euler(0, 60, 0), [[128.0], [128.0], [0.0]]]).astype(np.float32)
    turned = replace(face, frame_from_head=camera)
    image = np.zeros((256, 256, 3), np.uint8)
    image[..., 2] = np.arange(256)
    colours = vertex_colours(image, turned)
    template = load_template()
    facing = -vertex_normals(vertices_in_frame(turned), template.triangles)[:, 2]
    hidden = (facing < -0.2) & (facing[template.symmetry] > 0.6)
    assert hidden.sum() > 100
    np.testing.assert_allclose(colours[hidden], colours[template.symmetry][hidden], atol=0.02)
    assert np.abs(colours - colours[template.symmetry]).max() > 0.1


def test_what_is_wrong_is_said_on_one_line(tmp_path: Path) -> None:
    pytest.importorskip("trimesh", reason="the extra `mesh` is not installed")
    assert refusal(tmp_path / "none.jpg", tmp_path / "face.xyz") == (
        2,
        f"photo_to_glb: {tmp_path / 'face.xyz'} does not end in .glb; give such a name\n",
    )
    code, said = refusal(tmp_path / "none.jpg", tmp_path / "face.glb")
    assert code == 5
    assert said.startswith("photo_to_glb: cannot read") and said.count("\n") == 1
    assert cv2.imwrite(str(tmp_path / "grey.png"), np.full((64, 64, 3), 128, np.uint8))
    code, said = refusal(tmp_path / "grey.png", tmp_path / "face.glb")
    assert code == 5
    assert "no face was found" in said
    assert not (tmp_path / "face.glb").exists()

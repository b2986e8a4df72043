"""Takes: what a GLB file holds is evaluated as its specification says, and is the face of every frame."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from facerecon_rt.cli import main
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import UsageError
from facerecon_rt.faces.pipeline import Pipeline
from facerecon_rt.faces.reconstruct import Reconstructor
from facerecon_rt.networks.basis import Basis
from facerecon_rt.pose import rotation_from_euler
from facerecon_rt.sinks import takes as takes_module
from facerecon_rt.sinks.eyes import eye_centre, eyeball
from facerecon_rt.sinks.files import open_sink
from facerecon_rt.sinks.gltf import linear
from facerecon_rt.sinks.identities import read_identities
from facerecon_rt.sinks.record import arkit_blendshapes
from facerecon_rt.sinks.take import eye_angles, head_pose
from facerecon_rt.sources.files import open_source
from facerecon_rt.template import load_template
from facerecon_rt.types import Face, Floats, Frame, Scene
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tests.interrupted import default_interrupts

from .conftest import PaintSpots

pygltflib = pytest.importorskip("pygltflib", reason="the extra `gltf` is not installed")

ROOT = Path(__file__).parents[2]
MODEL, VIDEO = ROOT / "models" / "face.onnx", ROOT / "tests" / "data" / "talking_head.mp4"
FRAMES, FOV = 75, 40.0
KINDS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
TYPES: dict[int, Any] = {5126: np.float32, 5123: np.uint16, 5125: np.uint32}


class Gltf:
    """A GLB file, read by pygltflib, evaluated with numpy."""

    def __init__(self, path: Path) -> None:
        self.file = pygltflib.GLTF2().load(path)
        self._blob = self.file.binary_blob()

    def array(self, accessor: int) -> NDArray[Any]:
        a = self.file.accessors[accessor]
        view = self.file.bufferViews[a.bufferView]
        values = np.frombuffer(self._blob, TYPES[a.componentType], a.count * KINDS[a.type], view.byteOffset)
        array = values.reshape(a.count, -1)
        if a.min:
            np.testing.assert_array_equal(a.min, array.min(0))
            np.testing.assert_array_equal(a.max, array.max(0))
        return array

    def node(self, name: str) -> int:
        (found,) = (index for index, node in enumerate(self.file.nodes) if node.name == name)
        return found

    def morphed(self, name: str, weights: Any, part: int = 0) -> NDArray[np.float64]:
        """(V, 3) metres: a part of the node's mesh with morph weights. The second part of a head is its mouth."""
        mesh = self.file.meshes[self.file.nodes[self.node(name)].mesh]
        primitive = mesh.primitives[part]
        points = self.array(primitive.attributes.POSITION).astype(np.float64)
        for weight, target in zip(weights, primitive.targets, strict=True):
            points += weight * self.array(target["POSITION"])
        return np.asarray(points)

    def keys(self, name: str, path: str) -> tuple[NDArray[Any], NDArray[Any]]:
        """(K,) seconds and (K, …) values of a channel."""
        animation, node = self.file.animations[0], self.node(name)
        (channel,) = (c for c in animation.channels if (c.target.node, c.target.path) == (node, path))
        sampler = animation.samplers[channel.sampler]
        times = self.array(sampler.input)[:, 0]
        return times, self.array(sampler.output).reshape(len(times), -1)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """What the pipeline finds in the sample clip."""
    with Reconstructor(MODEL) as reconstructor, open_source(VIDEO) as source:
        found = []
        for scene in Pipeline(reconstructor, lens=FOV).run(source):
            found.append(scene)
            if len(found) == FRAMES:
                return found
    raise AssertionError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the take and the records of the clip."""
    folder = tmp_path_factory.mktemp("take")
    arguments = ["--model", str(MODEL), "--input", str(VIDEO), "--frames", str(FRAMES), "--fov", str(FOV), "--quiet"]
    for name in ("take.glb", "take.jsonl", "take.csv"):
        arguments += ["--output", str(folder / name)]
    assert main([*arguments, "--blendshapes", "arkit"]) == 0
    return folder


@pytest.fixture(scope="module")
def take(run: Path) -> Gltf:
    return Gltf(run / "take.glb")


@pytest.fixture(scope="module")
def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "take.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def basis() -> Basis:
    with Reconstructor(MODEL) as reconstructor:
        return reconstructor.basis()


@pytest.mark.parametrize("frame", [26, 72, FRAMES - 1])
def test_a_take_evaluated_at_a_frame_is_the_face_of_that_frame(take: Gltf, scenes: list[Scene], frame: int) -> None:
    scene = scenes[frame]
    face = scene.faces[0]
    times, weights = take.keys("track1", "weights")
    assert times[frame] == pytest.approx(scene.frame.time_s, abs=1e-5)
    # A take has one neutral face, that of the last frame; a frame's own is the average so far.
    expected = scenes[-1].faces[0].shape + (face.vertices - face.shape)
    found = 1000 * take.morphed("track1", weights[frame])
    # Apple has one weight for the inner brows and cheeks, the model one for each side.
    assert np.linalg.norm(found - expected, axis=1).max() < 0.1
    assert np.linalg.norm(found - expected, axis=1).mean() < 0.01
    # The head in the room, in front of a camera that looks along -z.
    _, turns = take.keys("track1", "rotation")
    _, places = take.keys("track1", "translation")
    world = Rotation.from_quat(turns[frame]).apply(expected / 1000) + places[frame]
    assert face.camera_from_head is not None
    seen = (expected @ face.camera_from_head[:3, :3].T + face.camera_from_head[:3, 3]) / 1000 * [1, -1, -1]
    assert np.linalg.norm(world - seen, axis=1).max() < 1e-4


def test_a_take_has_the_weights_and_the_rotations_of_the_records(take: Gltf, records: list[dict[str, Any]]) -> None:
    times, weights = take.keys("track1", "weights")
    _, turns = take.keys("track1", "rotation")
    assert len(times) == len(records) == FRAMES
    (mesh,) = (mesh for mesh in take.file.meshes if mesh.name == "track1")
    for index, record in enumerate(records):
        assert times[index] == pytest.approx(record["time_s"], abs=1e-4)
        face = record["faces"][0]
        assert mesh.extras["targetNames"] == list(face["blendshapes"])
        np.testing.assert_allclose(weights[index], list(face["blendshapes"].values()), atol=1e-5)
        turn = np.diag([1, -1, -1]) @ np.array(face["pose"]["camera_from_head"])[:3, :3]
        np.testing.assert_allclose(Rotation.from_quat(turns[index]).as_matrix(), turn, atol=1e-5)


def test_a_take_has_the_weights_and_the_rotations_of_the_csv(run: Path, take: Gltf) -> None:
    with (run / "take.csv").open() as file:
        rows = list(csv.DictReader(file))
    _, weights = take.keys("track1", "weights")
    _, turns = take.keys("track1", "rotation")
    _, eye = take.keys("left eye", "rotation")
    (mesh,) = (mesh for mesh in take.file.meshes if mesh.name == "track1")
    for index, row in enumerate(rows):
        named = [float(row[name[0].upper() + name[1:]]) for name in mesh.extras["targetNames"]]
        np.testing.assert_allclose(named, weights[index], atol=1e-6)
        yaw, pitch, roll = (float(row[f"Head{name}"]) for name in ("Yaw", "Pitch", "Roll"))
        # The viewer's y is yaw's axis, then x pitch's and z roll's; see the record.
        turn = Rotation.from_euler("YXZ", [yaw, -pitch, -roll])
        assert (turn.inv() * Rotation.from_quat(turns[index])).magnitude() < 1e-5
        look = Rotation.from_euler("YX", [float(row["LeftEyeYaw"]), -float(row["LeftEyePitch"])])
        assert (look.inv() * Rotation.from_quat(eye[index])).magnitude() < 1e-5
    assert len(rows) == FRAMES


def test_a_take_has_52_targets_normals_uvs_and_a_face_that_is_no_metal(take: Gltf) -> None:
    (mesh,) = (mesh for mesh in take.file.meshes if mesh.name == "track1")
    names = mesh.extras["targetNames"]
    assert len(names) == len(mesh.primitives[0].targets) == len(mesh.weights) == 52
    assert {"jawOpen", "mouthSmileLeft", "browInnerUp", "tongueOut"} < set(names)
    template = load_template()
    for each in take.file.meshes:
        for primitive in each.primitives:
            points = take.array(primitive.attributes.POSITION)
            normals = take.array(primitive.attributes.NORMAL)
            assert len(normals) == len(take.array(primitive.attributes.TEXCOORD_0)) == len(points)
            np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-4)
            assert take.array(primitive.indices).max() < len(points)
            material = take.file.materials[primitive.material].pbrMetallicRoughness
            assert material.metallicFactor == 0
    uv = take.array(mesh.primitives[0].attributes.TEXCOORD_0)
    np.testing.assert_allclose(uv, template.uv * [1, -1] + [0, 1], atol=1e-6)  # glTF's v goes down
    # CLAY, an sRGB colour, in linear light: 0.94 is 0.8682.
    clay = take.file.materials[mesh.primitives[0].material].pbrMetallicRoughness
    assert clay.baseColorFactor[0] == pytest.approx(0.8682, abs=1e-3)
    assert linear(0.02) == pytest.approx(0.02 / 12.92)


def test_the_jaw_target_opens_the_mouth(take: Gltf) -> None:
    (mesh,) = (mesh for mesh in take.file.meshes if mesh.name == "track1")
    weights = np.zeros(52)
    rest = take.morphed("track1", weights)
    weights[mesh.extras["targetNames"].index("jawOpen")] = 1
    moved = 1000 * (take.morphed("track1", weights) - rest)
    chin = load_template().landmarks[8]
    assert moved[chin, 1] < -10
    assert np.linalg.norm(moved[load_template().landmarks[27]]) < 2  # the bridge of the nose stays


def test_a_minute_of_thirty_frames_per_second_is_less_than_15_mb(tmp_path: Path, scenes: list[Scene]) -> None:
    face = scenes[-1].faces[0]
    with Reconstructor(MODEL) as reconstructor:
        sink = open_sink(str(tmp_path / "minute.glb"), blendshapes=BLENDSHAPES, basis=reconstructor.basis)
    with sink:
        for index in range(1800):
            sink.write(a_frame(index, face))
    assert (tmp_path / "minute.glb").stat().st_size < 15e6
    assert len(Gltf(tmp_path / "minute.glb").keys("track1", "weights")[0]) == 1800


def a_frame(index: int, *faces: Face, source: str = "a.mp4", time_s: float | None = None, live: bool = False) -> Scene:
    when = index / 30 if time_s is None else time_s
    return Scene(Frame(np.zeros((48, 64, 3), np.uint8), source, index, when, still=False, live=live), faces)


def test_each_track_is_a_node_and_is_hidden_while_it_is_away(tmp_path: Path, basis: Basis, scenes: list[Scene]) -> None:
    first = scenes[0].faces[0]
    second = replace(first, track=2, shape=first.shape + 1)
    with open_sink(str(tmp_path / "two.glb"), blendshapes=BLENDSHAPES, basis=lambda: basis) as sink:
        for index in range(10):
            sink.write(a_frame(index, first, *([second] if 3 <= index < 6 else [])))
    take = Gltf(tmp_path / "two.glb")
    assert len(take.keys("track1", "weights")[0]) == 10
    times, _ = take.keys("track2", "weights")
    np.testing.assert_allclose(times, [0.1, 4 / 30, 5 / 30], atol=1e-6)
    steps, scales = take.keys("track2", "scale")
    assert scales[:, 0].tolist() == [0, 1, 0]
    np.testing.assert_allclose(steps, [0, 0.1, 5 / 30 + 0.001], atol=1e-6)
    with pytest.raises(ValueError, match="not enough values"):
        take.keys("track1", "scale")
    # Both share the targets: a second head costs its neutral face only.
    meshes = {mesh.name: mesh.primitives[0] for mesh in take.file.meshes}
    assert meshes["track1"].targets == meshes["track2"].targets
    assert take.morphed("track2", [0] * 52)[0, 0] - take.morphed("track1", [0] * 52)[0, 0] == pytest.approx(0.001)


def test_every_video_has_its_take_and_a_full_one_is_continued(
    tmp_path: Path, basis: Basis, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    face = scenes[0].faces[0]
    monkeypatch.setattr(takes_module, "MOST_KEYS", 4)
    with open_sink(str(tmp_path / "t.glb"), blendshapes=BLENDSHAPES, basis=lambda: basis) as sink:
        for index in range(3):
            sink.write(a_frame(index, face, source="a.mp4"))
        for index in range(6):
            sink.write(a_frame(index, face, source="b.mp4", time_s=4000.5 + index))
    takes = [Gltf(tmp_path / f"t_000{number}.glb") for number in (1, 2, 3)]
    assert [len(take.keys("track1", "weights")[0]) for take in takes] == [3, 4, 2]
    # After an hour, times begin anew: float32 has too few digits.
    assert takes[1].file.scenes[0].extras["begins_s"] == 4000
    np.testing.assert_allclose(takes[1].keys("track1", "weights")[0], [0.5, 1.5, 2.5, 3.5])


def test_a_video_that_is_read_twice_is_two_takes(tmp_path: Path, basis: Basis, scenes: list[Scene]) -> None:
    with open_sink(str(tmp_path / "t.glb"), blendshapes=BLENDSHAPES, basis=lambda: basis) as sink:
        for index in (0, 1, 2, 2, 0, 1):  # two frames of one time are one key
            sink.write(a_frame(index, scenes[0].faces[0]))
    found = [len(Gltf(tmp_path / f"t_000{number}.glb").keys("track1", "weights")[0]) for number in (1, 2)]
    assert found == [3, 2]


def test_two_cameras_are_two_takes_at_the_same_time(tmp_path: Path, basis: Basis, scenes: list[Scene]) -> None:
    face = scenes[0].faces[0]
    with open_sink(str(tmp_path / "t.glb"), blendshapes=BLENDSHAPES, basis=lambda: basis) as sink:
        for index in range(4):
            for source in ("cam0", "cam1"):
                sink.write(a_frame(index, face, source=source, live=True))
    assert [len(Gltf(tmp_path / f"t_000{number}.glb").keys("track1", "weights")[0]) for number in (1, 2)] == [4, 4]
    assert len(list(tmp_path.iterdir())) == 2


def test_the_take_so_far_is_kept_when_a_run_ends_early(tmp_path: Path, basis: Basis, scenes: list[Scene]) -> None:
    def interrupted() -> Iterator[Scene]:
        yield a_frame(0, scenes[0].faces[0])
        raise KeyboardInterrupt

    sink = open_sink(str(tmp_path / "t.glb"), blendshapes=BLENDSHAPES, basis=lambda: basis)
    with pytest.raises(KeyboardInterrupt), sink:
        for scene in interrupted():
            sink.write(scene)
    assert [path.name for path in tmp_path.iterdir()] == ["t.glb"]
    assert len(Gltf(tmp_path / "t.glb").keys("track1", "weights")[0]) == 1


def test_a_photograph_has_its_expression_as_default_weights(tmp_path: Path, basis: Basis, scenes: list[Scene]) -> None:
    face = replace(scenes[72].faces[0], track=None)
    with open_sink(str(tmp_path / "photo.glb"), blendshapes=BLENDSHAPES, basis=lambda: basis) as sink:
        sink.write(Scene(Frame(np.zeros((48, 64, 3), np.uint8), "a.jpg"), (face,)))
    photo = Gltf(tmp_path / "photo.glb")
    (mesh,) = (mesh for mesh in photo.file.meshes if mesh.name == "face")
    np.testing.assert_allclose(mesh.weights, list(arkit_blendshapes(face.expression, BLENDSHAPES).values()))
    found = 1000 * photo.morphed("face", mesh.weights)
    assert np.linalg.norm(found - face.vertices, axis=1).max() < 0.1
    assert photo.file.animations == []


def test_without_a_basis_glb_files_are_meshes_and_it_is_said(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Reconstructor(model) as reconstructor, caplog.at_level("WARNING", "facerecon_rt"):
        sink = open_sink(str(tmp_path / "f.glb"), blendshapes=BLENDSHAPES, basis=reconstructor.basis)
    assert type(sink).__name__ == "MeshSink"
    assert "f.glb has meshes without blendshapes: no basis at" in caplog.text


def test_without_pygltflib_the_extra_is_named(tmp_path: Path, basis: Basis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygltflib", None)
    for read in (lambda: basis, None):
        with pytest.raises(UsageError, match=r"pip install 'facerecon-rt\[gltf\]'"):
            open_sink(str(tmp_path / "t.glb"), blendshapes=BLENDSHAPES, basis=read)


# Pose and eyes


def test_a_head_without_a_lens_is_at_an_average_distance() -> None:
    camera = np.column_stack([2.0 * rotation_from_euler(0, 30, 0), [31.5 + 100, 23.5 - 50, 0]]).astype(np.float32)
    face = a_face(camera)
    (w, x, y, z), place = head_pose(face, (64, 48))
    # 100 pixels at 2 pixels per millimetre; up is up.
    np.testing.assert_allclose(place, [0.05, 0.025, -0.6], atol=1e-9)
    # To the subject's left is a turn about +y.
    np.testing.assert_allclose([w, x, y, z], [np.cos(np.radians(15)), 0, np.sin(np.radians(15)), 0], atol=1e-6)


def a_face(camera: Floats) -> Face:
    points = np.zeros((4, 3), np.float32)
    return Face(points, points, np.zeros(53, np.float32), camera, np.zeros((68, 3), np.float32), 1.0, camera[0])


def test_eyes_turn_to_where_the_gaze_is() -> None:
    gaze = np.array([[0.5, 0, np.sqrt(0.75)], [0, 0.5, np.sqrt(0.75)]], np.float32)
    np.testing.assert_allclose(np.degrees(eye_angles(gaze, {})), [[30, 0], [0, 30]], atol=1e-4)


def test_eyes_without_gaze_turn_by_the_weights() -> None:
    names = arkit_blendshapes(np.zeros(53), BLENDSHAPES)
    looks = names | {"eyeLookOutLeft": 1.0, "eyeLookInRight": 0.5, "eyeLookDownLeft": 1.0}
    # Both look to the subject's left: the left eye outwards, the right eye towards the nose.
    np.testing.assert_allclose(np.degrees(eye_angles(None, looks)), [[30, -30], [15, 0]], atol=1e-9)


def test_eyes_lie_behind_their_lids_and_their_keys_turn_them(take: Gltf, scenes: list[Scene]) -> None:
    shape, template = scenes[-1].faces[0].shape, load_template()
    for side, sign in enumerate((1, -1)):
        centre = eye_centre(shape, template, side)
        assert 25 < sign * centre[0] < 40  # +x is the subject's left
        assert np.linalg.norm(shape - centre, axis=1).min() > 12.0  # the eyeball does not stick out
        node = take.file.nodes[take.node(("left eye", "right eye")[side])]
        np.testing.assert_allclose(node.translation, centre / 1000, atol=1e-6)
        _, turns = take.keys(("left eye", "right eye")[side], "rotation")
        angles = eye_angles(None, arkit_blendshapes(scenes[72].faces[0].expression, BLENDSHAPES))[side]
        yaw, pitch = angles
        looks = [np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)]
        np.testing.assert_allclose(Rotation.from_quat(turns[72]).apply([0, 0, 1]), looks, atol=1e-5)


def test_the_eyeball_is_closed_and_faces_outwards() -> None:
    points, parts = eyeball()
    triangles = np.vstack(list(parts.values()))
    a, b, c = (points[triangles[:, corner]] for corner in range(3))
    volume = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
    assert 0.93 * 4 / 3 * np.pi < volume < 4 / 3 * np.pi
    edges = np.sort(np.vstack([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), 1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    assert points[parts["iris"]][..., 2].min() > 0.8


@pytest.fixture
def tiny_with_basis(model: Path, spots: PaintSpots, tmp_path: Path) -> Path:
    """The tiny model in a folder of its own, with a basis in which only the jaw moves."""
    folder = Path(shutil.copytree(model.parent, tmp_path / "tiny"))
    with Reconstructor(model) as reconstructor:
        shape = reconstructor.faces(spots(256, 192, [(0.5, 0.5)]))[0].shape
    expression = np.zeros((len(BLENDSHAPES), *shape.shape), np.float16)
    expression[BLENDSHAPES.index("jawOpen"), :, 1] = -10
    arrays = {"mean": shape, "shape": np.zeros((2, *shape.shape)), "expression": expression}
    np.savez(folder / "face.basis.npz", allow_pickle=False, weights_sha256=np.array(""), **arrays)
    return folder / model.name


def test_sigterm_leaves_the_take_so_far(tiny_with_basis: Path, tmp_path: Path, spots: PaintSpots) -> None:
    frames = 1500
    writer = cv2.VideoWriter(str(tmp_path / "long.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (256, 192))
    for _ in range(frames):
        writer.write(spots(256, 192, [(0.5, 0.5)]))
    writer.release()
    command = [sys.executable, "-m", "facerecon_rt.cli", "--model", str(tiny_with_basis), "--input", "long.mp4"]
    for output in ("-", "out.glb", "out.csv", "identity.npz"):
        command += ["--output", output]
    with (
        default_interrupts(),
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child,
    ):
        assert child.stdout is not None and child.stderr is not None
        for _ in range(5):
            child.stdout.readline()
        child.send_signal(signal.SIGTERM)
        rest, errors = child.stdout.read(), child.stderr.read()
        assert child.wait() == 130, errors
    assert "Traceback" not in errors
    keys = len(Gltf(tmp_path / "out.glb").keys("track1", "weights")[0])
    assert 4 <= keys < frames
    assert abs(len(rest.splitlines()) + 5 - keys) <= 1
    assert abs(len((tmp_path / "out.csv").read_text().splitlines()) - 1 - keys) <= 1
    assert read_identities(tmp_path / "identity.npz").track == (1,)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

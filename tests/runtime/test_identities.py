"""Neutral faces in a file beside the records: together they give the meshes of the run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from facerecon_rt.cli import main
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import UsageError
from facerecon_rt.faces.pipeline import Pipeline
from facerecon_rt.faces.reconstruct import Reconstructor
from facerecon_rt.pose import rotation_from_euler
from facerecon_rt.sinks.identities import (
    Identities,
    IdentitySink,
    read_identities,
    read_record,
    vertices_from_record,
    weights_from_record,
)
from facerecon_rt.sinks.record import arkit_blendshapes
from facerecon_rt.sources.files import open_source
from facerecon_rt.types import Floats, Frame, Scene
from scipy.spatial.transform import Rotation

from .conftest import MakeFace

ROOT = Path(__file__).parents[2]
MODEL, VIDEO = ROOT / "models" / "face.onnx", ROOT / "tests" / "data" / "talking_head.mp4"
FRAMES = 75


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with records, identities and the mesh of a track."""
    folder = tmp_path_factory.mktemp("run")
    arguments = ["--model", str(MODEL), "--input", str(VIDEO), "--frames", str(FRAMES), "--quiet"]
    for name in ("records.jsonl", "identity.npz"):
        arguments += ["--output", str(folder / name)]
    assert main(arguments) == 0
    return folder


@pytest.fixture(scope="module")
def last_vertices() -> Floats:
    """The runtime's own mesh (V, 3) in mm in the last frame."""
    with Reconstructor(MODEL) as reconstructor, open_source(VIDEO) as source:
        for scene in Pipeline(reconstructor).run(source):
            if scene.frame.index == FRAMES - 1:
                return scene.faces[0].vertices
    raise AssertionError


def record_of(run: Path, frame: int) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((run / "records.jsonl").read_text().splitlines()[frame])
    return record


def test_a_record_and_its_identity_are_the_runtimes_own_mesh(run: Path, last_vertices: Floats) -> None:
    record = record_of(run, FRAMES - 1)
    assert max(record["faces"][0]["blendshapes"].values()) > 0.2  # an expression, so that something is tested
    rebuilt = vertices_from_record(record, read_identities(run / "identity.npz"), track=1)
    assert np.linalg.norm(rebuilt - last_vertices, axis=1).max() < 0.01


def test_lines_of_events_are_no_frames(run: Path, tmp_path: Path) -> None:
    """With `--attention`, the events of a frame follow its record."""
    lines = (run / "records.jsonl").read_text().splitlines()
    record = json.loads(lines[0])
    event = {"schema": record["schema"], "source": record["source"], "frame": record["frame"], "event": "blink"}
    (tmp_path / "with_events.jsonl").write_text("\n".join([lines[0], json.dumps(event)]))
    assert read_record(tmp_path / "with_events.jsonl", record["frame"]) == record


def test_the_command_writes_the_same_mesh(
    run: Path, last_vertices: Floats, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records, identity = str(run / "records.jsonl"), str(run / "identity.npz")
    for name in ("face.obj", "face.ply"):
        place = str(tmp_path / name)
        command = ["mesh", records, "--identity", identity, "--frame", str(FRAMES - 1), "-o", place]
        assert main(command) == 0
        loaded: Any = trimesh.load(place, process=False)
        assert np.linalg.norm(loaded.vertices - last_vertices, axis=1).max() < 0.01
    assert "wrote" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--frame", "900"], "has no frame 900"),
        (["--frame", "1", "--track", "7"], "does not show track 7"),
        (["--frame", "1", "--face", "3"], "has no face 3; it shows 1"),
        (["--frame", "1", "--source", "cam0"], "has no frame 1 of cam0"),
    ],
)
def test_a_face_that_is_not_there_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    records, identity = str(run / "records.jsonl"), str(run / "identity.npz")
    assert main(["mesh", records, "--identity", identity, "-o", str(tmp_path / "f.obj"), *more]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "f.obj").exists()


def test_the_entry_of_a_track_tells_who_and_how_sure(run: Path) -> None:
    people = read_identities(run / "identity.npz")
    assert (people.source, people.track, people.frame) == ((str(VIDEO),), (1,), (FRAMES - 1,))
    assert people.shape.shape == (1, 4032, 3)
    assert np.isfinite(people.spread_mm).all()
    record = record_of(run, FRAMES - 1)
    assert people.spread_mm.mean() == pytest.approx(record["faces"][0]["spread_mm"]["mean"], abs=1e-3)


def test_a_model_without_a_basis_names_it(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(model), "--input", str(VIDEO), "--output", str(tmp_path / "identity.npz")]) == 3
    assert "no basis at" in capsys.readouterr().err


def test_a_file_that_is_full_leaves_people_out_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ball_face: MakeFace
) -> None:
    monkeypatch.setattr("facerecon_rt.sinks.identities.MOST_PEOPLE", 2)
    with Reconstructor(MODEL) as reconstructor:
        basis = reconstructor.basis()
    face = replace(ball_face(0, 0), shape=basis.mean)
    full = caplog.at_level("WARNING", "facerecon_rt")
    with full, IdentitySink(tmp_path / "i.npz", BLENDSHAPES, basis) as sink:
        for name in ("a.jpg", "b.jpg", "c.jpg", "a.jpg", "d.jpg"):
            sink.write(Scene(Frame(np.zeros((8, 8, 3), np.uint8), name), (face,)))
    assert read_identities(tmp_path / "i.npz").source == ("a.jpg", "b.jpg")
    assert caplog.text.count("is full with 2 people") == 1


def test_a_damaged_file_of_identities_is_refused(run: Path, tmp_path: Path) -> None:
    whole = (run / "identity.npz").read_bytes()
    for data in (whole[: len(whole) // 2], b"", b"PK\x03\x04"):
        (tmp_path / "cut.npz").write_bytes(data)
        with pytest.raises(UsageError, match="not a readable file of identities"):
            read_identities(tmp_path / "cut.npz")
    with pytest.raises(UsageError, match="does not exist"):
        read_identities(tmp_path / "none.npz")
    with np.load(run / "identity.npz") as arrays:
        np.savez(tmp_path / "odd.npz", **{**arrays, "shape": 1.0, "track": 1})
    with pytest.raises(UsageError, match="not a readable file of identities"):
        read_identities(tmp_path / "odd.npz")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"faces": None}, "not a record of faces"),
        ({"faces": [{}]}, "not a record of faces"),
        ({"faces": [{"track": 1}]}, "not a record of faces"),
        ({"faces": [{"track": 1, "blendshapes": dict.fromkeys(BLENDSHAPES, "x")}]}, "are no numbers"),
    ],
)
def test_a_record_without_what_a_mesh_needs_is_refused(run: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        vertices_from_record({**record_of(run, 3), **change}, read_identities(run / "identity.npz"))


def test_a_file_that_is_no_text_holds_no_records(tmp_path: Path) -> None:
    (tmp_path / "mesh.glb").write_bytes(b"glTF\xd0\x00")
    with pytest.raises(UsageError, match=r"mesh\.glb is not a file of records"):
        read_record(tmp_path / "mesh.glb", 0)


def test_apples_names_are_read_too(run: Path) -> None:
    names = read_identities(run / "identity.npz").blendshapes
    weights = np.random.default_rng(3).uniform(0, 1, len(names)).astype(np.float32)
    for name in ("browInnerUp", "cheekPuff"):  # Apple has one weight for both sides
        weights[names.index(f"{name}_L")] = weights[names.index(f"{name}_R")]
    np.testing.assert_allclose(weights_from_record(arkit_blendshapes(weights, names), names), weights, atol=1e-6)
    with pytest.raises(UsageError, match="no blendshape 'jawOpen'"):
        weights_from_record({"smile": 1.0}, ["jawOpen"])


def test_photographs_have_an_entry_for_each_face() -> None:
    people = Identities(
        shape=np.stack([np.full((2, 3), fill, np.float32) for fill in range(3)]),
        spread_mm=np.full((3, 2), np.nan, np.float32),
        source=("a.jpg", "a.jpg", "b.mp4"),
        track=(-1, -1, 1),
        frame=(0, 0, 9),
        face=(0, 1, 0),
        blendshapes=("jawOpen",),
        expression=np.ones((1, 2, 3), np.float32),
        weights_sha256="",
    )
    faces = [{"track": None, "blendshapes": {"jawOpen": weight}} for weight in (0.0, 0.5)]
    record = {"source": "a.jpg", "frame": 0, "faces": faces}
    np.testing.assert_allclose(vertices_from_record(record, people, face=1), 1.5)
    with pytest.raises(UsageError, match="shows 2 faces; name one"):
        vertices_from_record(record, people)
    with pytest.raises(UsageError, match="has nobody for frame 0 of c"):
        vertices_from_record({**record, "source": "c"}, people, face=0)


def test_the_quaternion_is_the_rotation_of_the_angles(run: Path) -> None:
    pose = record_of(run, 5)["faces"][0]["pose"]
    w, x, y, z = pose["quaternion"]
    assert w >= 0
    angles = pose["euler_deg"]
    # y and z of the frame point down and away, those of the viewer up and near.
    expected = np.diag([1, -1, -1]) @ rotation_from_euler(angles["pitch"], angles["yaw"], angles["roll"])
    np.testing.assert_allclose(Rotation.from_quat([x, y, z, w]).as_matrix(), expected, atol=3e-4)

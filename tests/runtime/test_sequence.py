"""Sequences of meshes: each frame has a file with its number in the name."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from facerecon_rt.cli import main
from facerecon_rt.errors import UsageError
from facerecon_rt.sinks.files import open_sink
from facerecon_rt.template import FaceTemplate
from facerecon_rt.types import Face, Floats, Frame, Scene

from .conftest import MakeFace

ROOT = Path(__file__).parents[2]
MODEL, VIDEO = ROOT / "models" / "face.onnx", ROOT / "tests" / "data" / "talking_head.mp4"
NAMES = ["x"] * 53


def scene(index: int, *faces: Face, source: str = "video.mp4") -> Scene:
    return Scene(Frame(np.zeros((480, 640, 3), np.uint8), source, index, index / 30, still=False, fps=30), faces)


def vertices_in(path: Path) -> Floats:
    rows = [line.split()[1:] for line in path.read_text().splitlines() if line.startswith("v ")]
    return np.array(rows, np.float32)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_frame_has_its_own_mesh_with_its_expression(
    tmp_path: Path, ball: FaceTemplate, ball_face: MakeFace
) -> None:
    faces = [replace(face, vertices=face.shape + index) for index, face in enumerate([ball_face(0, 0, track=1)] * 3)]
    with open_sink(str(tmp_path / "take_{frame}.obj"), blendshapes=NAMES, template=ball) as sink:
        for index in (0, 7, 1200):
            sink.write(scene(index, faces[min(index, 2)]))
            # Each file is written at once.
            assert vertices_in(tmp_path / f"take_{index:06d}.obj") == pytest.approx(
                faces[min(index, 2)].vertices, abs=1e-3
            )
        sink.write(scene(1201))
    assert names_in(tmp_path) == ["take_000000.obj", "take_000007.obj", "take_001200.obj"]


def test_the_largest_face_is_written_or_every_track(tmp_path: Path, ball: FaceTemplate, ball_face: MakeFace) -> None:
    small, large = ball_face(120, 240, scale=0.3, track=4), ball_face(400, 240, scale=0.6, track=9)
    large = replace(large, vertices=large.vertices + 5)
    for name in ("{frame}.obj", "t{track}_{frame}_{source}.obj"):
        with open_sink(str(tmp_path / name), blendshapes=NAMES, template=ball) as sink:
            sink.write(scene(3, small, large, source="films/a b.mp4"))
    assert names_in(tmp_path) == ["000003.obj", "t4_000003_a b.obj", "t9_000003_a b.obj"]
    assert (tmp_path / "000003.obj").read_bytes() == (tmp_path / "t9_000003_a b.obj").read_bytes()


def test_nothing_is_kept_of_a_frame(tmp_path: Path, ball: FaceTemplate, ball_face: MakeFace) -> None:
    with open_sink(str(tmp_path / "{frame}.obj"), blendshapes=NAMES, template=ball) as sink:
        vertices = ball_face(0, 0).vertices.copy()
        gone = weakref.ref(vertices)
        sink.write(scene(0, replace(ball_face(0, 0, track=1), vertices=vertices)))
        del vertices
        assert gone() is None


def test_two_sources_never_share_names(tmp_path: Path, ball: FaceTemplate, ball_face: MakeFace) -> None:
    for name, sources, said in (
        ("{frame}.obj", ("a.mp4", "b.mp4"), "add {source} to the name"),
        ("{source}{frame}.obj", ("x/a.mp4", "y/a.mp4"), "read them one by one"),
    ):
        with open_sink(str(tmp_path / name), blendshapes=NAMES, template=ball) as sink:
            sink.write(scene(0, ball_face(0, 0), source=sources[0]))
            with pytest.raises(UsageError, match=said):
                sink.write(scene(0, ball_face(0, 0), source=sources[1]))


def test_an_input_is_never_overwritten(tmp_path: Path, ball: FaceTemplate, ball_face: MakeFace) -> None:
    source = tmp_path / "000000.obj"
    source.write_bytes(b"no mesh")
    with (
        open_sink(str(tmp_path / "{frame}.obj"), blendshapes=NAMES, template=ball) as sink,
        pytest.raises(UsageError, match="would be overwritten"),
    ):
        sink.write(scene(0, ball_face(0, 0), source=str(source)))
    assert source.read_bytes() == b"no mesh"


@pytest.mark.parametrize(
    "name", ["{frame}_{name}.obj", "{frame:04d}.obj", "{frame!r}.obj", "{frame}/{frame}.obj", "{}{frame}.obj"]
)
def test_other_fields_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="a pattern may have"):
        open_sink(str(tmp_path / name), blendshapes=NAMES)


def test_a_bracket_that_does_not_close_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a pattern"):
        open_sink(str(tmp_path / "{frame}{.obj"), blendshapes=NAMES)


def test_the_command_writes_a_sequence_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "--model",
        str(MODEL),
        "--input",
        str(VIDEO),
        "--frames",
        "3",
        "--output",
        str(tmp_path / "t_{frame}.obj"),
    ]
    assert main(command) == 0
    assert f"wrote {tmp_path}/t_{{frame}}.obj" in capsys.readouterr().err
    assert names_in(tmp_path) == ["t_000000.obj", "t_000001.obj", "t_000002.obj"]
    for more, said in ((["--set"], "--set makes one mesh"), (["--texture"], "leave out one")):
        assert main([*command, *more]) == UsageError.exit_code
        assert said in capsys.readouterr().err

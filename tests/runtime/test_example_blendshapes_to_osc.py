"""The example blendshapes_to_osc.py: what an avatar's program gets over a real socket."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from facerecon_rt import Face, Pipeline, Reconstructor, open_source
from facerecon_rt.pose import rotation_from_euler
from facerecon_rt.sinks.record import arkit_blendshapes

from .conftest import MakeFace, PaintSpots

SCRIPT = Path(__file__).parents[2] / "runtime" / "examples" / "blendshapes_to_osc.py"
Message = tuple[str, list[str | float]]


@pytest.fixture(scope="module", autouse=True)
def _osc() -> None:
    pytest.importorskip("pythonosc", reason="the extra `osc` is not installed")


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("blendshapes_to_osc", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def avatar() -> Iterator[socket.socket]:
    """Where an avatar's program would listen."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(20)
        yield listening


def frames_of(avatar: socket.socket, count: int) -> list[list[Message]]:
    """The messages of each frame, up to and with its /VMC/Ext/OK."""
    from pythonosc.osc_bundle import OscBundle

    frames: list[list[Message]] = [[]]
    while len(frames) <= count:
        packet = avatar.recv(65536)
        assert len(packet) <= 1400
        for message in OscBundle(packet):
            frames[-1].append((message.address, message.params))
            if message.address == "/VMC/Ext/OK":
                frames.append([])
    return frames[:count]


@pytest.mark.parametrize("capitals", [False, True])
def test_each_frame_is_a_head_52_blendshapes_and_their_application(
    avatar: socket.socket, model: Path, spots: PaintSpots, tmp_path: Path, capitals: bool
) -> None:
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 25, (256, 192))
    for number in range(3):
        writer.write(spots(256, 192, [(0.5, 0.5)] if number else []))
    writer.release()
    command: list[str | Path] = [sys.executable, "-W", "error", SCRIPT, "--model", model, "--input", clip]
    command += ["--to", f"127.0.0.1:{avatar.getsockname()[1]}", *(["--capitals"] if capitals else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    frames = frames_of(avatar, 3)
    assert frames[0] == [("/VMC/Ext/OK", [0])]
    with Reconstructor(model) as reconstructor, open_source(clip) as source:
        scenes = list(Pipeline(reconstructor, max_faces=1, smooth="low").run(source))
        names = reconstructor.contract.blendshapes
    for scene, messages in zip(scenes[1:], frames[1:], strict=True):
        (face,) = scene.faces
        (head, bone), *blends, applied, ok = messages
        assert (head, bone[0]) == ("/VMC/Ext/Bone/Pos", "Head")
        # The tiny model's heads look straight at the camera.
        np.testing.assert_allclose(np.array(bone[1:], np.float64), [0, 0, 0, 0, 0, 0, 1], atol=1e-3)
        assert (applied, ok) == (("/VMC/Ext/Blend/Apply", []), ("/VMC/Ext/OK", [1]))
        assert {address for address, _ in blends} == {"/VMC/Ext/Blend/Val"}
        weights = {str(name): weight for _, (name, weight) in blends}
        expected = arkit_blendshapes(face.expression, names)
        assert expected["jawOpen"] > 0.1
        if capitals:
            assert "EyeBlinkLeft" in weights
            weights = {name[0].lower() + name[1:]: weight for name, weight in weights.items()}
        assert weights == pytest.approx(expected, abs=1e-6)
        assert len(weights) == 52


@pytest.mark.parametrize(
    ("pitch", "yaw", "roll", "axis"),
    [
        # In Unity's left-handed axes, avatar looking along z: to its left is a negative turn about y, up a negative
        # one about x, and leaning to its left a positive one about z.
        (0.0, 40.0, 0.0, (0.0, -1.0, 0.0)),
        (30.0, 0.0, 0.0, (-1.0, 0.0, 0.0)),
        (0.0, 0.0, 20.0, (0.0, 0.0, 1.0)),
    ],
)
def test_an_avatar_turns_as_its_person_does(
    example: ModuleType, ball_face: MakeFace, pitch: float, yaw: float, roll: float, axis: tuple[float, ...]
) -> None:
    camera = np.hstack([2 * rotation_from_euler(pitch, yaw, roll), [[9.0], [9.0], [0.0]]]).astype(np.float32)
    face: Face = replace(ball_face(0, 0), frame_from_head=camera)
    half = np.radians(pitch + yaw + roll) / 2
    np.testing.assert_allclose(example.head_rotation(face), [*(np.array(axis) * np.sin(half)), np.cos(half)], atol=1e-6)


@pytest.mark.parametrize("to", ["39539", "host:", "host:port"])
def test_an_address_that_is_none_is_said_on_one_line(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], to: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["blendshapes_to_osc.py", "--to", to])
    with pytest.raises(SystemExit) as ended:
        example.main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert f"--to {to}: give host and port" in error
    assert error.count("\n") == 1


def test_a_missing_video_is_said_on_one_line(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["blendshapes_to_osc.py", "--model", str(model), "--input", "none.mp4"])
    assert example.main() == 5
    assert capsys.readouterr().err.startswith("blendshapes_to_osc: none.mp4 does not exist")

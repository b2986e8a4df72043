"""Live Link Face files and packets, read by independent programs, and VMC over a real socket."""

from __future__ import annotations

import csv
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from facerecon_rt.cli import main
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import UsageError
from facerecon_rt.pose import rotation_from_euler
from facerecon_rt.sinks.avatars import LONGEST_WAIT_S, AvatarSink, unity_rotation
from facerecon_rt.sinks.files import open_sink
from facerecon_rt.sinks.livelink import ANGLES, ORDER, timecode
from facerecon_rt.sinks.record import arkit_blendshapes, record_from_scene
from facerecon_rt.sinks.take import head_pose
from facerecon_rt.sinks.threaded import DEPTH, ThreadedSink
from facerecon_rt.types import Face, Frame, Scene

from .conftest import MakeFace

Message = tuple[str, list[str | float]]


def a_face(make: MakeFace, seed: int = 0, *, track: int | None = 1) -> Face:
    """Return a face that looks up, to its left, and leans, with an expression and a gaze."""
    random = np.random.default_rng(seed)
    camera = np.column_stack([2 * rotation_from_euler(10, 25 + seed, -5), [30, 20, 0]]).astype(np.float32)
    gaze = np.array([[0.2, 0.1, 0.97], [0.1, -0.1, 0.99]], np.float32)
    gaze /= np.linalg.norm(gaze, axis=1, keepdims=True)
    expression = random.uniform(0, 1, 53).astype(np.float32)
    return replace(make(30, 20, track=track), frame_from_head=camera, expression=expression, gaze=gaze)


def a_scene(index: int, *faces: Face, live: bool = True, time_s: float | None = None) -> Scene:
    when = index / 25 if time_s is None else time_s
    frame = Frame(np.zeros((48, 64, 3), np.uint8), "cam0", index, when, still=False, fps=25.0, live=live)
    return Scene(frame, faces)


# CSV


def test_a_csv_has_a_row_per_frame_that_is_the_record(tmp_path: Path, ball_face: MakeFace) -> None:
    scenes = [a_scene(index, a_face(ball_face, index)) for index in range(4)]
    with open_sink(str(tmp_path / "take.csv"), blendshapes=BLENDSHAPES) as sink:
        for scene in scenes:
            sink.write(scene)
    with (tmp_path / "take.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header == ["Timecode", "BlendshapeCount", *ORDER, *ANGLES]
    assert len(rows) == 4
    for scene, row in zip(scenes, rows, strict=True):
        face = record_from_scene(scene, BLENDSHAPES, arkit=True)["faces"][0]  # type: ignore[index]
        values = dict(zip(header[2:], map(float, row[2:]), strict=True))
        assert row[1] == "61"
        for name, weight in face["blendshapes"].items():
            assert values[name[0].upper() + name[1:]] == pytest.approx(weight, abs=1e-5)
        angles = face["pose"]["euler_deg"]
        found = [np.degrees(values[f"Head{name}"]) for name in ("Pitch", "Yaw", "Roll")]
        np.testing.assert_allclose(found, [angles[name] for name in ("pitch", "yaw", "roll")], atol=0.01)
        assert values["LeftEyeYaw"] == pytest.approx(np.arctan2(0.2, 0.97), abs=1e-5)
        assert values["RightEyePitch"] == pytest.approx(-np.arctan2(0.1, np.hypot(0.1, 0.99)), abs=1e-5)
    assert [row[0] for row in rows[:2]] == ["00:00:00:00.000", "00:00:00:01.000"]


def test_timecodes_count_frames() -> None:
    assert timecode(3661.5, 30) == "01:01:01:15.000"
    assert timecode(1 / 30, 30) == "00:00:00:01.000"  # and not frame 0.999
    assert timecode(59.9999999, 25) == "00:01:00:00.000"
    assert timecode(0.51, 0) == "00:00:00:30.600"  # 60 where the source has no rate
    assert timecode(2.0, 29.97) == "00:00:02:00.000"


def test_each_track_has_a_csv(tmp_path: Path, ball_face: MakeFace) -> None:
    with open_sink(str(tmp_path / "take.csv"), blendshapes=BLENDSHAPES) as sink:
        for index in range(3):
            sink.write(a_scene(index, a_face(ball_face), *([a_face(ball_face, track=2)] if index else [])))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["take_0001.csv", "take_0002.csv"]
    assert [len((tmp_path / f"take_000{n}.csv").read_text().splitlines()) for n in (1, 2)] == [4, 3]


# Live Link over UDP


@pytest.fixture
def avatar() -> Iterator[socket.socket]:
    """A socket in place of an avatar's program."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(20)
        yield listening


def port_of(avatar: socket.socket) -> int:
    return int(avatar.getsockname()[1])


def test_the_names_and_their_order_are_those_of_an_independent_decoder() -> None:
    decoder = pytest.importorskip("pylivelinkface", reason="PyLiveLinkFace is not installed")
    assert [shape.name for shape in decoder.FaceBlendShape] == [*ORDER, *ANGLES]


def test_packets_are_read_by_an_independent_decoder(avatar: socket.socket, ball_face: MakeFace) -> None:
    decoder = pytest.importorskip("pylivelinkface", reason="PyLiveLinkFace is not installed")
    large = a_face(ball_face, 3)
    small = replace(a_face(ball_face, 4, track=2), box=np.array([0, 0, 9, 9], np.float32))
    with open_sink(f"livelink://127.0.0.1:{port_of(avatar)}", blendshapes=BLENDSHAPES) as sink:
        sink.write(a_scene(0))  # no face
        sink.write(a_scene(7, small, large, time_s=2.5))
    data = avatar.recv(65536)
    found, packet = decoder.PyLiveLinkFace.decode(data)
    assert found
    assert (packet.name, packet.fps, packet._frames, len(packet.uuid)) == ("facerecon", 25, 62, 37)
    assert packet._sub_frame == pytest.approx(0.5)
    weights = arkit_blendshapes(large.expression, BLENDSHAPES)
    for name in ("EyeBlinkLeft", "JawOpen", "MouthSmileRight", "TongueOut", "BrowInnerUp"):
        expected = weights[name[0].lower() + name[1:]]
        assert packet.get_blendshape(decoder.FaceBlendShape[name]) == pytest.approx(expected, abs=1e-6)
    angles = [packet.get_blendshape(decoder.FaceBlendShape[f"Head{name}"]) for name in ("Pitch", "Yaw", "Roll")]
    np.testing.assert_allclose(np.degrees(angles), [10, 28, -5], atol=1e-3)


def test_a_video_is_sent_at_its_own_pace(
    avatar: socket.socket, ball_face: MakeFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("facerecon_rt.sinks.avatars.time.monotonic", lambda: 100.0 + sum(slept))
    monkeypatch.setattr("facerecon_rt.sinks.avatars.time.sleep", slept.append)
    with AvatarSink(f"livelink://127.0.0.1:{port_of(avatar)}", BLENDSHAPES) as sink:
        for index in range(3):
            sink.write(a_scene(index, a_face(ball_face), live=False))
        sink.write(a_scene(9, a_face(ball_face)))
    np.testing.assert_allclose(slept, [0.04, 0.04], atol=1e-9)


def test_time_stamps_that_jump_are_waited_for_a_moment_alone(
    avatar: socket.socket, ball_face: MakeFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("facerecon_rt.sinks.avatars.time.monotonic", lambda: 100.0 + sum(slept))
    monkeypatch.setattr("facerecon_rt.sinks.avatars.time.sleep", slept.append)
    with AvatarSink(f"livelink://127.0.0.1:{port_of(avatar)}", BLENDSHAPES) as sink:
        for index, time_s in enumerate((0.0, 95443.0, 95443.04, 0.0, 0.04)):
            sink.write(a_scene(index, a_face(ball_face), live=False, time_s=time_s))
    assert sum(slept) == pytest.approx(LONGEST_WAIT_S + 2 * 0.04)


def test_an_interrupted_run_waits_for_no_frame(avatar: socket.socket, ball_face: MakeFace) -> None:
    sink = AvatarSink(f"livelink://127.0.0.1:{port_of(avatar)}", BLENDSHAPES)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), ThreadedSink(sink, "livelink://") as threaded:
        for index in range(DEPTH):
            threaded.write(a_scene(index, a_face(ball_face), live=False, time_s=1.9 * index))
        raise KeyboardInterrupt
    assert time.monotonic() - began < 1.9
    assert [len(avatar.recv(65536)) > 0 for _ in range(DEPTH)] == [True] * DEPTH


def test_a_network_that_fails_is_said_once_and_used_again(
    avatar: socket.socket, ball_face: MakeFace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    # Linux refuses a broadcast from a socket that did not ask for it, as it refuses packets without a network.
    with AvatarSink(f"livelink://127.255.255.255:{port_of(avatar)}", BLENDSHAPES) as sink:
        for index in range(3):
            sink.write(a_scene(index, a_face(ball_face)))
        assert caplog.text.count("faces are dropped until the network is back") == 1
        sink._address = ("127.0.0.1", port_of(avatar))
        sink.write(a_scene(3, a_face(ball_face)))
    assert avatar.recv(65536)
    assert "is reached again" in caplog.text


def test_one_vmc_avatar_follows_one_camera(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--input", "cam0", "cam1", "--output", "vmc://127.0.0.1:39539"]) == 2
    assert "vmc://127.0.0.1:39539 is one avatar, but the inputs are or may become several" in capsys.readouterr().err


# VMC


def frames_of(avatar: socket.socket, count: int) -> list[list[Message]]:
    """Return the messages of each frame, up to and including its /VMC/Ext/OK."""
    osc_bundle = pytest.importorskip("pythonosc.osc_bundle", reason="the extra `osc` is not installed")
    frames: list[list[Message]] = [[]]
    while len(frames) <= count:
        packet = avatar.recv(65536)
        assert len(packet) <= 1400
        for message in osc_bundle.OscBundle(packet):
            frames[-1].append((message.address, message.params))
            if message.address == "/VMC/Ext/OK":
                frames.append([])
    return frames[:count]


@pytest.mark.parametrize("capitals", [False, True])
def test_each_frame_is_a_head_52_blendshapes_and_their_application(
    avatar: socket.socket, ball_face: MakeFace, capitals: bool
) -> None:
    pytest.importorskip("pythonosc", reason="the extra `osc` is not installed")
    face = a_face(ball_face)
    target = f"vmc://127.0.0.1:{port_of(avatar)}{'?capitals' if capitals else ''}"
    with open_sink(target, blendshapes=BLENDSHAPES) as sink:
        sink.write(a_scene(0))
        sink.write(a_scene(1, face))
    nobody, messages = frames_of(avatar, 2)
    assert nobody == [("/VMC/Ext/OK", [0])]
    (head, bone), *blends, applied, ok = messages
    assert (head, bone[0]) == ("/VMC/Ext/Bone/Pos", "Head")
    np.testing.assert_allclose(np.array(bone[1:], np.float64), [0, 0, 0, *unity_rotation(face)], atol=1e-6)
    assert (applied, ok) == (("/VMC/Ext/Blend/Apply", []), ("/VMC/Ext/OK", [1]))
    assert {address for address, _ in blends} == {"/VMC/Ext/Blend/Val"}
    weights = {str(name): weight for _, (name, weight) in blends}
    if capitals:
        assert "EyeBlinkLeft" in weights
        weights = {name[0].lower() + name[1:]: weight for name, weight in weights.items()}
    assert weights == pytest.approx(arkit_blendshapes(face.expression, BLENDSHAPES), abs=1e-6)
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
    ball_face: MakeFace, pitch: float, yaw: float, roll: float, axis: tuple[float, ...]
) -> None:
    camera = np.hstack([2 * rotation_from_euler(pitch, yaw, roll), [[9.0], [9.0], [0.0]]]).astype(np.float32)
    face = replace(ball_face(0, 0), frame_from_head=camera)
    half = np.radians(pitch + yaw + roll) / 2
    np.testing.assert_allclose(unity_rotation(face), [*(np.array(axis) * np.sin(half)), np.cos(half)], atol=1e-6)


# Addresses


@pytest.mark.parametrize("target", ["livelink://", "vmc://:39539", "vmc://host:port", "livelink://a:1?capitals"])
def test_an_address_that_is_none_is_said_on_one_line(target: str) -> None:
    with pytest.raises(UsageError, match="is not an address; give host and port, as in"):
        open_sink(target, blendshapes=BLENDSHAPES)


def test_a_run_sends_and_writes_at_the_same_time(avatar: socket.socket, tmp_path: Path) -> None:
    """An address is not checked as a folder or a file."""
    root = Path(__file__).parents[2]
    model, video = root / "models" / "face.onnx", root / "tests" / "data" / "talking_head.mp4"
    target = f"livelink://127.0.0.1:{port_of(avatar)}"
    command = ["--model", str(model), "--input", str(video), "--frames", "3", "--output", target, "--quiet"]
    assert main([*command, "--output", str(tmp_path / "take.csv")]) == 0
    packets = [avatar.recv(65536) for _ in range(3)]
    rows = (tmp_path / "take.csv").read_text().splitlines()[1:]
    for packet, row in zip(packets, rows, strict=True):
        sent = np.frombuffer(packet[-61 * 4 :], ">f4")
        np.testing.assert_allclose(sent, np.array(row.split(",")[2:], np.float64), atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["take.csv"]


def test_an_avatar_and_a_take_turn_alike_with_a_lens(ball_face: MakeFace) -> None:
    face = replace(ball_face(0, 0), camera_from_head=np.eye(4, dtype=np.float32))
    face.camera_from_head[:3, :3] = rotation_from_euler(0, 25.0, 0)  # type: ignore[index]
    w, x, y, z = head_pose(face, (640, 480))[0]
    np.testing.assert_allclose(unity_rotation(face), [x, -y, -z, w], atol=1e-6)
    assert 2 * np.degrees(np.arccos(w)) == pytest.approx(25.0, abs=1e-3)

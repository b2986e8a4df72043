"""A Unix socket: both example readers get whole records, a slow reader gets the newest record, and no reader delays
frames."""

from __future__ import annotations

import json
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from facerecon_rt.cli import main
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import UsageError
from facerecon_rt.sinks import local_socket
from facerecon_rt.sinks.files import open_sink
from facerecon_rt.types import Frame, Scene

from ..conftest import ROOT
from .conftest import MakeFace

EXAMPLES = ROOT / "runtime" / "examples"


def scene(ball_face: MakeFace, number: int) -> Scene:
    frame = Frame(np.zeros((8, 8, 3), np.uint8), "cam0", index=number, still=False, live=True)
    return Scene(frame, (ball_face(80, 60, yaw=10.0, track=1),))


@contextmanager
def written(path: Path, ball_face: MakeFace) -> Iterator[None]:
    """Write record after record to a socket until the block ends."""
    ending = threading.Event()

    def write() -> None:
        number = 0
        while not ending.wait(0.002):
            sink.write(scene(ball_face, number))
            number += 1

    with open_sink(f"unix://{path}", blendshapes=BLENDSHAPES) as sink:
        thread = threading.Thread(target=write)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()


def lines_of(command: list[str], count: int) -> list[str]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        lines = [reader.stdout.readline() for _ in range(count)]
        reader.kill()
    return lines


def test_the_readers_in_python_and_c_get_whole_records_in_order(tmp_path: Path, ball_face: MakeFace) -> None:
    path = tmp_path / "x.sock"
    with written(path, ball_face):
        lines = lines_of([sys.executable, str(EXAMPLES / "socket_reader.py"), str(path)], 20)
        frames = [int(line.split()[0]) for line in lines]
        assert frames == sorted(set(frames)) and all(line.split()[1] == "1" for line in lines)
        assert float(lines[0].split("[")[1].rstrip("]\n")) == pytest.approx(10.0, abs=0.1)
        if shutil.which("cc") is None:
            pytest.skip("no C compiler is installed: the reader in C was not run")
        reader = str(tmp_path / "reader")
        flags = ["-O2", "-Wall", "-Wextra", "-Werror"]
        subprocess.run(["cc", *flags, "-o", reader, str(EXAMPLES / "socket_reader.c")], check=True)
        records = [json.loads(line) for line in lines_of([reader, str(path)], 20)]
    frames = [record["frame"] for record in records]
    assert frames == sorted(set(frames)) and all(len(record["faces"]) == 1 for record in records)
    assert not path.exists()


def test_a_reader_that_sleeps_gets_the_newest_record_and_holds_up_nobody(tmp_path: Path, ball_face: MakeFace) -> None:
    path = tmp_path / "x.sock"
    with (
        open_sink(f"unix://{path}", blendshapes=BLENDSHAPES) as sink,
        socket.socket(socket.AF_UNIX) as asleep,
        socket.socket(socket.AF_UNIX) as awake,
    ):
        asleep.connect(str(path))
        awake.connect(str(path))
        stream = awake.makefile("rb")
        number = 2000
        for index in range(number):  # readers may be accepted after the first records
            sink.write(scene(ball_face, index))
        seen: list[int] = []
        late = asleep.makefile("rb")
        while not seen or seen[-1] < number - 1:
            seen.append(frame_of(late))
        assert len(seen) < 200, "of 2000 records, those in the kernel's buffer and the newest"
        assert seen == sorted(set(seen))
        while frame_of(stream) < number - 1:
            pass
        stream.close()
        late.close()


def frame_of(stream: object) -> int:
    (length,) = struct.unpack("<I", stream.read(4))  # type: ignore[attr-defined]
    return int(json.loads(stream.read(length))["frame"])  # type: ignore[attr-defined]


def test_a_socket_is_for_this_user_and_an_abandoned_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    with open_sink(f"unix://{path}", blendshapes=BLENDSHAPES):
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(UsageError, match="another program serves it"):
            open_sink(f"unix://{path}", blendshapes=BLENDSHAPES)
    path.write_text("mine")
    with pytest.raises(UsageError, match="is not a socket"):
        open_sink(f"unix://{path}", blendshapes=BLENDSHAPES)
    assert path.read_text() == "mine"


def test_the_last_record_is_delivered_before_the_socket_closes(tmp_path: Path, ball_face: MakeFace) -> None:
    path = tmp_path / "x.sock"
    with open_sink(f"unix://{path}", blendshapes=BLENDSHAPES) as sink, socket.socket(socket.AF_UNIX) as reader:
        reader.connect(str(path))
        stream, seen, number = reader.makefile("rb"), -1, 0
        reader.setblocking(False)
        while seen < 0:  # until the reader was accepted
            sink.write(scene(ball_face, number))
            number += 1
            seen = 0 if select.select([reader], [], [], 0.05)[0] else -1
        reader.setblocking(True)
        sink.write(scene(ball_face, number))
        sink.close()
        while frame_of(stream) < number:
            pass
        assert stream.read() == b""
        stream.close()


def test_readers_that_stop_or_leave_give_up_their_places(
    tmp_path: Path, ball_face: MakeFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("MOST_READERS", 1), ("LONGEST_STOP_S", 0.02), ("LOOK_S", 0.01)):
        monkeypatch.setattr(local_socket, name, value)
    path = tmp_path / "x.sock"
    with open_sink(f"unix://{path}", blendshapes=BLENDSHAPES) as sink, socket.socket(socket.AF_UNIX) as stopped:
        stopped.connect(str(path))
        while not has_place(path):  # the stopped reader's buffer must be full
            for number in range(100):
                sink.write(scene(ball_face, number))
        while not has_place(path):  # the other reader has left, and no record tells so
            pass


def test_a_reader_without_records_stays_and_holds_up_nobody() -> None:
    ours, reader = socket.socketpair(socket.AF_UNIX)
    with ours, reader:
        ours.settimeout(0.01)  # `recv` would wait so long and fail, also with MSG_DONTWAIT
        assert not local_socket._has_left(ours)
        reader.sendall(b"hello")
        reader.shutdown(socket.SHUT_WR)  # a reader that has nothing to say is still there
        assert not local_socket._has_left(ours)
        reader.close()
        assert local_socket._has_left(ours)


def has_place(path: Path) -> bool:
    """Return whether a reader that connects is served, and disconnect."""
    with socket.socket(socket.AF_UNIX) as reader:
        reader.connect(str(path))
        reader.settimeout(0.05)
        try:
            return bool(reader.recv(4))
        except ConnectionError:
            return False
        except TimeoutError:  # there is no new record
            return True


def test_a_set_has_no_socket(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given = ["--model", "m.onnx", "--input", "x.jpg", "--set", "--output", f"unix://{tmp_path}/x.sock"]
    assert main(given) == 2
    assert "leave out --set" in capsys.readouterr().err

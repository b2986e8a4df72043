"""The messages to a service manager over a real socket, and the unit file."""

from __future__ import annotations

import configparser
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from facerecon_rt.commands.options import build_parser
from facerecon_rt.sinks.systemd import ServiceNotifier
from facerecon_rt.types import Frame, Scene

from .conftest import PaintSpots
from .mjpeg import MjpegServer

UNIT = Path(__file__).parents[2] / "runtime" / "deploy" / "facerecon-rt.service"
SCENE = Scene(Frame(np.zeros((2, 2, 3), np.uint8), "cam0", still=False), ())


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def test_ready_alive_and_stopping_are_said(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "2")
    with ServiceNotifier() as service:
        assert manager.recv(200) == b"READY=1"
        for number in (1, 2):
            service.write(SCENE)
            assert manager.recv(200).decode() == f"WATCHDOG=1\nSTATUS={number} frames, 0 faces in the newest"
    assert manager.recv(200) == b"STOPPING=1"


def test_the_watchdog_is_not_fed_with_every_frame(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", str(60 * 10**6))
    with ServiceNotifier() as service:
        for _ in range(100):
            service.write(SCENE)
    assert [manager.recv(200).partition(b"\n")[0] for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]


def test_where_nobody_asks_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    address = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(address))
        listening.setblocking(False)
        monkeypatch.setenv("WATCHDOG_USEC", "2")
        with ServiceNotifier() as service:
            service.write(SCENE)
        with pytest.raises(BlockingIOError):
            listening.recv(200)
        monkeypatch.setenv("NOTIFY_SOCKET", str(address))
        with ServiceNotifier() as service:
            assert listening.recv(200) == b"READY=1"
            listening.close()
            address.unlink()
            service.write(SCENE)  # the run continues without the service manager


def test_a_real_service_is_ready_alive_and_stops_in_time_with_whole_files(
    manager: socket.socket, model: Path, spots: PaintSpots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "2")
    records = tmp_path / "records.jsonl"
    with MjpegServer([spots(256, 192, [(0.5, 0.5)])]) as camera:
        command = [sys.executable, "-m", "facerecon_rt.cli", "--model", str(model), "--input", camera.uri]
        with subprocess.Popen([*command, "--output", str(records)], stderr=subprocess.PIPE) as service:
            assert manager.recv(200) == b"READY=1"
            assert manager.recv(200).startswith(b"WATCHDOG=1")
            service.send_signal(signal.SIGTERM)
            drain = threading.Thread(target=lambda: list(iter(lambda: manager.recv(200), b"STOPPING=1")))
            drain.start()
            assert service.wait(5) == 130
            drain.join(20)
    assert records.read_text().endswith("}\n")


def test_the_unit_file_starts_a_command_that_there_is() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(UNIT.read_text().replace("\\\n", " "))
    assert unit["Service"]["Type"] == "notify"
    assert int(unit["Service"]["WatchdogSec"]) > 0
    program, *arguments = unit["Service"]["ExecStart"].split()
    assert Path(program).name == "facerecon-rt"
    build_parser().parse_args(arguments)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text().replace("/opt/facerecon-rt/bin/facerecon-rt", "/bin/true")
    (tmp_path / UNIT.name).write_text(text)
    said = subprocess.run(["systemd-analyze", "verify", str(tmp_path / UNIT.name)], capture_output=True, text=True)
    assert UNIT.name not in said.stderr, said.stderr

"""The page and what machines ask, over real sockets; and in a real browser where there is one."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import cv2
import numpy as np
import pytest
from facerecon_rt.cli import main
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import UsageError
from facerecon_rt.faces.pipeline import Pipeline
from facerecon_rt.faces.reconstruct import Reconstructor
from facerecon_rt.sources.live import LiveSource, SourceStatus
from facerecon_rt.template import load_template
from facerecon_rt.types import Frame, Scene

from .conftest import MakeFace, PaintSpots
from .mjpeg import MjpegServer

pytest.importorskip("starlette", reason="the extra `web` is not installed")
pytest.importorskip("uvicorn", reason="the extra `web` is not installed")
pytest.importorskip("prometheus_client", reason="the extra `web` is not installed")
from facerecon_rt.web import connections
from facerecon_rt.web import server as module
from facerecon_rt.web.server import WebServer, allowed_hosts
from facerecon_rt.web.state import MOST_SOURCES, State
from starlette.routing import Route

SPOT = [(0.5, 0.5)]


@pytest.fixture
def state() -> State:
    return State(BLENDSHAPES)


@pytest.fixture
def server(state: State) -> Iterator[WebServer]:
    with WebServer(state, "127.0.0.1:0") as running:
        yield running


@pytest.fixture
def scenes(model: Path, spots: PaintSpots) -> list[Scene]:
    """Three frames of one face."""
    with Reconstructor(model) as reconstructor:
        frames = [Frame(spots(256, 192, SPOT), "cam0", index, still=False) for index in range(3)]
        return list(Pipeline(reconstructor).run(frames))


def get(server: WebServer, path: str) -> tuple[int, bytes, dict[str, str]]:
    try:
        with urllib.request.urlopen(server.url.rstrip("/") + path, timeout=10) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), dict(error.headers)


def test_the_page_needs_nothing_from_elsewhere(server: WebServer) -> None:
    code, text, headers = get(server, "/")
    assert code == 200 and b"<title>facerecon-rt</title>" in text
    assert "default-src 'self'" in headers["content-security-policy"]
    for path in ("/app.js", "/style.css"):
        code, more, _ = get(server, path)
        assert code == 200
        text += more
    assert not re.search(rb"https?://", text)


def test_what_is_seen_is_told(server: WebServer, state: State, scenes: list[Scene]) -> None:
    assert json.loads(get(server, "/api/state")[1])["sources"] == []
    assert get(server, "/api/vertices/0")[0] == 204
    for scene in scenes:
        state.write(scene)
    (source,) = json.loads(get(server, "/api/state")[1])["sources"]
    assert (source["name"], source["frames"], len(source["record"]["faces"])) == ("cam0", 3, 1)
    assert source["stages_ms"]["infer"] > 0
    (face,) = source["record"]["faces"]
    gaze = scenes[-1].faces[0].gaze
    assert gaze is not None
    assert face["gaze"]["left"] == pytest.approx(gaze[0].tolist(), abs=1e-4) and face["gaze"]["euler_deg"]["yaw"] > 1
    vertices = np.frombuffer(get(server, "/api/vertices/0")[1], "<f4").reshape(-1, 3)
    np.testing.assert_array_equal(vertices, scenes[-1].faces[0].vertices)
    triangles = np.frombuffer(get(server, "/api/triangles")[1], "<u4").reshape(-1, 3)
    np.testing.assert_array_equal(triangles, load_template().triangles)


def test_every_photograph_is_a_new_picture(state: State, scenes: list[Scene]) -> None:
    versions = []
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        state.write(replace(scenes[0], frame=replace(scenes[0].frame, source=name, still=True)))
        found = state.scene(0)
        assert found is not None and found[0].frame.source == name
        versions.append(found[1])
    assert versions == [1, 2, 3]


def test_values_and_mesh_are_of_one_face(state: State, ball_face: MakeFace) -> None:
    far_out, inside = ball_face(-60, 40, scale=0.9), ball_face(60, 40, scale=0.7)
    frame = Frame(np.zeros((96, 128, 3), np.uint8), "cam0", still=False, live=True)
    state.write(Scene(frame, (far_out, inside)))
    (source,) = state.summary()["sources"]
    assert source["largest"] == 1 and state.largest_face(0) is inside
    state.write(Scene(frame, ()))
    assert state.summary()["sources"][0]["largest"] is None


def test_where_faces_are_covered_no_request_gets_another_style(state: State, scenes: list[Scene]) -> None:
    state.write(scenes[-1])
    with WebServer(state, "127.0.0.1:0", style="mask") as server:
        for style in ("shaded", "wireframe", "blur"):
            assert get(server, f"/live/0.mjpg?style={style}")[0] == 400
        with urllib.request.urlopen(f"{server.url}live/0.mjpg", timeout=10) as answer:
            while (line := answer.readline().strip()) != b"":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            picture = cv2.imdecode(np.frombuffer(answer.read(length), np.uint8), cv2.IMREAD_COLOR)
    x, y = (scenes[-1].faces[0].landmarks[30, :2]).astype(int)
    assert picture is not None and np.abs(picture[y, x].astype(int) - 96).max() < 8


def test_without_pictures_the_server_shows_none(state: State, scenes: list[Scene]) -> None:
    state.write(scenes[-1])
    with WebServer(state, "127.0.0.1:0", pictures=False) as server:
        assert get(server, "/live/0.mjpg")[0] == 403
        summary = json.loads(get(server, "/api/state")[1])
    assert summary["pictures"] is False and len(summary["sources"][0]["record"]["faces"]) == 1


def test_the_live_picture_is_drawn_over(server: WebServer, state: State, scenes: list[Scene]) -> None:
    state.write(scenes[-1])
    with urllib.request.urlopen(f"{server.url}live/0.mjpg?style=landmarks", timeout=10) as answer:
        assert answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=picture"
        while (line := answer.readline().strip()) != b"":
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        picture = cv2.imdecode(np.frombuffer(answer.read(length), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None and picture.shape == (192, 256, 3)
    assert np.abs(picture.astype(int) - scenes[-1].frame.image).max() > 60


def test_how_cameras_are_is_told_also_of_one_that_gives_nothing(scenes: list[Scene]) -> None:
    statuses = [SourceStatus("door", "open", 90, 7, 2, "door was lost"), SourceStatus("yard", "lost", 0, 0, 1, "gone")]
    state = State(BLENDSHAPES, lambda: statuses, lambda: {"out/": 12})
    with WebServer(state, "127.0.0.1:0") as server:
        door, yard = json.loads(get(server, "/api/state")[1])["inputs"]
        metrics = get(server, "/metrics")[1].decode()
    assert (door["name"], door["state"], door["frames"], door["skipped"], door["losses"]) == ("door", "open", 90, 7, 2)
    assert (yard["state"], yard["why"]) == ("lost", "gone")
    assert 'facerecon_source_open{source="door"} 1.0' in metrics
    assert 'facerecon_source_open{source="yard"} 0.0' in metrics
    assert 'facerecon_source_losses_total{source="door"} 2.0' in metrics
    assert 'facerecon_frames_skipped_total{source="door"} 7.0' in metrics
    assert 'facerecon_frames_left_out_total{output="out/"} 12.0' in metrics


def test_a_camera_that_was_taken_off_the_list_is_forgotten(scenes: list[Scene]) -> None:
    there = [SourceStatus(name, "open", 1, 0, 0, "") for name in ("door", "yard")]
    state = State(BLENDSHAPES, lambda: there)
    for status in there:
        state.write(replace(scenes[-1], frame=replace(scenes[-1].frame, source=status.name, live=True)))
    assert [one["name"] for one in state.summary()["sources"]] == ["door", "yard"]
    there.pop()
    assert [one["name"] for one in state.summary()["sources"]] == ["door"]
    assert "yard" not in state.metrics().decode()


def test_a_wide_picture_is_reduced(scenes: list[Scene]) -> None:
    wide = Scene(Frame(np.zeros((1080, 1920, 3), np.uint8), "cam0"), ())
    picture = cv2.imdecode(np.frombuffer(module.jpeg(wide, "landmarks"), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None and picture.shape == (540, 960, 3)


def test_live_pictures_are_few(
    server: WebServer, state: State, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    state.write(scenes[-1])
    opened = [urllib.request.urlopen(f"{server.url}live/0.mjpg", timeout=10) for _ in range(module.MOST_WATCHERS)]
    for answer in opened:
        answer.readline()
    assert get(server, "/live/0.mjpg")[0] == 503
    for answer in opened:
        answer.close()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/live/7.mjpg", 404),
        ("/live/x.mjpg", 404),
        ("/api/vertices/-1", 404),
        ("/../../etc/passwd", 404),
        ("/%2e%2e/%2e%2e/etc/passwd", 404),
        ("/page/index.html", 404),
        ("/static/../server.py", 404),
        ("/api/vertices/99999999999999999999", 204),
        (f"/live/{'9' * 5000}.mjpg", 404),
        (f"/api/vertices/{'9' * 5000}", 404),
        ("/live/%D9%A3.mjpg", 404),
    ],
)
def test_nothing_else_is_served(server: WebServer, path: str, code: int) -> None:
    connection = HTTPConnection(server.address, timeout=10)
    connection.request("GET", path)  # as it is: urllib would tidy it
    answer = connection.getresponse()
    assert answer.status == code
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert b"root:" not in answer.read()
    connection.close()


def test_only_questions_are_answered_and_only_for_this_host(
    server: WebServer, state: State, scenes: list[Scene]
) -> None:
    state.write(scenes[-1])
    connection = HTTPConnection(server.address, timeout=10)
    for method, path, headers, code in (
        ("POST", "/api/state", {}, 405),
        ("DELETE", "/", {}, 405),
        ("GET", "/api/state", {"Host": "evil.example"}, 400),
        ("GET", "/live/0.mjpg?style=oil", {}, 400),
        ("GET", "/api/state", {"Host": "localhost"}, 200),
    ):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        assert (answer.status, method, path) == (code, method, path)
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        answer.read()
    connection.close()
    assert allowed_hosts("0.0.0.0") == ["*"]
    assert "*" not in allowed_hosts("::1")


def test_an_address_of_ipv6_is_served_and_for_its_own_names_alone(state: State) -> None:
    try:
        server = WebServer(state, "[::1]:0")
    except UsageError as error:
        pytest.skip(str(error))
    with server:
        assert re.fullmatch(r"http://\[::1\]:\d+/", server.url)
        assert get(server, "/")[0] == 200
        connection = HTTPConnection(server.address, timeout=10)
        for host, code in (("[::1]", 200), ("[::1]:80", 200), ("localhost:1", 200), ("[::2]", 400), ("evil", 400)):
            connection.request("GET", "/healthz", headers={"Host": host})
            answer = connection.getresponse()
            assert (answer.read() != b"", answer.status) == (True, code)
        connection.close()


def test_every_path_is_named_in_the_page_about_it(state: State) -> None:
    """It says that nothing else is served."""
    readme = (Path(__file__).parents[2] / "runtime" / "docs" / "live.md").read_text()
    application = module.application(state, threading.Event(), ["*"])
    for route in application.app.routes:
        assert isinstance(route, Route) and f"`{route.path.replace('{source:place}', 'N')}`" in readme, route


def test_asking_for_the_head_of_a_live_picture_takes_none(server: WebServer, state: State, scenes: list[Scene]) -> None:
    state.write(scenes[-1])
    connection = HTTPConnection(server.address, timeout=10)
    for _ in range(module.MOST_WATCHERS + 1):
        connection.request("HEAD", "/live/0.mjpg")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        assert answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=picture"
    connection.close()
    with urllib.request.urlopen(f"{server.url}live/0.mjpg", timeout=10) as answer:
        assert answer.readline() == b"--picture\r\n"


# Clients that are slow on purpose


def connected(server: WebServer, *, buffer: int | None = None) -> socket.socket:
    client = socket.socket()
    if buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client.settimeout(60)
    host, _, port = server.address.rpartition(":")
    client.connect((host, int(port)))
    return client


def is_ended(client: socket.socket) -> bool:
    """After whatever was still to be read."""
    try:
        while client.recv(2**16):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000,
        b"\x16\x03\x01\x02\x00\x01",
    ],
    ids=["nothing", "half a head", "half a body", "a long head", "no HTTP"],
)
def test_whoever_does_not_ask_in_time_is_let_go(
    said: bytes, server: WebServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.5)
    with connected(server) as client:
        client.sendall(said)
        assert is_ended(client)
    assert capfd.readouterr().err == ""


def test_a_request_that_drips_is_let_go(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.5)
    ended = threading.Event()
    with connected(server) as client:

        def drip() -> None:
            with suppress(OSError):
                client.sendall(b"GET / HTTP/1.1\r\nX: ")
                while not ended.wait(0.05):
                    client.sendall(b"a")

        dripping = threading.Thread(target=drip)
        dripping.start()
        assert is_ended(client)
        ended.set()
        dripping.join()


def test_hundreds_of_slow_clients_keep_nobody_out(server: WebServer) -> None:
    slow: list[socket.socket] = []
    while len(slow) < 500:
        # Few at a time: the system drops what comes while the queue is full, and the client asks again after a second.
        for _ in range(connections.BACKLOG // 2):
            slow.append(connected(server))
            slow[-1].sendall(b"GET / HTTP/1.1\r\n")
        assert get(server, "/")[0] == 200
    there = server._server.server_state.connections
    assert len(there) <= connections.MOST_CONNECTIONS + connections.BACKLOG
    for client in slow:
        client.close()


def test_clients_leave_files_to_cameras_and_lines_to_the_log() -> None:
    """With the 256 files that some systems allow."""
    program = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
        "from facerecon_rt.contract import BLENDSHAPES\n"
        "from facerecon_rt.web.server import WebServer\n"
        "from facerecon_rt.web.state import State\n"
        "with WebServer(State(BLENDSHAPES), '127.0.0.1:0') as server:\n"
        "    print(server.address, flush=True)\n"
        "    sys.stdin.readline()\n"
        "    files = [open('/dev/null') for _ in range(100)]\n"
        "    [file.close() for file in files]\n"
        "    print('opened', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, stderr=-1, text=True) as running:
        assert running.stdin is not None and running.stdout is not None and running.stderr is not None
        address = running.stdout.readline().strip()
        idle: list[socket.socket] = []
        while len(idle) < 400:
            for _ in range(connections.BACKLOG // 2):
                idle.append(socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 60))
            with urllib.request.urlopen(f"http://{address}/", timeout=60) as answer:
                assert answer.status == 200
        running.stdin.write("\n")
        running.stdin.flush()
        assert running.stdout.readline() == "opened\n"
        for client in idle:
            client.close()
        running.stdin.close()
        assert running.stderr.read() == ""


def test_whoever_does_not_look_at_a_live_picture_keeps_nobody_else_from_it(
    server: WebServer, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although nothing new is to be seen."""
    monkeypatch.setattr(connections, "SEND_S", 0.5)
    for name, value in (("AGAIN_S", 0.0), ("LIVE_FPS", 100.0)):
        monkeypatch.setattr(module, name, value)
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    state.write(Scene(Frame(noise, "cam0", still=False), ()))
    blind = [connected(server, buffer=4096) for _ in range(module.MOST_WATCHERS)]
    for client in blind:
        client.sendall(b"GET /live/0.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"
    end = time.monotonic() + 60
    while get_one_line(server, "/live/0.mjpg") != b"--picture\r\n":
        assert time.monotonic() < end, "they are still there"
        time.sleep(0.05)
    assert all(is_ended(client) for client in blind)
    for client in blind:
        client.close()


def get_one_line(server: WebServer, path: str) -> bytes:
    try:
        with urllib.request.urlopen(server.url.rstrip("/") + path, timeout=10) as answer:
            return bytes(answer.readline())
    except urllib.error.HTTPError as error:
        with error:
            return error.read()


def test_a_live_picture_that_nobody_waited_for_is_free_again(
    server: WebServer, state: State, scenes: list[Scene]
) -> None:
    state.write(scenes[-1])
    for _ in range(5 * module.MOST_WATCHERS):
        with connected(server) as client:
            client.sendall(b"GET /live/0.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
    end = time.monotonic() + 60
    while get_one_line(server, "/live/0.mjpg") != b"--picture\r\n":
        assert time.monotonic() < end, "they are still there"
        time.sleep(0.05)


def test_health_is_frames_that_come(
    server: WebServer, state: State, scenes: list[Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    state.write(scenes[-1])
    assert get(server, "/healthz")[0] == 200
    monkeypatch.setattr(module, "SILENT_S", 0.0)
    code, text, _ = get(server, "/healthz")
    assert (code, json.loads(text)["healthy"]) == (503, False)


def test_metrics_are_prometheus_and_hold_no_password(server: WebServer, state: State, scenes: list[Scene]) -> None:
    for scene in scenes:
        frame = Frame(scene.frame.image, "rtsp://anna:secret@host/door", scene.frame.index, still=False)
        state.write(Scene(frame, scene.faces, scene.stages_ms))
    text = get(server, "/metrics")[1].decode()
    assert 'facerecon_frames_total{source="rtsp://host/door"} 3.0' in text
    assert 'facerecon_faces_seen_total{source="rtsp://host/door"} 3.0' in text
    assert 'facerecon_stage_seconds_count{stage="infer"} 3.0' in text
    assert "secret" not in text + get(server, "/api/state")[1].decode()


def test_a_time_counts_in_its_bucket_and_in_all_above(state: State, scenes: list[Scene]) -> None:
    for milliseconds in (0.5, 3.0, 3.5, 2000.0):
        state.write(replace(scenes[0], stages_ms={"infer": milliseconds}))
    text = state.metrics().decode()
    for bound, count in (("0.0005", 1), ("0.002", 1), ("0.004", 3), ("1.0", 3), ("+Inf", 4)):
        assert f'facerecon_stage_seconds_bucket{{le="{bound}",stage="infer"}} {count}.0' in text
    assert 'facerecon_stage_seconds_sum{stage="infer"} 2.007' in text


def test_a_name_that_is_not_utf_8_is_escaped(scenes: list[Scene]) -> None:
    video, camera = os.fsdecode(b"vid\xe9o.mp4"), os.fsdecode(b"http://host/\xff")
    status = SourceStatus(camera, "lost", 0, 0, 1, f"cannot open {camera}")
    state = State(BLENDSHAPES, lambda: [status], lambda: {os.fsdecode(b"\xff.jsonl"): 3})
    with WebServer(state, "127.0.0.1:0") as server:
        state.write(Scene(replace(scenes[0].frame, source=video), scenes[0].faces))
        code, said, _ = get(server, "/api/state")
        assert code == 200
        summary = json.loads(said)
        assert [one["name"] for one in summary["sources"]] == [r"vid\xe9o.mp4"]
        assert summary["sources"][0]["record"]["source"] == r"vid\xe9o.mp4"
        assert summary["inputs"][0]["name"] == r"http://host/\xff"
        code, said, _ = get(server, "/metrics")
        assert code == 200
        # Prometheus escapes the backslash once more.
        assert rb'facerecon_frames_total{source="vid\\xe9o.mp4"} 1.0' in said
        assert rb'facerecon_source_losses_total{source="http://host/\\xff"} 1.0' in said
        assert rb'facerecon_frames_left_out_total{output="\\xff.jsonl"} 3.0' in said


def test_of_photographs_only_the_newest_is_held(state: State, scenes: list[Scene]) -> None:
    state.write(scenes[0])
    for number in range(5):
        state.write(Scene(Frame(scenes[0].frame.image, f"{number}.jpg"), ()))
    assert [source["name"] for source in state.summary()["sources"]] == ["4.jpg", "cam0"]


def test_a_camera_that_is_silent_is_seen_to_be(server: WebServer, state: State, scenes: list[Scene]) -> None:
    state.write(scenes[0])
    silent = [re.search(rb'facerecon_silent_seconds\{source="cam0"\} (\S+)', get(server, "/metrics")[1]) for _ in "ab"]
    assert silent[0] and silent[1] and float(silent[1][1]) > float(silent[0][1]) > 0


def test_sources_that_come_and_go_are_not_all_kept(state: State, scenes: list[Scene]) -> None:
    for number in range(MOST_SOURCES + 5):
        state.write(Scene(Frame(scenes[0].frame.image, f"{number}.mp4", still=False), ()))
    names = [source["name"] for source in state.summary()["sources"]]
    assert len(names) == MOST_SOURCES
    assert "0.mp4" not in names and f"{MOST_SOURCES + 4}.mp4" in names


@pytest.mark.parametrize("address", ["8080", "127.0.0.1", "127.0.0.1:x", ":8080", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_refused(state: State, address: str) -> None:
    with pytest.raises(UsageError, match=r"give host and port \(0 to 65535\), as in 127\.0\.0\.1:8080"):
        WebServer(state, address)


def test_a_port_in_use_is_said(server: WebServer, state: State) -> None:
    with pytest.raises(UsageError, match=r"cannot serve 127\.0\.0\.1:\d+: .*; choose another port"):
        WebServer(state, server.address)


def test_closing_lets_the_port_go(state: State) -> None:
    with WebServer(state, "127.0.0.1:0") as running:
        port = int(running.address.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        """It is free again."""


def test_the_command_serves_and_writes_nothing(
    model: Path, spots: PaintSpots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with MjpegServer([spots(256, 192, SPOT)]) as camera:
        common = ["--model", str(model), "--input", camera.uri, "--serve", "127.0.0.1:0"]
        assert main([*common, "--frames", "5"]) == 0
        assert main([*common, "--set"]) == 2
    assert not list(tmp_path.iterdir())
    assert re.search(r"http://127\.0\.0\.1:\d+/", capsys.readouterr().err)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no Chromium here")
def test_a_browser_shows_it(model: Path, spots: PaintSpots, server: WebServer, state: State, tmp_path: Path) -> None:
    with (
        MjpegServer([spots(256, 192, SPOT)]) as camera,
        Reconstructor(model) as reconstructor,
        LiveSource(camera.uri) as source,
    ):
        seen = threading.Thread(target=lambda: deque(map(state.write, Pipeline(reconstructor).run(iter(source))), 0))
        seen.start()
        shot = tmp_path / "page.png"
        browser = ["chromium", "--headless", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser += ["--virtual-time-budget=4000", "--timeout=15000", "--window-size=1200,900"]
        browser += [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}", server.url]
        subprocess.run(browser, capture_output=True, timeout=100, check=True)
        source.close()
        seen.join(20)
    page = cv2.imread(str(shot))
    assert page is not None
    live, mesh = page[100:500, 100:600], page[60:450, 780:1150]
    assert live.std() > 10  # the picture, not a blank
    assert mesh.std() > 20  # light grey on dark


def test_the_dashboard_asks_for_metrics_that_there_are(scenes: list[Scene]) -> None:
    state = State(BLENDSHAPES, lambda: [SourceStatus("cam0", "open", 3, 0, 0, "")])
    state.write(scenes[-1])
    with WebServer(state, "127.0.0.1:0") as server:
        told = get(server, "/metrics")[1].decode()
    dashboard = json.loads((Path(__file__).parents[2] / "runtime/deploy/grafana-dashboard.json").read_text())
    wanted = [
        name
        for panel in dashboard["panels"]
        for one in panel["targets"]
        for name in re.findall(r"facerecon_\w+", one["expr"])
    ]
    assert len(wanted) == len(dashboard["panels"])
    for name in wanted:
        assert f"\n{name}" in told, name

"""Archives on Ray: several nodes, processes and a node that die, a program that is killed, and its resumption."""

from __future__ import annotations

import logging
import os
import runpy
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from facerecon_rt.archive.part import PartReconstructor
from facerecon_rt.archive.plan import inputs_of, list_inputs, open_plan
from facerecon_rt.archive.recipe import Recipe, Workers
from facerecon_rt.archive.run import archive, pool_size, sigterm_kept
from facerecon_rt.cli import main
from facerecon_rt.errors import UsageError

from .conftest import PaintSpots

ray = pytest.importorskip("ray", reason="pip install 'facerecon-rt[ray]' for archives")
PATIENCE_S = 400.0
"""Until a run that hangs fails; nothing is measured."""
STORE_BYTES = 80 * 10**6
pytestmark = [
    # Ray Data warns of its own defaults.
    pytest.mark.filterwarnings(r"ignore:`use_\w+` is deprecated:DeprecationWarning"),
]


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Wait for a condition. Fails the test after `PATIENCE_S` seconds."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.2)


@pytest.fixture
def photographs(spots: PaintSpots, tmp_path: Path) -> Path:
    """Two people with four photographs each, one of them damaged."""
    folder = tmp_path / "photographs"
    for person in ("anna", "bert"):
        (folder / person).mkdir(parents=True)
        for number in range(4):
            at = (0.3 + 0.1 * number, 0.5)
            cv2.imwrite(str(folder / person / f"{number}.png"), spots(256, 192, [at]))
    (folder / "bert" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray cluster of a head without processors and two nodes with one processor each, which this process has
    joined."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray's workers else starve beside the tests of other processes.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray spells it so
    head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            nodes.add_node(num_cpus=1, object_store_memory=STORE_BYTES, wait=False)
        nodes.wait_for_nodes()
        with sigterm_kept():
            ray.init(nodes.address, logging_level=logging.ERROR, log_to_driver=False)
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "stages_ms"}


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return [without_times(row) for row in pq.read_table(folder).to_pylist()]


def rows_of_one_process(model: Path, folder: Path) -> list[dict[str, Any]]:
    """Return the rows of the plan in `folder`, computed without Ray."""
    schema = pq.read_schema(folder / "part-000000.parquet")
    rows = []
    with PartReconstructor(Recipe((str(model),)), Workers(provider="cpu")) as part:
        for number in range(len(list(folder.glob("part-*.parquet")))):
            rows += part.rows(inputs_of(folder, number)).inputs
    return [without_times(row) for row in pa.Table.from_pylist(rows, schema=schema).to_pylist()]


def parts_in(folder: Path) -> dict[str, int]:
    """Return the modification time of each existing part, by name."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}


def has_a_part_or_ended(process: subprocess.Popen[bytes], folder: Path) -> bool:
    return process.poll() is not None or len(parts_in(folder)) == 1


class Held(BaseHTTPRequestHandler):
    """A server that answers with a photograph, once `answer` is set."""

    photograph: bytes
    answer: Event
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        self.answer.wait()
        with suppress(OSError):  # the reader may be gone
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.photograph)))
            self.end_headers()
            self.wfile.write(self.photograph)

    def log_message(self, *args: object) -> None:
        pass


def readers(port: int) -> list[int]:
    """Return the other processes with a connection to a port of this machine."""
    connected = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].partition(":")[2], 16) == port and fields[3] == "01":
            connected.add(f"socket:[{fields[9]}]")
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):  # processes end
            if str(link.readlink()) in connected:
                found.add(int(link.parts[2]))
    return sorted(found - {os.getpid()})


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_rows_are_those_of_one_process_though_an_actor_dies_and_a_node_goes(
    cluster: Any, model: Path, photographs: Path, spots: PaintSpots, tmp_path: Path
) -> None:
    # The actor that reads this photograph waits for the server, and is killed.
    ok, encoded = cv2.imencode(".png", spots(256, 192, [(0.5, 0.5)]))
    assert ok
    answer, out = Event(), tmp_path / "out"
    handler = type("HeldHere", (Held,), {"photograph": encoded.tobytes(), "answer": answer})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_port
        recipe = Recipe((str(model),))
        plan = open_plan(out, list_inputs([str(photographs), f"http://127.0.0.1:{port}/9.png"]), 2, recipe)
        running = ThreadPoolExecutor(1).submit(archive, plan, recipe, Workers(provider="cpu"), quiet=True)
        try:
            wait_until(lambda: running.done() or len(readers(port)) == 1, "an actor at the server")
            assert not running.done(), running.exception()
            (first,) = readers(port)
            os.kill(first, signal.SIGKILL)
            wait_until(lambda: readers(port) not in ([], [first]), "another actor at the server")
            (second,) = readers(port)
            (node,) = [
                one for one in cluster.worker_nodes if one.all_processes["raylet"][0].process.pid == parent(second)
            ]
            answer.set()
            cluster.remove_node(node, allow_graceful=False)
            counts = running.result(PATIENCE_S)
        finally:
            answer.set()
        rows = rows_in(out)
        assert (counts.inputs, counts.errors) == (9, 1)
        assert [row["input"] for row in rows] == list(range(9))
        assert [row["source"] for row in rows if row["error"] is not None] == [str(photographs / "bert" / "2.png")]
        assert [len(row["faces"]) for row in rows if row["source"].startswith("http")] == [1]
        assert rows == rows_of_one_process(model, out)
        server.shutdown()


def test_a_run_that_was_killed_is_gone_on_with(
    cluster: Any, model: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    late, out = photographs / "bert" / "3.png", tmp_path / "out"
    picture = late.read_bytes()
    late.unlink()
    os.mkfifo(late)
    arguments = [
        "archive", "--model", str(model), "--input", str(photographs), "--output", str(out), "--part-size", "2",
        "--group-by", "([^/]+)/[^/]+$", "--provider", "cpu",
    ]  # fmt: skip
    command = [sys.executable, "-m", "facerecon_rt.cli", *arguments, "--quiet"]
    for _ in range(3):  # Ray may not start on a busy machine, as it says
        killed = subprocess.Popen(command, start_new_session=True)
        try:
            wait_until(partial(has_a_part_or_ended, killed, out), "the first part")
        finally:
            killed.kill()
            killed.wait()
        if parts_in(out):
            break
    before = parts_in(out)
    late.unlink()
    late.write_bytes(picture)
    assert main(arguments) == 0
    err = capsys.readouterr().err
    assert "1 of 2 parts exist already" in err
    assert "inputs: 8, errors: 1, faces: 7, persons: 2" in err
    after = parts_in(out)
    assert len(after) == 2 and before.items() <= after.items()
    assert [row["input"] for row in rows_in(out)] == list(range(8))
    assert main(arguments) == 0
    assert parts_in(out) == after
    assert_sets_have_these_shapes(model, photographs, out, tmp_path)


def assert_sets_have_these_shapes(model: Path, photographs: Path, out: Path, tmp_path: Path) -> None:
    """Compare the shapes of persons with those of `facerecon-rt --set`."""
    for person in pq.read_table(out / "_persons").to_pylist():
        mesh = tmp_path / "set.obj"
        given = ["--model", str(model), "--set", "--input", str(photographs / person["person"]), "--output", str(mesh)]
        assert main([*given, "--quiet"]) in (0, 5)  # 5 for the folder with the damaged photograph
        vertices = [line.split()[1:4] for line in mesh.read_text().splitlines() if line.startswith("v ")]
        # Meshes have four decimals; half precision has steps of a sixteenth millimetre at 100 mm.
        assert np.reshape(person["shape"], (-1, 3)) == pytest.approx(np.array(vertices, float), abs=0.0313)


def test_a_model_that_is_refused_elsewhere_is_one_line_here(
    cluster: Any, model: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(model), "--input", str(photographs), "--output", str(tmp_path / "out")]
    assert main(["archive", *arguments, "--quiet", "--provider", "cuda"]) == 4
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "takes"),
    [(["--threads", "64"], "64 processors and 0 GPUs"), (["--actor-gpus", "1"], "1 processors and 1 GPUs")],
)
def test_an_actor_for_which_there_will_be_no_room_is_refused(
    given: list[str],
    takes: str,
    cluster: Any,
    model: Path,
    photographs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--model", str(model), "--input", str(photographs), "--output", str(tmp_path / "out"), *given]
    assert main(["archive", *arguments, "--quiet"]) == 2
    assert f"an actor takes {takes}, and this machine has 1 and 0; lower" in capsys.readouterr().err


def test_a_pool_has_room_on_its_nodes_unless_more_may_join(caplog: pytest.LogCaptureFixture) -> None:
    nodes = [{"memory": 1.0}, {"CPU": 3.0}, {"CPU": 2.0, "GPU": 1.0}]
    assert pool_size(Workers(), nodes, 9, may_grow=False) == (1, 5)
    assert pool_size(Workers(), nodes, 3, may_grow=False) == (1, 3)
    assert pool_size(Workers(cpus=0.1), nodes[1:2], 99, may_grow=False) == (1, 30)
    assert pool_size(Workers(gpus=0.25), nodes, 9, may_grow=False) == (1, 2)
    assert pool_size(Workers(gpus=0.25, cpus=0.5), nodes, 9, may_grow=False) == (1, 4)
    assert pool_size(Workers(least=7, most=8), nodes, 9, may_grow=True) == (7, 8)
    assert pool_size(Workers(least=7, most=8), nodes, 9, may_grow=False) == (5, 5)
    assert caplog.messages == ["there is room for 5 of 8 actors"]
    assert pool_size(Workers(cpus=4), nodes, 9, may_grow=True) == (1, 1)
    assert "waiting for a larger node to join the cluster" in caplog.messages[-1]
    with pytest.raises(UsageError, match="lower --actor-cpus"):
        pool_size(Workers(cpus=4), nodes, 9, may_grow=False)


def test_a_ray_that_starts_too_slowly_is_one_line(
    model: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test cannot make the machine busy, so it raises Ray's own exception."""

    def init(*args: object, **options: object) -> None:
        raise Exception("The current node timed out during startup.")  # as ray does

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    arguments = ["--model", str(model), "--input", str(photographs), "--output", str(tmp_path / "out")]
    assert main(["archive", *arguments, "--quiet"]) == 1
    said = capsys.readouterr().err
    assert "Ray does not start: The current node timed out during startup. Run the command again" in said
    assert said.count("\n") == 1


def test_the_handler_of_sigterm_stays_whatever_ray_sets() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="no start"), sigterm_kept():
        signal.signal(signal.SIGTERM, lambda *_: None)
        raise ValueError("no start")
    assert signal.getsignal(signal.SIGTERM) is before
    # Another thread may not set handlers.
    failures: list[BaseException] = []

    def in_thread() -> None:
        try:
            with sigterm_kept():
                pass
        except ValueError as error:
            failures.append(error)

    thread = Thread(target=in_thread)
    thread.start()
    thread.join()
    assert not failures


class _ForBob(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.headers["Authorization"] == f"Basic {b64encode(b'bob:p4ss').decode()}":
            super().do_GET()
        else:
            self.send_error(401)

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


def test_passwords_reach_those_who_read_and_no_file(
    cluster: Any, model: Path, photographs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("STORE_PASSWORD", "p4ss")
    out = tmp_path / "out"
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_ForBob, directory=str(photographs))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        names = [f"http://bob:${{STORE_PASSWORD}}@127.0.0.1:{server.server_port}/anna/{name}.png" for name in "0x"]
        arguments = ["archive", "--model", str(model), "--input", *names, "--output", str(out), "--part-size", "1"]
        code = main([*arguments, "--provider", "cpu"])
        server.shutdown()
        thread.join()
    assert code == 0 and "p4ss" not in "".join(capfd.readouterr())
    first, second = rows_in(out)
    assert first["source"] == f"http://127.0.0.1:{server.server_port}/anna/0.png" and len(first["faces"]) == 1
    assert "File not found" in second["error"]
    assert not any(b"p4ss" in path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert not (out / "_lock").exists()


def test_the_example_asks_an_archive_who_smiles(
    cluster: Any, model: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = Path(__file__).parents[2] / "runtime" / "examples" / "archive_to_parquet.py"
    runpy.run_path(str(example))["main"]([str(model), str(photographs), str(tmp_path / "out")])
    out = capsys.readouterr().out
    assert out.startswith("8 photographs, 7 faces, 1 errors\n")
    assert "turned by more than 30 degrees: 0" in out
    assert "2.png is a PNG that is damaged or cut short" in out

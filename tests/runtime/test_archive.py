"""Archives without Ray: the plan, the rows, errors of inputs, and averages of sets."""

from __future__ import annotations

import errno
import logging
import os
import platform
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from facerecon_rt.archive import part as part_module
from facerecon_rt.archive.cli import archive_parser
from facerecon_rt.archive.lock import only_writer
from facerecon_rt.archive.operators import counts_of
from facerecon_rt.archive.part import PartReconstructor, PartRows, read_ahead
from facerecon_rt.archive.plan import Plan, inputs_of, list_inputs, open_plan, part_path, with_parts, write_part
from facerecon_rt.archive.recipe import Recipe, Workers
from facerecon_rt.archive.rows import Input, input_schema, person_schema
from facerecon_rt.cli import main
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import FaceReconError, ModelRefused, SourceError, UsageError
from facerecon_rt.faces.pipeline import Pipeline
from facerecon_rt.faces.reconstruct import Reconstructor
from facerecon_rt.providers.nvidia import GpuOptions
from facerecon_rt.quiet import quiet_opencv
from facerecon_rt.sinks.record import record_from_scene
from facerecon_rt.sources.files import open_source, read_image
from facerecon_rt.template import load_template

from tests.conftest import MakeTinyModel

from .conftest import PaintSpots

CPU = Workers(provider="cpu")


@pytest.fixture
def people(spots: PaintSpots, tmp_path: Path) -> Path:
    """A folder per person: anna has three photographs, bert has two and a damaged one, and cleo has no photograph with
    a face."""
    folder = tmp_path / "people"
    for person in ("anna", "bert", "cleo"):
        (folder / person).mkdir(parents=True)
    for person, name, at in [
        ("anna", "1.png", [(0.5, 0.5)]), ("anna", "2.png", [(0.3, 0.4)]), ("anna", "10.png", [(0.6, 0.6), (0.2, 0.2)]),
        ("bert", "1.png", [(0.4, 0.5)]), ("bert", "2.png", [(0.5, 0.3)]), ("cleo", "1.png", []),
    ]:  # fmt: skip
        cv2.imwrite(str(folder / person / name), spots(256, 192, at))
    (folder / "bert" / "3.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    return folder


@pytest.fixture
def clip(spots: PaintSpots, tmp_path: Path) -> Path:
    """A video of one face that moves, twelve frames."""
    path = tmp_path / "clip.avi"
    with quiet_opencv():  # FFmpeg's log level is read once
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (256, 192))
    for step in range(12):
        writer.write(spots(256, 192, [(0.4 + step / 100, 0.5)]))
    writer.release()
    return path


def rows_of(model: Path, inputs: Sequence[Input], **options: Any) -> PartRows:
    with PartReconstructor(Recipe((str(model),), **options), CPU) as part:
        return part.rows(inputs)


def numbered(paths: Sequence[Path | str], person: str | None = None) -> list[Input]:
    return [Input(number, str(path), person) for number, path in enumerate(paths)]


def test_folders_are_listed_with_those_in_them_in_natural_order(people: Path) -> None:
    found = [Path(uri).relative_to(people) for uri in list_inputs([str(people)])["uri"].to_pylist()]
    assert [str(path) for path in found] == [
        "anna/1.png", "anna/2.png", "anna/10.png", "bert/1.png", "bert/2.png", "bert/3.jpg", "cleo/1.png",
    ]  # fmt: skip


def test_globs_files_addresses_and_parquets_of_uris_are_inputs(people: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": ["s3://bucket/a.jpg", "b.jpg"], "other": [1, 2]}), tmp_path / "uris.parquet")
    names = [
        str(people / "anna/*.png"),
        str(people / "bert/1.png"),
        "http://host/x.jpg",
        str(tmp_path / "uris.parquet"),
    ]
    uris = list_inputs(names)["uri"].to_pylist()
    assert [Path(uri).name for uri in uris] == ["1.png", "2.png", "10.png", "1.png", "x.jpg", "a.jpg", "b.jpg"]
    assert all(Path(uri).is_absolute() for uri in uris[:4])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (pa.table({"url": ["a"]}), "no column uri"),
        (pa.table({"uri": ["a", None]}), "1 rows have no uri"),
        (pa.table({"uri": pa.array([], pa.string())}), "names no input"),
    ],
)
def test_a_parquet_that_names_no_inputs_is_refused(table: pa.Table, said: str, tmp_path: Path) -> None:
    pq.write_table(table, tmp_path / "uris.parquet")
    with pytest.raises(FaceReconError, match=said):
        list_inputs([str(tmp_path / "uris.parquet")])


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "uris.parquet").write_text("a.jpg\nb.jpg\n")
    with pytest.raises(SourceError, match="as Parquet"):
        list_inputs([str(tmp_path / "uris.parquet")])


@pytest.mark.parametrize(
    ("pattern", "said"), [("[", "not a regular expression"), ("anna", "has no group"), ("(anna)/", "does not match")]
)
def test_a_pattern_that_names_no_person_is_refused(pattern: str, said: str, people: Path) -> None:
    with pytest.raises(UsageError, match=said):
        list_inputs([str(people)], pattern)


def test_parts_have_a_fixed_size() -> None:
    table = with_parts(pa.table({"uri": list("abcdefg")}), 3)
    assert table["part"].to_pylist() == [0, 0, 0, 1, 1, 1, 2]
    assert table["input"].to_pylist() == list(range(7))


def test_a_person_is_never_in_two_parts() -> None:
    table = with_parts(pa.table({"uri": list("abcdefg"), "person": list("xyxyyzx")}), 2)
    assert table["person"].to_pylist() == list("xxxyyyz")
    assert table["uri"].to_pylist() == list("acgbdef")
    assert table["part"].to_pylist() == [0, 0, 0, 1, 1, 1, 2]


def begun(model: Path, folder: Path, uris: Sequence[str], part_size: int = 2, **options: Any) -> Plan:
    return open_plan(folder, pa.table({"uri": list(uris)}), part_size, Recipe((str(model),), **options))


def test_only_parts_that_are_whole_are_done(model: Path, tmp_path: Path) -> None:
    plan = begun(model, tmp_path / "out", "abcdefg")
    schema = input_schema(BLENDSHAPES, 4032)
    for part in range(4):
        rows = [{"input": one.number, "source": one.uri, "error": "x"} for one in inputs_of(plan.folder, part)]
        write_part(plan.folder, part, pa.Table.from_pylist(rows, schema=schema), None, counts_of(rows, []))
    part_path(plan.folder, 0).unlink()
    os.truncate(part_path(plan.folder, 1), 1000)
    done = begun(model, tmp_path / "out", "abcdefg").done()
    assert set(done) == {2, 3}
    assert done[3] == {"inputs": 1, "errors": 1, "faces": 0, "persons": 0, "stages_ms": {}}


def test_what_a_crash_left_half_written_is_cleared_away(model: Path, tmp_path: Path) -> None:
    plan = begun(model, tmp_path / "out", "abc")
    (plan.folder / ".part-000000.1234.partial").write_bytes(b"half")
    begun(model, tmp_path / "out", "abc")
    assert sorted(path.name for path in plan.folder.iterdir()) == ["_inputs.parquet", "_manifest.json"]


@pytest.mark.parametrize(
    ("uris", "part_size", "options", "different"),
    [
        ("abd", 2, {}, "inputs_sha256"),
        ("abcd", 2, {}, "inputs, inputs_sha256"),
        ("abc", 1, {}, "part_size, parts"),
        ("abc", 2, {"mirror": False}, "mirror"),
    ],
)
def test_an_archive_of_something_else_is_not_gone_on_with(
    uris: str, part_size: int, options: dict[str, Any], different: str, model: Path, tmp_path: Path
) -> None:
    begun(model, tmp_path / "out", "abc")
    with pytest.raises(UsageError, match=f"different: {different}"):
        begun(model, tmp_path / "out", uris, part_size, **options)


def test_another_model_under_the_same_name_is_another_archive(model: Path, tmp_path: Path) -> None:
    copy = Path(tmp_path / "face.onnx")
    copy.write_bytes(model.read_bytes())
    copy.with_name("face_detector.onnx").write_bytes(model.with_name("face_detector.onnx").read_bytes())
    begun(copy, tmp_path / "out", "abc")
    begun(model, tmp_path / "out", "abc")  # the same bytes elsewhere
    copy.write_bytes(model.read_bytes() + b"\x08\x0a")  # ir_version once more
    with pytest.raises(UsageError, match="different: models"):
        begun(copy, tmp_path / "out", "abc")


def test_another_file_of_the_precision_is_another_archive(
    make_tiny_model: MakeTinyModel, bright_detector: Path, tmp_path: Path
) -> None:
    shutil.copy(bright_detector, tmp_path / "face_detector.onnx")
    model = make_tiny_model(tmp_path / "face.onnx", weights_sha256="a" * 64)
    half = make_tiny_model(tmp_path / "face.fp16.onnx", precision="fp16", weights_sha256="a" * 64)
    begun(model, tmp_path / "out", "abc", precision="fp16")
    begun(half, tmp_path / "out", "abc", precision="fp16")
    half.write_bytes(half.read_bytes() + b"\x08\x0a")  # ir_version once more
    with pytest.raises(UsageError, match="different: models"):
        begun(model, tmp_path / "out", "abc", precision="fp16")


def test_a_folder_of_other_files_is_left_alone(model: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="do not belong to an archive"):
        begun(model, tmp_path, "abc")


@pytest.mark.parametrize("which", ["model", "model_1"])
def test_rows_hold_what_the_records_of_one_process_hold(
    which: str, people: Path, request: pytest.FixtureRequest
) -> None:
    model: Path = request.getfixturevalue(which)
    paths = [*sorted(people.glob("anna/*.png")), *sorted(people.glob("bert/*"))]
    rows = rows_of(model, numbered(paths)).inputs
    table = pa.Table.from_pylist(rows, schema=input_schema(BLENDSHAPES, 4032))
    assert [row["input"] for row in rows] == list(range(6))
    with Reconstructor(model, provider="cpu") as reconstructor:
        for path, row in zip(paths[:5], table.to_pylist(), strict=False):
            with open_source(path) as source:
                (scene,) = Pipeline(reconstructor).run(source)
            record: Any = record_from_scene(scene, BLENDSHAPES)
            assert row["error"] is None and row["source"] == record["source"] and row["size"] == record["size"]
            assert (row["model"], row["provider"]) == (record["model"], "cpu")
            assert len(row["faces"]) == len(record["faces"]) > 0
            for found, told, face in zip(row["faces"], record["faces"], scene.faces, strict=True):
                assert_same_face(found, told)
                assert (found["gaze"] is None) == (which == "model_1")
                shape = np.reshape(found["shape"], (-1, 3)).astype(np.float16)
                assert np.array_equal(shape, face.shape.astype(np.float16))


def assert_same_face(found: dict[str, Any], told: dict[str, Any]) -> None:
    """Compare a face in a row (`found`) with the same face in a record (`told`)."""
    assert found["box"] == pytest.approx(told["box"], abs=1e-3)
    assert found["track"] == told["track"] and found["doubts"] == told.get("doubts")
    assert found["confidence"] == pytest.approx(told["confidence"])
    assert found["pose"]["euler_deg"] == pytest.approx(told["pose"]["euler_deg"])
    assert found["pose"]["frame_from_head"] == pytest.approx(np.ravel(told["pose"]["frame_from_head"]), rel=1e-5)
    assert np.reshape(found["landmarks"], (68, 3)) == pytest.approx(np.array(told["landmarks"]), abs=1e-3)
    assert found["blendshapes"] == pytest.approx(told["blendshapes"])
    if (gaze := told.get("gaze")) is None:
        assert found["gaze"] is None
    else:
        assert found["gaze"]["euler_deg"] == pytest.approx(gaze["euler_deg"])
        for eye in ("left", "right"):
            assert found["gaze"][eye] == pytest.approx(gaze[eye])
    spread = told.get("spread_mm")
    assert found["spread_mm"] == (None if spread is None else pytest.approx(spread))


def test_files_read_ahead_and_files_read_in_turn_give_the_same_rows(
    model: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = numbered(sorted(people.rglob("*.*")))
    ahead = read_ahead(inputs, 10**6)
    assert all(one.data is not None for one in ahead)
    monkeypatch.setattr(part_module, "AHEAD_BYTES", 0)
    assert read_ahead(inputs, 10**6) == inputs

    def without_times(rows: PartRows) -> list[dict[str, Any]]:
        return [{**row, "stages_ms": None, "faces": str(row.get("faces"))} for row in rows.inputs]

    assert without_times(rows_of(model, ahead)) == without_times(rows_of(model, inputs))


def test_the_row_of_a_video_holds_its_tracks(model: Path, clip: Path) -> None:
    ((row,), persons) = (rows := rows_of(model, numbered([clip]))).inputs, rows.persons
    with Reconstructor(model, provider="cpu") as reconstructor, open_source(clip) as source:
        scenes = list(Pipeline(reconstructor).run(source))
    assert persons == [] and row["frames"] == 12
    tracks = {face.track for scene in scenes for face in scene.faces}
    assert [face["track"] for face in row["faces"]] == sorted(track for track in tracks if track is not None)
    for face in row["faces"]:
        seen = [(scene, one) for scene in scenes for one in scene.faces if one.track == face["track"]]
        best, as_best = max(seen, key=lambda pair: pair[1].confidence)
        last = seen[-1][1]
        assert (face["frame"], face["frames"]) == (best.frame.index, len(seen))
        assert np.reshape(face["landmarks"], (68, 3)) == pytest.approx(as_best.landmarks, abs=6e-3)
        assert np.array_equal(face["shape"], last.shape.astype(np.float16).ravel())
        if last.spread_mm is not None:
            assert face["spread_mm"]["mean"] == pytest.approx(float(last.spread_mm.mean()), abs=1e-3)


def test_each_person_has_the_shape_that_a_set_has(model: Path, people: Path) -> None:
    table = with_parts(list_inputs([str(people)], "([^/]+)/[^/]+$"), 100)
    inputs = [Input(row["input"], row["uri"], row["person"]) for row in table.to_pylist()]
    rows = rows_of(model, inputs)
    assert [(row["person"], row["photographs"], row["used"]) for row in rows.persons] == [
        ("anna", 3, 3), ("bert", 3, 2), ("cleo", 1, 0),
    ]  # fmt: skip
    with Reconstructor(model, provider="cpu") as reconstructor:
        for person, row in zip(("anna", "bert"), rows.persons, strict=False):
            paths = [path for one in inputs if one.person == person and (path := Path(one.uri)).suffix == ".png"]
            image_set = reconstructor.reconstruct_set(read_image(path) for path in paths)
            assert np.array_equal(row["shape"], image_set.shape.astype(np.float16).ravel())
            assert np.array_equal(row["spread"], image_set.spread_mm.astype(np.float16))
            theirs = [one for one in rows.inputs if one["person"] == person and "error" not in one]
            for found, face in zip(theirs, image_set.faces, strict=True):
                assert face is not None and len(found["faces"]) == 1
                assert np.reshape(found["faces"][0]["landmarks"], (68, 3)) == pytest.approx(face.landmarks, abs=6e-3)
                assert found["faces"][0]["shape"] is None  # it is in the person's row
    assert "shape" not in rows.persons[2]


def test_photographs_of_a_set_keep_the_doubts_that_their_pictures_raise(
    model: Path, spots: PaintSpots, tmp_path: Path
) -> None:
    path = tmp_path / "corner.png"
    cv2.imwrite(str(path), spots(256, 192, [(0.02, 0.02)]))
    ((alone,), (grouped,)) = rows_of(model, numbered([path])).inputs, rows_of(model, numbered([path], "anna")).inputs
    assert "cut off" in alone["faces"][0]["doubts"]
    assert grouped["faces"][0]["doubts"] == alone["faces"][0]["doubts"]


def test_what_is_wrong_with_an_input_stands_in_its_row_in_one_line(
    model: Path, people: Path, clip: Path, tmp_path: Path
) -> None:
    text, empty, short = tmp_path / "text.jpg", tmp_path / "empty.png", tmp_path / "short.mp4"
    text.write_text("no picture\nat all")
    empty.touch()
    short.write_bytes(clip.read_bytes()[:100])
    good, large = people / "anna/1.png", people / "anna/10.png"
    large.write_bytes(large.read_bytes() + bytes(20_000))
    bad = {
        text: "is a text file",
        tmp_path / "gone.jpg": "No such file",
        empty: "is empty",
        people / "bert/3.jpg": "cannot be decoded",
        short: "cannot be opened as a video",
        large: "has more than 0.02 MB; raise --max-mb",
        tmp_path: "Is a directory",
    }
    rows = rows_of(model, numbered([good, *bad, good]), most_bytes=20_000).inputs
    assert [("error" in row) for row in rows] == [False, *[True] * len(bad), False]
    for row, said in zip(rows[1:-1], bad.values(), strict=True):
        assert said in row["error"] and "\n" not in row["error"]
        assert "faces" not in row
    assert rows[0]["faces"][0]["landmarks"] == rows[-1]["faces"][0]["landmarks"]


def test_a_video_among_photographs_of_persons_is_an_error_row(model: Path, clip: Path) -> None:
    ((row,), (person,)) = (rows := rows_of(model, numbered([clip], "anna"))).inputs, rows.persons
    assert "persons are averaged over photographs" in row["error"]
    assert (person["photographs"], person["used"]) == (1, 0)


class _Served(BaseHTTPRequestHandler):
    files: dict[str, bytes]
    asked: list[tuple[str, str | None]]
    """Paths, with what logs in."""
    other = ""
    """Address of another host, where /moved leads."""

    def do_GET(self) -> None:
        login = self.headers["Authorization"]
        self.asked.append((self.path, login))
        path = self.path.partition("?")[0]
        if path.startswith("/private/") and login != f"Basic {b64encode(b'bob:p@ss/w0rd').decode()}":
            return self._answer(401, b"", {"WWW-Authenticate": "Basic"})
        if path.startswith("/private/to/"):
            return self._answer(302, b"", {"Location": "/private/a.png"})
        if path.startswith("/private/moved"):
            return self._answer(302, b"", {"Location": f"{self.other}/a.png"})
        if path == "/to-file":
            return self._answer(302, b"", {"Location": "file://bob:p4ss@host/etc/passwd?token=t0ken"})
        data = self.files.get(path.removeprefix("/private"))
        return self._answer(404 if data is None else 200, data or b"", {})

    def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) + (9 if "short" in self.path else 0)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture
def served(people: Path, clip: Path) -> Iterator[str]:
    """Address of a server with `/a.png`, `/short.png`, which breaks off, and `/clip.avi`. Bob alone may read the same
    files below `/private/`. Some addresses lead elsewhere."""
    picture = (people / "anna/1.png").read_bytes()
    _Served.files = {"/a.png": picture, "/short.png": picture, "/clip.avi": clip.read_bytes()}
    _Served.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Served)
    _Served.other = f"http://localhost:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_addresses_are_fetched(served: str, model: Path, people: Path) -> None:
    names = ["a.png", "clip.avi", "gone.png", "gone.mp4", "short.png"]
    uris = [f"{served}/{name}" for name in names] + [(people / "anna/1.png").as_uri(), "gopher://host/a.png"]
    rows = rows_of(model, read_ahead(numbered(uris), 10**6)).inputs
    assert [row.get("frames") for row in rows] == [1, 12, None, None, None, 1, None]
    assert rows[0]["faces"][0]["landmarks"] == rows[5]["faces"][0]["landmarks"]
    for row, said in zip(rows[2:5], ("Not Found", "Not Found", "connection broke"), strict=True):
        assert said in row["error"]
    assert "cannot read gopher://host/a.png" in rows[6]["error"]


def bob(address: str) -> str:
    """Return the address with a user and a password, percent-encoded."""
    return address.replace("://", "://bob:p%40ss%2Fw0rd@")


def test_a_user_and_a_password_in_an_address_log_in(served: str, model: Path) -> None:
    uris = [f"{bob(served)}/private/{name}" for name in ("a.png", "clip.avi?token=t0ken", "to/a.png", "moved.png")]
    rows = rows_of(model, read_ahead(numbered([*uris, f"{served}/private/a.png"]), 10**6)).inputs
    assert [row.get("frames") for row in rows] == [1, 12, 1, 1, None]
    assert rows[0]["source"] == f"{served}/private/a.png"
    assert rows[1]["source"] == f"{served}/private/clip.avi?token=***"
    assert "Unauthorized" in rows[4]["error"]
    # A redirect to another host does not take the user and password along.
    assert [login for path, login in _Served.asked if path == "/a.png"] == [None]


SECRETS = ("bob", "p4ss", "t0ken")


@pytest.mark.parametrize("name", ["a.png", "a.mp4"])
@pytest.mark.parametrize(
    "address",
    [
        "http://bob:p4ss@127.0.0.1:1/{}",
        "http://bob:p4ss/x@127.0.0.1:1/{}",
        "http://bob:p4ss with space@127.0.0.1:1/{}",
        "http://127.0.0.1:1/{}?token=t0ken",
        "http://bob:p4ss@[127.0.0.1/{}",
        "file://bob:p4ss@host/{}",
        "file:///gone/{}?token=t0ken",
        "ftp://bob:p4ss@host/{}",
        "s3://bob:p4ss@/{}?endpoint_override=127.0.0.1%3A1&access_key=t0ken",
        "s3://bob:p4ss@bucket/{}?region=nowhere&no_such_option=t0ken",
        "hdfs://bob:p4ss@host:70000/{}?token=t0ken",
        "abfs://bob:p4ss@account.dfs.core.windows.net/{}?sig=t0ken",
        "{served}/to-file?token=t0ken&{}",
        "{served}/private/{}?password=p4ss",
    ],
)
def test_no_error_row_shows_a_password_or_a_token(served: str, model: Path, address: str, name: str) -> None:
    uri = address.replace("{served}", served).replace("{}", name)
    (row,) = rows_of(model, read_ahead(numbered([uri]), 10**6)).inputs
    assert row["error"] and not any(secret in str(row).replace("no_such_option=t0ken", "") for secret in SECRETS)


def test_an_archive_writes_no_password_down(model: Path, served: str, tmp_path: Path) -> None:
    """Workers still get the passwords."""
    names = [f"{bob(served)}/private/a.png", f"{served}/a.png?token=t0ken", f"{served}/a@2x.png", "/local/a@2x.png"]
    inputs = pa.table({"uri": names})
    plan = open_plan(tmp_path / "out", inputs, 2, Recipe((str(model),)))
    for file in plan.folder.iterdir():
        assert not any(secret.encode() in file.read_bytes() for secret in (*SECRETS, "p%40ss%2Fw0rd"))
    shown = [one.uri for part in range(2) for one in inputs_of(plan.folder, part)]
    assert shown == [f"{served}/private/a.png", f"{served}/a.png?token=***", f"{served}/a@2x.png", "/local/a@2x.png"]
    true = [one.uri for part in range(2) for one in inputs_of(plan.folder, part, plan.secret_of(part))]
    assert true == names
    # A renewed token belongs to the same archive.
    renewed = pa.table({"uri": [names[0], f"{served}/a.png?token=other", *names[2:]]})
    again = open_plan(tmp_path / "out", renewed, 2, Recipe((str(model),)))
    assert again.secret_of(0)[1].endswith("token=other")


def test_a_password_comes_from_the_environment_on_the_command_line_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STORE_PASSWORD", "p4ss")
    listed = "http://bob:${STORE_PASSWORD}@host/a.jpg"
    pq.write_table(pa.table({"uri": [listed]}), tmp_path / "uris.parquet")
    assert list_inputs([listed])["uri"].to_pylist() == ["http://bob:p4ss@host/a.jpg"]
    assert list_inputs([str(tmp_path / "uris.parquet")])["uri"].to_pylist() == [listed]
    with pytest.raises(
        UsageError, match=r"would be written into the archive; use variables only for user, password or token"
    ):
        list_inputs(["http://host/${STORE_PASSWORD}/a.jpg"])
    monkeypatch.delenv("STORE_PASSWORD")
    with pytest.raises(SourceError, match=r"http://host/a\.jpg: the environment variable STORE_PASSWORD is not set"):
        list_inputs([listed])


def test_no_persons_name_is_a_password() -> None:
    with pytest.raises(UsageError, match=r"^--group-by .* does not match http://host/a\.jpg;"):
        list_inputs(["http://bob:p4ss@host/a.jpg"], "://([^:]+):")


def test_two_programs_do_not_write_one_archive(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    program = (
        "import sys, pathlib; from facerecon_rt.archive.lock import only_writer\n"
        f"with only_writer(pathlib.Path({str(out)!r})): print('here', flush=True); sys.stdin.read()"
    )
    photograph = tmp_path / "a.png"
    cv2.imwrite(str(photograph), np.zeros((9, 9, 3), np.uint8))
    arguments = ["archive", "--model", str(model), "--input", str(photograph), "--output", str(out), "--quiet"]
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1) as other:
        assert other.stdout is not None and other.stdout.readline() == b"here\n"
        assert main(arguments) == 2
        said = f"another program (process {other.pid} on {platform.node()}) writes into {out}; wait until it ends"
        assert said in capsys.readouterr().err
        other.kill()
    # The lock of a killed program keeps nobody out, and does not count as a foreign file.
    with only_writer(out), pytest.raises(UsageError, match="another program"), only_writer(out):
        pass
    assert not list(out.iterdir())


def test_a_folder_that_was_made_in_vain_is_gone_again(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused), only_writer(tmp_path / "out"):
        open_plan(tmp_path / "out", pa.table({"uri": ["a"]}), 2, Recipe((str(tmp_path / "no.onnx"),)))
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(file: Any, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("facerecon_rt.archive.lock.fcntl.flock", none)
    monkeypatch.setattr(logging.getLogger("facerecon_rt"), "propagate", True)
    with caplog.at_level(logging.WARNING, "facerecon_rt"), only_writer(tmp_path):
        pass
    assert "this file system has no locks" in caplog.text


def test_files_of_parts_are_read_as_one_table_without_what_lies_beside_them(
    model: Path, people: Path, tmp_path: Path
) -> None:
    inputs = list_inputs([str(people)], "([^/]+)/[^/]+$")
    plan = open_plan(tmp_path / "out", inputs, 3, Recipe((str(model),)))
    vertices = load_template().vertex_count
    for part in range(len(plan.sizes)):
        rows = rows_of(model, inputs_of(plan.folder, part))
        write_part(
            plan.folder,
            part,
            pa.Table.from_pylist(rows.inputs, schema=input_schema(BLENDSHAPES, vertices)),
            pa.Table.from_pylist(rows.persons, schema=person_schema(vertices)),
            counts_of(rows.inputs, rows.persons),
        )
    assert pads.dataset(plan.folder).to_table(columns=["input"])["input"].to_pylist() == list(range(7))
    persons = pq.read_table(plan.folder / "_persons")
    assert persons["person"].to_pylist() == ["anna", "bert", "cleo"]
    assert persons.schema.field("shape").type == pa.list_(pa.field("element", pa.float16()), vertices * 3)
    assert persons["shape"].null_count == 1
    assert sum(counts["faces"] for counts in plan.done().values()) == 5


@pytest.mark.parametrize(("text", "pool"), [("3", (3, 3)), ("2-8", (2, 8))])
def test_the_pool_of_actors_is_a_number_or_a_range(text: str, pool: tuple[int, int]) -> None:
    options = archive_parser().parse_args(["--model", "m", "--input", "x", "--output", "y", "--actors", text])
    assert options.actors == pool


@pytest.mark.parametrize("text", ["0", "8-2", "many", "-1"])
def test_other_pools_are_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        archive_parser().parse_args(["--model", "m", "--input", "x", "--output", "y", f"--actors={text}"])
    assert "not a number of actors" in capsys.readouterr().err


def test_average_without_persons_is_named(
    model: Path, people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "other.txt").touch()  # so that Ray does not start
    arguments = ["--model", str(model), "--input", str(people), "--output", str(tmp_path / "out")]
    warning = "--average does nothing here; it is for persons, with --group-by or a column `person`"
    assert main(["archive", *arguments, "--average", "mean"]) == 2
    assert warning in capsys.readouterr().err
    assert main(["archive", *arguments, "--average", "mean", "--group-by", "([^/]+)/[^/]+$"]) == 2
    assert warning not in capsys.readouterr().err


def test_a_gpu_option_on_the_cpu_is_named(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    PartReconstructor(Recipe((str(model),)), Workers(provider="cpu", gpu=GpuOptions(cuda_graph=True))).__exit__(
        None, None, None
    )
    assert "--cuda-graph does nothing here; it is for GPUs" in caplog.text


def test_an_input_that_is_missing_ends_the_command_before_ray_starts(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["archive", "--model", str(model), "--input", "gone/", "--output", str(tmp_path / "out")])
    assert code == 5 and "gone/ does not exist" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_the_extra_the_command_says_which(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "facerecon_rt.archive.run", raising=False)
    monkeypatch.delitem(sys.modules, "facerecon_rt.archive.operators", raising=False)
    assert main(["archive", "--model", "m", "--input", "x", "--output", "y"]) == 2
    assert "archive needs ray: pip install 'facerecon-rt[ray]'" in capsys.readouterr().err


def test_an_archive_knows_whether_photographs_are_fused_by_precision(model: Path, tmp_path: Path) -> None:
    """Without the basis beside the model, a person's shapes are averaged by another method, so a node without the basis
    must not add rows."""
    shutil.copytree(model.parent, tmp_path / "models")
    beside = tmp_path / "models" / model.name
    without = Recipe((str(beside),)).identity()
    beside.with_name("face.basis.npz").touch()
    assert {name for name, value in Recipe((str(beside),)).identity().items() if value != without[name]} == {"basis"}

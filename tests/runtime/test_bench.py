"""Latency reports: counts, refusals, and the files of a whole run."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from facerecon_rt.addresses import public_name
from facerecon_rt.bench import measure
from facerecon_rt.bench.compare import compare
from facerecon_rt.bench.fidelity import difference, face_crops
from facerecon_rt.bench.figures import LEAST_FOR_P99, doubts, stage_summary, summary
from facerecon_rt.bench.measure import BenchOptions
from facerecon_rt.bench.report import SCHEMA, markdown, read_report, verdict_of, web_page, write_report
from facerecon_rt.bench.scenarios import camera, offline, paced, streamed
from facerecon_rt.cli import main
from facerecon_rt.environment import first_line_of, machine, sensors
from facerecon_rt.errors import ModelRefused, SourceError, UsageError
from facerecon_rt.faces.pipeline import Pipeline
from facerecon_rt.faces.reconstruct import Reconstructor
from facerecon_rt.networks.ensemble import Network
from facerecon_rt.networks.session import FaceSession, RawFaces
from facerecon_rt.sinks.outputs import make_folder
from facerecon_rt.types import Frame
from numpy.typing import NDArray

from tests.conftest import MakeTinyModel

from .conftest import PaintSpots

SPOT = [(0.5, 0.5)]


def silent(done: int, of: int) -> None:
    """Show no progress."""


@pytest.fixture
def frames(spots: PaintSpots) -> list[Frame]:
    return [Frame(spots(256, 192, SPOT), "clip", index, still=False, fps=25) for index in range(6)]


@pytest.fixture
def pictures(spots: PaintSpots, tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(6):
        cv2.imwrite(str(folder / f"{index}.png"), spots(256, 192, SPOT))
    return folder


@pytest.fixture
def reconstructor(model: Path) -> Iterator[Reconstructor]:
    with Reconstructor(model) as opened:
        yield opened


def report_of(**changes: Any) -> dict[str, Any]:
    """Return a small report of a run with 10 ms per frame."""
    milliseconds = [10.0] * 20
    latency = summary(milliseconds)
    return {
        "schema": SCHEMA,
        "created": "2026-01-01T00:00:00+00:00",
        "command": "facerecon-rt bench --input '<b>.mp4'",
        "scenario": "single-stream",
        "model": {
            "files": [{"name": "face.onnx", "sha256": "ab" * 32, "precision": "fp32", "backbone": "m", "terms": ""}]
        },
        "input": {"name": "<b>.mp4", "size": [640, 480], "frames": 20, "streams": 1, "fps": None},
        "warm_up": {"load_ms": 100.0, "queries": 5.0},
        "latency_ms": latency,
        "stages_ms": {"infer": {"mean": 8.0, "p50": 8.0, "p90": 8.5}},
        "per_query": {"faces": 1.0, "cpu_ms": 9.0, "queries_per_s": 100.0},
        "batches": [],
        "accuracy": {"fidelity": None, "fidelity_note": "it is the reference", "photographs": None, "folder": None},
        "environment": {"machine": {"processor": "one | two"}, "before": {"load average": "0.1"}, "after": {}},
        "warnings": [],
        "verdict": verdict_of("single-stream", latency, 33.0),
        "samples_ms": milliseconds,
        **changes,
    }


# Figures


def test_percentiles_are_those_of_the_samples() -> None:
    found = summary([float(value) for value in range(1, 1002)])
    assert (found["count"], found["p50"], found["p90"], found["p99"], found["max"]) == (1001, 501, 901, 991, 1001)


def test_a_99th_percentile_takes_a_thousand_samples() -> None:
    assert summary([1.0] * (LEAST_FOR_P99 - 1))["p99"] is None
    assert summary([1.0] * LEAST_FOR_P99)["p99"] == 1.0


def test_stages_without_samples_are_left_out() -> None:
    assert stage_summary({"infer": [1.0, 3.0], "sink": []}) == {"infer": {"mean": 2.0, "p50": 2.0, "p90": 2.8}}


def test_a_run_that_slows_down_is_doubted_and_one_whose_every_tenth_frame_detects_is_not() -> None:
    assert doubts(([1.0] * 9 + [3.0]) * 20, 0.0, 2) == []
    (doubt,) = doubts([1.0] * 100 + [1.3] * 100, 0.0, 2)
    assert doubt.startswith("unsteady") and "30 %" in doubt
    assert doubts([1.0] * 200, 2.5, 2) == ["busy: the load average was 2.5 on 2 cores before the run"]


# Scenarios


def test_every_query_is_one_frame_of_each_stream(reconstructor: Reconstructor, frames: list[Frame]) -> None:
    samples = streamed(reconstructor, frames, 3, count=5, warm_up=2, detect_every=10, show=silent)
    assert (len(samples.milliseconds), len(samples.warm_up_ms), samples.faces) == (5, 2, 15)
    assert len(samples.stages_ms["infer"]) == 15
    assert samples.wall_s > 0 and samples.ended is None


def test_what_was_measured_before_ctrl_c_stays(reconstructor: Reconstructor, frames: list[Frame]) -> None:
    def stop(done: int, of: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    samples = streamed(reconstructor, frames, 1, count=50, warm_up=0, detect_every=10, show=stop)
    assert (type(samples.ended), len(samples.milliseconds)) == (KeyboardInterrupt, 3)


def test_a_camera_that_is_lost_ends_the_run_in_a_report(
    model: Path,
    pictures: Path,
    frames: list[Frame],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lost(frames: list[Frame], fps: float) -> Iterator[Frame]:
        for index, frame in enumerate(frames):
            yield replace(frame, index=index, captured_at=time.monotonic())
        raise SourceError("cam0 was lost; check the cable")

    monkeypatch.setattr(measure, "paced", lost)
    arguments = ["--scenario", "camera", "--warm-up", "2", "--count", "1000"]
    assert bench(model, pictures, tmp_path / "out", *arguments) == 5
    assert "cam0 was lost; check the cable" in capsys.readouterr().err
    report = read_report(tmp_path / "out")
    assert "fewer samples than requested: cam0 was lost; check the cable" in report["warnings"]
    assert len(report["samples_ms"]) == 4
    assert bench(model, pictures, tmp_path / "none", *arguments, "--warm-up", "6") == 5  # lost in the warm-up
    assert not list((tmp_path / "none").iterdir())


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (ModelRefused("half precision overflows"), 3, "half precision overflows"),
    ],
)
def test_the_latency_is_kept_where_the_accuracy_cannot_be_measured(
    raised: BaseException,
    code: int,
    said: str,
    model: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*arguments: Any) -> None:
        raise raised

    monkeypatch.setattr(measure, "difference", stop)
    assert bench(model, pictures, tmp_path / "out") == code
    report = read_report(tmp_path / "out")
    assert f"the accuracy was not measured: {said}" in report["warnings"]
    assert report["latency_ms"]["count"] == 8 and report["environment"]["machine"]


def test_a_report_of_another_program_is_not_replaced(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "report.json"
    other.write_text('{"weights_sha256": ""}')
    assert bench(model, pictures, tmp_path) == 2
    assert f"{other} is not a report of bench and would be overwritten" in capsys.readouterr().err
    assert other.read_text() == '{"weights_sha256": ""}'
    other.write_text('{"schema": "facerecon-bench/0"}')
    assert bench(model, pictures, tmp_path) == bench(model, pictures, tmp_path) == 0


def test_frames_that_a_camera_gave_in_vain_are_counted(reconstructor: Reconstructor, frames: list[Frame]) -> None:
    seen = [Frame(frames[0].image, "cam", index, still=False) for index in (0, 4, 5, 8, 9)]
    samples = camera(reconstructor, seen, count=3, warm_up=1, detect_every=10, show=silent)
    # After the warm-up: 4 (three lost before it), 5, and 8 (two lost before it).
    assert (len(samples.milliseconds), samples.dropped) == (3, 5)


def test_another_process_reads_a_cameras_records_and_their_age_is_reported(
    reconstructor: Reconstructor, frames: list[Frame]
) -> None:
    def coming() -> Iterator[Frame]:
        for index in range(40):
            yield replace(frames[0], index=index, captured_at=time.monotonic() - 10, still=False, live=True)

    started = time.monotonic()
    samples = camera(reconstructor, coming(), count=30, warm_up=10, detect_every=10, show=silent)
    # The newest record wins, so some may be missed, but never the last. The warm-up's do not count.
    assert 1 <= len(samples.read_ms) <= 30
    assert 10_000 < min(samples.read_ms) <= max(samples.read_ms) < 10_000 + 1000 * (time.monotonic() - started)
    assert max(samples.read_ms) > min(samples.milliseconds)
    table = markdown(report_of(scenario="camera", read_ms=summary([12.0, 14.0])))
    assert "## Records at a Unix socket, ms" in table and "| captured to read | 2 | 13.000 |" in table


def test_a_file_shown_as_a_camera_keeps_to_its_rate_and_gives_the_newest_frame(frames: list[Frame]) -> None:
    due = list(islice(paced(frames, 2000.0), 8))
    assert all(later.index > earlier.index for earlier, later in pairwise(due))
    started = due[0].captured_at - due[0].index / 2000.0
    for frame in due:
        assert frame.captured_at - started == pytest.approx(frame.index / 2000.0)
        np.testing.assert_array_equal(frame.image, frames[frame.index % 6].image)


def test_of_a_camera_the_warm_up_is_apart_in_every_figure(reconstructor: Reconstructor, frames: list[Frame]) -> None:
    def coming() -> Iterator[Frame]:
        for index in range(8):
            if index == 2:
                time.sleep(0.2)
            yield replace(frames[0], index=2 * index, captured_at=time.monotonic(), still=False)

    started = time.perf_counter()
    samples = camera(reconstructor, coming(), count=3, warm_up=5, detect_every=10, show=silent)
    assert (len(samples.warm_up_ms), len(samples.milliseconds), samples.dropped) == (5, 3, 3)
    assert samples.wall_s <= time.perf_counter() - started - 0.2  # the pause was during the warm-up
    # A source that ends early ends the run.
    assert len(camera(reconstructor, coming(), 30, 5, 10, silent).milliseconds) == 3


def test_ctrl_c_before_anything_was_measured_is_an_interruption(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: Pipeline, frame: Frame) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, "process", stop)
    assert bench(model, pictures, tmp_path / "out") == 130


class Wrapped:
    """A network that runs another network, and notes the batch sizes."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.contract, self.provider, self.sha256 = network.contract, network.provider, network.sha256
        self.batches: list[int] = []

    def run(self, images: NDArray[np.uint8]) -> RawFaces:
        self.batches.append(len(images))
        return self.network.run(images)


def test_offline_runs_whole_batches_however_few_crops_there_are(
    reconstructor: Reconstructor, frames: list[Frame]
) -> None:
    network = Wrapped(reconstructor.network)
    crops = face_crops(reconstructor, frames[:2])
    samples = offline(network, crops, 8, count=3, warm_up=1, show=silent)
    assert network.batches == [8] * 4
    assert (len(crops), len(samples.milliseconds), samples.faces) == (2, 3, 24)


# Fidelity


class Shifted(Wrapped):
    """A network whose landmarks are three pixels further to the right, and whose vertices are two millimetres further
    up."""

    def run(self, images: NDArray[np.uint8]) -> RawFaces:
        raw = super().run(images)
        raw.landmarks[:, :, 0] += 3
        raw.vertices[:, :, 1] += 2
        return raw


def test_a_file_of_another_precision_is_held_against_the_float32_one(
    model: Path, make_tiny_model: MakeTinyModel, tmp_path: Path, frames: list[Frame]
) -> None:
    shutil.copy(model, tmp_path / "face.onnx")
    half = make_tiny_model(tmp_path / "face.fp16.onnx", precision="fp16")
    with Reconstructor(model) as reconstructor, FaceSession(half, provider="cpu") as session:
        crops = face_crops(reconstructor, frames)
        figures, note = difference(Shifted(session), [half], crops)
        assert figures is not None and "face.onnx on the CPU" in note
        assert figures["landmarks_px"] == pytest.approx(3, abs=1e-4)
        assert figures["vertices_mm"] == pytest.approx(2, abs=1e-4)
        assert figures["rotation_deg"] == pytest.approx(0, abs=0.1)
        nothing, note = difference(reconstructor.network, [model], crops)
        assert nothing is None and "the reference for others" in note
        (tmp_path / "face.onnx").unlink()
        nothing, note = difference(Shifted(session), [half], crops)
        assert nothing is None and "no float32 file" in note


def test_pictures_without_a_face_are_refused(reconstructor: Reconstructor) -> None:
    empty = [Frame(np.zeros((96, 128, 3), np.uint8), "clip")]
    with pytest.raises(UsageError, match="no face was found"):
        face_crops(reconstructor, empty)


# The report


def test_a_report_is_written_and_read_again(tmp_path: Path) -> None:
    report = report_of()
    files = write_report(report, tmp_path)
    assert sorted(path.name for path in files) == [
        "histogram.png", "over_time.png", "report.html", "report.json", "report.md",
    ]  # fmt: skip
    assert all(path.stat().st_size for path in files)
    assert read_report(tmp_path) == read_report(tmp_path / "report.json") == json.loads(json.dumps(report))
    text = (tmp_path / "report.md").read_text()
    assert "PASSED: p90 10.00 ms, budget 33 ms." in text
    assert "needs 1000 samples" in text
    assert "one / two" in text  # an unescaped bar would end the table's cell
    page = (tmp_path / "report.html").read_text()
    assert "&lt;b&gt;.mp4" in page and "<b>.mp4" not in page
    assert page.count("data:image/png;base64,") == 2


def test_without_matplotlib_the_report_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "facerecon_rt.bench.plots", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    files = write_report(report_of(), tmp_path)
    assert [path.name for path in files] == ["report.json", "report.md", "report.html"]
    assert "WARNING: no plots: matplotlib is not installed (pip install 'facerecon-rt[bench]')" in files[1].read_text()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "facerecon-bench/9"}', "\x00"])
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(UsageError, match=r"report\.json: is no"):
        read_report(tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_report(tmp_path / "other.json")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"schema": ' * 100_000, "1" * 5000, '"\\ud800"'])
def test_what_is_hostile_is_no_report_either(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(UsageError, match=r"report\.json: is no"):
        read_report(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"scenario": None},
        {"latency_ms": {}},
        {"latency_ms": {"mean": "fast", "p50": [], "p90": 1, "p95": 1, "p99": 1, "max": 1}},
        {"latency_ms": dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "max"))},
        {"latency_ms": dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "max"), 10**400)},
        {"per_query": None},
        {"batches": [1]},
        {"batches": 7},
        {"model": []},
        {"environment": {}},
        {"warnings": None},
    ],
)
def test_a_report_that_was_changed_is_compared_with_none(changed: dict[str, object]) -> None:
    whole = report_of()
    assert compare(whole, whole).verdict == "alike"
    with pytest.raises(UsageError, match=r"one of the reports is incomplete|compare equal scenarios"):
        compare(whole, {**whole, **changed})
    with pytest.raises(UsageError, match=r"one of the reports is incomplete|compare equal scenarios"):
        compare({**whole, **changed}, whole)


def test_a_place_that_cannot_be_written_is_found_out_first(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        make_folder(tmp_path / "file" / "report")


def test_each_scenario_is_judged_by_its_own_figure() -> None:
    many = summary([1.0] * 950 + [50.0] * 50)
    assert verdict_of("single-stream", many, 33.0) == {
        "budget_ms": 33.0, "figure": "p90", "value_ms": 1.0, "passed": True,
    }  # fmt: skip
    failed = verdict_of("camera", many, 33.0)
    assert failed is not None and (failed["figure"], failed["passed"]) == ("p99", False)
    cut_short = verdict_of("camera", summary([1.0, 40.0]), 33.0)
    assert cut_short is not None and (cut_short["figure"], cut_short["passed"]) == ("max", False)
    assert verdict_of("offline", many, None) is None


def test_offline_shows_its_batches() -> None:
    batches = [{"batch": 4, "latency_ms": summary([2.0] * 10), "crops_per_s": 2000.0}]
    for text in (markdown(report_of(batches=batches)), web_page(report_of(batches=batches))):
        assert "crops per second" in text and "2000" in text


def test_a_run_that_was_cut_short_has_not_passed() -> None:
    assert verdict_of("camera", summary([1.0] * 5), 33.0) == {
        "budget_ms": 33.0,
        "figure": "max",
        "value_ms": 1.0,
        "passed": False,
    }


def test_figures_are_kept_where_plots_cannot_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("no fonts")

    monkeypatch.setattr("facerecon_rt.bench.plots.draw", fail)
    assert [path.name for path in write_report(report_of(), tmp_path)] == ["report.json", "report.md", "report.html"]
    assert read_report(tmp_path)["warnings"] == ["no plots: no fonts"]


@pytest.mark.parametrize("form", ["{}", "--input={}"])
def test_no_password_reaches_a_report(form: str) -> None:
    shown = public_name(form.format("rtsp://user:secret@host/s?token=secret"))
    assert shown == form.format("rtsp://host/s?token=***")
    assert public_name("--tolerance=0.1") == "--tolerance=0.1"


def test_an_ensemble_that_is_float32_in_part_is_no_reference(model: Path, make_tiny_model: MakeTinyModel) -> None:
    other = make_tiny_model(model.with_name("int8.onnx"), precision="int8", target="cpu", weights_sha256="")
    crops = np.zeros((1, 64, 64, 3), np.uint8)
    with Reconstructor([model, other], provider="cpu") as both:
        figures, note = difference(both.network, [model, other], crops)
        assert figures is not None and note.startswith("against face.onnx, face.onnx")
    with Reconstructor([model, model], provider="cpu") as twice:
        assert difference(twice.network, [model, model], crops)[0] is None


# Comparing


def slower(factor: float) -> dict[str, Any]:
    return report_of(latency_ms=summary([10.0 * factor] * 20))


@pytest.mark.parametrize(("factor", "verdict"), [(1.2, "slower"), (1.05, "alike"), (0.95, "alike"), (0.8, "faster")])
def test_a_verdict_needs_more_than_the_tolerance(factor: float, verdict: str) -> None:
    found = compare(report_of(), slower(factor))
    assert found.verdict == verdict
    assert {name: ratio for name, _, _, ratio in found.rows}["p50"] == pytest.approx(factor)
    assert "p99" not in [name for name, *_ in found.rows]


def test_what_else_differs_is_said() -> None:
    other = report_of(warnings=["busy"], environment={"machine": {"processor": "three"}, "before": {}, "after": {}})
    assert compare(report_of(), other).notes == ["machine processor: one | two -> three", "after: busy"]
    with pytest.raises(UsageError, match="one report is of single-stream, the other of camera"):
        compare(report_of(), report_of(scenario="camera"))


def test_batches_are_compared_size_by_size() -> None:
    def offline_report(*batches: int) -> dict[str, Any]:
        of = [{"batch": batch, "latency_ms": summary([float(batch)] * 9), "crops_per_s": 1000.0} for batch in batches]
        return report_of(scenario="offline", batches=of, latency_ms=of[0]["latency_ms"])

    names = [name for name, *_ in compare(offline_report(1, 2, 8), offline_report(1, 8)).rows]
    assert names[-2:] == ["p50 of batch 1", "p50 of batch 8"]
    with pytest.raises(UsageError, match="begin with batches of 1 and 8 crops"):
        compare(offline_report(1), offline_report(8))


# The command


def bench(model: Path, pictures: Path, report: Path, *more: str) -> int:
    common = ["--model", str(model), "--provider", "cpu", "--count", "8", "--warm-up", "2", "--report", str(report)]
    return main(["bench", "--input", str(pictures), *common, *more])


@pytest.mark.parametrize(
    "more",
    [
        ("--budget-ms", "60000"),
        ("--scenario", "multi-stream", "--streams", "2"),
        ("--scenario", "camera", "--fps", "200"),
        ("--scenario", "offline", "--batch", "1", "3"),
    ],
    ids=lambda more: more[1] if more[0] == "--scenario" else "single-stream",
)
def test_a_run_ends_in_a_report(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    assert bench(model, pictures, tmp_path / "out", *more) == 0
    report = read_report(tmp_path / "out")
    assert report["latency_ms"]["count"] == len(report["samples_ms"]) == 8
    assert report["command"].startswith("facerecon-rt bench --input")
    assert report["model"]["files"][0]["name"] == "face.onnx"
    assert [one["batch"] for one in report["batches"]] == ([1, 3] if "offline" in more else [])
    assert (report["verdict"] is not None) == ("--budget-ms" in more)
    assert report["input"]["size"] == [256, 192]
    said = capsys.readouterr().out
    assert "wrote" in said
    assert ("batch of 3: p50 " in said, said.startswith("p50 ")) == ("offline" in more, "offline" not in more)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"streams": 2}, ["--streams does nothing here; it is for --scenario multi-stream"]),
        ({"streams": 2, "scenario": "multi-stream"}, []),
        ({"batches": (1, 3)}, ["--batch does nothing here; it is for --scenario offline"]),
        ({"batches": (1, 3), "scenario": "offline"}, []),
        ({"fps": 25.0, "scenario": "camera"}, []),
        (
            {"fps": 25.0, "scenario": "camera", "input": "cam0"},
            ["--fps does nothing here; it is for --scenario camera with a file"],
        ),
        (
            {"detect_every": 3, "scenario": "offline"},
            ["--det-every does nothing here; it is for scenarios that follow faces"],
        ),
        ({"detect_every": 3}, []),
    ],
)
def test_options_without_effect_are_named(given: dict[str, Any], says: list[str]) -> None:
    assert BenchOptions(**{"models": ("face.onnx",), "input": "video.mp4", **given}).without_effect() == says


def test_an_option_without_effect_is_named_before_the_run(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(model, pictures, tmp_path / "out", "--streams", "2", "--photographs", "/dev/null/x") == 5
    assert "--streams does nothing here; it is for --scenario multi-stream" in capsys.readouterr().err


def test_a_gpu_option_on_the_cpu_is_named(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(model, pictures, tmp_path / "out", "--cuda-graph", "--provider", "cpu") == 0
    assert "--cuda-graph does nothing here; it is for GPUs" in capsys.readouterr().err


def test_over_the_budget_is_exit_code_1(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(model, pictures, tmp_path / "out", "--budget-ms", "0.0001", "--quiet") == 1
    assert capsys.readouterr().out.startswith("OVER the budget: p90 ")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--scenario", "offline", "--budget-ms", "5"), "offline has no deadline"),
        (("--scenario", "camera", "--budget-ms", "5"), "needs --count 1000 or more"),
        (("--input", "cam0"), "cam0 sends frames at its own rate; measure it with --scenario camera"),
        (("--report", "/dev/null/x"), "cannot write"),
        (("--photographs", "/dev/null/x"), "is not a folder of photographs"),
    ],
)
def test_what_cannot_be_measured_is_said_before_it_is(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], says: str
) -> None:
    assert bench(model, pictures, tmp_path / "out", *more) == (5 if "--photographs" in more else 2)
    assert says in capsys.readouterr().err


def test_pictures_of_several_sizes_are_refused(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(pictures / "large.png"), np.zeros((400, 400, 3), np.uint8))
    assert bench(model, pictures, tmp_path / "out") == 5
    assert "pictures of several sizes" in capsys.readouterr().err


def test_two_reports_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, report in (("a", report_of()), ("b", slower(2.0))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(report))
    assert main(["bench", "compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    assert main(["bench", "compare", str(tmp_path / "b"), str(tmp_path / "a")]) == 0
    text = capsys.readouterr().out
    assert "slower (tolerance 10 %)" in text and "faster" in text and "2.00" in text


# The machine


def test_the_machine_is_described_in_words() -> None:
    facts = machine()
    assert facts["Python"] == ".".join(map(str, sys.version_info[:3]))
    assert int(facts["cores usable"]) >= 1
    assert all(isinstance(value, str) and value for value in (*facts.values(), *sensors().values()))
    assert "numpy" in facts


def test_a_program_that_goes_on_is_asked_for_one_line() -> None:
    program = "import itertools\nfor i in itertools.count(): print(f'line {i}', flush=True)"
    assert first_line_of([sys.executable, "-c", program]) == "line 0"
    assert first_line_of(["/nowhere/tegrastats"]) == ""

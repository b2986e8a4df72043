"""`facerecon-rt bench` and `facerecon-rt bench compare`: the command lines of the benchmark."""

from __future__ import annotations

import argparse
import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..addresses import public_name
from ..commands.arguments import (
    Parser,
    add_detector,
    add_gpu_options,
    add_model,
    add_provider,
    add_threads,
    gpu_options,
)
from ..commands.default_model import models_or_default
from ..commands.progress import StatusLine
from ..contract import PRECISIONS
from ..faces.pipeline import DETECT_EVERY
from ..sinks.outputs import check_replaces, check_writable, make_folder
from ..values import batch, frame_rate, milliseconds, name, number_above_0, positive, whole, whole_number
from .compare import compare
from .figures import LEAST_FOR_P99
from .measure import SCENARIOS, BenchOptions, measure
from .report import is_report, read_report, write_report

log = logging.getLogger("facerecon_rt")
MOST_STREAMS = 1024
EPILOG = f"""\
examples:
  facerecon-rt bench --input video.mp4                              (the shipped model)
  facerecon-rt bench --precision int8 --input video.mp4 --budget-ms 33 --report out/
  facerecon-rt bench --input cam0 --scenario camera --budget-ms 100
  facerecon-rt bench --model models/face.onnx --input video.mp4 --scenario offline --batch 1 8 32
  facerecon-rt bench compare before/ after/

scenarios, by MLPerf's names:
  single-stream  the next frame starts when the last is done; the budget applies to p90
  multi-stream   a query is one frame of each of --streams; the budget applies to p99
  camera         frames arrive at the camera's rate (a file: at its own, or --fps), and only the newest is used;
                 measures the age of results, captured to reconstructed; the budget applies to p99. A program that
                 reads a Unix socket (--output unix://) measures the age of records, captured to read
  offline        batches of crops through the network alone

Frames of a file are decoded before the run, so that the disk is not measured. A p99 needs {LEAST_FOR_P99} samples and
is left out of a shorter run. The report also says how far the file's outputs are from the float32 file's on the CPU,
and with --photographs the landmark error.

exit codes: 0 done, and within the budget if there is one; 1 over the budget; 2 to 5 as for facerecon-rt, for example
5 for a lost camera; 130 Ctrl-C (the report holds what was measured before)
"""


def main(arguments: Sequence[str]) -> int:
    """Run `bench` with the arguments behind it. Returns the exit code. Raises FaceReconError."""
    if arguments and arguments[0] == "compare":
        return _compare(compare_parser().parse_args(arguments[1:]))
    options = bench_parser().parse_args(arguments)
    if options.quiet:
        log.setLevel(logging.ERROR)
    wanted = BenchOptions(
        models=models_or_default(options.model, options.provider, options.precision),
        input=options.input,
        scenario=options.scenario,
        provider=options.provider,
        precision=options.precision,
        threads=options.threads,
        detector=options.detector,
        detect_every=options.det_every,
        count=options.count,
        warm_up=options.warm_up,
        streams=options.streams,
        batches=tuple(options.batch),
        fps=options.fps,
        budget_ms=options.budget_ms,
        photographs=options.photographs,
        command=shlex.join(["facerecon-rt", "bench", *map(public_name, arguments)]),
        gpu=gpu_options(options),
    )
    wanted.check()
    for sentence in wanted.without_effect():
        log.warning("%s", sentence)
    make_folder(options.report)
    check_writable(options.report / "report.json")
    check_replaces(options.report / "report.json", is_report, "a report of bench", "--report")
    line = StatusLine(quiet=options.quiet)
    try:
        report, ended = measure(wanted, lambda done, of: line.show(lambda: f"{done} of {of}"))
    finally:
        line.clear()
    files = write_report(report, options.report)
    if not options.quiet:
        for batch in report["batches"]:
            print(f"batch of {batch['batch']}: {percentiles(batch['latency_ms'])}, {batch['crops_per_s']:.0f} crops/s")
        if not report["batches"]:
            print(percentiles(report["latency_ms"]))
        for warning in report["warnings"]:
            print(f"warning: {warning}")
        print(f"wrote {files[0].parent}/: {', '.join(path.name for path in files)}", flush=True)
    if ended is not None:
        raise ended
    verdict = report["verdict"]
    if verdict is None:
        return 0
    word = "within" if verdict["passed"] else "OVER"
    print(f"{word} the budget: {verdict['figure']} {verdict['value_ms']:.2f} ms of {verdict['budget_ms']:g} ms")
    return 0 if verdict["passed"] else 1


def percentiles(latency: Mapping[str, float | None]) -> str:
    """Return the percentiles of a summary that it has, in ms, as text."""
    return ", ".join(f"{name} {latency[name]:.2f} ms" for name in ("p50", "p90", "p99") if latency[name] is not None)


def _compare(options: argparse.Namespace) -> int:
    found = compare(read_report(options.before), read_report(options.after), options.tolerance)
    print(f"{'':24}{'before':>10}{'after':>10}{'ratio':>8}")
    for figure, before, after, ratio in found.rows:
        print(f"{figure:24}{before:10.3f}{after:10.3f}{ratio:8.2f}")
    for note in found.notes:
        print(f"differs: {note}")
    print(f"{found.verdict} (tolerance {100 * options.tolerance:g} %)", flush=True)
    return 1 if found.verdict == "slower" else 0


def bench_parser() -> argparse.ArgumentParser:
    """Return the parser of `bench`."""
    parser = Parser(
        prog="facerecon-rt bench",
        description="Measure the time per face on this machine: percentiles, stages, accuracy, machine and verdict.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model(parser)
    parser.add_argument(
        "--input", required=True, type=name, metavar="X", help="a video, photographs of one size, or a camera"
    )
    parser.add_argument(
        "--report",
        type=Path,
        default=Path("bench-report"),
        metavar="FOLDER",
        help="folder of the report [%(default)s/]",
    )
    parser.add_argument(
        "--scenario", choices=SCENARIOS, default="single-stream", help="what is measured, see below [%(default)s]"
    )
    parser.add_argument(
        "--budget-ms", type=milliseconds, metavar="MS", help="time budget per query in ms; decides the verdict"
    )
    parser.add_argument(
        "--photographs", type=Path, metavar="FOLDER", help="folder of x.jpg with x.pts; measures the landmark error too"
    )
    _add_run(parser)
    _add_network(parser)
    parser.add_argument("--quiet", action="store_true", help="print errors and the verdict only")
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    run = parser.add_argument_group("the run")
    run.add_argument(
        "--count", type=positive, default=LEAST_FOR_P99, metavar="N", help="number of queries to measure [%(default)s]"
    )
    run.add_argument(
        "--warm-up",
        type=whole,
        default=50,
        metavar="N",
        help="number of queries before the measured ones [%(default)s]",
    )
    run.add_argument(
        "--streams",
        type=whole_number(1, MOST_STREAMS),
        default=4,
        metavar="N",
        help="streams in multi-stream [%(default)s]",
    )
    run.add_argument(
        "--batch", type=batch, nargs="+", default=[1, 2, 4, 8], metavar="N", help="batch sizes in offline [1 2 4 8]"
    )
    run.add_argument("--fps", type=frame_rate, metavar="F", help="frame rate of a file used as a camera [its own]")


def _add_network(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what runs")
    add_provider(what)
    what.add_argument("--precision", choices=PRECISIONS, help="use the file of this precision beside --model")
    add_threads(what)
    add_detector(what)
    what.add_argument(
        "--det-every",
        type=positive,
        default=DETECT_EVERY,
        metavar="N",
        help="run the detector every N frames [%(default)s]",
    )
    add_gpu_options(what)


def compare_parser() -> argparse.ArgumentParser:
    """Return the parser of `bench compare`."""
    parser = Parser(
        prog="facerecon-rt bench compare",
        description="Compare two reports of one scenario: ratios, other differences, and a verdict by p50 and p90. The "
        "exit code is 1 when the second is slower.",
    )
    parser.add_argument("before", type=Path, help="report.json of the first run, or its folder")
    parser.add_argument("after", type=Path)
    parser.add_argument(
        "--tolerance",
        type=number_above_0(100),
        default=0.1,
        metavar="SHARE",
        help="share by which figures may differ without a verdict [0.1]",
    )
    return parser

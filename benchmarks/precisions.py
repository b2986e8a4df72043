"""Files of one model -> their size, error and speed side by side, and the saving of fused files.

    python benchmarks/precisions.py --data DATA

The error is the inner-51 NME on lfpw-test from the true box, and the difference to PyTorch on the same crops. The speed
is that of the network alone with one crop, one thread and the CPU. Files take turns block by block, so that other load
on the machine affects all of them; trust only the ratios to fp32. The fused files are made here. An ensemble of the
model with itself is compared with the runtime's ensemble of two, and a set of five with five crops that the runtime
averages.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from commands import command_of
from facerecon_export.crops import FaceCrops, load_crops
from facerecon_export.fuse import fuse_ensemble, fuse_set
from facerecon_export.verify import GATES, compare, run_onnx, run_torch
from facerecon_rt.annotated import landmark_figures
from facerecon_rt.contract import SET_OUTPUTS
from facerecon_rt.data_folder import default_data
from facerecon_rt.faces.detect import open_detector
from facerecon_rt.faces.shapes import average_shapes
from facerecon_rt.networks.ensemble import Ensemble
from facerecon_rt.networks.session import FaceSession
from facerecon_rt.providers.choice import open_ort_session
from facerecon_rt.providers.onnx_file import named_by_hash
from facerecon_training.checkpoint import load_weights
from facerecon_training.detector.measure import annotated, measure_found

RESULTS = Path(__file__).with_name("results")
BLOCKS, BLOCK = 40, 25
FILES = ("face.onnx", "face.fp16.onnx", "face.int8.onnx", "face.int8-cpu.onnx")
COLUMNS = (
    "NME: inter-ocular error of the inner 51 landmarks on lfpw-test, from the true box. Vertices and rotation: mean "
    "difference to PyTorch on the same crops (p99: of 99 % of them at most). Latency: median of one crop on one CPU "
    "thread."
)
"""Definitions of the columns, for the reader of the results."""
SET_SIZE = 5
Figures = dict[str, float]


def errors(folder: Path, crops: FaceCrops) -> dict[str, Figures]:
    """Return size, NME and difference to PyTorch of each file."""
    reference = run_torch(load_weights(folder / "face.safetensors"), crops.images)
    figures = {}
    for name in FILES:
        with FaceSession(folder / name, provider="cpu") as session:
            answer = run_onnx(session, crops.images, 8)
        rows = {row.name: row for row in compare(reference, [answer], GATES["int8"], crops.landmarks)}
        figures[name] = {
            "megabytes": (folder / name).stat().st_size / 1e6,
            "nme_inner51": landmark_figures(answer.landmarks[:, :, :2], crops.landmarks)["nme_inner51"],
            "vertices_mm": rows["vertices"].mean,
            "vertices_mm_p99": rows["vertices"].p99,
            "rotation_deg": rows["rotation"].mean,
        }
    return figures


def in_turns(calls: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Return the median milliseconds of each call."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(BLOCK):
            call()
    for _ in range(BLOCKS):
        for name, call in calls.items():
            for _ in range(BLOCK):
                started = time.perf_counter()
                call()
                times[name].append(1000 * (time.perf_counter() - started))
    return {name: float(np.median(values)) for name, values in times.items()}


def fused(folder: Path, crops: FaceCrops) -> dict[str, float]:
    """Return the median milliseconds of fused files, and of the runtime with plain files."""
    one, five = crops.images[:1], crops.images[:SET_SIZE]
    with tempfile.TemporaryDirectory() as name:
        ensemble, photographs = Path(name) / "ensemble.onnx", Path(name) / "set.onnx"
        fuse_ensemble([folder / FILES[0]] * 2, ensemble, lambda line: None)
        fuse_set(folder / FILES[0], SET_SIZE, photographs, lambda line: None)
        session, _, _ = open_ort_session(photographs, "cpu")
        with FaceSession(folder / FILES[0], provider="cpu") as a, FaceSession(ensemble, provider="cpu") as both:
            members = Ensemble([a, a])

            def one_by_one() -> None:
                raws = [a.run(five[i : i + 1]) for i in range(SET_SIZE)]
                average_shapes(
                    np.concatenate([raw.shape for raw in raws]), np.concatenate([raw.confidence for raw in raws])
                )

            return in_turns(
                {
                    "ensemble of 2, runtime": lambda: members.run(one),
                    "ensemble of 2, one file": lambda: both.run(one),
                    f"set of {SET_SIZE}, runtime": one_by_one,
                    f"set of {SET_SIZE}, one file": lambda: session.run(list(SET_OUTPUTS), {"image": five}),
                }
            )


def detectors(paths: list[Path], folder: Path) -> dict[str, Figures]:
    """Return how well each detector file finds annotated faces, and its median milliseconds for a 720p frame."""
    opened = {path.name: open_detector(path) for path in paths}
    frame = np.zeros((720, 1280, 3), np.uint8)
    times = in_turns({name: partial(detector.detect, frame) for name, detector in opened.items()})
    figures = {}
    for path in paths:
        found = measure_found(opened[path.name], annotated(folder))
        figures[path.name] = {
            "megabytes": path.stat().st_size / 1e6,
            "found_percent": 100 * found.recall,
            "centre_error_sides": found.centre_error,
            "scale_error_percent": 100 * found.scale_error,
            "milliseconds": times[path.name],
        }
    return figures


def markdown(report: dict[str, Any]) -> str:
    """Return the report as Markdown tables."""
    lines = ["# Precisions", "", f"{report['machine']}. `{report['command']}`", ""]
    if "models" in report:
        lines += [f"Files: {report['models']}.", ""]
    lines += [COLUMNS, ""]
    lines += [
        "| file | MB | NME inner 51 | vertices, mm to PyTorch (p99) | rotation, degrees | latency, ratio to fp32 |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in report["files"].items():
        lines.append(
            f"| `{name}` | {row['megabytes']:.1f} | {row['nme_inner51']:.2f} % | {row['vertices_mm']:.3f} "
            f"({row['vertices_mm_p99']:.3f}) | {row['rotation_deg']:.3f} | {row['latency_ratio']:.2f} |"
        )
    lines += [
        "",
        "| detector | MB | faces found | centre error, sides | scale error | ms per 720p frame |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in report["detectors"].items():
        lines.append(
            f"| `{name}` | {row['megabytes']:.1f} | {row['found_percent']:.1f} % | {row['centre_error_sides']:.4f} "
            f"| {row['scale_error_percent']:.2f} % | {row['milliseconds']:.2f} |"
        )
    lines += ["", "| averaging | ms |", "|---|---|"]
    lines += [f"| {name} | {value:.2f} |" for name, value in report["fused"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = default_data()
    parser.add_argument("--data", type=Path, default=data and Path(data), required=data is None)
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of the model files [%(default)s]")
    parser.add_argument(
        "--detectors", type=Path, nargs="*", metavar="FILE", help="detector files [MODELS/face_detector*.onnx]"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results [%(default)s]")
    options = parser.parse_args()
    crops = load_crops(
        options.data / "faces" / "lfpw-test", load_weights(options.models / "face.safetensors").config.input_size, 224
    )
    files = errors(options.models, crops)
    sessions = {name: FaceSession(options.models / name, provider="cpu") for name in FILES}
    one = crops.images[:1]
    times = in_turns({name: partial(session.run, one) for name, session in sessions.items()})
    for name, row in files.items():
        row["milliseconds"] = times[name]
        row["latency_ratio"] = times[name] / times[FILES[0]]
    paths = options.detectors or sorted(options.models.glob("face_detector*.onnx"))
    report = {
        "command": command_of(parser, options),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread, onnxruntime {version('onnxruntime')}",
        "models": named_by_hash(*(options.models / name for name in FILES), *paths),
        "files": files,
        "detectors": detectors(
            paths,
            options.data / "faces" / "lfpw-test",
        ),
        "fused": fused(options.models, crops),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "precisions.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "precisions.md").write_text(markdown(report))
    print(markdown(report))


if __name__ == "__main__":
    main()

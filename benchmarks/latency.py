"""Video frames -> time of the whole pipeline per frame, beside MediaPipe, in one run.

    python benchmarks/latency.py                                          # facerecon-rt alone
    python benchmarks/latency.py --mediapipe-python mp-venv/bin/python    # and MediaPipe 0.10.14, alternating blocks
    python benchmarks/latency.py --mediapipe-python ... --mediapipe-task face_landmarker.task    # and Face Landmarker
    python benchmarks/latency.py --detecting --mediapipe-python ...       # both detect faces in every frame

The scenario is a single stream, at most one face at 720p while tracking, one thread, CPU. Loading and warm-up are not
part of the figures. MediaPipe has its own virtual environment (`pip install mediapipe==0.10.14 "numpy<2"`), because its
dependencies clash with ours. Face Landmarker gives the same outputs as our frames (points, blendshapes, matrix). It
needs a model file that no package contains, so provide face_landmarker.task (float16) yourself. All workers read the
same frames from one file. They take turns block by block, so that other load on the machine affects all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from commands import command_of
from facerecon_rt import Pipeline, Reconstructor, open_source
from facerecon_rt.types import Frame, Image

RESULTS = Path(__file__).with_name("results")
SIZE = (1280, 720)
WARM_UP = 60
BLOCK = 150
PEER = "MediaPipe 0.10.14 FaceMesh"
LANDMARKER = "MediaPipe 0.10.14 Face Landmarker"
"""Face Landmarker with blendshapes and matrix, in VIDEO mode."""
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "GLOG_minloglevel": "3",
}


def frames_at_720p(video: Path) -> Image:
    """Return the frames of a video as (N, 720, 1280, 3) uint8, each in the centre of a 720p frame with continued
    edges."""
    frames = []
    with open_source(video) as source:
        for frame in source:
            height, width = frame.image.shape[:2]
            scale = min(1.0, SIZE[1] / height, SIZE[0] / width)
            image = cv2.resize(frame.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            top, left = (SIZE[1] - image.shape[0]) // 2, (SIZE[0] - image.shape[1]) // 2
            bottom, right = SIZE[1] - image.shape[0] - top, SIZE[0] - image.shape[1] - left
            frames.append(cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_REPLICATE))
    return np.stack(frames)


def work(frames_file: Path, models: list[str], detector: str | None, precision: str, *, detecting: bool) -> None:
    """Run the worker: for every number N on standard input, process N frames and answer with one JSON line."""
    cv2.setNumThreads(1)
    frames = np.load(frames_file, mmap_mode="r")
    started = time.perf_counter()
    with Reconstructor(models, detector=detector, provider="cpu", threads=1, precision=precision) as reconstructor:
        load_ms = 1000 * (time.perf_counter() - started)
        # One face, as with MediaPipe's max_num_faces; with --detecting, as in its static_image_mode.
        pipeline = Pipeline(reconstructor, detect_every=1) if detecting else Pipeline(reconstructor, max_faces=1)
        index = 0
        for line in sys.stdin:
            milliseconds, cpu, stages, found = [], [], [], 0
            for _ in range(int(line)):
                image = np.array(frames[index % len(frames)])
                index += 1
                wall, busy = time.perf_counter(), time.process_time()
                scene = pipeline.process(Frame(image, "clip", index, still=False))
                milliseconds.append(1000 * (time.perf_counter() - wall))
                cpu.append(1000 * (time.process_time() - busy))
                stages.append(dict(scene.stages_ms))
                found += bool(scene.faces)
            reply = {"ms": milliseconds, "cpu_ms": cpu, "stages_ms": stages, "found": found, "load_ms": load_ms}
            reply["sha256"] = reconstructor.network.sha256
            print(json.dumps(reply), flush=True)


class Worker:
    """A process that times frames on request."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **ENVIRONMENT}
        )
        self.replies: list[dict[str, Any]] = []

    def time(self, count: int) -> dict[str, Any]:
        """Have the process time `count` frames, and return its reply."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended early; see its messages above")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def figures(self) -> dict[str, float]:
        """Return percentiles over all blocks."""
        ms = np.concatenate([reply["ms"] for reply in self.replies])
        cpu = np.concatenate([reply["cpu_ms"] for reply in self.replies])
        named = {f"p{p}": float(np.percentile(ms, p)) for p in (50, 90, 95, 99)}
        return {
            **named,
            "max": float(ms.max()),
            "variation": float(ms.std() / ms.mean()),
            "cpu_ms": float(cpu.mean()),
            "frames": float(len(ms)),
            "found_percent": 100 * sum(reply["found"] for reply in self.replies) / len(ms),
            "load_ms": float(self.replies[0]["load_ms"]),
        }


def stage_medians(worker: Worker) -> dict[str, float]:
    """Return the median milliseconds per stage."""
    stages = [stage for reply in worker.replies for stage in reply["stages_ms"]]
    return {name: float(np.median([stage[name] for stage in stages])) for name in stages[0]} if stages else {}


def machine() -> str:
    """Return processor, cores and versions as text."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.machine())
    packages = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "numpy", "opencv-python-headless"))
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return f"{cpu}, {os.cpu_count()} cores, load {load}; Python {platform.python_version()}, {packages}"


def report(workers: list[Worker], options: argparse.Namespace, command: str) -> str:
    """Return the report as Markdown."""
    names = list(workers[0].figures())
    lines = [
        "# Latency",
        "",
        f"`{command}`",
        "",
        "Single stream, one face at 1280x720 while tracking, one thread, CPU; ms per frame."
        + (" Faces are detected in every frame." if options.detecting else ""),
        "",
    ]
    lines += [machine(), "", f"{Path(options.video).name}, {BLOCK} frames a block, alternating.", ""]
    lines += ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for worker in workers:
        figures = worker.figures()
        lines.append(f"| {worker.name} | " + " | ".join(f"{figures[name]:.2f}" for name in names) + " |")
    peers = [worker for worker in workers if worker.name in (PEER, LANDMARKER)]
    for worker in workers:
        if worker in peers:
            continue
        medians = stage_medians(worker)
        stages = ", ".join(f"{name} {value:.2f}" for name, value in medians.items())
        lines += ["", f"{worker.name} (`{worker.replies[0]['sha256'][:16]}`) by stage, median ms: {stages}."]
        for peer in peers:
            ours, theirs = worker.figures(), peer.figures()
            ratios = ", ".join(f"{name} {ours[name] / theirs[name]:.2f}" for name in ("p50", "p90", "cpu_ms"))
            lines += ["", f"{worker.name} over {peer.name}: {ratios}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Let the workers take turns, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="model file; several make an ensemble [models/face.onnx]")
    parser.add_argument(
        "--precision",
        nargs="+",
        default=["fp32", "int8"],
        help="precisions of the files beside the model, with one worker each [fp32 int8]",
    )
    parser.add_argument("--detector", help="face detector [face_detector.onnx beside the model]")
    parser.add_argument("--video", default="tests/data/talking_head.mp4", help="video to process [%(default)s]")
    parser.add_argument("--blocks", type=int, default=10, help=f"number of blocks of {BLOCK} frames [%(default)s]")
    parser.add_argument("--mediapipe-python", help="Python of an environment with mediapipe==0.10.14")
    parser.add_argument("--mediapipe-task", type=Path, help="face_landmarker.task, to measure Face Landmarker as well")
    parser.add_argument("--detecting", action="store_true", help="detect faces in every frame [every few frames]")
    parser.add_argument("--out", type=Path, help="report to write [results/latency.md, or latency_detecting.md]")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.mediapipe_task and not options.mediapipe_python:
        parser.error("--mediapipe-task needs --mediapipe-python as well")
    models = options.model or ["models/face.onnx"]
    if options.worker:
        work(options.worker, models, options.detector, options.precision[0], detecting=options.detecting)
        return
    with tempfile.TemporaryDirectory() as folder:
        frames_file = Path(folder) / "frames.npy"
        np.save(frames_file, frames_at_720p(Path(options.video)))
        ours = [sys.executable, __file__, "--worker", str(frames_file)]
        for model in models:
            ours += ["--model", model]
        ours += ["--detector", options.detector] if options.detector else []
        ours += ["--detecting"] if options.detecting else []
        workers = [Worker(f"facerecon-rt {name}", [*ours, "--precision", name]) for name in options.precision]
        if options.mediapipe_python:
            peer = [options.mediapipe_python, str(Path(__file__).with_name("mediapipe_worker.py")), str(frames_file)]
            peer += ["--detecting"] if options.detecting else []
            workers.append(Worker(PEER, peer))
            if options.mediapipe_task:
                workers.append(Worker(LANDMARKER, [*peer, "--task", str(options.mediapipe_task)]))
        for worker in workers:
            worker.time(WARM_UP)
        for _ in range(options.blocks):
            for worker in workers:
                worker.replies.append(worker.time(BLOCK))
        for worker in workers:
            worker.process.communicate()
    text = report(workers, options, command_of(parser, options))
    options.out = options.out or RESULTS / ("latency_detecting.md" if options.detecting else "latency.md")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text)
    options.out.with_suffix(".json").write_text(
        json.dumps({worker.name: worker.figures() for worker in workers}, indent=1) + "\n"
    )
    print(text)


if __name__ == "__main__":
    main()

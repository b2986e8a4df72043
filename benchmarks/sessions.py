"""ONNX Runtime's session options on the CPU -> the cost and benefit of each, and the cost of an idle session.

    python benchmarks/sessions.py            # two minutes; writes results/sessions.md

Every line changes one of the options that the runtime sets (`session_options` in facerecon_rt/providers/choice.py).
Sessions take turns, one run each, so that other load on the machine affects all of them. Each session is opened in its
own process to measure its memory and its work while idle.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from commands import command_of
from facerecon_rt.environment import machine
from facerecon_rt.networks.golden import golden_crop
from facerecon_rt.providers.choice import import_onnxruntime, session_options
from facerecon_rt.providers.onnx_file import named_by_hash

RESULTS = Path(__file__).with_name("results")
RUNS = 800
IDLE_S = 2.0
Change = Callable[[Any, Any], None]


def without_arena(ort: Any, options: Any) -> None:
    """Allocate memory in every run."""
    options.enable_cpu_mem_arena = False


def without_pattern(ort: Any, options: Any) -> None:
    """Run without a plan for the memory of each tensor."""
    options.enable_mem_pattern = False


def extended_only(ort: Any, options: Any) -> None:
    """Run without layout optimisations."""
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED


def flush_denormals(ort: Any, options: Any) -> None:
    """Treat numbers near 0 as 0."""
    options.add_session_config_entry("session.set_denormal_as_zero", "1")


def two_threads(ort: Any, options: Any) -> None:
    """Use a second core."""
    options.intra_op_num_threads = 2


def two_threads_spinning(ort: Any, options: Any) -> None:
    """Use ONNX Runtime's default: the second thread waits for work at full speed."""
    two_threads(ort, options)
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")


def unprepacked(ort: Any, options: Any) -> None:
    """Keep the weights as they are in the file."""
    options.add_session_config_entry("session.disable_prepacking", "1")


CHANGES: dict[str, Change] = {
    "as set": lambda ort, options: None,
    "no arena": without_arena,
    "no memory pattern": without_pattern,
    "extended optimisations only": extended_only,
    "denormals flushed": flush_denormals,
    "weights not prepacked": unprepacked,
    "two threads": two_threads,
    "two threads, spinning": two_threads_spinning,
}


def opened(model: Path, change: Change) -> Any:
    """Return a session on the CPU."""
    ort = import_onnxruntime()
    options = session_options(ort, 1)
    change(ort, options)
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def resident_mb() -> float:
    """Return the resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def crop_for(session: Any) -> np.ndarray:
    """Return the golden crop (1, S, S, 3) in a session's input size."""
    return golden_crop(session.get_inputs()[0].shape[1])[None]


def work(model: Path, name: str) -> None:
    """Run the worker: print a session's load time, memory and idle cost after a run, as JSON."""
    import_onnxruntime()
    before, started = resident_mb(), time.perf_counter()
    session = opened(model, CHANGES[name])
    load_ms = 1000 * (time.perf_counter() - started)
    images = crop_for(session)
    idle = []
    for _ in range(20):
        session.run(None, {"image": images})
    memory_mb = resident_mb() - before
    # A camera gives 10 frames per second; this is the processor time between frames.
    for _ in range(int(10 * IDLE_S)):
        session.run(None, {"image": images})
        cpu = time.process_time()
        time.sleep(0.1)
        idle.append(time.process_time() - cpu)
    print(json.dumps({"load ms": load_ms, "memory MB": memory_mb, "idle, % of a core": 1000 * float(np.mean(idle))}))


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, nargs="+", help="model files [models/face.onnx models/face.int8-cpu.onnx]"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "sessions.md", help="table to write [%(default)s]")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    models: list[Path] = options.model or [Path("models/face.onnx"), Path("models/face.int8-cpu.onnx")]
    if options.worker:
        work(models[0], options.worker)
        return
    facts = machine()
    lines = ["# Session options on the CPU", "", f"`{command_of(parser, options)}`", ""]
    lines += [f"{facts['processor']}, {facts['cores usable']} cores, onnxruntime {facts['onnxruntime']}.", ""]
    for model in models:
        sessions = {name: opened(model, change) for name, change in CHANGES.items()}
        images = crop_for(next(iter(sessions.values())))
        samples: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(RUNS):
            for name, session in sessions.items():
                started = time.perf_counter()
                session.run(None, {"image": images})
                samples[name].append(1000 * (time.perf_counter() - started))
        del sessions
        medians = {name: float(np.median(values[50:])) for name, values in samples.items()}
        rows = []
        for name in CHANGES:
            command = [sys.executable, __file__, "--model", str(model), "--worker", name]
            answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            figures = {"p50 ms": medians[name], "ratio to as set": medians[name] / medians["as set"], **answer}
            rows.append(f"| {name} | " + " | ".join(f"{value:.2f}" for value in figures.values()) + " |")
        lines += [
            f"## {model.name}",
            "",
            f"{named_by_hash(model)}.",
            "",
            "| | " + " | ".join(figures) + " |",
            "|---" * (len(figures) + 1) + "|",
        ]
        lines += [*rows, ""]
    options.out.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()

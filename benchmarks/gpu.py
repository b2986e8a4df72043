"""Providers on this machine: correctness, speed, and how near the speed is to the machine's limit. For GPUs.

    python benchmarks/gpu.py                        # CUDA and TensorRT; writes results/gpu.md and gpu.json
    python benchmarks/gpu.py --providers cpu        # the same for a CPU; writes results/cpu.md

The report has four figures for each provider and precision: the difference of the answers from the fp32 file's on the
CPU (mm, degrees, pixels), the latency of one crop, crops per second by batch size, and the share of the roofline
(Williams et al., CACM 2009). The roofline is the network's multiply-adds and bytes over the rates of the same provider
in one large matrix product and one large copy. Crops are those of the faces in the repository's clip.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

try:
    import onnx
except ModuleNotFoundError:
    raise SystemExit("this benchmark needs onnx, which is not installed: pip install onnx") from None
from commands import command_of
from facerecon_export.describe import multiply_adds
from facerecon_rt import FaceSession, Reconstructor
from facerecon_rt.bench.fidelity import difference, face_crops
from facerecon_rt.bench.measure import frames_in_memory
from facerecon_rt.environment import machine, sensors
from facerecon_rt.errors import FaceReconError
from facerecon_rt.networks.precision import file_of_precision
from facerecon_rt.providers.batches import BUCKETS
from facerecon_rt.providers.choice import ORT_NAMES, import_onnxruntime, session_options
from facerecon_rt.providers.nvidia import AS_USUAL, cuda_options
from facerecon_rt.providers.onnx_file import read_onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

RESULTS = Path(__file__).with_name("results")
CLIP = Path("tests/data/talking_head.mp4")
PRECISIONS = {"cpu": ("fp32", "int8"), "cuda": ("fp32", "fp16"), "tensorrt": ("fp32", "fp16", "int8")}
"""Provider -> precisions of the files that are made for it."""
WARM_UP, COUNT = 50, 300
SIDE = 1024
"""Side of the matrices whose product gives the compute limit of a CPU. A GPU needs four times this side to be busy."""
COPIED_BYTES = 2**28

Figures = dict[str, float]


def seconds(run: Any, count: int) -> NDArray[np.float64]:
    """Return the seconds (count,) of calls of `run`."""
    found = []
    for _ in range(count):
        started = time.perf_counter()
        run()
        found.append(time.perf_counter() - started)
    return np.array(found)


def constant_bytes(path: Path) -> float:
    """Return the bytes of the weights, which a batch of one reads once each."""
    return float(sum(numpy_helper.to_array(tensor).nbytes for tensor in onnx.load(path).graph.initializer))


def limits(provider: str, precision: str) -> Figures:
    """Return the best rates of the provider through ONNX Runtime.

    They are the multiply-adds per second of one large matrix product in this precision, and the bytes per second, read
    and written, of one large addition.
    """
    side = SIDE if provider == "cpu" else 4 * SIDE
    dtype = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "int8": TensorProto.FLOAT16}[precision]
    make = helper.make_tensor_value_info
    if precision == "int8" and provider == "cpu":
        # Unsigned codes times signed weights, as in our file. ONNX Runtime has no such product on GPUs.
        node = helper.make_node("MatMulInteger", ["a", "b"], ["y"])
        inputs, output = [("a", TensorProto.UINT8), ("b", TensorProto.INT8)], TensorProto.INT32
    else:
        node, inputs, output = helper.make_node("MatMul", ["a", "b"], ["y"]), [("a", dtype), ("b", dtype)], dtype
    numpy_types = {kind: helper.tensor_dtype_to_np_dtype(kind) for _, kind in inputs}
    weights = numpy_helper.from_array(np.ones((side, side), numpy_types[inputs[1][1]]), "b")
    product = helper.make_graph(
        [node], "product", [make("a", inputs[0][1], [side, side])], [make("y", output, [side, side])], [weights]
    )
    a = np.ones((side, side), numpy_types[inputs[0][1]])
    rate = side**3 / _best_s(provider, product, {"a": a})
    length = COPIED_BYTES // 8
    copy = helper.make_graph(
        [helper.make_node("Add", ["a", "a"], ["y"])], "copy", [make("a", 1, [length])], [make("y", 1, [length])]
    )
    copied = 8 * length / _best_s(provider, copy, {"a": np.ones(length, np.float32)})
    return {"multiply_adds_per_s": rate, "bytes_per_s": copied}


def _best_s(provider: str, graph: onnx.GraphProto, feeds: Mapping[str, NDArray[Any]]) -> float:
    """Return the seconds of one run on data that lie on the device."""
    ort = import_onnxruntime()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    # TensorRT's limit is CUDA's, because the device is the same.
    providers = [ORT_NAMES["cpu"]] if provider == "cpu" else [(ORT_NAMES["cuda"], cuda_options(AS_USUAL))]
    session = ort.InferenceSession(model.SerializeToString(), session_options(ort, 1), providers=providers)
    device = "cpu" if provider == "cpu" else "cuda"
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value, device, 0))
    binding.bind_output("y", device)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    seconds(run, 3)
    return float(seconds(run, 15).min())


def measured(model: Path, provider: Any, precision: str, crops: NDArray[np.uint8]) -> dict[str, Any]:
    """Measure one file on one provider."""
    path = file_of_precision(model, precision, provider)
    started = time.perf_counter()
    with FaceSession(path, provider=provider) as session:
        load_s = time.perf_counter() - started
        fidelity, note = difference(session, [model], crops)
        batches = {}
        for batch in BUCKETS:
            images = np.take(crops, range(batch), axis=0, mode="wrap")
            seconds(partial(session.run, images), WARM_UP)
            spent = 1000 * seconds(partial(session.run, images), COUNT)
            batches[batch] = {
                "p50_ms": float(np.percentile(spent, 50)),
                "p90_ms": float(np.percentile(spent, 90)),
                "crops_per_s": 1000 * batch / float(spent.mean()),
            }
    work, weights, limit = multiply_adds(onnx.load(model)), constant_bytes(path), limits(provider, precision)
    share = {
        batch: 100 * work * figures["crops_per_s"]
        / min(limit["multiply_adds_per_s"], limit["bytes_per_s"] * work * batch / weights)
        for batch, figures in batches.items()
    }  # fmt: skip
    return {
        "file": path.name,
        "sha256": read_onnx(path).sha256,
        "provider": provider,
        "precision": precision,
        "load_s": load_s,
        "fidelity": fidelity,
        "fidelity_note": note,
        "batches": batches,
        "multiply_adds": work,
        "weight_bytes": weights,
        "limits": limit,
        "roofline_percent": share,
    }


def markdown(report: Mapping[str, Any]) -> str:
    """Return the report as Markdown tables."""
    facts = report["machine"]
    lines = ["# Providers", "", f"`{report['command']}`", ""]
    lines += ["; ".join(f"{name} {fact}" for name, fact in facts.items()), ""]
    lines += [", ".join(f"`{one['file']}` (`{one['sha256'][:16]}`)" for one in report["measured"]) + ".", ""]
    lines += [f"Not run: {missing}" for missing in report["missing"]] + ([""] if report["missing"] else [])
    head = ["file", "provider", "load s", "vertices mm", "rotation deg", "landmarks px"]
    head += ["p50 / p90 ms, one crop", *(f"{batch}: crops/s (% of roofline)" for batch in BUCKETS)]
    lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for one in report["measured"]:
        fidelity = one["fidelity"] or {"vertices_mm": 0.0, "rotation_deg": 0.0, "landmarks_px": 0.0}
        first = one["batches"][BUCKETS[0]]
        cells = [one["file"], one["provider"], f"{one['load_s']:.2f}"]
        cells += [f"{fidelity[name]:.3f}" for name in ("vertices_mm", "rotation_deg", "landmarks_px")]
        cells.append(f"{first['p50_ms']:.2f} / {first['p90_ms']:.2f}")
        for batch, figures in one["batches"].items():
            cells.append(f"{figures['crops_per_s']:.0f} ({one['roofline_percent'][batch]:.0f} %)")
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Limits, measured with one large matrix product and one large addition through ONNX Runtime:", ""]
    lines += ["| provider | precision | 10^9 multiply-adds/s | GB/s | a crop: 10^6 multiply-adds, MB of weights |"]
    lines.append("|---" * 5 + "|")
    for one in report["measured"]:
        limit = one["limits"]
        lines.append(
            f"| {one['provider']} | {one['precision']} | {limit['multiply_adds_per_s'] / 1e9:.0f} | "
            f"{limit['bytes_per_s'] / 1e9:.0f} | {one['multiply_adds'] / 1e6:.1f}, {one['weight_bytes'] / 1e6:.1f} |"
        )
    return "\n".join(lines) + "\n"


def run(model: Path, providers: Sequence[str]) -> dict[str, Any]:
    """Measure every provider that works here, and name the others."""
    with Reconstructor(model, provider="cpu") as reconstructor:
        crops = face_crops(reconstructor, frames_in_memory(str(CLIP)))
    found, absent = [], []
    before = sensors()
    for provider in providers:
        for precision in PRECISIONS[provider]:
            try:
                found.append(measured(model, provider, precision, crops))
            except FaceReconError as error:
                absent.append(str(error))
                break
    return {
        "machine": machine(),
        "sensors": {"before": before, "after": sensors()},
        "measured": found,
        "missing": absent,
    }


def main() -> int:
    """Measure and write the results. Return 1 if a requested provider did not run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/face.onnx"), help="model file [%(default)s]")
    parser.add_argument(
        "--providers", nargs="+", choices=PRECISIONS, default=["cuda", "tensorrt"], help="[cuda tensorrt]"
    )
    parser.add_argument("--out", type=Path, help="report to write [results/gpu.md, or cpu.md for a CPU alone]")
    options = parser.parse_args()
    report = {"command": command_of(parser, options), **run(options.model, options.providers)}
    text = markdown(report)
    print(text)
    if report["measured"]:
        out = options.out or RESULTS / ("cpu.md" if options.providers == ["cpu"] else "gpu.md")
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
        out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    return 1 if report["missing"] else 0


if __name__ == "__main__":
    raise SystemExit(main())

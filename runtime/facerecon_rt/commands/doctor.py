"""`facerecon-rt doctor`: check this machine's installation, and name the command that repairs each problem."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from ..environment import Facts, fastest_power_mode, governor, installed_version, machine
from ..errors import FaceReconError
from ..faces.detect import open_detector
from ..faces.reconstruct import DETECTOR_NAME
from ..networks.session import FaceSession
from ..opencv import WHEELS
from ..paths import is_file, read_file
from ..providers.choice import DRIVER, OLDEST, failures, import_onnxruntime, short_reason
from ..providers.nvidia import load_library, preload_cuda, rtx_devices, rtx_version, tensorrt_linked
from ..shipped import DEFAULT, DEFAULT_ON_CPU, shipped_models
from ..sources.interlaced import converts_interlaced
from .arguments import Parser, model_file

SCHEMA = "facerecon-doctor/1"
JETPACK = "sudo apt-get install nvidia-jetpack"
ORT_WHEELS = ("onnxruntime", "onnxruntime-gpu")
OLDEST_PYTHON = (3, 10)
SUMS = "SHA256SUMS"
MOST_SUMS_BYTES = 2**20
SHIPPED = (DEFAULT, DEFAULT_ON_CPU)
"""Names of the shipped FaceModel files that every installation has, and that run on a CPU."""

State = Literal["ok", "note", "problem"]
MARKS: dict[State, str] = {"ok": "ok  ", "note": "note", "problem": "!!  "}


@dataclass(frozen=True, slots=True)
class Check:
    """Result of one check."""

    check: str
    state: State
    """Result of the check. `note` means that it works, but lacks something that some users need."""
    what: str
    fix: str = ""
    """Command that repairs the problem, where there is one."""


def examine(facts: Facts, models: Sequence[Path]) -> list[Check]:
    """Run all checks. `facts`: facts of the `machine`. `models`: FaceModel files."""
    found = [python_version(sys.version_info[:2]), onnxruntime_wheels(facts), opencv_wheels(facts)]
    if "JetPack" in facts:
        found.insert(
            0, Check("Jetson", "ok", f"{facts.get('board', 'unknown board')}, Jetson Linux {facts['JetPack']}")
        )
    if all(finding.state != "problem" for finding in found):
        found += onnxruntime_providers(facts)
    found += [
        processor(facts.get("instructions", "")),
        power(facts, governor(), fastest_power_mode()),
        *cameras(Path("/dev")),
        video_codecs(cv2.getBuildInformation()),
        video_library(installed_version("av")),
    ]
    if not models:
        what = "this installation came without model files"
        found.append(Check("model", "note", what, "facerecon-rt doctor --model FILE"))
    for model in models:
        found += [finding for finding in check_model(model) if finding not in found]
    return found


def python_version(version: tuple[int, ...]) -> Check:
    """Check that Python is new enough."""
    text = ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        needed = ".".join(map(str, OLDEST_PYTHON))
        return Check("Python", "problem", f"{text} is older than {needed}", f"install Python {needed} or newer")
    return Check("Python", "ok", text)


def gpu_wheel(facts: Facts) -> str:
    """Return the command that installs an ONNX Runtime for this machine's GPU."""
    if "JetPack" not in facts:
        return "pip install 'facerecon-rt[gpu]'"
    # PyPI's wheel for aarch64 is for servers and holds no code for a Jetson's GPU.
    if "R36" in facts["JetPack"]:
        return "pip install --no-deps --index-url https://pypi.jetson-ai-lab.io/jp6/cu126 onnxruntime-gpu==1.23.0"
    return "build ONNX Runtime's wheel as runtime/deploy/README.md says"


def onnxruntime_wheels(packages: Facts) -> Check:
    """Check that exactly one of the wheels that overwrite each other is installed."""
    there = [name for name in ORT_WHEELS if name in packages]
    if len(there) > 1:
        fix = f"pip uninstall -y onnxruntime onnxruntime-gpu && {gpu_wheel(packages)}"
        return Check("ONNX Runtime", "problem", "both wheels are installed and overwrite each other", fix)
    if not there:
        fix = f"pip install 'facerecon-rt[cpu]', or on a machine with an NVIDIA GPU {gpu_wheel(packages)}"
        return Check("ONNX Runtime", "problem", "not installed", fix)
    found = packages[there[0]]
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < tuple(map(int, OLDEST.split("."))):
        fix = f"pip install -U '{there[0]}>={OLDEST}'"
        return Check("ONNX Runtime", "problem", f"{there[0]} {found} is older than {OLDEST}", fix)
    return Check("ONNX Runtime", "ok", f"{there[0]} {found}")


def opencv_wheels(packages: Facts, loaded: str = cv2.__version__, where: str = str(cv2.__file__)) -> Check:
    """Check that at most one of OpenCV's wheels is installed, and that Python loads this wheel. `loaded`, `where`:
    version and file of the loaded OpenCV."""
    there = [name for name in WHEELS if name in packages]
    if not there:
        return Check("OpenCV", "ok", f"{loaded}, built outside pip")
    # The contrib wheel is kept, since it has more modules than the others, which its user needs.
    kept = next((name for name in there if "contrib" in name), there[0])
    fix = f"pip uninstall -y {' '.join(there)} && pip install {kept}=={packages[kept]}"
    if len(there) > 1:
        what = f"{' and '.join(f'{name} {packages[name]}' for name in there)} overwrite each other"
        return Check("OpenCV", "problem", what, fix)
    # The version of the wheel has one number more than that of OpenCV.
    if not f"{packages[kept]}.".startswith(f"{loaded.partition('-')[0]}."):
        what = f"{kept} {packages[kept]} is installed, but {loaded} is loaded from {Path(where).parent}"
        return Check("OpenCV", "problem", what, fix)
    return Check("OpenCV", "ok", f"{kept} {packages[kept]}")


def onnxruntime_providers(facts: Facts) -> list[Check]:
    """Check the providers of ONNX Runtime, and whether their libraries and the driver are installed."""
    try:
        ort = import_onnxruntime()
    except FaceReconError as error:
        what, _, fix = str(error).partition("; ")
        return [Check("ONNX Runtime", "problem", what, fix)]
    available = ort.get_available_providers()
    gpu = facts.get("gpu", "")
    found = [Check("providers", "ok", ", ".join(name.removesuffix("ExecutionProvider") for name in available))]
    if plugin := rtx_version():
        found.append(tensorrt_for_rtx(ort, plugin))
    if "CUDAExecutionProvider" not in available:
        if gpu or "JetPack" in facts:
            gpu = gpu or facts.get("board", "a Jetson")
            fix = f"pip uninstall -y onnxruntime && {gpu_wheel(facts)}"
            found.append(Check("CUDA", "problem", f"{gpu} is present, but this ONNX Runtime supports CPUs only", fix))
        return found
    found.append(gpu_driver(gpu, load_library("libcuda.so.1") is not None))
    preload_cuda(ort)
    jetson = "JetPack" in facts
    found.append(library("cuDNN", "libcudnn.so.9", JETPACK if jetson else "pip install nvidia-cudnn-cu12"))
    if "TensorrtExecutionProvider" in available:
        found.append(tensorrt(tensorrt_linked(ort), facts.get("tensorrt", ""), jetson=jetson))
    elif jetson:
        what = "this ONNX Runtime has none; PyPI's wheel is for servers and has no code for a Jetson's GPU"
        found.append(Check("TensorRT", "problem", what, f"pip uninstall -y onnxruntime-gpu && {gpu_wheel(facts)}"))
    return found


def tensorrt_for_rtx(ort: Any, plugin: str) -> Check:
    """Check that the plug-in provider loads and sees a GPU."""
    try:
        devices = rtx_devices(ort)
    except failures(ort) as error:
        return Check("TensorRT for RTX", "problem", f"{plugin} does not load ({short_reason(error)})", DRIVER)
    if not devices:
        return Check("TensorRT for RTX", "problem", f"{plugin} sees no GPU", DRIVER)
    return Check("TensorRT for RTX", "ok", plugin)


def gpu_driver(gpu: str, driver_loads: bool) -> Check:
    """Check that there is a GPU with a working driver."""
    if gpu:
        return Check("GPU", "ok", gpu)
    if driver_loads:
        return Check(
            "GPU", "note", "the driver's library loads, but nvidia-smi is missing or sees no GPU", "nvidia-smi"
        )
    what = "no NVIDIA driver: CUDA and TensorRT cannot start"
    return Check("GPU", "problem", what, f"{DRIVER}; or --provider cpu")


def library(name: str, file: str, fix: str) -> Check:
    """Check that a shared library loads."""
    if load_library(file) is None:
        return Check(name, "problem", f"{file} is missing", fix)
    return Check(name, "ok", f"{file} loads")


def tensorrt(linked: str, installed: str, *, jetson: bool = False) -> Check:
    """Check that the installed TensorRT has the major version that ONNX Runtime was linked with."""
    if linked and load_library(f"libnvinfer.so.{linked}") is not None:
        return Check("TensorRT", "ok", f"libnvinfer.so.{linked} loads")
    major = installed.partition(".")[0]
    if not linked:
        return Check("TensorRT", "note", "the TensorRT version that this ONNX Runtime links is unknown")
    fix = JETPACK if jetson else f"pip install 'tensorrt>={linked},<{int(linked) + 1}'"
    if not installed:
        return Check("TensorRT", "note", f"not installed; this ONNX Runtime links TensorRT {linked}", fix)
    if major != linked:
        return Check("TensorRT", "problem", f"{installed} is installed, but this ONNX Runtime links {linked}", fix)
    return Check("TensorRT", "ok", f"{installed}, the version that ONNX Runtime links")


def processor(instructions: str) -> Check:
    """Check that the processor has the instructions that make int8 fast."""
    names = instructions.split()
    if "asimd" in names and "asimddp" not in names:
        # Without them ONNX Runtime converts matrices in blocks of codes to floats in every run.
        what = "no 8-bit dot products (asimddp): int8 files may be slower than float32"
        return Check("processor", "note", what, "facerecon-rt bench --model FILE --precision int8")
    return Check("processor", "ok", instructions or "unknown instructions")


def power(facts: Facts, governor: str, fastest: str = "") -> Check:
    """Check that the processor may run at full speed. `fastest`: number of a Jetson's power mode without limits."""
    board, mode = facts.get("board", ""), facts.get("power mode", "")
    if mode and "MAXN" not in mode:
        fix = (
            f"sudo nvpmodel -m {fastest} && sudo jetson_clocks"
            if fastest
            else "sudo nvpmodel -p --verbose lists the modes"
        )
        return Check("power", "note", f"{board or 'this board'} is in power mode {mode}", fix)
    if governor and governor not in ("performance", "schedutil"):
        fix = "sudo cpupower frequency-set -g performance"
        return Check("power", "note", f"the frequency governor is {governor}: latencies will vary", fix)
    return Check("power", "ok", mode or governor or "unknown power mode")


def cameras(devices: Path) -> list[Check]:
    """Check that this user may read the video devices in a folder."""
    found = []
    for device in sorted(devices.glob("video*")):
        if os.access(device, os.R_OK | os.W_OK):
            found.append(Check("camera", "ok", str(device)))
        else:
            fix = "sudo usermod -aG video $USER, then log in again"
            found.append(Check("camera", "problem", f"{device}: no permission", fix))
    return found or [Check("camera", "note", "no video device; files and network streams work")]


def video_codecs(build: str) -> Check:
    """Check the video support in OpenCV's build information."""

    def has(name: str) -> bool:
        return bool(re.search(rf"^\s*{name}:\s+YES", build, re.MULTILINE))

    if not has("FFMPEG"):
        fix = "pip install --force-reinstall opencv-python-headless"
        return Check("video", "problem", "OpenCV was built without FFmpeg: no videos, no network streams", fix)
    if not has("GStreamer"):
        return Check("video", "ok", "FFmpeg; no GStreamer, which only cameras on a Jetson's CSI port need")
    return Check("video", "ok", "FFmpeg and GStreamer")


def video_library(pyav: str) -> Check:
    """Check that PyAV is installed, which reads more videos than OpenCV. `pyav`: its version, empty without it."""
    if pyav:
        return Check("video files", "ok", f"PyAV {pyav}")
    lacks = "AV1, no sound in annotated videos, and no H.264, which browsers play"
    if not converts_interlaced():
        lacks = f"interlaced video (OpenCV {cv2.__version__} cannot convert it), no {lacks}"
    return Check("video files", "note", f"without PyAV there is no {lacks}", "pip install 'facerecon-rt[video]'")


def check_model(path: Path) -> Iterator[Check]:
    """Check that a model file is complete, from this project and runs here, and that a detector lies beside it."""
    check = f"model {path.name}"
    try:
        with FaceSession(path) as session:
            size = session.contract.input_size
            session.run(np.zeros((1, size, size, 3), np.uint8))
            kind = f"{session.contract.precision}, {session.contract.backbone}, {session.contract.terms or 'no terms'}"
            yield Check(check, "ok", f"{kind}; runs on {session.choice}")
            yield checksum(path, session.sha256)
    except FaceReconError as error:
        what, _, fix = str(error).partition("; ")
        yield Check(check, "problem", what, fix)
        return
    yield from detector_file(path.with_name(DETECTOR_NAME))


def detector_file(path: Path) -> Iterator[Check]:
    """Check that the detector exists, is complete and runs."""
    check = f"detector {path.name}"
    if not is_file(path):
        yield Check(
            check, "problem", f"none in {path.parent}", f"cp models/{path.name} {path.parent}/, or --detector FILE"
        )
        return
    try:
        detector = open_detector(path)
        detector.detect(np.zeros((64, 64, 3), np.uint8))
    except FaceReconError as error:
        what, _, fix = str(error).partition("; ")
        yield Check(check, "problem", what, fix)
        return
    yield Check(check, "ok", "runs")
    yield checksum(path, hashlib.sha256(path.read_bytes()).hexdigest())


def checksum(path: Path, digest: str) -> Check:
    """Check the hash of a file against SHA256SUMS beside it."""
    check, sums = f"hash of {path.name}", path.parent / SUMS
    try:
        lines = read_file(sums, MOST_SUMS_BYTES).decode().splitlines()
        pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
        listed = {name.lstrip("*"): listed_digest for listed_digest, name in pairs}
    except (OSError, ValueError):
        listed = {}
    if path.name not in listed:
        return Check(check, "note", f"{digest[:16]}…; no {SUMS} beside it lists the file")
    if listed[path.name] != digest:
        what = f"{digest[:16]}… differs from {SUMS}: the file was changed or damaged"
        return Check(check, "problem", what, f"cd {path.parent} && sha256sum -c {SUMS}, and copy the file again")
    return Check(check, "ok", f"{digest[:16]}…, as in {SUMS}")


def as_text(findings: Sequence[Check]) -> str:
    """Return one line for each finding, with its fix below it."""
    lines = []
    for finding in findings:
        lines.append(f"{MARKS[finding.state]} {finding.check}: {finding.what}")
        if finding.fix:
            lines.append(f"       fix: {finding.fix}")
    return "\n".join(lines)


def as_json(findings: Sequence[Check], facts: Facts) -> str:
    """Return JSON with schema, healthy, machine (the facts) and findings [{check, state, what, fix}]."""
    listed = [asdict(finding) for finding in findings]
    return json.dumps({"schema": SCHEMA, "healthy": healthy(findings), "machine": facts, "findings": listed}, indent=1)


def healthy(findings: Sequence[Check]) -> bool:
    """Return whether there is no problem. Notes do not count."""
    return all(finding.state != "problem" for finding in findings)


def main(arguments: Sequence[str]) -> int:
    """Run `doctor` with the arguments behind it. Returns the exit code: 0 healthy, 1 with a problem."""
    parser = Parser(
        prog="facerecon-rt doctor",
        description="Check this machine's installation, and name the command that repairs each problem.",
        epilog="exit codes: 0 healthy (notes do not count), 1 with a problem",
    )
    parser.add_argument(
        "--model",
        action="append",
        type=model_file,
        metavar="FILE",
        help=f"FaceModel file to check, or the name of a shipped one; repeatable [shipped: {' and '.join(SHIPPED)}]",
    )
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    options = parser.parse_args(arguments)
    facts = machine()
    shipped = [path for path in shipped_models() if path.name in SHIPPED]
    findings = examine(facts, [Path(path) for path in options.model or ()] or shipped)
    sys.stdout.write((as_json(findings, facts) if options.json else as_text(findings)) + "\n")
    sys.stdout.flush()
    return 0 if healthy(findings) else 1

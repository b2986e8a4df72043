"""Cost of facerecon-rt on a device beside MediaPipe: disk, imports, memory, and the time to the first result.

    python benchmarks/footprint.py                                          # facerecon-rt alone
    python benchmarks/footprint.py --mediapipe-python mp-venv/bin/python    # and MediaPipe 0.10.14

`pip install '.[cpu]'` installs into a fresh virtual environment, which is measured and in which everything runs.
MediaPipe has its own environment (`python -m venv mp-venv; mp-venv/bin/pip install mediapipe==0.10.14 "numpy<2"`). The
scenario is that of latency.py: at most one face at 720p while tracking, one thread, CPU. Processes take turns, so that
other load on the machine affects all of them. Sizes and memory do not depend on the load, and processor seconds hardly
do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from commands import command_of
from facerecon_rt.environment import machine
from facerecon_rt.providers.onnx_file import read_onnx
from latency import ENVIRONMENT, PEER, RESULTS, SIZE, frames_at_720p

REPOSITORY = Path(__file__).parents[1]
WORKER = Path(__file__).with_name("footprint_worker.py")
TOOLS = ("pip", "setuptools", "wheel")
"""Packages that come with a virtual environment and that no program needs."""
SIZES = """
import json, os, sysconfig
from importlib.metadata import distributions
site = sysconfig.get_paths()["purelib"]
sizes = {}
for found in distributions(path=[site]):
    files = [str(found.locate_file(file)) for file in found.files or ()]
    here = [file for file in files if os.path.realpath(file).startswith(os.path.realpath(site))]
    name = f"{found.metadata['Name']} {found.version}"
    sizes[name] = sum(os.path.getsize(file) for file in here if os.path.isfile(file))
print(json.dumps(sizes))
"""
"""Script for the environment's own Python. It prints, for each distribution and version, the bytes in site-packages by
pip's records."""
MB = 2**20


@dataclass(slots=True)
class Subject:
    """One column of the table."""

    name: str
    python: Path
    package: str
    arguments: list[str]
    models_mb: float
    """Size of the model files, which are not in site-packages."""
    samples: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **figures: float) -> None:
        """Add one sample to each figure."""
        for name, value in figures.items():
            self.samples.setdefault(name, []).append(value)

    def import_once(self) -> None:
        """Measure the import of the package in a new process."""
        answer = self._run([str(WORKER), "import", self.package])
        figures = json.loads(answer.communicate()[0])
        self.add(**{"import, s": figures["wall_s"], "import, processor s": figures["cpu_s"]})

    def start_once(self, frames: Path, count: int) -> dict[str, Any]:
        """Run `count` frames in a new process, and return its final message."""
        started = time.perf_counter()
        process = self._run(
            [str(WORKER), "run", self.package, str(frames), str(count), *map(str, SIZE), *self.arguments]
        )
        assert process.stdout
        first = process.stdout.readline()
        waited = time.perf_counter() - started
        rest = process.communicate()[0]
        if not first or not rest:
            raise SystemExit(f"{self.name} ended early; see its messages above")
        figures = {"start to first result, s": waited, "start to first result, processor s": json.loads(first)["cpu_s"]}
        self.add(**figures)
        answer: dict[str, Any] = json.loads(rest)
        return answer

    def _run(self, command: list[str]) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [str(self.python), *command]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**environment, **ENVIRONMENT})


def fresh_environment(folder: Path) -> Path:
    """Install `.[cpu]` into a new virtual environment, and return its Python."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"{REPOSITORY}[cpu]"], check=True)
    return python


def sizes_mb(python: Path) -> dict[str, float]:
    """Return the MB of each distribution and version in this Python's site-packages, the largest first."""
    answer = subprocess.run([python, "-c", SIZES], capture_output=True, text=True, check=True).stdout
    sizes = {name: size / MB for name, size in json.loads(answer).items() if name.split()[0].lower() not in TOOLS}
    return dict(sorted(sizes.items(), key=lambda pair: -pair[1]))


def table(subjects: list[Subject]) -> list[str]:
    """Return the medians as a Markdown table."""
    names = list(subjects[0].samples)
    lines = ["| | " + " | ".join(subject.name for subject in subjects) + " |", "|---" * (len(subjects) + 1) + "|"]
    for name in names:
        lines.append(f"| {name} | " + " | ".join(f"{median(subject.samples[name]):.3g}" for subject in subjects) + " |")
    return lines


def report(
    subjects: list[Subject], packages: dict[str, dict[str, float]], options: argparse.Namespace, command: str
) -> str:
    """Return the report as Markdown."""
    lines = ["# Footprint", "", f"`{command}`", ""]
    facts, load = machine(), " ".join(f"{value:.1f}" for value in os.getloadavg())
    lines += [f"{facts['processor']}, {facts['cores usable']} cores, load {load}; Python {facts['Python']}.", ""]
    lines += [f"models/face.onnx `{read_onnx(REPOSITORY / 'models' / 'face.onnx').sha256[:16]}`.", ""]
    lines += [
        f"One face at {SIZE[0]}x{SIZE[1]} while tracking, one thread, CPU. Figures are medians of {options.starts} "
        f"processes each, which take turns; memory is measured after {options.frames} frames. MB are 2^20 bytes; sizes "
        "are those of the files. The import loads numpy and OpenCV; the first model loads ONNX Runtime.",
        "",
        *table(subjects),
        "",
    ]
    for name, sizes in packages.items():
        large = [f"{package}: {size:.0f}" for package, size in sizes.items() if size >= 1]
        lines += [f"{name}, MB by package: {', '.join(large)}; {len(sizes) - len(large)} smaller packages.", ""]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Install, measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mediapipe-python", type=Path, help="Python of an environment with mediapipe==0.10.14")
    parser.add_argument("--frames", type=int, default=1000, help="frames before memory is measured [%(default)s]")
    parser.add_argument(
        "--starts", type=int, default=7, help="processes of each column for imports and starts [%(default)s]"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "footprint.md", help="report to write [%(default)s]")
    options = parser.parse_args()
    models = REPOSITORY / "models"
    with tempfile.TemporaryDirectory() as temporary:
        frames = Path(temporary) / "frames.bgr"
        frames_at_720p(REPOSITORY / "tests" / "data" / "talking_head.mp4").tofile(frames)
        ours = fresh_environment(Path(temporary) / "venv")
        packages = {"facerecon-rt": sizes_mb(ours)}
        subjects = []
        for precision, file in (("fp32", "face.onnx"), ("int8", "face.int8-cpu.onnx")):
            model_mb = sum((models / name).stat().st_size for name in (file, "face_detector.onnx")) / MB
            arguments = ["--model", str(models / "face.onnx"), "--precision", precision]
            subjects.append(Subject(f"facerecon-rt {precision}", ours, "facerecon_rt", arguments, model_mb))
        if options.mediapipe_python:
            packages[PEER] = sizes_mb(options.mediapipe_python)
            subjects.append(Subject(PEER, options.mediapipe_python, "mediapipe", [], 0.0))
        for subject in subjects:
            on_disk = packages[PEER if subject.name == PEER else "facerecon-rt"]
            subject.add(**{"site-packages, MB": sum(on_disk.values()), "models beside it, MB": subject.models_mb})
            subject.import_once()  # reads from the disk into the page cache
            subject.samples = {name: kept for name, kept in subject.samples.items() if not name.startswith("import")}
        for _ in range(options.starts):
            for subject in subjects:
                subject.import_once()
                subject.start_once(frames, 1)
        for subject in subjects:
            answer = subject.start_once(frames, options.frames)
            subject.add(**{"resident, MB": answer["resident_mb"], "at most resident, MB": answer["peak_mb"]})
            subject.add(**{"faces found, %": 100 * answer["found"] / options.frames})
    text = report(subjects, packages, options, command_of(parser, options))
    options.out.write_text(text)
    figures = {
        "medians": {
            subject.name: {name: median(kept) for name, kept in subject.samples.items()} for subject in subjects
        },
        "packages_mb": packages,
    }
    options.out.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()

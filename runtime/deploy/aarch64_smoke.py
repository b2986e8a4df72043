"""Test the lean runtime of this working tree in an arm64 Debian under qemu, and compare its answers with this
machine's.

    apt-get install mmdebstrap qemu-user-static        # once, on Debian or Ubuntu, x86-64
    python runtime/deploy/aarch64_smoke.py             # three minutes, as root; --root FOLDER keeps the arm64 root

The script unpacks a Debian root for arm64 and installs this tree's wheel and its dependencies (PyPI's wheels for
aarch64) into it. It then runs `facerecon-rt doctor` and `facerecon-rt` there, in fp32 and int8. For the same picture,
the crop and the network's answers must equal this machine's to rounding. The records and meshes of the first frames of
tests/data/talking_head.mp4 may differ as much as the noise of a camera makes them differ: FFmpeg's colours differ by up
to 3 of 255 between the two processors, and OpenCV's resized pictures by 1.

Nothing stays installed, registered or mounted on this machine: qemu starts the root's Python, and /proc is mounted in a
namespace that ends with the process. ONNX Runtime 1.26 is the newest that runs under qemu 7.2; real arm64 machines take
the newest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from facerecon_rt import FaceSession
from facerecon_rt.align import Square, align
from facerecon_rt.networks.golden import golden_crop
from facerecon_rt.pose import nearest_rotation, rotation_angle_deg

REPOSITORY = Path(__file__).resolve().parent.parent.parent
CLIP = REPOSITORY / "tests" / "data" / "talking_head.mp4"
MODELS = ("face.onnx", "face.int8-cpu.onnx", "face_detector.onnx", "SHA256SUMS")
PRECISIONS = ("fp32", "int8")
SUITE, PYTHON = "bookworm", "3.11"
"""Name of the Debian release, and the version of its Python."""
PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux2014_aarch64")
TOOLS = {"mmdebstrap": "mmdebstrap", "qemu-aarch64-static": "qemu-user-static", "unshare": "util-linux"}
"""Program -> Debian package."""
EXACT = {"crop, grey levels": 0.0, "landmarks, px": 1e-3, "vertices, mm": 1e-3, "expression": 1e-4, "confidence": 1e-4}
"""Maximum differences between two answers to one picture."""
SEEN = {
    "landmarks, px": 2.5,
    "box, px": 1.5,
    "rotation, degrees": 1.0,
    "blendshapes": 0.05,
    "confidence": 0.01,
    "shape, mm": 0.3,
}
"""Maximum differences between two records of the clip, whose faces are 190 pixels wide."""
SITE, WORK = "opt/facerecon-rt", "smoke"
"""Folders in the root: the installed packages, and the working folder."""
PROGRAM = f"/{SITE}/bin/facerecon-rt"


def differences(here: Sequence[dict[str, Any]], there: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the largest difference of each kind, named as in SEEN, between the records of two runs. Raises ValueError
    where the numbers of faces differ."""
    if [len(record["faces"]) for record in here] != [len(record["faces"]) for record in there]:
        raise ValueError(f"faces per frame differ: {len(here)} and {len(there)} records")
    found = dict.fromkeys(SEEN, 0.0)
    for ours, theirs in zip(
        (face for record in here for face in record["faces"]),
        (face for record in there for face in record["faces"]),
        strict=True,
    ):
        cameras = [np.array(face["pose"]["frame_from_head"])[:, :3] for face in (ours, theirs)]
        now = {
            "landmarks, px": _most(ours["landmarks"], theirs["landmarks"]),
            "box, px": _most(ours["box"], theirs["box"]),
            "rotation, degrees": rotation_angle_deg(*map(nearest_rotation, cameras)),
            "blendshapes": _most(list(ours["blendshapes"].values()), list(theirs["blendshapes"].values())),
            "confidence": _most(ours["confidence"], theirs["confidence"]),
        }
        found |= {name: max(found[name], value) for name, value in now.items()}
    return found


def answers(model: Path) -> dict[str, Any]:
    """Return this machine's answers to one picture and one crop, named as in EXACT."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    with FaceSession(model, provider="cpu") as session:
        size = session.contract.input_size
        crop = align(noise, Square(180.25, 140.5, 211.7), size).image
        found = session.run(golden_crop(size)[None])
    return {
        "crop, grey levels": crop,
        "landmarks, px": found.landmarks,
        "vertices, mm": found.vertices,
        "expression": found.expression,
        "confidence": found.confidence,
    }


def vertices_of(mesh: Path) -> Any:
    """Return the vertices (V, 3) in mm of an .obj file."""
    return np.array([line.split()[1:4] for line in mesh.read_text().splitlines() if line.startswith("v ")], float)


def _most(ours: Any, theirs: Any) -> float:
    return float(np.abs(np.array(ours, float) - np.array(theirs, float)).max())


def make_root(root: Path) -> None:
    """Unpack an arm64 Debian with Python, without configuring it, which is enough to run Python. An existing root is
    kept."""
    if (root / "usr/bin/python3").exists():
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    include = ",".join(PACKAGES)
    run(["mmdebstrap", "--quiet", "--variant=extract", "--architectures=arm64", f"--include={include}", SUITE, root])
    for folder in ("proc", "tmp", WORK):
        (root / folder).mkdir(exist_ok=True)


def install(root: Path, onnxruntime: str) -> None:
    """Install this tree's wheel and its dependencies into the root. Copies the models, a few MB, and the clip there
    too."""
    shutil.rmtree(root / SITE, ignore_errors=True)
    shutil.copy(str(shutil.which("qemu-aarch64-static")), root / "usr/bin")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as folder:
        run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, REPOSITORY])
        (wheel,) = Path(folder).glob("*.whl")
        platforms = [f"--platform={name}" for name in PLATFORMS]
        what = [f"{wheel}[cpu]", f"onnxruntime=={onnxruntime}"]
        kind = ["--implementation=cp", f"--python-version={PYTHON}", "--only-binary=:all:", *platforms]
        run([*pip, "install", "--target", root / SITE, *kind, *what])
    shutil.rmtree(root / WORK)
    (root / WORK).mkdir()
    for file in (*(REPOSITORY / "models" / name for name in MODELS), CLIP, Path(__file__)):
        shutil.copy(file, root / WORK)


def in_root(root: Path, script: str, *arguments: str) -> None:
    """Run a Python script with these arguments in the root."""
    # The namespace for mounts and processes ends with the process, so that neither is left behind.
    namespace = [
        "unshare",
        "--map-root-user",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        f"--mount-proc={root}/proc",
    ]
    environment = {"HOME": f"/{WORK}", "LANG": "C.UTF-8", "PATH": "/usr/bin", "PYTHONPATH": f"/{SITE}"}
    environment |= {"OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
    chroot = [str(shutil.which("chroot", path=f"{os.environ['PATH']}:/usr/sbin")), str(root)]
    python = ["/usr/bin/qemu-aarch64-static", "/usr/bin/python3", script]
    run([*namespace, *chroot, *python, *arguments], environment)


def run(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> None:
    """Run a program, which writes to this process's output. Ends this process where the program fails."""
    print("+", *command, flush=True)
    if code := subprocess.run(list(map(str, command)), env=environment, check=False).returncode:
        raise SystemExit(f"exit code {code}: {command[0]}")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the records of a .jsonl file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def compare(what: str, found: dict[str, float], limits: dict[str, float]) -> bool:
    """Print the differences, and return whether none of them exceeds its limit."""
    print(f"\n{what}: largest differences from this machine, with their limits")
    for name, value in found.items():
        mark = "ok  " if value <= limits[name] else "!!  "
        print(f"  {mark} {name}: {value:.2g} (at most {limits[name]:g})")
    return all(value <= limits[name] for name, value in found.items())


def same_answers(root: Path, model: str) -> bool:
    """Compare the answers to one picture here and in the root. Returns whether they are the same."""
    in_root(root, f"/{WORK}/{Path(__file__).name}", "--answers", f"/{WORK}/answers.npz", f"/{WORK}/{model}")
    here = answers(REPOSITORY / "models" / model)
    with np.load(root / WORK / "answers.npz") as there:
        found = {name: _most(here[name], there[name]) for name in EXACT}
    return compare(f"{model}, one picture", found, EXACT)


def same_records(root: Path, precision: str, frames: int) -> bool:
    """Compare the records of the clip here and in the root. Returns whether they are the same."""
    outputs = [f"{precision}.jsonl", f"{precision}.obj"]

    def command(where: Path) -> list[str]:
        given = ["--model", str(where / "face.onnx"), "--input", str(where / CLIP.name)]
        given += ["--provider", "cpu", "--precision", precision, "--threads", "1", "--frames", str(frames)]
        return given + [part for output in outputs for part in ("--output", str(where / output))]

    with tempfile.TemporaryDirectory() as folder:
        here, there = Path(folder), root / WORK
        for file in there.iterdir():
            shutil.copy(file, here)
        run([sys.executable, "-m", "facerecon_rt.cli", *command(here)])
        in_root(root, PROGRAM, *command(Path("/") / WORK))
        found = differences(read(here / outputs[0]), read(there / outputs[0]))
        found["shape, mm"] = _most(vertices_of(here / outputs[1]), vertices_of(there / outputs[1]))
    return compare(f"{precision}, {frames} frames of {CLIP.name}", found, SEEN)


def main() -> int:
    """Run all comparisons. Returns the exit code: 0 for the same answers, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder that keeps the arm64 Debian [a temporary folder]")
    parser.add_argument(
        "--frames",
        type=int,
        default=10,
        help="number of the clip's frames to compare [%(default)s]; each takes seconds",
    )
    parser.add_argument("--onnxruntime", default="1.26.0", help="version of ONNX Runtime in the root [%(default)s]")
    parser.add_argument("--answers", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answers:
        np.savez(options.answers[0], **answers(options.answers[1]))
        return 0
    for program, package in TOOLS.items():
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is missing: apt-get install {package}")
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.root or Path(temporary) / "root").resolve()
        make_root(root)
        install(root, options.onnxruntime)
        in_root(root, PROGRAM, "doctor", *(part for model in MODELS[:2] for part in ("--model", f"/{WORK}/{model}")))
        good = [same_answers(root, model) for model in MODELS[:2]]
        good += [same_records(root, precision, options.frames) for precision in PRECISIONS]
    print("\naarch64: the same answers" if all(good) else "\naarch64: other answers, see !! above")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())

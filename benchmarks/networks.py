"""Several networks, exported -> one table of what each costs and how exact it is, to choose a network by.

    python benchmarks/networks.py --data DATA "compact 128=OLD" "medium 160=models"    # writes results/networks.md

Each folder holds the files that facerecon-export writes: face.onnx, from which the work is counted, and
face.int8-cpu.onnx, which is timed and measured. Times of one crop are taken in turns, so that a busy machine slows all
networks alike. The figures are those of expression.py and accuracy.py, through the runtime with the same detector.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from commands import command_of
from expression import LABELS, LEAST_POSITIVES, scores, through_runtime
from facerecon_export.describe import multiply_adds
from facerecon_rt import Reconstructor
from facerecon_rt.annotated import annotated_photographs, photograph_figures
from facerecon_rt.data_folder import default_data
from facerecon_rt.networks.session import FaceSession
from facerecon_rt.providers.onnx_file import read_onnx
from latency import machine
from precisions import in_turns

RESULT = Path(__file__).parent / "results" / "networks.md"
COUNTED, MEASURED = "face.onnx", "face.int8-cpu.onnx"
COLUMNS = (
    "MMACs: 10^6 multiply-adds per crop, decoders included. AUC: mean and least over the labels of expression.py. "
    "The last column is the inter-ocular NME through the runtime, from detected boxes. Runs: training/RUNS.md."
)
"""Definitions of the columns, for the reader of the results."""


def measured(folder: Path, detector: Path, data: Path) -> dict[str, float]:
    """Return the figures of the int8 file of a folder."""
    images = json.loads(LABELS.read_text())["images"]
    labels = scores(through_runtime(folder / MEASURED, detector, data, images), images)
    counted = [row["auc"] for row in labels.values() if row["present"] >= LEAST_POSITIVES]
    with Reconstructor(folder / MEASURED, detector=detector, provider="cpu") as reconstructor:
        points, _ = photograph_figures(reconstructor, annotated_photographs(data / "faces" / "lfpw-test"))
    return {
        "auc": float(np.mean(counted)),
        "least": min(counted),
        "inner51": points["nme_inner51"],
        "all68": points["nme_68"],
    }


def timed(folders: Mapping[str, Path]) -> dict[str, float]:
    """Return the median milliseconds of one crop for the int8 file of each folder."""
    random = np.random.default_rng(0)
    sessions = {name: FaceSession(folder / MEASURED, provider="cpu") for name, folder in folders.items()}
    try:
        calls = {}
        for name, session in sessions.items():
            size = session.contract.input_size
            crop = random.integers(0, 256, (1, size, size, 3), dtype=np.uint8)
            calls[name] = lambda session=session, crop=crop: session.run(crop)
        return in_turns(calls)
    finally:
        for session in sessions.values():
            session.close()


def table(folders: Mapping[str, Path], detector: Path, data: Path) -> str:
    """Return the table as Markdown."""
    times = timed(folders)
    lines = [
        "| network | SHA-256 | input, px | MMACs | int8, MB | one crop, ms | mean AUC / least "
        "| lfpw-test, inner 51 / 68, % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, folder in folders.items():
        with FaceSession(folder / MEASURED, provider="cpu") as session:
            size = session.contract.input_size
        figures = measured(folder, detector, data)
        millions = multiply_adds(onnx.load(folder / COUNTED)) / 1e6
        lines.append(
            f"| {name} | `{read_onnx(folder / MEASURED).sha256[:16]}` | {size} "
            f"| {millions:.0f} | {(folder / MEASURED).stat().st_size / 1e6:.1f} "
            f"| {times[name]:.2f} "
            f"| {figures['auc']:.3f} / {figures['least']:.2f} | {figures['inner51']:.2f} / {figures['all68']:.2f} |"
        )
    return "\n".join(lines)


def folder_of(text: str) -> tuple[str, Path]:
    """Return the name and the folder of NAME=FOLDER. Raises ArgumentTypeError for a folder without the two files."""
    name, _, path = text.rpartition("=")
    for file in (COUNTED, MEASURED):
        if not (Path(path) / file).is_file():
            raise argparse.ArgumentTypeError(f"{path} holds no {file}; make it by facerecon-export WEIGHTS -o {path}")
    return name or path, Path(path)


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", type=folder_of, metavar="NAME=FOLDER", help="a folder of exported files")
    parser.add_argument("--data", type=Path, default=default_data(), help="data folder [$FACERECON_DATA]")
    parser.add_argument(
        "--detector", type=Path, default=Path("models/face_detector.onnx"), help="face detector [%(default)s]"
    )
    options = parser.parse_args()
    if options.data is None:
        parser.error("there is no data folder; give --data or set FACERECON_DATA")
    folders = dict(options.networks)
    command = f"{command_of(parser, options)} {' '.join(f'{name!r}=...' for name in folders)}"
    RESULT.write_text(
        f"# Networks\n\n`{command}`, "
        f"int8 on the CPU. {machine()}.\n\n{COLUMNS}\n\n{table(folders, options.detector, options.data)}\n"
    )
    print(RESULT.read_text())


if __name__ == "__main__":
    main()

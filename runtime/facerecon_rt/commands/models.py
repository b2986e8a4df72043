"""`facerecon-rt models`: the files that ship with this package, with their terms, sizes and accuracy."""

from __future__ import annotations

import json
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from ..errors import ModelRefused
from ..networks.session import read_contract
from ..paths import is_file, read_file
from ..providers.onnx_file import read_onnx
from ..shipped import CARD, MOST_CARD_BYTES, measured_precisions, shipped_folder, shipped_models
from .arguments import Parser


def main(arguments: Sequence[str]) -> int:
    """Run `models` with the arguments behind it. Returns the exit code. Raises ModelRefused."""
    models_parser().parse_args(arguments)
    folder = shipped_folder()
    if folder is None:
        raise ModelRefused("this installation has no model files; install the wheel, or give your own with --model")
    sys.stdout.write(f"{folder}\n\n")
    speeds = measured_speeds()
    for path in shipped_models():
        contract = read_contract(read_onnx(path))
        target = f" for {contract.target}" if contract.target else ""
        sys.stdout.write(
            f"{path.name}\n"
            f"  {contract.precision}{target}, backbone {contract.backbone}, {path.stat().st_size / 1e6:.1f} MB, "
            f"input {contract.input_size} x {contract.input_size}\n"
            f"  terms: {contract.terms or 'see the model card'}\n"
        )
        if path.name in speeds:
            sys.stdout.write(f"  speed: {speeds[path.name]}\n")
    for line in accuracy(folder / CARD):
        sys.stdout.write(f"{line}\n")
    sys.stdout.write("\nspeed on this machine: facerecon-rt bench --model NAME --input VIDEO\n")
    return 0


def measured_speeds() -> dict[str, str]:
    """Return the measured speed of each file, with its error on the same machine; nothing where it did not ship."""
    place = measured_precisions()
    if place is None:
        return {}
    found = json.loads(read_file(place, MOST_CARD_BYTES))
    return {
        name: f"{row['milliseconds']:.1f} ms per crop, {row['nme_inner51']:.2f} % NME of inner landmarks "
        f"({found['machine']})"
        for name, row in found["files"].items()
    }


def accuracy(card: Path) -> list[str]:
    """Return the table of accuracy in the model card, which is about `face.onnx`; nothing without a card."""
    if not is_file(card):
        return []
    text = read_file(card, MOST_CARD_BYTES).decode()
    section = text.partition("\n### Accuracy\n")[2].partition("\n### ")[0]
    rows = [line for line in section.partition("\n| other data")[0].splitlines() if line.startswith("| ")]
    return ["", "face.onnx, from its model card:", *rows] if rows else []


def models_parser() -> Parser:
    """Return the parser of `models`."""
    return Parser(
        prog="facerecon-rt models",
        description="List the model files that ship with this package: precision, size, terms of use, speed and "
        "accuracy. --model takes their names. Figures come from the files, from benchmarks/precisions.py and from the "
        "model card.",
        epilog="exit codes: 0 listed, 3 this installation has no model files",
        formatter_class=RawDescriptionHelpFormatter,
    )

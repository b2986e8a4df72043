"""Exported files -> report.md for people and report.json for machines."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from . import trt
from .describe import CPU_ONLY
from .exported import Exported
from .subject import Subject

PACKAGES = ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime")


def is_report(value: object) -> bool:
    """Return whether a JSON value is a report of an export."""
    return isinstance(value, dict) and "weights_sha256" in value and "files" in value


def write_report(files: Sequence[Exported], weights: Path, subject: Subject, folder: Path) -> None:
    """Write report.md and report.json into `folder`."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    value = {
        "weights": weights.name,
        "weights_sha256": subject.weights_sha256,
        "verified_on": Path(subject.pictures).name,
        "versions": versions,
        "files": [_value(file) for file in files],
    }
    (folder / "report.json").write_text(json.dumps(value, indent=1) + "\n")
    (folder / "report.md").write_text(_markdown(files, weights, subject, versions))


def _value(file: Exported) -> dict[str, object]:
    return {
        "file": file.path.name,
        "precision": file.precision,
        "target": file.target,
        "written": file.written,
        "bytes": file.bytes,
        "sha256": file.sha256,
        "differences": [{**asdict(row), "passed": row.passed} for row in file.rows],
        "float_layers": file.float_layers,
        "recipes": [{**asdict(trial.recipe), "score": trial.score} for trial in file.trials],
        "lint": [asdict(finding) for finding in file.findings],
        "tensorrt_rtx": asdict(file.verdict) if file.verdict else None,
        "build": file.commands,
    }


def _markdown(files: Sequence[Exported], weights: Path, subject: Subject, versions: dict[str, str]) -> str:
    lines = [
        f"# Export of {weights.name}",
        "",
        f"Weights sha256 `{subject.weights_sha256}`. Verified on {Path(subject.pictures).name}.",
        "With " + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".",
        "",
        "| file | precision | MB | written | sha256 |",
        "|---|---|---|---|---|",
    ]
    for file in files:
        written = "yes" if file.written else "**no**"
        lines.append(
            f"| {file.path.name} | {file.precision} | {file.bytes / 1e6:.2f} | {written} | `{file.sha256[:16]}…` |"
        )
    for file in files:
        lines += ["", f"## {file.path.name}", ""]
        lines += ["| difference to PyTorch | unit | mean | p99 | largest | allowed |", "|---|---|---|---|---|---|"]
        for row in file.rows:
            verdict = "" if row.passed else " **differs too much**"
            figures = " | ".join(f"{value:.2g}" for value in (row.mean, row.p99, row.largest))
            lines.append(f"| {row.name} | {row.unit} | {figures} | {row.allowed:g} ({row.by}){verdict} |")
        if file.float_layers:
            reasons = Counter(file.float_layers.values())
            lines += [
                "",
                "Layers that stay in float32: " + "; ".join(f"{n} x {why}" for why, n in reasons.items()) + ".",
            ]
            named = [f"{name} ({why})" for name, why in file.float_layers.items() if why != "geometry"]
            lines += ["", "Apart from geometry: " + ", ".join(named) + "."] if named else []
        if file.trials:
            lines += ["", "| recipe | share of the tolerance, on pictures set aside |", "|---|---|"]
            lines += [f"| {trial.recipe} | {trial.score:.0%} |" for trial in file.trials]
        lines += ["", *_readiness(file)]
    return "\n".join(lines) + "\n"


def _readiness(file: Exported) -> list[str]:
    if file.target == "cpu":
        return [CPU_ONLY]
    lines = ["TensorRT lint: " + ("no findings." if not file.findings else "")]
    lines += [f"- {finding}" for finding in file.findings]
    if file.verdict:
        lines += ["", f"{file.verdict}."]
    elif not trt.installed():
        lines += ["", "Not tried with TensorRT's parser (pip install 'facerecon-rt[trtcheck]')."]
    return [*lines, "", "```", *file.commands, "```"]

"""Weights -> the files that are deployed, each compared with PyTorch before it gets its name, and a report."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import onnx
from facerecon_rt.errors import FaceReconError, ModelRefused, UsageError
from facerecon_rt.faces.detector_contract import read_detector_contract
from facerecon_rt.networks.session import read_contract
from facerecon_rt.paths import is_file
from facerecon_rt.providers.onnx_file import read_onnx, refuse_unsafe
from facerecon_rt.sinks.outputs import check_replaces, make_folder
from facerecon_training.detector.config import DETECTOR_MARK
from safetensors import SafetensorError, safe_open

from . import trt
from .detector import DetectorSubject
from .export_report import is_report, write_report
from .exported import Exported
from .face import FaceSubject
from .fp16 import Feeds, lossy_layers, stays_fp32, store_in_half, to_fp16
from .graph import DECODERS, HIDDEN, MATRICES, Parts
from .int8 import Target, choose
from .lint import lint
from .staging import staging
from .subject import Calibration, ExportOptions, Subject
from .verify import Row, table

SUFFIXES = {"fp32": (".onnx",), "fp16": (".fp16.onnx",), "int8": (".int8.onnx", ".int8-cpu.onnx")}
"""Ends of the names of the files of each precision, after the name of the weights."""
REPORTS = ("report.md", "report.json")
RETRIES = 6
"""Number of times that the lossiest layers go back to float32 before the fp16 file counts as failed."""
LAYERS_BACK = 2
"""Number of layers that go back to float32 at a time."""

Say = Callable[[str], None]


class VerificationError(FaceReconError):
    """An exported file differs too much from the model and was not written under its name."""


def export_weights(weights: Path, out: Path, options: ExportOptions, say: Say) -> list[Exported]:
    """Export FaceModel or detector weights into the folder `out`, with report.md and report.json.

    The weights file says which of the two it holds, and the files are named after it. `say` is called with each step as
    it begins. Files are made in a folder of their own inside `out` and moved at the end. A file that differs too much
    from PyTorch is not moved. The decoder beside the files belongs to all of them, so it is replaced only if no file of
    other weights stays.

    Raises VerificationError for a file that differs too much, after the other files and the report are in place. Raises
    ModelRefused for unfit weights, SourceError for unreadable photographs, and UsageError for too few photographs, a
    folder that cannot be written, and a folder with files of other weights that would stay.
    """
    check_replaces(out / "report.json", is_report, "a report of facerecon-export", "-o")
    say(f"reading {weights}")
    subject = open_subject(weights, options)
    calibration = subject.calibration() if "int8" in options.precisions else None
    activations = subject.feeds() if "fp16" in options.precisions else []
    make_folder(out)
    with staging(out) as folder:
        work = _Work(subject, folder, out, weights.stem, options, say)
        companions = subject.write_companions(folder, weights.stem)
        older = _files_of_other_weights(out, weights.stem, subject.weights_sha256) if companions else []
        made = {weights.stem + suffix for precision in options.precisions for suffix in SUFFIXES[precision]}
        if staying := [name for name in older if name not in made]:
            raise UsageError(
                f"{', '.join(staying)} in {out}: of other weights, whose {', '.join(companions)} would be replaced; "
                "export all precisions, give another folder with -o, or remove what is older"
            )
        files = _made(work, calibration, activations)
        failed = [file.path.name for file in files if not file.passed]
        staying = [name for name in older if name in failed]
        for file in files:
            file.written = file.passed and not staying
        write_report(files, weights, subject, folder)
        _move(work, files, companions)
    if failed:
        others = f"; no file was written, because {', '.join(staying)} of other weights would stay" if staying else ""
        raise VerificationError(
            f"{', '.join(failed)}: not written, because the answers differ too much from {weights}{others}; "
            f"see {out / 'report.md'}"
        )
    return files


def _files_of_other_weights(out: Path, stem: str, weights_sha256: str) -> list[str]:
    """Return the names of the files in `out` that were exported from other weights of the same name."""
    found = []
    for name in (stem + suffix for suffixes in SUFFIXES.values() for suffix in suffixes):
        with contextlib.suppress(ModelRefused):  # no file, or none of this project
            if read_contract(read_onnx(out / name)).weights_sha256 != weights_sha256:
                found.append(name)
    return found


@dataclass(frozen=True, slots=True)
class _Work:
    """State that the steps of one export share."""

    subject: Subject
    folder: Path
    """Folder in which files are made."""
    out: Path
    """Folder to which finished files are moved."""
    stem: str
    options: ExportOptions
    say: Say

    def verified(self, path: Path, precision: str, target: str) -> list[Row]:
        """Stamp a file in `folder` and compare it with PyTorch."""
        self.subject.stamp(path, precision, target)
        return self.subject.verify(path, precision)

    def judged(self, path: Path, precision: str, target: str, rows: list[Row]) -> Exported:
        """Return the record of a verified file in `folder` that has its final name, with lint, hash and build
        commands."""
        data = path.read_bytes()
        model = onnx.load_model_from_string(data)
        side = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value or None
        for_gpu = target != "cpu"
        final = self.out / path.name
        return Exported(
            final,
            precision,
            target,
            rows,
            len(data),
            hashlib.sha256(data).hexdigest(),
            lint(model),
            trt.try_build(path) if for_gpu and trt.installed() else None,
            trt.build_commands(final, side, self.options.batch) if for_gpu else [],
        )


def _made(work: _Work, calibration: Calibration | None, activations: Feeds) -> list[Exported]:
    """Make the files of all precisions in `work.folder`, and compare them with PyTorch."""
    work.say("fp32: tracing the network with PyTorch's exporter, some seconds")
    traced = work.folder / "traced.onnx"
    work.subject.trace(traced)
    parts = work.subject.parts(onnx.load(traced))
    files: list[Exported] = []
    if "fp32" in work.options.precisions:
        files.append(_fp32(work, traced))
    if "fp16" in work.options.precisions:
        files.append(_fp16(work, traced, parts, activations))
    if calibration is not None:
        targets: tuple[Target, ...] = get_args(Target)
        files += [_int8(work, traced, parts, calibration, target) for target in targets]
    for file in files:
        work.say(f"\n{file.path.name}, compared with PyTorch on {work.subject.pictures}:\n{table(file.rows)}")
    return files


def _move(work: _Work, files: list[Exported], companions: list[str]) -> None:
    """Move the report, the files that are to be written, and their companions into the folder of the export."""
    for name in REPORTS:
        (work.folder / name).replace(work.out / name)
    written = [file for file in files if file.written]
    for file in written:
        (work.folder / file.path.name).replace(file.path)
        work.say(f"wrote {file.path} ({file.bytes / 1e6:.1f} MB, {file.precision})")
    for name in companions if written else ():
        (work.folder / name).replace(work.out / name)
        work.say(f"wrote {work.out / name}, which all of these files use")


def _fp32(work: _Work, traced: Path) -> Exported:
    """Export in float32. The decoders, which hold half of the weights, are stored in half, if the file passes so."""
    path = work.folder / f"{work.stem}.onnx"
    path.write_bytes(traced.read_bytes())
    rows = _smaller(work, path, "fp32", work.verified(path, "fp32", ""), DECODERS)
    return work.judged(path, "fp32", "", rows)


def _smaller(work: _Work, path: Path, precision: str, rows: list[Row], names: tuple[str, ...]) -> list[Row]:
    """Store the matrices of a verified file in half, if it passes and still passes so. Returns the rows of the file
    that stays."""
    if not all(row.passed for row in rows):
        return rows
    exact = path.read_bytes()
    model = onnx.load_model_from_string(exact)
    store_in_half(model, names)
    onnx.save(model, path)
    smaller = work.verified(path, precision, "")
    if all(row.passed for row in smaller):
        return smaller
    path.write_bytes(exact)
    return rows


def _fp16(work: _Work, traced: Path, parts: Parts, activations: Feeds) -> Exported:
    """Export in half precision.

    More and more layers go back to float32 until the file passes or `RETRIES` is reached. Then the weights of float32
    layers are stored in half, if the file still passes.
    """
    work.say(f"fp16: measuring the activations of {len(activations)} batches")
    model = onnx.load(traced)
    stays = stays_fp32(model, parts, activations)
    path = work.folder / f"{work.stem}.fp16.onnx"
    for attempt in range(RETRIES + 1):
        half = to_fp16(model, stays)
        onnx.save(half, path)
        rows = work.verified(path, "fp16", "")
        if all(row.passed for row in rows) or attempt == RETRIES:
            break
        lossy = [name for name in lossy_layers(model, half, activations[:4]) if name not in stays]
        stays |= dict.fromkeys(lossy[:LAYERS_BACK], "adds most to the error")
    rows = _smaller(work, path, "fp16", rows, (*HIDDEN, *MATRICES))
    file = work.judged(path, "fp16", "", rows)
    file.float_layers = stays
    return file


def _int8(work: _Work, traced: Path, parts: Parts, calibration: Calibration, target: Target) -> Exported:
    """Export in int8 with the best recipe that the time budget allows to find."""
    work.say(f"int8 for {target}: calibrating on {calibration.source}, choosing a recipe")
    trials = choose(traced, work.folder, parts, calibration.feeds, target, calibration.score, work.options.budget_s)
    path = work.folder / f"{work.stem}.int8{'-cpu' if target == 'cpu' else ''}.onnx"
    trials[0].path.rename(path)
    file = work.judged(path, "int8", target, work.verified(path, "int8", target))
    file.trials = trials
    file.float_layers = {
        **dict.fromkeys(parts.body[: trials[0].recipe.first_float], "among the first convolutions"),
        **{name: "geometry" for name in parts.geometry if target != "cpu" or name not in parts.matrices},
    }
    return file


def open_subject(weights: Path, options: ExportOptions) -> Subject:
    """Read the weights of a FaceModel or a face detector.

    Raises ModelRefused for weights that are missing, truncated or from another program.
    """
    return DetectorSubject(weights, options) if is_detector(weights) else FaceSubject(weights, options)


def is_detector(weights: Path) -> bool:
    """Return whether this .safetensors file holds a face detector. False for a file that cannot be read."""
    if not is_file(weights):
        return False  # opening a pipe would block
    try:
        with safe_open(weights, "pt") as file:
            return DETECTOR_MARK in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def verify_file(path: Path, weights: Path, options: ExportOptions) -> list[Row]:
    """Compare an existing file with the weights that it names, and return the table's rows.

    The tolerances are those of the precision in the file's contract. Raises UsageError if the file names other weights,
    or if a lower precision cannot be judged by the pictures.
    """
    subject = open_subject(weights, options)
    model = read_onnx(path)
    refuse_unsafe(model)
    contract = read_detector_contract(model) if is_detector(weights) else read_contract(model)
    if contract.weights_sha256 != subject.weights_sha256:
        raise UsageError(
            f"{path} names weights {contract.weights_sha256[:12]}, but {weights} has {subject.weights_sha256[:12]}; "
            "give the weights that it was exported from, or export again"
        )
    if contract.precision != "fp32":
        subject.check_pictures()
    return subject.verify(path, contract.precision)

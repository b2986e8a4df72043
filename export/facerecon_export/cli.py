"""The command `facerecon-export`: trained weights -> verified ONNX files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from facerecon_rt.commands.arguments import Parser, idle_sentences
from facerecon_rt.commands.shell import run_command
from facerecon_rt.commands.shell import say as say_error
from facerecon_rt.contract import PRECISIONS
from facerecon_rt.errors import UsageError
from facerecon_rt.interrupts import importing
from facerecon_rt.paths import exists, is_folder, resolved
from facerecon_rt.sinks.outputs import check_no_input
from facerecon_rt.values import batch, number_above_0, shown, threads, whole_number

EPILOG = """\
examples:
  facerecon-export models/face.safetensors -o out/
      writes out/face.onnx, face.fp16.onnx, face.int8.onnx (TensorRT), face.int8-cpu.onnx and a report
  facerecon-export models/face.safetensors -o out/ --precision fp32
      float32 alone: needs no photographs
  facerecon-export models/face.safetensors -o out/ --calibration my-faces/ --crops my-other-faces/
      calibrates and verifies on your own photographs
  facerecon-export models/face_detector.safetensors -o out/
      a face detector's weights work as well

other commands, each with --help:
  facerecon-export inspect FILE.onnx
  facerecon-export verify FILE.onnx --against WEIGHTS.safetensors
  facerecon-export ensemble A.onnx B.onnx -o ensemble.onnx
  facerecon-export set FILE.onnx --set-size 5 -o set.onnx
  facerecon-export triton FILE.onnx -o model_repository/

Each file is self-contained. It takes uint8 BGR pictures and normalises them itself; its metadata names its inputs and
outputs, and the runtime checks them before use. Before a file gets its name, it answers the same pictures as PyTorch.
A table shows the differences in millimetres and degrees. A file that differs too much is not written.

exit codes: 0 written; 1 a file differs too much; 2 bad arguments, too few photographs, or the output cannot be written;
3 the weights are missing or refused; 4 ONNX Runtime is missing; 5 the photographs cannot be read; 130 Ctrl-C.
"""

OPSETS = (18, 22)
"""Oldest opset that PyTorch's exporter writes, and newest that TensorRT takes."""
USUAL_BUDGET_S = 90.0
MOST_BUDGET_S = 86_400
PHOTOGRAPHS = "x.jpg with x.pts (68 landmarks) is aligned; x.jpg alone counts as a crop"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Errors are one line on standard error."""

    def command() -> int:
        given = list(sys.argv[1:] if arguments is None else arguments)
        parser, run = COMMANDS.get(given[0] if given else "", (_export_parser, _export))
        return run(parser().parse_args(given[1:] if parser is not _export_parser else given))

    return run_command(
        "facerecon-export",
        command,
        on_interrupt=lambda: say_error("facerecon-export: stopped by Ctrl-C; no incomplete file was left"),
        extra="export",
    )


# PyTorch and onnx take seconds to load, so they are loaded only after the arguments are understood.


def _export(options: argparse.Namespace) -> int:
    if options.output.suffix == ".onnx":
        raise UsageError(f"-o {options.output}: give a folder; the files in it are named after the weights")
    if exists(options.output) and not is_folder(options.output):
        raise UsageError(f"-o {options.output}: is a file, not a folder; give a folder")
    if "int8" not in options.precision:
        given = {"--calibration": options.calibration, "--budget": options.budget}
        for line in idle_sentences((name, "--precision int8") for name, value in given.items() if value is not None):
            _warn(line)
    with importing():
        from .deploy import export_weights
        from .subject import ExportOptions

    export_weights(
        options.weights,
        options.output,
        ExportOptions(
            tuple(dict.fromkeys(options.precision)),
            options.opset,
            options.batch,
            options.size,
            options.crops,
            options.calibration,
            USUAL_BUDGET_S if options.budget is None else options.budget,
        ),
        say,
    )
    return 0


def _inspect(options: argparse.Namespace) -> int:
    with importing():
        from .describe import describe

    say(describe(options.file))
    return 0


def _verify(options: argparse.Namespace) -> int:
    with importing():
        from .deploy import verify_file
        from .subject import ExportOptions
        from .verify import table

    rows = verify_file(options.file, options.against, ExportOptions(crops=options.crops))
    say(table(rows))
    return 0 if all(row.passed for row in rows) else 1


def _ensemble(options: argparse.Namespace) -> int:
    with importing():
        from .fuse import fuse_ensemble

    fuse_ensemble(options.files, _target(options.output, options.files), say)
    return 0


def _set(options: argparse.Namespace) -> int:
    with importing():
        from .fuse import fuse_set

    fuse_set(options.file, options.set_size, _target(options.output, [options.file]), say)
    return 0


def _triton(options: argparse.Namespace) -> int:
    with importing():
        from .triton import TritonOptions, write_repository

    write_repository(
        options.files,
        options.output,
        TritonOptions(
            options.name,
            options.kind,
            options.instances,
            options.threads,
            options.max_delay_ms,
            options.engines,
            options.photographs,
        ),
        say,
        _warn,
    )
    return 0


def _target(path: Path, read: Sequence[Path]) -> Path:
    """Return the path of a fused file. Raises UsageError where nothing can be written, or a file that is read lies."""
    if path.suffix != ".onnx":
        raise UsageError(f"-o {path}: give a path ending in .onnx")
    if is_folder(path):
        raise UsageError(f"-o {path}: is a folder; give the name of a file")
    if not is_folder(path.parent):
        raise UsageError(f"-o {path}: {path.parent} is not a folder; make it first")
    check_no_input(path, set(map(resolved, read)))
    return path


def _warn(line: str) -> None:
    say_error(f"facerecon-export: warning: {line}")


say = partial(print, flush=True)


def _export_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="facerecon-export",
        description="Turn trained weights into verified ONNX files for the runtime, and write a report.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("weights", type=Path, help=".safetensors file of a FaceModel or of a face detector")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(), metavar="FOLDER", help="folder for the files [current folder]"
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        default=PRECISIONS,
        help="precisions to write [all]; int8 gives two files, for TensorRT and for the CPU",
    )
    parser.add_argument("--opset", type=whole_number(*OPSETS), default=20, help="ONNX opset of the files [%(default)s]")
    parser.add_argument(
        "--batch",
        type=_batch,
        default=0,
        metavar="dynamic|N",
        help="batch size of the files: a fixed number of crops, or any number [dynamic]",
    )
    parser.add_argument(
        "--size",
        type=whole_number(1, 10_000),
        metavar="S",
        help="side of the crops in pixels [the size of the training]",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FOLDER",
        help=f"at least 200 photographs for int8 calibration: {PHOTOGRAPHS}; or a folder of `facerecon-train prepare`, "
        "with its rendered people and photographs [$FACERECON_DATA/faces/helen-train]",
    )
    _add_crops(parser)
    parser.add_argument(
        "--budget",
        type=number_above_0(MOST_BUDGET_S),
        metavar="SECONDS",
        help=f"time to try quantisation recipes, per int8 file [{USUAL_BUDGET_S:g}]",
    )
    return parser


def _add_crops(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--crops",
        type=Path,
        metavar="FOLDER",
        help=f"photographs for verification, at least 200 for fp16 and int8: {PHOTOGRAPHS}; or a folder of "
        "`facerecon-train prepare` [$FACERECON_DATA/faces/lfpw-test, or artificial pictures without that folder]",
    )


def _inspect_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="facerecon-export inspect",
        description="Describe an ONNX file: contract and terms, inputs and outputs, operators by the precision they "
        "really compute in, multiply-adds, size, hash, and findings that matter to TensorRT.",
    )
    parser.add_argument("file", type=Path)
    return parser


def _verify_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="facerecon-export verify",
        description="Compare a file with the weights it was exported from, by the tolerances of its precision. The "
        "exit code is 1 when the file differs too much.",
    )
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--against",
        type=Path,
        required=True,
        metavar="WEIGHTS",
        help=".safetensors file that the file was exported from",
    )
    _add_crops(parser)
    return parser


def _ensemble_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="facerecon-export ensemble",
        description="Fuse several FaceModel files of one precision into one file, which is one engine. It gives the "
        "same average as the runtime, and how far the models disagree.",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    return parser


def _set_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="facerecon-export set",
        description="Fuse a FaceModel file with the average over an image set. The new file takes N crops of one "
        "person and gives one shape, its spread, and the face of every photograph with that shape, as the runtime "
        "does.",
    )
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--set-size", type=batch, required=True, metavar="N", help="number of photographs in a set, 2 or more"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    return parser


TRITON_EPILOG = """\
examples:
  facerecon-export triton models/face.int8-cpu.onnx models/face_detector.onnx -o model_repository/
      two models, face_int8_cpu and face_detector
  facerecon-export triton models/face.fp16.onnx -o model_repository/ --name face --engines /engines
      the model face on TensorRT; the server keeps the engines in its folder /engines
  facerecon-export triton retrained/face.fp16.onnx -o model_repository/ --name face --engines /engines
      version 2; replaces version 1 when the server polls (--model-control-mode=poll) or gets a request to load it
  facerecon-export triton model_repository/face/1/model.onnx -o model_repository/ --engines /engines
      back to version 1
  facerecon-export triton models/face.onnx models/face_detector.onnx -o model_repository/ --photographs
      also the model face_photograph: JPEG or PNG in, faces out; detector and crops run inside Triton
  tritonserver --model-repository model_repository/
      serves the models

Device and accelerator of each kind of file:
  fp32           a GPU if there is one (CUDA, without TF32), else the CPU
  fp16           a GPU, with TensorRT
  int8           a GPU, with TensorRT
  int8 for CPUs  the CPU
  detectors      as above, but with CUDA alone, because their pictures have all shapes
Triton's ONNX Runtime backend must be built with TensorRT. NVIDIA's containers are.

Each model accepts batches of up to 16 crops and prefers sizes of 2, 4, 8 and 16. It warms up with the golden crop in
every size, and names the blendshapes as labels. Its contract is among its parameters, where
runtime/examples/kserve_client.py finds it. Files of a fixed batch are served unchanged, without batching.

exit codes: 0 written; 2 bad arguments, or the repository cannot be written; 3 a file is missing or refused.
"""


def _triton_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="facerecon-export triton",
        description="Write FaceModel and detector files into a model repository for NVIDIA's Triton Inference Server. "
        "A second run adds the next version. A file that is already there makes its version current again.",
        epilog=TRITON_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="exported .onnx files")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="model repository; created if it does not exist",
    )
    parser.add_argument(
        "--name", help="name of the model, for a single FaceModel [name of the file, with _ for . and -]"
    )
    parser.add_argument("--kind", choices=("gpu", "cpu"), help="device to run on [by the file's precision, see below]")
    parser.add_argument(
        "--instances",
        type=whole_number(1, 1024),
        default=1,
        metavar="N",
        help="instances per GPU, or on the CPU [%(default)s]",
    )
    parser.add_argument(
        "--threads", type=threads, default=1, metavar="N", help="threads of each instance on the CPU [%(default)s]"
    )
    parser.add_argument(
        "--max-delay-ms",
        type=_milliseconds,
        default=1.0,
        metavar="MS",
        help="longest time that a request waits for others to share a batch [%(default)s]",
    )
    parser.add_argument(
        "--engines",
        metavar="FOLDER",
        help="folder on the server for TensorRT's engines [engines are built at each start, in minutes]; only the "
        "server may have write access, because an engine is code",
    )
    parser.add_argument(
        "--photographs",
        action="store_true",
        help="add NAME_photograph, a model for Triton's Python backend that takes photograph files; needs a detector "
        "file, and facerecon-rt in the server's Python",
    )
    return parser


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{shown(text)}: not a delay; give milliseconds from 0 to 1000")
    return value


def _batch(text: str) -> int:
    if text == "dynamic":
        return 0
    try:
        return batch(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(
            f"{shown(text)}: not a batch size; give dynamic, or a number of crops"
        ) from error


COMMANDS: dict[str, tuple[Callable[[], argparse.ArgumentParser], Callable[[argparse.Namespace], int]]] = {
    "inspect": (_inspect_parser, _inspect),
    "verify": (_verify_parser, _verify),
    "ensemble": (_ensemble_parser, _ensemble),
    "set": (_set_parser, _set),
    "triton": (_triton_parser, _triton),
}


if __name__ == "__main__":
    sys.exit(main())

"""`facerecon-export`: trained weights -> a verified ONNX file, from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from facerecon_rt.errors import FaceReconError, UsageError

EPILOG = """\
examples:
  facerecon-export models/face.safetensors -o models/
      writes models/face.onnx
  facerecon-export models/face_detector.safetensors
      a face detector's weights work as well: models/face_detector.onnx
  facerecon-export runs/today/best.safetensors -o models/face.onnx --crops my-photographs/
      verifies on your own photographs

The file holds everything: it takes uint8 BGR pictures of any batch size, normalises them itself, and says in its
metadata what it needs and gives, which the runtime checks before it uses it. Before it is put in place it answers the
same pictures as PyTorch does; a table shows by how much the two differ. Where that is too much, nothing is written.

exit codes: 0 written; 1 the file differs too much; 2 bad arguments, or it cannot be written; 3 the weights are missing
or refused; 4 ONNX Runtime is missing; 5 the photographs cannot be read.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code; errors are one line on the standard error."""
    args = _parser().parse_args(arguments)
    try:
        target = target_path(args.weights, args.output)
        export_weights = _exporter()
        export_weights(args.weights, target, args.crops, partial(print, flush=True))
    except FaceReconError as error:
        print(f"facerecon-export: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def target_path(weights: Path, output: Path | None) -> Path:
    """Where the file goes: beside the weights, into a folder under their name, or to a path of one's own."""
    if output is None:
        return weights.with_suffix(".onnx")
    if output.is_dir():
        return output / f"{weights.stem}.onnx"
    if output.suffix != ".onnx":
        raise UsageError(f"{output}: neither a folder that exists nor a path ending in .onnx; make the folder first")
    if not output.parent.is_dir():
        raise UsageError(f"{output.parent}: no such folder; make it first")
    return output


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="facerecon-export",
        description="Trained weights -> one verified ONNX file for the runtime.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("weights", type=Path, help="a FaceModel's or detector's .safetensors file")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="a folder, or a path ending in .onnx (default: beside the weights, under their name)",
    )
    parser.add_argument(
        "--crops",
        type=Path,
        metavar="FOLDER",
        help="photographs to verify with: x.jpg with x.pts (68 landmarks) is aligned, x.jpg alone is taken as a crop "
        "(default: $FACERECON_DATA/faces/lfpw-test, or made-up pictures where that is not there)",
    )
    return parser


def _exporter() -> Callable[[Path, Path, Path | None, Callable[[str], None]], object]:
    """PyTorch and onnx take seconds to load, so they are loaded after the arguments were understood."""
    try:
        from .to_onnx import export_weights
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("facerecon"):
            raise
        raise UsageError(f"{error.name} is not installed: pip install 'facerecon-rt[export]'") from error
    return export_weights


if __name__ == "__main__":
    sys.exit(main())

"""`facerecon-rt build`: build TensorRT engines ahead of time, so that no camera waits for them."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from ..contract import PRECISIONS
from ..errors import UsageError
from ..networks.precision import open_session, wanted_of_file
from ..providers.choice import engine_is_kept
from ..providers.engines import default_root
from .arguments import Parser, add_gpu_options, gpu_options, model_file
from .default_model import models_or_default


def main(arguments: Sequence[str]) -> int:
    """Run `build` with the arguments behind it. Returns the exit code. Raises FaceReconError."""
    options = engine_parser().parse_args(arguments)
    gpu = gpu_options(options)
    root = gpu.engines or default_root()
    unkept: list[str] = []
    for model in models_or_default(options.model, "tensorrt", options.precision):
        started = time.monotonic()
        with open_session(model, provider="tensorrt", precision=options.precision, gpu=gpu) as session:
            seconds = time.monotonic() - started
            if not engine_is_kept(wanted_of_file(session.path, 1, gpu)):
                unkept.append(str(session.path))
                continue
            kind = f"{session.path}: {session.contract.precision}"
            sys.stdout.write(f"{kind}, answers on tensorrt, opened in {seconds:.1f} s, engines in {root}\n")
            sys.stdout.flush()
    if unkept:
        raise UsageError(f"no engine of {', '.join(unkept)} is kept in {root}; give another folder with --engines")
    return 0


def engine_parser() -> argparse.ArgumentParser:
    """Return the parser of `build`."""
    parser = Parser(
        prog="facerecon-rt build",
        description="Build and keep the TensorRT engines of FaceModel files on this machine. An engine fits only this "
        "GPU, driver and TensorRT version, so it is rebuilt after an update. A build takes seconds to minutes per "
        "file; an existing engine is only tested.",
        epilog="example: facerecon-rt build --precision fp16\n"
        "exit codes: 0 engines are built and kept, 2 to 4 as for facerecon-rt",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model",
        action="append",
        type=model_file,
        metavar="FILE",
        help="FaceModel file (.onnx), or the name of a shipped one; repeatable [face.onnx, shipped]",
    )
    parser.add_argument("--precision", choices=PRECISIONS, help="use the file of this precision beside --model")
    add_gpu_options(parser)
    return parser

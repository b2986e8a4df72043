"""`facerecon-rt archive`: photographs and videos by the million, from the command line."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from ..commands.arguments import Parser, add_gpu_options, gpu_options
from ..contract import PRECISIONS
from ..errors import SourceError, UsageError
from ..faces.detect import LARGEST_SIZE, MULTIPLE
from ..faces.reconstruct import MIN_CONFIDENCE
from ..interrupts import importing
from ..limits import MOST_PICTURE_BYTES, MOST_PICTURE_PIXELS
from ..values import name, number_above_0, positive, shown, threads, unit, whole_number
from .recipe import Recipe, Workers

log = logging.getLogger("facerecon_rt")
MOST_ACTORS = 10**5
EPILOG = """\
examples:
  facerecon-rt archive --model models/face.onnx --input photos/ --output results.parquet/
  facerecon-rt archive --model models/face.onnx --input photos/ --group-by '([^/]+)/[^/]+$' --output people.parquet/
  facerecon-rt archive --model models/face.onnx --input uris.parquet --output /shared/out.parquet/ --ray-address auto
  facerecon-rt archive --model models/face.onnx --input uris.parquet --output out.parquet/ --actor-gpus 0.25

Exactly one row per input, with the record's fields: `faces` of a photograph, or of a video one per track, as in the
most confident of its frames; `error` says in one line why there is nothing of an input. With --group-by (or a column
`person` beside `uri`), the photographs of each person are averaged as --set does: the shape stands once per person in
OUTPUT/_persons.

The same command again goes on where it was stopped, by whatever: what is written is not computed again. In a cluster,
all nodes must see the models, the inputs and the output under the same names. Only one program writes into an output.

Passwords in addresses (http://user:${PASSWORD}@host/photo.jpg, from the environment) stand in no file.

  pandas.read_parquet("results.parquet")          pyarrow.dataset.dataset("results.parquet/_persons")

exit codes: 0 done, also where some rows are errors; 2 usage or output; 3 model refused; 4 provider missing; 5 no input
could be read; 130 Ctrl-C (what was written stays)
"""


def main(arguments: Sequence[str]) -> int:
    """What stands after `archive` -> the exit code. Raises FaceReconError."""
    options = archive_parser().parse_args(arguments)
    if options.quiet:
        log.setLevel(logging.ERROR)
    try:
        with importing():
            from .lock import only_writer
            from .plan import list_inputs, open_plan
            from .run import archive
    except ModuleNotFoundError as error:
        raise UsageError(f"archive needs {error.name}: pip install 'facerecon-rt[ray]'") from error
    recipe = Recipe(
        models=tuple(str(Path(model).absolute()) for model in options.model),
        detector=None if options.detector is None else str(Path(options.detector).absolute()),
        precision=options.precision,
        mirror=options.mirror,
        detector_size=options.det_size,
        detect_every=options.det_every,
        min_confidence=options.min_confidence,
        average=options.average,
        most_bytes=round(options.max_mb * 10**6),
        most_pixels=round(options.max_megapixels * 10**6),
    )
    least, most = options.actors
    workers = Workers(
        least=least,
        most=most,
        cpus=options.actor_cpus or max(1, options.threads),
        gpus=options.actor_gpus,
        provider=options.provider,
        threads=options.threads,
        gpu=gpu_options(options),
    )
    if options.output.suffix.lower() in (".jsonl", ".json", ".csv", ".mp4", ".obj"):
        raise UsageError(f"{options.output} would be a folder of Parquet files; call it so, as in results.parquet/")
    started = time.monotonic()
    inputs = list_inputs(options.input, options.group_by)
    with only_writer(options.output.absolute()):
        plan = open_plan(options.output.absolute(), inputs, options.part_size, recipe)
        log.info("inputs: %d, parts: %d", len(inputs), len(plan.sizes))
        counts = archive(plan, recipe, workers, address=options.ray_address, quiet=options.quiet)
    spent = sum(counts.stages_ms.values()) or 1.0
    log.info(
        "inputs: %d, errors: %d, faces: %d%s; %.1f s, of the actors' time %s",
        counts.inputs, counts.errors, counts.faces, f", persons: {counts.persons}" if counts.persons else "",
        time.monotonic() - started,
        ", ".join(f"{stage} {100 * ms / spent:.0f} %" for stage, ms in counts.stages_ms.items()) or "none",
    )  # fmt: skip
    if counts.errors:
        log.info("why: the rows of %s whose column `error` is not null", options.output)
    log.info("wrote %s", options.output)
    if counts.errors == counts.inputs:
        raise SourceError(f"none of the {counts.inputs} inputs could be read; {options.output} says why of each")
    return 0


def archive_parser() -> argparse.ArgumentParser:
    """The options of `archive`."""
    parser = Parser(
        prog="facerecon-rt archive",
        description="Photographs and videos by the million to Parquet, on this machine or a Ray cluster.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", action="append", required=True, type=name, metavar="FILE", help="several make an ensemble"
    )
    parser.add_argument(
        "--input",
        action="extend",
        nargs="+",
        required=True,
        type=name,
        metavar="X",
        help="a folder with all in it, a glob, a photograph, a video, an address (http, s3, gs), or a .parquet with a "
        "column `uri`; repeatable",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="of Parquet files")
    parser.add_argument(
        "--group-by",
        metavar="PATTERN",
        help="regular expression whose group, found in the path, names the person: one averaged shape each [the column "
        "`person` of a .parquet]",
    )
    parser.add_argument(
        "--part-size",
        type=whole_number(1, 10**6),
        default=256,
        metavar="N",
        help="inputs per file, done and written whole [256]",
    )
    where = parser.add_argument_group("where")
    where.add_argument("--ray-address", metavar="ADDRESS", help="of a cluster, or auto [start Ray here]")
    where.add_argument(
        "--actors", type=actors, default=(1, None), metavar="N|MIN-MAX", help="size of the pool [as there is room]"
    )
    where.add_argument(
        "--actor-cpus", type=number_above_0(MOST_ACTORS), metavar="C", help="processors of an actor [--threads]"
    )
    where.add_argument(
        "--actor-gpus",
        type=number_above_0(MOST_ACTORS),
        default=0.0,
        metavar="G",
        help="GPUs of an actor; 0.25 puts 4 on one [0]",
    )
    where.add_argument("--provider", choices=("auto", "tensorrt", "cuda", "cpu"), default="auto", help="[%(default)s]")
    where.add_argument("--threads", type=threads, default=1, metavar="N", help="of the network on the CPU [1]")
    add_gpu_options(where)
    rows = parser.add_argument_group("rows")
    rows.add_argument("--precision", choices=PRECISIONS, help="the file of this precision beside --model")
    rows.add_argument("--detector", type=name, metavar="FILE", help="[face_detector.onnx beside the model]")
    rows.add_argument(
        "--det-size",
        type=whole_number(MULTIPLE, LARGEST_SIZE),
        metavar="PIXELS",
        help="longer side of what the detector sees",
    )
    rows.add_argument(
        "--det-every", type=positive, default=10, metavar="N", help="frames of a video between looks [%(default)s]"
    )
    rows.add_argument("--min-confidence", type=unit, default=MIN_CONFIDENCE, metavar="C", help="[%(default)s]")
    rows.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="read faces of photographs together with their mirror image [--mirror]",
    )
    rows.add_argument("--average", choices=("robust", "mean"), default="robust", help="of a person [%(default)s]")
    rows.add_argument(
        "--max-mb",
        type=number_above_0(MOST_PICTURE_BYTES / 10**6),
        default=64.0,
        metavar="MB",
        help="a larger photograph is an error row [64]",
    )
    rows.add_argument(
        "--max-megapixels",
        type=number_above_0(MOST_PICTURE_PIXELS / 10**6),
        default=100.0,
        metavar="MP",
        help="likewise [100]",
    )
    parser.add_argument("--quiet", action="store_true", help="errors only")
    return parser


def actors(text: str) -> tuple[int, int | None]:
    """As in 4, or 2-8."""
    least, dash, most = text.partition("-")
    count = whole_number(1, MOST_ACTORS)
    try:
        found = count(least), count(most if dash else least)
    except argparse.ArgumentTypeError:
        found = (2, 1)
    if found[1] < found[0]:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no pool of actors like 4 or 2-8")
    return found

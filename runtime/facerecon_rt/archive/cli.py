"""`facerecon-rt archive`: the command line for millions of photographs and videos."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from ..commands.arguments import (
    Parser,
    add_detector,
    add_gpu_options,
    add_model,
    add_provider,
    add_threads,
    gpu_options,
    idle_sentences,
)
from ..commands.default_model import models_or_default
from ..contract import PRECISIONS
from ..errors import SourceError, UsageError
from ..faces.detector_contract import MULTIPLE
from ..faces.detector_runs import LARGEST_SIZE
from ..faces.pipeline import DETECT_EVERY
from ..faces.reconstruct import MIN_CONFIDENCE
from ..interrupts import importing
from ..limits import MOST_PICTURE_BYTES, MOST_PICTURE_PIXELS
from ..values import name, number_above_0, positive, shown, unit, whole_number
from .recipe import MOST_ACTORS, Recipe, Workers

log = logging.getLogger("facerecon_rt")
EPILOG = """\
examples:
  facerecon-rt archive --input photos/ --output results.parquet/            (the shipped model)
  facerecon-rt archive --model models/face.onnx --input photos/ --group-by '([^/]+)/[^/]+$' --output people.parquet/
  facerecon-rt archive --model models/face.onnx --input uris.parquet --output /shared/out.parquet/ --ray-address auto
  facerecon-rt archive --model models/face.onnx --input uris.parquet --output out.parquet/ --actor-gpus 0.25

The output has exactly one row per input, with the record's fields. `faces` holds the faces of a photograph, or one face
per track of a video, from its most confident frame. `error` says in one line why an input has no result. With
--group-by (or a column `person` beside `uri`), the photographs of each person are averaged as with --set: the shape
stands once per person in OUTPUT/_persons.

The same command again continues an interrupted run and computes nothing twice. In a cluster, all nodes must see the
models, the inputs and the output under the same names. Only one program may write into an output.

Passwords in addresses (http://user:${PASSWORD}@host/photo.jpg, from the environment) are never written to a file.

  pandas.read_parquet("results.parquet")          pyarrow.dataset.dataset("results.parquet/_persons")

exit codes: 0 done, also when some rows are errors; 2 usage or output; 3 model refused; 4 provider missing; 5 no input
could be read; 130 Ctrl-C (written files stay)
"""


def main(arguments: Sequence[str]) -> int:
    """Run `archive` with the arguments behind it. Returns the exit code. Raises FaceReconError."""
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
    recipe, workers = _recipe(options), _workers(options)
    if options.output.suffix.lower() in (".jsonl", ".json", ".csv", ".mp4", ".obj"):
        raise UsageError(
            f"{options.output} will be a folder of Parquet files; give it such a name, as in results.parquet/"
        )
    started = time.monotonic()
    inputs = list_inputs(options.input, options.group_by)
    if options.average is not None and "person" not in inputs.column_names:
        for line in idle_sentences([("--average", "persons, with --group-by or a column `person`")]):
            log.warning("%s", line)
    with only_writer(options.output.absolute()):
        plan = open_plan(options.output.absolute(), inputs, options.part_size, recipe)
        log.info("inputs: %d, parts: %d", len(inputs), len(plan.sizes))
        counts = archive(plan, recipe, workers, address=options.ray_address, quiet=options.quiet)
    spent = sum(counts.stages_ms.values()) or 1.0
    log.info(
        "inputs: %d, errors: %d, faces: %d%s; %.1f s; actors' time: %s",
        counts.inputs, counts.errors, counts.faces, f", persons: {counts.persons}" if counts.persons else "",
        time.monotonic() - started,
        ", ".join(f"{stage} {100 * ms / spent:.0f} %" for stage, ms in counts.stages_ms.items()) or "none",
    )  # fmt: skip
    if counts.errors:
        log.info("the reasons are in the column `error` of %s", options.output)
    log.info("wrote %s", options.output)
    if counts.errors == counts.inputs:
        raise SourceError(
            f"none of the {counts.inputs} inputs could be read; {options.output} holds the reason for each"
        )
    return 0


def _recipe(options: argparse.Namespace) -> Recipe:
    models = models_or_default(options.model, options.provider, options.precision)
    return Recipe(
        models=tuple(str(Path(model).absolute()) for model in models),
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


def _workers(options: argparse.Namespace) -> Workers:
    least, most = options.actors
    return Workers(
        least=least,
        most=most,
        cpus=options.actor_cpus or max(1, options.threads),
        gpus=options.actor_gpus,
        provider=options.provider,
        threads=options.threads,
        gpu=gpu_options(options),
    )


def archive_parser() -> argparse.ArgumentParser:
    """Return the parser of `archive`."""
    parser = Parser(
        prog="facerecon-rt archive",
        description="Reconstruct millions of photographs and videos to Parquet, on this machine or a Ray cluster.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model(parser)
    parser.add_argument(
        "--input",
        action="extend",
        nargs="+",
        required=True,
        type=name,
        metavar="X",
        help="a folder with its subfolders, a glob, a photograph, a video, an address (http, s3, gs), or a .parquet "
        "with a column `uri`; repeatable",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder for the Parquet files")
    parser.add_argument(
        "--group-by",
        metavar="PATTERN",
        help="regular expression whose group, found in the path, names the person; each person gets one averaged shape "
        "[the column `person` of a .parquet]",
    )
    parser.add_argument(
        "--part-size",
        type=whole_number(1, 10**6),
        default=256,
        metavar="N",
        help="inputs per Parquet file, computed and written together [256]",
    )
    _add_where(parser)
    _add_rows(parser)
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    return parser


def _add_where(parser: Parser) -> None:
    where = parser.add_argument_group("where")
    where.add_argument("--ray-address", metavar="ADDRESS", help="address of a Ray cluster, or auto [start Ray here]")
    where.add_argument(
        "--actors",
        type=actors,
        default=(1, None),
        metavar="N|MIN-MAX",
        help="number of actors [as many as there is room for]",
    )
    where.add_argument(
        "--actor-cpus", type=number_above_0(MOST_ACTORS), metavar="C", help="processors per actor [--threads]"
    )
    where.add_argument(
        "--actor-gpus",
        type=number_above_0(MOST_ACTORS),
        default=0.0,
        metavar="G",
        help="GPUs per actor; 0.25 puts 4 actors on a GPU [0]",
    )
    add_provider(where)
    add_threads(where)
    add_gpu_options(where)


def _add_rows(parser: Parser) -> None:
    rows = parser.add_argument_group("rows")
    rows.add_argument("--precision", choices=PRECISIONS, help="use the file of this precision beside --model")
    add_detector(rows)
    rows.add_argument(
        "--det-size",
        type=whole_number(MULTIPLE, LARGEST_SIZE),
        metavar="PIXELS",
        help="longer side of the detector's input in pixels",
    )
    rows.add_argument(
        "--det-every",
        type=positive,
        default=DETECT_EVERY,
        metavar="N",
        help="run the detector every N frames of a video [%(default)s]",
    )
    rows.add_argument(
        "--min-confidence",
        type=unit,
        default=MIN_CONFIDENCE,
        metavar="C",
        help="minimum confidence of a face [%(default)s]",
    )
    rows.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="average each face of a photograph over three crops and their mirror images [--mirror]",
    )
    rows.add_argument(
        "--average",
        choices=("precision", "robust", "mean"),
        help="how a person's shapes are averaged [precision where the model allows it, else robust]",
    )
    rows.add_argument(
        "--max-mb",
        type=number_above_0(MOST_PICTURE_BYTES / 10**6),
        default=64.0,
        metavar="MB",
        help="maximum size of a photograph in MB; a larger one is an error row [64]",
    )
    rows.add_argument(
        "--max-megapixels",
        type=number_above_0(MOST_PICTURE_PIXELS / 10**6),
        default=100.0,
        metavar="MP",
        help="maximum size of a photograph in megapixels; a larger one is an error row [100]",
    )


def actors(text: str) -> tuple[int, int | None]:
    """Parse the size of a pool, for example 4 or 2-8. Raises ArgumentTypeError."""
    least, dash, most = text.partition("-")
    count = whole_number(1, MOST_ACTORS)
    try:
        found = count(least), count(most if dash else least)
    except argparse.ArgumentTypeError:
        found = (2, 1)
    if found[1] < found[0]:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a number of actors such as 4 or 2-8")
    return found

"""The command `facerecon-train`: prepare, train, evaluate, and the training of the face detector."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from facerecon_rt.commands.arguments import Parser, idle_sentences
from facerecon_rt.commands.shell import run_command, say
from facerecon_rt.data_folder import data_folder, default_data
from facerecon_rt.errors import UsageError
from facerecon_rt.interrupts import importing
from facerecon_rt.paths import resolved
from facerecon_rt.sinks.outputs import check_no_input, check_writable
from facerecon_rt.values import number_above_0, positive, seed, threads, whole, whole_number

from .detector import cli as detector_cli

if TYPE_CHECKING:
    from .config import TrainConfig
    from .data import Folder
    from .losses import LossWeights

    Commands = argparse._SubParsersAction[Parser]

MOST_RATE = 100.0
"""Largest learning rate, and largest ratio of two learning rates."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. Errors are one line on standard error."""

    def command() -> int:
        options = build_parser().parse_args(arguments)
        options.run_command(options)
        return 0

    return run_command("facerecon-train", command, on_interrupt=lambda: None, extra="train")


def build_parser() -> Parser:
    """Return the parser of all subcommands. Heavy imports wait until a subcommand runs, so that --help answers at
    once."""
    parser = Parser(
        prog="facerecon-train",
        description="Train a FaceModel with weak supervision: rendered faces have known geometry, photographs have 2D "
        "landmarks only.",
        epilog="order of work: prepare, train, evaluate; then facerecon-export RUN/face.safetensors",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_prepare(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_average(commands)
    _add_detector(commands)
    _add_measure_detector(commands)
    _add_head(commands)
    _add_sample_clip(commands)
    return parser


def _add_prepare(commands: Commands) -> None:
    parser = commands.add_parser(
        "prepare",
        help="read the face model and the data, render people, and draw contact sheets",
        description="Reads ICT-FaceKit (its FaceXModel folder, or a packed ict_facekit.npz), transfers it to the face "
        "template, packs the photographs and renders people. Draws contact_sheet.png and people_sheet.png for you to "
        "check. Existing results are kept.",
    )
    _add_data(parser)
    parser.add_argument(
        "--face-model", type=Path, help="FaceXModel folder or .npz file [DATA/face_model/ict_facekit.npz]"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/prepared"), help="folder for the prepared data [%(default)s]"
    )
    parser.add_argument(
        "--people", type=positive, default=8000, help="number of rendered people, with four views each [%(default)s]"
    )
    parser.add_argument("--seed", type=seed, default=0, help="seed of the random numbers [%(default)s]")
    photographs = parser.add_mutually_exclusive_group()
    photographs.add_argument(
        "--photographs",
        nargs="+",
        default=(),
        metavar="NAME",
        help="folders under DATA/faces to train on, and `expressive` for DATA/pseudo/expressive; Pointing'04 is packed "
        "in any case [all except names that end in -test]",
    )
    photographs.add_argument(
        "--clean",
        action="store_true",
        help="use no photographs except Pointing'04, and generated skin and backgrounds; the weights may serve any "
        "purpose",
    )
    parser.add_argument(
        "--rebuild-template",
        action="store_true",
        help="build the face template again; weights and ONNX files of the old template are refused afterwards",
    )
    parser.set_defaults(run_command=_prepare)


def _add_train(commands: Commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train a FaceModel; the same command resumes a run",
        description="Writes checkpoint.pt, face.safetensors (running average of the weights), config.json and "
        "curves.png to the run folder every few minutes. Ctrl-C saves first. The same command resumes the run.",
    )
    _add_data(parser)
    parser.add_argument(
        "--prepared", type=Path, default=Path("runs/prepared"), help="folder of the prepared data [%(default)s]"
    )
    parser.add_argument("--run", type=Path, default=Path("runs/face"), help="run folder [%(default)s]")
    _add_start(parser)
    _add_lessons(parser)
    _add_steps(parser)
    _add_machine(parser)
    parser.add_argument(
        "--terms",
        help="permitted use of the weights, one line that is stored in their file [research only; any purpose if the "
        "data were prepared with --clean, and the weights of --init and --distil are for any purpose]",
    )
    parser.set_defaults(run_command=_train)


def _add_start(parser: argparse.ArgumentParser) -> None:
    """Add the options of the network and the weights that it starts or learns from."""
    parser.add_argument(
        "--init",
        type=Path,
        help="start from these .safetensors weights, e.g. models/face.safetensors; with another backbone, from the "
        "layers that both have [random weights]",
    )
    parser.add_argument(
        "--distil",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="also learn from these weights of a bigger network, or from the average of several",
    )
    parser.add_argument("--backbone", help="name of a backbone in backbones.py [that of --init, else medium]")
    parser.add_argument(
        "--size",
        type=whole_number(64, 1024),
        help="crop side in pixels, a multiple of 32 [that of --init, else 160]",
    )


def _add_lessons(parser: argparse.ArgumentParser) -> None:
    """Add the options of the photographs and losses."""
    parser.add_argument(
        "--folder",
        action="append",
        default=[],
        metavar="NAME=SHARE[,WEIGHT]",
        help="share of a folder of photographs in the batches (0 leaves it out), and the weight of its landmarks in "
        "the loss, which stays as it is unless you give it; may be repeated [0.25,1, or the values in data.py for the "
        "folders that it names]",
    )
    parser.add_argument(
        "--loss",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="weight of a loss term, e.g. photometric=1; may be repeated [values in losses.LossWeights]",
    )


def _add_steps(parser: argparse.ArgumentParser) -> None:
    """Add the options of the length and the rates of the training."""
    parser.add_argument(
        "--pictures", type=whole, default=400_000, help="total number of crops to train on [%(default)s]"
    )
    parser.add_argument(
        "--learning-rate",
        type=number_above_0(MOST_RATE),
        default=2e-3,
        help="learning rate after the warm-up [%(default)s]",
    )
    parser.add_argument(
        "--output-rate",
        type=number_above_0(MOST_RATE),
        default=0.1,
        help="learning rate of the output layers relative to the others; use more with --init [%(default)s]",
    )


def _add_machine(parser: argparse.ArgumentParser) -> None:
    """Add the options of the random numbers and the machine."""
    parser.add_argument("--seed", type=seed, default=0, help="seed of the random numbers [%(default)s]")
    parser.add_argument("--device", default="auto", help="device: auto, cpu or cuda [%(default)s]")
    parser.add_argument("--threads", type=threads, default=2, help="threads of the network on the CPU [%(default)s]")
    parser.add_argument(
        "--bfloat16",
        action="store_true",
        help="compute the features in bfloat16; trains medium 1.3 to 1.5 times as fast on a processor with AMX",
    )


def _add_evaluate(commands: Commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure the accuracy of weights; writes tables and pictures",
        description="Measures 300-W style NME on annotated photographs from the true box; millimetres, degrees and "
        "blendshapes on held-out rendered people; head pose on Pointing'04 from detected boxes; image sets; "
        "confidence. Several weights are measured as an ensemble.",
    )
    _add_data(parser)
    parser.add_argument(
        "weights",
        type=Path,
        nargs="*",
        default=[Path("models/face.safetensors")],
        help=".safetensors files [models/face.safetensors]",
    )
    parser.add_argument(
        "--prepared", type=Path, default=Path("runs/prepared"), help="folder of the prepared data [%(default)s]"
    )
    parser.add_argument(
        "--detector", type=Path, default=Path("models/face_detector.onnx"), help="face detector [%(default)s]"
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the report [report/ or report-ensemble/, beside the weights]"
    )
    parser.set_defaults(run_command=_evaluate)


def _add_average(commands: Commands) -> None:
    parser = commands.add_parser(
        "average",
        help="average the weights of several runs with the same start into one network",
        description="Averages the weights of runs that started from the same weights (--init), with other seeds or "
        "losses. The averaged network has a smaller error than any of them, and costs as much as one.",
    )
    parser.add_argument(
        "weights", type=Path, nargs="+", help="two or more .safetensors files; a file named twice counts twice"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help=".safetensors file to write")
    parser.set_defaults(run_command=_average)


def _add_detector(commands: Commands) -> None:
    parser = commands.add_parser(
        "detector",
        help="train the face detector",
        description="Trains the anchor-free face detector on annotated photographs, Pointing'04 and faces that YuNet "
        "finds. The same command resumes a run.",
    )
    detector_cli.add_arguments(parser)
    parser.set_defaults(run_command=detector_cli.run)


def _add_measure_detector(commands: Commands) -> None:
    parser = commands.add_parser(
        "measure-detector",
        help="measure how well a face detector finds faces, on data that training never sees",
        description="Prints, as JSON, the share of faces found in faces/lfpw-test (upright and turned), youtube-test, "
        "videos/head_*.mp4, videos/crowd_1080p.mp4, identities/ and Pointing'04, where they exist. Pictures without "
        "annotations are compared with YuNet.",
    )
    parser.add_argument("file", type=Path, help="a detector of ours, or a YuNet .onnx")
    _add_data(parser)
    parser.set_defaults(run_command=_measure_detector)


def _measure_detector(options: argparse.Namespace) -> None:
    with importing():
        from .detector.measure import measure_detector

    print(json.dumps(measure_detector(options.file, data_folder(options.data)), indent=1))


def _add_head(commands: Commands) -> None:
    parser = commands.add_parser(
        "head",
        help="build the rest of the head for --mesh head, and measure it",
        description="Builds the file with which the runtime completes a face to a head, from ICT-FaceKit and the face "
        "template alone. Prints distances to the true heads of 200 random people. With --prepared, it also prints "
        "those of faces that weights predict from pictures of held-out rendered people.",
    )
    _add_data(parser)
    parser.add_argument(
        "--face-model", type=Path, help="FaceXModel folder or .npz file [DATA/face_model/ict_facekit.npz]"
    )
    parser.add_argument("--prepared", type=Path, help="folder of the prepared data [do not measure predicted faces]")
    parser.add_argument(
        "--weights", type=Path, help="weights that predict faces, with --prepared [models/face.safetensors]"
    )
    parser.add_argument(
        "out",
        type=Path,
        nargs="?",
        default=Path("runtime/facerecon_rt/head.npz"),
        help="file to write [%(default)s]",
    )
    parser.set_defaults(run_command=_head)


def _head(options: argparse.Namespace) -> None:
    with importing():
        from facerecon_rt.head import read_head as read_completed
        from facerecon_rt.template import load_template

        from .head_errors import TrueHeads, as_table, predicted_people
        from .prepare import template_arrays, template_face
        from .rendered.morphable import read_head
        from .rendered.whole_head import build_head, cut_rest, save_head

    face_model = options.face_model or data_folder(options.data) / "face_model" / "ict_facekit.npz"
    if options.out.suffix != ".npz":
        raise UsageError(f"{options.out}: give a path ending in .npz")
    if options.weights and options.prepared is None:
        say("facerecon-train: --weights does nothing here; it is for --prepared")
    check_no_input(options.out, {resolved(face_model)})
    check_writable(options.out)
    head = read_head(face_model)
    template = load_template()
    rest = cut_rest(head, template_arrays())
    save_head(build_head(head, rest, template_arrays(), template.sha256), options.out)
    print(f"{options.out}: {len(rest.symmetry)} vertices, {options.out.stat().st_size / 1000:.0f} kB")
    whole, truth = read_completed(options.out, template), TrueHeads(head, template_face(head), rest)
    print(f"\ntrue faces of random people\n{as_table(truth.errors(whole, truth.random_people(200)))}")
    if options.prepared is not None:
        people = predicted_people(options.weights or Path("models/face.safetensors"), options.prepared, 300)
        print(f"\nfaces predicted from pictures of held-out people\n{as_table(truth.errors(whole, people))}")


def _add_sample_clip(commands: Commands) -> None:
    parser = commands.add_parser(
        "sample-clip",
        help="render the sample video, a talking head, with its true geometry",
        description="Renders the video that ships in tests/data, from ICT-FaceKit alone.",
    )
    parser.add_argument("--face-model", type=Path, required=True, help="FaceXModel folder or .npz file")
    parser.add_argument(
        "out", type=Path, nargs="?", default=Path("tests/data/talking_head.mp4"), help="video to write [%(default)s]"
    )
    parser.set_defaults(run_command=_clip)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        default=default_data(),
        help="folder with faces/, backgrounds/, lighting/, face_model/ [$FACERECON_DATA]",
    )


def _prepare(options: argparse.Namespace) -> None:
    with importing():
        from .prepare import PrepareConfig, prepare

    data = data_folder(options.data)
    face_model = options.face_model or data / "face_model" / "ict_facekit.npz"
    config = PrepareConfig(
        data,
        face_model,
        options.out,
        tuple(options.photographs),
        options.people,
        clean=options.clean,
        rebuild_template=options.rebuild_template,
        seed=options.seed,
    )
    try:
        prepare(config)
    except KeyboardInterrupt:
        print("stopped; run the same command to continue")
        raise
    sheets = "contact_sheet.png and people_sheet.png"
    if not options.clean:
        sheets = "photographs/*/sheet.jpg, " + sheets
    print(f"{options.out}: check {sheets}, then run facerecon-train train")


def _train(options: argparse.Namespace) -> None:
    with importing():
        from .train import train

    for line in idle_options(options):
        say(f"facerecon-train: {line}")
    weights = train(train_config(options))
    print(next_steps(weights, options.data))


def next_steps(weights: Path, data: Path | None = None) -> str:
    """Return a line with the commands that follow when weights were written. `data` is the folder of --data, where it
    was given."""
    of_data = f" --data {data}" if data else ""
    return (
        f"{weights}: next, run facerecon-train evaluate {weights}{of_data} and facerecon-export {weights} -o out/ "
        "(--crops and --calibration name photographs; --precision fp32 needs none)"
    )


def idle_options(options: argparse.Namespace) -> list[str]:
    """Return sentences about loss weights of `train` that are given and do nothing."""
    from .losses import LossWeights

    loss, usual = _loss(options.loss), LossWeights()
    return idle_sentences(
        (f"--loss {name}", purpose)
        for name, purpose, used in (
            ("distillation", "--distil", bool(options.distil)),
            ("skin_prior", "--loss photometric", loss.photometric > 0),
        )
        if not used and getattr(loss, name) != getattr(usual, name)
    )


def train_config(options: argparse.Namespace) -> TrainConfig:
    """Return the configuration that the options of `train` ask for. Backbone and size are those of `--init`, else the
    shipped ones, unless options name others. Gaze and places are always part of the network.

    Raises UsageError for impossible options, and ModelRefused for `--init` weights that cannot be read.
    """
    with importing():
        from .backbones import BACKBONES
        from .checkpoint import load_weights
        from .config import TrainConfig
        from .data import CLEAN_BATCH, BatchConfig
        from .model import ModelConfig
        from .prepare import is_clean
        from .train import default_terms

    start = load_weights(options.init).config if options.init else ModelConfig()
    backbone, size = options.backbone or start.backbone, options.size or start.input_size
    if backbone not in BACKBONES:
        raise UsageError(f"--backbone {backbone}: there is no such backbone; choose one of {', '.join(BACKBONES)}")
    if size % 32:
        raise UsageError(f"--size {size}: must be a multiple of 32, at least 64")
    terms = options.terms or default_terms(options.prepared, options.init, *options.distil)
    batch = CLEAN_BATCH if is_clean(options.prepared) else BatchConfig()
    if options.pictures < batch.size:
        raise UsageError(f"--pictures {options.pictures}: a batch has {batch.size} crops; give at least as many")
    model = replace(start, backbone=backbone, input_size=size, terms=terms, gaze=True, places=ModelConfig().places)
    try:
        model.check()
    except ValueError as error:
        raise UsageError(f"--terms {terms!r}: {error}") from error
    return TrainConfig(
        prepared=options.prepared,
        data=data_folder(options.data),
        run=options.run,
        init=options.init,
        distil=tuple(options.distil),
        pictures=options.pictures,
        learning_rate=options.learning_rate,
        output_rate=options.output_rate,
        loss=_loss(options.loss),
        seed=options.seed,
        device=options.device,
        threads=options.threads,
        bfloat16=options.bfloat16,
        folders=tuple(_folder(text) for text in options.folder),
        batch=batch,
        model=model,
    )


def _loss(texts: list[str]) -> LossWeights:
    """Return the loss weights of texts NAME=VALUE. Raises UsageError for an unknown name or an invalid number."""
    from dataclasses import fields

    from .losses import LossWeights

    names = [field.name for field in fields(LossWeights)]
    values = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in names:
            raise UsageError(f"--loss {text}: there is no such loss term; choose from {', '.join(names)}")
        try:
            values[name] = float(value)
        except ValueError as error:
            raise UsageError(f"--loss {text}: not a loss weight; write NAME=VALUE, e.g. photometric=1") from error
        if not 0 <= values[name] < float("inf"):
            raise UsageError(f"--loss {text}: a weight must be 0 or more")
    return LossWeights(**values)


def _folder(text: str) -> Folder:
    """Return the Folder of a text NAME=SHARE[,WEIGHT]. Raises UsageError for any other text."""
    from .data import Folder, usual_folder

    name, _, numbers = text.partition("=")
    share, _, weight = numbers.partition(",")
    try:
        folder = Folder(name, float(share), float(weight) if weight else usual_folder(name).weight)
    except ValueError as error:
        raise UsageError(
            f"--folder {text}: not a share; write NAME=SHARE or NAME=SHARE,WEIGHT, e.g. mine=0.3,0.5"
        ) from error
    if not (0 <= folder.share < float("inf") and 0 <= folder.weight < float("inf")):
        raise UsageError(f"--folder {text}: share and weight must be 0 or more")
    return folder


def _evaluate(options: argparse.Namespace) -> None:
    with importing():
        from .accuracy_report import write_report
        from .checkpoint import load_weights

    name = "report" if len(options.weights) == 1 else "report-ensemble"
    out = options.out or options.weights[0].parent / name
    members = [load_weights(path) for path in options.weights]
    report = write_report(members, data_folder(options.data), options.prepared, options.detector, out)
    for title, rows in report.items():
        print(f"\n{title}")
        for name, row in rows.items():
            print(f"  {name}: " + ", ".join(f"{key} {value:.3f}" for key, value in row.items()))
    print(f"\n{out / 'report.md'}: tables and pictures")


def _average(options: argparse.Namespace) -> None:
    with importing():
        from .checkpoint import load_weights, save_weights
        from .ensemble import average_weights

    if options.out.suffix != ".safetensors":
        raise UsageError(f"-o {options.out}: give a path ending in .safetensors")
    check_no_input(options.out, set(map(resolved, options.weights)))
    check_writable(options.out)
    save_weights(average_weights([load_weights(path) for path in options.weights]), options.out)
    print(next_steps(options.out))


def _clip(options: argparse.Namespace) -> None:
    with importing():
        from .rendered.clip import make_clip
        from .rendered.morphable import read_head
        from .rendered.render import HeadGeometry

    make_clip(HeadGeometry(read_head(options.face_model)), options.out)
    print(f"wrote {options.out} and {options.out.with_suffix('.json')}")


if __name__ == "__main__":
    sys.exit(main())

"""facerecon-rt: the public API from the command line. Everything it does, a caller of the package can do too."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from importlib.metadata import version
from pathlib import Path

from cv2.utils import logging as cv2_logging

from .arguments import Parser, add_gpu_options, gpu_options, positive, positive_number, size, unit, whole
from .camera import AS_IT_IS, FLIPS, LiveOptions, is_live, public_name
from .contract import PRECISIONS
from .errors import FaceReconError, SourceError, UsageError
from .gpu import AS_USUAL
from .image_set import reconstruct_set_from_sources
from .inputs import Unread, groups_of, limited
from .meshes import MESH_SUFFIXES, check_mesh_format, write_mesh
from .metric import Intrinsics
from .outputs import check_writable, numbered
from .pipeline import SMOOTH, Pipeline, SceneSink
from .progress import Progress
from .reconstruct import MIN_CONFIDENCE, Average, Reconstructor
from .service import ServiceNotifier
from .sinks import SINK_STYLES, Sink, open_sink
from .template import load_template
from .threaded import ThreadedSink
from .types import Frame
from .video_sink import CODECS

DEFAULT_OUTPUT = "facerecon-out/"
log = logging.getLogger("facerecon_rt")


def main(arguments: Sequence[str] | None = None) -> int:
    """Console script; returns the exit code: 0, 2 usage, 3 model refused, 4 provider missing, 5 source, 130 Ctrl-C."""
    if sys.stderr is None:
        # Closed by whoever started us: what there is to say, nobody reads.
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    given = list(sys.argv[1:] if arguments is None else arguments)
    program, run = "facerecon-rt", _reconstruct
    if given and given[0] in COMMANDS:
        program, run = f"facerecon-rt {given[0]}", COMMANDS[given[0]]
        given = given[1:]
    elif given and not given[0].startswith("-"):
        known = ", ".join(COMMANDS)
        print(f"facerecon-rt: {given[0]!r} is no command ({known}); inputs stand after --input", file=sys.stderr)
        return UsageError.exit_code
    _log_to_stderr(quiet=False)
    # So do systemd and Docker stop a program: what is open is finished as on Ctrl-C.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(given)
    except FaceReconError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # Whoever reads our standard output has seen enough. Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        log.warning("interrupted; what was written is whole")
        return 130
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _reconstruct(arguments: Sequence[str]) -> int:
    options = build_parser().parse_args(arguments)
    _log_to_stderr(quiet=options.quiet, once=options.set)
    if options.set:
        if options.serve:
            raise UsageError("--serve shows what is seen now, --set averages what was; give one of them")
        _run_set(options)
        return 0
    if options.average is not None:
        raise UsageError("--average says how --set averages; give --set, or leave it out")
    _run(options)
    return 0


def _bench(arguments: Sequence[str]) -> int:
    from .bench.cli import main as bench

    return bench(arguments)


def _doctor(arguments: Sequence[str]) -> int:
    from .doctor import main as doctor

    return doctor(arguments)


def _build(arguments: Sequence[str]) -> int:
    from .build import main as build

    return build(arguments)


COMMANDS = {"bench": _bench, "build": _build, "doctor": _doctor}


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = Parser(
        prog="facerecon-rt",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="3D faces from photographs, videos and cameras: mesh, pose, 68 landmarks, blendshapes.",
        epilog="""\
examples:
  facerecon-rt --model models/face.onnx --input photo.jpg
  facerecon-rt --model models/face.onnx --input cam0 --output records.jsonl --output live.mp4
  facerecon-rt --model models/face.onnx --input video.mp4 --output - | jq .faces[0].pose.euler_deg
  facerecon-rt --model models/face.onnx --set --input photos-of-anna/ --output anna.obj
  facerecon-rt --model a.onnx --model b.onnx --input photo.jpg          (an ensemble)

other commands, each with --help:
  facerecon-rt bench --model models/face.onnx --input video.mp4      (a latency report)
  facerecon-rt build --model models/face.onnx --precision fp16       (TensorRT's engines ahead of time)
  facerecon-rt doctor                                                (what is missing here, and what mends it)

exit codes: 0 done, 2 usage or output, 3 model refused, 4 provider missing, 5 source missing, unreadable or lost,
130 interrupted, by Ctrl-C or SIGTERM (files written so far are valid)""",
    )
    parser.add_argument(
        "--model",
        action="append",
        required=True,
        type=_name,
        metavar="FILE",
        help="FaceModel .onnx; several make an ensemble",
    )
    parser.add_argument(
        "--input",
        action="extend",
        nargs="+",
        required=True,
        type=_name,
        metavar="X",
        help="cam0, /dev/video0, csi://0, rtsp://…, http://…, a video, a photograph, a folder or a glob; repeatable. "
        "Files come one after the other, cameras and streams all at once. ${NAME} in an address is taken from the "
        "environment",
    )
    parser.add_argument(
        "--output",
        action="append",
        type=_name,
        metavar="Y",
        help="records: .jsonl or -; annotated video: .mp4 .avi .mkv .mov; annotated pictures: .jpg .png .webp; meshes: "
        f".obj .ply .glb; a Rerun recording: .rrd; a folder takes all but that; may be repeated [{DEFAULT_OUTPUT}]",
    )
    faces = parser.add_argument_group("faces")
    faces.add_argument(
        "--detector", type=_name, metavar="FILE", help="ours or a YuNet .onnx [face_detector.onnx beside the model]"
    )
    faces.add_argument(
        "--det-every", type=positive, default=10, metavar="N", help="frames between looks for new faces [%(default)s]"
    )
    faces.add_argument(
        "--det-size",
        type=positive,
        metavar="PIXELS",
        help="longer side of what the detector sees; more finds smaller faces [256, or 640 for large frames]",
    )
    faces.add_argument(
        "--max-faces",
        type=positive,
        metavar="N",
        help="keep the N largest faces of a frame; looks for new ones are rarer while there are N",
    )
    faces.add_argument(
        "--min-confidence", type=unit, default=MIN_CONFIDENCE, metavar="C", help="0..1, below is no face [%(default)s]"
    )
    faces.add_argument(
        "--smooth", choices=SMOOTH, default="off", help="steadier faces on videos and cameras, which lag [%(default)s]"
    )
    faces.add_argument(
        "--budget-ms",
        type=positive_number,
        metavar="MS",
        help="that a frame of a video or camera may take; over it, new faces are looked for less often, then fewer "
        "faces are looked at, and the records say so [no limit]",
    )
    lens = faces.add_mutually_exclusive_group()
    lens.add_argument(
        "--camera-matrix", type=_intrinsics, metavar="FX,FY,CX,CY", help="pixels: poses in mm from the camera as well"
    )
    lens.add_argument("--fov", type=positive_number, metavar="DEGREES", help="the same from a horizontal field of view")
    live = parser.add_argument_group("cameras and streams")
    live.add_argument(
        "--retries", type=whole, metavar="N", help="to open one again that is lost, 1 to 30 s apart [for ever]"
    )
    live.add_argument(
        "--timeout",
        type=positive_number,
        default=AS_IT_IS.timeout_s,
        metavar="S",
        help="seconds to open, and until a frame must come [%(default)g]",
    )
    live.add_argument(
        "--max-delay-ms",
        type=positive_number,
        default=0.0,
        metavar="MS",
        help="that the frame of one camera may wait for those of others: their faces are one run of the network [0]",
    )
    live.add_argument("--camera-size", type=size, metavar="WxH", help="that a camera is asked for [its own]")
    live.add_argument("--camera-fps", type=positive_number, metavar="F", help="likewise")
    live.add_argument("--flip", choices=FLIPS, default="none", help="for cameras that hang otherwise [%(default)s]")
    sets = parser.add_argument_group("image sets")
    sets.add_argument("--set", action="store_true", help="all inputs show one person: one averaged shape, one mesh")
    sets.add_argument("--average", choices=("robust", "mean"), help="how --set averages [robust]")
    faces.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="read each face of a photograph together with its mirror image: more exact, one crop more; videos and "
        "cameras never are [--mirror]",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--style", choices=SINK_STYLES, default="shaded", help="of annotated pictures [%(default)s]")
    output.add_argument(
        "--blendshapes",
        choices=("ictfacekit", "arkit"),
        default="ictfacekit",
        help="the model's 53 names, or Apple's 52 [%(default)s]",
    )
    output.add_argument(
        "--rotate", type=positive, metavar="MB", help="begin a new file of records whenever one has this size"
    )
    output.add_argument(
        "--serve",
        metavar="HOST:PORT",
        help="a web page with the live picture, mesh, blendshapes and timings, /healthz and /metrics; as in "
        "127.0.0.1:8080. Without --output, nothing is written then",
    )
    output.add_argument("--frames", type=positive, metavar="N", help="stop after N frames")
    output.add_argument("--quiet", action="store_true", help="errors only")
    running = parser.add_argument_group("running")
    running.add_argument(
        "--provider", choices=("auto", "tensorrt", "cuda", "cpu"), default="auto", help="[%(default)s]"
    )
    running.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="take the file of this precision that lies beside --model and was made from the same weights; of int8 "
        "files, the one for the provider [the file named]",
    )
    running.add_argument("--threads", type=positive, default=1, metavar="N", help="of the network on the CPU [1]")
    add_gpu_options(running)
    running.add_argument(
        "--warm-while-building",
        action="store_true",
        help="where TensorRT's engine is still to be built, answer on cuda or cpu until it is",
    )
    parser.add_argument("--version", action="version", version=f"facerecon-rt {version('facerecon-rt')}")
    return parser


def _name(text: str) -> str:
    if not text:
        # A path to pathlib, the current folder; on a command line, a variable that was never set.
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def _intrinsics(text: str) -> Intrinsics:
    try:
        fx, fy, cx, cy = map(float, text.split(","))
        return Intrinsics(fx, fy, cx, cy)
    except (ValueError, UsageError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not fx,fy,cx,cy in pixels, as in 900,900,640,360") from error


def _run(options: argparse.Namespace) -> None:
    unread = Unread(options.input)
    with ExitStack() as stack:
        targets = _targets(options)
        _check_cameras(options.input, targets)
        reconstructor = stack.enter_context(_reconstructor(options))
        # Outputs first: what cannot be written is found out before any work, and before a camera is opened.
        sinks: list[SceneSink] = [
            stack.enter_context(ThreadedSink(_sink(target, reconstructor, options), _name_of(target)))
            for target in targets
        ]
        if options.serve:
            sinks.append(stack.enter_context(_web(options.serve, reconstructor)))
        sinks.append(stack.enter_context(ServiceNotifier()))
        pipeline = Pipeline(
            reconstructor,
            detect_every=options.det_every,
            max_faces=options.max_faces,
            lens=options.camera_matrix or options.fov,
            smooth=options.smooth,
            budget_ms=options.budget_ms,
        )
        _say_choice(reconstructor, options)
        progress = Progress(quiet=options.quiet or "-" in targets)
        try:
            groups = stack.enter_context(closing(_groups(options, unread)))
            for scene in pipeline.run_together(groups, sinks):
                progress.show(scene)
        finally:
            progress.finish()
    _say_where(targets)
    unread.check()


def _run_set(options: argparse.Namespace) -> None:
    unread = Unread(options.input)
    average: Average = options.average or "robust"
    targets = _targets(options)
    meshes = [Path(target) for target in targets if Path(target).suffix.lower() in MESH_SUFFIXES]
    meshes += [Path(target) / "set.obj" for target in targets if _is_folder(target)]
    others = [target for target in targets if Path(target).suffix.lower() not in MESH_SUFFIXES]
    live = [uri for uri in options.input if is_live(uri)]
    if live and others:
        raise UsageError(
            f"{public_name(live[0])} cannot be read twice, as --set must for pictures and records; give a mesh as the "
            "only output, or record a video first"
        )
    with ExitStack() as stack:
        reconstructor = stack.enter_context(_reconstructor(options))
        sinks = [stack.enter_context(_sink(target, reconstructor, options, meshes=False)) for target in others]
        for mesh in meshes:
            check_mesh_format(mesh)
            check_writable(mesh)
        _say_choice(reconstructor, options)
        progress = Progress(quiet=options.quiet or "-" in targets)

        def frames() -> Generator[Frame, None, None]:
            with closing(_groups(options, unread)) as groups:
                for group in groups:
                    yield from group

        try:
            image_set, scenes = reconstruct_set_from_sources(reconstructor, frames, average, progress.show)
        finally:
            progress.finish()
        if image_set is not None:
            for mesh in meshes:
                write_mesh(mesh, image_set.shape, load_template())
        for scene in scenes if sinks else ():
            for sink in sinks:
                sink.write(scene)
    if image_set is not None:
        used = sum(face is not None for face in image_set.faces)
        log.info(
            "%d of %d photographs, spread %.2f mm on average, %.2f mm at most",
            used, len(image_set.faces), image_set.spread_mm.mean(), image_set.spread_mm.max(),
        )  # fmt: skip
    _say_where(targets)
    unread.check()
    if image_set is None:
        raise SourceError("no face was found in the whole set, so there is no shape; are these photographs of a face?")


def _groups(options: argparse.Namespace, unread: Unread) -> Generator[list[Frame], None, None]:
    live = LiveOptions(options.timeout, options.camera_size, options.camera_fps, options.flip)
    delay_s = options.max_delay_ms / 1000
    return limited(groups_of(options.input, unread, live, options.retries, delay_s), options.frames)


def _check_cameras(inputs: Sequence[str], targets: Sequence[str]) -> None:
    """Raises UsageError where the pictures of several cameras would end up in one video."""
    videos = [target for target in targets if Path(target).suffix.lower() in CODECS]
    if videos and sum(map(is_live, inputs)) > 1:
        raise UsageError(f"{videos[0]} is one video, and there are several cameras; give a folder, as in out/")


def _say_choice(reconstructor: Reconstructor, options: argparse.Namespace) -> None:
    log.info("%s", reconstructor.choice)
    if reconstructor.network.provider == "cpu" and gpu_options(options) != AS_USUAL and not options.warm_while_building:
        log.warning("--gpu-memory, --cuda-graph and --engines do nothing on the CPU")


def _targets(options: argparse.Namespace) -> list[str]:
    targets: list[str] = options.output or ([] if options.serve else [DEFAULT_OUTPUT])
    for target in targets:
        if targets.count(target) > 1:
            raise UsageError(f"{target} is given as an output twice; give each once")
    return targets


def _reconstructor(options: argparse.Namespace) -> Reconstructor:
    return Reconstructor(
        options.model,
        detector=options.detector,
        provider=options.provider,
        precision=options.precision,
        threads=options.threads,
        detector_size=options.det_size,
        min_confidence=options.min_confidence,
        mirror=options.mirror,
        gpu=gpu_options(options),
        warm_while_building=options.warm_while_building,
    )


def _sink(target: str, reconstructor: Reconstructor, options: argparse.Namespace, *, meshes: bool = True) -> Sink:
    names, arkit = reconstructor.contract.blendshapes, options.blendshapes == "arkit"
    return open_sink(
        target, blendshapes=names, arkit=arkit, style=options.style, meshes=meshes, rotate_mb=options.rotate
    )


@contextmanager
def _web(address: str, reconstructor: Reconstructor) -> Iterator[SceneSink]:
    try:
        from .web.server import WebServer
        from .web.state import State
    except ModuleNotFoundError as error:
        raise UsageError(f"--serve needs {error.name}: pip install 'facerecon-rt[web]'") from error
    state = State(reconstructor.contract.blendshapes)
    with WebServer(state, address) as server:
        log.info("%s", server.url)
        yield state


def _name_of(target: str) -> str:
    return "standard output" if target == "-" else target


def _is_folder(target: str) -> bool:
    return target != "-" and (Path(target).is_dir() or target.endswith("/") or not Path(target).suffix)


def _say_where(targets: Sequence[str]) -> None:
    for target in targets:
        if target == "-":
            continue
        if Path(target).exists():
            log.info("wrote %s", target)
        elif numbered(Path(target), 1).exists():
            log.info("wrote %s and so on", numbered(Path(target), 1))
        else:
            log.info("nothing to write to %s", target)


class SayOnce(logging.Filter):
    """Lets each line through once: an image set is read twice, and what is wrong with a file is so both times."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """True for a line not said before."""
        line = record.getMessage()
        new = line not in self._said
        self._said.add(line)
        return new


def _log_to_stderr(*, quiet: bool, once: bool = False) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    if once:
        handler.addFilter(SayOnce())
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(logging.ERROR if quiet else logging.INFO)
    if "OPENCV_LOG_LEVEL" not in os.environ:
        # Its warnings of streams that stall are said by us, as losses.
        cv2_logging.setLogLevel(cv2_logging.LOG_LEVEL_ERROR)


if __name__ == "__main__":
    sys.exit(main())

"""The options of `facerecon-rt`: what can be asked of it, and in which words."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..contract import PRECISIONS
from ..environment import installed_version
from ..errors import UsageError
from ..faces.detect import LARGEST_SIZE, MULTIPLE
from ..faces.metric import Intrinsics
from ..faces.pipeline import SMOOTH
from ..faces.reconstruct import MIN_CONFIDENCE
from ..faces.shapes import Average
from ..providers.choice import Provider
from ..providers.nvidia import GpuOptions
from ..sinks.files import SINK_STYLES
from ..sources.camera import AS_IT_IS, CSI_SIZE, FLIPS, LONGEST_TIMEOUT_S, LiveOptions
from ..values import (
    address,
    frame_rate,
    milliseconds,
    name,
    number_above_0,
    positive,
    shown,
    size,
    threads,
    unit,
    whole,
    whole_number,
)
from .arguments import Parser, add_gpu_options

DEFAULT_OUTPUT = "facerecon-out/"


@dataclass(frozen=True, slots=True)
class Options:
    """What one run of `facerecon-rt` was asked for; the fields are named after the options of the command line."""

    model: tuple[str, ...]
    input: tuple[str, ...]
    output: tuple[str, ...]
    """Names of the outputs; empty for the default."""
    detector: str | None
    det_every: int
    """Frames between two looks for new faces."""
    det_size: int | None
    """Longer side of what the detector sees, pixels."""
    max_faces: int | None
    min_confidence: float
    smooth: str
    budget_ms: float | None
    lens: Intrinsics | float | None
    """Intrinsics of the camera, or its horizontal field of view in degrees (`--camera-matrix`, `--fov`)."""
    live: LiveOptions
    """How cameras and streams are opened (`--timeout`, `--camera-size`, `--camera-fps`, `--flip`)."""
    retries: int | None
    """Attempts to open a lost camera or stream again; None is unlimited."""
    max_delay_s: float
    """Seconds for which the frame of one camera may wait for those of others."""
    set: bool
    average: Average | None
    mirror: bool
    style: str
    blendshapes: str
    rotate: int | None
    """Megabytes after which records and videos go on in a new file."""
    keep: int | None
    serve: str | None
    frames: int | None
    quiet: bool
    provider: Provider
    precision: str | None
    threads: int
    gpu: GpuOptions
    """`--gpu-memory`, `--cuda-graph`, `--engines`."""
    warm_while_building: bool


def parse_options(arguments: Sequence[str]) -> Options:
    """The options of a command line. Ends the program with exit code 2 where a word is wrong."""
    given = vars(build_parser().parse_args(arguments))
    values = {name: given[name] for name in given.keys() & {field.name for field in fields(Options)}}
    values |= {name: tuple(given[name] or ()) for name in ("model", "input", "output")}
    return Options(
        **values,
        lens=given["camera_matrix"] or given["fov"],
        live=LiveOptions(given["timeout"], given["camera_size"], given["camera_fps"], given["flip"]),
        max_delay_s=given["max_delay_ms"] / 1000,
        gpu=GpuOptions(memory_mb=given["gpu_memory"], cuda_graph=given["cuda_graph"], engines=given["engines"]),
    )


def build_parser() -> Parser:
    """The parser of `facerecon-rt`; `parse_options` turns its result into `Options`."""
    parser = Parser(
        prog="facerecon-rt",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="3D faces from photographs, videos and cameras: mesh, pose, 68 landmarks, blendshapes.",
        epilog="""\
examples:
  facerecon-rt --model models/face.onnx --input photo.jpg
  facerecon-rt --model models/face.onnx --input cam0 --output records.jsonl --output live.mp4
  facerecon-rt --model models/face.onnx --input sources.yaml --serve 127.0.0.1:8080   (SIGHUP reads sources.yaml again)
  facerecon-rt --model models/face.onnx --input video.mp4 --output - | jq .faces[0].pose.euler_deg
  facerecon-rt --model models/face.onnx --set --input photos-of-anna/ --output anna.obj
  facerecon-rt --model a.onnx --model b.onnx --input photo.jpg          (an ensemble)

other commands, each with --help:
  facerecon-rt archive --model models/face.onnx --input photos/ --output results.parquet/   (by the million, on Ray)
  facerecon-rt bench --model models/face.onnx --input video.mp4      (a latency report)
  facerecon-rt build --model models/face.onnx --precision fp16       (TensorRT's engines ahead of time)
  facerecon-rt doctor                                                (what is missing here, and what mends it)

exit codes: 0 done, 1 (doctor, bench) a problem or over the budget, 2 usage or output, 3 model refused, 4 provider
missing, 5 a source missing, unreadable or lost (the others are done first), or no face in a whole --set,
130 interrupted, by Ctrl-C or SIGTERM (files written so far are valid)""",
    )
    parser.add_argument(
        "--model",
        action="append",
        required=True,
        type=name,
        metavar="FILE",
        help="FaceModel .onnx; several make an ensemble",
    )
    parser.add_argument(
        "--input",
        action="extend",
        nargs="+",
        required=True,
        type=name,
        metavar="X",
        help="cam0, /dev/video0, csi://0, rtsp://…, http://…, a video, a photograph, a folder, a glob, or a "
        "sources.yaml that lists such, with a name and options each; repeatable. "
        "Files come one after the other, cameras and streams all at once. ${NAME} in an address is taken from the "
        "environment",
    )
    parser.add_argument(
        "--output",
        action="append",
        type=name,
        metavar="Y",
        help="records: .jsonl or -; annotated video: .mp4 .avi .mkv .mov; annotated pictures: .jpg .png .webp; meshes: "
        f".obj .ply .glb; a Rerun recording: .rrd; a folder takes all but that; may be repeated [{DEFAULT_OUTPUT}]",
    )
    faces = parser.add_argument_group("faces")
    faces.add_argument(
        "--detector", type=name, metavar="FILE", help="ours or a YuNet .onnx [face_detector.onnx beside the model]"
    )
    faces.add_argument(
        "--det-every", type=positive, default=10, metavar="N", help="frames between looks for new faces [%(default)s]"
    )
    faces.add_argument(
        "--det-size",
        type=whole_number(MULTIPLE, LARGEST_SIZE),
        metavar="PIXELS",
        help="longer side of what the detector sees; more finds smaller faces [256; large frames: 608, and 224]",
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
        type=milliseconds,
        metavar="MS",
        help="that a frame of a video or camera may take; over it, new faces are looked for less often, then fewer "
        "faces are looked at, and the records say so [no limit]",
    )
    lens = faces.add_mutually_exclusive_group()
    lens.add_argument(
        "--camera-matrix", type=_intrinsics, metavar="FX,FY,CX,CY", help="pixels: poses in mm from the camera as well"
    )
    lens.add_argument("--fov", type=_field_of_view, metavar="DEGREES", help="the same from a horizontal field of view")
    live = parser.add_argument_group("cameras and streams")
    live.add_argument(
        "--retries", type=whole, metavar="N", help="to open one again that is lost, 1 to 30 s apart [for ever]"
    )
    live.add_argument(
        "--timeout",
        type=number_above_0(LONGEST_TIMEOUT_S),
        default=AS_IT_IS.timeout_s,
        metavar="S",
        help="seconds to open, and until a frame must come [%(default)g]",
    )
    live.add_argument(
        "--max-delay-ms",
        type=milliseconds,
        default=0.0,
        metavar="MS",
        help="that the frame of one camera may wait for those of others: their faces are one run of the network [0]",
    )
    live.add_argument("--camera-size", type=size, metavar="WxH", help="that a camera is asked for [its own]")
    live.add_argument(
        "--camera-fps", type=frame_rate, metavar="F", help="likewise; of what gives more, some are passed over"
    )
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
        "--rotate",
        type=positive,
        metavar="MB",
        help="begin a new file of records, and of video, whenever one has this size; also go on after an earlier run's",
    )
    output.add_argument(
        "--keep", type=positive, metavar="N", help="with --rotate: remove the oldest but the N newest of each [all]"
    )
    output.add_argument(
        "--serve",
        type=address,
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
    running.add_argument("--threads", type=threads, default=1, metavar="N", help="of the network on the CPU [1]")
    add_gpu_options(running)
    running.add_argument(
        "--warm-while-building",
        action="store_true",
        help="where TensorRT's engine is still to be built, answer on cuda or cpu until it is",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    return parser


class _Version(argparse.Action):
    """Looks it up when it is asked for, as argparse's own does not."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> None:
        sys.stdout.write(f"facerecon-rt {installed_version('facerecon-rt')}\n")
        parser.exit()


def _field_of_view(text: str) -> float:
    degrees = number_above_0(180)(text)
    try:
        Intrinsics.from_field_of_view(degrees, *CSI_SIZE)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return degrees


def _intrinsics(text: str) -> Intrinsics:
    try:
        fx, fy, cx, cy = map(float, text.split(","))
        return Intrinsics(fx, fy, cx, cy)
    except (ValueError, UsageError) as error:
        raise argparse.ArgumentTypeError(
            f"{shown(text)} is not fx,fy,cx,cy in pixels, as in 900,900,640,360"
        ) from error

"""The options of `facerecon-rt`, with their help texts."""

from __future__ import annotations

import argparse
import sys
from argparse import _ActionsContainer
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..contract import PRECISIONS
from ..environment import installed_version
from ..errors import UsageError
from ..faces.detector_contract import MULTIPLE
from ..faces.detector_runs import LARGEST_SIZE
from ..faces.metric import Intrinsics
from ..faces.pipeline import DETECT_EVERY
from ..faces.reconstruct import MIN_CONFIDENCE
from ..faces.shapes import Average
from ..faces.streams import SMOOTH
from ..faces.zones import Zone, zone_from_text
from ..providers.choice import Provider
from ..providers.nvidia import GpuOptions
from ..sinks.draw import SINK_STYLES
from ..sinks.hide import MARGIN, is_cover
from ..sinks.texture import TEXTURE_SIZES
from ..sources.camera import AS_IT_IS, CSI_SIZE, FLIPS, LONGEST_TIMEOUT_S, LiveOptions
from ..values import (
    address,
    frame_rate,
    milliseconds,
    name,
    number_above_0,
    positive,
    seconds_or_name,
    shown,
    size,
    unit,
    whole,
    whole_number,
)
from .arguments import (
    Parser,
    add_detector,
    add_gpu_options,
    add_mesh,
    add_model,
    add_provider,
    add_threads,
    add_unit,
    gpu_options,
)

LONGEST_CALIBRATION_S = 60
"""Maximum of `--calibrate` in seconds. The weights of all frames are kept until then."""
DEFAULT_OUTPUT = "facerecon-out/"


@dataclass(frozen=True, slots=True)
class Options:
    """Options of one run of `facerecon-rt`. The fields are named after the options of the command line."""

    model: tuple[str, ...]
    """Paths of model files; empty for the shipped file that fits."""
    input: tuple[str, ...]
    output: tuple[str, ...]
    """Names of the outputs; empty for the default."""
    detector: str | None
    det_every: int
    """Number of frames between two runs of the detector."""
    det_size: int | None
    """Longer side of the detector's input, in pixels."""
    max_faces: int | None
    min_confidence: float
    smooth: str
    budget_ms: float | None
    calibrate: float | str | None
    """Seconds in which a track is neutral, or the file of a photograph or of calibrations (.json)."""
    save_calibration: str | None
    attention: bool
    zone: tuple[Zone, ...]
    lens: Intrinsics | float | None
    """Intrinsics of the camera, or its horizontal field of view in degrees (`--camera-matrix`, `--fov`)."""
    live: LiveOptions
    """Options for cameras and streams (`--timeout`, `--camera-size`, `--camera-fps`, `--flip`)."""
    retries: int | None
    """Attempts to reopen a lost camera or stream; None for no limit."""
    max_delay_s: float
    """Maximum time in seconds that a frame waits for those of other cameras."""
    set: bool
    average: Average | None
    mirror: bool
    style: str
    cover_margin: float
    """Margin around covered faces, as a share of the face box."""
    pictures: bool
    """Whether outputs and the page may contain pixels."""
    blendshapes: str
    unit: str
    """Unit of .obj and .ply: mm, cm or m."""
    eyes: bool
    """Whether shaded meshes, .obj and .ply have eyeballs."""
    mesh: str
    """What meshes show: face or head."""
    texture: int | None
    """Side in pixels of a colour map in meshes; None for none."""
    rotate: int | None
    """Size in megabytes at which records and videos continue in a new file."""
    keep: int | None
    serve: str | None
    frames: int | None
    quiet: bool
    provider: Provider
    precision: str | None
    threads: int
    gpu: GpuOptions
    """Options for the GPU (`--gpu-memory`, `--cuda-graph`, `--engines`)."""
    warm_while_building: bool


def parse_options(arguments: Sequence[str]) -> Options:
    """Return the options of a command line. Ends the program with exit code 2 for a mistake."""
    namespace = build_parser().parse_args(arguments)
    given = vars(namespace)
    values = {name: given[name] for name in given.keys() & {field.name for field in fields(Options)}}
    values |= {name: tuple(given[name] or ()) for name in ("model", "input", "output", "zone")}
    values["attention"] = given["attention"] or bool(given["zone"])
    if values["det_every"] is None:
        values["det_every"] = 1 if is_cover(given["style"]) else DETECT_EVERY
    return Options(
        **values,
        lens=given["camera_matrix"] or given["fov"],
        live=LiveOptions(given["timeout"], given["camera_size"], given["camera_fps"], given["flip"]),
        max_delay_s=given["max_delay_ms"] / 1000,
        gpu=gpu_options(namespace),
    )


EPILOG = """\
examples:
  facerecon-rt --input cam0                                          (the shipped model)
  facerecon-rt --model models/face.onnx --input photo.jpg
  facerecon-rt --model models/face.onnx --input cam0 --output records.jsonl --output live.mp4
  facerecon-rt --model models/face.onnx --input sources.yaml --serve 127.0.0.1:8080   (SIGHUP reads sources.yaml again)
  facerecon-rt --model models/face.onnx --input video.mp4 --output - | jq .faces[0].pose.euler_deg
  facerecon-rt --model models/face.onnx --set --input photos-of-anna/ --output anna.obj
  facerecon-rt --model a.onnx --model b.onnx --input photo.jpg          (an ensemble)

other commands, each with --help:
  facerecon-rt archive --model models/face.onnx --input photos/ --output results.parquet/   (millions, on Ray)
  facerecon-rt bench --model models/face.onnx --input video.mp4      (latency report)
  facerecon-rt build --model models/face.onnx --precision fp16       (TensorRT engines ahead of time)
  facerecon-rt models                                                (the shipped files and their terms)
  facerecon-rt doctor                                                (checks this installation and names fixes)
  facerecon-rt mesh records.jsonl --identity identity.npz --frame 120 --output face.obj   (a mesh from records)

exit codes: 0 done, 1 (doctor, bench) a problem or over the budget, 2 usage or output, 3 model refused, 4 provider
missing, 5 an input or a file in a folder is missing, unreadable, damaged or lost (the others are finished first), or no
face in a whole --set, 130 interrupted by Ctrl-C, SIGTERM or SIGHUP (files
written so far are valid)"""


def build_parser() -> Parser:
    """Return the parser of `facerecon-rt`. `parse_options` turns its result into `Options`."""
    parser = Parser(
        prog="facerecon-rt",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="3D faces from photographs, videos and cameras: mesh, pose, 68 landmarks, blendshapes.",
        epilog=EPILOG,
    )
    _add_sources_and_targets(parser)
    _add_faces(parser)
    _add_live(parser)
    _add_sets(parser)
    _add_output(parser)
    _add_running(parser)
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    return parser


def _add_sources_and_targets(parser: Parser) -> None:
    add_model(parser)
    parser.add_argument(
        "--input",
        action="extend",
        nargs="+",
        required=True,
        type=name,
        metavar="X",
        help="cam0 or 0, /dev/video0, csi://0, rtsp://…, http://…, a video, a photograph, a folder, a glob, or a "
        "sources.yaml that lists sources with a name and options each; repeatable. "
        "Files are read one after the other, cameras and streams at the same time. ${NAME} in an address is replaced "
        "by the environment variable",
    )
    parser.add_argument(
        "--output",
        action="append",
        type=name,
        metavar="Y",
        help="records: .jsonl or -; annotated video: .mp4 .avi .mkv .mov; annotated pictures: .jpg .png .webp; meshes: "
        ".obj .ply; a mesh per frame: take_{frame}.obj; animated heads: .glb .usdc .usda; Live Link Face: .csv or "
        "livelink://HOST:PORT; VMC: vmc://HOST:PORT; neutral faces: .npz; a Rerun recording: .rrd; a folder gets all "
        "kinds but .csv, .glb, .usdc, .npz and .rrd; an MQTT broker: mqtt://user:${PASSWORD}@host/topic; a socket: "
        f"unix:///run/x.sock; repeatable [{DEFAULT_OUTPUT}]",
    )


def _add_faces(parser: Parser) -> None:
    faces = parser.add_argument_group("faces")
    _add_detection(faces)
    _add_tracking(faces)
    _add_neutral_and_attention(faces)
    _add_lens(faces)
    faces.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="average each face of a photograph over three crops and their mirror images: smaller errors for five more "
        "crops per face; videos and cameras are read in one crop [--mirror]",
    )


def _add_detection(faces: _ActionsContainer) -> None:
    add_detector(faces)
    faces.add_argument(
        "--det-every",
        type=positive,
        metavar="N",
        help=f"run the detector every N frames [{DETECT_EVERY}; 1 where --style covers faces]",
    )
    faces.add_argument(
        "--det-size",
        type=whole_number(MULTIPLE, LARGEST_SIZE),
        metavar="PIXELS",
        help="longer side of the detector's input; larger finds smaller faces [256; large frames: 608, and 224]",
    )
    faces.add_argument(
        "--max-faces",
        type=positive,
        metavar="N",
        help="maximum number of faces per frame; the largest are kept [no limit]",
    )
    faces.add_argument(
        "--min-confidence",
        type=unit,
        default=MIN_CONFIDENCE,
        metavar="C",
        help="minimum confidence of a face, 0 to 1 [%(default)s]",
    )


def _add_tracking(faces: _ActionsContainer) -> None:
    faces.add_argument(
        "--smooth",
        choices=SMOOTH,
        default="off",
        help="smooth faces of videos and cameras over time, which adds lag [%(default)s]",
    )
    faces.add_argument(
        "--budget-ms",
        type=milliseconds,
        metavar="MS",
        help="time budget per frame of a video or camera in ms; when exceeded, the detector runs less often, then "
        "fewer faces are updated; records list what was skipped [no limit]",
    )


def _add_neutral_and_attention(faces: _ActionsContainer) -> None:
    faces.add_argument(
        "--calibrate",
        type=seconds_or_name(LONGEST_CALIBRATION_S),
        metavar="SECONDS|FILE",
        help="subtract the person's neutral blendshapes: of the first SECONDS of each track, of a photograph, or of a "
        ".json of --save-calibration [off]",
    )
    faces.add_argument(
        "--save-calibration", type=name, metavar="FILE", help="file (.json) for what --calibrate SECONDS learns [none]"
    )
    faces.add_argument(
        "--attention",
        action="store_true",
        help="add eyes, blinks, drowsiness, yawns, speech and direction of tracked faces to records, with events",
    )
    faces.add_argument(
        "--zone",
        action="append",
        type=_zone,
        metavar="ZONE",
        help="NAME=yaw:A..B,pitch:C..D in degrees: a direction to look at, as in road=yaw:-15..15,pitch:-10..10; "
        "turns on --attention; repeatable, the first match counts",
    )


def _add_lens(faces: _ActionsContainer) -> None:
    lens = faces.add_mutually_exclusive_group()
    lens.add_argument(
        "--camera-matrix",
        type=_intrinsics,
        metavar="FX,FY,CX,CY",
        help="intrinsics of the camera in pixels; adds poses in mm relative to the camera",
    )
    lens.add_argument(
        "--fov", type=_field_of_view, metavar="DEGREES", help="horizontal field of view, instead of --camera-matrix"
    )


def _add_live(parser: Parser) -> None:
    live = parser.add_argument_group("cameras and streams")
    live.add_argument(
        "--retries",
        type=whole,
        metavar="N",
        help="maximum attempts to reopen a lost camera or stream, 1 to 30 s apart [unlimited]",
    )
    live.add_argument(
        "--timeout",
        type=number_above_0(LONGEST_TIMEOUT_S),
        default=AS_IT_IS.timeout_s,
        metavar="S",
        help="timeout in seconds for opening a source and for each frame [%(default)g]",
    )
    live.add_argument(
        "--max-delay-ms",
        type=milliseconds,
        default=0.0,
        metavar="MS",
        help="maximum time in ms that a frame waits for those of other cameras, to share one network run [0]",
    )
    live.add_argument(
        "--camera-size", type=size, metavar="WxH", help="frame size requested from cameras [the camera's own]"
    )
    live.add_argument(
        "--camera-fps",
        type=frame_rate,
        metavar="F",
        help="frame rate requested from cameras; frames above F fps are dropped, also from streams",
    )
    live.add_argument(
        "--flip", choices=FLIPS, default="none", help="flip or rotate the frames of cameras and streams [%(default)s]"
    )


def _add_sets(parser: Parser) -> None:
    sets = parser.add_argument_group("image sets")
    sets.add_argument("--set", action="store_true", help="treat all inputs as one person: one averaged shape, one mesh")
    sets.add_argument(
        "--average",
        choices=("precision", "robust", "mean"),
        help="how --set averages shapes [precision where the model allows it, else robust]",
    )


def _add_output(parser: Parser) -> None:
    output = parser.add_argument_group("output")
    _add_pictures(output)
    output.add_argument(
        "--blendshapes",
        choices=("ictfacekit", "arkit"),
        default="ictfacekit",
        help="names in records: the model's 53, or Apple's 52 [%(default)s]",
    )
    _add_meshes(output)
    output.add_argument(
        "--rotate",
        type=positive,
        metavar="MB",
        help="start a new file of records or video at this size in MB; continue the files of an earlier run [off]",
    )
    output.add_argument(
        "--keep",
        type=positive,
        metavar="N",
        help="with --rotate: keep the N newest finished files of each output [all]",
    )
    output.add_argument(
        "--serve",
        type=address,
        metavar="HOST:PORT",
        help="serve a web page with the live picture, mesh, blendshapes and timings, /healthz and /metrics, for "
        "example on 127.0.0.1:8080; nothing is written without --output [off]",
    )
    output.add_argument("--frames", type=positive, metavar="N", help="stop after N frames [no limit]")
    output.add_argument("--quiet", action="store_true", help="print errors only")


def _add_pictures(output: _ActionsContainer) -> None:
    output.add_argument(
        "--style",
        choices=SINK_STYLES,
        default="shaded",
        help="style of annotated pictures and videos; blur, pixelate and mask cover every face [%(default)s]",
    )
    output.add_argument(
        "--cover-margin",
        type=unit,
        default=MARGIN,
        metavar="SHARE",
        help="with blur, pixelate and mask: margin around a face as a share of its box, 0 to 1 [%(default)s]",
    )
    output.add_argument(
        "--no-pictures",
        action="store_false",
        dest="pictures",
        help="write and serve no pixels: picture and video outputs are refused",
    )


def _add_meshes(output: _ActionsContainer) -> None:
    add_unit(output)
    add_mesh(output, ".glb, .usdc, .obj and .ply")
    output.add_argument(
        "--eyes",
        action="store_true",
        help="eyeballs with iris in shaded pictures, .obj and .ply; animated .glb has them anyway",
    )
    output.add_argument(
        "--texture",
        nargs="?",
        type=whole_number(TEXTURE_SIZES[0], TEXTURE_SIZES[-1]),
        choices=TEXTURE_SIZES,
        const=TEXTURE_SIZES[-1],
        metavar="{512,1024}",
        help="colours of the person in .glb, .obj and .ply, from the photograph, the set or the best frames of the "
        "track: a map of so many pixels [off; without a number 1024]",
    )


def _add_running(parser: Parser) -> None:
    running = parser.add_argument_group("running")
    add_provider(running)
    running.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="use the model file of this precision beside --model; it must have the same weights and fit the provider "
        "[the file named]",
    )
    add_threads(running)
    add_gpu_options(running)
    running.add_argument(
        "--warm-while-building",
        action="store_true",
        help="answer on CUDA or the CPU until TensorRT's engine is built",
    )


class _Version(argparse.Action):
    """A version option that looks up the version only when it is used, unlike argparse's own."""

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


def _zone(text: str) -> Zone:
    try:
        return zone_from_text(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _intrinsics(text: str) -> Intrinsics:
    try:
        fx, fy, cx, cy = map(float, text.split(","))
        return Intrinsics(fx, fy, cx, cy)
    except (ValueError, UsageError) as error:
        raise argparse.ArgumentTypeError(
            f"{shown(text)} is not fx,fy,cx,cy in pixels, as in 900,900,640,360"
        ) from error

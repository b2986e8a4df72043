"""Options of a run -> combinations that are refused, and options that do nothing in this run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..addresses import STREAM_SCHEMES, scheme_of
from ..errors import UsageError
from ..faces.pipeline import DETECT_EVERY
from ..head import MESH_FORMS
from ..sinks.avatars import is_avatar
from ..sinks.hide import MARGIN, is_cover
from ..sinks.local_socket import is_socket
from ..sinks.meshes import UNIT_SUFFIXES
from ..sinks.mqtt_address import is_mqtt, may_cover
from ..sinks.options import check_texture
from ..sinks.sequence import is_sequence
from ..sinks.usd import USD_SUFFIXES
from ..sinks.video_writer import CODECS
from ..sources.camera import AS_IT_IS
from ..sources.inputs import Inputs
from ..sources.listing import is_list
from ..sources.video import is_video_name
from .arguments import idle_sentences
from .options import DEFAULT_OUTPUT, Options
from .outputs import has_heads, has_meshes, is_drawn, is_folder_output

WITH_WEIGHTS = (".csv", ".glb", ".rrd", *USD_SUFFIXES)
"""Suffixes of takes, which have blendshape weights."""


def check_options(options: Options) -> None:
    """Raise UsageError where two options exclude each other, or one needs another that is missing."""
    if options.keep is not None and options.rotate is None:
        raise UsageError("--keep limits the files of --rotate; give --rotate as well")
    if options.save_calibration is not None and not isinstance(options.calibrate, float):
        raise UsageError("--save-calibration keeps what --calibrate SECONDS learns; give that as well")
    names = [zone.name for zone in options.zone]
    if len(set(names)) < len(names):
        raise UsageError("two zones have the same name; give each --zone its own")
    if options.average is not None and not options.set:
        raise UsageError("--average applies only to --set; give --set, or leave it out")
    _check_meshes(options)
    if options.set:
        _check_set(options)


def _check_meshes(options: Options) -> None:
    """Check that there are meshes that get a texture or a head, and that pixels may be written."""
    check_texture(options.texture, options.style, pictures=options.pictures)
    targets = outputs_of(options)
    if options.texture is not None and not any(map(has_meshes, targets)):
        raise UsageError("--texture colours meshes; give an output that has them: .glb, .obj, .ply or a folder")
    if options.mesh != MESH_FORMS[0] and not any(map(has_heads, targets)):
        raise UsageError(
            "--mesh head completes meshes; give an output that has them: .glb, .usdc, .obj, .ply or a folder"
        )


def _check_set(options: Options) -> None:
    if any(map(is_sequence, options.output)):
        raise UsageError("{frame} in a name gives a mesh per frame, and --set makes one mesh of all; leave it out")
    if options.attention:
        raise UsageError("--attention follows people over time, and --set averages photographs; give one of them")
    if options.calibrate is not None:
        raise UsageError("--calibrate applies to videos and single photographs, not to --set; leave one of them out")
    following = {"--smooth": options.smooth != "off", "--max-faces": options.max_faces is not None}
    following["--budget-ms"] = options.budget_ms is not None
    if given := [name for name, is_given in following.items() if is_given]:
        raise UsageError(f"{given[0]} applies to videos and cameras, not to --set; leave one of them out")
    if options.serve:
        raise UsageError("--serve shows frames as they come, and --set averages all frames first; give one of them")


def outputs_of(options: Options) -> list[str]:
    """Return the names of the outputs: those given, or the default where nothing else shows the faces."""
    return list(options.output) or ([] if options.serve else [DEFAULT_OUTPUT])


class _Run(NamedTuple):
    """What a run reads and writes."""

    cameras: bool
    """Whether it reads cameras that are no streams, or may do so later."""
    live: bool
    """Whether it reads cameras or streams, or may do so later."""
    several_live: bool
    follows: bool
    """Whether it follows faces over time: in cameras, streams or videos."""
    photographs: bool
    """Whether it reads photographs, or videos as photographs of a set."""
    targets: list[str]
    options: Options

    def writes(self, is_kind: Callable[[str], bool]) -> bool:
        """Return whether an output is of a kind."""
        return any(map(is_kind, self.targets))


def options_without_effect(options: Options, inputs: Inputs, files: Sequence[Path]) -> list[str]:
    """Return sentences about the options that are given and do nothing with these inputs, their `files`, and these
    outputs."""
    sources, later = inputs.live_sources, inputs.reloadable
    run = _Run(
        later or any(scheme_of(source.uri) not in STREAM_SCHEMES for source in sources),
        later or bool(sources),
        later or len(sources) > 1,
        not options.set and (later or bool(sources) or any(map(is_video_name, files))),
        options.set or not all(is_video_name(file) or is_list(str(file)) for file in files),
        outputs_of(options),
        options,
    )
    return idle_sentences(_without_effect(run))


def _without_effect(run: _Run) -> Iterator[tuple[str, str]]:
    """Yield each option that is given and does nothing, and its purpose."""
    options, live = run.options, run.options.live
    det_every = 1 if is_cover(options.style) else DETECT_EVERY
    calibrates = options.calibrate is not None and (run.follows or isinstance(options.calibrate, str))
    drawn = options.style != "shaded" and not is_cover(options.style)
    for name, given, works, purpose in (
        ("--flip", live.flip != AS_IT_IS.flip, run.live, "cameras and streams"),
        ("--camera-fps", live.fps is not None, run.live, "cameras and streams"),
        ("--camera-size", live.size is not None, run.cameras, "cameras, and not for streams"),
        ("--timeout", live.timeout_s != AS_IT_IS.timeout_s, run.live, "cameras and streams"),
        ("--retries", options.retries is not None, run.live, "cameras and streams"),
        ("--max-delay-ms", options.max_delay_s > 0, run.several_live, "several cameras and streams"),
        ("--smooth", options.smooth != "off", run.follows, "videos, cameras and streams"),
        ("--budget-ms", options.budget_ms is not None, run.follows, "videos, cameras and streams"),
        ("--det-every", options.det_every != det_every, run.follows, "videos, cameras and streams"),
        ("--attention", options.attention and not options.zone, run.follows, "videos, cameras and streams"),
        ("--zone", options.zone, run.follows, "videos, cameras and streams"),
        (
            "--zone" if options.zone else "--attention",
            options.attention and run.follows,
            _shows_attention(run),
            "records, MQTT, annotated pictures and the page",
        ),
        ("--calibrate SECONDS", isinstance(options.calibrate, float), run.follows, "videos, cameras and streams"),
        ("--calibrate", calibrates, _has_weights(run) or options.save_calibration, "records, takes and avatars"),
        ("--fov or --camera-matrix", options.lens is not None, _has_weights(run), "records, takes and avatars"),
        ("--no-mirror", not options.mirror, run.photographs or isinstance(options.calibrate, str), "photographs"),
        ("--blendshapes", options.blendshapes == "arkit", run.writes(_has_records), "records"),
        ("--unit", options.unit != "mm", run.writes(_has_units), "meshes in .obj and .ply"),
        (
            "--eyes",
            options.eyes,
            run.writes(_has_units) or _has_eyes(run),
            "shaded pictures, .obj and .ply",
        ),
        # A style that covers faces also sets the pace of the detector.
        ("--style", drawn, _has_style(run), "annotated pictures and videos"),
        ("--cover-margin", options.cover_margin != MARGIN, _covers(run), "--style blur, pixelate and mask"),
        ("--rotate", options.rotate is not None, run.writes(_is_rotated), "records and videos"),
    ):
        if given and not works:
            yield name, purpose


def _has_records(target: str) -> bool:
    return is_folder_output(target) or target == "-" or is_socket(target) or _suffix(target) == ".jsonl"


def _has_weights(run: _Run) -> bool:
    """Return whether an output has blendshape weights, and head poses that a lens corrects."""
    return run.options.serve is not None or run.writes(
        lambda target: _has_records(target) or is_avatar(target) or _suffix(target) in WITH_WEIGHTS
    )


def _shows_attention(run: _Run) -> bool:
    return run.options.serve is not None or run.writes(
        lambda target: _has_records(target) or is_mqtt(target) or is_drawn(target)
    )


def _has_units(target: str) -> bool:
    return is_folder_output(target) or _suffix(target) in UNIT_SUFFIXES


def _is_rotated(target: str) -> bool:
    return is_folder_output(target) or _suffix(target) in (".jsonl", *CODECS)


def _has_eyes(run: _Run) -> bool:
    """Return whether `--eyes` may change an output. A .glb may be no take: that of a set or frame, or without a
    basis."""
    if run.writes(lambda target: _suffix(target) == ".glb"):
        return True
    return run.options.style in ("shaded", "montage") and run.options.pictures and run.writes(is_drawn)


def _has_style(run: _Run) -> bool:
    shown = run.options.serve is not None or run.writes(lambda target: is_mqtt(target) or _suffix(target) == ".rrd")
    return run.options.pictures and (run.writes(is_drawn) or (is_cover(run.options.style) and shown))


def _covers(run: _Run) -> bool:
    style, pictures = run.options.style, run.options.pictures
    return run.writes(lambda target: may_cover(target, style, pictures=pictures)) or (
        is_cover(style) and _has_style(run)
    )


def _suffix(target: str) -> str:
    return Path(target).suffix.lower()

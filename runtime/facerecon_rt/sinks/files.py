"""The name of an output -> its sink."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import UsageError
from ..head import mesh_form
from ..networks.basis import Basis, BasisMissing
from ..template import FaceTemplate, load_template
from ..types import Image, Scene
from .avatars import AvatarSink, is_avatar
from .draw import SINK_STYLES
from .face_meshes import MeshSink
from .folder import FolderSink
from .hide import MARGIN, is_cover
from .identities import IDENTITY_SUFFIX, IdentitySink
from .jsonl import JsonLinesSink
from .livelink import LiveLinkCsvSink
from .local_socket import SocketSink, is_socket
from .meshes import MESH_SUFFIXES, UNITS
from .mqtt import MqttSink
from .mqtt_address import is_mqtt
from .options import SinkOptions, check_texture
from .outputs import Rotation, is_folder_name
from .pictures import PICTURE_SUFFIXES, PictureSink
from .rerun import RerunSink
from .sequence import SequenceSink, is_sequence
from .sink import EventSink, Sink
from .takes import TakeSink
from .usd import USD_SUFFIXES
from .video import VideoSink
from .video_writer import CODECS

log = logging.getLogger("facerecon_rt")


def open_sink(
    target: str | Path,
    *,
    blendshapes: Sequence[str],
    arkit: bool = False,
    style: str = "shaded",
    margin: float = MARGIN,
    template: FaceTemplate | None = None,
    meshes: bool = True,
    pictures: bool = True,
    rotation: Rotation | None = None,
    basis: Callable[[], Basis] | None = None,
    unit: str = "mm",
    texture: int | None = None,
    eyes: bool = False,
    mesh: str = "face",
) -> Sink:
    """Open the output that `target` names.

    - `-`: JSON lines on standard output.
    - mqtt:// mqtts://: an MQTT broker.
    - unix://: a Unix socket with the newest record.
    - .jsonl: JSON lines.
    - .mp4 .mov .mkv .avi: an annotated video.
    - .jpg .png .webp: annotated pictures, numbered when there are several.
    - .obj .ply: a mesh per face or track, numbered when there are several.
    - .glb: an animated head per track of a video or camera in one file, a head with its expression per photograph.
      Without a basis, meshes as .obj.
    - .usdc .usda: the same heads as UsdSkel, without colours.
    - .obj .ply .glb with `{frame}` in the name: a mesh per frame, with its expression.
    - .npz: the neutral faces of all tracks and photographs, with which records become meshes.
    - .csv: a file per track as the Live Link Face app writes them.
    - livelink://host:11111, vmc://host:39539: the largest face of every frame over UDP.
    - .rrd: a Rerun recording.
    - A folder (existing, ending in "/" or without suffix): records, annotated pictures and video, and
      .obj meshes, named after the sources.

    `blendshapes`: (B,) names from the model's contract. `arkit`: use Apple's names in records. `style`: shaded,
    wireframe, landmarks, or montage, which shows the crop, the overlay and the mesh from two sides; blur, pixelate or
    mask, which cover every face with `margin` around it in every picture. For these three, open the Reconstructor
    with `hints=True`, so that places that may hold a face are covered too, and the Pipeline of a video with
    `detect_every=1`. `meshes`: whether a folder gets meshes. `pictures`: whether pixels may be written at all;
    without them a folder and a recording have no pictures. `rotation`: when records and videos continue in a new
    file; the previous file gets a number. `basis`: reads the model's basis, as `Reconstructor.basis` does, for .glb,
    .usdc and .npz. `unit`: mm, cm or m, for .obj and .ply. `texture`: 512 or 1024, the side in pixels of a colour map
    for .glb, .obj and .ply; None for none. `eyes`: whether shaded meshes in pictures, .obj and .ply have eyeballs;
    animated heads always have them. `mesh`: "face", or "head" for .glb, .usdc, .obj and .ply with ears, neck and the
    back of the head.

    Raises UsageError when the kind of the target is unknown, the target cannot be written, or it would be a picture,
    video or colour map without `pictures`, or a colour map of faces that `style` covers, and for an unknown style, unit
    or margin.
    """
    if style not in SINK_STYLES:
        raise UsageError(f"unknown style {style!r}; choose from {', '.join(SINK_STYLES)}")
    if unit not in UNITS:
        raise UsageError(f"unknown unit {unit!r}; choose from {', '.join(UNITS)}")
    if not 0 <= margin < math.inf:
        raise UsageError(f"the margin around covered faces must be at least 0, got {margin:g}")
    target = str(target)
    check_texture(texture, style, pictures=pictures)
    form = mesh_form(mesh, template or load_template())
    options = SinkOptions(
        blendshapes, arkit, style, margin, template, meshes, pictures, rotation, basis, unit, texture, eyes, form
    )
    return _open_stream(target, options) or _open_path(target, options)


def _open_records(target: str, options: SinkOptions) -> EventSink:
    return options.records(Path(target))


def _open_video(target: str, options: SinkOptions) -> Sink:
    return VideoSink(Path(target), options.painter(target), options.rotation)


def _open_pictures(target: str, options: SinkOptions) -> Sink:
    return PictureSink(Path(target), options.painter(target))


def _open_meshes(target: str, options: SinkOptions) -> Sink:
    if is_sequence(target):
        if options.texture is not None:
            raise UsageError(f"{target} is a mesh per frame, and --texture makes a map per person; leave out one")
        return SequenceSink(Path(target), options.form, options.unit, eyes=options.eyes)
    return MeshSink(Path(target), options.form, options.unit, options.texture, eyes=options.eyes)


def _open_takes(target: str, options: SinkOptions) -> Sink:
    if options.basis is None or is_sequence(target):
        return _open_meshes(target, options)
    try:
        basis = options.basis()
    except BasisMissing as error:
        log.warning("%s has meshes without blendshapes: %s", target, error)
        return _open_meshes(target, options)
    return TakeSink(Path(target), options.blendshapes, basis, options.form, options.texture)


def _open_usd(target: str, options: SinkOptions) -> Sink:
    if options.basis is None:
        raise UsageError(f"cannot write {target}: it needs the model's basis; give the argument `basis`")
    return TakeSink(Path(target), options.blendshapes, options.basis(), options.form)


def _open_live_link(target: str, options: SinkOptions) -> Sink:
    return LiveLinkCsvSink(Path(target), options.blendshapes)


def _open_identities(target: str, options: SinkOptions) -> Sink:
    if options.basis is None:
        raise UsageError(f"cannot write {target}: it needs the model's basis; give the argument `basis`")
    return IdentitySink(Path(target), options.blendshapes, options.basis())


def _open_recording(target: str, options: SinkOptions) -> Sink:
    recorded = None
    if options.pictures:
        recorded = options.painter(target) if is_cover(options.style) else _bare
    return RerunSink(Path(target), options.blendshapes, options.template, recorded)


def _bare(scene: Scene) -> Image:
    """Return the frame's picture as it is."""
    return scene.frame.image


_OPEN_FILE: dict[str, Callable[[str, SinkOptions], Sink]] = {
    ".jsonl": _open_records,
    **dict.fromkeys(CODECS, _open_video),
    **dict.fromkeys(PICTURE_SUFFIXES, _open_pictures),
    **dict.fromkeys(MESH_SUFFIXES, _open_meshes),
    ".glb": _open_takes,
    **dict.fromkeys(USD_SUFFIXES, _open_usd),
    ".csv": _open_live_link,
    IDENTITY_SUFFIX: _open_identities,
    ".rrd": _open_recording,
}
"""Function that opens a file of each suffix, in the order of the message about an unknown suffix."""


def _open_stream(target: str, options: SinkOptions) -> Sink | None:
    """Return the sink of standard output or of an address, or None for a file or folder."""
    if target == "-":
        if sys.stdout is None:
            raise UsageError("cannot write to standard output: it is closed; give a file")
        return JsonLinesSink(sys.stdout, options.blendshapes, arkit=options.arkit)
    if is_mqtt(target):
        return MqttSink(target, style=options.style, margin=options.margin, pictures=options.pictures)
    if is_avatar(target):
        return AvatarSink(target, options.blendshapes)
    if is_socket(target):
        return SocketSink(target, options.blendshapes, arkit=options.arkit)
    return None


def _open_path(target: str, options: SinkOptions) -> Sink:
    """Return the sink of a file or folder."""
    path = Path(target)
    suffix = path.suffix.lower()
    if is_folder_name(target):
        return FolderSink(path, options)
    if is_sequence(path.name) and suffix not in MESH_SUFFIXES:
        raise UsageError(
            f"cannot write {target}: {{frame}} gives a mesh per frame, in .obj, .ply or .glb; pictures get numbers of "
            "their own"
        )
    if suffix not in _OPEN_FILE:
        known = " ".join(_OPEN_FILE)
        raise UsageError(
            f"cannot write {target}: {suffix} is not a known kind of output; use {known}, a folder (its name ends "
            f"with /, as in {target}/), or - for stdout"
        )
    return _OPEN_FILE[suffix](target, options)

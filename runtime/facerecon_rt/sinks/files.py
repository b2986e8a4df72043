"""Scenes -> files: JSON lines, annotated videos and pictures, meshes, or a folder with all of them."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, runtime_checkable

import cv2

from ..errors import UsageError
from ..head import Form, mesh_form
from ..networks.basis import Basis, BasisMissing
from ..paths import exists, is_file, is_folder, resolved
from ..quiet import quiet_opencv
from ..template import FaceTemplate, load_template
from ..types import Floats, Image, Scene, face_label
from .avatars import AvatarSink, is_avatar
from .coloured import ColouredMesh
from .draw import STYLES, Painter, draw_scene, montage
from .hide import MARGIN, is_cover
from .identities import IDENTITY_SUFFIX, IdentitySink
from .livelink import LiveLinkCsvSink
from .local_socket import SocketSink, is_socket
from .looks import Looks
from .meshes import MESH_SUFFIXES, check_mesh_format, files_beside, move_mesh, write_mesh
from .mqtt import MqttSink, is_mqtt
from .outputs import (
    OutputNames,
    Partial,
    Rotation,
    cannot_write,
    check_place,
    check_writable,
    is_regular,
    only_writer_of,
    remove_abandoned,
    source_path,
    write_whole,
)
from .parts import parts_of
from .record import as_json, event_records, record_text
from .rerun import RerunSink
from .sequence import SequenceSink, is_sequence
from .stems import shortened, stem_of
from .takes import TakeSink
from .texture import TEXTURE_SIZES
from .usd import USD_SUFFIXES
from .video import VideoSink
from .video_writer import CODECS

log = logging.getLogger("facerecon_rt")

MOST_TRACKS = 500
"""Number of tracks whose meshes wait for the end. Meshes of further tracks are written earlier, since a camera may run
for months."""
SILENT_S = 60.0
"""Time in seconds without a frame of a camera after which its video is finished."""
SINK_STYLES = (*STYLES, "montage")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_PICTURE_OPTIONS = {
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 93],
    ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 93],
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 92],
}


class Sink(Protocol):
    """An output for scenes. It owns its files; use it as a context manager. Its files are complete once it is closed,
    also after an interruption."""

    def __enter__(self) -> Sink: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def write(self, scene: Scene) -> None:
        """Write one scene. Raises UsageError when it cannot be written."""

    def close(self) -> None:
        """Finish the files. Raises UsageError when they cannot be written."""


@runtime_checkable
class ChoosySink(Sink, Protocol):
    """A sink that needs few of the scenes. Whoever asks it first saves handing the others over."""

    def wants(self, scene: Scene) -> bool:
        """Return whether `write` would do anything with the scene. It takes microseconds and may be asked in another
        thread than the one that writes."""


@runtime_checkable
class EventSink(Sink, Protocol):
    """A sink that loses no event, even where it is too slow for every scene of a camera."""

    def write_events(self, scene: Scene) -> None:
        """Write only the events of a scene, which has neither picture nor faces. Raises UsageError as `write` does."""


def open_sink(
    target: str,
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
    mask, which cover every face with `margin` around it in every picture. `meshes`: whether a folder gets meshes.
    `pictures`: whether pixels may be written at all; without them a folder and a recording have no pictures.
    `rotation`: when records and videos continue in a new file; the previous file gets a number. `basis`: reads the
    model's basis, as `Reconstructor.basis` does, for .glb, .usdc and .npz. `unit`: mm, cm or m, for .obj and .ply.
    `texture`: 512 or 1024, the side in pixels of a colour map for .glb, .obj and .ply; None for none. `eyes`: whether
    shaded meshes in pictures, .obj and .ply have eyeballs; animated heads always have them. `mesh`: "face", or "head"
    for .glb, .usdc, .obj and .ply with ears, neck and the back of the head.

    Raises UsageError when the kind of the target is unknown, the target cannot be written, or it would be a picture,
    video or colour map without `pictures`, or a colour map of faces that `style` covers.
    """
    if style not in SINK_STYLES:
        raise UsageError(f"unknown style {style!r}; choose from {', '.join(SINK_STYLES)}")
    check_texture(texture, style, pictures=pictures)
    form = mesh_form(mesh, template or load_template())
    options = _SinkOptions(
        blendshapes, arkit, style, margin, template, meshes, pictures, rotation, basis, unit, texture, eyes, form
    )
    return _open_stream(target, options) or _open_path(target, options)


@dataclass(frozen=True, slots=True, eq=False)
class _SinkOptions:
    """The options of `open_sink`, checked."""

    blendshapes: Sequence[str]
    arkit: bool
    style: str
    margin: float
    template: FaceTemplate | None
    meshes: bool
    pictures: bool
    rotation: Rotation | None
    basis: Callable[[], Basis] | None
    unit: str
    texture: int | None
    eyes: bool
    form: Form

    def painter(self, target: str) -> Painter:
        """Return the function that draws scenes. Raises UsageError where pictures are forbidden."""
        if not self.pictures:
            raise UsageError(f"{target} holds pictures, and --no-pictures forbids them; leave out one of the two")
        return painter(self.style, self.template, self.margin, eyes=self.eyes)


def _open_records(target: str, options: _SinkOptions) -> EventSink:
    return JsonLinesSink(Path(target), options.blendshapes, arkit=options.arkit, rotation=options.rotation)


def _open_video(target: str, options: _SinkOptions) -> Sink:
    return VideoSink(Path(target), options.painter(target), options.rotation)


def _open_pictures(target: str, options: _SinkOptions) -> Sink:
    return PictureSink(Path(target), options.painter(target))


def _open_meshes(target: str, options: _SinkOptions) -> Sink:
    if is_sequence(target):
        if options.texture is not None:
            raise UsageError(f"{target} is a mesh per frame, and --texture makes a map per person; leave out one")
        return SequenceSink(Path(target), options.form, options.unit, eyes=options.eyes)
    return MeshSink(Path(target), options.form, options.unit, options.texture, eyes=options.eyes)


def _open_takes(target: str, options: _SinkOptions) -> Sink:
    if options.basis is None or is_sequence(target):
        return _open_meshes(target, options)
    try:
        basis = options.basis()
    except BasisMissing as error:
        log.warning("%s has meshes without blendshapes: %s", target, error)
        return _open_meshes(target, options)
    return TakeSink(Path(target), options.blendshapes, basis, options.form, options.texture)


def _open_usd(target: str, options: _SinkOptions) -> Sink:
    if options.basis is None:
        raise UsageError(f"cannot write {target}: it needs the model's basis; give the argument `basis`")
    return TakeSink(Path(target), options.blendshapes, options.basis(), options.form)


def _open_live_link(target: str, options: _SinkOptions) -> Sink:
    return LiveLinkCsvSink(Path(target), options.blendshapes)


def _open_identities(target: str, options: _SinkOptions) -> Sink:
    if options.basis is None:
        raise UsageError(f"cannot write {target}: it needs the model's basis; give the argument `basis`")
    return IdentitySink(Path(target), options.blendshapes, options.basis())


def _open_recording(target: str, options: _SinkOptions) -> Sink:
    recorded = None
    if options.pictures:
        recorded = options.painter(target) if is_cover(options.style) else bare
    return RerunSink(Path(target), options.blendshapes, options.template, recorded)


_OPEN_FILE: dict[str, Callable[[str, _SinkOptions], Sink]] = {
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


def _open_stream(target: str, options: _SinkOptions) -> Sink | None:
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


def _open_path(target: str, options: _SinkOptions) -> Sink:
    """Return the sink of a file or folder."""
    path = Path(target)
    suffix = path.suffix.lower()
    if is_folder(path) or target.endswith("/") or not suffix:
        return FolderSink(path, options)
    if suffix not in _OPEN_FILE:
        known = " ".join(_OPEN_FILE)
        raise UsageError(
            f"cannot write {target}: {suffix} is not a known kind of output; use {known}, a folder, or - for stdout"
        )
    return _OPEN_FILE[suffix](target, options)


def check_texture(texture: int | None, style: str, *, pictures: bool) -> None:
    """Raise UsageError where a colour map of this side in pixels (None for none) is not possible, or would show what
    pictures must not show."""
    if texture is None:
        return
    if texture not in TEXTURE_SIZES:
        raise UsageError(f"a texture has {' or '.join(map(str, TEXTURE_SIZES))} pixels, not {texture}; choose one")
    if not pictures:
        raise UsageError("--texture writes pixels of faces, and --no-pictures forbids them; leave out one of the two")
    if is_cover(style):
        raise UsageError(
            f"--texture writes pixels of faces, and --style {style} covers every face; leave out one of the two"
        )


def bare(scene: Scene) -> Image:
    """Return the frame's picture as it is."""
    return scene.frame.image


def painter(style: str, template: FaceTemplate | None = None, margin: float = MARGIN, *, eyes: bool = False) -> Painter:
    """Return the function that draws scenes in one of the `SINK_STYLES`. `margin`, `eyes`: as
    `draw_scene`."""
    if style == "montage":
        return partial(montage, template=template, eyes=eyes)
    (known,) = (name for name in STYLES if name == style)
    return partial(draw_scene, style=known, template=template, margin=margin, eyes=eyes)


def _opened_alone(path: Path) -> IO[str]:
    """Open and lock a file for appending. Raises UsageError where somebody else writes it, and OSError."""
    while True:
        stream = path.open("a", encoding="utf-8")
        try:
            only_writer_of(stream, path)
            if not is_regular(stream) or _has_name(stream, path):
                return stream
        except (UsageError, OSError):
            stream.close()
            raise
        stream.close()


def _has_name(stream: IO[str], path: Path) -> bool:
    """Return whether the path still leads to this file, which another run may have set aside before it was locked."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


class JsonLinesSink:
    """A sink that writes one record per line, and one per event, and flushes them, so that another program can read
    along."""

    def __init__(
        self,
        target: IO[str] | Path,
        blendshapes: Sequence[str],
        *,
        arkit: bool = False,
        rotation: Rotation | None = None,
    ) -> None:
        """Open the file, or take over the stream. Raises UsageError when the file cannot be written.

        `target`: an open text stream, which stays open, or a file, which is replaced. With `rotation`, an existing file
        is continued. Pipes and devices are neither replaced nor rotated.
        """
        self._rotation = rotation
        self._blendshapes = blendshapes
        self._arkit = arkit
        self._path = target if isinstance(target, Path) else None
        self._started = False
        if isinstance(target, Path):
            check_place(target)
            self._new = not exists(target)
            try:
                # The file is opened for appending, so that the content of an earlier run is only replaced when a record
                # comes.
                self._stream: IO[str] = _opened_alone(target)
            except OSError as error:
                raise cannot_write(target, error) from error
            if not is_regular(self._stream):
                self._rotation = None
        else:
            self._stream = target

    def __enter__(self) -> JsonLinesSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, scene: Scene) -> None:
        """Append the scene's record. Raises UsageError, or BrokenPipeError when the reader of a pipe has closed it."""
        self._append([record_text(scene, self._blendshapes, arkit=self._arkit), *map(as_json, event_records(scene))])

    def write_events(self, scene: Scene) -> None:
        """Append the scene's events without its record. Raises the errors of `write`."""
        self._append([as_json(event) for event in event_records(scene)])

    def _append(self, lines: Sequence[str]) -> None:
        try:
            if self._path is not None and not self._started and is_regular(self._stream):
                if self._rotation is None:
                    self._stream.truncate(0)
                else:
                    self._go_on(self._path, self._rotation)
            self._started = True
            self._stream.write("".join(line + "\n" for line in lines))
            self._stream.flush()
            if self._path is not None and self._rotation is not None and self._rotation.due(self._stream.tell()):
                self._begin_anew(self._path, self._rotation)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise cannot_write(self._path or "standard output", error) from error

    def _go_on(self, path: Path, rotation: Rotation) -> None:
        """Continue behind the records of an earlier run, without a last line that was cut short."""
        if rotation.due(self._stream.tell()):
            self._begin_anew(path, rotation)
            return
        whole = path.read_bytes().rfind(b"\n") + 1
        self._stream.truncate(whole)

    def _begin_anew(self, path: Path, rotation: Rotation) -> None:
        remove_abandoned(path)
        new = Partial(path)  # it is locked before it gets the name, and before the full file is released
        try:
            rotation.set_aside(path, new.path)
        except UsageError:
            new.discard()
            raise
        full, self._stream = self._stream, io.TextIOWrapper(new.file, encoding="utf-8")
        full.close()

    def close(self) -> None:
        """Close the file. A stream that was passed in stays open."""
        if self._path is None:
            return
        try:
            if self._new and not self._started and is_file(self._path) and not self._path.stat().st_size:
                self._path.unlink()  # this run created it and wrote nothing
            self._stream.close()  # the lock ends last
        except OSError as error:
            raise cannot_write(self._path, error) from error


class PictureSink:
    """A sink that writes one annotated picture per scene."""

    def __init__(self, path: Path, paint: Painter) -> None:
        """Check the path. Raises UsageError when the file cannot be written."""
        check_writable(path)
        self._paint = paint
        self._names = OutputNames(path)

    def __enter__(self) -> PictureSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, scene: Scene) -> None:
        """Write the scene's picture. Raises UsageError when it cannot be written."""
        write_picture(self._names.next_for(scene.frame.source), self._paint(scene))

    def close(self) -> None:
        """Do nothing: every picture is complete already."""


class MeshSink:
    """A sink that writes one mesh per face of a photograph, and one per track of a video or camera at the end."""

    def __init__(
        self,
        path: Path,
        form: Form,
        unit: str = "mm",
        texture: int | None = None,
        *,
        eyes: bool = False,
    ) -> None:
        """Check the path. `form`: the face alone, or the whole head. `texture`: side of the colour maps in pixels; None
        for none. `eyes`: write eyeballs. Raises UsageError when the file cannot be written, or its suffix needs a
        library that is missing."""
        check_mesh_format(path)
        check_writable(path)
        self._template = form.template
        self._unit = unit
        self._meshes = Meshes(form, texture, eyes=eyes)
        beside = path.suffix.lower() == ".obj" and (texture is not None or eyes or form.mouth is not None)
        self._names = OutputNames(path, move_mesh, files_beside) if beside else OutputNames(path)

    def __enter__(self) -> MeshSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, scene: Scene) -> None:
        """Write the faces of a photograph, and remember those of a video. Raises UsageError when they cannot be
        written."""
        if scene.frame.still:
            self._write(self._meshes.of_photograph(scene))
        else:
            self._meshes.see(scene)
            self._write(self._meshes.take(MOST_TRACKS))

    def close(self) -> None:
        """Write the meshes of the tracks. Raises UsageError when they cannot be written."""
        self._write(self._meshes.take())

    def _write(self, meshes: Iterable[FaceMesh]) -> None:
        for mesh in meshes:
            path = self._names.next_for(mesh.source)
            write_mesh(path, mesh.vertices, self._template, self._unit, mesh.texture, mesh.parts)


@dataclass(frozen=True, slots=True, eq=False)
class FaceMesh:
    """A mesh to be written, with what it shows besides the face."""

    source: str
    label: str
    """Name of the face among those of its source."""
    vertices: Floats
    """(V, 3) mm, head frame."""
    texture: Image | None
    parts: ColouredMesh | None


class Meshes:
    """The meshes of photographs, which are made at once, and of tracks, which are made from all their frames."""

    def __init__(self, form: Form, texture: int | None, *, eyes: bool) -> None:
        """`form`: the face alone, or the whole head. `texture`: side of the colour maps in pixels; None for none.
        `eyes`: whether meshes have eyeballs."""
        self._form = form
        self._eyes = eyes
        self._looks = None if texture is None else Looks(texture, form.face)
        self._latest = LatestMeshes()

    def of_photograph(self, scene: Scene) -> Iterator[FaceMesh]:
        """Make the meshes of a photograph, with its expressions."""
        for index, face in enumerate(scene.faces):
            texture = None if self._looks is None else self._looks.of_photograph(face, scene.frame)
            vertices = self._form.expressed(face.shape, face.vertices)
            parts = parts_of(self._form, vertices, face.shape, face.gaze, eyes=self._eyes)
            yield FaceMesh(scene.frame.source, face_label(index, face), vertices, texture, parts)

    def see(self, scene: Scene) -> None:
        """Remember the faces of a frame."""
        self._latest.see(scene)
        if self._looks is not None:
            self._looks.see(scene)

    def take(self, but: int = 0) -> Iterator[FaceMesh]:
        """Make the neutral meshes of the tracks, the longest unseen first, and forget them. The last `but` tracks that
        were seen stay."""
        for source, label, shape in self._latest.take(but):
            texture = None if self._looks is None else self._looks.take(source, label)
            vertices = self._form.neutral(shape)
            parts = parts_of(self._form, vertices, shape, None, eyes=self._eyes)
            yield FaceMesh(source, label, vertices, texture, parts)


class LatestMeshes:
    """The neutral shape of every track of every source, from its last frame. It is the average over the track's
    frames."""

    def __init__(self) -> None:
        self._vertices: dict[tuple[str, str], Floats] = {}

    def see(self, scene: Scene) -> None:
        """Remember the faces of a frame."""
        for index, face in enumerate(scene.faces):
            key = scene.frame.source, face_label(index, face)
            self._vertices.pop(key, None)
            self._vertices[key] = face.shape

    def take(self, but: int = 0) -> list[tuple[str, str, Floats]]:
        """Remove and return (source, label, vertices) of the tracks, the longest unseen first. The last `but` tracks
        that were seen stay."""
        meshes = []
        while len(self._vertices) > but:
            source, label = key = next(iter(self._vertices))
            meshes.append((source, label, self._vertices.pop(key)))
        return meshes


class FolderSink:
    """A sink that writes everything about every source. Records go to `records.jsonl`. A photograph gets `<stem>.jpg`,
    `<stem>_montage.jpg` and `<stem>_face0.obj`; a video gets `<stem>.mp4` and `<stem>_track1.obj`. Two sources never
    share a stem."""

    def __init__(self, folder: Path, options: _SinkOptions) -> None:
        """Make the folder. Raises UsageError when it cannot be made or written to."""
        self._new = not exists(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise UsageError(
                f"cannot write {folder}: it is not a folder; give a file a suffix, as in .jsonl, or use - for stdout"
            ) from error
        except OSError as error:
            raise cannot_write(folder, error) from error
        self._folder = folder
        self._options = options
        self._meshes = Meshes(options.form, options.texture, eyes=options.eyes) if options.meshes else None
        # A photograph gets its montage in any case, unless faces are covered: a montage shows them.
        style = "shaded" if options.style == "montage" else options.style
        self._paint = painter(style, options.template, options.margin, eyes=options.eyes)
        covered = is_cover(options.style)
        self._paint_montage = None if covered else painter("montage", options.template, eyes=options.eyes)
        self._records = _open_records(str(folder / "records.jsonl"), options)
        self._stems: dict[str, str] = {}
        self._videos: dict[Path, VideoSink] = {}
        self._written_at: dict[Path, float] = {}
        """Time of the last frame of each camera's video with `rotation`, by time.monotonic()."""

    def __enter__(self) -> FolderSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, scene: Scene) -> None:
        """Write the scene's record, picture and meshes. Raises UsageError when they cannot be written, or when the
        source lies in this folder, where its files might be overwritten."""
        if not scene.frame.live and source_path(scene.frame.source).parent == resolved(self._folder):
            raise UsageError(f"{scene.frame.source} lies in the output folder {self._folder}; choose another folder")
        self._records.write(scene)
        if scene.frame.still:
            self._write_photograph(scene)
        else:
            self._write_video_frame(scene)

    def write_events(self, scene: Scene) -> None:
        """Append the scene's events to the records. Raises UsageError when they cannot be written."""
        self._records.write_events(scene)

    def close(self) -> None:
        """Finish the videos, write the tracks' meshes and close the records, each even if another fails."""
        with ExitStack() as stack:
            stack.callback(self._leave_nothing_empty)
            stack.callback(self._records.close)
            stack.callback(self._write_tracks)
            stack.callback(self._finish_videos)

    def _leave_nothing_empty(self) -> None:
        if self._new:
            with suppress(OSError):  # not empty, or gone
                self._folder.rmdir()

    def _write_photograph(self, scene: Scene) -> None:
        stem = self._stem(scene.frame.source)
        if self._options.pictures:
            write_picture(self._folder / f"{stem}.jpg", self._paint(scene))
        if self._options.pictures and scene.faces and self._paint_montage is not None:
            write_picture(self._folder / f"{stem}_montage.jpg", self._paint_montage(scene))
        if self._meshes is not None:
            self._write_meshes(self._meshes.of_photograph(scene))

    def _write_video_frame(self, scene: Scene) -> None:
        if self._options.pictures:
            self._write_picture_of_video(scene)
        if self._meshes is not None:
            self._meshes.see(scene)
            self._write_meshes(self._meshes.take(MOST_TRACKS))

    def _write_picture_of_video(self, scene: Scene) -> None:
        stem = self._stem(scene.frame.source, live=scene.frame.live)
        path = self._folder / f"{stem}.mp4"
        if path not in self._videos:
            if not scene.frame.live:
                self._finish_videos()  # files come one after the other, cameras in parallel
            self._videos[path] = VideoSink(path, self._paint, self._options.rotation)
        self._videos[path].write(scene)
        if scene.frame.live and self._options.rotation is not None:
            self._finish_silent(path)

    def _finish_silent(self, written: Path) -> None:
        """Finish the videos of cameras that have gone silent. A camera that comes back begins a new video."""
        now = time.monotonic()
        self._written_at[written] = now
        for path in [path for path, at in self._written_at.items() if now - at > SILENT_S]:
            del self._written_at[path]
            if path in self._videos:
                self._videos.pop(path).close()

    def _finish_videos(self) -> None:
        with ExitStack() as stack:
            while self._videos:
                stack.callback(self._videos.popitem()[1].close)

    def _write_tracks(self) -> None:
        if self._meshes is not None:
            self._write_meshes(self._meshes.take())

    def _write_meshes(self, meshes: Iterable[FaceMesh]) -> None:
        template, unit = self._options.form.template, self._options.unit
        for mesh in meshes:
            path = self._folder / f"{self._stem(mesh.source)}_{mesh.label}.obj"
            write_mesh(path, mesh.vertices, template, unit, mesh.texture, mesh.parts)

    def _stem(self, source: str, *, live: bool = False) -> str:
        """Return a name for the source that no file of another source uses."""
        if source not in self._stems:
            stem, number = shortened(stem_of(source, live=live)), 2
            name = stem
            while any(self._collide(name, other) for other in self._stems.values()):
                name, number = f"{stem}_{number}", number + 1
            self._stems[source] = name
        return self._stems[source]

    def _collide(self, one: str, other: str) -> bool:
        """Return whether files of two stems would have the same names."""
        if one in (other, f"{other}_montage") or other == f"{one}_montage":
            return True
        shorter, longer = sorted((one, other), key=len)
        return self._options.rotation is not None and bool(re.fullmatch(rf"{re.escape(shorter)}_\d{{4,}}", longer))


def write_picture(path: Path, picture: Image) -> None:
    """Encode a picture by its suffix and write it. Raises UsageError when the format or the disk refuses."""
    suffix = path.suffix.lower()
    with quiet_opencv():
        encoded, data = cv2.imencode(suffix, picture, _PICTURE_OPTIONS.get(suffix, []))
    if not encoded:
        size = f"{picture.shape[1]}x{picture.shape[0]}"
        raise UsageError(f"cannot write {path}: {size} pixels do not fit {suffix}; choose .png")
    write_whole(path, data.tobytes())

"""Scenes -> GLB and USD files: the animated heads of each video or camera, and the face of each photograph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ..head import Form
from ..networks.basis import Basis
from ..types import Face, Frame, Scene, face_label
from .gltf import face_glb, import_pygltflib, take_glb
from .looks import Looks
from .outputs import OutputNames, check_writable, write_whole
from .record import arkit_blendshapes
from .take import TrackKeys
from .usd import USD_SUFFIXES, import_pxr, take_usd

MOST_KEYS = 250_000
"""Number of keys at which a take is written and a new one begins: more than two hours of a face at 30 frames per
second, and 70 MB."""


class Takes:
    """The takes of all sources that are under way. `due` names those that must be written now."""

    def __init__(self, blendshapes: Sequence[str]) -> None:
        self._blendshapes = blendshapes
        self._takes: dict[str, dict[str, TrackKeys]] = {}
        self._live: set[str] = set()

    def see(self, scene: Scene) -> list[tuple[str, dict[str, TrackKeys]]]:
        """Add the faces of a frame. Returns (source, tracks by name) of the takes that ended.

        A take ends when the next file begins, when it is full, or when the time goes back. That happens where a file is
        read twice, or where another camera takes a name that became free.
        """
        frame, ended = scene.frame, []
        if not frame.live:
            others = [source for source in self._takes if source != frame.source and source not in self._live]
            ended = [(source, self._takes.pop(source)) for source in others]
        else:
            self._live.add(frame.source)
        tracks = self._takes.get(frame.source, {})
        back = any(frame.time_s < keys.last_s for keys in tracks.values())
        if back or sum(map(len, tracks.values())) >= MOST_KEYS:
            ended.append((frame.source, self._takes.pop(frame.source)))
        for index, face in enumerate(scene.faces):
            self._add(face_label(index, face), face, frame)
        return ended

    def take_all(self) -> list[tuple[str, dict[str, TrackKeys]]]:
        """Remove and return (source, tracks by name) of all takes."""
        takes, self._takes = list(self._takes.items()), {}
        return takes

    def _add(self, name: str, face: Face, frame: Frame) -> None:
        tracks = self._takes.setdefault(frame.source, {})
        keys = tracks.setdefault(name, TrackKeys(self._blendshapes))
        # Two frames of some videos have the same time.
        if not len(keys) or frame.time_s > keys.last_s:
            keys.add(face, frame)


class TakeSink:
    """A sink that writes a GLB or USD file per face of a photograph, and at the end one per video or camera."""

    def __init__(
        self,
        path: Path,
        blendshapes: Sequence[str],
        basis: Basis,
        form: Form,
        texture: int | None = None,
    ) -> None:
        """Check the path. `form`: the face alone, or the whole head. `texture`: side of the colour maps in pixels; None
        for clay, which USD files always have. Raises UsageError when the file cannot be written, or pygltflib or
        usd-core is missing."""
        self._suffix = path.suffix.lower()
        self._usd = self._suffix in USD_SUFFIXES
        import_pxr() if self._usd else import_pygltflib()
        check_writable(path)
        self._blendshapes = tuple(blendshapes)
        self._basis = basis
        self._form = form
        self._names = OutputNames(path)
        self._takes = Takes(self._blendshapes)
        self._looks = None if texture is None or self._usd else Looks(texture, form.face)

    def __enter__(self) -> TakeSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, scene: Scene) -> None:
        """Write the faces of a photograph, and note those of a video. Raises UsageError when they cannot be written."""
        if not scene.frame.still:
            self._write(self._takes.see(scene))
            if self._looks is not None:
                self._looks.see(scene)
            return
        for face in scene.faces:
            if self._usd:
                keys = TrackKeys(self._blendshapes)
                keys.add(face, scene.frame)
                self._write([(scene.frame.source, {"face": keys})])
                continue
            weights = arkit_blendshapes(face.expression, self._blendshapes)
            texture = None if self._looks is None else self._looks.of_photograph(face, scene.frame)
            data = face_glb(face.shape, weights, self._basis, self._blendshapes, self._form, texture)
            write_whole(self._names.next_for(scene.frame.source), data)

    def close(self) -> None:
        """Write the takes. Raises UsageError when they cannot be written."""
        self._write(self._takes.take_all())

    def _write(self, takes: Sequence[tuple[str, dict[str, TrackKeys]]]) -> None:
        for source, tracks in takes:
            if self._usd:
                data = take_usd(tracks, self._basis, self._blendshapes, self._form, self._suffix)
            else:
                textures = {} if self._looks is None else {name: self._looks.take(source, name) for name in tracks}
                data = take_glb(tracks, self._basis, self._blendshapes, self._form, textures)
            write_whole(self._names.next_for(source), data)

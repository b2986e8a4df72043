"""Scenes -> a mesh per face of a photograph and per track of a video or camera."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ..addresses import public_name
from ..head import Form
from ..types import Floats, Image, Scene, face_label
from .coloured import ColouredMesh
from .looks import Looks
from .meshes import check_mesh_format, files_beside, move_mesh, write_mesh
from .outputs import OutputNames, check_writable
from .parts import parts_of

MOST_TRACKS = 500
"""Number of tracks whose meshes wait for the end. Meshes of further tracks are written earlier, since a camera may run
for months."""


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
            about = f"{public_name(mesh.source)}, {mesh.label}"
            write_mesh(path, mesh.vertices, self._template, self._unit, mesh.texture, mesh.parts, about)


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
        """Make the neutral meshes of the tracks in the order of `LatestMeshes.take`, and forget them. The last `but`
        tracks that were seen stay."""
        for source, label, shape in self._latest.take(but):
            texture = None if self._looks is None else self._looks.take(source, label)
            vertices = self._form.neutral(shape)
            parts = parts_of(self._form, vertices, shape, None, eyes=self._eyes)
            yield FaceMesh(source, label, vertices, texture, parts)


class LatestMeshes:
    """The neutral shape of every track of every source, from its last frame. It is the average over the track's
    frames."""

    def __init__(self) -> None:
        self._vertices: dict[tuple[str, str], tuple[int, Floats]] = {}
        """Each track's number in the order in which they were first seen, and its shape, the longest unseen first."""
        self._count = 0

    def see(self, scene: Scene) -> None:
        """Remember the faces of a frame."""
        for index, face in enumerate(scene.faces):
            key = scene.frame.source, face_label(index, face)
            if key not in self._vertices:
                self._count += 1
            first, _ = self._vertices.pop(key, (self._count, None))
            self._vertices[key] = first, face.shape

    def take(self, but: int = 0) -> list[tuple[str, str, Floats]]:
        """Remove and return (source, label, vertices) of the tracks that were unseen for the longest time, in the order
        in which they were first seen. The last `but` tracks that were seen stay."""
        taken = []
        while len(self._vertices) > but:
            key = next(iter(self._vertices))
            first, shape = self._vertices.pop(key)
            taken.append((first, *key, shape))
        return [(source, label, shape) for _, source, label, shape in sorted(taken, key=lambda one: one[0])]

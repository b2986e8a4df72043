"""Scenes -> a mesh file per frame, whose names come from a pattern such as `take_{frame}.obj`."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from ..addresses import public_name
from ..errors import UsageError
from ..faces.reconstruct import largest
from ..head import Form
from ..types import Scene
from .meshes import check_mesh_format, write_mesh
from .outputs import check_no_input, check_writable, source_path
from .parts import parts_of
from .stems import shortened, stem_of

FIELDS = ("frame", "track", "source")
DIGITS = 6
"""Digits of a frame's number: nine hours at 30 frames per second sort by name."""


def is_sequence(target: str) -> bool:
    """Return whether an output is a pattern with the number of the frame."""
    return "{frame" in target


class SequenceSink:
    """A sink that writes the mesh of every frame as it comes, and keeps nothing."""

    def __init__(self, pattern: Path, form: Form, unit: str = "mm", *, eyes: bool = False) -> None:
        """Check the pattern. Raises UsageError when it has other fields, or the files cannot be written.

        `pattern`: path whose file name contains `{frame}`, and perhaps `{track}` and `{source}`. Without `{track}`, the
        largest face of each frame is written. `eyes`: write eyeballs, in .obj and .ply.
        """
        check_mesh_format(pattern)
        try:
            parts = list(string.Formatter().parse(pattern.name))
        except ValueError as error:
            raise UsageError(f"{pattern} is not a pattern: {error}; write {{frame}} for the number") from error
        fields = [name for _, name, _, _ in parts if name is not None]
        plain = not any(form or conversion for _, _, form, conversion in parts)
        if not plain or set(fields) - set(FIELDS) or is_sequence(str(pattern.parent)):
            known = ", ".join(f"{{{name}}}" for name in FIELDS)
            raise UsageError(f"cannot write {pattern}: a pattern may have {known} in the name of the file, and no more")
        self._pattern = pattern
        self._fields = fields
        self._form = form
        self._unit = unit
        self._eyes = eyes
        self._sources: dict[str, str] = {}
        """The source of each part of a name that stands for a source; without `{source}` of the empty one."""
        check_writable(self._path({"frame": "0" * DIGITS, "track": "0", "source": "0"}))

    def __enter__(self) -> SequenceSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, scene: Scene) -> None:
        """Write the meshes of a frame, with its expression. Raises UsageError when they cannot be written, or when a
        second source would replace the files of the first."""
        frame = scene.frame
        stem = shortened(stem_of(frame.source, live=frame.live)) if "source" in self._fields else ""
        first = self._sources.setdefault(stem, frame.source)
        if first != frame.source:
            raise UsageError(
                f"{self._pattern} would get frames of {public_name(first)} and of {public_name(frame.source)} under "
                "the same names; " + ("read them one by one" if stem else "add {source} to the name")
            )
        face = largest(scene.faces, scene.frame.size)
        faces = list(enumerate(scene.faces)) if "track" in self._fields else [(0, face)] if face is not None else []
        for index, one in faces:
            number = index if one.track is None else one.track
            values = {"frame": f"{frame.index:0{DIGITS}d}", "track": str(number), "source": stem}
            path = self._path(values)
            check_no_input(path, {source_path(frame.source)})
            vertices = self._form.expressed(one.shape, one.vertices)
            parts = parts_of(self._form, vertices, one.shape, one.gaze, eyes=self._eyes)
            write_mesh(path, vertices, self._form.template, self._unit, parts=parts)

    def close(self) -> None:
        """Do nothing: every mesh is complete already."""

    def _path(self, values: Mapping[str, str]) -> Path:
        return self._pattern.with_name(self._pattern.name.format(**values))

"""The options that outputs share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..head import Form
from ..networks.basis import Basis
from ..template import FaceTemplate
from .draw import Painter, painter
from .hide import is_cover
from .jsonl import JsonLinesSink
from .outputs import Rotation
from .texture import TEXTURE_SIZES


@dataclass(frozen=True, slots=True, eq=False)
class SinkOptions:
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

    def records(self, path: Path) -> JsonLinesSink:
        """Open a file of records. Raises UsageError when it cannot be written."""
        return JsonLinesSink(path, self.blendshapes, arkit=self.arkit, rotation=self.rotation)

    def painter(self, target: str) -> Painter:
        """Return the function that draws scenes. Raises UsageError where pictures are forbidden."""
        if not self.pictures:
            raise UsageError(f"{target} holds pictures, and --no-pictures forbids them; leave out one of the two")
        return painter(self.style, self.template, self.margin, eyes=self.eyes)


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

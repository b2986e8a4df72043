"""Sources with one person -> one shape, and scenes that share it. Sources are read twice, so no photograph is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..errors import SourceError
from ..types import Face, Frame, Scene
from .pipeline import scene_of
from .reconstruct import Reconstructor, largest
from .shapes import Average, ImageSet, set_from_faces
from .stages import Stages


def reconstruct_set_from_sources(
    reconstructor: Reconstructor,
    frames: Callable[[], Iterator[Frame]],
    average: Average | None = None,
    show: Callable[[Scene], None] | None = None,
) -> tuple[ImageSet | None, Iterator[Scene]]:
    """Reconstruct frames of one person. Returns the image set, None without any face, and an iterator over the scenes
    with its shape.

    `frames` is called once to reconstruct, and once more when the scenes are iterated, to read the pictures again. It
    must therefore not be a camera. `Reconstructor.reconstruct_set` gives the image set alone, and reads its pictures
    once. `average` is that of `Reconstructor.average_of_sets`. The largest face of each frame
    counts. `show` is called with each scene as first reconstructed. The iterator raises SourceError when it reads other
    pictures than before.
    """
    average, basis = reconstructor.average_of_sets(average)
    faces: list[Face | None] = []
    origins: list[tuple[str, int]] = []
    times: list[Stages] = []
    for frame in frames():
        stages = Stages()
        stages.milliseconds["capture"] = frame.capture_ms
        face = largest(reconstructor.faces(frame.image, stages), frame.size)
        faces.append(face)
        origins.append((frame.source, frame.index))
        times.append(stages)
        if show is not None:
            show(scene_of(reconstructor, frame, () if face is None else (face,), stages))
    image_set = set_from_faces(faces, average, basis) if any(face is not None for face in faces) else None
    shared = tuple(faces) if image_set is None else image_set.faces

    def scenes() -> Iterator[Scene]:
        for frame, face, origin, stages in zip(frames(), shared, origins, times, strict=False):
            if (frame.source, frame.index) != origin:
                raise SourceError(f"{origin[0]} could not be read a second time; do not change inputs during a run")
            yield scene_of(reconstructor, frame, () if face is None else (face,), stages)

    return image_set, scenes()

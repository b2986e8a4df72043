"""Sources with one person -> one shape, and scenes that share it. Sources are read twice, so no photograph is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..errors import SourceError
from ..types import Face, Floats, Frame, Scene
from .metric import Intrinsics, with_metric_pose
from .pipeline import boxes_beyond, scene_of
from .reconstruct import Reconstructor, largest
from .shapes import Average, ImageSet, set_from_faces
from .stages import Stages


def reconstruct_set_from_sources(
    reconstructor: Reconstructor,
    frames: Callable[[], Iterator[Frame]],
    average: Average | None = None,
    show: Callable[[Scene], None] | None = None,
    lens: Intrinsics | float | None = None,
) -> tuple[ImageSet | None, Iterator[Scene]]:
    """Reconstruct frames of one person. Returns the image set, None without any face, and an iterator over the scenes
    with its shape.

    `frames` is called once to reconstruct, and once more when the scenes are iterated, to read the pictures again. It
    must therefore not be a camera. `Reconstructor.reconstruct_set` gives the image set alone, and reads its pictures
    once. `average` is that of `Reconstructor.average_of_sets`. The largest face of each frame counts. `show` is called
    with each scene as first reconstructed. `lens` is that of `Pipeline`. The iterator raises SourceError when it reads
    other pictures than before.
    """
    average, basis = reconstructor.average_of_sets(average)
    faces: list[Face | None] = []
    origins: list[tuple[str, int]] = []
    times: list[Stages] = []
    others: list[list[Floats]] = []
    """The places of each frame where another face may be."""
    for frame in frames():
        stages = Stages()
        stages.milliseconds["capture"] = frame.capture_ms
        found, doubted = reconstructor.faces_and_doubts(frame.image, stages)
        face = largest(found, frame.size)
        faces.append(face)
        others.append([*doubted, *boxes_beyond(() if face is None else (face,), found)])
        origins.append((frame.source, frame.index))
        times.append(stages)
        if show is not None:
            show(scene_of(reconstructor, frame, () if face is None else (face,), others[-1], stages))
    image_set = set_from_faces(faces, average, basis) if any(face is not None for face in faces) else None
    shared = tuple(faces) if image_set is None else image_set.faces

    def scenes() -> Iterator[Scene]:
        for frame, face, origin, elsewhere, stages in zip(frames(), shared, origins, others, times, strict=False):
            if (frame.source, frame.index) != origin:
                raise SourceError(f"{origin[0]} could not be read a second time; do not change inputs during a run")
            if lens is not None and face is not None:
                face = with_metric_pose(face, lens, frame.size)
            yield scene_of(reconstructor, frame, () if face is None else (face,), elsewhere, stages)

    return image_set, scenes()

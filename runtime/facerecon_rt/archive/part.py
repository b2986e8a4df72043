"""The inputs of one part -> their rows: read, decode, detect, reconstruct. The module does not depend on Ray.

Pictures are decoded in a thread beside the network, not by tasks elsewhere. Decoded pictures have twenty times the
bytes, and a network of 10 Gb/s transfers fewer pictures of 12 megapixels than two cores decode.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, TypeVar

import cv2
import numpy as np

from ..addresses import path_of, public_name
from ..commands.arguments import idle_gpu_options
from ..errors import FaceReconError, ModelRefused, SourceError
from ..faces.pipeline import Pipeline, scene_of
from ..faces.reconstruct import TOGETHER, Reconstructor, largest
from ..faces.shapes import ImageSet, set_from_faces
from ..faces.stages import Stages
from ..sinks.record import record_from_scene
from ..sources.files import VideoSource, decode_image, is_video_name
from ..sources.prefetch import prefetched
from ..types import Floats, Frame, Scene
from .fetch import copy_to, read_bytes
from .recipe import Recipe, Workers
from .rows import Input, Row, error_row, face_row, person_row, row_of_record, row_of_video

log = logging.getLogger("facerecon_rt")

AHEAD_BYTES = 256 * 10**6
"""Maximum bytes of a part's photographs to read ahead. The others are read when the part is computed."""
READERS = 8
"""Number of files to read at once, since a store answers in tens of milliseconds."""
T = TypeVar("T")


def read_ahead(inputs: Sequence[Input], most_bytes: int) -> list[Input]:
    """Return the inputs with the files of photographs, up to `AHEAD_BYTES`, or with the reason why a file is
    unreadable."""
    read: list[Input] = []
    spent = 0
    with ThreadPoolExecutor(READERS, "read") as readers:
        for some in some_of(inputs, READERS):
            if spent < AHEAD_BYTES:
                some = list(readers.map(partial(_with_data, most_bytes=most_bytes), some))
                spent += sum(len(one.data) for one in some if one.data is not None)
            read += some
    return read


def _with_data(of: Input, most_bytes: int) -> Input:
    if is_video_name(path_of(of.uri)):
        return of
    try:
        return replace(of, data=read_bytes(of.uri, most_bytes))
    except SourceError as error:
        return replace(of, error=str(error))


@dataclass(frozen=True, slots=True)
class PartRows:
    """The rows of the files of one part."""

    inputs: list[Row]
    """One row per input, in their order."""
    persons: list[Row]
    """One row per person; empty where photographs are not grouped."""


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """A reconstructed photograph without its pixels."""

    of: Input
    scene: Scene
    record: Row


class PartReconstructor:
    """A Reconstructor for the inputs of parts, which it owns. A context manager."""

    def __init__(self, recipe: Recipe, workers: Workers) -> None:
        """Open the models. Raises FaceReconError as Reconstructor does."""
        cv2.setNumThreads(max(1, round(workers.cpus)))  # by default, the OpenCV of each actor uses all cores
        self._recipe = recipe
        self._reconstructor = Reconstructor(
            recipe.models,
            detector=recipe.detector,
            precision=recipe.precision,
            mirror=recipe.mirror,
            detector_size=recipe.detector_size,
            min_confidence=recipe.min_confidence,
            provider=workers.provider,
            threads=workers.threads,
            gpu=workers.gpu,
        )
        for line in idle_gpu_options(self._reconstructor, workers.gpu):
            log.warning("%s", line)
        self._average_of_sets = self._reconstructor.average_of_sets(recipe.average)

    def __enter__(self) -> PartReconstructor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._reconstructor.close()

    def rows(self, inputs: Sequence[Input]) -> PartRows:
        """Return the rows of a part. An unreadable input becomes an error row; FaceReconError is raised only for other
        faults."""
        grouped = any(one.person is not None for one in inputs)
        rows = list(self._of_videos(inputs, grouped))
        seen: list[_Seen] = []
        for found in self._of_photographs(inputs):
            if not isinstance(found, _Seen):
                rows.append(found)
            elif grouped:
                seen.append(found)
            else:
                rows.append(row_of_record(found.of, found.record, [face.shape for face in found.scene.faces]))
        persons = []
        if grouped:
            faces_of_person = {person: list(some) for person, some in groupby(seen, lambda one: one.of.person)}
            for person, theirs in groupby(inputs, lambda one: one.person):
                of_one = faces_of_person.get(person, [])
                image_set, faces = self._average(of_one)
                rows += faces
                persons.append(person_row(str(person), len(list(theirs)), image_set))
        return PartRows(sorted(rows, key=lambda row: row["input"]), persons)

    def _of_photographs(self, inputs: Sequence[Input]) -> Iterator[_Seen | Row]:
        """Yield the reconstruction of each photograph, or an error row."""
        photographs = (self._decoded(one) for one in inputs if not is_video_name(path_of(one.uri)))
        with closing(prefetched(photographs, TOGETHER)) as decoded:
            for some in some_of(decoded, TOGETHER):
                yield from (error_row(of, frame) for of, frame in some if isinstance(frame, str))
                framed = [(of, frame) for of, frame in some if isinstance(frame, Frame)]
                found = self._scenes([frame for _, frame in framed])
                for (of, _), scene in zip(framed, found, strict=True):
                    yield error_row(of, str(scene)) if isinstance(scene, FaceReconError) else self._seen(of, scene)

    def _decoded(self, of: Input) -> tuple[Input, Frame | str]:
        """Return the input with its picture, or with the reason why it has none. The file is dropped to save memory."""
        bare = replace(of, data=None)
        if of.error is not None:
            return bare, of.error
        started = time.monotonic()
        try:
            data = of.data if of.data is not None else read_bytes(of.uri, self._recipe.most_bytes)
            image = decode_image(np.frombuffer(data, np.uint8), public_name(of.uri))
        except SourceError as error:
            return bare, str(error)
        now = time.monotonic()
        return bare, Frame(image, public_name(of.uri), captured_at=now, capture_ms=(now - started) * 1000)

    def _scenes(self, frames: Sequence[Frame]) -> list[Scene | FaceReconError]:
        """Reconstruct photographs together. Where the network fails on them, for example when half precision overflows,
        they are run one by one, so that one faulty picture does not affect the others."""
        stages = Stages()
        try:
            found = self._reconstructor.reconstruct([frame.image for frame in frames], stages)
        except ModelRefused as error:
            return [error] if len(frames) == 1 else [scene for frame in frames for scene in self._scenes([frame])]
        scenes: list[Scene | FaceReconError] = []
        for frame, faces in zip(frames, found, strict=True):
            shared = stages.share(len(frames), frame.capture_ms)
            scenes.append(scene_of(self._reconstructor, frame, faces, (), shared))
        return scenes

    def _seen(self, of: Input, scene: Scene) -> _Seen:
        if of.person is not None:
            face = largest(scene.faces, scene.frame.size)
            scene = replace(scene, faces=() if face is None else (face,))
        return _Seen(of, without_pixels(scene), self._record(scene))

    def _average(self, photographs: Sequence[_Seen]) -> tuple[ImageSet | None, list[Row]]:
        """Average the photographs of one person. Returns the set, None where no photograph has a face, and the rows."""
        faces = [largest(one.scene.faces) for one in photographs]
        image_set = None
        if any(face is not None for face in faces):
            image_set = set_from_faces(faces, *self._average_of_sets)
        rows = []
        for one, shared in zip(photographs, faces if image_set is None else image_set.faces, strict=True):
            record = one.record
            if shared is not None:
                record = self._record(replace(one.scene, faces=(shared,)))
            rows.append(row_of_record(one.of, record, [None for _ in record["faces"]]))
        return image_set, rows

    def _of_videos(self, inputs: Sequence[Input], grouped: bool) -> Iterator[Row]:
        for of in inputs:
            if is_video_name(path_of(of.uri)):
                try:
                    if grouped:
                        raise SourceError(
                            f"{public_name(of.uri)} is a video; persons are averaged over photographs only"
                        )
                    yield self._of_video(of)
                except SourceError as error:
                    yield error_row(of, str(error))

    def _of_video(self, of: Input) -> Row:
        """Return the row of a video. Each track has the face of its most confident frame, with the shape of its last
        frame."""
        best: dict[int, Row] = {}
        latest: dict[int, Scene] = {}
        frames: dict[int, int] = {}
        stages_ms = Stages().milliseconds
        first: Row | None = None
        count = 0
        with local_file(of.uri) as path, VideoSource(path) as video, closing(prefetched(video)) as ahead:
            for scene in Pipeline(self._reconstructor, detect_every=self._recipe.detect_every).run(ahead):
                count += 1
                first = first or self._record(replace(scene, faces=()))
                for stage, spent in scene.stages_ms.items():
                    stages_ms[stage] += spent
                for face in scene.faces:
                    track, alone = face.track or 0, replace(scene, faces=(face,))
                    frames[track] = frames.get(track, 0) + 1
                    latest[track] = without_pixels(alone)
                    if track not in best or face.confidence > best[track]["faces"][0]["confidence"]:
                        best[track] = self._record(alone)
        if first is None:
            raise SourceError(f"{public_name(of.uri)} holds no frame that can be decoded; copy or convert it")
        faces = []
        for track, record in best.items():
            shape: Floats = latest[track].faces[0].shape
            spread = self._record(latest[track])["faces"][0].get("spread_mm")
            row = face_row(record, record["faces"][0], shape)
            faces.append({**row, "frames": frames[track], "spread_mm": spread})
        return row_of_video(of, first, count, faces, stages_ms)

    def _record(self, scene: Scene) -> dict[str, Any]:
        return record_from_scene(scene, self._reconstructor.contract.blendshapes)


def without_pixels(scene: Scene) -> Scene:
    """Return the scene with a blank picture of the same size, which takes no memory."""
    frame = scene.frame
    return replace(scene, frame=replace(frame, image=np.broadcast_to(np.uint8(0), frame.image.shape)))


@contextmanager
def local_file(uri: str) -> Iterator[Path]:
    """Yield a video as a local file, in which FFmpeg can seek to the end first. A copy is deleted afterwards. Raises
    SourceError."""
    if "://" not in uri:
        yield Path(uri)
        return
    with TemporaryDirectory(prefix="facerecon-rt-") as folder:
        path = Path(folder) / f"video{path_of(uri).suffix}"
        copy_to(uri, path)
        yield path


def some_of(values: Iterable[T], most: int) -> Iterator[list[T]]:
    """Yield lists of up to `most` values, in order."""
    coming = iter(values)
    while some := list(islice(coming, most)):
        yield some

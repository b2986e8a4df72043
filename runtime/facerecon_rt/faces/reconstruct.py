"""Crops -> faces: one image, one person's image set, or several networks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..align import Square, align, box_from_square, box_overlap, compose, square_from_box, square_from_camera
from ..errors import ModelRefused, UsageError
from ..networks.ensemble import Ensemble, Mirrored, Network, Session
from ..networks.precision import open_session
from ..networks.session import DISAGREEMENTS
from ..paths import is_file
from ..providers.choice import Provider
from ..providers.nvidia import AS_USUAL, GpuOptions
from ..types import Crop, Face, Floats, Image
from ..unpicklable import Unpicklable
from .cuts import looks
from .detect import Detector, open_detector
from .shapes import Average, ImageSet, set_from_faces
from .stages import Stages

DETECTOR_NAME = "face_detector.onnx"
MIN_CONFIDENCE = 0.5
DOUBTFUL_CONFIDENCE = 0.66
"""Least confidence of a new face whose detection is doubtful. The detector alone cannot tell these faces from clothing
and lettering. In crowd_1080p.mp4, false detections of scores between 0.4 and 0.6 have confidences up to 0.65; faces
that are hard to read have 0.66 (under a mask), 0.68 (dark), and most of them 0.8 and more."""
STRAYED_SIDES, STRAYED_RADIANS = 0.05, 0.2
"""A head found further than this from where it was looked for, in crop sides and in roll, is looked at once more.
Photographs: 2 % of faces as they are, a quarter of those of 20 pixels."""
TOGETHER = 8
"""Photographs whose faces are done in one run."""


@dataclass(frozen=True, slots=True)
class Sighting(Square):
    """The square of a detection."""

    doubtful: bool = False
    """See `Detection`."""


def faces_from_crops(network: Network, crops: Sequence[Crop]) -> list[Face]:
    """Crops -> faces in their frames, one for one."""
    if not crops:
        return []
    # Mostly there is one, and it need not be copied.
    images = crops[0].image[None] if len(crops) == 1 else np.stack([crop.image for crop in crops])
    raw = network.run(images)
    faces = []
    for i, crop in enumerate(crops):
        camera = compose(crop.frame_from_crop, raw.crop_from_head[i])
        landmarks = raw.landmarks[i] @ crop.frame_from_crop[:, :3].T + crop.frame_from_crop[:, 3]
        faces.append(
            Face(
                shape=raw.shape[i],
                vertices=raw.vertices[i],
                expression=raw.expression[i],
                frame_from_head=camera,
                landmarks=np.asarray(landmarks, np.float32),
                confidence=float(raw.confidence[i]),
                box=box_from_square(square_from_camera(camera)),
                gaze=None if raw.gaze is None else raw.gaze[i],
                disagreement=None if raw.disagreement is None else _in_frame(raw.disagreement[i], crop),
                looks=looks(crop.image, raw.crop_from_head[i]),
            )
        )
    return faces


def _in_frame(disagreement: Floats, crop: Crop) -> dict[str, float]:
    """(4,) disagreement about a crop -> its names and values, with pixels of the frame."""
    named = dict(zip(DISAGREEMENTS, disagreement.tolist(), strict=True))
    return {**named, "landmarks_px": named["landmarks_px"] * float(crop.frame_from_crop[2, 2])}


class Reconstructor(Unpicklable):
    """Photographs -> faces. Owns the networks and the detector it opens; a context manager."""

    def __init__(
        self,
        model: str | Path | Sequence[str | Path] | Network,
        *,
        detector: str | Path | Detector | None = None,
        provider: Provider = "auto",
        threads: int = 1,
        detector_size: int | None = None,
        min_confidence: float = MIN_CONFIDENCE,
        precision: str | None = None,
        mirror: bool = True,
        gpu: GpuOptions = AS_USUAL,
        warm_while_building: bool = False,
    ) -> None:
        """`model`: a FaceModel file; several make an ensemble; or a network, as `served.ServedNetwork`, which stays the
        caller's: how files are run does not concern it, and it needs a `detector`. `detector`: a file of ours or a
        YuNet, or anything with `detect`, which stays the caller's; by default face_detector.onnx beside the model.
        `detector_size`: longer side of what the detector sees, pixels; by default as `detect.looks_at` has it: 256, and
        for pictures of 1600 pixels or more two looks, one for small faces and one for close-ups.
        `min_confidence`: 0..1, below is no face. `precision`: fp32, fp16 or int8; takes, in place of each model, the
        file of that precision beside it that was made from the same weights and fits the provider. `mirror`:
        photographs are read together with their mirror image, which is more exact and takes one crop more per face;
        frames of videos and cameras never are. `gpu`: how it is used, where there is one. `warm_while_building`: answer
        on cuda or cpu while TensorRT builds its engine.

        Raises ModelRefused, ProviderMissing, UsageError.
        """
        if isinstance(model, (str, Path)):
            model = [model]
        paths, network = (list(model), None) if isinstance(model, Sequence) else ([], model)
        if not paths and network is None:
            raise UsageError("give at least one model")
        if network is not None and detector is None:
            raise UsageError("a network has no detector beside it; give one")

        def open_one(path: str | Path) -> AbstractContextManager[Session]:
            return open_session(
                path,
                provider=provider,
                threads=threads,
                precision=precision,
                gpu=gpu,
                warm_while_building=warm_while_building,
            )

        with ExitStack() as opened:
            sessions = [opened.enter_context(open_one(path)) for path in paths]
            if network is None:
                network = sessions[0] if len(sessions) == 1 else Ensemble(sessions)
            self.choice = sessions[0].choice if sessions else f"{network.provider}, the caller's"
            """Which provider, and why not a better one."""
            self.sessions = tuple(sessions)
            """The opened model files; none of a network that is the caller's."""
            self.network = network
            self.contract = self.network.contract
            self.min_confidence = min_confidence
            self.mirror = mirror
            if detector is None:
                detector = Path(paths[0]).with_name(DETECTOR_NAME)
                if not is_file(detector):
                    raise ModelRefused(f"no face detector at {detector}; put it there, or name another: --detector")
            if isinstance(detector, (str, Path)):
                detector = open_detector(detector, size=detector_size)
            self._detector: Detector | None = detector
            self._opened = opened.pop_all()

    def __enter__(self) -> Reconstructor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let sessions go. Closing twice is harmless."""
        self._opened.close()
        self._detector = None

    def detect(self, image: Image) -> list[Sighting]:
        """(H, W, 3) uint8 BGR -> the squares where faces were detected, best first.

        `believed` tells which of the faces seen there count.
        """
        if not isinstance(image, np.ndarray):
            raise UsageError(f"a picture is an array, not {type(image).__name__}; read files with read_image")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise UsageError(f"a picture is {image.dtype} {image.shape}; give uint8 (H, W, 3) BGR, as read_image does")
        if self._detector is None:
            raise UsageError("this Reconstructor is closed; open another one")
        sightings = []
        for found in self._detector.detect(image):
            square = square_from_box(found.box, found.roll)
            sightings.append(Sighting(square.x, square.y, square.side, square.roll, found.doubtful))
        return sightings

    def faces_at_each(
        self, images: Sequence[Image], squares: Sequence[Sequence[Square]], stages: Stages | None = None
    ) -> list[list[Face]]:
        """(H, W, 3) uint8 BGR pictures and squares in each -> the face in each square, one for one, confident or not.
        All squares are one run of the network."""
        return self._looks(images, squares, stages or Stages())

    def first_looks(
        self,
        images: Sequence[Image],
        squares: Sequence[Sequence[Square]],
        stages: Stages | None = None,
        *,
        mirror: bool = False,
    ) -> list[list[Face]]:
        """(H, W, 3) uint8 BGR pictures and a detector's coarse squares in each -> the face in each square, one for one.

        The network runs twice for all squares together, the second time where the first run saw the heads, and once
        more for heads that even then were not where they were looked for. `mirror`: the second run also reads the
        mirror images, and averages.
        """
        return self._first_looks(images, squares, stages or Stages(), mirror=mirror)

    def faces(self, image: Image, stages: Stages | None = None) -> tuple[Face, ...]:
        """(H, W, 3) uint8 BGR photograph -> its faces, the most confident first."""
        return self._faces_of_each([image], stages or Stages())[0]

    def reconstruct(self, images: Iterable[Image], stages: Stages | None = None) -> list[tuple[Face, ...]]:
        """Photographs (H, W, 3) uint8 BGR -> the faces of each. Faces of several photographs are done in one run; no
        more than `TOGETHER` photographs are held at once. `stages`: what the time of all of them is added to."""
        stages = stages or Stages()
        coming = iter(images)
        found: list[tuple[Face, ...]] = []
        while some := list(islice(coming, TOGETHER)):
            found += self._faces_of_each(some, stages)
            some.clear()  # before the next are read
        return found

    def reconstruct_set(self, images: Iterable[Image], average: Average = "robust") -> ImageSet:
        """Photographs of one person -> one shape. In each photograph the largest face counts.

        Raises UsageError when there is no face at all.
        """
        return set_from_faces([largest(faces) for faces in self.reconstruct(images)], average)

    def _faces_of_each(self, images: Sequence[Image], stages: Stages) -> list[tuple[Face, ...]]:
        with stages.measure("detect"):
            squares = [self.detect(image) for image in images]
        seen = self._first_looks(images, squares, stages, mirror=self.mirror)
        with stages.measure("post"):
            return [best_first(self.believed(*pair)) for pair in zip(squares, seen, strict=True)]

    def believed(self, sightings: Sequence[Sighting], faces: Sequence[Face]) -> list[Face]:
        """Detections, and the face that `first_looks` saw at each -> the faces of at least `min_confidence`, and of
        `DOUBTFUL_CONFIDENCE` where the detection is doubtful."""
        doubtful = max(self.min_confidence, DOUBTFUL_CONFIDENCE)
        pairs = zip(sightings, faces, strict=True)
        return [face for at, face in pairs if face.confidence >= (doubtful if at.doubtful else self.min_confidence)]

    def _first_looks(
        self, images: Sequence[Image], squares: Sequence[Sequence[Square]], stages: Stages, *, mirror: bool
    ) -> list[list[Face]]:
        coarse = self._looks(images, squares, stages)
        again = [[square_from_camera(face.frame_from_head) for face in faces] for faces in coarse]
        seen = self._looks(images, again, stages, mirror=mirror)
        found = [[square_from_camera(face.frame_from_head) for face in faces] for faces in seen]
        strayed = [
            [index for index, pair in enumerate(zip(*pairs, strict=True)) if _strayed(*pair)]
            for pairs in zip(again, found, strict=True)
        ]
        if any(strayed):
            last = [[of[index] for index in indices] for of, indices in zip(found, strayed, strict=True)]
            for faces, indices, better in zip(
                seen, strayed, self._looks(images, last, stages, mirror=mirror), strict=True
            ):
                for index, face in zip(indices, better, strict=True):
                    if face.confidence > faces[index].confidence:
                        faces[index] = face
        return seen

    def _looks(
        self, images: Sequence[Image], squares: Sequence[Sequence[Square]], stages: Stages, *, mirror: bool = False
    ) -> list[list[Face]]:
        """Pictures and squares in each -> the face in each square, all in one run."""
        with stages.measure("align"):
            size = self.contract.input_size
            crops = [align(image, square, size) for image, of in zip(images, squares, strict=True) for square in of]
        with stages.measure("infer"):
            faces = faces_from_crops(Mirrored(self.network) if mirror else self.network, crops)
        if len(squares) == 1:
            return [faces]
        coming = iter(faces)
        return [list(islice(coming, len(of))) for of in squares]


def _strayed(looked_at: Square, found: Square) -> bool:
    """Was a head found so far from where it was looked for that it is worth another look?"""
    way = math.hypot(found.x - looked_at.x, found.y - looked_at.y) / looked_at.side
    turn = math.remainder(found.roll - looked_at.roll, 2 * math.pi)
    return way > STRAYED_SIDES or abs(turn) > STRAYED_RADIANS


def reconstruct(
    images: Iterable[Image], model: str | Path | Sequence[str | Path], **options: Any
) -> list[tuple[Face, ...]]:
    """Photographs (H, W, 3) uint8 BGR -> the faces of each, in one call. `options` as of Reconstructor."""
    with Reconstructor(model, **options) as reconstructor:
        return reconstructor.reconstruct(images)


def reconstruct_set(
    images: Iterable[Image], model: str | Path | Sequence[str | Path], average: Average = "robust", **options: Any
) -> ImageSet:
    """Photographs of one person -> one shape with its spread, in one call. `options` as of Reconstructor."""
    with Reconstructor(model, **options) as reconstructor:
        return reconstructor.reconstruct_set(images, average)


def largest(faces: Sequence[Face]) -> Face | None:
    """The face with the largest box, or None of none."""
    return max(faces, key=lambda face: float(face.box[2] - face.box[0]), default=None)


def best_first(faces: Iterable[Face]) -> tuple[Face, ...]:
    """Faces of one photograph -> without those that lie on a more confident one; the most confident first."""
    return tuple(distinct(sorted(faces, key=lambda face: -face.confidence)))


def distinct(faces: Iterable[Face], overlap: float = 0.5) -> list[Face]:
    """The faces in their order, without those that lie on one before them (intersection over union of boxes)."""
    kept: list[Face] = []
    for face in faces:
        if all(box_overlap(face.box, other.box) <= overlap for other in kept):
            kept.append(face)
    return kept

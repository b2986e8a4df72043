"""Photographs -> faces, and photographs of one person -> one shape: the detector and the networks together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

import numpy as np

from ..align import Square, align, box_from_square, box_overlap, compose, square_from_box, square_from_camera
from ..errors import ModelRefused, UsageError
from ..networks.basis import Basis, BasisMissing, basis_path, read_basis
from ..networks.ensemble import Ensemble, Mirrored, Network, Session
from ..networks.precision import open_session
from ..networks.session import DISAGREEMENTS, RawFaces
from ..networks.views import VIEWS, average_of_views, views_of
from ..paths import is_file
from ..providers.choice import Provider
from ..providers.nvidia import AS_USUAL, GpuOptions
from ..types import Crop, Face, Floats, Image
from ..unpicklable import Unpicklable
from .cuts import appearance
from .detect import Detector, open_detector
from .shapes import Average, ImageSet, set_from_faces
from .stages import Stages

DETECTOR_NAME = "face_detector.onnx"
MIN_CONFIDENCE = 0.5
DOUBTFUL_CONFIDENCE = 0.68
"""Minimum confidence of a new face whose detection is doubtful. The detector alone cannot distinguish these faces from
clothes, leaves and lettering. In crowd_1080p.mp4 and head_d20.mp4, false detections of scores between 0.4 and 0.6 have
confidences up to 0.68. Of 40 masked faces, 37 are read well at 0.66, 36 at this limit and 35 at 0.7."""
HINT_SCORE = 0.2
"""Minimum score of a hint. In crowd_1080p.mp4, YuNet finds 45 faces in 11 frames; the shipped detector misses 12 of
them at its own minimum of 0.4, and 3 at 0.2, where three in four places are no faces."""
STRAYED_SIDES, STRAYED_RADIANS = 0.05, 0.2
"""Maximum distance in crop sides and roll between a head and the square that was read. A head further away is read once
more: 2 % of the faces in photographs, and a quarter of those of 20 pixels."""
TURNS = (math.pi / 2, math.pi, -math.pi / 2)
"""Turns in radians by which a photograph's detection is read again if its face is not believed. Of 448
faces of lfpw-test rolled by 60 degrees, the detector finds eight with a roll that is off by more than 75 degrees, and
they are not believed."""
SAME_FACE = 0.3
"""Minimum overlap of boxes (intersection over union) at which a detection lies on a face that is already known."""
STICKS_OUT = 0.25
"""Share of a face's box by which a detection may stick out of it and be covered with it, by the usual margin of covers.
On a crowd in 1080p, nine of ten detections of a face that is read stick out by less than 0.2."""
TOGETHER = 8
"""Number of photographs whose faces are read together."""
FACES_TOGETHER = 32
"""Maximum number of faces in one network run, since a photograph of a crowd has hundreds, each in several crops."""


@dataclass(frozen=True, slots=True)
class Sighting(Square):
    """The square of a detection."""

    doubtful: bool = False
    """Whether the detection is doubtful, as in `Detection`."""
    hint: bool = False
    """Whether the score is below the detector's minimum, so that the place is covered where faces are covered, and
    ignored elsewhere."""


def check_picture(image: Image) -> None:
    """Check that a picture is (H, W, 3) uint8. Raises UsageError."""
    if not isinstance(image, np.ndarray):
        raise UsageError(f"a picture is an array, not {type(image).__name__}; read files with read_image")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UsageError(f"a picture is {image.dtype} {image.shape}; give uint8 (H, W, 3) BGR, as read_image does")


def faces_from_crops(network: Network, crops: Sequence[Crop]) -> list[Face]:
    """Run the network on crops. Returns one face per crop, in the pixels of its frame."""
    if not crops:
        return []
    # A single crop is the common case, and need not be copied.
    images = crops[0].image[None] if len(crops) == 1 else np.stack([crop.image for crop in crops])
    return faces_from_raw(network.run(images), crops)


def faces_from_raw(raw: RawFaces, crops: Sequence[Crop]) -> list[Face]:
    """Return the raw face of each crop as a face in the pixels of the crop's frame."""
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
                identity=None if raw.identity is None else raw.identity[i],
                identity_variance=None if raw.identity_variance is None else raw.identity_variance[i],
                disagreement=None if raw.disagreement is None else _in_frame(raw.disagreement[i], crop),
                appearance=appearance(crop.image, raw.crop_from_head[i]),
            )
        )
    return faces


def _files_or_network(
    model: str | Path | Sequence[str | Path] | Network,
) -> tuple[Sequence[str | Path], Network | None]:
    """Return the model files, or none and a network of the caller. Raises UsageError where there is neither."""
    if isinstance(model, (str, Path)):
        return [model], None
    if not isinstance(model, Sequence):
        return [], model
    if not model:
        raise UsageError("no model was given; give at least one model")
    return model, None


def _in_frame(disagreement: Floats, crop: Crop) -> dict[str, float]:
    """Return the disagreement (4,) about a crop by name, with landmarks in frame pixels."""
    named = dict(zip(DISAGREEMENTS, disagreement.tolist(), strict=True))
    return {**named, "landmarks_px": named["landmarks_px"] * float(crop.frame_from_crop[2, 2])}


class Reconstructor(Unpicklable):
    """A reconstructor of faces in photographs. A context manager that owns the networks and the detector it opens."""

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
        hints: bool = False,
        gpu: GpuOptions = AS_USUAL,
        warm_while_building: bool = False,
    ) -> None:
        """Open the model and the detector.

        - `model`: a FaceModel file, several for an ensemble, or a network such as `served.ServedNetwork`. The caller
          keeps a network, the options for files do not apply to it, and it needs a `detector`.
        - `detector`: a detector file of this project or YuNet, or an object with `detect`, which the caller keeps. The
          default is face_detector.onnx beside the model.
        - `detector_size`: longer side of the detector's input in pixels. The default follows
          `detect.detector_runs`: 256, and for pictures of 1600 pixels or more two runs, one for small faces and one
          for close-ups.
        - `min_confidence`: minimum confidence of a face, 0 to 1.
        - `precision`: fp32, fp16 or int8. Each model is replaced by the file beside it that has this precision, was
          made from the same weights and fits the provider.
        - `mirror`: average each face of a photograph over three crops and their mirror images, which is more exact and
          takes five more crops per face. Frames of videos and cameras are read in one crop.
        - `hints`: report places with too low a score for a face in `Scene.elsewhere`, for outputs that cover
          faces. They need a detector file.
        - `gpu`: options for the GPU, where there is one.
        - `warm_while_building`: answer on CUDA or the CPU while TensorRT builds its engine.

        Raises ModelRefused, ProviderMissing, UsageError.
        """
        if isinstance(min_confidence, str) or not 0 <= min_confidence <= 1:
            raise UsageError(f"min_confidence must be a number from 0 to 1, got {min_confidence!r}")
        paths, network = _files_or_network(model)
        if network is not None and detector is None:
            raise UsageError("a network has no detector file beside it; give a detector")
        open_one: Callable[[str | Path], AbstractContextManager[Session]] = partial(
            open_session,
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
            """The provider, and the reasons why faster ones do not work."""
            self.sessions = tuple(sessions)
            """The opened model files; empty for a network of the caller."""
            self.network = network
            self.contract = self.network.contract
            self.min_confidence = min_confidence
            self.mirror = mirror
            self.hints = hints
            """Whether outputs cover faces, so that no place where a face may be is to be missed."""
            self._least_score = 0.0
            """Score below which a detection is a hint."""
            self._detector: Detector | None
            if detector is None:
                detector = _detector_beside(Path(paths[0]))
            if isinstance(detector, (str, Path)):
                self._detector, self._least_score = _opened_detector(detector, detector_size, hints=hints)
            else:
                self._detector = detector
            self._opened = opened.pop_all()

    def __enter__(self) -> Reconstructor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the sessions. A second call does nothing."""
        self._opened.close()
        self._detector = None

    def basis(self) -> Basis:
        """Read the model's basis from the file beside it.

        Raises BasisMissing where there is none, as for an ensemble and a network of the caller, and ModelRefused where
        it does not fit the model.
        """
        if len(self.sessions) != 1:
            raise BasisMissing(
                f"{'an ensemble' if self.sessions else 'a network of the caller'} has no basis; give one model file"
            )
        return read_basis(basis_path(self.sessions[0].path), self.contract)

    def detect(self, image: Image) -> list[Sighting]:
        """Detect faces in a picture (H, W, 3) uint8 BGR. Returns their squares, best first. Raises UsageError.

        `believed` decides which of the faces found there count.
        """
        check_picture(image)
        if self._detector is None:
            raise UsageError("this Reconstructor is closed; open another one")
        sightings = []
        for found in self._detector.detect(image):
            square = square_from_box(found.box, found.roll)
            hint = found.score < self._least_score
            sightings.append(Sighting(square.x, square.y, square.side, square.roll, found.doubtful, hint))
        return sightings

    def faces_at_each(
        self,
        images: Sequence[Image],
        squares: Sequence[Sequence[Square]],
        stages: Stages | None = None,
        *,
        mirror: bool = False,
    ) -> list[list[Face]]:
        """Reconstruct the face in each square of each picture (H, W, 3) uint8 BGR, whatever its confidence.

        Returns one face per square. The network runs once for up to `FACES_TOGETHER` squares. `mirror`: average the
        `VIEWS` of each face and their mirror images.
        """
        stages = stages or Stages()
        size = self.contract.input_size
        places = [(image, square) for image, of in zip(images, squares, strict=True) for square in of]
        faces: list[Face] = []
        for start in range(0, max(1, len(places)), FACES_TOGETHER):
            with stages.measure("align"):
                crops = [
                    align(image, view, size)
                    for image, square in places[start : start + FACES_TOGETHER]
                    for view in (views_of(square) if mirror else (square,))
                ]
            with stages.measure("infer"):
                if mirror and crops:
                    raw = Mirrored(self.network).run(np.stack([crop.image for crop in crops]))
                    faces += faces_from_raw(average_of_views(raw, size), crops[:: len(VIEWS)])
                else:
                    faces += faces_from_crops(self.network, crops)
        if len(squares) == 1:
            return [faces]
        coming = iter(faces)
        return [list(islice(coming, len(of))) for of in squares]

    def read_at(
        self,
        images: Sequence[Image],
        squares: Sequence[Sequence[Square]],
        stages: Stages | None = None,
        *,
        mirror: bool = False,
    ) -> list[list[Face]]:
        """Reconstruct the face in each coarse square of a detector in pictures (H, W, 3) uint8 BGR. Returns one face
        per square.

        All squares are read together, and twice: the second time at the heads that were found in the first. Heads that
        are not where they were expected the second time are read once more. `mirror`: average the `VIEWS` and their
        mirror images from the second time on.
        """
        stages = stages or Stages()
        coarse = self.faces_at_each(images, squares, stages)
        again = [[square_from_camera(face.frame_from_head) for face in faces] for faces in coarse]
        seen = self.faces_at_each(images, again, stages, mirror=mirror)
        found = [[square_from_camera(face.frame_from_head) for face in faces] for faces in seen]
        strayed = [
            [index for index, pair in enumerate(zip(*pairs, strict=True)) if _strayed(*pair)]
            for pairs in zip(again, found, strict=True)
        ]
        if any(strayed):
            last = [[of[index] for index in indices] for of, indices in zip(found, strayed, strict=True)]
            for faces, indices, better in zip(
                seen, strayed, self.faces_at_each(images, last, stages, mirror=mirror), strict=True
            ):
                for index, face in zip(indices, better, strict=True):
                    if face.confidence > faces[index].confidence:
                        faces[index] = face
        return seen

    def read_turned(
        self, images: Sequence[Image], squares: Sequence[Sequence[Square]], faces: Sequence[list[Face]], stages: Stages
    ) -> None:
        """Read detections of pictures (H, W, 3) uint8 BGR again at other rolls where `faces`, from `read_at`, are less
        sure than both the minimum confidence and `DOUBTFUL_CONFIDENCE`. Replaces such a face in place if the face at
        another roll is as sure as `DOUBTFUL_CONFIDENCE`."""
        unsure = min(self.min_confidence, DOUBTFUL_CONFIDENCE)
        for image, of, seen in zip(images, squares, faces, strict=True):
            lost = [index for index, face in enumerate(seen) if face.confidence < unsure]
            if not lost:
                continue
            turned = [replace(of[index], roll=of[index].roll + turn) for index in lost for turn in TURNS]
            (coarse,) = self.faces_at_each([image], [turned], stages)
            confidences = np.reshape([face.confidence for face in coarse], (len(lost), len(TURNS)))
            best = [turned[len(TURNS) * row + int(turn)] for row, turn in enumerate(confidences.argmax(1))]
            (again,) = self.read_at([image], [best], stages, mirror=self.mirror)
            for index, face in zip(lost, again, strict=True):
                if face.confidence >= DOUBTFUL_CONFIDENCE:
                    seen[index] = face

    def faces(self, image: Image, stages: Stages | None = None) -> tuple[Face, ...]:
        """Reconstruct the faces of a photograph (H, W, 3) uint8 BGR, the most confident first."""
        return self.faces_and_doubts(image, stages)[0]

    def faces_and_doubts(
        self, image: Image, stages: Stages | None = None
    ) -> tuple[tuple[Face, ...], tuple[Floats, ...]]:
        """Return the `faces` of a photograph (H, W, 3) uint8 BGR, and the face boxes (4,) xyxy, pixels, of detections
        that were not believed."""
        faces, squares = self._faces_of_each([image], stages or Stages())[0]
        return faces, off_faces(squares, faces)

    def reconstruct(self, images: Iterable[Image], stages: Stages | None = None) -> list[tuple[Face, ...]]:
        """Reconstruct the faces of photographs (H, W, 3) uint8 BGR. Returns the faces of each.

        Faces of several photographs share a run, and at most `TOGETHER` photographs are held at once. `stages`:
        collects the time of all photographs.
        """
        stages = stages or Stages()
        coming = iter(images)
        found: list[tuple[Face, ...]] = []
        while some := list(islice(coming, TOGETHER)):
            found += [faces for faces, _ in self._faces_of_each(some, stages)]
            some.clear()  # frees them before the next are read
        return found

    def reconstruct_set(self, images: Iterable[Image], average: Average | None = None) -> ImageSet:
        """Reconstruct one shape from photographs of one person. In each photograph the largest face counts.

        `reconstruct_set_from_sources`, which `facerecon-rt --set` calls, also gives a scene of each photograph with the
        shape, and reads the photographs twice for it. `average` is that of `average_of_sets`. Raises UsageError when no
        photograph has a face.
        """
        average, basis = self.average_of_sets(average)
        sizes: list[tuple[int, int]] = []

        def noted() -> Iterator[Image]:
            for image in images:
                height, width = (*np.shape(image), 0, 0)[:2]  # what is no picture is refused later
                sizes.append((width, height))
                yield image

        found = self.reconstruct(noted())
        return set_from_faces([largest(*of) for of in zip(found, sizes, strict=True)], average, basis)

    def average_of_sets(self, average: Average | None = None) -> tuple[Average, Basis | None]:
        """Return the method that averages a set of photographs, and the basis that it needs: "precision" where the
        model allows it, else "robust".

        Raises UsageError for "precision" with a model that cannot do it.
        """
        if average in ("robust", "mean"):
            return average, None
        if average not in (None, "precision"):
            raise UsageError(f"unknown average {average!r}; choose from {', '.join(get_args(Average))}")
        why = "its network outputs no identity code; export the model again"
        try:
            if "identity_variance" in self.contract.outputs:
                return "precision", self.basis()
        except BasisMissing as error:
            why = str(error)
        if average == "precision":
            raise UsageError(f"this model cannot average by precision: {why}, or choose `robust`")
        return "robust", None

    def _faces_of_each(self, images: Sequence[Image], stages: Stages) -> list[tuple[tuple[Face, ...], list[Sighting]]]:
        """Return the faces of each picture, and all detections in it."""
        with stages.measure("detect"):
            squares = [self.detect(image) for image in images]
        read = [no_hints(of) for of in squares]
        seen = self.read_at(images, read, stages, mirror=self.mirror)
        self.read_turned(images, read, seen, stages)
        with stages.measure("post"):
            faces = [best_first(self.believed(*pair)) for pair in zip(read, seen, strict=True)]
        return list(zip(faces, squares, strict=True))

    def believed(self, sightings: Sequence[Sighting], faces: Sequence[Face]) -> list[Face]:
        """Return the faces with at least `min_confidence`, or `DOUBTFUL_CONFIDENCE` where the detection is doubtful.

        `faces`: the face that `read_at` found at each of the `sightings`.
        """
        doubtful = max(self.min_confidence, DOUBTFUL_CONFIDENCE)
        pairs = zip(sightings, faces, strict=True)
        return [face for at, face in pairs if face.confidence >= (doubtful if at.doubtful else self.min_confidence)]


def _detector_beside(model: Path) -> Path:
    """Return the path of the detector beside a model. Raises ModelRefused where there is none."""
    path = model.with_name(DETECTOR_NAME)
    if not is_file(path):
        raise ModelRefused(f"no face detector at {path}; put one there, or give another with --detector")
    return path


def _opened_detector(path: str | Path, size: int | None, *, hints: bool) -> tuple[Detector, float]:
    """Open a detector file. Returns the detector and its minimum score. With `hints`, the detector also returns
    detections with lower scores, down to `HINT_SCORE`."""
    detector = open_detector(path, size=size)
    least = detector.score
    if hints and least > HINT_SCORE:
        detector = open_detector(path, size=size, score=HINT_SCORE)
    return detector, least


def _strayed(square: Square, found: Square) -> bool:
    """Return whether a head was found so far from its square that another run is worthwhile."""
    way = math.hypot(found.x - square.x, found.y - square.y) / square.side
    turn = math.remainder(found.roll - square.roll, 2 * math.pi)
    return way > STRAYED_SIDES or abs(turn) > STRAYED_RADIANS


def reconstruct(
    images: Iterable[Image], model: str | Path | Sequence[str | Path], **options: Any
) -> list[tuple[Face, ...]]:
    """Reconstruct the faces of photographs (H, W, 3) uint8 BGR in one call. `options` are those of Reconstructor."""
    with Reconstructor(model, **options) as reconstructor:
        return reconstructor.reconstruct(images)


def reconstruct_set(
    images: Iterable[Image], model: str | Path | Sequence[str | Path], average: Average | None = None, **options: Any
) -> ImageSet:
    """Reconstruct one shape with its spread from photographs of one person in one call. `options` are those of
    Reconstructor."""
    with Reconstructor(model, **options) as reconstructor:
        return reconstructor.reconstruct_set(images, average)


def largest(faces: Sequence[Face], size: tuple[int, int] | None = None) -> Face | None:
    """Return the face with the largest box; None for no faces.

    With the picture's `size` (width, height), faces are compared by `visible_area`. Without it, the picture counts as
    endless.
    """
    return max(faces, key=lambda face: visible_area(face, size), default=None)


def visible_area(face: Face, size: tuple[int, int] | None) -> float:
    """Return the area of a face's box in pixels, times the square of its share inside the picture of `size` (width,
    height). A near face half outside is therefore smaller than the face in the middle."""
    x0, y0, x1, y1 = face.box.tolist()
    area = (x1 - x0) * (y1 - y0)
    if size is None or area <= 0:
        return float(area)
    inside = max(min(x1, size[0]) - max(x0, 0.0), 0.0) * max(min(y1, size[1]) - max(y0, 0.0), 0.0)
    return float(inside**2 / area)


def no_hints(sightings: Sequence[Sighting]) -> list[Sighting]:
    """Return the sightings that are not hints, which are those that the network reads."""
    return [sighting for sighting in sightings if not sighting.hint]


def off_faces(squares: Sequence[Square], faces: Sequence[Face]) -> tuple[Floats, ...]:
    """Return the face boxes (4,) xyxy, frame pixels, of the detected squares that the box of no face holds: those on
    none of the faces, and those that stick out of one by more than `STICKS_OUT`."""
    boxes = [box_from_square(square) for square in squares]
    if not boxes or not faces:
        return tuple(boxes)
    inner, outer = np.array(boxes)[:, None], np.array([face.box for face in faces])
    slack = STICKS_OUT * (outer[:, 2:] - outer[:, :2])
    low, high = inner[..., :2] >= outer[:, :2] - slack, inner[..., 2:] <= outer[:, 2:] + slack
    held = (low & high).all(2).any(1)
    return tuple(box for box, is_held in zip(boxes, held, strict=True) if not is_held)


def best_first(faces: Iterable[Face]) -> tuple[Face, ...]:
    """Return the faces of a photograph without those that lie on a more confident face, the most confident first."""
    return tuple(distinct(sorted(faces, key=lambda face: -face.confidence)))


def distinct(faces: Iterable[Face], overlap: float = 0.5) -> list[Face]:
    """Return the faces in their order, without those whose box lies on an earlier one (intersection over union)."""
    kept: list[Face] = []
    for face in faces:
        if all(box_overlap(face.box, other.box) <= overlap for other in kept):
            kept.append(face)
    return kept

"""A photograph, a set of one person and an ensemble: real models of a few kilobytes, and numbers worked out by hand."""

from __future__ import annotations

import copy
import dataclasses
import multiprocessing
import pickle
import shutil
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facerecon_rt.align import BOX_SIDE_MM, CROP_CENTRE_MM, CROP_SIDE_MM, Square, box_overlap, frame_from_crop
from facerecon_rt.contract import BLENDSHAPES, OUTPUTS_1, ModelContract
from facerecon_rt.errors import ModelRefused, SourceError, UsageError
from facerecon_rt.faces.detect import open_detector
from facerecon_rt.faces.detector_runs import FINE_INPUT
from facerecon_rt.faces.image_set import reconstruct_set_from_sources
from facerecon_rt.faces.pipeline import Pipeline
from facerecon_rt.faces.reconstruct import (
    TOGETHER,
    Reconstructor,
    distinct,
    faces_from_crops,
    largest,
    reconstruct,
    reconstruct_set,
)
from facerecon_rt.faces.shapes import average_shapes, set_from_faces
from facerecon_rt.networks.basis import SHARED_ERROR
from facerecon_rt.networks.ensemble import Ensemble, Network, average_raw, disagreement_of
from facerecon_rt.networks.session import FaceSession, RawFaces
from facerecon_rt.networks.views import VIEWS
from facerecon_rt.pose import euler_from_camera, rotation_angle_deg, rotation_from_euler, split_camera
from facerecon_rt.template import load_template
from facerecon_rt.types import Crop, Detection, Face, Frame, Image
from numpy.typing import ArrayLike

PaintSpots = Callable[..., Image]
MakeTinyModel = Callable[..., Path]

BOX = np.array([60, 40, 160, 140], np.float32)


class Finds:
    """A detector that finds the same boxes in every picture."""

    def __init__(self, *boxes: ArrayLike) -> None:
        self.boxes = [np.asarray(box, np.float32) for box in boxes]

    def detect(self, image: Image) -> list[Detection]:
        return [Detection(box, 0.9) for box in self.boxes]


class Doubts(Finds):
    """A detector that is not sure of any of its boxes."""

    def detect(self, image: Image) -> list[Detection]:
        return [Detection(box, 0.9, doubtful=True) for box in self.boxes]


def grey(level: int, width: int = 220, height: int = 180) -> Image:
    return np.full((height, width, 3), level, np.uint8)


def face_of(shape: ArrayLike, *, confidence: float = 0.9, box: ArrayLike = BOX, smile: float = 0.0) -> Face:
    """Return a face of few vertices, which lie `smile` mm below the neutral shape."""
    neutral = np.asarray(shape, np.float32)
    camera = np.column_stack([2 * rotation_from_euler(0, 0, 0), [10, 20, 0]]).astype(np.float32)
    return Face(
        shape=neutral,
        vertices=neutral - np.array([0, smile, 0], np.float32),
        expression=np.zeros(53, np.float32),
        frame_from_head=camera,
        landmarks=np.zeros((68, 3), np.float32),
        confidence=confidence,
        box=np.asarray(box, np.float32),
    )


def raw_of(*, yaw: float = 0.0, scale: float = 1.0, at: float = 0.0, level: float = 0.0) -> RawFaces:
    """Return the raw output for one crop: all numbers follow from `level`, and the camera from `yaw`, `scale` and
    `at`."""
    camera = np.column_stack([scale * rotation_from_euler(0, yaw, 0), [at, at, 0]])
    return RawFaces(
        shape=np.full((1, 5, 3), level, np.float32),
        vertices=np.full((1, 5, 3), 2 * level, np.float32),
        expression=np.full((1, 53), level / 10, np.float32),
        crop_from_head=camera[None].astype(np.float32),
        landmarks=np.full((1, 68, 3), 3 * level, np.float32),
        confidence=np.array([level / 10], np.float32),
    )


class OffCentre:
    """A network that sees the faces of successive runs at these offsets to the right of the crop's middle, in sides of
    the crop."""

    provider, sha256 = "cpu", "off"

    def __init__(self, contract: ModelContract, *offsets: float) -> None:
        self.contract = contract
        self.offsets = offsets
        self.runs = 0

    def run(self, images: Image) -> RawFaces:
        size, offset = self.contract.input_size, self.offsets[self.runs]
        self.runs += 1
        scale = size / CROP_SIDE_MM
        linear = np.diag([scale, -scale, -scale])
        seen = np.array([(size - 1) / 2 + size * offset, (size - 1) / 2, 0])
        camera = np.column_stack([linear, seen - linear @ CROP_CENTRE_MM])
        return dataclasses.replace(raw_of(level=10 * (1 - offset)), crop_from_head=camera[None].astype(np.float32))


@pytest.fixture(scope="module")
def reconstructor(model: Path) -> Iterator[Reconstructor]:
    """A Reconstructor that finds one face in every picture, and reads it in one crop: the model sees a face in the
    middle of any crop."""
    with Reconstructor(model, detector=Finds(BOX), mirror=False) as opened:
        yield opened


# One image


def test_a_face_lies_where_it_was_detected(reconstructor: Reconstructor) -> None:
    ((face,),) = reconstructor.reconstruct([grey(128)])
    np.testing.assert_allclose(face.box, BOX, atol=0.01)
    np.testing.assert_allclose(euler_from_camera(face.frame_from_head), (0, 0, 0), atol=1e-3)
    scale, _, _ = split_camera(face.frame_from_head)
    assert scale == pytest.approx(100 / BOX_SIDE_MM, rel=1e-4)
    assert (face.track, face.spread_mm, face.disagreement) == (None, None, None)
    assert face.confidence == pytest.approx(0.95)
    assert face.expression[BLENDSHAPES.index("jawOpen")] == pytest.approx(128 / 255, abs=1e-3)


def test_landmarks_are_vertices_in_the_frame(reconstructor: Reconstructor) -> None:
    ((face,),) = reconstructor.reconstruct([grey(200)])
    points = face.vertices[load_template().landmarks] @ face.frame_from_head[:, :3].T + face.frame_from_head[:, 3]
    np.testing.assert_allclose(face.landmarks, points, atol=0.01)
    assert face.landmarks[36, 0] < face.landmarks[45, 0]
    assert face.landmarks[36, 1] < face.landmarks[8, 1]


def test_each_photograph_gets_its_own_faces_in_order(reconstructor: Reconstructor) -> None:
    results = reconstructor.reconstruct(grey(level) for level in (0, 100, 0, 200))
    assert [len(faces) for faces in results] == [0, 1, 0, 1]
    assert reconstructor.reconstruct([]) == []


def test_the_least_confidence_is_the_callers_choice(model: Path) -> None:
    faint = grey(5)  # confidence 20 * 5 / 255 = 0.39
    with (
        Reconstructor(model, detector=Finds(BOX)) as strict,
        Reconstructor(model, detector=Finds(BOX), min_confidence=0.3) as lenient,
    ):
        assert strict.faces(faint) == ()
        assert len(lenient.faces(faint)) == 1


@pytest.mark.parametrize(
    "image", [np.zeros((20, 30), np.uint8), np.zeros((20, 30, 4), np.uint8), np.zeros((20, 30, 3), np.float32)]
)
def test_what_is_no_picture_is_refused_with_the_fix(reconstructor: Reconstructor, image: Image) -> None:
    with pytest.raises(UsageError, match=r"a picture is .* give uint8 \(H, W, 3\) BGR, as read_image does"):
        reconstructor.faces(image)


def test_the_most_confident_face_comes_first_and_each_face_once(model: Path) -> None:
    image = grey(0, 400)
    image[:, 200:] = 255
    image[:, :200] = 7
    boxes = [[10, 40, 110, 140], [250, 40, 350, 140], [255, 45, 355, 145]]
    with Reconstructor(model, detector=Finds(*boxes), mirror=False) as reconstructor:
        faces = reconstructor.faces(image)
    assert len(faces) == 2
    assert faces[0].confidence > faces[1].confidence
    np.testing.assert_allclose(faces[1].box, boxes[0], atol=0.01)


def test_a_second_look_is_taken_where_the_first_saw_the_head(model: Path) -> None:
    with Reconstructor(model, detector=Finds(BOX), mirror=False) as reconstructor:
        network = OffCentre(reconstructor.contract, 0.1, 0.04)
        reconstructor.network = network
        (face,) = reconstructor.faces(grey(100))
    assert network.runs == 2
    assert face.box[0] - BOX[0] == pytest.approx(0.14 * 100 * CROP_SIDE_MM / BOX_SIDE_MM, abs=0.1)


@pytest.mark.parametrize(("last", "seen_at"), [(0.01, 0.31), (0.2, 0.3)])
def test_a_head_found_far_from_where_it_was_looked_for_is_looked_at_once_more(
    model: Path, last: float, seen_at: float
) -> None:
    """The more confident of both runs counts, which here is the run that sees the face nearer to the middle."""
    with Reconstructor(model, detector=Finds(BOX), mirror=False) as reconstructor:
        network = OffCentre(reconstructor.contract, 0.2, 0.1, last)
        reconstructor.network = network
        (face,) = reconstructor.faces(grey(100))
    assert network.runs == 3
    assert face.box[0] - BOX[0] == pytest.approx(seen_at * 100 * CROP_SIDE_MM / BOX_SIDE_MM, abs=0.1)


def test_only_the_head_that_strayed_is_looked_at_again_and_the_others_stay(model: Path) -> None:
    still, moves = [10, 40, 110, 140], [250, 40, 350, 140]
    runs = []

    class Strays(OffCentre):
        """A network that sees every face in the middle, except for the second of two crops in the second run."""

        def run(self, images: Image) -> RawFaces:
            runs.append(len(images))
            offsets = [0.0, 0.2] if len(runs) == 2 else [0.0] * len(images)
            looks = [OffCentre(self.contract, offset).run(images[:1]) for offset in offsets]
            names = ("shape", "vertices", "expression", "crop_from_head", "landmarks", "confidence")
            return RawFaces(*(np.concatenate([getattr(look, name) for look in looks]) for name in names))

    with Reconstructor(model, detector=Finds(still, moves), mirror=False) as reconstructor:
        reconstructor.network = Strays(reconstructor.contract)
        faces = sorted(reconstructor.faces(grey(100, 400)), key=lambda face: float(face.box[0]))
    assert runs == [2, 2, 1]
    np.testing.assert_allclose(faces[0].box, still, atol=0.1)
    assert faces[1].box[0] - moves[0] == pytest.approx(0.2 * 100 * CROP_SIDE_MM / BOX_SIDE_MM, abs=0.1)


class Counts(OffCentre):
    """A network that notes the number of crops of each run of another network."""

    def __init__(self, network: Network) -> None:
        super().__init__(network.contract)
        self.network = network
        self.crops: list[int] = []

    def run(self, images: Image) -> RawFaces:
        self.crops.append(len(images))
        return self.network.run(images)


@pytest.mark.parametrize(("mirror", "crops"), [(True, [1, 2 * len(VIEWS)]), (False, [1, 1])])
def test_the_second_look_at_a_photograph_sees_its_views_and_their_mirror_images(
    model: Path, mirror: bool, crops: list[int]
) -> None:
    with Reconstructor(model, detector=Finds(BOX), mirror=mirror) as reconstructor:
        network = reconstructor.network = Counts(reconstructor.network)
        reconstructor.faces(grey(100))
        assert network.crops == crops
        reconstructor.read_at([grey(100)], [reconstructor.detect(grey(100))])  # as the frames of a video are
        assert network.crops == [*crops, 1, 1]


class ReadsUpright(Counts):
    """A network that believes only in crops whose upper half is bright, with a given confidence."""

    def __init__(self, network: Network, confidence: float) -> None:
        super().__init__(network)
        self.confidence = confidence

    def run(self, images: Image) -> RawFaces:
        upper, lower = (half.mean((1, 2, 3)) for half in np.split(images.astype(np.float32), 2, axis=1))
        sure = np.where(upper > lower + 50, self.confidence, 0.1).astype(np.float32)
        return dataclasses.replace(super().run(images), confidence=sure)


@pytest.mark.parametrize("turn", [0, 90, 180, -90])
def test_a_photographed_face_whose_roll_the_detector_misses_is_read(model: Path, turn: int) -> None:
    picture = grey(200, 220, 220)
    picture[110:] = 20
    picture = np.ascontiguousarray(np.rot90(picture, turn // -90))
    box = np.array([60, 60, 160, 160], np.float32)
    with Reconstructor(model, detector=Finds(box), mirror=False) as reconstructor:
        network = reconstructor.network = ReadsUpright(reconstructor.network, 0.8)
        (face,) = reconstructor.faces(picture)
    assert abs((euler_from_camera(face.frame_from_head)[2] - turn + 180) % 360 - 180) < 1
    # The other three rolls are tried where the detector's own is not believed, and the best is read as any other.
    assert network.crops == ([1, 1] if turn == 0 else [1, 1, 3, 1, 1])


def test_a_look_at_another_roll_has_to_be_surer_than_a_first_look(model: Path) -> None:
    picture = grey(200, 220, 220)
    picture[:110] = 20
    with Reconstructor(model, detector=Finds(np.array([60, 60, 160, 160], np.float32))) as reconstructor:
        reconstructor.network = ReadsUpright(reconstructor.network, 0.6)
        assert reconstructor.faces(picture) == ()
        assert len(reconstructor.faces(picture[::-1].copy())) == 1


def test_where_the_detector_is_not_sure_the_network_has_to_be(model: Path) -> None:
    """The tiny model's confidence is 20 times the mean level, 0..1: 0.55 at 7, 0.71 at 9."""
    with Reconstructor(model, detector=Finds(BOX)) as sure, Reconstructor(model, detector=Doubts(BOX)) as doubtful:
        assert [len(sure.faces(grey(level))) for level in (6, 7, 9)] == [0, 1, 1]
        assert [len(doubtful.faces(grey(level))) for level in (6, 7, 9)] == [0, 0, 1]
    with Reconstructor(model, detector=Doubts(BOX), min_confidence=0.9) as strict:
        assert [len(strict.faces(grey(level))) for level in (9, 12)] == [0, 1]


def test_a_track_begins_where_both_are_sure_and_goes_on_where_one_is_not(model: Path) -> None:
    with Reconstructor(model, detector=Doubts(BOX)) as reconstructor:
        pipeline = Pipeline(reconstructor, detect_every=1)
        scenes = [
            pipeline.process(Frame(grey(level), "v", index, index / 25, still=False))
            for index, level in enumerate((7, 9, 7, 6, 7))
        ]
    assert [[face.track for face in scene.faces] for scene in scenes] == [[], [1], [1], [], []]


class DoubtsAt(Doubts):
    """A detector that finds its doubtful boxes in the given runs, and counts its runs."""

    def __init__(self, *runs: bool) -> None:
        super().__init__(BOX)
        self.runs, self.calls = runs, 0

    def detect(self, image: Image) -> list[Detection]:
        self.calls += 1
        return super().detect(image) if self.runs[self.calls - 1] else []


@pytest.mark.parametrize(
    ("level", "runs", "tracks"),
    [
        (9, (True, False, False, False), [[], [], [], []]),
        (9, (True, True, False, False), [[], [1], [1], [1]]),
        (9, (True, False, True, True), [[], [], [], [1]]),
        (12, (True, False, False, False), [[1], [1], [1], [1]]),
    ],
    ids=["found once", "found twice", "found again later", "read well"],
)
def test_what_is_doubtful_is_found_twice_before_it_is_a_track(
    model: Path, level: int, runs: tuple[bool, ...], tracks: list[list[int]]
) -> None:
    """The tiny model's confidence is 0.71 at 9, and 0.94 at 12."""
    with Reconstructor(model, detector=DoubtsAt(*runs)) as reconstructor:
        pipeline = Pipeline(reconstructor)
        scenes = [pipeline.process(Frame(grey(level), "v", index, index / 25, still=False)) for index in range(4)]
    assert [[face.track for face in scene.faces] for scene in scenes] == tracks


def test_a_face_that_waits_is_looked_for_in_the_next_frame_and_then_no_more(
    model: Path,
) -> None:
    class AlsoDoubts(DoubtsAt):
        """A detector with a sure box, and another box that is found in the first run only."""

        def detect(self, image: Image) -> list[Detection]:
            return [Detection(np.array(BOX, np.float32), 0.9), *super().detect(image)]

    detector = AlsoDoubts(True, *[False] * 9)
    detector.boxes = [np.array([150, 120, 190, 160], np.float32)]
    with Reconstructor(model, detector=detector) as reconstructor:
        pipeline = Pipeline(reconstructor, detect_every=100)
        calls = []
        for index in range(5):
            pipeline.process(Frame(grey(9), "v", index, index / 25, still=False))
            calls.append(detector.calls)
    assert calls == [1, 2, 2, 2, 2]


def test_faces_below_one_another_are_told_apart_and_copies_are_left_out() -> None:
    faces = [face_of([[0, 0, 0]], box=box) for box in ([0, 0, 10, 10], [1, 1, 11, 11], [8, 0, 18, 10], [0, 0, 10, 10])]
    assert distinct(faces) == [faces[0], faces[2]]
    assert distinct([]) == []


def test_overlap_is_what_two_boxes_share_of_what_they_cover() -> None:
    a, b, c = (np.array(box, np.float32) for box in ([0, 0, 2, 2], [1, 0, 3, 2], [2, 0, 4, 2]))
    assert box_overlap(a, b) == pytest.approx(2 / 6)
    assert (box_overlap(a, a), box_overlap(a, c)) == (1, 0)


def test_the_largest_face_is_that_of_the_widest_box() -> None:
    small, large_one = face_of([[0, 0, 0]], box=[0, 0, 5, 5]), face_of([[0, 0, 0]], box=[0, 0, 9, 9])
    assert largest([small, large_one]) is large_one
    assert largest([]) is None


def test_a_face_half_outside_the_picture_is_as_large_as_what_is_seen_of_it() -> None:
    outside, inside = face_of([[0, 0, 0]], box=[-53, 66, 66, 185]), face_of([[0, 0, 0]], box=[106, 99, 192, 184])
    assert largest([outside, inside]) is outside
    assert largest([outside, inside], (234, 289)) is inside
    assert largest([outside], (234, 289)) is outside


# Opening and closing


def test_the_detector_beside_the_model_is_taken(model: Path, spots: PaintSpots) -> None:
    with Reconstructor(str(model), mirror=False) as reconstructor:
        (face,) = reconstructor.faces(spots(256, 192, [(0.5, 0.5)]))
    middle = (face.box[:2] + face.box[2:]) / 2
    np.testing.assert_allclose(middle, [131.5, 99.5], atol=0.1)
    assert face.box[2] - face.box[0] == pytest.approx(32, abs=0.1)


def test_large_pictures_are_searched_for_smaller_faces(model: Path, spots: PaintSpots) -> None:
    large_one = spots(2432, 1824, [(0.5, 0.5)])
    with Reconstructor(model, mirror=False) as reconstructor:
        (face,) = reconstructor.faces(large_one)
    assert face.box[2] - face.box[0] == pytest.approx(32 * 2432 / FINE_INPUT, abs=0.5)
    with Reconstructor(model, detector_size=256) as reconstructor:
        assert reconstructor.faces(large_one) == ()


def test_a_missing_detector_is_named_with_the_fix(tiny_model: Path) -> None:
    with pytest.raises(
        ModelRefused, match=r"no face detector at .*face_detector\.onnx; put one there, or give another"
    ):
        Reconstructor(tiny_model)


def test_a_detector_that_is_none_is_found_out_when_it_is_opened(tiny_model: Path) -> None:
    with pytest.raises(ModelRefused, match="neither a face detector of this project"):
        Reconstructor(tiny_model, detector=tiny_model)


def test_no_model_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="at least one model"):
        Reconstructor([])


def test_what_was_opened_is_closed_when_the_rest_cannot_be(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Path] = []
    monkeypatch.setattr(FaceSession, "close", lambda session: closed.append(session.path))
    with pytest.raises(ModelRefused, match="no such file"):
        Reconstructor([model, tmp_path / "missing.onnx"])
    with pytest.raises(ModelRefused, match="no such file"):
        Reconstructor(model, detector=tmp_path / "missing.onnx")
    assert closed == [model, model]


def test_a_closed_reconstructor_says_so(model: Path) -> None:
    reconstructor = Reconstructor(model, detector=Finds(BOX))
    reconstructor.close()
    reconstructor.close()
    with pytest.raises(UsageError, match="closed"):
        reconstructor.faces(grey(100))


def test_one_call_does_it_all(model: Path) -> None:
    images = [grey(100), grey(150)]
    assert [len(faces) for faces in reconstruct(images, model, detector=Finds(BOX))] == [1, 1]
    assert len(reconstruct_set(images, model, "mean", detector=Finds(BOX)).faces) == 2


# Image sets


def test_a_set_shares_one_shape(reconstructor: Reconstructor) -> None:
    levels = (60, 120, 0, 180)
    image_set = reconstructor.reconstruct_set(grey(level) for level in levels)
    alone = [reconstructor.faces(grey(level)) for level in levels]
    assert image_set.faces[2] is None
    assert image_set.weights[2] == 0
    assert image_set.weights.sum() == pytest.approx(1)
    for face, own in zip(image_set.faces, alone, strict=True):
        if face is None:
            continue
        assert face.shape is image_set.shape
        assert face.spread_mm is image_set.spread_mm
        # Expression and pose stay the photograph's own; the landmarks follow the common shape.
        np.testing.assert_allclose(face.vertices - face.shape, own[0].vertices - own[0].shape, atol=1e-4)
        np.testing.assert_array_equal(face.frame_from_head, own[0].frame_from_head)
        np.testing.assert_array_equal(face.expression, own[0].expression)
        points = face.vertices[load_template().landmarks] @ face.frame_from_head[:, :3].T + face.frame_from_head[:, 3]
        np.testing.assert_allclose(face.landmarks, points, atol=1e-3)
    assert image_set.spread_mm.max() > 0.1


def test_in_a_set_the_largest_face_counts(model: Path) -> None:
    with Reconstructor(model, detector=Finds([0, 0, 40, 40], BOX), mirror=False) as reconstructor:
        (face,) = reconstructor.reconstruct_set([grey(100)]).faces
    assert face is not None
    np.testing.assert_allclose(face.box, BOX, atol=0.01)


def test_a_set_without_a_face_is_a_usage_error(reconstructor: Reconstructor) -> None:
    with pytest.raises(UsageError, match="no face was found in any photograph"):
        reconstructor.reconstruct_set([grey(0), grey(0)])
    with pytest.raises(UsageError, match="no face was found"):
        set_from_faces([])


def test_averaging_a_long_video_needs_no_second_copy_of_its_shapes() -> None:
    shapes = np.random.default_rng(0).normal(size=(200, 500, 3)).astype(np.float32)
    tracemalloc.start()
    try:
        average_shapes(shapes, np.ones(200, np.float32))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < shapes.nbytes / 4


def test_a_set_is_fused_by_precision_where_the_model_has_a_basis(model: Path, tmp_path: Path) -> None:
    """The tiny model's codes are (m, 0) with variances (0.5, 1). Two pictures count as 2 / (1 + 0.6), so the precision
    of the first number is 1 + 2 / 1.6 * (1 / 0.5 - 1)."""
    beside = Path(shutil.copy(model, tmp_path / "face.onnx"))
    with Reconstructor(beside, detector=Finds(BOX)) as reconstructor:
        assert reconstructor.average_of_sets() == ("robust", None)
        with pytest.raises(UsageError, match=r"no basis at .*, or choose `robust`"):
            reconstructor.reconstruct_set([grey(90)], "precision")
        contract, faces = reconstructor.contract, [reconstructor.faces(grey(level))[0] for level in (60, 180)]
    mean = np.random.default_rng(0).normal(0, 30, (contract.vertex_count, 3)).astype(np.float32)
    shape = np.zeros((2, *mean.shape), np.float32)
    shape[0, :, 2] = 4.0
    expression = np.zeros((len(contract.blendshapes), *mean.shape), np.float16)
    np.savez(
        tmp_path / "face.basis.npz", mean=mean, shape=shape, expression=expression,
        weights_sha256=np.array(contract.weights_sha256),
    )  # fmt: skip
    with Reconstructor(beside, detector=Finds(BOX)) as reconstructor:
        images = [grey(60), grey(180)]
        fused = reconstructor.reconstruct_set(images)
        assert fused.error_mm is not None and fused.error_mm.max() < 1e-3, "a shift of all is no error of the shape"
        plain = reconstructor.reconstruct_set(images, "mean")
        copies = reconstructor.reconstruct_set([grey(60)] * 3)
    assert plain.error_mm is None
    assert copies.spread_mm.max() < 1e-3, "equal photographs agree, although the fused shape is not their average"
    assert np.abs(copies.shape - faces[0].shape).max() > 1
    codes = [face.identity for face in faces]
    assert codes[0] is not None and codes[1] is not None and codes[0][0] != codes[1][0]
    counts = 2 / (1 + SHARED_ERROR)
    code = counts * (codes[0][0] + codes[1][0]) / 2 / 0.5 / (1 + counts)
    np.testing.assert_allclose(fused.shape, mean + code * shape[0], atol=1e-3)


def test_a_model_of_contract_1_is_never_fused_by_precision(model_1: Path) -> None:
    with Reconstructor(model_1, detector=Finds(BOX)) as reconstructor:
        assert reconstructor.average_of_sets() == ("robust", None)
        with pytest.raises(UsageError, match="outputs no identity code; export the model again, or choose `robust`"):
            reconstructor.average_of_sets("precision")


def test_the_plain_mean_counts_every_photograph_alike() -> None:
    """The two shapes have one vertex each, 2 mm apart."""
    shapes = np.array([[[0, 0, 0]], [[0, 2, 0]]], np.float32)
    mean, spread, weights = average_shapes(shapes, np.array([0.9, 0.3], np.float32), "mean")
    np.testing.assert_allclose(mean, [[0, 1, 0]])
    np.testing.assert_allclose(spread, [1])
    np.testing.assert_allclose(weights, [0.5, 0.5])


def test_two_photographs_are_weighed_by_confidence() -> None:
    """The mean is 0.25 * 2 = 0.5, and the spread is sqrt(0.75 * 0.5^2 + 0.25 * 1.5^2) = sqrt(0.75)."""
    shapes = np.array([[[0, 0, 0]], [[0, 2, 0]]], np.float32)
    mean, spread, weights = average_shapes(shapes, np.array([0.9, 0.3], np.float32))
    np.testing.assert_allclose(mean, [[0, 0.5, 0]], atol=1e-6)
    np.testing.assert_allclose(spread, [np.sqrt(0.75)], rtol=1e-6)
    np.testing.assert_allclose(weights, [0.75, 0.25], atol=1e-6)


def test_the_robust_mean_resists_an_outlier() -> None:
    shapes = np.random.default_rng(0).normal(size=(9, 50, 3)).astype(np.float32) * 0.2
    truth = shapes[:8].mean(0)
    shapes[8] += 40
    confidences = np.full(9, 0.9, np.float32)
    robust, _, weights = average_shapes(shapes, confidences)
    plain, _, _ = average_shapes(shapes, confidences, "mean")
    assert np.abs(robust - truth).max() < 0.2
    assert np.abs(plain - truth).max() > 4
    assert weights[8] < 0.01
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)


@pytest.mark.parametrize("copies", [1, 2, 3, 5])
def test_copies_of_one_photograph_average_to_it(copies: int) -> None:
    shape = np.random.default_rng(0).normal(size=(1, 20, 3)).astype(np.float32)
    mean, spread, weights = average_shapes(np.repeat(shape, copies, 0), np.full(copies, 0.75, np.float32))
    np.testing.assert_allclose(mean, shape[0], atol=1e-6)
    np.testing.assert_allclose(spread, 0, atol=1e-6)
    np.testing.assert_allclose(weights, 1 / copies, atol=1e-6)


def test_faces_without_any_confidence_still_average() -> None:
    mean, _, _ = average_shapes(np.array([[[0, 0, 0]], [[2, 0, 0]]], np.float32), np.zeros(2, np.float32))
    np.testing.assert_allclose(mean, [[1, 0, 0]])


def test_no_shapes_have_no_average() -> None:
    with pytest.raises(UsageError, match="no shapes"):
        average_shapes(np.zeros((0, 5, 3), np.float32), np.zeros(0, np.float32))


def test_scenes_of_a_set_are_read_again_and_share_its_shape(reconstructor: Reconstructor) -> None:
    reads = 0

    def frames() -> Iterator[Frame]:
        nonlocal reads
        reads += 1
        for number, level in enumerate((80, 0, 160)):
            yield Frame(grey(level), f"{number}.jpg")

    shown: list[int] = []
    image_set, scenes = reconstruct_set_from_sources(
        reconstructor, frames, show=lambda scene: shown.append(len(scene.faces))
    )
    assert (reads, shown) == (1, [1, 0, 1])
    found = list(scenes)
    assert reads == 2
    assert image_set is not None
    assert [(scene.frame.source, len(scene.faces)) for scene in found] == [("0.jpg", 1), ("1.jpg", 0), ("2.jpg", 1)]
    assert found[0].faces[0].shape is found[2].faces[0].shape is image_set.shape
    assert found[0].model == reconstructor.network.sha256


def test_pictures_that_changed_between_the_two_readings_are_noticed(reconstructor: Reconstructor) -> None:
    albums = [["a.jpg", "b.jpg"], ["b.jpg", "c.jpg"]]

    def frames() -> Iterator[Frame]:
        for name in albums.pop(0):
            yield Frame(grey(90), name)

    _, scenes = reconstruct_set_from_sources(reconstructor, frames)
    with pytest.raises(SourceError, match=r"a\.jpg could not be read a second time"):
        next(scenes)


# Ensembles


def test_an_ensemble_averages_what_its_members_say() -> None:
    mean = average_raw([raw_of(level=2, at=10), raw_of(level=4, at=30)])
    assert (mean.shape == 3).all()
    assert (mean.vertices == 6).all()
    assert (mean.landmarks == 9).all()
    np.testing.assert_allclose(mean.expression, 0.3, rtol=1e-6)
    np.testing.assert_allclose(mean.confidence, 0.3, rtol=1e-6)
    np.testing.assert_allclose(mean.crop_from_head[0, :, 3], [20, 20, 0])
    assert all(getattr(mean, name).dtype == np.float32 for name in OUTPUTS_1)
    assert mean.gaze is mean.identity is mean.identity_variance is None


def test_gazes_are_averaged_as_directions_and_codes_not_at_all() -> None:
    """The mean of 30 degrees to the left and straight ahead is 15 degrees to the left; that of 30 up and 30 down is
    straight ahead."""
    half, root, up = 0.5, np.sqrt(3) / 2, np.array([[0, 0.5, np.sqrt(3) / 2]])
    runs = [
        dataclasses.replace(
            raw_of(level=level),
            gaze=np.concatenate([left, sign * up * [1, 1, sign]])[None].astype(np.float32),
            identity=np.full((1, 2), level, np.float32),
            identity_variance=np.full((1, 2), 0.5, np.float32),
        )
        for level, left, sign in ((2, np.array([[half, 0, root]]), 1), (4, np.array([[0.0, 0, 1]]), -1))
    ]
    mean = average_raw(runs)
    assert mean.gaze is not None and mean.gaze.dtype == np.float32
    turn = np.radians(15)
    np.testing.assert_allclose(mean.gaze[0], [[np.sin(turn), 0, np.cos(turn)], [0, 0, 1]], atol=1e-6)
    assert mean.identity is mean.identity_variance is None


def test_rotations_are_averaged_on_so3_and_scales_geometrically() -> None:
    mean = average_raw([raw_of(yaw=-50, scale=1), raw_of(yaw=70, scale=4)])
    scale, rotation, _ = split_camera(mean.crop_from_head[0])
    assert scale == pytest.approx(2)
    np.testing.assert_allclose(rotation, rotation_from_euler(0, 10, 0), atol=1e-6)
    np.testing.assert_allclose(mean.crop_from_head[0, :, :3], scale * rotation, atol=1e-6)


def test_disagreement_is_the_mean_distance_to_the_average() -> None:
    """The members are 2 apart in each of three coordinates, so each is sqrt(3) from the mean."""
    runs = [raw_of(level=2, yaw=10), raw_of(level=4, yaw=-10)]
    found = disagreement_of(runs, average_raw(runs), 0)
    assert found == pytest.approx((np.sqrt(3), 2 * np.sqrt(3), 3 * np.sqrt(3), 10), rel=1e-5)


class Quarrel(OffCentre):
    """A network whose members are a crop pixel apart."""

    def run(self, images: Image) -> RawFaces:
        return dataclasses.replace(super().run(images), disagreement=np.ones((len(images), 4), np.float32))


def test_disagreement_about_landmarks_is_in_pixels_of_the_frame(reconstructor: Reconstructor) -> None:
    crop = Crop(np.zeros((64, 64, 3), np.uint8), frame_from_crop(Square(100, 100, 4 * 64, 0.3), 64))
    (face,) = faces_from_crops(Quarrel(reconstructor.contract, 0.1), [crop])
    assert face.disagreement is not None
    assert face.disagreement["landmarks_px"] == pytest.approx(4)
    assert face.disagreement["shape_mm"] == 1


def test_twins_agree_with_each_other_and_with_themselves_alone(model: Path) -> None:
    with Reconstructor(model, detector=Finds(BOX)) as one, Reconstructor([model, model], detector=Finds(BOX)) as two:
        (alone,), (together,) = one.faces(grey(77)), two.faces(grey(77))
        assert one.network.sha256 != two.network.sha256
        assert isinstance(two.network, Ensemble)
        assert isinstance(one.network, FaceSession)
    np.testing.assert_allclose(together.vertices, alone.vertices, atol=1e-4)
    np.testing.assert_allclose(together.frame_from_head, alone.frame_from_head, atol=1e-4)
    assert alone.disagreement is None
    assert together.disagreement is not None
    assert max(together.disagreement.values()) < 1e-2


def test_faces_have_the_gaze_that_the_model_tells_and_none_of_contract_1(model: Path, model_1: Path) -> None:
    for paths, told in ((model, True), (model_1, False), ([model, model], True), ([model_1, model_1], False)):
        for mirror in (False, True):
            with Reconstructor(paths, detector=Finds(BOX), mirror=mirror) as reconstructor:
                (face,) = reconstructor.faces(grey(255))
            if not told:
                assert face.gaze is None
                continue
            assert face.gaze is not None and face.gaze.shape == (2, 3)
            # The gaze of a network that also sees the mirror image look to the left averages to zero.
            expected = [0, 0, 1] if mirror else [0.5, 0, np.sqrt(3) / 2]
            np.testing.assert_allclose(face.gaze, [expected] * 2, atol=1e-5)


def test_contracts_1_and_2_make_no_ensemble(model: Path, model_1: Path) -> None:
    with pytest.raises(ModelRefused, match="equal versions of the contract"):
        Reconstructor([model, model_1], detector=Finds(BOX))


def test_photographs_of_a_set_look_where_they_look(model: Path) -> None:
    with Reconstructor(model, detector=Finds(BOX), mirror=False) as reconstructor:
        found = reconstructor.reconstruct_set([grey(100), grey(200)])
    for face, level in zip(found.faces, (100, 200), strict=True):
        assert face is not None and face.gaze is not None
        assert np.degrees(np.arcsin(face.gaze[:, 0])) == pytest.approx([30 * level / 255] * 2, abs=0.01)


def test_members_with_other_blendshapes_are_refused(
    model: Path, make_tiny_model: MakeTinyModel, tmp_path: Path
) -> None:
    other = make_tiny_model(tmp_path / "other.onnx", blendshapes=tuple(reversed(BLENDSHAPES)))
    with pytest.raises(ModelRefused, match=r"other\.onnx: its contract differs from that of .*face\.onnx; an ensemble"):
        Reconstructor([model, other])


def test_members_may_differ_in_backbone_precision_and_weights(
    model: Path, make_tiny_model: MakeTinyModel, tmp_path: Path
) -> None:
    other = make_tiny_model(
        tmp_path / "other.onnx", backbone="other", precision="fp16", terms="other", weights_sha256="ff"
    )
    with Reconstructor([model, other]) as reconstructor:
        assert reconstructor.contract.backbone == "constant"


def test_one_model_is_no_ensemble(model: Path) -> None:
    with FaceSession(model) as session, pytest.raises(UsageError, match="two or more models"):
        Ensemble([session])


def test_no_crops_are_no_faces(model: Path) -> None:
    with FaceSession(model) as one, FaceSession(model) as two:
        ensemble = Ensemble([one, two])
        assert faces_from_crops(ensemble, []) == []
        assert len(ensemble.run(np.zeros((0, 64, 64, 3), np.uint8)).shape) == 0


def test_members_that_turn_the_head_differently_meet_halfway() -> None:
    runs = [raw_of(yaw=yaw) for yaw in (0, 20, 40)]
    rotation = split_camera(average_raw(runs).crop_from_head[0])[1]
    assert rotation_angle_deg(rotation, rotation_from_euler(0, 20, 0)) == pytest.approx(0, abs=1e-4)


def test_many_photographs_are_done_together_and_few_are_held(model: Path, spots: PaintSpots) -> None:
    held: list[weakref.ref[Image]] = []
    most = 0

    def photographs() -> Iterator[Image]:
        nonlocal most
        for number in range(3 * TOGETHER + 1):
            image = spots(256, 192, [(0.25, 0.3), (0.7, 0.6)][: number % 3])
            held.append(weakref.ref(image))
            most = max(most, sum(one() is not None for one in held))
            yield image

    with Reconstructor(model) as reconstructor:
        together = reconstructor.reconstruct(photographs())
        alone = [reconstructor.faces(image) for image in photographs()]
    assert most <= TOGETHER + 1
    assert [len(faces) for faces in together] == [number % 3 for number in range(3 * TOGETHER + 1)]
    for one, other in zip(together, alone, strict=True):
        for face, same in zip(one, other, strict=True):
            np.testing.assert_allclose(face.landmarks, same.landmarks, atol=1e-3)


# Other processes


def where_it_is_sent() -> list[Callable[[Any], object]]:
    spawn = multiprocessing.get_context("spawn")
    return [pickle.dumps, copy.copy, copy.deepcopy, lambda one: spawn.Process(target=print, args=(one,)).start()]


def test_what_owns_a_session_says_that_it_stays_in_its_process(model: Path, spots: PaintSpots) -> None:
    with Reconstructor(model) as reconstructor, FaceSession(model) as session:
        detector = open_detector(model.with_name("face_detector.onnx"))
        for owner, name in (
            (reconstructor, "Reconstructor"),
            (session, "FaceSession"),
            (detector, "FaceDetector"),
        ):
            for send in where_it_is_sent():
                with pytest.raises(
                    UsageError, match=f"a {name} cannot be copied or sent to another process.*create one in"
                ):
                    send(owner)
        with pytest.raises(UsageError, match="a Reconstructor cannot be copied or sent"):
            pickle.dumps(Pipeline(reconstructor))
        assert len(reconstructor.faces(spots(256, 192, [(0.5, 0.5)]))) == 1  # it goes on


def test_what_they_give_is_sent_as_it_is(model: Path, spots: PaintSpots) -> None:
    with Reconstructor(model) as reconstructor:
        (face,) = reconstructor.faces(spots(256, 192, [(0.5, 0.5)]))
        again = pickle.loads(pickle.dumps(face))
        np.testing.assert_array_equal(again.vertices, face.vertices)
        assert pickle.loads(pickle.dumps(reconstructor.contract)) == reconstructor.contract


def test_a_set_shows_where_other_faces_are_and_takes_a_lens(model: Path) -> None:
    """Outputs that cover faces cover bystanders of a set, too."""
    with Reconstructor(model, detector=Finds([0, 0, 40, 40], BOX), mirror=False) as reconstructor:
        image_set, scenes = reconstruct_set_from_sources(
            reconstructor, lambda: iter([Frame(grey(100), "a.jpg"), Frame(grey(150), "b.jpg")]), lens=60.0
        )
        assert image_set is not None
        for scene in scenes:
            (face,) = scene.faces
            (other,) = scene.elsewhere
            assert face.camera_from_head is not None and face.camera_from_head[2, 3] > 0
            assert other[2] < 60 < face.box[2]


def test_an_unknown_average_or_confidence_is_refused(reconstructor: Reconstructor, model: Path) -> None:
    for name in ("median", "Precision"):
        with pytest.raises(UsageError, match="choose from precision, robust, mean"):
            reconstructor.reconstruct_set([grey(100)], name)  # type: ignore[arg-type]
    for value in (50, -0.1, float("nan"), "0.5"):
        with pytest.raises(UsageError, match="from 0 to 1"):
            Reconstructor(model, min_confidence=value)  # type: ignore[arg-type]

"""Frames -> face boxes: the letterbox is exact, each face has one box, YuNet's boxes are converted, wrong files are
refused."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from facerecon_rt.align import BOX_SIDE_MM, CROP_CENTRE_MM, box_from_square, square_from_camera
from facerecon_rt.errors import ModelRefused, UsageError
from facerecon_rt.faces.detect import FaceDetector, decode, open_detector
from facerecon_rt.faces.detector_contract import DETECTOR_KEY, DetectorContract
from facerecon_rt.faces.detector_runs import COARSE_INPUT, FINE_INPUT, detect_in_runs, detector_runs, letterbox, merge
from facerecon_rt.faces.yunet import YunetDetector, square_from_yunet, yunet_template
from facerecon_rt.pose import rotation_from_euler
from facerecon_rt.providers.onnx_file import read_onnx
from facerecon_rt.types import Detection, Floats, Image

MakeDetector = Callable[..., Path]
OURS = Path(__file__).parents[2] / "models" / "face_detector.onnx"
DATA = Path(os.environ.get("FACERECON_DATA", "/nowhere"))
YUNET = DATA / "detector" / "face_detection_yunet_2023mar.onnx"

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="FACERECON_DATA names no data folder")
needs_ours = pytest.mark.skipif(not OURS.is_file(), reason="models/face_detector.onnx has not been exported")


# Letterbox


@pytest.mark.parametrize(
    ("frame", "size", "padded"),
    [
        ((720, 1280), 256, (160, 256)),
        ((1280, 720), 256, (256, 160)),
        ((1080, 1920), 640, (384, 640)),
        ((480, 640), 256, (192, 256)),
        ((100, 100), 256, (256, 256)),
        ((30, 500), 100, (32, 128)),
    ],
)
def test_the_longer_side_gets_the_size_and_both_sides_become_multiples_of_32(
    frame: tuple[int, int], size: int, padded: tuple[int, int]
) -> None:
    image, _ = letterbox(np.zeros((*frame, 3), np.uint8), size)
    assert image.shape == (*padded, 3)


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (400, 300), (128, 96), (1920, 1080), (3840, 2160)])
def test_the_edges_of_the_letterboxed_picture_are_the_edges_of_the_frame(width: int, height: int) -> None:
    _, frame_from_input = letterbox(np.zeros((height, width, 3), np.uint8), 256)
    edges = np.array([-0.5, -0.5, 255.5, round(256 * height / width) - 0.5], np.float32)
    np.testing.assert_allclose(frame_from_input.box(edges), [-0.5, -0.5, width - 0.5, height - 0.5], atol=1e-3)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.6, 3.0, 5.0, 12.5])
def test_what_lies_in_the_frame_is_found_again_where_the_letterbox_says(factor: float) -> None:
    width, height = int(256 * factor), int(160 * factor)
    x, y, radius = 0.3 * width, 0.7 * height, 0.05 * width
    rows, columns = (np.exp(-((np.arange(n) - at) ** 2) / (2 * radius**2)) for n, at in ((height, y), (width, x)))
    spot = 255 * np.outer(rows, columns)
    small, frame_from_input = letterbox(np.repeat(spot[..., None], 3, 2).round().astype(np.uint8), 256)
    weights = small[..., 0].astype(np.float64)
    centre_y, centre_x = ((np.indices(weights.shape) * weights).sum((1, 2)) / weights.sum()).tolist()
    point = np.array([centre_x, centre_y, centre_x, centre_y], np.float32)
    np.testing.assert_allclose(frame_from_input.box(point)[:2], [x, y], atol=0.06 * factor + 0.02)


# Runs of the network


def test_a_large_picture_is_looked_at_twice_and_any_other_once() -> None:
    assert [one.size for one in detector_runs(1599, None)] == [256]
    assert [one.size for one in detector_runs(1600, None)] == [FINE_INPUT, COARSE_INPUT]
    assert [one.size for one in detector_runs(4000, 640)] == [640]


def test_two_looks_at_a_frame_of_1080p_cost_no_more_than_one_at_640() -> None:
    frame = np.zeros((1080, 1920, 3), np.uint8)
    pixels = [letterbox(frame, one.size)[0][..., 0].size for one in detector_runs(1920, None)]
    assert sum(pixels) <= letterbox(frame, 640)[0][..., 0].size


def seen(x: float, y: float, side: float, score: float, roll: float = 0.0) -> Detection:
    return Detection(np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32), score, roll)


def test_small_faces_are_taken_from_the_fine_look_and_close_ups_from_the_coarse_one() -> None:
    """Both runs see the same three faces of 1, 25 and 60 % of the longer side."""
    sizes = []

    def see(picture: Image) -> list[Detection]:
        sizes.append(picture.shape)
        width = picture.shape[1]
        places = ((0.9, 0.01, 0.7), (0.7, 0.25, 0.8 if width > 300 else 0.85), (0.3, 0.6, 0.9))
        return [seen(x * width, 0.2 * width, share * width, score) for x, share, score in places]

    found = detect_in_runs(np.zeros((1000, 2000, 3), np.uint8), None, see, enlarge=True)
    assert sizes == [(FINE_INPUT // 2, FINE_INPUT, 3), (COARSE_INPUT // 2, COARSE_INPUT, 3)]
    assert [d.score for d in found] == pytest.approx([0.9, 0.85, 0.7])
    for detection, x, share in zip(found, (0.3, 0.7, 0.9), (0.6, 0.25, 0.01), strict=True):
        left, top, right, bottom = detection.box
        assert (right - left, (left + right) / 2, (top + bottom) / 2) == pytest.approx(
            (share * 2000, x * 2000, 400), abs=5.0
        )


def test_a_picture_that_is_looked_at_once_gives_all_it_shows() -> None:
    found = detect_in_runs(np.zeros((300, 400, 3), np.uint8), None, lambda _: [seen(128, 96, 250, 0.9)], enlarge=True)
    np.testing.assert_allclose(found[0].box, [4, -45, 395, 346], atol=1.0)


# Decoding and merging


def test_a_cell_says_where_the_centre_lies_in_sides_how_large_the_face_is_and_how_far_turned() -> None:
    score, box = np.zeros((4, 5), np.float32), np.zeros((5, 4, 5), np.float32)
    score[1, 2] = 0.9
    box[:, 1, 2] = [0.25, -0.5, np.log(2), 0.0, -1.7]
    boxes, scores, rolls = decode(score, box, 0.5)
    # The cell's middle is (19.5, 11.5), the side 64, so the centre is (35.5, -20.5).
    np.testing.assert_allclose(boxes, [[3.5, -52.5, 67.5, 11.5]], atol=1e-5)
    np.testing.assert_allclose(scores, [0.9])
    (found,) = merge(boxes, scores, rolls)
    assert found.roll == pytest.approx(-np.pi / 2)


def test_a_file_that_does_not_tell_rolls_finds_upright_faces() -> None:
    score, box = np.full((1, 1), 0.9, np.float32), np.zeros((3, 1, 1), np.float32)
    assert [d.roll for d in merge(*decode(score, box, 0.5))] == [0.0]


def test_cells_come_best_first_and_low_ones_not_at_all() -> None:
    score = np.array([[0.2, 0.6, 0.9, 0.5]], np.float32)
    _, scores, _ = decode(score, np.zeros((5, 1, 4), np.float32), 0.5)
    np.testing.assert_allclose(scores, [0.9, 0.6, 0.5])


def upright(count: int) -> Floats:
    return np.tile(np.array([[1, 0]], np.float32), (count, 1))


def test_boxes_of_one_face_become_one_and_vote_by_score() -> None:
    boxes = np.array([[0, 0, 10, 10], [50, 0, 60, 10], [1, 0, 11, 10]], np.float32)
    found = merge(boxes, np.array([0.9, 0.8, 0.3], np.float32), upright(3))
    assert [d.score for d in found] == pytest.approx([0.9, 0.8])
    np.testing.assert_allclose(found[0].box, [0.25, 0, 10.25, 10], atol=1e-6)
    np.testing.assert_allclose(found[1].box, [50, 0, 60, 10])


def test_rolls_of_one_face_are_averaged_on_the_circle() -> None:
    angles = np.radians([170, -170])
    rolls = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    (found,) = merge(np.array([[0, 0, 10, 10]] * 2, np.float32), np.array([0.8, 0.8], np.float32), rolls)
    assert abs(np.degrees(found.roll)) == pytest.approx(180, abs=0.01)


def test_boxes_that_overlap_little_stay_apart() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10]], np.float32)  # a third of their union in common
    assert len(merge(boxes, np.array([0.9, 0.8], np.float32), upright(2))) == 2


def test_nothing_found_is_an_empty_list() -> None:
    assert merge(*decode(np.zeros((2, 2), np.float32), np.zeros((5, 2, 2), np.float32), 0.5)) == []


# The whole path, with a detector of a few hundred bytes


def test_a_face_is_found_in_frame_pixels(bright_detector: Path) -> None:
    frame = np.zeros((720, 1280, 3), np.uint8)
    frame[80:120, 200:240] = 255  # cell (2, 5) of the input: a fifth of the frame, 8 pixels wide
    with FaceDetector(bright_detector) as detector:
        (found,) = detector.detect(frame)
    # The middle of the bright square, pixel centres counted: 219.5, 99.5; 32 input pixels are 160 of the frame.
    np.testing.assert_allclose(found.box, [139.5, 19.5, 299.5, 179.5], atol=1e-3)
    assert found.score == pytest.approx(1.0)


def test_a_face_says_how_far_it_is_turned(tmp_path: Path, make_bright_detector: MakeDetector) -> None:
    path = make_bright_detector(tmp_path / "turned.onnx", box=(0, 0, 0, -0.5, 0.5))
    frame = np.zeros((256, 256, 3), np.uint8)
    frame[16:24, 16:24] = 255
    with FaceDetector(path) as detector:
        (found,) = detector.detect(frame)
    assert np.degrees(found.roll) == pytest.approx(135)


def test_a_file_of_version_1_is_still_read(tmp_path: Path, make_bright_detector: MakeDetector) -> None:
    path = make_bright_detector(tmp_path / "old.onnx", DetectorContract(0.5, version=1).to_json(), box=(0, 0, 0))
    with FaceDetector(path) as detector:
        (found,) = detector.detect(np.full((32, 32, 3), 255, np.uint8))[:1]
    assert found.roll == 0.0


def test_the_best_face_comes_first_and_the_threshold_can_be_chosen(bright_detector: Path) -> None:
    frame = np.zeros((256, 256, 3), np.uint8)
    frame[16:24, 16:24] = 200
    frame[160:168, 160:168] = 255
    frame[64:72, 200:208] = 100
    assert [round(d.score, 2) for d in FaceDetector(bright_detector).detect(frame)] == [1.0, 0.78]
    assert len(FaceDetector(bright_detector, score=0.3).detect(frame)) == 3
    assert len(FaceDetector(bright_detector, score=0.9).detect(frame)) == 1


def test_faces_of_which_the_file_is_not_sure_are_doubtful(tmp_path: Path, make_bright_detector: MakeDetector) -> None:
    path = make_bright_detector(tmp_path / "sure.onnx", DetectorContract(0.3, sure=0.7).to_json())
    frame = np.zeros((256, 256, 3), np.uint8)
    frame[16:24, 16:24] = 200
    frame[64:72, 200:208] = 100
    with FaceDetector(path) as detector:
        assert [(round(d.score, 2), d.doubtful) for d in detector.detect(frame)] == [(0.78, False), (0.39, True)]
    with FaceDetector(path, score=0.5) as detector:  # it decides which faces are found, not which are sure
        assert [d.doubtful for d in detector.detect(frame)] == [False]


def test_of_a_file_that_does_not_say_so_no_face_is_doubtful(bright_detector: Path) -> None:
    frame = np.full((32, 32, 3), 150, np.uint8)
    assert not any(d.doubtful for d in FaceDetector(bright_detector).detect(frame))


def test_open_detector_knows_our_file_by_its_metadata(bright_detector: Path) -> None:
    detector = open_detector(bright_detector, size=640)
    assert isinstance(detector, FaceDetector)
    assert (detector.size, detector.score, detector.provider) == (640, 0.5, "cpu")


@pytest.mark.parametrize(("option", "value"), [("size", 16), ("size", 10_000), ("score", 0.0), ("score", 1.5)])
def test_a_size_or_score_that_makes_no_sense_is_a_usage_error(bright_detector: Path, option: str, value: float) -> None:
    with pytest.raises(UsageError, match=option):
        open_detector(bright_detector, **{option: value})  # type: ignore[arg-type]


# Refusals


def test_a_face_model_is_no_detector(tiny_model: Path) -> None:
    with pytest.raises(ModelRefused, match=r"face_detector\.onnx"):
        open_detector(tiny_model)
    with pytest.raises(ModelRefused, match=DETECTOR_KEY):
        FaceDetector(tiny_model)
    with pytest.raises(ModelRefused, match="not a YuNet file"):
        YunetDetector(tiny_model)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"none\.onnx"):
        open_detector(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    ("contract", "reason"),
    [
        ("{", "not JSON"),
        ('{"version": 3, "kind": "centre", "score": 0.4}', "version 1 to 2"),
        ('{"version": [], "kind": "centre", "score": 0.4}', "version 1 to 2"),
        ('{"version": 1, "kind": "anchors", "score": 0.4}', "kind 'centre'"),
        ('{"version": 1, "kind": "centre"}', "lacks a field"),
        ('{"version": 1, "kind": "centre", "score": "high"}', "score 'high'"),
        ("[1]", "version 1"),
    ],
)
def test_a_contract_that_makes_no_sense_is_refused(
    tmp_path: Path, contract: str, reason: str, make_bright_detector: MakeDetector
) -> None:
    with pytest.raises(ModelRefused, match=reason):
        open_detector(make_bright_detector(tmp_path / "bad.onnx", contract))


def test_a_file_that_breaks_its_contract_is_refused(tmp_path: Path, make_bright_detector: MakeDetector) -> None:
    path = make_bright_detector(tmp_path / "bad.onnx", DetectorContract(0.5).to_json(), box_name="boxes")
    with pytest.raises(ModelRefused, match="boxes"):
        open_detector(path)
    path = make_bright_detector(tmp_path / "flat.onnx", DetectorContract(0.5).to_json(), box=(0, 0, 0))
    with pytest.raises(ModelRefused, match=r"box \('N', 3, 'h', 'w'\)"):
        open_detector(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, "is not JSON"),
        ("1" * 5000, "is not JSON"),
        ('{"version": 1, "kind": "centre", "score": 1e309}', "has score inf, not between 0 and 1"),
        (
            '{"version": 1, "kind": "centre", "score": 0.5, "precision": "bf16"}',
            "has precision bf16, not one of fp32, fp16, int8",
        ),
        ('{"version": 1, "kind": "centre", "score": 0.5, "target": "npu"}', "has target npu, not one of cpu, tensorrt"),
        ('{"version": 1, "kind": "centre", "score": 1' + "0" * 309 + "}", "has score 1000"),
        ('{"version": 1, "kind": "centre", "score": NaN}', "has score nan"),
        ('{"version": 1, "kind": "centre", "score": [' + "1," * 5000 + "1]}", "has score \\[1, 1"),
        ('{"version": 2, "kind": "centre", "score": 0.5, "sure": 1.0}', "has sure 1.0, not from 0 to below 1"),
        ('{"version": 2, "kind": "centre", "score": 0.5, "sure": "no"}', "has sure 'no'"),
        ('{"version": 2, "kind": "centre", "score": 0.5, "sure": NaN}', "has sure nan"),
        ('{"version": 1, "kind": "centre", "score": 0.5, "terms": 7}', "has a terms that is not a text of one line"),
        ('{"version": 1, "kind": "centre", "score": 0.5, "precision": "a\\nb"}', "has a precision that is not a text"),
        (
            '{"version": 1, "kind": "centre", "score": 0.5, "weights_sha256": []}',
            "has a weights_sha256 that is not a text",
        ),
    ],
)
def test_a_contract_of_other_types_is_refused_in_one_short_line(text: str, says: str) -> None:
    with pytest.raises(ModelRefused, match=says) as caught:
        DetectorContract.from_json(text)
    assert len(str(caught.value)) < 250 and "\n" not in str(caught.value)


def test_a_contract_survives_its_json() -> None:
    contract = DetectorContract(0.35, "research", "abc", sure=0.6)
    assert DetectorContract.from_json(contract.to_json()) == contract


# YuNet


def yunet_row(frame_from_head: Floats) -> Floats:
    """Return the row that YuNet would give if it saw the template through this camera."""
    points = (frame_from_head[:, :3] @ yunet_template().T).T[:, :2] + frame_from_head[:2, 3]
    return np.concatenate([[0, 0, 1, 1], points.ravel(), [0.9]]).astype(np.float32)


@pytest.mark.parametrize(("yaw", "roll"), [(0, -20), (30, -20), (-60, 150), (80, -20)])
def test_yunet_points_become_the_square_of_the_head_they_belong_to(yaw: float, roll: float) -> None:
    rotation = rotation_from_euler(pitch=5, yaw=yaw, roll=roll)
    camera = np.hstack([0.7 * rotation, [[320.0], [240.0], [0.0]]]).astype(np.float32)
    square = square_from_yunet(yunet_row(camera))
    box = box_from_square(square)
    np.testing.assert_allclose(box, box_from_square(square_from_camera(camera)), atol=0.02)
    assert box[2] - box[0] == pytest.approx(0.7 * BOX_SIDE_MM, rel=1e-3)
    assert square.roll == pytest.approx(square_from_camera(camera).roll, abs=1e-3)


def test_yunet_points_on_a_line_fall_back_to_its_box() -> None:
    points = np.array([[50, y] for y in (40, 40, 55, 70, 70)], np.float32)
    row = np.concatenate([[10, 20, 116, 116], points.ravel(), [0.9]])
    square = square_from_yunet(row)
    np.testing.assert_allclose(box_from_square(square), [18, 33, 118, 133], atol=0.01)
    assert square.roll == 0.0


def test_the_crop_centre_is_what_the_yunet_template_is_made_for() -> None:
    """The test guards the constant: in the head frame, the centre lies below the eyes and above the mouth."""
    eyes, mouth = yunet_template()[:2, 1].mean(), yunet_template()[3:, 1].mean()
    assert mouth < CROP_CENTRE_MM[1] < eyes


@needs_data
def test_yunet_is_known_by_its_structure_and_finds_a_face() -> None:
    detector = open_detector(YUNET, size=640)
    assert isinstance(detector, YunetDetector)
    image = photographs("lfpw-test", 1)[0]
    assert detector.detect(image)
    assert detector.detect(np.zeros((64, 64, 3), np.uint8)) == []


@needs_data
def test_yunet_boxes_do_not_depend_on_the_size_of_the_frame() -> None:
    image = photographs("lfpw-test", 1)[0]
    double = np.asarray(cv2.resize(image, None, fx=2, fy=2), np.uint8)
    longer = max(image.shape[:2])
    (one, *_), (two, *_) = (YunetDetector(YUNET, size=longer).detect(i) for i in (image, double))
    np.testing.assert_allclose((two.box + 0.5) / 2 - 0.5, one.box, atol=0.05 * (one.box[2] - one.box[0]))


# Our shipped detector on real pictures


def photographs(group: str, count: int) -> list[Image]:
    """Return `count` photographs that are evenly spread over a set of annotated photographs."""
    paths = sorted((DATA / "faces" / group).glob("*.jpg"))
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, count).astype(int)]
    return [np.asarray(cv2.imread(str(path)), np.uint8) for path in chosen]


def overlap(a: Floats, b: Floats) -> float:
    inner = np.maximum(0, np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).prod()
    return float(inner / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inner))


@pytest.fixture(scope="module")
def ours() -> FaceDetector:
    return FaceDetector(OURS)


@needs_data
@needs_ours
def test_our_detector_agrees_with_yunet_about_photographs(ours: FaceDetector) -> None:
    yunet = YunetDetector(YUNET, score=0.9)
    compared = 0
    for image in photographs("lfpw-test", 24):
        theirs = yunet.detect(image)
        if not theirs:
            continue
        largest = max(theirs, key=lambda d: float(d.box[2] - d.box[0]))
        assert max((overlap(d.box, largest.box) for d in ours.detect(image)), default=0.0) > 0.5
        compared += 1
    assert compared > 15


@needs_data
@needs_ours
def test_our_detector_finds_a_face_of_24_pixels_in_a_frame_of_640(ours: FaceDetector) -> None:
    found = 0
    for image in photographs("lfpw-test", 10):
        largest = max(ours.detect(image), key=lambda d: float(d.box[2] - d.box[0]))
        scale = 24 / float(largest.box[2] - largest.box[0])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        frame = np.full((480, 640, 3), 90, np.uint8)
        frame[200 : 200 + small.shape[0], 300 : 300 + small.shape[1]] = small
        wanted = np.asarray((largest.box + 0.5) * scale - 0.5 + [300, 200, 300, 200], np.float32)
        found += any(overlap(d.box, wanted) > 0.4 for d in ours.detect(frame))
    assert found >= 8


def placed(
    image: Image, found: Detection, side: float, size: tuple[int, int], at: tuple[float, float], roll: float
) -> Image:
    """Place a photograph in a grey picture of `size` (width, height), with its face `side` pixels large at `at`, turned
    by `roll`."""
    left, top, right, bottom = found.box.tolist()
    middle = np.array([left + right, top + bottom]) / 2
    matrix = cv2.getRotationMatrix2D(middle.tolist(), -roll, side / (right - left))
    shift = np.zeros((2, 3))
    shift[:, 2] = np.array(at) - middle
    matrix = np.asarray(matrix + shift)
    return np.asarray(cv2.warpAffine(image, matrix, size, borderValue=(110, 110, 110)), np.uint8)


HARD = {
    "turned by 60 degrees": (170, (560, 560), (280, 280), 60),
    "turned by 90 degrees": (170, (560, 560), (280, 280), 90),
    "turned by -135 degrees": (170, (560, 560), (280, 280), -135),
    "upside down": (170, (560, 560), (280, 280), 180),
    "half outside": (200, (320, 480), (0, 240), 0),
    "top outside": (300, (640, 480), (320, 20), 0),
    "bottom outside": (300, (640, 480), (320, 460), 0),
    "close-up in a large picture": (1300, (1600, 1600), (800, 800), 0),
    "close-up in a wide picture": (1000, (1920, 1200), (960, 600), 0),
    "20 pixels": (20, (640, 480), (320, 240), 0),
    "60 pixels in a large picture": (60, (1920, 1080), (1500, 700), 0),
}
"""Side, size of the picture, where in it, and degrees clockwise."""


@needs_data
@needs_ours
@pytest.mark.parametrize("how", HARD)
def test_our_detector_finds_faces_that_are_hard_to_find(ours: FaceDetector, how: str) -> None:
    side, size, at, roll = HARD[how]
    hits = 0
    for image in photographs("lfpw-test", 16):
        face = ours.detect(image)[0]
        found = ours.detect(placed(image, face, side, size, at, roll))
        half = side / 2
        wanted = np.array([at[0] - half, at[1] - half, at[0] + half, at[1] + half], np.float32)
        turns = [abs(math.remainder(d.roll - face.roll - math.radians(roll), 2 * math.pi)) for d in found]
        hits += any(overlap(d.box, wanted) > 0.4 and turn < 0.5 for d, turn in zip(found, turns, strict=True))
    assert hits >= (13 if how == "20 pixels" else 14)


@needs_data
@needs_ours
def test_our_detector_sees_no_faces_in_plain_frames(ours: FaceDetector) -> None:
    for level in (0, 127, 255):
        assert ours.detect(np.full((480, 640, 3), level, np.uint8)) == []


@needs_data
@needs_ours
def test_our_detector_follows_a_mirrored_frame(ours: FaceDetector) -> None:
    image = photographs("lfpw-test", 3)[1]
    best: list[Detection] = [ours.detect(np.ascontiguousarray(i))[0] for i in (image, image[:, ::-1])]
    mirrored = best[1].box[[2, 1, 0, 3]] * np.array([-1, 1, -1, 1]) + np.array([1, 0, 1, 0]) * (image.shape[1] - 1)
    assert overlap(best[0].box, np.asarray(mirrored, np.float32)) > 0.75


@needs_ours
def test_our_shipped_detector_is_small_and_says_what_it_is() -> None:
    model = read_onnx(OURS)
    contract = DetectorContract.from_json(model.metadata[DETECTOR_KEY])
    assert contract.terms
    assert len(contract.weights_sha256) == 64
    assert len(model.data) < 2_000_000

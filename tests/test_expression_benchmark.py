"""benchmarks/expression.py: its figures on numbers worked out by hand, and its labels."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.sinks.record import arkit_blendshapes
from facerecon_training.weak_labels import DEVELOPMENT_SHARE, read_weak_labels

ROOT = Path(__file__).parents[1]
APPLE = sorted(arkit_blendshapes(np.zeros(53), BLENDSHAPES))


@pytest.fixture(scope="module")
def expression() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("expression")


@pytest.fixture
def beside(expression: ModuleType) -> ModuleType:
    return sys.modules["beside_mediapipe"]


def weights(**given: float) -> dict[str, float]:
    return dict.fromkeys(APPLE, 0.0) | given


def image(file: str, **labels: str) -> dict[str, object]:
    return {"folder": "somewhere", "file": file, "labels": labels}


def test_an_area_is_the_share_of_pairs_in_order_with_draws_half(expression: ModuleType) -> None:
    assert expression.auc(np.array([0.5, 0.9]), np.array([0.1, 0.2])) == 1
    assert expression.auc(np.array([0.1]), np.array([0.5, 0.9])) == 0
    # 0.5 beats one, draws with one, loses to one; 0.9 beats all three.
    assert expression.auc(np.array([0.5, 0.9]), np.array([0.1, 0.5, 0.7])) == pytest.approx((1 + 0.5 + 3) / 6)


def test_a_label_is_told_by_its_weights_of_pictures_that_are_sure(expression: ModuleType) -> None:
    found = {
        "a": weights(mouthSmileLeft=0.8, mouthSmileRight=0.6),
        "b": weights(mouthSmileLeft=0.2),
        "c": weights(mouthSmileLeft=1.0, mouthSmileRight=1.0),
    }
    images = [
        image("a", smile="present"),
        image("b", smile="absent"),
        image("c", smile="unsure"),
        image("d", smile="present"),
    ]
    rows = expression.scores(found, images)
    assert list(rows) == ["smile"], "nothing was said of the others"
    assert rows["smile"] == pytest.approx(
        {"auc": 1.0, "present": 1, "absent": 1, "mean_present": 0.7, "mean_absent": 0.1}
    )


def test_sides_are_the_subjects(expression: ModuleType) -> None:
    """The eyes look to the subject's left: the left eye outwards, the right eye inwards."""
    left = weights(eyeLookOutLeft=0.6, eyeLookInRight=0.4)
    assert expression.READ["gazeLeft"](left) == pytest.approx(0.5)
    assert expression.READ["gazeRight"](left) == pytest.approx(-0.5)
    assert expression.READ["gazeUp"](weights(eyeLookUpLeft=0.2, eyeLookUpRight=0.4)) == pytest.approx(0.3)
    assert expression.READ["gazeDown"](weights(eyeLookUpLeft=0.2, eyeLookUpRight=0.4)) == pytest.approx(-0.3)
    assert expression.READ["mouthRight"](weights(mouthRight=0.7, mouthLeft=0.1)) == pytest.approx(0.6)
    assert expression.READ["blinkLeft"](weights(eyeBlinkLeft=0.7)) == 0.7
    assert expression.READ["browUp"](weights(browOuterUpRight=0.7, browInnerUp=0.2)) == 0.7


def test_winks_count_by_their_own_side(expression: ModuleType) -> None:
    found = {
        "left": weights(eyeBlinkLeft=0.9, eyeBlinkRight=0.2),
        "right": weights(eyeBlinkLeft=0.1, eyeBlinkRight=0.4),
        "wrong": weights(eyeBlinkLeft=0.5, eyeBlinkRight=0.3),
        "both": weights(eyeBlinkLeft=0.9, eyeBlinkRight=0.9),
        "unsure": weights(eyeBlinkLeft=0.9),
    }
    images = [
        image("left", blinkLeft="present", blinkRight="absent"),
        image("right", blinkLeft="absent", blinkRight="present"),
        image("wrong", blinkLeft="absent", blinkRight="present"),
        image("both", blinkLeft="present", blinkRight="present"),
        image("unsure", blinkLeft="present", blinkRight="unsure"),
        image("not found", blinkLeft="present", blinkRight="absent"),
    ]
    assert expression.wink_differences(found, images) == pytest.approx([0.7, 0.3, -0.2])


def test_the_mean_is_over_labels_with_enough_positives(expression: ModuleType) -> None:
    def row(auc: float, present: int) -> dict[str, float]:
        return {"auc": auc, "present": present, "absent": 20, "mean_present": 0.5, "mean_absent": 0.1}

    rows = {"smile": row(0.9, 6), "frown": row(0.7, 8), "squint": row(0.1, expression.LEAST_POSITIVES - 1)}
    summary = expression.summary(rows)
    assert summary == {"labels": 2, "mean": pytest.approx(0.8), "least": 0.7, "label": "frown"}
    column = {"found": 30, "labels": rows, "auc": summary, "winks": [0.5, -0.1]}
    column |= {"auc_shared": {"labels": 0}, "auc_strangers": summary}
    other = column | {"labels": {"smile": row(0.8, 7), "frown": row(1.0, 3)}, "winks": []}
    report = {
        "command": "python this.py",
        "models": "`face.onnx`",
        "detector": "face_detector.onnx",
        "pictures": 31,
        "auc": {"face.onnx": column, "another": other},
        "figures": {"The mesh": {"faces": 351.0, "lip_gap": 0.01234}},
    }
    text = expression.markdown(report)
    assert "| smile | 6 / 20 | 0.90 | 0.80 | 0.50 / 0.10 |" in text
    assert "| frown | 8 / 20 | 0.70 | – | 0.50 / 0.10 |" in text, "three positives are too few"
    assert "| squint | 5 / 20 | – | – | 0.50 / 0.10 |" in text
    assert "| **mean** | | 0.800 of 2 | 0.800 of 2 | |" in text
    assert "| **mean, shared** | | – | – | |" in text
    assert "| **least** | | 0.70 (frown) | 0.70 (frown) | |" in text
    assert "| 0.20; 1 of 2 | – | |" in text
    assert "| pictures that count | 31 | 30 | 30 | |" in text
    assert "| faces | 351 |" in text and "| lip_gap | 0.0123 |" in text


def test_too_few_positives_of_every_label_are_no_mean(expression: ModuleType) -> None:
    of_image = image("a", smile="present")
    column = expression.of_model(
        {"a": weights(mouthSmileLeft=0.5), "b": weights()}, [of_image, image("b", smile="absent")], {}
    )
    assert column["auc"] == {"labels": 0}
    report = {
        "command": "", "models": "", "detector": "", "pictures": 2, "auc": {"face.onnx": column},
        "figures": {"The mesh": {"faces": 2.0, "lip_gap": float("nan")}},
    }  # fmt: skip
    text = expression.markdown(report)
    assert "| **mean** | | – | |" in text and "| **least, strangers** | | – | |" in text
    assert "| lip_gap | nan |" in text


def test_every_label_that_is_read_is_given_to_every_picture(expression: ModuleType) -> None:
    images = json.loads(expression.LABELS.read_text())["images"]
    files = [one["file"] for one in images]
    assert len(set(files)) == len(files) > 300, "weights are found again by the file's name"
    for one in images:
        assert set(one["labels"]) >= set(expression.READ), one["file"]
        assert set(one["labels"].values()) <= {"present", "absent", "unsure"}
    # Each label is read from weights that exist.
    for label, read in expression.READ.items():
        assert read(weights()) == 0, label
        assert any(read(weights(**{name: 1.0})) > 0 for name in APPLE), label


def test_labelled_people_of_the_expressive_set_are_never_trained_on(expression: ModuleType, data_folder: Path) -> None:
    path = data_folder / "pseudo" / "expressive.npz"
    if not path.is_file():
        pytest.skip("no pseudo/expressive.npz in FACERECON_DATA")
    weak = read_weak_labels(path)
    images = json.loads(expression.LABELS.read_text())["images"]
    labelled = [one["file"] for one in images if one["folder"] == "pseudo/expressive"]
    assert labelled
    assert {int(weak.person[weak.files[name]]) % DEVELOPMENT_SHARE for name in labelled} == {0}
    found = expression.of_weak_labels(path)
    rows = expression.scores(found, [one for one in images if one["file"] in found])
    assert rows["smile"]["auc"] > 0.9


def test_pictures_are_read_through_the_runtime(expression: ModuleType, tmp_path: Path) -> None:
    """The pictures are a frame of the sample clip, and a picture without a face."""
    reader = cv2.VideoCapture(str(ROOT / "tests" / "data" / "talking_head.mp4"))
    seen, frame = reader.read()
    assert seen
    (tmp_path / "faces").mkdir()
    cv2.imwrite(str(tmp_path / "faces" / "head.png"), frame)
    cv2.imwrite(str(tmp_path / "faces" / "nobody.png"), np.zeros((100, 100, 3), np.uint8))
    images: list[dict[str, object]] = [
        {"folder": "faces", "file": name, "labels": {}} for name in ("head.png", "nobody.png")
    ]
    found = expression.through_runtime(ROOT / "models" / "face.onnx", None, tmp_path, images)
    assert list(found) == ["head.png"]
    assert sorted(found["head.png"]) == APPLE


def test_irises_lie_between_the_corners_of_both_eyes(beside: ModuleType) -> None:
    mesh = np.zeros((478, 2), np.float32)
    # A face seen from the front: the subject's left eye is on the picture's right, and y points down.
    for place, (outer, inner, iris) in zip((60.0, 20.0), beside.EYES, strict=True):
        away = 10.0 if place == 60 else -10.0
        mesh[outer], mesh[inner], mesh[iris] = (place + away, 50), (place - away, 50), (place + 4, 48)
    eyes = list(beside.EYES)
    assert beside._iris_offset(mesh[eyes]) == pytest.approx((0.2, 0.1))
    turn = np.array([[0.8, -0.6], [0.6, 0.8]], np.float32)  # the gaze of a head that leans is the same
    assert beside._iris_offset((mesh @ turn.T)[eyes]) == pytest.approx((0.2, 0.1), abs=1e-5)


def test_a_gaze_has_angles(beside: ModuleType) -> None:
    yaw, pitch = beside._angles(np.array([np.sin(0.2) * np.cos(0.1), np.sin(0.1), np.cos(0.2) * np.cos(0.1)]))
    assert (yaw, pitch) == pytest.approx((0.2, 0.1))


def test_openings_are_in_distances_of_the_eyes(beside: ModuleType) -> None:
    points = np.array([[0, 0], [0, 3], [-5, 10], [5, 10]], np.float32)
    assert beside._ratio(points, (0, 1), (2, 3)) == pytest.approx(0.3)

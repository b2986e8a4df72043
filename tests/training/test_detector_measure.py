"""Detections against labels: what counts as found, and what two detectors agree on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from facerecon_rt.types import Detection, Floats, Image
from facerecon_training.detector.measure import (
    agreement,
    best_hit,
    crowd_agreement,
    measure_found,
    share_with_a_face,
    turned,
)

BLANK: Image = np.zeros((4, 4, 3), np.uint8)


def seen(x: float, y: float, side: float, score: float = 0.9, roll: float = 0.0) -> Detection:
    return Detection(np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32), score, roll)


def label(x: float, y: float, side: float, roll: float = 0.0) -> Floats:
    return np.array([x, y, side, 1, roll], np.float32)


class Scripted:
    """A detector that gives one prepared answer after the other."""

    def __init__(self, *answers: list[Detection]) -> None:
        self.answers = list(answers)

    def detect(self, image: Image) -> list[Detection]:
        return self.answers.pop(0)


def test_a_hit_is_near_enough_and_of_about_the_size() -> None:
    face = label(100, 100, 50)
    assert best_hit([seen(110, 100, 50)], face) == pytest.approx((0.2, 0.0, 0.0), abs=1e-5)
    assert best_hit([seen(116, 100, 50), seen(100, 100, 75)], face) is None
    assert best_hit([], face) is None


def test_the_roll_error_goes_the_short_way_round() -> None:
    hit = best_hit([seen(100, 100, 50, roll=math.radians(170))], label(100, 100, 50, math.radians(-170)))
    assert hit is not None
    assert hit[2] == pytest.approx(20, abs=1e-3)


def test_a_turned_picture_takes_its_label_along() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[10, 50] = 255
    for quarters, x, y in ((1, 29, 50), (2, 9, 29), (3, 10, 9)):
        ((image, moved),) = turned([(picture, label(50, 10, 8))], quarters)
        assert image[y, x].tolist() == [255] * 3
        np.testing.assert_allclose(moved, [x, y, 8, 1, quarters * math.pi / 2], atol=1e-5)


def test_recall_counts_pictures_and_errors_only_what_was_found() -> None:
    detector = Scripted([seen(10, 10, 20)], [], [seen(14, 10, 20), seen(90, 90, 20)], [seen(60, 10, 20)])
    found = measure_found(detector, [(BLANK, label(10, 10, 20))] * 4)
    assert (found.pictures, found.recall) == (4, 0.5)
    assert found.centre_error == pytest.approx(0.1)
    assert found.scale_error == pytest.approx(0.0, abs=1e-6)


def test_one_box_agrees_with_one_other_at_most() -> None:
    assert agreement([seen(5, 5, 10)], [seen(5, 5, 10), seen(6, 5, 10)]) == 1
    assert agreement([], [seen(5, 5, 10)]) == 0


def test_a_crowd_is_counted_for_both_detectors() -> None:
    ours = Scripted([seen(5, 5, 10)], [seen(5, 5, 10), seen(50, 5, 10)])
    theirs = Scripted([seen(5, 5, 10), seen(80, 80, 10)], [seen(50, 5, 10)])
    assert crowd_agreement(ours, theirs, [BLANK, BLANK]) == (3, 3, 2)


def test_pictures_with_a_face_are_counted() -> None:
    assert share_with_a_face(Scripted([seen(5, 5, 10)], []), [BLANK, BLANK]) == (1, 2)

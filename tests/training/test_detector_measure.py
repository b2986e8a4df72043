"""Detections against labels: what counts as found, and what two detectors agree on."""

from __future__ import annotations

import numpy as np
import pytest
from facerecon_rt.types import Detection, Floats, Image
from facerecon_training.detector_measure import (
    agreement,
    best_hit,
    crowd_agreement,
    intersection_over_union,
    measure_found,
    share_with_a_face,
)

BLANK: Image = np.zeros((4, 4, 3), np.uint8)


def seen(x: float, y: float, side: float, score: float = 0.9) -> Detection:
    return Detection(np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32), score)


def label(x: float, y: float, side: float) -> Floats:
    return np.array([x, y, side, 1], np.float32)


class Scripted:
    """A detector that gives one prepared answer after the other."""

    def __init__(self, *answers: list[Detection]) -> None:
        self.answers = list(answers)

    def detect(self, image: Image) -> list[Detection]:
        return self.answers.pop(0)


def test_a_hit_is_near_enough_and_of_about_the_size() -> None:
    face = label(100, 100, 50)
    assert best_hit([seen(110, 100, 50)], face) == pytest.approx((0.2, 0.0), abs=1e-6)
    assert best_hit([seen(116, 100, 50), seen(100, 100, 75)], face) is None
    assert best_hit([], face) is None


def test_recall_counts_pictures_and_errors_only_what_was_found() -> None:
    detector = Scripted([seen(10, 10, 20)], [], [seen(14, 10, 20), seen(90, 90, 20)], [seen(60, 10, 20)])
    found = measure_found(detector, [(BLANK, label(10, 10, 20))] * 4)
    assert (found.pictures, found.recall) == (4, 0.5)
    assert found.centre_error == pytest.approx(0.1)
    assert found.scale_error == pytest.approx(0.0, abs=1e-6)


def test_overlap_is_the_common_part_of_the_union() -> None:
    assert intersection_over_union(seen(5, 5, 10).box, seen(10, 5, 10).box) == pytest.approx(1 / 3)
    assert intersection_over_union(seen(5, 5, 10).box, seen(50, 5, 10).box) == 0.0


def test_one_box_agrees_with_one_other_at_most() -> None:
    assert agreement([seen(5, 5, 10)], [seen(5, 5, 10), seen(6, 5, 10)]) == 1
    assert agreement([], [seen(5, 5, 10)]) == 0


def test_a_crowd_is_counted_for_both_detectors() -> None:
    ours = Scripted([seen(5, 5, 10)], [seen(5, 5, 10), seen(50, 5, 10)])
    theirs = Scripted([seen(5, 5, 10), seen(80, 80, 10)], [seen(50, 5, 10)])
    assert crowd_agreement(ours, theirs, [BLANK, BLANK]) == (3, 3, 2)


def test_pictures_with_a_face_are_counted() -> None:
    assert share_with_a_face(Scripted([seen(5, 5, 10)], []), [BLANK, BLANK]) == (1, 2)

"""Differences worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from facerecon_export.verify import FP32_TOLERANCES, UNITS, compare, table
from facerecon_rt.pose import rotation_from_euler
from facerecon_rt.session import RawFaces


def answers(count: int = 2) -> RawFaces:
    camera = np.hstack([0.5 * np.diag([1.0, -1.0, -1.0]), np.zeros((3, 1))]).astype(np.float32)
    return RawFaces(
        shape=np.zeros((count, 4, 3), np.float32),
        vertices=np.zeros((count, 4, 3), np.float32),
        expression=np.zeros((count, 53), np.float32),
        crop_from_head=np.stack([camera] * count),
        landmarks=np.zeros((count, 68, 3), np.float32),
        confidence=np.zeros(count, np.float32),
    )


def test_equal_answers_differ_by_nothing() -> None:
    rows = compare([answers()], [answers()])
    assert [row.name for row in rows] == list(UNITS)
    assert all(row.largest == 0 and row.mean == 0 and row.passed for row in rows)


def test_points_differ_by_their_distance() -> None:
    shape = np.zeros((2, 4, 3), np.float32)
    shape[1, 2] = [0.003, 0.004, 0.0]
    rows = {row.name: row for row in compare([answers()], [dataclasses.replace(answers(), shape=shape)])}
    assert rows["shape"].largest == pytest.approx(0.005)
    assert rows["shape"].mean == pytest.approx(0.005 / 8)
    assert rows["shape"].passed
    assert rows["vertices"].largest == 0


def test_cameras_differ_by_the_angle_between_them() -> None:
    camera = answers(1).crop_from_head.copy()
    camera[0, :, :3] = 0.7 * rotation_from_euler(0, 2, 0)
    rows = {row.name: row for row in compare([answers(1)], [dataclasses.replace(answers(1), crop_from_head=camera)])}
    assert rows["rotation"].largest == pytest.approx(2.0, abs=1e-4)
    assert not rows["rotation"].passed


def test_the_largest_of_all_pairs_counts() -> None:
    other = dataclasses.replace(answers(), confidence=np.array([0.0, 2e-4], np.float32))
    rows = {row.name: row for row in compare([answers(), answers()], [answers(), other])}
    assert rows["confidence"].largest == pytest.approx(2e-4)
    assert rows["confidence"].mean == pytest.approx(0.5e-4)
    assert not rows["confidence"].passed
    assert "too far" in table(list(rows.values())).splitlines()[-1]


@pytest.mark.parametrize("name", ["vertices", "expression", "crop_from_head", "confidence"])
def test_a_value_that_is_no_number_never_passes(name: str) -> None:
    spoilt = getattr(answers(), name).copy()
    spoilt.flat[-1] = np.nan
    rows = compare([answers()], [dataclasses.replace(answers(), **{name: spoilt})])
    assert [row.passed for row in rows].count(False) == 1


def test_every_row_has_a_tolerance() -> None:
    assert set(FP32_TOLERANCES) == set(UNITS)

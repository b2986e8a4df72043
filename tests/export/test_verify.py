"""Differences that were worked out by hand."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from facerecon_export.verify import GATES, UNITS, Gate, compare, self_test, table
from facerecon_rt.networks.session import FaceSession, RawFaces
from facerecon_rt.pose import rotation_from_euler

FP32 = GATES["fp32"]


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
    rows = compare(answers(), [answers()], FP32)
    of_gaze = {"gaze", "identity", "identity_variance"}
    assert [row.name for row in rows] == [name for name in UNITS if name not in {"NME", *of_gaze}]
    assert all(row.largest == row.p99 == row.mean == 0 and row.passed for row in rows)
    with_gaze = looking(0.0)
    rows = compare(with_gaze, [with_gaze], FP32)
    assert [row.name for row in rows] == [name for name in UNITS if name != "NME"]
    assert all(row.largest == row.p99 == row.mean == 0 and row.passed for row in rows)


def looking(yaw: float) -> RawFaces:
    """Return faces whose left eyes look `yaw` degrees to the side, and whose right eyes look straight ahead. The codes
    have variance 0.5."""
    gaze = np.zeros((2, 2, 3), np.float32)
    gaze[:, 0] = [np.sin(np.radians(yaw)), 0, np.cos(np.radians(yaw))]
    gaze[:, 1] = [0, 0, 1]
    code = np.zeros((2, 4), np.float32)
    return dataclasses.replace(answers(), gaze=gaze, identity=code, identity_variance=code + 0.5)


@pytest.mark.parametrize("angle", [0.005, 2.0])
def test_gazes_differ_by_the_angle_between_them_however_small(angle: float) -> None:
    rows = {row.name: row for row in compare(looking(10.0), [looking(10.0 + angle)], FP32)}
    assert rows["gaze"].unit == "deg"
    assert rows["gaze"].largest == pytest.approx(angle, rel=0.01)
    assert rows["gaze"].mean == pytest.approx(angle / 2, rel=0.01)
    assert rows["gaze"].passed == (angle < 0.01)


def test_codes_and_their_variances_differ_by_their_numbers() -> None:
    other = looking(0.0)
    assert other.identity is not None and other.identity_variance is not None
    other.identity[1, 2] = -0.004
    other.identity_variance[0, 0] = 0.5 + 2e-4
    rows = {row.name: row for row in compare(looking(0.0), [other], FP32)}
    assert rows["identity"].largest == pytest.approx(0.004)
    assert rows["identity"].mean == pytest.approx(0.004 / 8)
    assert not rows["identity"].passed
    assert rows["identity_variance"].largest == pytest.approx(2e-4, rel=1e-3)


def test_points_differ_by_their_distance_and_crops_by_its_root_mean_square() -> None:
    shape = np.zeros((2, 4, 3), np.float32)
    shape[1, 2] = [0.003, 0.004, 0.0]
    rows = {row.name: row for row in compare(answers(), [dataclasses.replace(answers(), shape=shape)], FP32)}
    assert rows["shape"].largest == pytest.approx(0.005)
    assert rows["shape"].mean == pytest.approx(
        (0 + 0.005 / 2) / 2
    )  # root of 0.005^2 / 4, and a crop without a difference
    assert rows["shape"].p99 == pytest.approx(0.99 * 0.0025)
    assert rows["shape"].passed
    assert rows["vertices"].largest == 0


def test_cameras_differ_by_the_angle_between_them() -> None:
    camera = answers(1).crop_from_head.copy()
    camera[0, :, :3] = 0.7 * rotation_from_euler(0, 2, 0)
    turned = dataclasses.replace(answers(1), crop_from_head=camera)
    rows = {row.name: row for row in compare(answers(1), [turned], FP32)}
    assert rows["rotation"].largest == pytest.approx(2.0, abs=1e-4)
    assert not rows["rotation"].passed


def test_every_candidate_counts() -> None:
    other = dataclasses.replace(answers(), confidence=np.array([0.0, 2e-4], np.float32))
    rows = {row.name: row for row in compare(answers(), [answers(), other], FP32)}
    assert rows["confidence"].largest == pytest.approx(2e-4)
    assert rows["confidence"].mean == pytest.approx(0.5e-4)
    assert not rows["confidence"].passed
    assert "differs too much" in table(list(rows.values())).splitlines()[-1]


def test_a_gate_may_count_the_mean() -> None:
    other = dataclasses.replace(answers(), confidence=np.array([0.0, 2e-4], np.float32))
    by_mean = Gate("mean", FP32.allowed)
    assert {row.name: row for row in compare(answers(), [other], by_mean)}["confidence"].passed


def test_nme_is_how_much_worse_the_landmarks_of_annotated_crops_get() -> None:
    truth = np.zeros((2, 68, 2), np.float32)
    truth[:, 8, 1] = 50.0
    truth[:, 45, 0] = 50.0  # outer eye corners 50 pixels apart
    truth[0, :17] = np.nan  # a jaw is not always annotated
    truth[1] = np.nan
    reference, worse = answers(), answers()
    for faces, off in ((reference, 1.0), (worse, 1.5)):
        faces.landmarks[:, :, :2] = np.nan_to_num(truth)
        faces.landmarks[:, :, 1] += off
    (row,) = (row for row in compare(reference, [worse], GATES["int8"], truth) if row.name == "NME")
    assert row.mean == row.p99 == row.largest == pytest.approx(100 * 0.5 / 50)
    assert not row.passed
    (row,) = (row for row in compare(worse, [reference], GATES["int8"], truth) if row.name == "NME")
    assert row.mean == pytest.approx(-1.0)
    assert row.passed


@pytest.mark.parametrize("name", ["vertices", "expression", "crop_from_head", "confidence"])
@pytest.mark.parametrize("gate", ["fp32", "int8"])
def test_a_value_that_is_no_number_never_passes(name: str, gate: str) -> None:
    spoilt = getattr(answers(), name).copy()
    spoilt.flat[-1] = np.nan
    rows = compare(answers(), [dataclasses.replace(answers(), **{name: spoilt})], GATES[gate])
    assert [row.passed for row in rows].count(False) == 1


def test_every_row_has_a_tolerance_in_every_precision() -> None:
    assert all(set(gate.allowed) == set(UNITS) for gate in GATES.values())


@pytest.mark.parametrize(("wrong_mm", "passes"), [(0.04, True), (0.06, False), (np.nan, False)])
def test_the_self_test_is_the_larger_of_both_errors(wrong_mm: float, passes: bool) -> None:
    vertices = np.zeros((1, 4032, 3), np.float32)
    vertices[..., 1] = wrong_mm
    raw = dataclasses.replace(answers(1), vertices=vertices)
    contract = SimpleNamespace(input_size=64, batch=0, precision="fp32", golden=(0.0,) * 340)
    row = self_test(cast(FaceSession, SimpleNamespace(contract=contract, run=lambda images, names: raw)))
    np.testing.assert_allclose(row.mean, wrong_mm)
    assert row.passed == passes

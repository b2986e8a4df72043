"""Reasons why a reconstruction may be less exact."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from facerecon_rt.faces.doubts import doubts, sharpness, turned_deg

from .conftest import MakeFace

PICTURE = np.random.default_rng(0).integers(0, 255, (200, 300, 3)).astype(np.uint8)


def test_a_good_look_leaves_no_doubt(ball_face: MakeFace) -> None:
    assert doubts(ball_face(150.0, 100.0, scale=0.6), PICTURE) == []


@pytest.mark.parametrize(
    ("x", "scale", "yaw", "why"),
    [
        (150.0, 0.2, 0.0, "small"),
        (5.0, 0.6, 0.0, "cut off"),
        (150.0, 0.6, 65.0, "turned"),
        (150.0, 0.6, -65.0, "turned"),
    ],
)
def test_each_reason_is_named(ball_face: MakeFace, x: float, scale: float, yaw: float, why: str) -> None:
    assert doubts(ball_face(x, 100.0, scale=scale, yaw=yaw), PICTURE) == [why]


def test_a_blurred_face_is_named(ball_face: MakeFace) -> None:
    face = ball_face(150.0, 100.0, scale=0.6)
    blurred = cv2.GaussianBlur(PICTURE, (0, 0), 4).astype(np.uint8)
    assert sharpness(face, blurred) < sharpness(face, PICTURE)
    assert doubts(face, blurred) == ["blurred"]


def test_a_covered_face_is_named(ball_face: MakeFace) -> None:
    face = ball_face(150.0, 100.0, scale=0.6)
    assert doubts(replace(face, confidence=0.7), PICTURE) == ["covered"]
    assert doubts(replace(ball_face(150.0, 100.0, scale=0.2), confidence=0.7), PICTURE) == ["small"]
    nearer, farther = ball_face(100.0, 100.0, scale=0.7), ball_face(100.0, 100.0, scale=0.5)
    assert doubts(face, PICTURE, [face, nearer]) == ["covered"]
    assert doubts(face, PICTURE, [face, farther]) == []
    assert doubts(face, PICTURE, [face, ball_face(20.0, 100.0, scale=0.7)]) == []


def test_the_angle_is_that_between_face_and_viewer(ball_face: MakeFace) -> None:
    for yaw in (0.0, 30.0, -70.0):
        assert turned_deg(ball_face(0.0, 0.0, yaw=yaw)) == pytest.approx(abs(yaw), abs=0.1)

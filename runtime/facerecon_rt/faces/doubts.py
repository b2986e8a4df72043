"""A face and its frame -> reasons why its reconstruction may be less exact, in the words of the record."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import cv2

from ..align import align, square_from_camera
from ..pose import viewer_from_head
from ..types import Face, Image

SMALL_PIXELS = 48.0
"""Minimum side of the face box in pixels. A face below it is small."""
TURNED_DEG = 50.0
"""Maximum angle in degrees between the direction of the face and the viewer."""
CUT_OFF = 0.1
"""Maximum share of the face box outside the frame."""
CROP = 128
BLURRED = 6.0
"""Minimum standard deviation of the Laplacian of the aligned face, in grey levels. Of the photographs of lfpw-test 0.4
% are below it; blurred with a sigma of 1.5 and 2 pixels of the aligned crop, 57 and 89 % are."""


BEHIND = 0.15
"""Maximum share of the face box that lies under a nearer face's box."""
COVERED = 0.8
"""Minimum confidence of a face that is large, sharp, whole and frontal. Below it the face must be covered. Of 100
photographs of lfpw-test 2 % are below it; with the eyes under a plain patch 78 %, one side 62 %, the mouth 18 %."""


def doubts(face: Face, image: Image, others: Iterable[Face] = ()) -> list[str]:
    """Return which of "small", "cut off", "turned", "blurred" and "covered" apply. `others`: faces in the picture,
    which may include this face."""
    found = []
    left, top, right, bottom = face.box.tolist()
    height, width = image.shape[:2]
    inside = max(0.0, min(right, width) - max(left, 0.0)) * max(0.0, min(bottom, height) - max(top, 0.0))
    if right - left < SMALL_PIXELS:
        found.append("small")
    if inside < (1 - CUT_OFF) * (right - left) * (bottom - top):
        found.append("cut off")
    if turned_deg(face) > TURNED_DEG:
        found.append("turned")
    if sharpness(face, image) < BLURRED:
        found.append("blurred")
    if any(under(face, other) > BEHIND for other in others) or (not found and face.confidence < COVERED):
        found.append("covered")
    return found


def under(face: Face, other: Face) -> float:
    """Return the share of the face box under the other face's box, if that face is larger and therefore nearer; else
    0."""
    (left, top, right, bottom), (other_left, other_top, other_right, other_bottom) = face.box, other.box
    if other_right - other_left <= right - left:
        return 0.0
    width, height = min(right, other_right) - max(left, other_left), min(bottom, other_bottom) - max(top, other_top)
    return float(max(0.0, width) * max(0.0, height) / ((right - left) * (bottom - top)))


def turned_deg(face: Face) -> float:
    """Return the angle in degrees between the face's +z and the direction to the viewer."""
    towards_viewer = float(viewer_from_head(face.frame_from_head)[2, 2])
    return math.degrees(math.acos(max(min(towards_viewer, 1.0), -1.0)))


def sharpness(face: Face, image: Image) -> float:
    """Return the standard deviation of the Laplacian in the middle of the aligned face, in grey levels."""
    square = square_from_camera(face.frame_from_head)
    # The middle alone, at the scale of the whole aligned face.
    middle = align(image, replace(square, side=square.side / 2), CROP // 2).image
    laplacian = cv2.Laplacian(cv2.cvtColor(middle, cv2.COLOR_BGR2GRAY), cv2.CV_32F)
    return float(cv2.meanStdDev(laplacian)[1][0, 0])

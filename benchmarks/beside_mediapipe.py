"""Expressive faces of people not trained on -> openings, gaze and places of irises of our mesh beside MediaPipe's mesh.

A part of `expression.py`. MediaPipe's points are those of the weak labels in DATA.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from facerecon_rt import Face, Reconstructor, read_image
from facerecon_rt.faces.reconstruct import largest
from facerecon_rt.pose import euler_from_camera
from facerecon_rt.sinks.eyes import CORNERS, EYE_RADIUS_MM, eye_centre
from facerecon_rt.template import load_template
from facerecon_rt.types import Floats
from facerecon_training.weak_labels import DEVELOPMENT_SHARE

LIPS, EYES = (13, 14), ((263, 362, 473), (33, 133, 468))
"""MediaPipe's mesh points: middle of the inner lips, and outer corner, inner corner and iris of both eyes."""
OUR_LIPS, OUR_CORNERS = (62, 66), (36, 45)
SHUT, OPEN = 0.01, 0.04
"""Distances of the inner lips, in distances of the outer eye corners, at which a mouth is surely shut or open."""
FRONTAL_DEG = 20.0
OPEN_EYES = 0.3
"""The eyeBlink score below which MediaPipe sees the iris."""


def beside_mediapipe(model: Path, detector: Path | None, data: Path) -> dict[str, float]:
    """Return figures of our mesh and gaze beside MediaPipe's mesh, on expressive faces of people not trained on.

    - `lip_gap`: median distance of our inner lips where MediaPipe's are shut, in distances of the outer eye corners
    - `opening_gain`: slope of our opening over MediaPipe's, through the origin, where its lips are open
    - `iris_x_correlation` and `iris_y_correlation`: places of our irises and of MediaPipe's between the eye's corners
      in the picture, on faces with open eyes that look ahead within FRONTAL_DEG
    - `yaw_correlation` and `pitch_correlation`: our gaze in the head frame beside the place of MediaPipe's irises.
      People who nod and keep looking into the camera turn their eyes, while their irises hardly move in the picture.

    Models without gaze (contract 1) lack the four correlations.
    """
    with np.load(data / "pseudo" / "expressive.npz", allow_pickle=False) as arrays:
        names = [str(name) for name in arrays["files"]]
        people, theirs = arrays["person"], arrays["landmarks478"].astype(np.float32)[:, :, :2]
        columns = [str(name) for name in arrays["blendshape_names"]]
        blinks = arrays["blendshapes"][:, [columns.index("eyeBlinkLeft"), columns.index("eyeBlinkRight")]].max(1)
    openings, gazes = [], []
    with Reconstructor(model, detector=detector, provider="cpu") as reconstructor:
        template = load_template().landmarks
        for row in np.flatnonzero(people % DEVELOPMENT_SHARE == 0):
            face = largest(reconstructor.faces(read_image(data / "pseudo" / "expressive" / names[row])))
            if face is None:
                continue
            points = face.vertices[template] @ face.frame_from_head[:2, :3].T
            openings.append(
                (_ratio(points, OUR_LIPS, OUR_CORNERS), _ratio(theirs[row], LIPS, (EYES[0][0], EYES[1][0])))
            )
            pitch, yaw, _ = euler_from_camera(face.frame_from_head)
            if face.gaze is not None and max(abs(pitch), abs(yaw)) < FRONTAL_DEG and blinks[row] < OPEN_EYES:
                gazes.append(
                    (*_angles(face.gaze.mean(0)), *_iris_offset(_eyes(face)), *_iris_offset(theirs[row, list(EYES)]))
                )
    figures = {"faces": float(len(openings)), "frontal_faces": float(len(gazes))}
    if openings:
        ours, other = np.array(openings).T
        opened = other > OPEN
        figures["lip_gap"] = float(np.median(ours[other < SHUT]))
        figures["opening_gain"] = float((ours[opened] * other[opened]).sum() / (other[opened] ** 2).sum())
    if len(gazes) > 1:
        looks = np.corrcoef(np.array(gazes).T)
        figures["iris_x_correlation"] = float(looks[2, 4])
        figures["iris_y_correlation"] = float(looks[3, 5])
        figures["yaw_correlation"] = float(looks[0, 4])
        figures["pitch_correlation"] = float(looks[1, 5])
    return figures


def _ratio(points: Floats, first: tuple[int, int], second: tuple[int, int]) -> float:
    """Return the distance of two points of a mesh (K, 2) over that of two others."""
    one, other = (np.linalg.norm(np.subtract(*points[list(pair)])) for pair in (first, second))
    return float(one / other)


def _angles(gaze: Floats) -> tuple[float, float]:
    """Return yaw and pitch of a vector (3,)."""
    return math.atan2(gaze[0], gaze[2]), math.asin(gaze[1] / np.linalg.norm(gaze))


def _eyes(face: Face) -> Floats:
    """Return outer corner, inner corner and middle of the iris of both eyes, (2, 3, 2) pixels."""
    assert face.gaze is not None
    template = load_template()
    corners = face.vertices[template.landmarks[np.array(CORNERS)]]
    centres = np.stack([eye_centre(face.shape, template, side) for side in range(2)])
    irises = centres + EYE_RADIUS_MM * face.gaze
    return np.concatenate([corners, irises[:, None]], 1) @ face.frame_from_head[:2, :3].T


def _iris_offset(eyes: Floats) -> tuple[float, float]:
    """Return the mean place of both irises, to the subject's left and upwards, from the points (2, 3, 2) pixels of
    `_eyes`.

    The place is relative to the middle between the eye's corners, along and across the line of the corners, in widths
    of the eye.
    """
    offsets = []
    for side, (outer, inner, iris) in enumerate(eyes):
        # The subject's left is the picture's right.
        along = (outer - inner) * (1 if side == 0 else -1)
        width = np.linalg.norm(along)
        off = (iris - (outer + inner) / 2) / width
        along = along / width
        offsets.append((off @ along, off @ np.array([along[1], -along[0]])))
    return float(np.mean([x for x, _ in offsets])), float(np.mean([y for _, y in offsets]))

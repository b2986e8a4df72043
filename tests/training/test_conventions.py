"""Landmark vertices and the places of annotated points: measured from rendered people, and what ships."""

from __future__ import annotations

import numpy as np
from facerecon_rt.template import IBUG_MIRROR, load_template
from facerecon_training.conventions import annotated_offsets, measured_offsets
from facerecon_training.rendered.morphable import MorphableFace
from facerecon_training.rendered.render import camera_for_crop


def test_the_offsets_that_ship_are_symmetric_and_lower_the_brows() -> None:
    offsets = annotated_offsets()
    assert offsets.shape == (68, 3) and not offsets[:17].any() and not offsets[:, 2].any()
    np.testing.assert_allclose(offsets, offsets[IBUG_MIRROR] * [-1, 1, 1], atol=0.011)
    assert (offsets[17:27, 1] < -1).all(), "annotators point at brows, which lie below the vertices"
    assert (offsets[31:36, 1] > 1).all(), "annotators point at the base of the nose, which lies above the vertices"
    assert not offsets[36:48].any(), "corners and lids of the eyes are where they are"


def test_offsets_are_measured_in_the_head_frame_near_the_front(ball_face: MorphableFace) -> None:
    random = np.random.default_rng(0)
    true = random.normal(0, 2, (68, 2))
    true = (true + true[IBUG_MIRROR] * [-1, 1]) / 2
    true[:17] = 0
    true[17:27, 0] = 0
    true[27:31, 1] = 0
    true[36:48] = 0
    angles = [(0, 0, 0), (5, 10, 20), (-8, -12, -30), (4, -6, 8), (0, 70, 0)]
    cameras = np.stack([camera_for_crop(*angle, 224, 150.0) for angle in angles])
    identity = random.normal(0, 1, (len(angles), len(ball_face.identity))).astype(np.float32)
    expression = np.zeros((len(angles), 53), np.float32)
    rows = load_template().landmarks
    vertices = ball_face.mean[rows] + np.tensordot(identity, ball_face.identity[:, rows], 1)
    vertices[:, :, :2] += true.astype(np.float32)
    points = np.einsum("nij,nkj->nki", cameras[:, :2, :3], vertices) + cameras[:, None, :2, 3]
    points[-1] += 500
    # The last face is in profile, and says nothing.
    measured = measured_offsets(points, identity, expression, cameras, ball_face)
    np.testing.assert_allclose(measured, true, atol=1e-3)

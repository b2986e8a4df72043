"""Parts behind a mesh that have colours of their own: eyeballs, and the lining of a mouth."""

from __future__ import annotations

import numpy as np

from ..head import Form
from ..template import Indices
from ..types import Floats
from .coloured import ColouredMesh
from .eyes import EYE_COLOURS, eyes_of

MOUTH = "mouth"
"""Name of the material of a mouth's lining."""
MOUTH_COLOUR = (0.22, 0.07, 0.06)
"""Colour of a mouth's lining as sRGB, 0 to 1: a dark red-brown."""
MOUTH_ROUGHNESS = 1.0
COLOURS = EYE_COLOURS | {MOUTH: MOUTH_COLOUR}
"""Colours of all parts as sRGB, 0 to 1."""


def parts_of(form: Form, vertices: Floats, shape: Floats, gaze: Floats | None, *, eyes: bool) -> ColouredMesh | None:
    """Return the parts behind a mesh (K, 3) mm of a form as one mesh, eyes first; None where there are none.

    `shape`: (V, 3) mm, the neutral face. `gaze`: unit vectors (2, 3), head frame, of the left and the right eye; None
    for eyes that look straight ahead. `eyes`: whether eyeballs are wanted.
    """
    points = [np.zeros((0, 3), np.float32)]
    colours = [np.zeros((0, 3), np.float32)]
    materials: dict[str, Indices] = {}
    if eyes:
        eyeballs = eyes_of(shape, gaze, form.face)
        points.append(eyeballs.vertices)
        colours.append(eyeballs.colours)
        materials |= eyeballs.materials
    if form.mouth is not None:
        materials[MOUTH] = form.mouth.triangles + np.int32(sum(map(len, points)))
        points.append(form.mouth.lining(vertices))
        colours.append(np.tile(np.array(MOUTH_COLOUR[::-1], np.float32), (len(points[-1]), 1)))
    if not materials:
        return None
    return ColouredMesh(np.vstack(points), np.vstack(list(materials.values())), np.vstack(colours), materials)

"""Raw faces of mirrored crops -> raw faces of the crops themselves."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from ..contract import ModelContract
from ..template import IBUG_MIRROR, load_template
from ..types import Floats
from .session import RawFaces

ACROSS = np.array([-1, 1, 1], np.float32)
"""Factors that exchange left and right, in the head and in the picture."""


@cache
def blendshape_mirror(names: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the index (B,) of the blendshape that each blendshape becomes in a mirror. eyeLookIn and eyeLookOut are
    relative to the nose, so they only change sides."""
    swap = {"_L": "_R", "_R": "_L", "Left": "Right", "Right": "Left"}
    indices = {name: index for index, name in enumerate(names)}
    mirror = np.arange(len(names))
    for name, index in indices.items():
        for side, other in swap.items():
            if name.endswith(side):
                mirror[index] = indices.get(name.removesuffix(side) + other, index)
    return mirror


def mirrored(raw: RawFaces, contract: ModelContract) -> RawFaces:
    """Convert raw faces of horizontally flipped crops to those of the original crops, without a disagreement."""
    symmetry = load_template().symmetry
    last = contract.input_size - 1
    # The picture and the head are both flipped, which keeps a rotation a rotation.
    camera = raw.crop_from_head * ACROSS[:, None] * np.append(ACROSS, np.float32(1))
    camera[:, 0, 3] += last
    landmarks: Floats = raw.landmarks[:, IBUG_MIRROR] * ACROSS
    landmarks[:, :, 0] += last
    return RawFaces(
        shape=raw.shape[:, symmetry] * ACROSS,
        vertices=raw.vertices[:, symmetry] * ACROSS,
        expression=raw.expression[:, blendshape_mirror(contract.blendshapes)],
        crop_from_head=camera,
        landmarks=landmarks,
        confidence=raw.confidence,
        gaze=None if raw.gaze is None else raw.gaze[:, ::-1] * ACROSS,
    )

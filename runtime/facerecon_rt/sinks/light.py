"""Colours of a person, and those of a picture -> the light of the picture, put on other colours or taken from them.

Light is smooth over the directions of a surface. It is a gain of each channel that is a polynomial of second degree in
the normal, as are the first nine spherical harmonics (Ramamoorthi and Hanrahan, SIGGRAPH 2001), and an offset.
Exposure and white balance are part of the gain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..types import Floats

GAIN = (0.3, 3.0)
"""Limits of the gain, which a fit could pass where a picture shows no surface of a direction."""
OFFSET = 50.0
"""Unit of the offset in colours, 0 to 255, so that the fit weighs it like the gain."""
RIDGE = 1e-4
"""Weight of terms beside the mean gain, which are 0 unless the picture tells otherwise."""
POINTS = 8000
"""Number of places that a fit looks at."""
ROUNDS = 5
"""Number of times that places with other differences, as hair, glasses or a hand, are weighed down."""
USUAL = 3.0
"""Difference of colours, 0 to 255, up to which a place counts fully."""


@dataclass(frozen=True, slots=True, eq=False)
class Light:
    """The light of a picture, relative to that of the colours it was fitted to."""

    gain: Floats
    """(9, 3) weight of each term of `_terms` in the gains of blue, green and red."""
    offset: Floats
    """(3,) colour, 0 to 255, that is added."""

    def put_on(self, colours: Floats, normals: Floats) -> Floats:
        """Return colours (P, 3) of surfaces with unit normals (P, 3), head frame, in this light."""
        return np.asarray(colours * self._gains(normals) + self.offset, np.float32)

    def taken_from(self, colours: Floats, normals: Floats) -> Floats:
        """Return colours (P, 3) of this light without it: those that `put_on` would turn into them."""
        return np.asarray((colours - self.offset) / self._gains(normals), np.float32)

    def _gains(self, normals: Floats) -> Floats:
        return np.asarray(np.clip(_terms(normals) @ self.gain, *GAIN), np.float32)


def fitted_light(colours: Floats, lit: Floats, normals: Floats, weights: Floats) -> Light:
    """Return the light that turns colours (P, 3) into those of a picture, `lit` (P, 3), 0 to 255.

    `normals`: (P, 3) unit vectors, head frame. `weights`: (P,) how much each place counts, 0 for places that the
    picture does not show. Where fewer than 100 places count, the light changes nothing.
    """
    shown = np.flatnonzero(weights > 0)
    if len(shown) < 100:
        return Light(np.eye(9, 3, dtype=np.float32)[:, :1] * np.ones(3, np.float32), np.zeros(3, np.float32))
    shown = shown[:: max(1, len(shown) // POINTS)]
    terms, least = _terms(normals[shown]).astype(np.float64), weights[shown].astype(np.float64)
    found = []
    for own, other in zip(colours[shown].T, lit[shown].T, strict=True):
        matrix = np.column_stack([terms * own[:, None], np.full(len(shown), OFFSET)])
        counted = least
        for _ in range(ROUNDS):
            product = (matrix * counted[:, None]).T @ matrix
            product[np.diag_indices(10)] += RIDGE * max(product[0, 0], 1e-9) * (np.arange(10) > 0)
            solution = np.linalg.solve(product, (matrix * counted[:, None]).T @ other)
            counted = least / np.maximum(np.abs(matrix @ solution - other), USUAL)
        found.append(solution)
    gain = np.array(found, np.float32).T
    return Light(gain[:9], gain[9] * np.float32(OFFSET))


def _terms(normals: Floats) -> Floats:
    """Return the first nine spherical harmonics (P, 9) of unit normals (P, 3), without their factors."""
    x, y, z = normals.T
    return np.stack([np.ones_like(x), x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1], 1)

"""The decoder beside the exported files gives the vertices of the network."""

from __future__ import annotations

import numpy as np
from facerecon_export.crops import synthetic_crops
from facerecon_rt.networks.basis import basis_path, read_basis
from facerecon_rt.networks.session import FaceSession

from .conftest import SmallExport


def test_the_decoder_rebuilds_what_the_network_answers(exported: SmallExport) -> None:
    with FaceSession(exported.onnx, provider="cpu") as session:
        raw = session.run(synthetic_crops(64, 4))
        basis = read_basis(basis_path(exported.onnx), session.contract)
    assert raw.identity is not None
    for identity, expression, shape, vertices in zip(
        raw.identity, raw.expression, raw.shape, raw.vertices, strict=True
    ):
        neutral = basis.neutral(identity)
        distances = (
            np.linalg.norm(neutral - shape, axis=1),
            np.linalg.norm(basis.expressed(shape, expression) - vertices, axis=1),
        )
        assert max(map(np.max, distances)) < 0.06  # mm
        assert np.mean(distances) < 0.02

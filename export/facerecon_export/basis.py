"""FaceModel -> its decoder, a file beside the ONNX files (see `facerecon_rt.networks.basis`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from facerecon_training.model import FaceModel


def write_basis(model: FaceModel, weights_sha256: str, path: Path) -> None:
    """Write the decoder of a FaceModel to `path`, 3 MB in float16.

    Half precision moves a vertex by about a micrometre.
    """
    reconstructor = model.reconstructor
    vertices = (-1, len(reconstructor.mean) // 3, 3)
    arrays = {
        "mean": reconstructor.mean.detach().numpy().reshape(vertices)[0],
        "shape": reconstructor.shape_basis.detach().numpy().reshape(vertices).astype(np.float16),
        "expression": reconstructor.expression_basis.detach().numpy().reshape(vertices).astype(np.float16),
    }
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, weights_sha256=np.array(weights_sha256), **arrays)

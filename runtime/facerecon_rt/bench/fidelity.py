"""A file at another precision or provider -> the distance of its outputs from those of the float32 file on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..align import align, square_from_camera
from ..errors import UsageError
from ..faces.reconstruct import Reconstructor
from ..networks.ensemble import Ensemble, Network, ensemble_sha256
from ..networks.precision import file_of_precision
from ..networks.session import FaceSession
from ..pose import rotation_angle_deg, split_camera
from ..providers.onnx_file import read_onnx
from ..types import Frame

MOST_FRAMES = 64


def face_crops(reconstructor: Reconstructor, frames: Sequence[Frame]) -> NDArray[np.uint8]:
    """Return crops (N, S, S, 3) uint8 BGR of the faces in up to `MOST_FRAMES` of the frames. Raises UsageError where
    there is no face."""
    size = reconstructor.contract.input_size
    step = -(-len(frames) // MOST_FRAMES)
    crops = [
        align(frame.image, square_from_camera(face.frame_from_head), size).image
        for frame in frames[::step]
        for face in reconstructor.faces(frame.image)
    ]
    if not crops:
        raise UsageError(
            "no face was found in --input; give an input with faces, since a latency without faces is meaningless"
        )
    return np.stack(crops)


def _sha256(files: Sequence[Path]) -> str:
    """Return the SHA-256 of the network that these files make."""
    hashes = [read_onnx(file).sha256 for file in files]
    return hashes[0] if len(hashes) == 1 else ensemble_sha256(hashes)


def difference(
    network: Network, models: Sequence[str | Path], crops: NDArray[np.uint8]
) -> tuple[dict[str, float] | None, str]:
    """Measure how far `network` is from the float32 files beside `models`, run on the CPU, on these crops.

    Returns mean distances of vertices in mm and of landmarks in crop pixels, and the mean angle in degrees; None where
    a comparison is not possible. The text names the compared files, or says why they were not compared.
    """
    try:
        references = [file_of_precision(model, "fp32", "cpu") for model in models]
    except UsageError:
        return None, "no float32 file of the same weights lies beside the model"
    if network.provider == "cpu" and network.sha256 == _sha256(references):
        return None, "this is the float32 file on the CPU, the reference for others"
    with ExitStack() as opened:
        sessions = [opened.enter_context(FaceSession(path, provider="cpu")) for path in references]
        reference: Network = sessions[0] if len(sessions) == 1 else Ensemble(sessions)
        expected, answered = reference.run(crops), network.run(crops)
    angles = [
        rotation_angle_deg(split_camera(a)[1], split_camera(b)[1])
        for a, b in zip(expected.crop_from_head, answered.crop_from_head, strict=True)
    ]
    figures = {
        "crops": float(len(crops)),
        "vertices_mm": float(np.linalg.norm(expected.vertices - answered.vertices, axis=2).mean()),
        "rotation_deg": float(np.mean(angles)),
        "landmarks_px": float(np.linalg.norm((expected.landmarks - answered.landmarks)[..., :2], axis=2).mean()),
    }
    return figures, f"against {', '.join(path.name for path in references)} on the CPU"

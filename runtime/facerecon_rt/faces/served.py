"""Crops -> faces from a model server: a network and a detector that run elsewhere, over any protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..contract import ModelContract
from ..errors import ModelRefused, UsageError
from ..networks.golden import failure, golden_crop
from ..networks.session import RawFaces, no_rows, output_dims, raw_faces
from ..types import Detection, Floats, Image
from .detect import detections
from .detector_contract import DetectorContract

Infer = Callable[[Sequence[str], NDArray[np.uint8]], Mapping[str, Floats]]
"""Function that takes the names of outputs and the input `image` of one request, and returns those outputs by name. A
server may return (N, 1) for (N,), as Triton does."""
SHA256_KEY = "facerecon.sha256"
"""Key of the served file's hash in the parameters of a Triton configuration, beside the keys of the contracts."""


class ServedNetwork:
    """A FaceModel on a model server, for a Reconstructor. Its answer for the golden crop is checked before it is
    used."""

    def __init__(
        self, infer: Infer, contract: ModelContract, *, where: str, sha256: str = "", provider: str = "served"
    ) -> None:
        """Check the server's answer to the golden crop.

        `contract`, `sha256`: contract and hash of the served file. `where`: address of the server, for messages.
        `provider`: name in records.

        Raises ModelRefused where the answers are not those of that file, UsageError for a file that averages a set, and
        the errors of `infer`.
        """
        if contract.set_size:
            raise UsageError(
                f"{where}: the served model averages sets of photographs; serve the model it was made from"
            )
        self._infer = infer
        self._where = where
        self.contract = contract
        self.sha256 = sha256
        self.provider = provider
        if contract.golden:
            raw = self.run(golden_crop(contract.input_size)[None])
            if failed := failure(contract, raw.landmarks[0], raw.vertices[0]):
                raise ModelRefused(
                    f"{where}: {failed}; the server runs another file than the one of this contract, serve that one"
                )

    def run(self, images: NDArray[np.uint8]) -> RawFaces:
        """Run crops (N, S, S, 3) uint8 BGR, in requests no larger than the file's largest batch."""
        empty = no_rows(self.contract)
        return raw_faces(self._answer, self.contract, empty, images, None, self._where, pad=False)

    def _answer(self, names: Sequence[str], images: NDArray[np.uint8]) -> list[Floats]:
        outputs = _all_of(names, self._infer(names, images), self._where)
        dims = output_dims(self.contract)
        return [array if dims[name] else array.reshape(-1) for name, array in zip(names, outputs, strict=True)]


class ServedDetector:
    """A face detector of this project on a model server, for a Reconstructor."""

    def __init__(
        self,
        infer: Infer,
        contract: DetectorContract,
        *,
        where: str,
        size: int | None = None,
        score: float | None = None,
    ) -> None:
        """Set the options of the detector, which the server runs.

        `infer`: function that sends a request. `contract`: contract of the served file. `where`: address of the server,
        for messages. `size`: longer side of the detector's input in pixels; None chooses by the picture, as
        `detect.detector_runs` does. `score`: minimum score of a detection; None for the file's own.
        """
        self._infer = infer
        self._where = where
        self._size = size
        self._score = contract.score if score is None else score
        self._sure = contract.sure

    def detect(self, image: Image) -> list[Detection]:
        """Detect faces in a picture (H, W, 3) uint8 BGR, best first."""
        return detections(self._answer, image, self._size, self._score, self._sure)

    def _answer(self, images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        score, box = _all_of(("score", "box"), self._infer(("score", "box"), images), self._where)
        return score, box


def _all_of(names: Sequence[str], outputs: Mapping[str, Floats], where: str) -> list[Floats]:
    lacking = [name for name in names if name not in outputs]
    if lacking:
        raise ModelRefused(f"{where}: the answer lacks {', '.join(lacking)}; serve a file made by facerecon-export")
    return [outputs[name] for name in names]

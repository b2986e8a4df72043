"""Crops -> a model server -> raw faces: a network and a detector that run elsewhere, whatever carries the requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..contract import ModelContract
from ..errors import ModelRefused, UsageError
from ..networks.golden import failure, golden_crop
from ..networks.session import RawFaces, no_rows, output_dims, raw_faces
from ..types import Detection, Floats, Image
from .detect import DetectorContract, detections

Infer = Callable[[Sequence[str], NDArray[np.uint8]], Mapping[str, Floats]]
"""Names of outputs and the input `image` of one request -> those outputs by name. A server may give (N, 1) for (N,), as
Triton does."""
SHA256_KEY = "facerecon.sha256"
"""Of a Triton configuration's parameters, beside the contracts under their own keys: hash of the file served."""


class ServedNetwork:
    """A FaceModel on a model server, asked about its golden crop before it is trusted; for a Reconstructor."""

    def __init__(
        self, infer: Infer, contract: ModelContract, *, where: str, sha256: str = "", provider: str = "served"
    ) -> None:
        """`contract` and `sha256` are those of the file that is served, `where` it is, for messages; `provider` is what
        records say.

        Raises ModelRefused where the answers are not those of that file, UsageError for a file that averages a set, and
        whatever `infer` raises.
        """
        if contract.set_size:
            raise UsageError(f"{where}: averages sets of photographs; serve the model it was made of")
        self._infer = infer
        self._where = where
        self.contract = contract
        self.sha256 = sha256
        self.provider = provider
        if contract.golden:
            raw = self.run(golden_crop(contract.input_size)[None])
            if failed := failure(contract, raw.landmarks[0], raw.vertices[0]):
                raise ModelRefused(f"{where}: {failed}; it serves another file than the one its contract is from")

    def run(self, images: NDArray[np.uint8]) -> RawFaces:
        """(N, S, S, 3) uint8 BGR -> raw faces, in requests no larger than the file's largest batch."""
        empty = no_rows(self.contract)
        return raw_faces(self._answer, self.contract, empty, images, None, self._where, pad=False)

    def _answer(self, names: Sequence[str], images: NDArray[np.uint8]) -> list[Floats]:
        outputs = _all_of(names, self._infer(names, images), self._where)
        dims = output_dims(self.contract)
        return [array if dims[name] else array.reshape(-1) for name, array in zip(names, outputs, strict=True)]


class ServedDetector:
    """Our face detector on a model server; for a Reconstructor."""

    def __init__(
        self,
        infer: Infer,
        contract: DetectorContract,
        *,
        where: str,
        size: int | None = None,
        score: float | None = None,
    ) -> None:
        """`size`: longer side of what it sees, pixels; None goes by the picture, as `detect.looks_at` has it.
        `score`: least of a detection; None is the file's own choice."""
        self._infer = infer
        self._where = where
        self._size = size
        self._score = contract.score if score is None else score
        self._sure = contract.sure

    def detect(self, image: Image) -> list[Detection]:
        """(H, W, 3) uint8 BGR -> faces, best first."""
        return detections(self._answer, image, self._size, self._score, self._sure)

    def _answer(self, images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        score, box = _all_of(("score", "box"), self._infer(("score", "box"), images), self._where)
        return score, box


def _all_of(names: Sequence[str], outputs: Mapping[str, Floats], where: str) -> list[Floats]:
    lacking = [name for name in names if name not in outputs]
    if lacking:
        raise ModelRefused(f"{where}: answers without {', '.join(lacking)}; serve a file of facerecon-export there")
    return [outputs[name] for name in names]

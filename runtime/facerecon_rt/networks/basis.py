"""Identity codes and blendshape weights -> vertices, by the decoder in a file beside the model.

An ONNX file decodes only the faces in its input. Fusing the codes of several pictures, rebuilding a mesh from a record
or animating a face needs the decoder itself, `face.basis.npz`. It belongs to every precision of the model that it was
exported with.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..contract import ModelContract
from ..errors import DAMAGED_ARRAYS, ModelRefused
from ..pose import similarity_directions
from ..types import Floats

SUFFIX = ".basis.npz"
SHARED_ERROR = 0.5
"""Correlation of the errors of two photographs' codes of one person.

A network makes the same mistake about a person in every picture, so ten pictures hold less information than ten
independent measurements. On rendered people, sets of five and ten pictures have the smallest errors near 0.4. They are
0.3 % larger with this value, with which shapes of photographs are less of a caricature.
"""
PRECISION_SUFFIXES = (".fp16", ".int8", ".int8-cpu")


class BasisMissing(ModelRefused):
    """The model has no basis file."""


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """The linear decoder of a FaceModel. Head frame: +x the subject's left, +y up, +z out of the face."""

    mean: Floats
    """(V, 3) mm: the face with the identity code 0, at rest."""
    shape: Floats
    """(K, V, 3) mm per standard deviation of the identity code."""
    expression: Floats
    """(B, V, 3) mm at a blendshape weight of 1, in the contract's order."""
    weights_sha256: str
    """SHA-256 of the .safetensors file that the model was exported from."""

    def neutral(self, identity: ArrayLike) -> Floats:
        """Return the neutral face (V, 3) in mm of an identity code (K,)."""
        return np.asarray(self.mean + np.tensordot(np.asarray(identity, np.float32), self.shape, 1), np.float32)

    def expected_error(self, variance: ArrayLike) -> Floats:
        """Return the expected error (..., V) in mm, root mean square, of neutral faces of codes with this variance
        (..., K).

        Place, attitude and size of the head do not count, because no photograph shows them.
        """
        seen = self.shape.astype(np.float64).reshape(len(self.shape), -1)
        unseen = similarity_directions(self.mean)
        seen -= (seen @ unseen.T) @ unseen
        squared = (seen.reshape(self.shape.shape) ** 2).sum(2)
        return np.asarray(np.sqrt(np.asarray(variance, np.float64) @ squared), np.float32)

    def expressed(self, neutral: ArrayLike, expression: ArrayLike) -> Floats:
        """Return the face (V, 3) in mm with an expression: a neutral face (V, 3) in mm and blendshape weights (B,)."""
        moved = np.tensordot(np.asarray(expression, np.float32), self.expression, 1)
        return np.asarray(np.asarray(neutral, np.float32) + moved, np.float32)


def basis_path(model: Path) -> Path:
    """Return the path of the basis of a model file of any precision: `face.int8-cpu.onnx` -> `face.basis.npz`."""
    stem = model.name.removesuffix(".onnx")
    for suffix in PRECISION_SUFFIXES:
        stem = stem.removesuffix(suffix)
    return model.with_name(stem + SUFFIX)


def read_basis(path: Path, contract: ModelContract) -> Basis:
    """Read the basis file of a model with this contract.

    Raises BasisMissing where there is none, and ModelRefused where it is damaged or belongs to other weights.
    """
    if not path.is_file():
        raise BasisMissing(f"no basis at {path}; export the model again, since facerecon-export writes both")
    try:
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            basis = Basis(
                arrays["mean"].astype(np.float32),
                arrays["shape"].astype(np.float32),
                arrays["expression"].astype(np.float32),
                str(arrays["weights_sha256"]),
            )
    except DAMAGED_ARRAYS as error:
        raise ModelRefused(f"{path} is not a readable basis ({error}); export the model again") from error
    if basis.weights_sha256 != contract.weights_sha256:
        raise ModelRefused(
            f"{path} belongs to weights {basis.weights_sha256[:12]}, the model to {contract.weights_sha256[:12]}; "
            "export both together"
        )
    mesh = (contract.vertex_count, 3)
    for name, array, count in (
        ("mean", basis.mean[None], 1),
        # Files of contract 1 do not state the size of their code.
        ("shape", basis.shape, contract.code_size or len(basis.shape)),
        ("expression", basis.expression, len(contract.blendshapes)),
    ):
        if array.shape != (count, *mesh) or not np.isfinite(array).all():
            raise ModelRefused(f"{path}: {name} does not fit the model's contract; export both together")
    return basis


def fuse_identities(
    codes: ArrayLike, variances: ArrayLike, trust: ArrayLike, shared_error: float = SHARED_ERROR
) -> tuple[Floats, Floats]:
    """Fuse the identity codes of several pictures of one person.

    `codes`: (N, K). `variances`: (N, K). `trust`: (N,) weight of each picture, 0 to 1, the largest of them 1.
    `shared_error`: correlation of the errors of two pictures, 0 to 1. Returns the code (K,) of all pictures together
    and its variance (K,).

    Each code m is the mean of a posterior of variance v, whose prior, people's standard normal, counts once for any
    number of pictures: a product of Gaussians divided by all priors but one. A picture adds the information a = trust
    (1 / v - 1). With equally correlated errors, n pictures count as n / (1 + (n - 1) shared_error) pictures, so that
    sums get the factor share = 1 / (1 + (n - 1) shared_error). The product weighs codes by m / v = a m + m. Its first
    part has the share for Kish's effective number (sum a)^2 / sum a^2 of the information, its second part that for the
    number of the trusts. One share for both would add up the codes of hundreds of pictures that show nothing of a
    direction (v = 1). With two shares, the fused code is at most 1 / shared_error times the largest code of the
    pictures.
    """
    codes, variances = np.asarray(codes, np.float64), np.clip(np.asarray(variances, np.float64), 1e-3, 1.0)
    trusts = np.asarray(trust, np.float64)[:, None]
    information = trusts * (1.0 / variances - 1.0) + 1e-9
    of_information, of_trusts = (_shares(weights, shared_error) for weights in (information, trusts))
    precision = 1.0 + of_information * information.sum(0)
    fused = (of_information * (information * codes).sum(0) + of_trusts * (trusts * codes).sum(0)) / precision
    return fused.astype(np.float32), (1.0 / precision).astype(np.float32)


def _shares(weights: NDArray[np.float64], shared_error: float) -> NDArray[np.float64]:
    """Return the factor (K,) of the sum of N equally correlated values with weights (N, K)."""
    count = weights.sum(0) ** 2 / (weights**2).sum(0)
    return np.asarray(1.0 / (1.0 + (count - 1.0) * shared_error))

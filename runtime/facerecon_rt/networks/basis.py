"""The decoder of a FaceModel, in a file beside it: identity codes and blendshape weights -> vertices.

An ONNX file decodes what it sees, and nothing else. Whoever fuses the codes of several pictures, rebuilds a mesh from a
record, or animates a face, needs the decoder itself: `face.basis.npz`, which belongs to every precision of the model it
was exported with.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ..contract import ModelContract
from ..errors import ModelRefused
from ..types import Floats

SUFFIX = ".basis.npz"
PRECISION_SUFFIXES = (".fp16", ".int8", ".int8-cpu")


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """The linear decoder. Head frame: +x the subject's left, +y up, +z out of the face."""

    mean: Floats
    """(V, 3) mm: the face whose identity code is 0, at rest."""
    shape: Floats
    """(K, V, 3) mm per standard deviation of the identity code."""
    expression: Floats
    """(B, V, 3) mm at a blendshape weight of 1, in the contract's order."""
    weights_sha256: str
    """Of the .safetensors file that the model was exported from."""

    def neutral(self, identity: ArrayLike) -> Floats:
        """(K,) identity code -> (V, 3) mm: the neutral face."""
        return np.asarray(self.mean + np.tensordot(np.asarray(identity, np.float32), self.shape, 1), np.float32)

    def expressed(self, neutral: ArrayLike, expression: ArrayLike) -> Floats:
        """(V, 3) mm and (B,) blendshape weights -> (V, 3) mm: the face with that expression."""
        moved = np.tensordot(np.asarray(expression, np.float32), self.expression, 1)
        return np.asarray(np.asarray(neutral, np.float32) + moved, np.float32)


def basis_path(model: Path) -> Path:
    """A model file of any precision -> where its basis lies: `face.int8-cpu.onnx` -> `face.basis.npz`."""
    stem = model.name.removesuffix(".onnx")
    for suffix in PRECISION_SUFFIXES:
        stem = stem.removesuffix(suffix)
    return model.with_name(stem + SUFFIX)


def read_basis(path: Path, contract: ModelContract) -> Basis:
    """The basis file of a model with this contract.

    Raises ModelRefused where it is missing or damaged, or belongs to other weights.
    """
    if not path.is_file():
        raise ModelRefused(f"no basis at {path}; it is exported with the model: facerecon-export writes both")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            basis = Basis(
                arrays["mean"].astype(np.float32),
                arrays["shape"].astype(np.float32),
                arrays["expression"].astype(np.float32),
                str(arrays["weights_sha256"]),
            )
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ModelRefused(f"{path} is not a readable basis ({error}); export the model again") from error
    if basis.weights_sha256 != contract.weights_sha256:
        raise ModelRefused(
            f"{path} belongs to weights {basis.weights_sha256[:12]}, the model to {contract.weights_sha256[:12]}; "
            "export both together"
        )
    mesh = (contract.vertex_count, 3)
    for name, array, count in (
        ("mean", basis.mean[None], 1),
        ("shape", basis.shape, contract.code_size),
        ("expression", basis.expression, len(contract.blendshapes)),
    ):
        if array.shape != (count, *mesh) or not np.isfinite(array).all():
            raise ModelRefused(f"{path}: {name} does not fit the model's contract; export both together")
    return basis


def fuse_identities(codes: ArrayLike, variances: ArrayLike, trust: ArrayLike) -> tuple[Floats, Floats]:
    """(N, K) identity codes of pictures of one person, their variances (N, K) and how far to trust each picture (N,),
    0..1 -> the code (K,) of all of them together and its variance (K,).

    Each code is the mean of a posterior whose prior, people's standard normal, counts once however many pictures there
    are: a product of Gaussians divided by all priors but one. precision = 1 + sum trust (1 / v - 1), code = sum trust
    m / v / precision. What a picture does not show (v = 1) adds nothing, and the code does not lean to the mean face
    the more for it.
    """
    codes, variances = np.asarray(codes, np.float64), np.clip(np.asarray(variances, np.float64), 1e-3, 1.0)
    shares = np.asarray(trust, np.float64)[:, None]
    precision = 1.0 + (shares * (1.0 / variances - 1.0)).sum(0)
    fused = (shares * codes / variances).sum(0) / precision
    return fused.astype(np.float32), (1.0 / precision).astype(np.float32)

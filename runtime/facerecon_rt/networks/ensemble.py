"""Networks that reconstruct a face: one file, several files averaged, and either with the crop's mirror image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..contract import ModelContract
from ..errors import ModelRefused, UsageError
from ..pose import mean_rotation, rotation_angle_deg, split_camera
from ..types import Floats
from .mirror import mirrored
from .session import DISAGREEMENTS, RawFaces


class Network(Protocol):
    """The interface of a network from crops to raw faces, such as a FaceSession or an Ensemble."""

    @property
    def contract(self) -> ModelContract:
        """Contract of the network: its inputs and outputs."""

    @property
    def provider(self) -> str:
        """The execution provider."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, or of the members' hashes."""

    def run(self, images: NDArray[np.uint8]) -> RawFaces:
        """Run crops (N, S, S, 3) uint8 BGR."""


class Session(Protocol):
    """The interface of a FaceSession."""

    @property
    def path(self) -> Path:
        """Path of the file."""

    @property
    def contract(self) -> ModelContract:
        """Contract of the file."""

    @property
    def provider(self) -> str:
        """The execution provider."""

    @property
    def choice(self) -> str:
        """The provider with the reason why it was chosen."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the file."""

    def run(self, images: NDArray[np.uint8]) -> RawFaces:
        """Run crops (N, S, S, 3) uint8 BGR."""


class Ensemble:
    """The average of several networks on the same crops. The caller closes the sessions.

    Shapes, vertices, landmarks and blendshapes are averaged directly, rotations as matrices that are put back on SO(3),
    scales geometrically, and confidence by its mean. The members' contracts must be equal except for backbone, weights
    and precision.
    """

    def __init__(self, members: Sequence[Session]) -> None:
        """Check the members. Raises ModelRefused where their contracts differ, and UsageError for fewer than two."""
        if len(members) < 2:
            raise UsageError("an ensemble needs two or more models; give another one")
        first = comparable(members[0].contract)
        for member in members[1:]:
            if comparable(member.contract) != first:
                raise ModelRefused(
                    f"{member.path}: its contract differs from that of {members[0].path}; an ensemble needs "
                    "equal versions of the contract, input sizes, code sizes, templates and blendshapes"
                )
        self.members = tuple(members)
        self.contract = averaged([member.contract for member in members])

    @property
    def provider(self) -> str:
        """The current providers of the members, joined with "+"."""
        return "+".join(dict.fromkeys(member.provider for member in self.members))

    @property
    def sha256(self) -> str:
        """SHA-256 of the hashes of the members' files."""
        return ensemble_sha256([member.sha256 for member in self.members])

    def run(self, images: NDArray[np.uint8]) -> RawFaces:
        """Run crops (N, S, S, 3) uint8 BGR. Returns averaged raw faces with the disagreement."""
        runs = [member.run(images) for member in self.members]
        mean = average_raw(runs)
        disagreement = np.array([disagreement_of(runs, mean, i) for i in range(len(images))], np.float32)
        return replace(mean, disagreement=disagreement.reshape(-1, len(DISAGREEMENTS)))


class Mirrored:
    """A network that runs every crop together with its mirror image, and averages the two.

    A difference between the two sides is an error of the network, not a property of the face. The run costs one more
    crop. The caller closes the network. Landmarks keep the contract's `annotation_asymmetry`, which the average would
    lose.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.contract = network.contract
        self.provider = network.provider
        self.sha256 = network.sha256

    def run(self, images: NDArray[np.uint8]) -> RawFaces:
        """Run crops (N, S, S, 3) uint8 BGR."""
        count = len(images)
        both = self.network.run(np.concatenate([images, images[:, :, ::-1]]))
        seen, other = both.rows(slice(count)), both.rows(slice(count, None))
        other = mirrored(other, self.contract)
        # The code of a mirrored face describes a mirrored person, so the identity comes from the crop itself.
        mean = replace(
            average_raw([seen, other]),
            identity=seen.identity,
            identity_variance=seen.identity_variance,
            disagreement=None if both.disagreement is None else both.disagreement.reshape(2, count, -1).mean(0),
        )
        if self.contract.annotation_asymmetry:
            mean.landmarks[:, :, :2] += np.reshape(self.contract.annotation_asymmetry, (68, 2))
        return mean


def ensemble_sha256(hashes: Sequence[str]) -> str:
    """Return the SHA-256 of an ensemble from those of its members' files."""
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def comparable(contract: ModelContract) -> ModelContract:
    """Return the part of a contract that must be equal for all members of an ensemble."""
    return replace(
        contract,
        backbone="",
        precision="fp32",
        target="",
        terms="",
        weights_sha256="",
        batch=0,
        annotation_asymmetry=(),
        golden=(),
    )


def averaged(contracts: Sequence[ModelContract]) -> ModelContract:
    """Return the contract of an average of networks: that of the first, with the mean of the asymmetries, and the mean
    of the golden answers where all have one."""
    asymmetries = [contract.annotation_asymmetry or (0.0,) * 68 * 2 for contract in contracts]
    asymmetry = _mean(asymmetries)
    golden = _mean([contract.golden for contract in contracts]) if all(c.golden for c in contracts) else ()
    return replace(contracts[0], annotation_asymmetry=asymmetry if any(asymmetry) else (), golden=golden)


def _mean(rows: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(map(float, np.mean(rows, axis=0)))


def average_raw(runs: Sequence[RawFaces]) -> RawFaces:
    """Average the raw faces of several networks for the same N crops."""
    cameras = np.stack([run.crop_from_head for run in runs])
    if not cameras.shape[1]:
        return runs[0]
    scales = np.cbrt(np.linalg.det(cameras[..., :3].astype(np.float64)))
    rotation = mean_rotation(cameras[..., :3] / scales[..., None, None])
    scale = np.exp(np.log(scales).mean(0))
    translation = cameras[..., 3].mean(0)
    camera = np.concatenate([scale[:, None, None] * rotation, translation[:, :, None]], 2).astype(np.float32)
    return RawFaces(
        shape=np.mean([run.shape for run in runs], axis=0),
        vertices=np.mean([run.vertices for run in runs], axis=0),
        expression=np.mean([run.expression for run in runs], axis=0),
        crop_from_head=camera,
        landmarks=np.mean([run.landmarks for run in runs], axis=0),
        confidence=np.mean([run.confidence for run in runs], axis=0),
        gaze=mean_gaze([run.gaze for run in runs if run.gaze is not None]),
    )


def mean_gaze(gazes: Sequence[Floats]) -> Floats | None:
    """Return the mean directions of the members' gazes, unit vectors (N, 2, 3); None for no members."""
    if not gazes:
        return None
    mean = np.mean(gazes, axis=0)
    return np.asarray(mean / np.linalg.norm(mean, axis=2, keepdims=True), np.float32)


def disagreement_of(runs: Sequence[RawFaces], mean: RawFaces, i: int) -> tuple[float, ...]:
    """Return the mean distances of the members to their average on crop i, in the order of `DISAGREEMENTS`:
    millimetres, crop pixels and degrees."""

    def distance(name: str) -> float:
        centre = getattr(mean, name)[i]
        return float(np.mean([np.linalg.norm(getattr(run, name)[i] - centre, axis=1).mean() for run in runs]))

    rotation = split_camera(mean.crop_from_head[i])[1]
    angles = [rotation_angle_deg(split_camera(run.crop_from_head[i])[1], rotation) for run in runs]
    return distance("shape"), distance("vertices"), distance("landmarks"), float(np.mean(angles))

"""The networks a face may be read by: one file, several averaged, and either of them with the crop's mirror image."""

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
    """Crops in, raw faces out: a FaceSession, or an Ensemble of them."""

    @property
    def contract(self) -> ModelContract:
        """What the network takes and gives."""

    @property
    def provider(self) -> str:
        """Where it runs."""

    @property
    def sha256(self) -> str:
        """Of the file, or of the members' hashes."""

    def run(self, images: NDArray[np.uint8]) -> RawFaces:
        """(N, S, S, 3) uint8 BGR -> raw faces."""


class Session(Protocol):
    """A FaceSession, or what answers like one."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def contract(self) -> ModelContract:
        """Of the file."""

    @property
    def provider(self) -> str:
        """Where it runs."""

    @property
    def choice(self) -> str:
        """Why it runs there."""

    @property
    def sha256(self) -> str:
        """Of the file."""

    def run(self, images: NDArray[np.uint8]) -> RawFaces:
        """(N, S, S, 3) uint8 BGR -> raw faces."""


class Ensemble:
    """Several networks on the same crops, averaged. The sessions stay their opener's.

    Shapes, vertices, landmarks and blendshapes are averaged plainly, rotations as matrices and put back on SO(3),
    scales geometrically, confidence by its mean. The members must agree about everything in their contracts but
    backbone, weights and precision.
    """

    def __init__(self, members: Sequence[Session]) -> None:
        """Raises ModelRefused where the members' contracts differ, UsageError for fewer than two."""
        if len(members) < 2:
            raise UsageError("an ensemble needs two models or more")
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
        """Where the members run now."""
        return "+".join(dict.fromkeys(member.provider for member in self.members))

    @property
    def sha256(self) -> str:
        """Of the hashes of the members' files."""
        return ensemble_sha256([member.sha256 for member in self.members])

    def run(self, images: NDArray[np.uint8]) -> RawFaces:
        """(N, S, S, 3) uint8 BGR -> averaged raw faces."""
        runs = [member.run(images) for member in self.members]
        mean = average_raw(runs)
        disagreement = np.array([disagreement_of(runs, mean, i) for i in range(len(images))], np.float32)
        return replace(mean, disagreement=disagreement.reshape(-1, len(DISAGREEMENTS)))


class Mirrored:
    """A network that reads every crop twice, as it is and in a mirror, and averages: what it sees differently on the
    two sides of a face is its error, not the face's. Costs one more crop; the network stays its opener's.

    Landmarks keep the contract's `annotation_asymmetry`, which the average would lose.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.contract = network.contract
        self.provider = network.provider
        self.sha256 = network.sha256

    def run(self, images: NDArray[np.uint8]) -> RawFaces:
        """(N, S, S, 3) uint8 BGR -> raw faces."""
        count = len(images)
        both = self.network.run(np.concatenate([images, images[:, :, ::-1]]))
        seen, other = both.rows(slice(count)), both.rows(slice(count, None))
        other = mirrored(other, self.contract)
        # The code of a mirrored face is that of a mirrored person: identity stays what the crop itself says.
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
    """Of an ensemble, from those of its members' files."""
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def comparable(contract: ModelContract) -> ModelContract:
    """What the contracts of an ensemble's members must agree about."""
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
    """The contract of an average of networks: the first one's, but with the mean of their asymmetries, and of their
    golden answers where all have one."""
    asymmetries = [contract.annotation_asymmetry or (0.0,) * 68 * 2 for contract in contracts]
    asymmetry = _mean(asymmetries)
    golden = _mean([contract.golden for contract in contracts]) if all(c.golden for c in contracts) else ()
    return replace(contracts[0], annotation_asymmetry=asymmetry if any(asymmetry) else (), golden=golden)


def _mean(rows: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(map(float, np.mean(rows, axis=0)))


def average_raw(runs: Sequence[RawFaces]) -> RawFaces:
    """The members' raw faces (same N) -> their average."""
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
    """(N, 2, 3) unit vectors of each member -> their mean directions; None of none."""
    if not gazes:
        return None
    mean = np.mean(gazes, axis=0)
    return np.asarray(mean / np.linalg.norm(mean, axis=2, keepdims=True), np.float32)


def disagreement_of(runs: Sequence[RawFaces], mean: RawFaces, i: int) -> tuple[float, ...]:
    """Mean distances of the members to their average on crop i, in the order of `DISAGREEMENTS`: millimetres, crop
    pixels and degrees."""

    def distance(name: str) -> float:
        centre = getattr(mean, name)[i]
        return float(np.mean([np.linalg.norm(getattr(run, name)[i] - centre, axis=1).mean() for run in runs]))

    rotation = split_camera(mean.crop_from_head[i])[1]
    angles = [rotation_angle_deg(split_camera(run.crop_from_head[i])[1], rotation) for run in runs]
    return distance("shape"), distance("vertices"), distance("landmarks"), float(np.mean(angles))

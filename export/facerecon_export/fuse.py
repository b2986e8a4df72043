"""FaceModel files -> one file that averages: several networks on the same crops, or one person's photographs.

One file is one engine: the picture goes in once, and the average comes out of the graph, by the same rules as the
runtime's own (`facerecon_rt.networks.ensemble.average_raw`, `facerecon_rt.faces.shapes.average_shapes`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.compose
import torch
from facerecon_rt.contract import (
    CONTRACT_KEY,
    ENSEMBLE_OUTPUTS,
    ENSEMBLE_OUTPUTS_1,
    OUTPUTS,
    OUTPUTS_1,
    SET_OUTPUTS,
    SET_OUTPUTS_1,
    ModelContract,
)
from facerecon_rt.errors import UsageError
from facerecon_rt.faces.shapes import HUBER, LEAST_DISTANCE_MM, LEAST_WEIGHT, ROBUST_STEPS
from facerecon_rt.networks.ensemble import averaged, comparable
from facerecon_rt.networks.session import output_dims, read_contract
from facerecon_rt.providers.onnx_file import read_onnx, refuse_unsafe
from facerecon_rt.template import load_template
from torch import Tensor, nn

from .simplify import simplify
from .staging import staging
from .stamp import stamp
from .to_onnx import export_onnx

POLAR_STEPS = 12
"""Enough for rotations up to 165 degrees apart; those of networks that see the same face are a few."""


class EnsembleAverage(nn.Module):
    """Six outputs of each of M members -> their average, and how far the members are from it."""

    def forward(self, members: list[list[Tensor]]) -> tuple[Tensor, ...]:
        """M lists of (N, V, 3), (N, V, 3), (N, 53), (N, 3, 4), (N, 68, 3), (N,), and, of files of contract 2, (N, 2, 3)
        gaze and two codes, which have no average -> the same averaged, and (N, 4)
        disagreement: shape mm, vertices mm, landmarks crop pixels, rotation degrees."""
        stacked = [torch.stack(list(one)) for one in zip(*members, strict=True)]
        shape, vertices, expression, camera, landmarks, confidence, *gaze = stacked
        linear = camera[..., :3]
        # Scale times a rotation: its Frobenius norm is scale times the root of 3.
        scale = linear.flatten(2).norm(dim=2)[..., None, None] / 3**0.5
        rotations = linear / scale
        rotation = nearest_rotation(rotations.mean(0))
        mean_camera = torch.cat([scale.log().mean(0).exp() * rotation, camera[..., 3:].mean(0)], 2)
        # |A - B| = 2 sqrt(2) sin(angle / 2), which keeps its digits where the angle is small.
        apart = (rotations - rotation).flatten(2).norm(dim=2) / 8**0.5
        angle = torch.rad2deg(2 * torch.asin(apart.clamp(max=1.0))).mean(0)
        distances = [(one - one.mean(0)).norm(dim=3).mean(2).mean(0) for one in (shape, vertices, landmarks)]
        disagreement = torch.stack([*distances, angle], 1)
        means = (one.mean(0) for one in (shape, vertices, expression))
        looks = [nn.functional.normalize(gaze[0].mean(0), dim=2)] if gaze else []
        return (*means, mean_camera, landmarks.mean(0), confidence.mean(0), *looks, disagreement)


def nearest_rotation(matrices: Tensor) -> Tensor:
    """(N, 3, 3), not far from rotations -> the nearest rotations: the orthogonal factor of the polar decomposition, by
    Newton-Schulz iteration (Higham, Functions of Matrices, 2008, section 8.3), since ONNX has no SVD."""
    for _ in range(POLAR_STEPS):
        matrices = 1.5 * matrices - 0.5 * matrices @ matrices.transpose(1, 2) @ matrices
    return matrices


class SetAverage(nn.Module):
    """The outputs for a set of photographs -> the person's shape, and each photograph's face with it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("landmark_rows", torch.from_numpy(load_template().landmarks.astype(np.int64)))
        self.landmark_rows: Tensor

    def forward(
        self,
        shape: Tensor,
        vertices: Tensor,
        expression: Tensor,
        camera: Tensor,
        landmarks: Tensor,
        confidence: Tensor,
        gaze: Tensor | None = None,
        identity: Tensor | None = None,
        identity_variance: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """As the FaceModel gives them, N the size of the set -> shape (1, V, 3) and spread (1, V) mm of the person,
        weights (N,), and of each photograph vertices, expression, camera, landmarks, confidence and gaze with that
        shape."""
        weights = robust_weights(shape.flatten(1), confidence)
        mean = (weights[:, None, None] * shape).sum(0, keepdim=True)
        spread = (weights[:, None] * ((shape - mean) ** 2).sum(2)).sum(0, keepdim=True).sqrt()
        moved = (mean - shape)[:, self.landmark_rows] @ camera[:, :, :3].transpose(1, 2)
        always = (mean, spread, weights, mean + (vertices - shape), expression, camera, landmarks + moved, confidence)
        return always if gaze is None else (*always, gaze)


def robust_weights(shapes: Tensor, confidence: Tensor) -> Tensor:
    """(N, V * 3) mm and (N,) -> (N,) weights that sum to 1, as `facerecon_rt.faces.shapes.average_shapes` finds them.

    Distances to the average come from the shapes' inner products, taken once: (x - Xw)^2 = xx - 2 xXw + wXXw.
    """
    count = len(shapes)
    base = confidence.clamp(min=LEAST_WEIGHT)
    weights = base / base.sum()
    centred = shapes - shapes.mean(0)
    inner = centred @ centred.T / (shapes.shape[1] // 3)
    own = (centred**2).sum(1) / (shapes.shape[1] // 3)
    for _ in range(ROBUST_STEPS if count > 2 else 0):
        along = inner @ weights
        distance = (own - 2 * along + (weights * along).sum()).clamp(min=0).sqrt()
        ordered = distance.sort().values
        median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
        limit = (HUBER * median).clamp(min=LEAST_DISTANCE_MM)
        weights = base * (limit / distance.clamp(min=1e-9)).clamp(max=1.0)
        weights = weights / weights.sum()
    return weights


def fuse_ensemble(paths: Sequence[Path], target: Path, say: Callable[[str], None]) -> None:
    """FaceModel files of one precision -> `target`, which gives their average and their disagreement.

    Raises UsageError for fewer than two or files of different precision, ModelRefused for files that do not fit
    together.
    """
    contracts = [_contract(path) for path in paths]
    if len(paths) < 2:
        raise UsageError("an ensemble needs two models or more")
    first = contracts[0]
    for path, contract in zip(paths, contracts, strict=True):
        if comparable(contract) != comparable(first):
            raise UsageError(f"{path}: its contract differs from that of {paths[0]}; export both with one release")
        if (contract.precision, contract.target) != (first.precision, first.target):
            raise UsageError(
                f"{path} is {contract.precision}, {paths[0]} {first.precision}; fuse files of one precision"
            )
    contract = replace(
        averaged(contracts),
        backbone="+".join(one.backbone for one in contracts),
        outputs=ENSEMBLE_OUTPUTS if first.version > 1 else ENSEMBLE_OUTPUTS_1,
        terms="; ".join(dict.fromkeys(one.terms for one in contracts)),
        weights_sha256=hashlib.sha256("".join(one.weights_sha256 for one in contracts).encode()).hexdigest(),
    )
    say(f"fusing {len(paths)} models")
    parts = [onnx.load(path) for path in paths]
    examples = [[torch.rand(2, *dims) for dims in output_dims(first).values()] for _ in paths]
    batch = torch.export.Dim("N", min=1)
    names = [f"m{i}_{name}" for i in range(len(paths)) for name in first.outputs]
    shapes = ([[{0: batch} for _ in first.outputs] for _ in paths],)
    with staging(target.parent) as folder:
        partial = folder / target.name
        export_onnx(EnsembleAverage().eval(), (examples,), names, contract.outputs, shapes, partial)
        _write(_joined(parts, onnx.load(partial)), partial, contract)
        partial.replace(target)
    say(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB)")


def fuse_set(path: Path, size: int, target: Path, say: Callable[[str], None]) -> None:
    """A FaceModel file -> `target`, which takes `size` crops of one person and gives one shape.

    Raises UsageError for a set of fewer than two.
    """
    if size < 2:
        raise UsageError(f"--set-size {size}: a set is two photographs or more")
    contract = _contract(path)
    say(f"fusing {path} with the average over {size} photographs")
    examples = tuple(torch.rand(size, *dims) for dims in output_dims(contract).values())
    names = [f"m0_{name}" for name in contract.outputs]
    outputs = SET_OUTPUTS if contract.version > 1 else SET_OUTPUTS_1
    with staging(target.parent) as folder:
        partial = folder / target.name
        export_onnx(SetAverage().eval(), examples, names, outputs, None, partial)
        model = _joined([onnx.load(path)], onnx.load(partial))
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
        _write(model, partial, replace(contract, outputs=outputs, set_size=size, golden=()))
        partial.replace(target)
    say(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB)")


def _contract(path: Path) -> ModelContract:
    model = read_onnx(path)
    refuse_unsafe(model)
    contract = read_contract(model)
    if contract.outputs not in (OUTPUTS, OUTPUTS_1):
        raise UsageError(f"{path} is a fused file already; fuse what it was made of")
    if contract.batch:
        raise UsageError(f"{path} takes {contract.batch} crops at a time; fuse files with a dynamic batch")
    return contract


def _write(model: onnx.ModelProto, path: Path, contract: ModelContract) -> None:
    onnx.save(model, path)
    simplify(path)
    stamp(path, CONTRACT_KEY, contract.to_json())


def _joined(members: Sequence[onnx.ModelProto], average: onnx.ModelProto) -> onnx.ModelProto:
    """Members side by side on one `image`, their outputs into `average`, whose inputs are called m0_shape, ..."""
    graphs = []
    for i, member in enumerate(members):
        prefixed = onnx.compose.add_prefix(member, f"m{i}_")
        for node in prefixed.graph.node:
            for k, name in enumerate(node.input):
                if name == f"m{i}_image":
                    node.input[k] = "image"
        graphs.append(prefixed.graph)
    image = members[0].graph.input[0]
    graphs.append(average.graph)
    graph = onnx.helper.make_graph(
        [node for one in graphs for node in one.node],
        "fused",
        [image],
        list(average.graph.output),
        [tensor for one in graphs for tensor in one.initializer],
    )
    versions: dict[str, int] = {}
    for entry in (entry for model in (*members, average) for entry in model.opset_import):
        versions[entry.domain] = max(entry.version, versions.get(entry.domain, 0))
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in versions.items()]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=max(m.ir_version for m in members))

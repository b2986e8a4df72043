"""FaceModel files -> one file that averages several networks on the same crops, or the photographs of one person.

One file is one engine. The picture goes in once, and the average comes out of the graph. The rules are the runtime's
own (`facerecon_rt.networks.ensemble.average_raw`, `facerecon_rt.faces.shapes.average_shapes`).
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

from .fp16 import store_in_half, stored_in_half
from .simplify import simplify
from .staging import staging
from .stamp import stamp
from .to_onnx import export_onnx

POLAR_STEPS = 12
"""Number of iterations. They suffice for rotations up to 165 degrees apart; networks that see the same face differ by a
few degrees."""


class EnsembleAverage(nn.Module):
    """Module that averages the outputs of M members, and computes how far the members are from the average."""

    def forward(self, members: list[list[Tensor]]) -> tuple[Tensor, ...]:
        """Return the averaged outputs of M members, and their disagreement (N, 4).

        Each member is a list of (N, V, 3), (N, V, 3), (N, 53), (N, 3, 4), (N, 68, 3) and (N,). Files of contract 2 add
        (N, 2, 3) gaze and two shape codes, which have no average. The disagreement is given for shape in mm, vertices
        in mm, landmarks in crop pixels and rotation in degrees.
        """
        stacked = [torch.stack(list(one)) for one in zip(*members, strict=True)]
        shape, vertices, expression, camera, landmarks, confidence, *gaze = stacked
        linear = camera[..., :3]
        # The matrix is scale times a rotation, so its Frobenius norm is scale times the root of 3.
        scale = linear.flatten(2).norm(dim=2)[..., None, None] / 3**0.5
        rotations = linear / scale
        rotation = nearest_rotation(rotations.mean(0))
        mean_camera = torch.cat([scale.log().mean(0).exp() * rotation, camera[..., 3:].mean(0)], 2)
        # |A - B| = 2 sqrt(2) sin(angle / 2). This form keeps its digits for small angles.
        apart = (rotations - rotation).flatten(2).norm(dim=2) / 8**0.5
        angle = torch.rad2deg(2 * torch.asin(apart.clamp(max=1.0))).mean(0)
        distances = [(one - one.mean(0)).norm(dim=3).mean(2).mean(0) for one in (shape, vertices, landmarks)]
        disagreement = torch.stack([*distances, angle], 1)
        means = (one.mean(0) for one in (shape, vertices, expression))
        eye_look = [nn.functional.normalize(gaze[0].mean(0), dim=2)] if gaze else []
        return (*means, mean_camera, landmarks.mean(0), confidence.mean(0), *eye_look, disagreement)


def nearest_rotation(matrices: Tensor) -> Tensor:
    """Return the rotations nearest to matrices (N, 3, 3) that are not far from rotations.

    They are the orthogonal factors of the polar decomposition, by Newton-Schulz iteration (Higham, Functions of
    Matrices, 2008, section 8.3), because ONNX has no SVD.
    """
    for _ in range(POLAR_STEPS):
        matrices = 1.5 * matrices - 0.5 * matrices @ matrices.transpose(1, 2) @ matrices
    return matrices


class SetAverage(nn.Module):
    """Module that averages the outputs for a set of photographs into one shape, and fits each photograph's face to
    it."""

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
        """Return the person's shape, its spread, the weights, and each photograph's face with that shape.

        The inputs are the FaceModel's outputs, with N the size of the set. The shape is (1, V, 3) and the spread (1,
        V), in mm; the weights are (N,). For each photograph follow vertices, expression, camera, landmarks, confidence
        and gaze.
        """
        weights = robust_weights(shape.flatten(1), confidence)
        mean = (weights[:, None, None] * shape).sum(0, keepdim=True)
        spread = (weights[:, None] * ((shape - mean) ** 2).sum(2)).sum(0, keepdim=True).sqrt()
        moved = (mean - shape)[:, self.landmark_rows] @ camera[:, :, :3].transpose(1, 2)
        always = (mean, spread, weights, mean + (vertices - shape), expression, camera, landmarks + moved, confidence)
        return always if gaze is None else (*always, gaze)


def robust_weights(shapes: Tensor, confidence: Tensor) -> Tensor:
    """Return the weights of shapes (N, V * 3) mm with confidences (N,): (N,), with sum 1.

    They are the weights of `facerecon_rt.faces.shapes.average_shapes`. Distances to the average come from the shapes'
    inner products, which are computed once: (x - Xw)^2 = xx - 2 xXw + wXXw.
    """
    count = shapes.shape[0]
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
    """Fuse FaceModel files of one precision into `target`, which gives their average and their disagreement.

    Raises UsageError for fewer than two files or files of different precision, and ModelRefused for files that do not
    fit together.
    """
    contracts = [_contract(path) for path in paths]
    if len(paths) < 2:
        raise UsageError("an ensemble needs two models or more; give more files")
    first = contracts[0]
    for path, contract in zip(paths, contracts, strict=True):
        if comparable(contract) != comparable(first):
            raise UsageError(f"{path}: its contract differs from that of {paths[0]}; export both with the same release")
        if (contract.precision, contract.target) != (first.precision, first.target):
            same = (
                "all .int8-cpu.onnx, or all .int8.onnx" if contract.target != first.target else "files of one precision"
            )
            raise UsageError(f"{path} is {_kind(contract)}, {paths[0]} is {_kind(first)}; fuse {same}")
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
    """Fuse a FaceModel file with an average into `target`, which takes `size` crops of one person and gives one shape.

    Raises UsageError for a set of fewer than two photographs.
    """
    if size < 2:
        raise UsageError(f"--set-size {size}: a set has two photographs or more; give 2 or more")
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


def _kind(contract: ModelContract) -> str:
    """Return the precision of a file, with the target of an int8 file."""
    return contract.precision + (f" for {contract.target}" if contract.target else "")


def _contract(path: Path) -> ModelContract:
    model = read_onnx(path)
    refuse_unsafe(model)
    contract = read_contract(model)
    if contract.outputs not in (OUTPUTS, OUTPUTS_1):
        raise UsageError(f"{path} is a fused file already; fuse the files that it was made from")
    if contract.batch:
        raise UsageError(
            f"{path} takes {contract.batch} crops at a time; export it with --batch dynamic and fuse that file"
        )
    return contract


def _write(model: onnx.ModelProto, path: Path, contract: ModelContract) -> None:
    """Write a joined graph. Matrices that its members store in half stay so: the simplifier makes them float32."""
    onnx.save(model, path)
    simplify(path)
    simplified = onnx.load(path)
    store_in_half(simplified, stored_in_half(model))
    onnx.save(simplified, path)
    stamp(path, CONTRACT_KEY, contract.to_json())


def _joined(members: Sequence[onnx.ModelProto], average: onnx.ModelProto) -> onnx.ModelProto:
    """Return one graph: members side by side on one `image`, with their outputs as inputs m0_shape, ... of
    `average`."""
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

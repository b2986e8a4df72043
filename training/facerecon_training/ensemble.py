"""Several FaceModels -> one model that gives their average, as the runtime's ensemble does."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, replace

import torch
from facerecon_rt.errors import UsageError
from torch import Tensor, nn

from .config import CLEAN_TERMS
from .model import FaceModel, FaceOutput


class FaceModelEnsemble(nn.Module):
    """The average of several FaceModels.

    Shapes, vertices, blendshapes, landmarks and confidence are averaged directly, scales as logarithms, and gaze as
    directions. Rotations are averaged as matrices and put back on SO(3) (the chordal mean, Hartley et al., Rotation
    Averaging, IJCV 2013). The identity code stays the first member's, because codes of different networks have no
    average.
    """

    def __init__(self, members: Sequence[FaceModel]) -> None:
        """Take over the members. Raises UsageError for no members, or for members with different input sizes."""
        super().__init__()
        sizes = {member.config.input_size for member in members}
        if len(sizes) != 1:
            raise UsageError(
                f"an ensemble needs models of one input size, but these have {sorted(sizes) or 'none'}; choose others"
            )
        self.members = nn.ModuleList(members)
        self.config = replace(members[0].config, backbone="+".join(member.config.backbone for member in members))

    def forward(self, image: Tensor) -> FaceOutput:
        """Compute the outputs of the contract from (N, 3, S, S) float32 0..255, BGR."""
        outputs = [member(image) for member in self.members]
        averaged = {
            name: torch.stack([getattr(output, name) for output in outputs]).mean(0)
            for name in ("shape", "vertices", "expression", "landmarks", "confidence", "gaze")
        }
        averaged["gaze"] = nn.functional.normalize(averaged["gaze"], dim=2)
        averaged["crop_from_head"] = mean_camera(torch.stack([output.crop_from_head for output in outputs]))
        output: FaceOutput = outputs[0]._replace(**averaged)
        return output


FaceNetwork = FaceModel | FaceModelEnsemble
"""A network that can be evaluated or learned from: one FaceModel, or the average of several."""


def average_weights(members: Sequence[FaceModel]) -> FaceModel:
    """Return one network with the mean weights of networks that were trained from the same start.

    Its error is smaller than that of any member, and it costs as much as one (Wortsman et al., Model soups, ICML 2022).
    The mean of networks with different starts is useless. The mean may be used only for purposes that every member
    permits.

    Raises UsageError for fewer than two members, or for different configurations.
    """
    if len(members) < 2:
        raise UsageError("an average needs the weights of two runs or more; give more files")
    configs = {replace(member.config, terms="") for member in members}
    if len(configs) != 1:
        every = [asdict(config) for config in configs]
        different = [name for name in every[0] if len({one[name] for one in every}) > 1]
        values = "; ".join(f"{name}: {', '.join(sorted(str(one[name]) for one in every))}" for name in different)
        raise UsageError(f"weights of different networks have no average ({values}); give runs of one configuration")
    mean = deepcopy(members[0])
    states = [member.state_dict() for member in members]
    with torch.no_grad():
        for name, tensor in mean.state_dict().items():
            if tensor.dtype.is_floating_point:
                tensor.copy_(torch.stack([state[name] for state in states]).mean(0))
    terms = dict.fromkeys(member.config.terms for member in members if member.config.terms != CLEAN_TERMS)
    mean.config = replace(members[0].config, terms="; ".join(terms) or CLEAN_TERMS)
    return mean


def mean_camera(cameras: Tensor) -> Tensor:
    """Average scaled-orthographic cameras (M, N, 3, 4) of M members to (N, 3, 4)."""
    linear = cameras[..., :3]
    scales = torch.linalg.det(linear) ** (1 / 3)
    left, _, right = torch.linalg.svd((linear / scales[..., None, None]).mean(0))
    upright = torch.ones_like(left[:, 0])
    upright[:, 2] = torch.sign(torch.linalg.det(left @ right))
    rotation = (left * upright[:, None]) @ right
    scale = scales.log().mean(0).exp()
    return torch.cat([scale[:, None, None] * rotation, cameras[..., 3:].mean(0)], 2)

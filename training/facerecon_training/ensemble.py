"""Several FaceModels -> one that says what they agree on, as the runtime's ensemble does."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from facerecon_rt.errors import UsageError
from torch import Tensor, nn

from .config import CLEAN_TERMS
from .model import FaceModel, FaceOutput


class Ensemble(nn.Module):
    """The average of its members: shapes, vertices, blendshapes, landmarks and confidence plainly, scales as
    logarithms, rotations as matrices put back on SO(3) (the chordal mean, Hartley et al., Rotation Averaging, IJCV
    2013), gaze as directions. The identity code stays the first member's: codes of different networks have no
    average."""

    def __init__(self, members: Sequence[FaceModel]) -> None:
        """Raises UsageError for no members, or members that look at crops of different sizes."""
        super().__init__()
        sizes = {member.config.input_size for member in members}
        if len(sizes) != 1:
            raise UsageError(f"an ensemble needs models of one input size; these have {sorted(sizes) or 'none'}")
        self.members = nn.ModuleList(members)
        self.config = replace(members[0].config, backbone="+".join(member.config.backbone for member in members))

    def forward(self, image: Tensor) -> FaceOutput:
        """(N, 3, S, S) float32 0..255, BGR -> the outputs of the contract."""
        outputs = [member(image) for member in self.members]
        averaged = {
            name: torch.stack([getattr(output, name) for output in outputs]).mean(0)
            for name in ("shape", "vertices", "expression", "landmarks", "confidence", "gaze")
        }
        averaged["gaze"] = nn.functional.normalize(averaged["gaze"], dim=2)
        averaged["crop_from_head"] = mean_camera(torch.stack([output.crop_from_head for output in outputs]))
        return outputs[0]._replace(**averaged)


def average_weights(members: Sequence[FaceModel]) -> FaceModel:
    """Networks trained on from the same weights -> one network with the mean of their weights, which errs less than any
    of them and costs as much as one (Wortsman et al., Model soups, ICML 2022). Of networks with different beginnings
    the mean is worth nothing. It may be used for what every member may.

    Raises UsageError for fewer than two, or members of different configurations.
    """
    if len(members) < 2:
        raise UsageError("an average needs the weights of two runs or more")
    configs = {replace(member.config, terms="") for member in members}
    if len(configs) != 1:
        raise UsageError(f"weights of different networks have no average: {', '.join(map(str, configs))}")
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
    """(M, N, 3, 4) scaled-orthographic cameras of M members -> (N, 3, 4)."""
    linear = cameras[..., :3]
    scales = torch.linalg.det(linear) ** (1 / 3)
    left, _, right = torch.linalg.svd((linear / scales[..., None, None]).mean(0))
    upright = torch.ones_like(left[:, 0])
    upright[:, 2] = torch.sign(torch.linalg.det(left @ right))
    rotation = (left * upright[:, None]) @ right
    scale = scales.log().mean(0).exp()
    return torch.cat([scale[:, None, None] * rotation, cameras[..., 3:].mean(0)], 2)

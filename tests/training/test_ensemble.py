"""Several networks as one: what the runtime averages, the torch ensemble averages alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from facerecon_rt.errors import UsageError
from facerecon_rt.networks.ensemble import average_raw
from facerecon_rt.networks.session import RawFaces
from facerecon_training.config import CLEAN_TERMS, RESEARCH_TERMS
from facerecon_training.ensemble import FaceModelEnsemble, average_weights
from facerecon_training.model import FaceModel, FaceOutput, ModelConfig


def member(seed: int, size: int = 64) -> FaceModel:
    torch.manual_seed(seed)
    model = FaceModel(ModelConfig("tiny", size, shape_code=8, hidden=16)).eval()
    with torch.no_grad():  # cameras and gazes that differ
        model.reconstructor.camera.weight.normal_(0, 0.3)
        model.reconstructor.gaze.bias.normal_()
    return model


def crops(count: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 64, 64), generator=torch.Generator().manual_seed(1)).float()


def raw(output: FaceOutput) -> RawFaces:
    return RawFaces(*(tensor.numpy() for tensor in output))


@torch.no_grad()
def test_it_averages_as_the_runtime_does() -> None:
    members = [member(seed) for seed in range(3)]
    expected = average_raw([raw(one(crops())) for one in members])
    found = raw(FaceModelEnsemble(members)(crops()))
    assert expected.identity is None, "codes of different networks have no average"
    for name in [name for name in FaceOutput._fields if not name.startswith("identity")]:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-3, err_msg=name)


@torch.no_grad()
def test_its_cameras_are_scaled_rotations() -> None:
    camera = FaceModelEnsemble([member(seed) for seed in range(2)])(crops()).crop_from_head
    scale = torch.linalg.det(camera[:, :, :3]) ** (1 / 3)
    rotation = camera[:, :, :3] / scale[:, None, None]
    torch.testing.assert_close(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(3, 3, 3), atol=1e-5, rtol=0)


@torch.no_grad()
def test_its_gaze_is_a_direction_and_its_code_the_first_members() -> None:
    members = [member(seed) for seed in range(2)]
    output, first = FaceModelEnsemble(members)(crops()), members[0](crops())
    torch.testing.assert_close(output.gaze.norm(dim=2), torch.ones(3, 2))
    torch.testing.assert_close(output.identity, first.identity)
    torch.testing.assert_close(output.identity_variance, first.identity_variance)


@torch.no_grad()
def test_one_member_speaks_for_itself() -> None:
    alone = member(0)
    for one, other in zip(FaceModelEnsemble([alone])(crops()), alone(crops()), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-5)


def test_members_look_at_crops_of_one_size() -> None:
    with pytest.raises(UsageError, match=r"an ensemble needs models of one input size, but these have \[64, 96\]"):
        FaceModelEnsemble([member(0), member(1, size=96)])
    with pytest.raises(UsageError, match="these have none"):
        FaceModelEnsemble([])


def test_the_mean_of_weights_lies_between_them() -> None:
    members = [member(seed) for seed in range(3)]
    mean = average_weights(members)
    for name, tensor in mean.state_dict().items():
        values = [one.state_dict()[name] for one in members]
        if tensor.dtype.is_floating_point:
            torch.testing.assert_close(tensor, torch.stack(values).mean(0))
    same = average_weights([members[0], members[0]])
    for found, expected in zip(same(crops()), members[0](crops()), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ((CLEAN_TERMS, CLEAN_TERMS), CLEAN_TERMS),
        ((CLEAN_TERMS, RESEARCH_TERMS), RESEARCH_TERMS),
        ((RESEARCH_TERMS, "mine alone"), f"{RESEARCH_TERMS}; mine alone"),
    ],
)
def test_mean_weights_may_be_used_for_what_all_members_may(terms: tuple[str, str], expected: str) -> None:
    members = [member(0), member(1)]
    for one, its in zip(members, terms, strict=True):
        one.config = replace(one.config, terms=its)
    assert average_weights(members).config.terms == expected


def test_weights_of_different_networks_have_no_mean() -> None:
    with pytest.raises(UsageError, match="two runs or more"):
        average_weights([member(0)])
    with pytest.raises(UsageError, match="different networks have no average"):
        average_weights([member(0), member(1, size=96)])

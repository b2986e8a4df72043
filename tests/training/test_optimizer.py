"""Muon: orthogonal steps of AdamW's size, for matrices and dense convolutions alone."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from facerecon_training.optimizer import Muon, MuonWithAdamW, is_matrix, orthogonalised
from torch import nn


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8 * 16, 4))


def optimizer_of(net: nn.Sequential) -> MuonWithAdamW:
    parameters = list(net.parameters())
    matrices = {"params": [p for p in parameters if is_matrix(p)], "weight_decay": 0.1, "scale": 1.0}
    others = {"params": [p for p in parameters if not is_matrix(p)], "weight_decay": 0.0, "scale": 0.5}
    return MuonWithAdamW([matrices], [others])


def train(net: nn.Sequential, optimizer: MuonWithAdamW, steps: range) -> float:
    error = torch.tensor(0.0)
    for step in steps:
        torch.manual_seed(step)
        image = torch.randn(8, 3, 8, 8)
        error = ((net(image) - image.mean((2, 3))[:, :1]) ** 2).mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    return float(error.detach())


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (30, 30)])
def test_singular_vectors_remain_and_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    matrix = torch.randn(*shape) * 1e-3
    turned = orthogonalised(matrix)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    inner = left.T @ turned @ right.T
    far_from_zero = values > 0.02 * values.max()
    assert turned.shape == matrix.shape
    assert inner.diagonal()[far_from_zero].min() > 0.65
    assert inner.diagonal().max() < 1.25
    torch.testing.assert_close(inner, torch.diag(inner.diagonal()), atol=1e-3, rtol=0)


def test_only_matrices_and_dense_convolutions_are_trained_by_muon() -> None:
    net = network()
    kinds = {name: is_matrix(parameter) for name, parameter in net.named_parameters()}
    assert kinds == {
        "0.weight": True, "0.bias": False, "1.weight": False, "1.bias": False, "3.weight": True, "3.bias": False
    }  # fmt: skip


@pytest.mark.parametrize("shape", [(48, 64), (64, 8, 3, 3)])
def test_a_step_has_the_size_of_a_step_of_adamw(shape: tuple[int, ...]) -> None:
    torch.manual_seed(2)
    weight = nn.Parameter(torch.zeros(shape))
    muon = Muon([{"params": [weight]}], lr=0.01)
    weight.grad = torch.randn(shape) * 1e4
    muon.step()
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.2 * 0.01, rel=0.2)


def test_weight_decay_is_relative_to_the_learning_rate() -> None:
    weight = nn.Parameter(torch.ones(4, 4))
    muon = Muon([{"params": [weight], "weight_decay": 0.5}], lr=0.1)
    weight.grad = torch.zeros(4, 4)
    muon.step()
    torch.testing.assert_close(weight.detach(), torch.full((4, 4), 0.95))


def test_a_parameter_without_gradient_keeps_its_value() -> None:
    weight = nn.Parameter(torch.ones(4, 4))
    Muon([{"params": [weight], "weight_decay": 0.5}], lr=0.1).step()
    assert (weight == 1).all()


def test_both_train_a_network_and_resume_bit_for_bit() -> None:
    net = network()
    optimizer = optimizer_of(net)
    for group in optimizer.param_groups:
        group["lr"] = 0.02 * group["scale"]
    first = train(net, optimizer, range(1))
    train(net, optimizer, range(1, 20))
    resumed = deepcopy(net)
    other = optimizer_of(resumed)
    other.load_state_dict(deepcopy(optimizer.state_dict()))
    assert [group["lr"] for group in other.param_groups] == [0.02, 0.01]
    last = train(net, optimizer, range(20, 60))
    assert train(resumed, other, range(20, 60)) == last
    assert last < 0.2 * first


def test_the_state_of_another_optimizer_is_refused() -> None:
    net = network()
    with pytest.raises(KeyError, match="muon"):
        optimizer_of(net).load_state_dict(torch.optim.AdamW(net.parameters()).state_dict())

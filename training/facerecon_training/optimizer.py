"""The optimizer of a run: Muon for matrices and dense convolutions, AdamW for all other parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

Group = dict[str, Any]
"""A parameter group of torch.optim: `params` and options."""
NEWTON_SCHULZ = 3.4445, -4.7750, 2.0315
"""Coefficients of Jordan's polynomial x -> a x + b x^3 + c x^5, which pulls singular values towards 1 quickly."""


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon can train a parameter: a matrix, or a convolution whose outputs each see several channels."""
    return parameter.ndim == 2 or (parameter.ndim == 4 and parameter.shape[1] > 1)


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """Return a matrix (M, N) with the singular vectors of `matrix`, and singular values of about 0.7 to 1.2.

    Directions in which `matrix` hardly reaches, by less than a thousandth of its norm, remain smaller. This is the
    Newton-Schulz iteration of Jordan et al., Muon, 2024 (kellerjordan.github.io/posts/muon).
    """
    a, b, c = NEWTON_SCHULZ
    tall = len(matrix) > matrix.shape[1]
    x: Tensor = (matrix.T if tall else matrix) / (matrix.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose step is orthogonalised, so that it moves all directions of a weight equally far.

    A step has a root mean square of 0.2 times the learning rate, which is that of AdamW's steps (Liu et al., Muon is
    scalable for LLM training, 2025). Learning rates and weight decays of AdamW therefore remain valid. A convolution
    (O, I, K, K) counts as a matrix (O, I * K * K). torch.optim.Muon does not take convolutions, and computes in
    bfloat16, which takes 20 times as long on processors without instructions for it.
    """

    def __init__(self, groups: Iterable[Group], lr: float = 1e-3, momentum: float = 0.95) -> None:
        """Take parameter groups. `weight_decay` of a group is relative to the learning rate, as in AdamW."""
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step with Nesterov's momentum. A closure is not supported."""
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                mean = state["momentum"]
                mean.lerp_(parameter.grad, 1 - momentum)
                ahead = parameter.grad.lerp(mean, momentum)
                direction = orthogonalised(ahead.flatten(1)).reshape(parameter.shape)
                parameter.mul_(1 - rate * group["weight_decay"])
                parameter.add_(direction, alpha=-0.2 * rate * max(len(ahead), ahead[0].numel()) ** 0.5)


class MuonWithAdamW:
    """Muon and AdamW with the interface of one optimizer."""

    def __init__(self, matrices: list[Group], others: list[Group]) -> None:
        """Take the parameter groups of Muon and of AdamW."""
        self.muon = Muon(matrices)
        self.adamw = torch.optim.AdamW(others, betas=(0.9, 0.99), fused=True)

    @property
    def param_groups(self) -> list[Group]:
        """The parameter groups of both."""
        return [*self.muon.param_groups, *self.adamw.param_groups]

    def zero_grad(self) -> None:
        """Drop all gradients."""
        self.muon.zero_grad()
        self.adamw.zero_grad()

    def step(self) -> None:
        """Take one step with both."""
        self.muon.step()
        self.adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the states of both. Raises KeyError for the state of another optimizer."""
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])

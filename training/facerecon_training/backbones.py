"""Image -> feature map -> feature vector: the backbones by name, torch only."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class FusedBlock(nn.Module):
    """Dense 3x3 expansion, 1x1 projection (EfficientNet-EL, Gupta and Tan 2019): fast to train and to quantise."""

    def __init__(self, inputs: int, expanded: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(conv(inputs, expanded, 3, stride), conv(expanded, outputs, 1, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, outputs, H / stride, W / stride)."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection (MobileNetV2, Sandler et al. 2018)."""

    def __init__(self, inputs: int, expanded: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            conv(inputs, expanded, 1),
            conv(expanded, expanded, 3, stride, groups=expanded),
            conv(expanded, outputs, 1, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, outputs, H / stride, W / stride)."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class Mobile(nn.Sequential):
    """The default: dense 3x3 convolutions early, inverted residuals late, stride 32. 63 MMACs at 128 px."""

    channels = 512

    def __init__(self) -> None:
        super().__init__(
            conv(3, 16, 3, 2),
            FusedBlock(16, 48, 32, 2),
            FusedBlock(32, 96, 64, 2),
            FusedBlock(64, 64, 64, 1),
            FusedBlock(64, 160, 128, 2),
            InvertedResidual(128, 320, 128, 1),
            InvertedResidual(128, 320, 128, 1),
            InvertedResidual(128, 512, 192, 2),
            InvertedResidual(192, 576, 192, 1),
            InvertedResidual(192, 576, 192, 1),
            conv(192, self.channels, 1),
        )


class Tiny(nn.Sequential):
    """A few thousand weights, for tests of everything around the network."""

    channels = 16

    def __init__(self) -> None:
        super().__init__(conv(3, 8, 3, 4), conv(8, 8, 3, 4), conv(8, self.channels, 3, 2))


BACKBONES: dict[str, type[Mobile] | type[Tiny]] = {"mobile": Mobile, "tiny": Tiny}
"""Name in the configuration -> class. Each takes (N, 3, S, S) and gives (N, channels, S/32, S/32)."""


class FeatureExtractor(nn.Module):
    """Image -> features. The map is weighed by place (global depthwise convolution, MobileFaceNet, Chen et al. 2018),
    not averaged: where something is matters as much as whether it is there."""

    def __init__(self, backbone: str, input_size: int) -> None:
        super().__init__()
        self.backbone = BACKBONES[backbone]()
        self.feature_count = self.backbone.channels
        self.pool = nn.Sequential(
            nn.Conv2d(self.feature_count, self.feature_count, input_size // 32, groups=self.feature_count, bias=False),
            nn.BatchNorm2d(self.feature_count),
            nn.Flatten(),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, S, S) float 0..255, BGR -> (N, feature_count)."""
        # A power of two folds into the first layer's weights exactly.
        features: Tensor = self.pool(self.backbone(image * (1.0 / 128.0)))
        return features


def multiply_adds(module: nn.Module, image: Tensor) -> int:
    """Multiply-adds of all convolutions and linear layers in one forward pass of `image`."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += output[0].numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            total += layer.weight.numel()

    handles = [layer.register_forward_hook(count) for layer in module.modules()]
    with torch.no_grad():
        module(image)
    for handle in handles:
        handle.remove()
    return total

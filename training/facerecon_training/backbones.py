"""Image -> feature map -> feature vector: the backbones by name, torch only."""

from __future__ import annotations

from collections.abc import Callable

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
    """Dense expansion, 1x1 projection (EfficientNet-EL, Gupta and Tan 2019): fast to train and to quantise."""

    def __init__(self, inputs: int, expanded: int, outputs: int, stride: int, kernel: int = 3) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(conv(inputs, expanded, kernel, stride), conv(expanded, outputs, 1, relu=False))

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


class Backbone(nn.Sequential):
    """(N, 3, S, S) in, (N, channels, S / 32, S / 32) out."""

    channels: int


class Compact(Backbone):
    """The default: `Mobile` with overlapping patches (PVTv2, Wang et al. 2022) in place of its first two layers, and
    without its last block at 8x8 and at 4x4 pixels. 52 MMACs at 128 px."""

    channels = 512

    def __init__(self) -> None:
        super().__init__(
            FusedBlock(3, 48, 32, 4, kernel=7),
            FusedBlock(32, 96, 64, 2),
            FusedBlock(64, 64, 64, 1),
            FusedBlock(64, 160, 128, 2),
            InvertedResidual(128, 320, 128, 1),
            InvertedResidual(128, 512, 192, 2),
            InvertedResidual(192, 576, 192, 1),
            conv(192, self.channels, 1),
        )


class Medium(Backbone):
    """`Compact` with one more block at each resolution. 111 MMACs at 160 px."""

    channels = 512

    def __init__(self) -> None:
        super().__init__(
            FusedBlock(3, 48, 32, 4, kernel=7),
            FusedBlock(32, 96, 64, 2),
            FusedBlock(64, 64, 64, 1),
            FusedBlock(64, 64, 64, 1),
            FusedBlock(64, 160, 128, 2),
            InvertedResidual(128, 320, 128, 1),
            InvertedResidual(128, 320, 128, 1),
            InvertedResidual(128, 512, 192, 2),
            InvertedResidual(192, 576, 192, 1),
            InvertedResidual(192, 576, 192, 1),
            conv(192, self.channels, 1),
        )


class Mobile(Backbone):
    """Dense 3x3 convolutions early, inverted residuals late, stride 32. 62 MMACs at 128 px."""

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


class Tiny(Backbone):
    """A few thousand weights, for tests of everything around the network."""

    channels = 16

    def __init__(self) -> None:
        super().__init__(conv(3, 8, 3, 4), conv(8, 8, 3, 4), conv(8, self.channels, 3, 2))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv(inputs, width, 3, stride), conv(width, width, 3, relu=False))
        self.shortcut = shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, width, H / stride, W / stride)."""
        y: Tensor = self.layers(x) + self.shortcut(x)
        return torch.relu(y)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut (He et al., CVPR 2016; the stride is the 3x3's, as in every library)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.layers = nn.Sequential(
            conv(inputs, width, 1), conv(width, width, 3, stride), conv(width, outputs, 1, relu=False)
        )
        self.shortcut = shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 4 * width, H / stride, W / stride)."""
        y: Tensor = self.layers(x) + self.shortcut(x)
        return torch.relu(y)


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The identity, or a 1x1 convolution where the shape changes."""
    return nn.Identity() if stride == 1 and inputs == outputs else conv(inputs, outputs, 1, stride, relu=False)


def resnet_stages(block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, ...]) -> list[nn.Module]:
    """Stem and four stages of a residual network."""
    layers: list[nn.Module] = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, depth in enumerate(depths):
        width = 64 << stage
        for index in range(depth):
            layers.append(block(inputs, width, 2 if index == 0 and stage else 1))
            inputs = width * block.expansion
    return layers


class ResNet18(Backbone):
    """He et al., Deep residual learning, CVPR 2016. 0.6 GMACs at 128 px."""

    channels = 512

    def __init__(self) -> None:
        super().__init__(*resnet_stages(BasicBlock, (2, 2, 2, 2)))


class ResNet50(Backbone):
    """He et al., Deep residual learning, CVPR 2016. 1.3 GMACs at 128 px."""

    channels = 2048

    def __init__(self) -> None:
        super().__init__(*resnet_stages(Bottleneck, (3, 4, 6, 3)))


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, 1x1, BatchNorm, ReLU, 3x3; the result is put beside what came in."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(inplace=True),
            conv(inputs, 4 * growth, 1),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C + growth, H, W)."""
        return torch.cat([x, self.layers(x)], 1)


class DenseNet121(Backbone):
    """Huang et al., Densely connected convolutional networks, CVPR 2017. 0.9 GMACs at 128 px."""

    channels = 1024

    def __init__(self) -> None:
        growth, count = 32, 64
        layers: list[nn.Module] = [conv(3, count, 7, 2), nn.MaxPool2d(3, 2, 1)]
        for stage, depth in enumerate((6, 12, 24, 16)):
            if stage:  # half the channels, half the size
                layers += [nn.BatchNorm2d(count), nn.ReLU(inplace=True)]
                layers += [nn.Conv2d(count, count // 2, 1, bias=False), nn.AvgPool2d(2)]
                count //= 2
            for _ in range(depth):
                layers.append(DenseLayer(count, growth))
                count += growth
        super().__init__(*layers, nn.BatchNorm2d(count), nn.ReLU(inplace=True))


BACKBONES: dict[str, Callable[[], Backbone]] = {
    "compact": Compact,
    "medium": Medium,
    "mobile": Mobile,
    "resnet18": ResNet18,
    "resnet50": ResNet50,
    "densenet121": DenseNet121,
    "tiny": Tiny,
}
"""Name in the configuration -> class."""


def normalised(image: Tensor) -> Tensor:
    """Brightness 0..255 -> what backbones take: a power of two, which folds into the first layer's weights exactly."""
    return image * (1.0 / 128.0)


class FeatureExtractor(nn.Module):
    """Image -> features. The map is weighed by place (global depthwise convolution, MobileFaceNet, Chen et al. 2018),
    not averaged: where something is matters as much as whether it is there."""

    bfloat16 = False
    """Compute in bfloat16 (in training; its gradients then too), whatever the weights are."""

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
        image = normalised(image)
        if not self.bfloat16:
            features: Tensor = self.pool(self.backbone(image))
            return features
        with torch.autocast(image.device.type, torch.bfloat16):
            return self.pool(self.backbone(image)).float()


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

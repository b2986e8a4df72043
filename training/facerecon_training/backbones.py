"""Image -> feature map -> feature vector: the backbones by name. Needs torch only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

Network = TypeVar("Network", bound=nn.Module)


class StridedDepthwise(nn.Conv2d):
    """A depthwise convolution with a stride, which stays in float32 where the layers around it are in bfloat16.

    On processors, PyTorch 2.13 takes 20 times as long for its gradient in bfloat16.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Compute (N, C, H / stride, W / stride) from (N, C, H, W)."""
        if not torch.is_autocast_enabled(x.device.type):
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True) -> nn.Sequential:
    """Return a convolution with BatchNorm, and ReLU unless `relu` is False."""
    convolution = StridedDepthwise if groups == inputs and stride > 1 else nn.Conv2d
    layers: list[nn.Module] = [
        convolution(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class FusedBlock(nn.Module):
    """Dense expansion and 1x1 projection, fast to train and to quantise (EfficientNet-EL, Gupta and Tan 2019)."""

    def __init__(self, inputs: int, expanded: int, outputs: int, stride: int, kernel: int = 3) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(conv(inputs, expanded, kernel, stride), conv(expanded, outputs, 1, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        """Compute (N, outputs, H / stride, W / stride) from (N, C, H, W)."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise convolution and 1x1 projection (MobileNetV2, Sandler et al. 2018)."""

    def __init__(self, inputs: int, expanded: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            conv(inputs, expanded, 1),
            conv(expanded, expanded, 3, stride, groups=expanded),
            conv(expanded, outputs, 1, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute (N, outputs, H / stride, W / stride) from (N, C, H, W)."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class Backbone(nn.Sequential):
    """Base class of the backbones: takes (N, 3, S, S) and gives (N, channels, S / 32, S / 32)."""

    channels: int


class Compact(Backbone):
    """A smaller backbone than the default `Medium`, 52 MMACs at 128 px.

    It is `Mobile` with overlapping patches (PVTv2, Wang et al. 2022) instead of its first two layers. It lacks the last
    block of `Mobile` at 8x8 and at 4x4 pixels.
    """

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
    """A backbone like `Compact` with one more block at each resolution. 111 MMACs at 160 px."""

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
    """A backbone of stride 32 with dense 3x3 convolutions early and inverted residuals late. 62 MMACs at 128 px."""

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
    """A backbone of a few thousand weights, for tests of everything around the network."""

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
        """Compute (N, width, H / stride, W / stride) from (N, C, H, W)."""
        y: Tensor = self.layers(x) + self.shortcut(x)
        return torch.relu(y)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (He et al., CVPR 2016).

    The 3x3 convolution has the stride, as in every library.
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.layers = nn.Sequential(
            conv(inputs, width, 1), conv(width, width, 3, stride), conv(width, outputs, 1, relu=False)
        )
        self.shortcut = shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Compute (N, 4 * width, H / stride, W / stride) from (N, C, H, W)."""
        y: Tensor = self.layers(x) + self.shortcut(x)
        return torch.relu(y)


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return the identity, or a 1x1 convolution if the shape changes."""
    return nn.Identity() if stride == 1 and inputs == outputs else conv(inputs, outputs, 1, stride, relu=False)


def resnet_stages(block: type[BasicBlock] | type[Bottleneck], depths: tuple[int, ...]) -> list[nn.Module]:
    """Return the stem and the four stages of a residual network."""
    layers: list[nn.Module] = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, depth in enumerate(depths):
        width = 64 << stage
        for index in range(depth):
            layers.append(block(inputs, width, 2 if index == 0 and stage else 1))
            inputs = width * block.expansion
    return layers


class ResNet18(Backbone):
    """The ResNet-18 of He et al., Deep residual learning, CVPR 2016. 0.6 GMACs at 128 px."""

    channels = 512
    depths = (2, 2, 2, 2)
    """Blocks per stage."""

    def __init__(self) -> None:
        super().__init__(*resnet_stages(BasicBlock, self.depths))


class ResNet50(Backbone):
    """The ResNet-50 of He et al., Deep residual learning, CVPR 2016. 1.3 GMACs at 128 px."""

    channels = 2048
    depths = (3, 4, 6, 3)
    """Blocks per stage."""

    def __init__(self) -> None:
        super().__init__(*resnet_stages(Bottleneck, self.depths))


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, 1x1, BatchNorm, ReLU and 3x3. The result is appended to the input's channels."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(inplace=True),
            conv(inputs, 4 * growth, 1),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute (N, C + growth, H, W) from (N, C, H, W)."""
        return torch.cat([x, self.layers(x)], 1)


class DenseNet121(Backbone):
    """The DenseNet-121 of Huang et al., Densely connected convolutional networks, CVPR 2017. 0.9 GMACs at 128 px."""

    channels = 1024
    depths = (6, 12, 24, 16)
    """Layers per stage."""

    def __init__(self) -> None:
        growth, count = 32, 64
        layers: list[nn.Module] = [conv(3, count, 7, 2), nn.MaxPool2d(3, 2, 1)]
        for stage, depth in enumerate(self.depths):
            if stage:  # transition: half the channels, half the size
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


PLACE_CHANNELS = 64
"""Channels of the map from which features that mix channels and places are read."""


def normalised(image: Tensor) -> Tensor:
    """Scale brightness 0..255 for the backbones by a power of two, which folds into the first weights exactly."""
    return image * (1.0 / 128.0)


class FeatureExtractor(nn.Module):
    """Image -> features. The place of what the last map shows matters as much as its presence.

    `pool` weighs each channel by place (a global depthwise convolution: MobileFaceNet, Chen et al. 2018). `places`
    mixes channels and places: a linear map from the whole map, of fewer channels, to further features. Shapes of
    people can be read from both more exactly than from the pooled features alone (measured in training/RUNS.md).
    """

    mixed_precision = False
    """Whether training computes the features, and their gradients, in bfloat16. The weights keep their type."""

    def __init__(self, backbone: str, input_size: int, places: int = 0) -> None:
        """`places` is the number of features that mix channels and places, an even number."""
        super().__init__()
        self.backbone = BACKBONES[backbone]()
        channels, side = self.backbone.channels, input_size // 32
        self.pool = nn.Sequential(
            nn.Conv2d(channels, channels, side, groups=channels, bias=False), nn.BatchNorm2d(channels), nn.Flatten()
        )
        self.places = (
            nn.Sequential(
                conv(channels, PLACE_CHANNELS, 1, relu=False),
                nn.Flatten(),
                nn.Linear(PLACE_CHANNELS * side**2, places, bias=False),
                nn.BatchNorm1d(places),
            )
            if places
            else None
        )
        self.feature_count = channels + places
        self.identity_features = slice(places // 2, places + channels // 2)
        """The half of the features that describes the person: half of either kind. They stand in the middle."""

    def forward(self, image: Tensor) -> Tensor:
        """Compute (N, feature_count) from (N, 3, S, S) float 0..255, BGR."""
        image = normalised(image)
        if not self.mixed_precision:
            return self._features(image)
        with torch.autocast(image.device.type, torch.bfloat16):
            return self._features(image).float()

    def _features(self, image: Tensor) -> Tensor:
        last_map = self.backbone(image)
        pooled: Tensor = self.pool(last_map)
        return pooled if self.places is None else torch.cat([self.places(last_map), pooled], 1)


def in_channels_last(network: Network) -> Network:
    """Return the network with its convolutions' weights in channels_last order, which is faster on processors."""
    return convert_conv2d_weight_memory_format(network, torch.channels_last)


def multiply_adds(module: nn.Module, image: Tensor) -> int:
    """Return the multiply-adds of all convolutions and linear layers in one forward pass of `image`."""
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

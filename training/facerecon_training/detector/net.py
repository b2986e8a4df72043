"""Pictures -> faces: a small anchor-free detector, its targets, its loss and its decoding.

The network makes one prediction per cell of 8 x 8 pixels: the score that a face's centre lies there, the offset to that
centre, the side of the face box, and the head's roll. Centres are Gaussian peaks with a penalty-reduced focal loss
(Zhou et al., Objects as Points, 2019). Boxes are learned from every cell near the centre, weighted by the Gaussian,
which trains several times faster (Liu et al., Training-Time-Friendly Network for Real-Time Object Detection, AAAI
2020).
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from facerecon_rt.faces.detector_contract import BOX_CHANNELS, DETECTOR_VERSION, SIDE_UNIT, STRIDE
from facerecon_rt.types import Floats
from torch import Tensor, nn

SIGMA = 0.11
"""Standard deviation of a face's Gaussian, in sides of its box."""
LEAST_SIGMA = 0.45
"""Smallest standard deviation in cells, so that a centre between two cells penalises neither."""
LEAST_WEIGHT = 0.3
"""Value of the Gaussian below which cells do not learn the box."""
RARE = 0.02
"""Initial score of every cell. Almost all cells are background."""


class ConvUnit(nn.Sequential):
    """3x3 (or 1x1) convolution, BatchNorm and ReLU, which every inference engine fuses into one operation."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al., CVPR 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvUnit(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Compute (N, C, H, W) from (N, C, H, W)."""
        return F.relu(x + self.second(self.first(x)))


class FaceDetectorNet(nn.Module):
    """The network from an image to a score and a box per cell."""

    def __init__(self, channels: tuple[int, ...] = (16, 24, 48, 64, 80), neck: int = 32) -> None:
        """Build the network.

        `channels` are the numbers of channels at strides 2, 4, 8, 16 and 32. `neck` is the number of channels of the
        maps that are added up at stride 8.
        """
        super().__init__()
        c2, c4, c8, c16, c32 = channels
        self.stage4 = nn.Sequential(ConvUnit(3, c2, 2), ConvUnit(c2, c4, 2), ConvUnit(c4, c4))
        self.stage8 = nn.Sequential(ConvUnit(c4, c8, 2), ResidualUnit(c8))
        self.stage16 = nn.Sequential(ConvUnit(c8, c16, 2), ResidualUnit(c16))
        self.stage32 = nn.Sequential(ConvUnit(c16, c32, 2), ResidualUnit(c32))
        self.lateral8 = nn.Conv2d(c8, neck, 1)
        self.lateral16 = nn.Conv2d(c16, neck, 1)
        self.lateral32 = nn.Conv2d(c32, neck, 1)
        self.smooth16 = ConvUnit(neck, neck)
        self.smooth8 = nn.Sequential(ConvUnit(neck, neck), ConvUnit(neck, neck))
        self.head = nn.Conv2d(neck, 1 + BOX_CHANNELS[DETECTOR_VERSION], 1)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            # The initial answer is rare, in the centre of its cell, SIDE_UNIT pixels large and upright.
            self.head.get_parameter("bias").copy_(torch.tensor([-math.log(1 / RARE - 1), 0.0, 0.0, 0.0, 1.0, 0.0]))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Compute score logits (N, h, w) and boxes (N, 5, h, w) of pictures (N, 3, H, W) float 0..255 BGR.

        H and W are multiples of 32; h = H / 8 and w = W / 8. A box consists of the offset from the cell's centre to the
        face's centre (x and y in sides), the logarithm of the side in units of SIDE_UNIT pixels, and cosine and sine of
        the roll, clockwise.
        """
        # This factor is a power of two, so it folds exactly into the first convolution.
        x8 = self.stage8(self.stage4(image * (1 / 128)))
        x16 = self.stage16(x8)
        x32 = self.stage32(x16)
        y16 = self.smooth16(self.lateral16(x16) + F.interpolate(self.lateral32(x32), scale_factor=2.0, mode="nearest"))
        y8 = self.smooth8(self.lateral8(x8) + F.interpolate(y16, scale_factor=2.0, mode="nearest"))
        out = self.head(y8)
        return out[:, 0], out[:, 1:]


def make_targets(faces: Floats, height: int, width: int) -> Floats:
    """Return the targets of the cells, (8, h, w).

    `faces` is (K, 5): centre x, centre y and side in input pixels, known, roll. The channels are:

    - 0: heat 0..1, exactly 1 at the cell that holds a known face's centre, or at the nearest edge cell for a centre
      outside
    - 1-5: box as in FaceDetectorNet
    - 6: weight of the box, with sum 1 per face
    - 7: 1 where the heat counts, 0 in regions to ignore
    """
    h, w = height // STRIDE, width // STRIDE
    targets = np.zeros((8, h, w), np.float32)
    heat, box, weight, counts = targets[0], targets[1:6], targets[6], targets[7]
    counts[:] = 1.0
    # Centres of the cells in input pixels; the origin is the centre of the top-left pixel.
    xs = np.arange(w, dtype=np.float32) * STRIDE + (STRIDE - 1) / 2
    ys = np.arange(h, dtype=np.float32)[:, None] * STRIDE + (STRIDE - 1) / 2
    for x, y, side, _, _ in faces[faces[:, 3] < 0.5]:
        counts[(np.abs(xs - x) <= side / 2) & (np.abs(ys - y) <= side / 2)] = 0.0
    # Large faces come first, so that the smaller face decides where two regions overlap.
    known_faces = faces[faces[:, 3] >= 0.5]
    for x, y, side, _, roll in known_faces[np.argsort(-known_faces[:, 2])]:
        # Cells at the edge predict a face whose centre is outside. Their boxes point out of the picture.
        at_x, at_y = min(max(x, xs[0]), xs[-1]), min(max(y, ys[0, 0]), ys[-1, 0])
        column, row = int((at_x + 0.5) // STRIDE), int((at_y + 0.5) // STRIDE)
        sigma = max(SIGMA * side, LEAST_SIGMA * STRIDE)
        gauss = np.exp(-((xs - at_x) ** 2 + (ys - at_y) ** 2) / (2 * sigma**2))
        np.maximum(heat, gauss * (gauss > 0.01), out=heat)
        heat[row, column] = counts[row, column] = 1.0
        near = gauss >= LEAST_WEIGHT
        near[row, column] = True
        box[0][near] = (np.broadcast_to(x - xs, near.shape) / side)[near]
        box[1][near] = (np.broadcast_to(y - ys, near.shape) / side)[near]
        box[2][near] = math.log(side / SIDE_UNIT)
        box[3][near], box[4][near] = math.cos(roll), math.sin(roll)
        weight[near] = gauss[near] / gauss[near].sum()
    return targets


def heat_loss(logits: Tensor, heat: Tensor, counts: Tensor) -> Tensor:
    """Return the penalty-reduced focal loss, alpha 2 and beta 4, of arrays (N, h, w), as a scalar.

    It is the sum per known face, or per picture if there are more pictures than faces.
    """
    score = torch.sigmoid(logits)
    centre = (heat == 1.0).float()
    positive = centre * (1 - score) ** 2 * F.logsigmoid(logits)
    negative = (1 - centre) * (1 - heat) ** 4 * score**2 * F.logsigmoid(-logits)
    return -((positive + negative) * counts).sum() / centre.sum().clamp(min=len(heat))


def box_loss(boxes: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the mean over faces of |dx| + |dy| + |log side|, in sides, as a scalar.

    The boxes are (N, 3, h, w) and the weights (N, h, w).
    """
    return _per_face((boxes - target).abs().sum(1), weight)


def roll_loss(rolls: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the mean over faces of the sum of squared errors of cosine and sine, as a scalar.

    The rolls are (N, 2, h, w) and the weights (N, h, w). The error is squared because most faces stand upright: the
    smallest absolute error would come from calling all of them upright.
    """
    return _per_face((rolls - target).square().sum(1), weight)


def _per_face(error: Tensor, weight: Tensor) -> Tensor:
    return (error * weight).sum() / weight.sum().clamp(min=1.0)


def detector_loss(
    logits: Tensor, boxes: Tensor, targets: Tensor, box_weight: float, roll_weight: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return total, heat, box and roll loss, each a scalar, for targets (N, 8, h, w) of `make_targets`."""
    heat = heat_loss(logits, targets[:, 0], targets[:, 7])
    box = box_loss(boxes[:, :3], targets[:, 1:4], targets[:, 6])
    roll = roll_loss(boxes[:, 3:], targets[:, 4:6], targets[:, 6])
    return heat + box_weight * box + roll_weight * roll, heat, box, roll

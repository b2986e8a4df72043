"""Photographs, predicted geometry and skin -> the photometric loss: how well light explains the colours. No rasteriser.

For each visible vertex, the loss compares the photograph's colour with albedo times second-order spherical-harmonics
light (MoFA, Tewari et al., ICCV 2017; Ramamoorthi and Hanrahan, SIGGRAPH 2001). The light is not predicted. For given
albedo and normals it is the solution of a linear least-squares problem, so the loss compares with the best possible
light.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from facerecon_rt.errors import UsageError
from facerecon_rt.template import load_template
from facerecon_rt.types import Floats
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .arrays import read_arrays, readable
from .model import project

SKIN_CODE = 20
"""Number of principal components of skin albedo."""
GAMMA = 2.2
OUTLIER = 0.3
"""Colour difference, relative to the face's mean brightness, beyond which a pixel counts as occluder, hair or
highlight."""
LIGHT_RIDGE = 0.02
"""Ridge, relative to the visible weight, that keeps light from overfitting a face seen from one side."""


@dataclass(frozen=True, slots=True, eq=False)
class SkinModel:
    """Skin albedo on the template: mean + code @ basis. The median is 1 per channel, because the light carries the
    tone."""

    mean: Tensor
    """Mean albedo (V * 3,) BGR."""
    basis: Tensor
    """Basis (SKIN_CODE, V * 3), in standard deviations."""

    @classmethod
    def read(cls, path: Path, device: torch.device | str = "cpu") -> SkinModel:
        """Read the file that `prepare` wrote. Raises UsageError if it does not exist or is damaged."""
        if not path.is_file():
            raise UsageError(f"{path} does not exist; `facerecon-train prepare --out {path.parent}` writes it")
        arrays = read_arrays(path)
        with readable(path):
            return cls(*(torch.from_numpy(arrays[name].astype(np.float32)).to(device) for name in ("mean", "basis")))

    def albedo(self, code: Tensor) -> Tensor:
        """Return the albedo (N, V, 3) of codes (N, SKIN_CODE)."""
        return (self.mean + code @ self.basis).reshape(len(code), -1, 3).clamp(min=0.02)


def fit_skin(
    colours: Floats, source_vertices: NDArray[np.integer], source_weights: Floats
) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    """Return mean (V * 3,) and basis (SKIN_CODE, V * 3) on the template from albedo (P, F, 3) on the head's vertices.

    source_vertices and source_weights (V, 3) are those of `morphable.face_from_head`. With fewer faces than components
    the other rows of the basis are 0.
    """
    rows = []
    for one in colours:
        carried = (one[source_vertices].astype(np.float32) * source_weights[..., None]).sum(1)
        rows.append((carried / np.maximum(np.median(carried, axis=0), 1e-3)).clip(0, 4).ravel())
    faces = np.stack(rows)
    mean = faces.mean(0)
    _, values, vectors = np.linalg.svd(faces - mean, full_matrices=False)
    basis = np.zeros((SKIN_CODE, faces.shape[1]), np.float16)
    kept = min(SKIN_CODE, len(values))
    basis[:kept] = vectors[:kept] * values[:kept, None] / np.sqrt(len(faces))
    return mean.astype(np.float32), basis


def photometric_loss(image: Tensor, vertices: Tensor, camera: Tensor, albedo: Tensor) -> Tensor:
    """Return the mean squared colour error (N,) of the visible vertices, in squared mean brightness.

    The inputs are pictures (N, 3, S, S) 0..255 BGR, vertices (N, V, 3) in mm, cameras (N, 3, 4) and albedo (N, V, 3).
    The error is robust to pixels that are not skin (Geman and McClure 1987).
    """
    points = project(camera, vertices)
    normals = vertex_normals(points)
    colours = sample((image / 255.0) ** GAMMA, points[:, :, :2])
    size = image.shape[-1]
    inside = ((points[:, :, :2] > 0) & (points[:, :, :2] < size - 1)).all(2)
    # Depth grows away from the viewer. Vertices at the rim, where a pixel covers much surface, count less.
    weight = (((-normals[:, :, 2]).clamp(0, 1) - 0.15) / 0.5).clamp(0, 1).detach() * inside
    weight = weight * (colours.detach().amax(2) < 0.97)  # overexposed pixels have lost their colour
    brightness = (colours * weight[:, :, None]).sum((1, 2)) / (3 * weight.sum(1)).clamp(min=1)
    target = colours / brightness.detach().clamp(min=1e-3)[:, None, None]
    basis = light_basis(normals)
    with torch.no_grad():
        light = fit_light(basis, albedo, target, weight[:, :, None].expand_as(target))
        difference = albedo * (basis @ light) - target
        trust = weight[:, :, None] / (1 + (difference / OUTLIER) ** 2) ** 2
        light = fit_light(basis, albedo, target, trust)
    squared = (albedo * (basis @ light) - target) ** 2
    robust = (squared / (1 + squared / OUTLIER**2)).mean(2)
    return (robust * weight).sum(1) / weight.sum(1).clamp(min=1)


def vertex_normals(points: Tensor) -> Tensor:
    """Return unit normals (N, V, 3), outwards, of template vertices (N, V, 3) in any right-handed frame."""
    triangles = torch.from_numpy(load_template().triangles.astype(np.int64)).to(points.device)
    corners = points[:, triangles]
    faces = torch.linalg.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0], dim=2)
    total = torch.zeros_like(points)
    for corner in range(3):
        total = total.index_add(1, triangles[:, corner], faces)
    return functional.normalize(total, dim=2)


def sample(image: Tensor, places: Tensor) -> Tensor:
    """Sample pictures (N, C, S, S) at places (N, K, 2) in pixels: (N, K, C), bilinear, with the border repeated."""
    grid = (2 * places + 1) / image.shape[-1] - 1
    sampled = functional.grid_sample(image, grid[:, :, None], padding_mode="border", align_corners=False)
    return sampled[:, :, :, 0].transpose(1, 2)


def light_basis(normals: Tensor) -> Tensor:
    """Return a basis (N, V, 9) of spherical harmonics up to degree 2 at unit normals (N, V, 3).

    The usual factors are left out. They would only rescale the light, which is solved for.
    """
    x, y, z = normals.unbind(2)
    return torch.stack(
        [torch.ones_like(x), x, y, z, x * y, y * z, x * z, 1.5 * z * z - 0.5, (x * x - y * y) / 2], dim=2
    )


def fit_light(basis: Tensor, albedo: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the light (N, 9, 3) that explains `target` best.

    The inputs are the basis (N, V, 9), albedo and target (N, V, 3), and weights (N, V, 3).
    """
    ridge = LIGHT_RIDGE * torch.diag(torch.tensor([1e-3, *([1.0] * 8)])).to(basis)
    channels = []
    for channel in range(3):
        design = basis * albedo[:, :, channel, None]
        weighted = design * weight[:, :, channel, None]
        normal = weighted.transpose(1, 2) @ design
        total = weight[:, :, channel].sum(1).clamp(min=1)[:, None, None]
        channels.append(
            torch.linalg.solve(normal + total * ridge, weighted.transpose(1, 2) @ target[:, :, channel, None])
        )
    return torch.cat(channels, 2)

"""Light explains the colours of a face that is where it is said to be, and of no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from facerecon_rt.errors import UsageError
from facerecon_rt.template import load_template
from facerecon_training.model import project
from facerecon_training.photometric import (
    GAMMA,
    SKIN_CODE,
    SkinModel,
    fit_light,
    fit_skin,
    light_basis,
    photometric_loss,
    sample,
    vertex_normals,
)
from facerecon_training.rendered.morphable import MorphableFace
from facerecon_training.rendered.render import camera_for_crop, rasterise
from torch import Tensor

SIZE = 96


@pytest.fixture
def scene(ball_face: MorphableFace) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A picture of a patterned face under one light in front of grey; its vertices, camera and albedo."""
    camera = torch.from_numpy(camera_for_crop(0, 15, 0, SIZE, SIZE * 0.9))[None]
    vertices = torch.from_numpy(ball_face.mean)[None]
    normals = vertex_normals(project(camera, vertices))
    albedo = 0.6 + 0.3 * torch.sin(vertices / 12)
    light = torch.tensor([0.5, 0.1, -0.1, -0.2, 0, 0, 0, 0.05, 0])[None, :, None].expand(1, 9, 3)
    colours = (albedo * (light_basis(normals) @ light)).clamp(0.01, 0.9)[0].numpy()
    grey = np.full((SIZE, SIZE, 3), 0.2, np.float32)
    picture = rasterise(ball_face.mean, load_template().triangles, colours, camera[0].numpy(), grey)
    image = 255 * torch.from_numpy(picture) ** (1 / GAMMA)
    return image.permute(2, 0, 1)[None].contiguous(), vertices, camera, albedo


def test_a_face_out_of_place_is_explained_worse(scene: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    image, vertices, camera, albedo = scene
    right = photometric_loss(image, vertices, camera, albedo).item()
    moved = camera.clone()
    moved[0, 0, 3] += 12
    assert right < 0.02
    assert photometric_loss(image, vertices, moved, albedo).item() > 4 * right


def test_the_loss_does_not_depend_on_exposure(scene: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    image, vertices, camera, albedo = scene
    bright = photometric_loss(image, vertices, camera, albedo)
    dark = photometric_loss(image * 0.5, vertices, camera, albedo)
    torch.testing.assert_close(bright, dark, rtol=0.05, atol=1e-5)


def test_gradients_reach_geometry_camera_and_skin(scene: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    image, vertices, camera, albedo = scene
    leaves = [vertices.requires_grad_(), camera.requires_grad_(), albedo.requires_grad_()]
    photometric_loss(image, *leaves).sum().backward()
    for leaf in leaves:
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
        assert leaf.grad.abs().max() > 0


def test_light_is_found_again(ball_face: MorphableFace) -> None:
    generator = torch.Generator().manual_seed(0)
    basis = light_basis(vertex_normals(torch.from_numpy(ball_face.mean)[None]))
    albedo = 0.5 + torch.rand(basis.shape[0], basis.shape[1], 3, generator=generator)
    light = torch.tensor([1.0, 0.3, -0.2, 0.4, 0, 0.1, 0, 0.1, 0])[None, :, None].expand(1, 9, 3)
    found = fit_light(basis, albedo, albedo * (basis @ light), torch.ones_like(albedo))
    # The ridge holds back what the normals hardly show.
    assert (basis @ found - basis @ light).abs().mean() < 0.02


def test_normals_point_outwards(ball_face: MorphableFace) -> None:
    vertices = torch.from_numpy(ball_face.mean)[None]
    normals = vertex_normals(vertices)
    nose = int(load_template().landmarks[30])
    torch.testing.assert_close(normals.norm(dim=2), torch.ones(1, vertices.shape[1]))
    assert normals[0, nose, 2] > 0.5


def test_a_sample_lies_between_its_pixels() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    places = torch.tensor([[[1.0, 2.0], [1.5, 2.0], [-5.0, 0.0]]])
    torch.testing.assert_close(sample(image, places)[0, :, 0], torch.tensor([9.0, 9.5, 0.0]))


def test_a_skin_model_spans_its_faces(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    vertices = load_template().vertex_count
    sources = random.integers(0, 50, (vertices, 3))
    weights = np.full((vertices, 3), 1 / 3, np.float32)
    colours = random.uniform(0.2, 0.8, (5, 50, 3)).astype(np.float32)
    mean, basis = fit_skin(colours, sources, weights)
    np.savez(tmp_path / "skin.npz", mean=mean, basis=basis)
    skin = SkinModel.read(tmp_path / "skin.npz")
    assert np.abs(basis[4:]).max() < 1e-5  # five faces differ in four ways
    carried = (colours[2][sources] * weights[..., None]).sum(1)
    wanted = torch.from_numpy(carried / np.median(carried, axis=0)).flatten()
    code = torch.linalg.lstsq(skin.basis[:4].T, (wanted - skin.mean)[:, None]).solution[:, 0]
    padded = torch.nn.functional.pad(code, (0, SKIN_CODE - 4))[None]
    torch.testing.assert_close(skin.albedo(padded).flatten(), wanted, atol=0.01, rtol=0.01)
    with pytest.raises(UsageError, match="facerecon-train prepare"):
        SkinModel.read(tmp_path / "none.npz")

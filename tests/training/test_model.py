"""The network's outputs are one face: shape, expression, camera and landmarks that agree."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from facerecon_rt.align import CROP_CENTRE_MM, CROP_SIDE_MM
from facerecon_rt.contract import BLENDSHAPES, OUTPUTS
from facerecon_rt.template import load_template
from facerecon_training.backbones import BACKBONES, FeatureExtractor, InvertedResidual, conv, multiply_adds
from facerecon_training.checkpoint import load_weights
from facerecon_training.model import (
    EYE_DISTANCE_MM,
    FaceModel,
    FaceOutput,
    ModelConfig,
    camera_from_parameters,
    gaze_vectors,
    project,
)
from facerecon_training.rendered import expressions
from facerecon_training.rendered.expressions import EYE_LOOK, EYE_LOOK_DEG

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture
def model() -> FaceModel:
    """Tiny, its decoders filled with something."""
    torch.manual_seed(0)
    model = FaceModel(ModelConfig("tiny", 64)).eval()
    reconstructor = model.reconstructor
    with torch.no_grad():
        for parameter in (reconstructor.mean, reconstructor.shape_basis, reconstructor.expression_basis):
            parameter.normal_(std=10)
    return model


def images(count: int, size: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 255


def test_a_camera_is_a_scale_times_a_rotation() -> None:
    parameters = torch.randn(50, 9, generator=torch.Generator().manual_seed(0))
    linear = camera_from_parameters(parameters, 128)[:, :, :3]
    scale = 128 / CROP_SIDE_MM * torch.exp(parameters[:, 6])
    rotation = linear / scale[:, None, None]
    torch.testing.assert_close(rotation @ rotation.transpose(1, 2), torch.eye(3).repeat(50, 1, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(50), atol=1e-5, rtol=0)


def test_the_cameras_last_parameters_place_the_crop_centre() -> None:
    parameters = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    centre = project(camera_from_parameters(parameters, 128), torch.tensor(CROP_CENTRE_MM).expand(5, 1, 3))[:, 0]
    torch.testing.assert_close(centre[:, :2], 128 * (0.5 + 0.5 * parameters[:, 7:]) - 0.5, atol=1e-4, rtol=0)
    torch.testing.assert_close(centre[:, 2], torch.zeros(5), atol=1e-4, rtol=0)


def test_an_untrained_model_sees_an_upright_frontal_head_in_the_middle() -> None:
    model = FaceModel(ModelConfig("tiny", 64)).eval()
    camera = model(images(1)).crop_from_head[0].detach()
    scale = 64 / CROP_SIDE_MM
    torch.testing.assert_close(camera[:, :3], torch.diag(torch.tensor([scale, -scale, -scale])))
    centre = camera[:, :3] @ torch.tensor(CROP_CENTRE_MM) + camera[:, 3]
    torch.testing.assert_close(centre, torch.tensor([31.5, 31.5, 0.0]))


def test_projecting_is_the_affine_map_of_each_row() -> None:
    camera = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    points = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1))
    homogeneous = torch.cat([points, torch.ones(2, 5, 1)], 2)
    torch.testing.assert_close(project(camera, points), torch.einsum("nij,nkj->nki", camera, homogeneous))


def test_outputs_have_the_contracts_shapes_and_ranges(model: FaceModel) -> None:
    vertices = load_template().vertex_count
    output = model(images(3))
    assert [tuple(tensor.shape) for tensor in output] == [
        (3, vertices, 3),
        (3, vertices, 3),
        (3, 53),
        (3, 3, 4),
        (3, 68, 3),
        (3,),
        (3, 2, 3),
        (3, 64),
        (3, 64),
    ]
    assert FaceOutput._fields == OUTPUTS
    for weights in (output.expression, output.confidence, output.identity_variance):
        assert (weights >= 0).all()
        assert (weights <= 1).all()


def test_landmarks_are_the_projected_vertices(model: FaceModel) -> None:
    output, codes = model.with_codes(images(3))
    rows = torch.from_numpy(load_template().landmarks).long()
    expected = project(output.crop_from_head, output.vertices[:, rows])
    torch.testing.assert_close(codes.vertex_landmarks, expected, atol=1e-3, rtol=1e-4)
    # Untrained, nothing is known of annotators.
    torch.testing.assert_close(output.landmarks, expected, atol=1e-3, rtol=1e-4)


def test_annotation_offsets_move_landmarks_in_the_picture_alone(model: FaceModel) -> None:
    with torch.no_grad():
        model.reconstructor.annotation.bias[2 * 30] = 0.1
    output, codes = model.with_codes(images(3))
    offset = torch.zeros(3, 68, 3)
    offset[:, 30, 0] = 0.1 * EYE_DISTANCE_MM / CROP_SIDE_MM * 64
    torch.testing.assert_close(output.landmarks - codes.vertex_landmarks, offset, atol=1e-3, rtol=1e-4)


def test_vertices_are_shape_plus_expression(model: FaceModel) -> None:
    output = model(images(2))
    offsets = (output.expression @ model.reconstructor.expression_basis).reshape(output.shape.shape)
    torch.testing.assert_close(output.vertices, output.shape + offsets, atol=1e-3, rtol=1e-4)


def test_shape_does_not_depend_on_the_features_of_motion(model: FaceModel) -> None:
    features = torch.randn(2, model.extractor.feature_count, generator=torch.Generator().manual_seed(0))
    other = features + 3
    person = model.extractor.identity_features
    other[:, person] = features[:, person]
    (before, codes), (after, _) = model.reconstructor(features), model.reconstructor(other)
    torch.testing.assert_close(before.shape, after.shape, atol=0, rtol=0)
    assert (before.expression != after.expression).any()
    assert (before.confidence != after.confidence).any()
    torch.testing.assert_close(codes.features, features[:, person])
    assert codes.features.shape == (2, model.extractor.feature_count // 2)


def test_codes_belong_to_the_outputs(model: FaceModel) -> None:
    output, codes = model.with_codes(images(2))
    torch.testing.assert_close(torch.sigmoid(codes.confidence_logit), output.confidence)
    others = (model.reconstructor.eye_look == 0).all(0)
    torch.testing.assert_close(torch.sigmoid(codes.expression_logit)[:, others], output.expression[:, others])
    torch.testing.assert_close(gaze_vectors(codes.gaze_rad), output.gaze)
    torch.testing.assert_close(codes.shape_code, output.identity)
    torch.testing.assert_close(codes.log_variance.exp(), output.identity_variance)
    shape = model.reconstructor.mean + codes.shape_code @ model.reconstructor.shape_basis
    torch.testing.assert_close(shape.reshape(output.shape.shape), output.shape, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("yaw", "pitch", "vector"),
    [(0, 0, (0.0, 0, 1)), (30, 0, (0.5, 0, 3**0.5 / 2)), (0, 30, (0, 0.5, 3**0.5 / 2)), (90, 30, (3**0.5 / 2, 0.5, 0))],
)
def test_gaze_is_as_in_rendered_people(yaw: float, pitch: float, vector: tuple[float, float, float]) -> None:
    angles = torch.deg2rad(torch.tensor([[float(yaw), float(pitch)]]))
    torch.testing.assert_close(gaze_vectors(angles), torch.tensor([vector]), atol=1e-6, rtol=0)
    rendered = expressions.gaze_vectors(np.array([yaw, pitch], np.float32))
    np.testing.assert_allclose(gaze_vectors(angles)[0].numpy(), rendered, atol=1e-6)


@pytest.mark.parametrize(
    "gaze_deg", [((15, 0), (15, 0)), ((-10, 20), (-4, 20)), ((-45, -30), (45, -12)), ((0, 0), (0, 0))]
)
def test_the_look_weights_are_what_the_gaze_makes_them(
    model: FaceModel, gaze_deg: tuple[tuple[float, float], ...]
) -> None:
    """As `expressions.eye_look_from_gaze` has them, with vertices and landmarks that follow."""
    reconstructor = model.reconstructor
    with torch.no_grad():
        reconstructor.gaze.bias.copy_(torch.tensor(gaze_deg).flatten() / EYE_LOOK_DEG)
        reconstructor.expression.bias.normal_()
        output, codes = model.with_codes(images(2))
    expected = expressions.eye_look_from_gaze(np.array(gaze_deg, np.float32))
    for eye, indices in enumerate(EYE_LOOK):
        np.testing.assert_allclose(output.expression[:, list(indices)].numpy(), [expected[eye]] * 2, atol=1e-5)
    np.testing.assert_allclose(np.degrees(codes.gaze_rad[0].numpy()), gaze_deg, atol=1e-4)
    offsets = (output.expression @ reconstructor.expression_basis).reshape(output.shape.shape)
    torch.testing.assert_close(output.vertices, output.shape + offsets, atol=1e-3, rtol=1e-4)
    rows = torch.from_numpy(load_template().landmarks).long()
    expected_points = project(output.crop_from_head, output.vertices[:, rows])
    torch.testing.assert_close(codes.vertex_landmarks, expected_points, atol=1e-3, rtol=1e-4)


def test_an_untrained_model_looks_ahead_and_is_hardly_sure_of_anything() -> None:
    output = FaceModel(ModelConfig("tiny", 64)).eval()(images(1))
    torch.testing.assert_close(output.gaze, torch.tensor([0.0, 0, 1]).expand(1, 2, 3))
    # 1 / (1 + exp(-2)): 1 is to know nothing.
    torch.testing.assert_close(output.identity_variance, torch.full((1, 64), 1 / (1 + math.exp(-2))))


def test_a_variance_is_never_more_than_that_of_people(model: FaceModel) -> None:
    with torch.no_grad():
        model.reconstructor.precision.bias.copy_(torch.linspace(-40, 40, 64))
        variance = model(images(1)).identity_variance[0]
    assert (variance <= 1).all() and variance[0] == 1
    assert (variance[1:] <= variance[:-1]).all()
    assert 0 < variance[-1] < 1e-15


def test_weights_of_before_gaze_say_it_by_their_look_weights(model: FaceModel) -> None:
    """Half of eyeLookOut on the left and all of eyeLookUp: 15 degrees out, 30 up."""
    older = FaceModel(ModelConfig("tiny", 64, gaze=False)).eval()
    assert not any("gaze" in name or "precision" in name for name in older.state_dict())
    with torch.no_grad():
        older.reconstructor.expression.weight.zero_()
        older.reconstructor.expression.bias.fill_(-50)
        for name, logit in (("eyeLookOut_L", 0.0), ("eyeLookUp_L", 50.0), ("eyeLookIn_R", 0.0)):
            older.reconstructor.expression.bias[BLENDSHAPES.index(name)] = logit
        output, codes = older.with_codes(images(1))
    np.testing.assert_allclose(np.degrees(codes.gaze_rad[0].numpy()), [[15, 30], [15, 0]], atol=1e-3)
    torch.testing.assert_close(output.expression, torch.sigmoid(codes.expression_logit))
    assert (output.identity_variance == 1).all()


def test_the_shipped_weights_of_release_01_are_read_and_look_somewhere() -> None:
    trained = load_weights(MODELS / "face.safetensors")
    if trained.config.gaze:
        pytest.skip("the shipped weights tell gaze by now")
    assert len(trained(images(1, trained.config.input_size))) == 9
    assert not trained.reconstructor.has_gaze


def test_a_faces_result_does_not_depend_on_its_batch(model: FaceModel) -> None:
    together = model(images(3))
    for i in range(3):
        alone = model(images(3)[i : i + 1])
        torch.testing.assert_close(alone.vertices[0], together.vertices[i], atol=1e-2, rtol=1e-4)


@pytest.mark.parametrize("name", sorted(BACKBONES))
@pytest.mark.parametrize("size", [64, 128])
def test_a_backbone_has_stride_32(name: str, size: int) -> None:
    backbone = BACKBONES[name]().eval()
    with torch.no_grad():
        assert backbone(images(1, size)).shape == (1, backbone.channels, size // 32, size // 32)


@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet18", 11_176_512), ("resnet50", 23_508_032), ("densenet121", 6_953_856)]
)
def test_a_published_backbone_has_its_published_size(name: str, parameters: int) -> None:
    # Those of the papers' networks without their classifiers.
    assert sum(parameter.numel() for parameter in BACKBONES[name]().parameters()) == parameters


def test_a_strided_depthwise_convolution_stays_in_float32_in_bfloat16() -> None:
    block = InvertedResidual(8, 16, 8, 2)
    kinds = []
    for name in ("layers.0.0", "layers.1.0", "layers.2.0"):
        block.get_submodule(name).register_forward_hook(lambda _, __, output: kinds.append(output.dtype))
    image = torch.rand(2, 8, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = block(image)
    assert kinds == [torch.bfloat16, torch.float32, torch.bfloat16]
    torch.testing.assert_close(mixed.float(), block(image), atol=0.05, rtol=0.05)


def test_features_are_one_vector_per_crop() -> None:
    extractor = FeatureExtractor("mobile", 96).eval()
    with torch.no_grad():
        assert extractor(images(2, 96)).shape == (2, extractor.feature_count)


def test_a_layers_multiply_adds_are_counted_as_by_hand() -> None:
    # 8 x 8 places, 4 outputs, 3 inputs, 3 x 3 each; depthwise: 8 x 8 x 4 x 9; linear: 5 x 7.
    dense = 8 * 8 * 4 * 3 * 9
    assert multiply_adds(conv(3, 4, 3, 2), torch.zeros(1, 3, 16, 16)) == dense
    assert multiply_adds(conv(4, 4, 3, groups=4), torch.zeros(1, 4, 8, 8)) == 8 * 8 * 4 * 9
    assert multiply_adds(torch.nn.Linear(5, 7), torch.zeros(1, 5)) == 35


def test_the_default_network_fits_a_small_computer() -> None:
    model = FaceModel(ModelConfig()).eval()
    assert 40e6 < multiply_adds(model.extractor, images(1, model.config.input_size)) < 120e6


def test_the_brightness_scale_is_a_power_of_two() -> None:
    """So that it folds into the first layer without rounding."""
    extractor = FeatureExtractor("tiny", 64).eval()
    image = images(1)
    folded = FeatureExtractor("tiny", 64).eval()
    folded.load_state_dict(extractor.state_dict())
    with torch.no_grad():
        next(folded.backbone.parameters()).mul_(1 / 128)
        expected = folded.pool(folded.backbone(image))
        np.testing.assert_array_equal(extractor(image).numpy(), expected.numpy())

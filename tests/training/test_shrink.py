"""A network that starts from a trained one of another size: what it knew is kept, and what is new passes on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from facerecon_training.backbones import BACKBONES, Backbone, conv
from facerecon_training.model import FaceModel, ModelConfig
from facerecon_training.shrink import common_blocks, take_over
from torch import Tensor, nn

COMPACT = ModelConfig("compact", 128, shape_code=8, hidden=16)


def used(config: ModelConfig, seed: int = 0) -> FaceModel:
    """A network whose normalisations are those of a trained one."""
    torch.manual_seed(seed)
    model = FaceModel(config)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 1.5)
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.normal_(0, 0.1)
        model.reconstructor.mean.normal_(0, 40)
        model.reconstructor.shape_basis.normal_()
        if config.gaze:
            model.reconstructor.gaze.weight.normal_(0, 0.1)
        if model.reconstructor.direct_identity is not None:
            model.reconstructor.direct_identity.weight.normal_(0, 0.1)
    return model.eval()


def picture(size: int) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1)) * 255


@torch.no_grad()
def test_a_larger_network_begins_with_what_the_smaller_one_sees() -> None:
    """At the same size of crops, all outputs are the same: new blocks add nothing."""
    trained, model = used(COMPACT), used(replace(COMPACT, backbone="medium"), seed=1)
    assert take_over(model, trained) == (0, 0)
    image = picture(128)
    torch.testing.assert_close(model.extractor(image), trained.extractor(image), rtol=1e-5, atol=1e-5)
    for found, expected in zip(model(image), trained(image), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_blocks_that_are_new_are_identities_that_can_learn() -> None:
    trained, model = used(COMPACT), used(replace(COMPACT, backbone="medium"), seed=1)
    pairs = common_blocks(model.extractor.backbone, trained.extractor.backbone)
    assert pairs == [(0, 0), (1, 1), (2, 2), (4, 3), (5, 4), (7, 5), (8, 6), (10, 7)]
    take_over(model, trained)
    for index, channels in ((3, 64), (6, 128), (9, 192)):
        block = model.extractor.backbone[index]
        features = torch.randn(1, channels, 8, 8, generator=torch.Generator().manual_seed(index))
        torch.testing.assert_close(block(features.clone()), features, rtol=0, atol=0)
    with torch.enable_grad():
        model.train()
        model.extractor(picture(128)).square().mean().backward()
    gradients = {name: one.grad for name, one in model.extractor.backbone.named_parameters()}
    for index in (3, 6, 9):
        # The last normalisation: the second of a fused block, the third of an inverted residual.
        gradient = gradients[f"{index}.layers.{1 if index == 3 else 2}.1.weight"]
        assert gradient is not None and gradient.any()


@torch.no_grad()
def test_larger_crops_are_pooled_with_weights_from_between_the_places() -> None:
    """A map that is the same everywhere gives the same feature from 5 x 5 places as from 4 x 4."""
    trained, model = used(COMPACT), used(replace(COMPACT, backbone="medium", input_size=160), seed=1)
    take_over(model, trained)
    small, large = (one.extractor.pool.state_dict()["0.weight"] for one in (trained, model))
    assert small.shape[-2:] == (4, 4) and large.shape[-2:] == (5, 5)
    torch.testing.assert_close(large.sum((2, 3)), small.sum((2, 3)))
    flat = torch.rand(1, 512, 1, 1, generator=torch.Generator().manual_seed(0))
    given, wanted = model.extractor.pool(flat.expand(1, 512, 5, 5)), trained.extractor.pool(flat.expand(1, 512, 4, 4))
    torch.testing.assert_close(given, wanted)


@torch.no_grad()
def test_pooling_keeps_its_corners_and_its_order() -> None:
    """Weights that grow from left to right still do, between the same ends."""
    trained, model = used(COMPACT), used(replace(COMPACT, input_size=160), seed=1)
    ramp = torch.arange(4.0)
    trained.extractor.pool.state_dict()["0.weight"].copy_(ramp.expand(512, 1, 4, 4))
    take_over(model, trained)
    found = model.extractor.pool.state_dict()["0.weight"]
    expected = torch.linspace(0, 3, 5) * 16 / 25
    torch.testing.assert_close(found[7, 0], expected.expand(5, 5))


@torch.no_grad()
def test_a_network_of_before_gaze_is_a_start_for_one_with_gaze_and_back() -> None:
    older = used(replace(COMPACT, gaze=False))
    model = used(replace(COMPACT, backbone="medium"), seed=1)
    model.reconstructor.gaze.bias.fill_(0.25)
    take_over(model, older)
    assert (model.reconstructor.gaze.bias == 0.25).all(), "what it lacks begins as it is"
    torch.testing.assert_close(model.reconstructor.camera.weight, older.reconstructor.camera.weight, rtol=0, atol=0)
    back = used(replace(COMPACT, gaze=False), seed=2)
    take_over(back, model)
    torch.testing.assert_close(back(picture(128)).shape, older(picture(128)).shape, rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_older_weights_keep_their_answer_and_learn_from_the_features_of_places() -> None:
    older, model = used(replace(COMPACT, places=0)), used(COMPACT, seed=1)
    assert model.reconstructor.direct_identity is not None
    torch.nn.init.zeros_(model.reconstructor.direct_identity.weight)  # as in a new network
    take_over(model, older)
    image = picture(128)
    for found, expected in zip(model(image), older(image), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    with torch.enable_grad():
        output, codes = model.train().with_codes(image)
        (output.identity.square().mean() + codes.motion.square().mean()).backward()
    gradients = {name: one.grad for name, one in model.reconstructor.named_parameters()}
    for name in ("identity.0.0.weight", "motion.0.weight", "direct_identity.weight"):
        gradient = gradients[name]
        assert gradient is not None and gradient.any(0).all(), name


@torch.no_grad()
def test_features_of_places_and_their_direct_map_are_taken_over() -> None:
    trained, model = used(COMPACT), used(COMPACT, seed=1)
    take_over(model, trained)
    for found, expected in zip(model(picture(128)), trained(picture(128)), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@torch.no_grad()
def test_features_of_places_are_stretched_over_a_larger_map() -> None:
    trained, model = used(COMPACT), used(replace(COMPACT, input_size=160), seed=1)
    take_over(model, trained)
    assert trained.extractor.places is not None and model.extractor.places is not None
    flat = torch.rand(1, 512, 1, 1, generator=torch.Generator().manual_seed(0))
    wanted = trained.extractor.places(flat.expand(1, 512, 4, 4))
    given = model.extractor.places(flat.expand(1, 512, 5, 5))
    torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4)


def test_another_number_of_features_of_places_is_no_start() -> None:
    with pytest.raises(ValueError, match="it has 128 features of places, not 64"):
        take_over(FaceModel(replace(COMPACT, places=64)), FaceModel(COMPACT))


def test_blocks_are_matched_by_kind_and_size_in_order() -> None:
    mobile, compact = BACKBONES["mobile"](), BACKBONES["compact"]()
    assert common_blocks(compact, mobile) == [(1, 2), (2, 3), (3, 4), (4, 5), (5, 7), (6, 8), (7, 10)]
    with pytest.raises(ValueError, match="the two backbones have no block in common"):
        common_blocks(BACKBONES["tiny"](), mobile)
    # Blocks that only add to what they get may be missing.
    assert common_blocks(mobile, compact) == [(2, 1), (3, 2), (4, 3), (5, 4), (7, 5), (8, 6), (10, 7)]
    own, theirs = (Backbone(conv(3, 8, 3, 4), conv(8, 8, 3, stride)) for stride in (4, 2))
    with pytest.raises(ValueError, match="it has no counterpart of block 2 of 2"):
        common_blocks(own, theirs)


def test_features_of_another_number_are_no_start() -> None:
    with pytest.raises(ValueError, match="it gives 16 features, not 512"):
        take_over(FaceModel(COMPACT), FaceModel(replace(COMPACT, backbone="tiny")))

"""A trained network -> a smaller or larger network of the same kind that starts from its weights."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from .backbones import PLACE_CHANNELS, Backbone, normalised
from .data import Batch
from .model import FaceModel


def take_over(model: FaceModel, trained: FaceModel) -> tuple[int, int]:
    """Copy the layers that both networks have: the reconstructor, layers on the last map, and blocks of the backbone.

    Each block takes the weights of the trained network's next block of its kind and size. Returns the number of blocks
    before the first copied block, in the model and in the trained network. Blocks that the trained network lacks start
    as the identity, and features of places that it lacks are not read at first, so that a larger network starts with
    what the smaller one learned (Net2Net, Chen et al., ICLR 2016). Missing heads keep their initial weights. Layers on
    a last map of another size interpolate their weights.

    Raises ValueError if the features have no counterpart, or a block that cannot be the identity has none.
    """
    extractor, source = model.extractor, trained.extractor
    counts = extractor.backbone.channels, source.backbone.channels
    if counts[0] != counts[1]:
        raise ValueError(f"it gives {counts[1]} features, not {counts[0]}")
    new = model.config.places - trained.config.places
    if new and source.places is not None:
        raise ValueError(f"it has {trained.config.places} features of places, not {model.config.places}")
    pairs = common_blocks(extractor.backbone, source.backbone)
    own, theirs = model.reconstructor.state_dict(), trained.reconstructor.state_dict()
    for name, width in (("identity.0.0.weight", new // 2), ("motion.0.weight", new)):
        theirs[name] = functional.pad(theirs[name], (width, 0))
    model.reconstructor.load_state_dict({name: theirs.get(name, tensor) for name, tensor in own.items()})
    load_resampled(extractor.pool, source.pool.state_dict())
    if extractor.places is not None and source.places is not None:
        load_resampled(extractor.places, source.places.state_dict())
    for index, place in pairs:
        extractor.backbone[index].load_state_dict(source.backbone[place].state_dict())
    for index in set(range(pairs[0][0], len(extractor.backbone))) - {index for index, _ in pairs}:
        # The last normalisation is zero, so the block adds nothing.
        layers = extractor.backbone[index].get_submodule("layers")
        *_, last = (part for part in layers.modules() if isinstance(part, nn.BatchNorm2d))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return pairs[0]


def load_resampled(layers: nn.Module, trained: dict[str, Tensor]) -> None:
    """Load trained weights of layers that read a map, interpolated if the map has another number of places."""
    for name, own in layers.state_dict().items():
        if own.shape != trained[name].shape:
            # (C, 1, S, S) of a convolution, or (F, C * S * S) of a linear map.
            channels = 1 if own.ndim == 4 else PLACE_CHANNELS
            before, after = (math.isqrt(one[0].numel() // channels) for one in (trained[name], own))
            weight = trained[name].reshape(-1, channels, before, before)
            weight = functional.interpolate(weight, (after, after), mode="bilinear", align_corners=True)
            trained[name] = (weight * before**2 / after**2).reshape(own.shape)
    layers.load_state_dict(trained)


def common_blocks(model: Backbone, trained: Backbone) -> list[tuple[int, int]]:
    """Return index pairs of blocks of the same kind and size, in order.

    Raises ValueError if there are none. Raises it also if a block after the first pair has no counterpart and is not
    residual, because it would start at random among trained blocks.
    """
    pairs: list[tuple[int, int]] = []
    start = 0
    for own, block in enumerate(model):
        for theirs in range(start, len(trained)):
            if repr(block) == repr(trained[theirs]):  # kinds, channels, kernels, strides
                pairs.append((own, theirs))
                start = theirs + 1
                break
        else:
            if pairs and not getattr(block, "residual", False):
                raise ValueError(f"it has no counterpart of block {own + 1} of {len(model)}")
    if not pairs:
        raise ValueError("the two backbones have no block in common")
    return pairs


def imitate(own: nn.Module, theirs: nn.Module, batches: Iterator[Batch], pictures: int, rate: float = 4e-3) -> float:
    """Train the first blocks, (N, 3, S, S) -> (N, C, H, W), to give the features of the blocks that they replace.

    Returns a moving average of the squared error relative to the features' variance (hints: FitNets, Romero et al.,
    ICLR 2015). Raises ValueError if the features differ in size.
    """
    optimizer = torch.optim.AdamW(own.parameters(), rate, betas=(0.9, 0.99), weight_decay=0.0)
    device = next(own.parameters()).device
    own.train()
    theirs.eval()
    share = 1.0
    seen = 0
    with tqdm(total=pictures, unit="img", desc="first blocks") as progress:
        while seen < pictures:
            image = normalised(next(batches).image.to(device).float()).contiguous(memory_format=torch.channels_last)
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 - seen / pictures)
            with torch.no_grad():
                wanted = theirs(image)
            given = own(image)
            if given.shape != wanted.shape:
                raise ValueError(f"its first blocks give {tuple(wanted.shape[1:])}, not {tuple(given.shape[1:])}")
            loss = (given - wanted).square().mean() / wanted.var()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            seen += len(image)
            share = 0.98 * share + 0.02 * float(loss.detach())
            progress.update(len(image))
            progress.set_postfix(error=f"{share:.4f}")
    return share

"""Annotated photographs and a trained model -> where annotators put points that the model does not.

Half of all pictures are mirrored in training, so a network's landmarks are as symmetric as faces are on average. People
who annotate are not: on 300-W's photographs points lie a hundredth of the eye distance further to the right, on
average, than they would in a mirror. No network that is trained with flips can learn that; it is measured at the end
and added to the constant part of the landmark offset. Geometry, pose and shape stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from facerecon_rt.template import IBUG_MIRROR
from facerecon_rt.types import Floats

from .augment import crop_from_canvas, ideal_square
from .data import Folder, Packed, folders_in
from .evaluate import predict
from .model import FaceModel, offset_scale


def mean_residual(model: FaceModel, packed: Path, folders: Sequence[Folder] = ()) -> Floats:
    """A model and packed photographs -> (68, 2) mean of annotation minus landmarks in upright crops, crop pixels, over
    the folders that people annotated; 0 where no point is known."""
    residuals = []
    for folder in folders_in(packed, folders):
        if folder.machine_made:
            continue
        photographs = Packed.read(packed / folder.name)
        crops, truths = [], []
        for canvas, landmarks in zip(photographs.images, photographs.labels["landmarks"], strict=True):
            crop, matrix = crop_from_canvas(np.ascontiguousarray(canvas), ideal_square(), model.config.input_size)
            crops.append(crop)
            truths.append(landmarks @ matrix[:2, :2].T + matrix[:2, 3])
        residuals.append(np.stack(truths) - predict(model, crops).landmarks[:, :, :2].numpy())
    if not residuals:
        return np.zeros((68, 2), np.float32)
    every = np.concatenate(residuals)
    known = np.isfinite(every)
    return np.asarray(np.where(known, every, 0).sum(0) / np.maximum(known.sum(0), 1), np.float32)


def annotation_asymmetry(model: FaceModel) -> Floats:
    """(68, 2) crop pixels: the part of the constant landmark offset that turns round in a mirror. See the contract."""
    constant = model.reconstructor.annotation.bias.detach().cpu().numpy().reshape(68, 2)
    in_mirror = constant[IBUG_MIRROR] * np.array([-1, 1], np.float32)
    return np.asarray(offset_scale(model.config.input_size) * (constant - in_mirror) / 2, np.float32)


def with_habits(model: FaceModel, packed: Path, folders: Sequence[Folder] = ()) -> FaceModel:
    """The model whose landmarks are, on average, where people put them in the packed photographs."""
    habits = torch.from_numpy(mean_residual(model, packed, folders)).flatten()
    corrected = deepcopy(model)
    bias = corrected.reconstructor.annotation.bias
    with torch.no_grad():
        bias += habits.to(bias) / offset_scale(model.config.input_size)
    return corrected

"""Annotated photographs and a trained model -> systematic differences between annotators and the model.

Half of all pictures are mirrored in training, so a network's landmarks are as symmetric as faces are on average. Human
annotators are not. On 300-W's photographs, points lie a hundredth of the eye distance further to the right, on average,
than in a mirror image. A network that is trained with flips cannot learn this difference. It is measured at the end and
added to the constant part of the landmark offset. Geometry, pose and shape do not change.

The module also measures half the mean difference between landmarks of a crop and those of its mirror image, mirrored
back. The average of both images loses this difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from facerecon_rt.template import IBUG_MIRROR
from facerecon_rt.types import Floats, Image

from .augment import crop_from_canvas, ideal_square
from .data import Folder, Packed, folders_in
from .evaluate import predict
from .model import FaceModel, offset_scale


def with_habits(model: FaceModel, packed: Path, folders: Sequence[Folder] = ()) -> FaceModel:
    """Return the model with its landmarks shifted to where people put them on average in the packed photographs.

    The model also stores how much of this shift an average with the mirror image loses. Both are 0 if people annotated
    no photographs.
    """
    crops, truth, weights = annotated_crops(packed, folders, model.config.input_size)
    habits = torch.from_numpy(mean_residual(model, crops, truth, weights)).flatten()
    corrected = deepcopy(model)
    bias = corrected.reconstructor.annotation.bias
    with torch.no_grad():
        bias.add_(habits.to(bias) / offset_scale(model.config.input_size))
        corrected.reconstructor.asymmetry.copy_(torch.from_numpy(mean_asymmetry(corrected, crops)))
    return corrected


def annotated_crops(packed: Path, folders: Sequence[Folder], size: int) -> tuple[list[Image], Floats, Floats]:
    """Return upright crops of the packed photographs that people annotated, their landmarks and their weights.

    Crops are (size, size, 3) uint8 BGR. Landmarks are (N, 68, 2) crop pixels, NaN where a point is not known. Weights
    (N,) are those of the folders' landmarks in the loss.
    """
    crops: list[Image] = []
    truth: list[Floats] = []
    weights: list[float] = []
    for folder in folders_in(packed, folders):
        if folder.machine_made or not folder.weight:
            continue
        photographs = Packed.read(packed / folder.name)
        for canvas, landmarks in zip(photographs.images, photographs.labels["landmarks"], strict=True):
            crop, matrix = crop_from_canvas(np.ascontiguousarray(canvas), ideal_square(), size)
            crops.append(crop)
            truth.append(landmarks @ matrix[:2, :2].T + matrix[:2, 3])
            weights.append(folder.weight)
    return crops, np.asarray(truth, np.float32).reshape(-1, 68, 2), np.asarray(weights, np.float32)


def mean_residual(model: FaceModel, crops: list[Image], truth: Floats, weights: Floats) -> Floats:
    """Return the weighted mean (68, 2) of true minus predicted landmarks in crop pixels; 0 where no true landmark is
    known.

    `truth` is (N, 68, 2) crop pixels, `weights` (N,).
    """
    if not crops:
        return np.zeros((68, 2), np.float32)
    residual = truth - predict(model, crops).landmarks[:, :, :2].numpy()
    counted = np.isfinite(residual) * weights[:, None, None]
    total = counted.sum(0)
    return np.asarray((np.nan_to_num(residual) * counted).sum(0) / np.where(total > 0, total, 1), np.float32)


def mean_asymmetry(model: FaceModel, crops: list[Image]) -> Floats:
    """Return half the mean difference (68, 2) between landmarks of crops and of mirrored crops, in crop pixels.

    The landmarks of mirrored crops are mirrored back. The result is 0 without crops.
    """
    if not crops:
        return np.zeros((68, 2), np.float32)
    straight, mirrored = (
        predict(model, seen).landmarks[:, :, :2].mean(0)
        for seen in (crops, [np.ascontiguousarray(crop[:, ::-1]) for crop in crops])
    )
    mirrored[:, 0] = model.config.input_size - 1 - mirrored[:, 0]
    return ((straight - mirrored[IBUG_MIRROR]) / 2).numpy()

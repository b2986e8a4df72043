"""Weights and held-out data -> figures: landmark error, millimetres, degrees. A model is one network or an ensemble."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from facerecon_rt.align import Square, align, compose, square_from_box, square_from_camera
from facerecon_rt.annotated import INNER_51, Annotated, annotated_photographs, landmark_figures
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.faces.detect import Detector
from facerecon_rt.faces.reconstruct import Reconstructor
from facerecon_rt.faces.stages import Stages
from facerecon_rt.pose import euler_from_camera, rmse_mm, rotation_angle_deg, similarity_align, split_camera
from facerecon_rt.sources.files import read_image
from facerecon_rt.types import Floats, Image
from numpy.typing import NDArray
from torch import Tensor

from .augment import crop_from_canvas
from .consistency import auc
from .data import Packed, people_squares
from .ensemble import FaceNetwork
from .model import FaceOutput
from .objective import Teacher
from .photographs import camera_from_landmarks
from .prepare import read_face
from .rendered.expressions import gaze_vectors
from .rendered.eyes import BLINK, hand_labelled
from .rendered.head_pose import pointing_photographs, pose_figures

WATCHED = ("jawOpen", "mouthSmile_L", "eyeBlink_L", "browInnerUp_L", "mouthPucker")
"""Blendshapes whose correlation with the truth is shown, from easy to hard."""


@torch.no_grad()
def predict(model: FaceNetwork, crops: list[Image], batch: int = 64) -> FaceOutput:
    """Return the outputs for crops (S, S, 3) uint8 BGR, at least one, computed on the model's device in evaluation
    mode."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    parts = []
    for start in range(0, len(crops), batch):
        images = torch.from_numpy(np.stack(crops[start : start + batch])).to(device)
        parts.append(model(images.permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last)))
    model.train(training)
    return FaceOutput(*(torch.cat(tensors).cpu() for tensors in zip(*parts, strict=True)))


@dataclass(frozen=True, slots=True, eq=False)
class PredictedPhotographs:
    """P annotated photographs, and a model's predictions for them."""

    crops: list[Image]
    matrices: Floats
    """frame_from_crop of each photograph, (P, 3, 4)."""
    output: FaceOutput
    truth: Floats
    """Annotated landmarks (P, 68, 2), frame pixels; NaN where not annotated."""
    paths: list[Path]

    @property
    def landmarks(self) -> Floats:
        """Predicted landmarks (P, 68, 2), frame pixels."""
        points = self.output.landmarks.numpy()
        linear, shift = self.matrices[:, :, :3], self.matrices[:, None, :, 3]
        return np.asarray((points @ linear.transpose(0, 2, 1) + shift)[:, :, :2], np.float32)

    @property
    def errors(self) -> Floats:
        """Mean error (P,) of the inner 51 points, in distances of the outer eye corners."""
        error = np.linalg.norm(self.landmarks - self.truth, axis=2)[:, INNER_51]
        eyes = np.linalg.norm(self.truth[:, 36] - self.truth[:, 45], axis=1)
        return np.asarray(np.nanmean(error, axis=1) / eyes, np.float32)


def predict_photographs(model: FaceNetwork, photographs: Iterable[Annotated]) -> PredictedPhotographs:
    """Predict faces of photographs from the true box: the annotated landmarks place the crop."""
    crops, matrices, truth, paths = [], [], [], []
    for photograph in photographs:
        image = read_image(photograph.path)
        crop = align(image, square_from_camera(camera_from_landmarks(photograph.landmarks)), model.config.input_size)
        crops.append(crop.image)
        matrices.append(crop.frame_from_crop)
        truth.append(photograph.landmarks)
        paths.append(photograph.path)
    return PredictedPhotographs(crops, np.stack(matrices), predict(model, crops), np.stack(truth), paths)


def evaluate_landmarks(model: FaceNetwork, photographs: Iterable[Annotated]) -> dict[str, float]:
    """Return the NME from the true box."""
    seen = predict_photographs(model, photographs)
    return {"photographs": float(len(seen.crops)), **landmark_figures(seen.landmarks, seen.truth)}


@dataclass(frozen=True, slots=True, eq=False)
class PredictedPeople:
    """P rendered pictures with known geometry, and a model's predictions for them."""

    output: FaceOutput
    shape: Tensor
    """True neutral shapes (P, V, 3) mm."""
    vertices: Tensor
    """True vertices (P, V, 3) mm."""
    expression: Tensor
    """True blendshape weights (P, 53)."""
    gaze: Tensor
    """True gaze (P, 2, 3), unit vectors in the head frame."""
    cameras: list[Floats]
    """True crop_from_head of each picture, (3, 4)."""
    person: NDArray[np.int64]
    """Person of each picture, (P,)."""
    mean: Tensor
    """The mean face (1, V, 3) mm, for comparison."""
    rmse_mm: NDArray[np.float64]
    """Error (P,) of the neutral shape after rigid alignment."""


def predict_people(model: FaceNetwork, packed: Path, limit: int | None = None) -> PredictedPeople:
    """Predict faces of held-out rendered people, from crops that their landmarks place.

    `limit` is the maximum number of pictures, spread over the people; None for all.
    """
    people, squares, chosen = _open_people(packed, limit)
    crops, cameras = [], []
    for index in chosen:
        canvas = np.ascontiguousarray(people.images[index])
        crop, matrix = crop_from_canvas(canvas, squares[index], model.config.input_size)
        crops.append(crop)
        cameras.append(compose(matrix, people.labels["canvas_from_head"][index]))
    return _beside_truth(predict(model, crops), cameras, people, chosen, packed)


def read_people(reconstructor: Reconstructor, packed: Path, *, as_photographs: bool) -> PredictedPeople:
    """Read held-out rendered people through the runtime, at the places of their landmarks.

    `as_photographs`: read several crops and their mirror images, as of photographs, and not one crop, as of frames of a
    video. Cameras are those of the canvas.
    """
    people, squares, chosen = _open_people(packed, None)
    faces = []
    for index in chosen:
        canvas = np.ascontiguousarray(people.images[index])
        ((face,),) = reconstructor.read_at([canvas], [[squares[index]]], Stages(), mirror=as_photographs)
        faces.append(face)

    def column(name: str) -> Tensor:
        values = [getattr(face, name) for face in faces]
        # An ensemble predicts no identity code.
        rows = np.zeros((len(faces), 0)) if values[0] is None else np.stack(values)
        return torch.from_numpy(rows.astype(np.float32))

    names = [name if name != "crop_from_head" else "frame_from_head" for name in FaceOutput._fields]
    output = FaceOutput(*(column(name) for name in names))
    return _beside_truth(output, list(people.labels["canvas_from_head"]), people, chosen, packed)


def _open_people(packed: Path, limit: int | None) -> tuple[Packed, list[Square], NDArray[np.intp]]:
    """Return the packed people, the square of the crop of each picture, and the indices of at most `limit` pictures."""
    people = Packed.read(packed)
    count = min(limit or len(people.images), len(people.images))
    chosen = np.linspace(0, len(people.images) - 1, count).astype(np.intp)
    return people, people_squares(people, read_face(packed.parent.parent)), chosen


def _beside_truth(
    output: FaceOutput, cameras: list[Floats], people: Packed, chosen: NDArray[np.intp], packed: Path
) -> PredictedPeople:
    """Return the predictions for the `chosen` pictures together with the truth."""
    teacher = read_teacher(packed.parent.parent)
    identity, expression = (torch.from_numpy(people.labels[name][chosen]) for name in ("identity", "expression"))
    shape, vertices = teacher.true_geometry(identity, expression)
    person = people.labels["person"][chosen].astype(np.int64)
    rmse = np.array([rmse_mm(a, b) for a, b in zip(output.shape.numpy(), shape.numpy(), strict=True)])
    gaze = torch.from_numpy(gaze_vectors(people.labels["gaze_deg"][chosen]))
    return PredictedPeople(
        output, shape, vertices, expression, gaze, cameras, person, teacher.mean.reshape(1, -1, 3), rmse
    )


def people_figures(seen: PredictedPeople) -> dict[str, float]:
    """Return errors of shape in mm, of rotation in degrees and of blendshapes.

    Shape errors come without alignment, after rigid alignment (RMSE) and after a similarity, with the mean face's own
    errors for comparison. `shape_spread_ratio` is the spread of the predicted shapes over people, relative to the
    truth.
    """
    output, mean = seen.output, seen.mean.expand_as(seen.shape)
    return {
        "shape_mm": _distance(output.shape, seen.shape),
        "shape_mm_of_mean_face": _distance(mean, seen.shape),
        "rmse_mm": float(seen.rmse_mm.mean()),
        "rmse_mm_of_mean_face": float(np.mean([rmse_mm(seen.mean[0].numpy(), true) for true in seen.shape.numpy()])),
        "shape_mm_aligned": _aligned_distance(output.shape, seen.shape),
        "shape_mm_aligned_of_mean_face": _aligned_distance(mean, seen.shape),
        "vertices_mm": _distance(output.vertices, seen.vertices),
        "rotation_deg": float(np.mean(rotation_errors(output, seen.cameras))),
        **expression_figures(seen),
        "expression_mae": float((output.expression - seen.expression).abs().mean()),
        "shape_spread_ratio": float(output.shape.std(0).norm(dim=1).mean() / seen.shape.std(0).norm(dim=1).mean()),
        "confidence": float(output.confidence.mean()),
    }


def expression_figures(seen: PredictedPeople) -> dict[str, float]:
    """Return how well blendshape weights and gaze of nearly frontal faces follow the truth, with errors of rotation."""
    near = nearly_frontal(seen)
    output, true = seen.output, seen.expression[near]
    correlations = sorted(_correlation(output.expression[near], true, name) for name in BLENDSHAPES)
    open_ = true[:, BLINK] < 0.5
    cosine = (output.gaze[near] * seen.gaze[near]).sum(2).clamp(-1, 1)
    return {
        "rotation_deg_near": float(rotation_errors(output, seen.cameras)[near].mean()),
        "correlation": float(np.mean(correlations)),
        "correlation_tenth_worst": correlations[9],
        **{f"correlation_{name}": _correlation(output.expression[near], true, name) for name in WATCHED},
        "gaze_deg": float(torch.rad2deg(torch.arccos(cosine))[open_].mean()),
        "weights_at_rest": float(output.expression[near][true < 0.02].mean()),
        "weights_at_work": float(output.expression[near][true > 0.5].mean()),
    }


def blendshape_figures(seen: PredictedPeople) -> dict[str, dict[str, float]]:
    """Return how well each of the 53 weights of nearly frontal faces follows the truth: the correlation, and its mean
    where the true weight is above 0.5 and below 0.02, if there are such faces."""
    near = nearly_frontal(seen)
    output, true = seen.output.expression[near], seen.expression[near]
    rows = {}
    for column, name in enumerate(BLENDSHAPES):
        rows[name] = {"correlation": _correlation(output, true, name)}
        for title, chosen in (("at_work", true[:, column] > 0.5), ("at_rest", true[:, column] < 0.02)):
            if chosen.any():
                rows[name][title] = float(output[chosen, column].mean())
    return rows


def nearly_frontal(seen: PredictedPeople) -> NDArray[np.bool_]:
    """Return which faces (P,) have a true yaw within 30 and a true pitch within 25 degrees."""
    angles = np.abs([euler_from_camera(camera)[:2] for camera in seen.cameras])
    return np.asarray((angles[:, 0] < 25) & (angles[:, 1] < 30))


def rotation_errors(output: FaceOutput, cameras: Iterable[Floats]) -> NDArray[np.float64]:
    """Return the angles (P,) between predicted and true rotations of cameras (P, 3, 4), in degrees."""
    return np.array(
        [
            rotation_angle_deg(split_camera(p)[1], split_camera(t)[1])
            for p, t in zip(output.crop_from_head.numpy(), cameras, strict=True)
        ]
    )


def _correlation(predicted: Tensor, true: Tensor, name: str) -> float:
    """Return Pearson's correlation of one blendshape in two arrays (N, 53); 0 if it does not vary."""
    column = BLENDSHAPES.index(name)
    pair = torch.stack([predicted[:, column], true[:, column]])
    return float(torch.corrcoef(pair)[0, 1]) if (pair.std(1) > 0).all() else 0.0


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm(dim=2).mean())


def _aligned_distance(a: Tensor, b: Tensor) -> float:
    """Return the mean distance in mm after the similarity that brings each face of `a` nearest to its face of `b`.

    One photograph shows neither the size of a head nor the place of the frame's origin in it (Umeyama 1991).
    """
    distances = []
    for source, target in zip(a.double().numpy(), b.double().numpy(), strict=True):
        distances.append(np.linalg.norm(similarity_align(source, target) - target, axis=1).mean())
    return float(np.mean(distances))


def read_teacher(prepared: Path) -> Teacher:
    """Return the morphable face of a prepared folder, as tensors."""
    return Teacher.from_face(read_face(prepared))


def predict_twice(model: FaceNetwork, images: list[Image], squares: list[Square]) -> tuple[FaceOutput, list[Floats]]:
    """Return outputs and cameras (frame_from_head) of images after two network runs, as the runtime makes them.

    `squares`: places of the heads. The second run reads the place at which the first run saw the head.
    """
    for _ in range(2):
        crops = [align(image, square, model.config.input_size) for image, square in zip(images, squares, strict=True)]
        output = predict(model, [crop.image for crop in crops])
        cameras = [
            compose(crop.frame_from_crop, camera)
            for crop, camera in zip(crops, output.crop_from_head.numpy(), strict=True)
        ]
        squares = [square_from_camera(camera) for camera in cameras]
    return output, cameras


def evaluate_blinks(model: FaceNetwork, faces: Path) -> dict[str, float]:
    """Return how surely the mean eyeBlink weight tells closed eyes from open eyes (AUC), on photographs labelled by
    hand.

    Labelled photographs that do not exist are left out. Without both kinds the result is empty.
    """
    labels, weights = hand_labelled(), {}
    folders = {faces / Path(name).parent for names in labels.values() for name in names}
    there = [one for folder in sorted(folders) if folder.is_dir() for one in annotated_photographs(folder)]
    for kind, names in labels.items():
        photographs = [one for one in there if f"{one.path.parent.name}/{one.path.stem}" in names]
        if not photographs:
            return {}
        weights[kind] = predict_photographs(model, photographs).output.expression[:, BLINK].mean(1).numpy()
    return {
        **{kind: float(len(values)) for kind, values in weights.items()},
        **{f"mean_weight_{kind}": float(values.mean()) for kind, values in weights.items()},
        "auc": auc(weights["closed"], weights["open"]),
    }


def evaluate_pose(model: FaceNetwork, folder: Path, detector: Detector) -> dict[str, dict[str, float]]:
    """Return the mean error of pan and tilt on Pointing'04, in degrees within +-60, from detected boxes.

    Each photograph gets two looks, as in the runtime. The rows are all people, and the people who were never trained
    on. The last row is the share of faces found.
    """
    wanted = [p for p in pointing_photographs(folder) if max(abs(p.tilt), abs(p.pan)) <= 60]
    images, squares, seen = [], [], []
    for photograph in wanted:
        image = read_image(photograph.path)
        found = detector.detect(image)
        if found:
            images.append(image)
            squares.append(square_from_box(found[0].box))
            seen.append(photograph)
    if not seen:
        return {"found": {"percent": 0.0}}
    _, cameras = predict_twice(model, images, squares)
    measured = np.array([euler_from_camera(camera)[:2] for camera in cameras])
    nominal = np.array([(photograph.tilt, photograph.pan) for photograph in seen], float)
    apart = np.array([not photograph.for_training for photograph in seen])
    rows = {"all": np.full(len(seen), True), "people not trained on": apart}
    return {
        name: {"photographs": float(chosen.sum()), **pose_figures(measured[chosen], nominal[chosen])}
        for name, chosen in rows.items()
        if chosen.any()
    } | {"found": {"percent": 100 * len(seen) / max(1, len(wanted))}}

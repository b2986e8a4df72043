"""Weights and held-out data -> figures: landmark error, millimetres, degrees. A model is a FaceModel or an Ensemble."""

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
from facerecon_rt.pose import euler_from_camera, rigid_align, rmse_mm, rotation_angle_deg, split_camera
from facerecon_rt.sources.files import read_image
from facerecon_rt.types import Floats, Image
from numpy.typing import NDArray
from torch import Tensor, nn

from .augment import crop_from_canvas
from .consistency import auc
from .data import Packed, people_squares
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
def predict(model: nn.Module, crops: list[Image], batch: int = 64) -> FaceOutput:
    """Crops (S, S, 3) uint8 BGR -> the six outputs, on the model's device, in evaluation mode."""
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
class Seen:
    """Annotated photographs and what a model sees in them. P photographs."""

    crops: list[Image]
    matrices: Floats
    """(P, 3, 4) frame_from_crop."""
    output: FaceOutput
    truth: Floats
    """(P, 68, 2) frame pixels, NaN where not annotated."""
    paths: list[Path]

    @property
    def landmarks(self) -> Floats:
        """(P, 68, 2) predicted, frame pixels."""
        points = self.output.landmarks.numpy()
        linear, shift = self.matrices[:, :, :3], self.matrices[:, None, :, 3]
        return np.asarray((points @ linear.transpose(0, 2, 1) + shift)[:, :, :2], np.float32)

    @property
    def errors(self) -> Floats:
        """(P,) mean error of the inner 51, in distances of the outer eye corners."""
        error = np.linalg.norm(self.landmarks - self.truth, axis=2)[:, INNER_51]
        eyes = np.linalg.norm(self.truth[:, 36] - self.truth[:, 45], axis=1)
        return np.asarray(np.nanmean(error, axis=1) / eyes, np.float32)


def look_at(model: nn.Module, photographs: Iterable[Annotated]) -> Seen:
    """Photographs -> predictions from the true box: the crop is where the annotated landmarks say."""
    crops, matrices, truth, paths = [], [], [], []
    for photograph in photographs:
        image = read_image(photograph.path)
        crop = align(image, square_from_camera(camera_from_landmarks(photograph.landmarks)), model.config.input_size)
        crops.append(crop.image)
        matrices.append(crop.frame_from_crop)
        truth.append(photograph.landmarks)
        paths.append(photograph.path)
    return Seen(crops, np.stack(matrices), predict(model, crops), np.stack(truth), paths)


def evaluate_landmarks(model: nn.Module, photographs: Iterable[Annotated]) -> dict[str, float]:
    """NME from the true box."""
    seen = look_at(model, photographs)
    return {"photographs": float(len(seen.crops)), **landmark_figures(seen.landmarks, seen.truth)}


@dataclass(frozen=True, slots=True, eq=False)
class SeenPeople:
    """Rendered pictures whose geometry is known, and what a model sees in them. P pictures."""

    output: FaceOutput
    shape: Tensor
    """(P, V, 3) mm, true."""
    vertices: Tensor
    """(P, V, 3) mm, true."""
    expression: Tensor
    """(P, 53), true."""
    gaze: Tensor
    """(P, 2, 3) unit vectors, head frame, true."""
    cameras: list[Floats]
    """(3, 4) crop_from_head, true."""
    person: NDArray[np.int64]
    """(P,)"""
    mean: Tensor
    """(1, V, 3) mm: the mean face, for scale."""
    rmse_mm: NDArray[np.float64]
    """(P,) of the neutral shape after rigid alignment."""


def look_at_people(model: nn.Module, packed: Path, limit: int | None = None) -> SeenPeople:
    """Held-out rendered faces, in all or so many of them, spread over people, from crops where their landmarks say."""
    people = Packed.read(packed)
    count = min(limit or len(people.images), len(people.images))
    chosen = np.linspace(0, len(people.images) - 1, count).astype(int)
    face = read_face(packed.parent.parent)
    squares = people_squares(people, face)
    crops, cameras = [], []
    for index in chosen:
        canvas = np.ascontiguousarray(people.images[index])
        crop, matrix = crop_from_canvas(canvas, squares[index], model.config.input_size)
        crops.append(crop)
        cameras.append(compose(matrix, people.labels["canvas_from_head"][index]))
    teacher = Teacher.from_face(face)
    identity, expression = (torch.from_numpy(people.labels[name][chosen]) for name in ("identity", "expression"))
    shape, vertices = teacher.true_geometry(identity, expression)
    person = people.labels["person"][chosen].astype(np.int64)
    mean = teacher.mean.reshape(1, -1, 3)
    output = predict(model, crops)
    rmse = np.array([rmse_mm(a, b) for a, b in zip(output.shape.numpy(), shape.numpy(), strict=True)])
    gaze = torch.from_numpy(gaze_vectors(people.labels["gaze_deg"][chosen]))
    return SeenPeople(output, shape, vertices, expression, gaze, cameras, person, mean, rmse)


def people_figures(seen: SeenPeople) -> dict[str, float]:
    """mm without any alignment, after rigid alignment (RMSE) and after a similarity; the mean face's own errors for
    scale; degrees; blendshapes; and how different the shapes of different people come out."""
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


def expression_figures(seen: SeenPeople) -> dict[str, float]:
    """Near frontal faces (yaw within 30, pitch within 25 degrees): how blendshape weights and gaze follow the truth,
    and how far they and rotations are off."""
    angles = np.abs([euler_from_camera(camera)[:2] for camera in seen.cameras])
    near = (angles[:, 0] < 25) & (angles[:, 1] < 30)
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


def rotation_errors(output: FaceOutput, cameras: Iterable[Floats]) -> NDArray[np.float64]:
    """Predicted and true cameras (P, 3, 4) -> (P,) angle between their rotations, degrees."""
    return np.array(
        [
            rotation_angle_deg(split_camera(p)[1], split_camera(t)[1])
            for p, t in zip(output.crop_from_head.numpy(), cameras, strict=True)
        ]
    )


def _correlation(predicted: Tensor, true: Tensor, name: str) -> float:
    """(N, 53) twice -> Pearson's correlation of one blendshape; 0 where it does not vary, which explains nothing."""
    column = BLENDSHAPES.index(name)
    pair = torch.stack([predicted[:, column], true[:, column]])
    return float(torch.corrcoef(pair)[0, 1]) if (pair.std(1) > 0).all() else 0.0


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm(dim=2).mean())


def _aligned_distance(a: Tensor, b: Tensor) -> float:
    """After the similarity that brings each a nearest to its b (Umeyama 1991): one photograph tells neither size nor
    where in the head the frame's origin is."""
    distances = []
    for source, target in zip(a.double().numpy(), b.double().numpy(), strict=True):
        moved = rigid_align(source, target)
        centre = target.mean(0)
        scale = ((moved - centre) * (target - centre)).sum() / ((moved - centre) ** 2).sum()
        distances.append(np.linalg.norm(scale * (moved - centre) + centre - target, axis=1).mean())
    return float(np.mean(distances))


def read_teacher(prepared: Path) -> Teacher:
    """The morphable face of a prepared folder, as tensors."""
    return Teacher.from_face(read_face(prepared))


def look_twice(model: nn.Module, images: list[Image], squares: list[Square]) -> tuple[FaceOutput, list[Floats]]:
    """Images and where their heads are -> outputs and cameras (frame_from_head), after a second look from where the
    first one saw the head, as the runtime takes it."""
    for _ in range(2):
        crops = [align(image, square, model.config.input_size) for image, square in zip(images, squares, strict=True)]
        output = predict(model, [crop.image for crop in crops])
        cameras = [
            compose(crop.frame_from_crop, camera)
            for crop, camera in zip(crops, output.crop_from_head.numpy(), strict=True)
        ]
        squares = [square_from_camera(camera) for camera in cameras]
    return output, cameras


def evaluate_blinks(model: nn.Module, faces: Path) -> dict[str, float]:
    """Photographs labelled by hand, those of them that are there -> how surely the mean eyeBlink weight tells closed
    eyes from open ones (AUC); nothing without both kinds."""
    labels, weights = hand_labelled(), {}
    folders = {faces / Path(name).parent for names in labels.values() for name in names}
    there = [one for folder in sorted(folders) if folder.is_dir() for one in annotated_photographs(folder)]
    for kind, names in labels.items():
        photographs = [one for one in there if f"{one.path.parent.name}/{one.path.stem}" in names]
        if not photographs:
            return {}
        weights[kind] = look_at(model, photographs).output.expression[:, BLINK].mean(1).numpy()
    return {
        **{kind: float(len(values)) for kind, values in weights.items()},
        **{f"mean_weight_{kind}": float(values.mean()) for kind, values in weights.items()},
        "auc": auc(weights["closed"], weights["open"]),
    }


def evaluate_pose(model: nn.Module, folder: Path, detector: Detector) -> dict[str, dict[str, float]]:
    """Pointing'04 from detected boxes, two looks as the runtime takes: mean error of pan and tilt in degrees within
    +-60; of all people, and of those never trained on."""
    wanted = [p for p in pointing_photographs(folder) if max(abs(p.tilt), abs(p.pan)) <= 60]
    images, squares, seen = [], [], []
    for photograph in wanted:
        image = read_image(photograph.path)
        found = detector.detect(image)
        if found:
            images.append(image)
            squares.append(square_from_box(found[0].box))
            seen.append(photograph)
    _, cameras = look_twice(model, images, squares)
    measured = np.array([euler_from_camera(camera)[:2] for camera in cameras])
    nominal = np.array([(photograph.tilt, photograph.pan) for photograph in seen], float)
    apart = np.array([not photograph.for_training for photograph in seen])
    rows = {"all": np.full(len(seen), True), "people not trained on": apart}
    return {
        name: {"photographs": float(chosen.sum()), **pose_figures(measured[chosen], nominal[chosen])}
        for name, chosen in rows.items()
        if chosen.any()
    } | {"found": {"percent": 100 * len(seen) / max(1, len(wanted))}}

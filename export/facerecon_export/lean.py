"""FaceModel -> the same function in few operators: the form that is exported.

On a CPU every operator costs a few microseconds, however little it computes, and a small network takes less than a
millisecond in all. Of the reconstructor, as it is written for training, the exporter makes eighty; here they are less
than half. What can be one product is one, and what is constant is folded into its matrix.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from facerecon_rt.align import CROP_CENTRE_MM, CROP_SIDE_MM
from facerecon_training.model import FaceModel, ShapeReconstructor, offset_scale
from facerecon_training.rendered.expressions import EYE_LOOK_DEG
from torch import Tensor, nn

LANDMARKS = 68
NEXT, AFTER = (1, 2, 0), (2, 0, 1)
ROTATED, CROSSED = (*NEXT, *AFTER), (*AFTER, *NEXT)
"""Orders in which x and y are multiplied for their cross product, whose component i is the difference of products i and
3 + i: x_{i+1} y_{i+2} - x_{i+2} y_{i+1}."""
NO_LOGIT = -30.0
"""Of a blendshape weight of 0."""
DIFFERENCE = torch.cat([torch.eye(3), -torch.eye(3)])


class LeanFace(nn.Module):
    """As a `FaceModel` in evaluation mode, whose weights it takes over."""

    def __init__(self, model: FaceModel) -> None:
        super().__init__()
        self.extractor = model.extractor
        self.reconstructor = LeanReconstructor(model.reconstructor, model.extractor.feature_count)
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, S, S) float32 0..255, BGR -> the outputs of the contract."""
        output: tuple[Tensor, ...] = self.reconstructor(self.extractor(image))
        return output


class LeanReconstructor(nn.Module):
    """As `ShapeReconstructor`, its matrices put together and rearranged.

    The camera is that of `camera_from_parameters`, but for the second row of the rotation: the cross product of the
    third and the first. Vectors that are to be multiplied crosswise come out of the first matrix as six numbers, in the
    orders above, so that a cross product is one product by components; the differences, and everything else that is
    linear, are in the last matrix.
    """

    def __init__(self, trained: ShapeReconstructor, feature_count: int) -> None:
        super().__init__()
        self.identity_features = feature_count // 2
        self.identity, self.motion = trained.identity, trained.motion
        self.has_gaze = trained.has_gaze
        self.mean = trained.mean
        self.shape_basis, self.expression_basis = trained.shape_basis, trained.expression_basis
        with torch.no_grad():
            layers = _output_layers(trained)
            self.sizes = [len(bias) for _, bias in layers]
            self.outputs = nn.Linear(trained.camera.in_features, sum(self.sizes))
            self.outputs.weight.copy_(torch.cat([weight for weight, _ in layers]))
            self.outputs.bias.copy_(torch.cat([bias for _, bias in layers]))
            rows = trained.landmark_rows
            self.register_buffer("landmark_mean", _homogeneous(trained.mean[None, rows], 1.0)[0])
            self.register_buffer("landmark_shape", _homogeneous(trained.shape_basis[:, rows], 0.0))
            self.register_buffer("landmark_expression", _homogeneous(trained.expression_basis[:, rows], 0.0))
        count = len(trained.expression.bias)
        self.sigmoid_sizes = [count, 1, self.sizes[0] - count - 1]
        self.register_buffer("vectors", _vectors_from_sines())
        self.vectors: Tensor
        self.register_buffer("cross", DIFFERENCE[:, list(CROSSED)])
        self.register_buffer("camera_matrix", _camera_matrix())
        self.landmark_mean: Tensor
        self.landmark_shape: Tensor
        self.landmark_expression: Tensor
        self.cross: Tensor
        self.camera_matrix: Tensor

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """(N, F) -> the outputs of the contract, in its order: nine, or six of weights that know no gaze."""
        count = len(features)
        code = self.identity(features[:, : self.identity_features])
        found = self.outputs(self.motion(features)).split(self.sizes, dim=1)
        logits, first, second, log_scale, centre, offset, *eyes = found
        rates: Any = torch.sigmoid(logits)
        expression, confidence, variance = rates.split(self.sigmoid_sizes, dim=1)
        if self.has_gaze:
            expression = expression + eyes[0].clamp(0, 1)
        shape = torch.addmm(self.mean, code, self.shape_basis).reshape(count, -1, 3)
        vertices = shape + (expression @ self.expression_basis).reshape(count, -1, 3)
        camera = self._camera(first, second, log_scale, centre)
        points = torch.addmm(self.landmark_mean, code, self.landmark_shape)
        points = torch.addmm(points, expression, self.landmark_expression)
        seen = points.reshape(count, LANDMARKS, 4) @ camera.transpose(1, 2)
        landmarks = seen + offset.reshape(count, LANDMARKS, 3)
        always = (shape, vertices, expression, camera, landmarks, confidence.reshape(count))
        if not self.has_gaze:
            return always
        gaze = (eyes[1].sin() @ self.vectors).reshape(count, 2, 3)
        return (*always, gaze, code, variance)

    def _camera(self, first: Tensor, second: Tensor, log_scale: Tensor, centre: Tensor) -> Tensor:
        """(N, 6) as ROTATED, (N, 6) as CROSSED, (N, 1), (N, 12) with zeros but for the translation -> (N, 3, 4)."""
        first = first / first.norm(dim=1, keepdim=True)
        third = (first * second) @ self.cross
        third = third / third.norm(dim=1, keepdim=True)
        rotation = torch.cat([first, third * first, third], 1) * log_scale.exp()
        return torch.addmm(centre, rotation, self.camera_matrix).reshape(-1, 3, 4)


def _output_layers(trained: ShapeReconstructor) -> list[tuple[Tensor, Tensor]]:
    """Weights and biases of what is read from the motion features, in the order in which `forward` splits it."""
    side, camera, annotation = trained.input_size, trained.camera, trained.annotation
    centre, centre_bias = camera.weight.new_zeros(12, camera.in_features), camera.bias.new_zeros(12)
    for entry, parameter in ((3, 7), (7, 8)):  # of the (3, 4) camera: where x and y are translated
        centre[entry] = 0.5 * side * camera.weight[parameter]
        centre_bias[entry] = side * (0.5 + 0.5 * camera.bias[parameter]) - 0.5
    offset, offset_bias = (
        offset_scale(side) * nn.functional.pad(values.reshape(LANDMARKS, 2, -1), (0, 0, 0, 1)).flatten(0, 1)
        for values in (annotation.weight, annotation.bias)
    )
    return [
        _sigmoid_layer(trained),
        (camera.weight[:3][list(ROTATED)], camera.bias[:3][list(ROTATED)]),
        (camera.weight[3:6][list(CROSSED)], camera.bias[3:6][list(CROSSED)]),
        (camera.weight[6:7], camera.bias[6:7] + math.log(side / CROP_SIDE_MM)),
        (centre, centre_bias),
        (offset, offset_bias.flatten()),
        *(_gaze_layers(trained) if trained.has_gaze else ()),
    ]


def _sigmoid_layer(trained: ShapeReconstructor) -> tuple[Tensor, Tensor]:
    """Logits of expression and confidence, and of the variance where there is one: exp(-softplus(x - 2)) is the sigmoid
    of 2 - x. Those of eyeLook are nothing: their weights come from the gaze."""
    weight, bias = trained.expression.weight.clone(), trained.expression.bias.clone()
    rows = [(weight, bias), (trained.confidence.weight, trained.confidence.bias)]
    if trained.has_gaze:
        looks = (trained.looks != 0).any(0)
        weight[looks], bias[looks] = 0.0, NO_LOGIT
        rows.append((-trained.precision.weight, 2.0 - trained.precision.bias))
    return torch.cat([row for row, _ in rows]), torch.cat([row for _, row in rows])


def _gaze_layers(trained: ShapeReconstructor) -> list[tuple[Tensor, Tensor]]:
    """The eyeLook weights before they are cut to 0..1, 0 for all other blendshapes; and per eye, of yaw y and pitch p,
    the angles y + p, y - p, p, and the first two a quarter turn on, of whose sines the gaze is a sum."""
    turn = math.radians(EYE_LOOK_DEG)
    weight, bias = turn * trained.gaze.weight, turn * trained.gaze.bias
    eye = torch.tensor([[1.0, 1], [1, -1], [0, 1], [1, -1], [1, 1]])
    quarter = math.pi / 2 * torch.tensor([0.0, 0, 0, 1, 1])
    angles = torch.kron(torch.eye(2), eye)
    return [
        (trained.looks.T @ weight, trained.looks.T @ bias),
        (angles @ weight, angles @ bias + quarter.repeat(2)),
    ]


def _vectors_from_sines() -> Tensor:
    """(10, 6): sines of the angles of `_gaze_layers` -> the two gaze vectors."""
    eye = torch.zeros(5, 3)
    eye[0, 0] = eye[1, 0] = 0.5  # sin y cos p
    eye[2, 1] = 1.0  # sin p
    eye[3, 2] = eye[4, 2] = 0.5  # cos y cos p
    return torch.kron(torch.eye(2), eye)


def _homogeneous(points: Tensor, last: float) -> Tensor:
    """(K, 68 * 3) -> (K, 68 * 4)."""
    return nn.functional.pad(points.reshape(len(points), LANDMARKS, 3), (0, 1), value=last).flatten(1)


def _camera_matrix() -> Tensor:
    """(18, 12): a rotation's first row as ROTATED, its products with the third, and the third as CROSSED, both rows of
    norm 1 as six numbers -> the rotation, and the translation that takes CROP_CENTRE_MM to 0."""
    rotation = torch.zeros(18, 3, 3)
    for i in range(3):
        rotation[ROTATED.index(i), 0, i] = 2**0.5
        rotation[12 + CROSSED.index(i), 2, i] = 2**0.5
    # The first is ROTATED and the third CROSSED: the difference is first times third, the opposite of the second row.
    rotation[6:12, 1] = -2 * DIFFERENCE
    from_centre = torch.cat([torch.eye(3), -torch.tensor(CROP_CENTRE_MM)[:, None]], 1)
    return (rotation @ from_centre).reshape(18, 12)

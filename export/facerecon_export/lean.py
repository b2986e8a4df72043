"""FaceModel -> the same function in few operators, which is the form that is exported.

On a CPU every operator costs a few microseconds, however little it computes, and a small network takes less than a
millisecond in all. The exporter makes eighty operators of the reconstructor that is written for training. This form
needs less than half. Products are joined where possible, and constants are folded into matrices.
"""

from __future__ import annotations

import math

import torch
from facerecon_rt.align import CROP_CENTRE_MM, CROP_SIDE_MM
from facerecon_training.model import FaceModel, ShapeReconstructor, offset_scale
from facerecon_training.rendered.expressions import EYE_LOOK_DEG
from torch import Tensor, nn

LANDMARKS = 68
NEXT, AFTER = (1, 2, 0), (2, 0, 1)
ROTATED, CROSSED = (*NEXT, *AFTER), (*AFTER, *NEXT)
"""Orders of the components of x and y for their cross product.

Component i is the difference of products i and 3 + i: x_{i+1} y_{i+2} - x_{i+2} y_{i+1}.
"""
NO_LOGIT = -30.0
"""Logit of a blendshape weight of 0."""
DIFFERENCE = torch.cat([torch.eye(3), -torch.eye(3)])


class LeanFace(nn.Module):
    """A `FaceModel` in evaluation mode in few operators. It takes over the model's weights."""

    def __init__(self, model: FaceModel) -> None:
        super().__init__()
        self.extractor = model.extractor
        self.reconstructor = LeanReconstructor(model.reconstructor)
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs of the contract from pictures (N, 3, S, S) float32 0..255, BGR."""
        output: tuple[Tensor, ...] = self.reconstructor(self.extractor(image))
        return output


class LeanReconstructor(nn.Module):
    """A `ShapeReconstructor` with joined and rearranged matrices.

    The camera is that of `camera_from_parameters`, except for the second row of the rotation: it is the cross product
    of the third and the first. Vectors of a cross product come out of the first matrix as six numbers, in the orders
    ROTATED and CROSSED. The cross product is then one product by components. The differences, and everything else that
    is linear, are in the last matrix.
    """

    def __init__(self, trained: ShapeReconstructor) -> None:
        super().__init__()
        self.identity_features = trained.identity_features
        self.identity, self.motion = trained.identity, trained.motion
        direct = trained.direct_identity
        self.direct_identity = None if direct is None else nn.Parameter(direct.weight.detach().T.contiguous())
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
        self.sigmoid_sizes = [len(trained.expression.bias), 1, trained.shape_basis.shape[0]]
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
        """Compute the outputs of the contract from features (N, F), in the contract's order.

        There are nine outputs, or six for weights without gaze.
        """
        count = features.shape[0]
        identity_features = features[:, self.identity_features]
        code = self.identity(identity_features)
        if self.direct_identity is not None:
            code = torch.addmm(code, identity_features, self.direct_identity)
        found = self.outputs(self.motion(features)).split(self.sizes, dim=1)
        if self.has_gaze:
            logits, *others, eye_look, angles = found
            expression, confidence, variance = torch.split(torch.sigmoid(logits), self.sigmoid_sizes, dim=1)
            expression = expression + eye_look.clamp(0, 1)
        else:
            expression_logit, confidence_logit, *others = found
            expression = torch.sigmoid(expression_logit)
        first, second, log_scale, centre, offset = others
        shape = torch.addmm(self.mean, code, self.shape_basis).reshape(count, -1, 3)
        vertices = shape + (expression @ self.expression_basis).reshape(count, -1, 3)
        camera = self._camera(first, second, log_scale, centre)
        points = torch.addmm(self.landmark_mean, code, self.landmark_shape)
        points = torch.addmm(points, expression, self.landmark_expression)
        seen = points.reshape(count, LANDMARKS, 4) @ camera.transpose(1, 2)
        landmarks = seen + offset.reshape(count, LANDMARKS, 3)
        always = (shape, vertices, expression, camera, landmarks)
        if not self.has_gaze:
            return (*always, torch.sigmoid(confidence_logit).reshape(count))
        gaze = (angles.sin() @ self.vectors).reshape(count, 2, 3)
        return (*always, confidence.reshape(count), gaze, code, variance)

    def _camera(self, first: Tensor, second: Tensor, log_scale: Tensor, centre: Tensor) -> Tensor:
        """Compute cameras (N, 3, 4) from two vectors, a scale and a translation.

        The inputs are (N, 6) as ROTATED, (N, 6) as CROSSED, (N, 1), and (N, 12) with zeros except for the translation.
        """
        first = first / first.norm(dim=1, keepdim=True)
        third = (first * second) @ self.cross
        third = third / third.norm(dim=1, keepdim=True)
        rotation = torch.cat([first, third * first, third], 1) * log_scale.exp()
        return torch.addmm(centre, rotation, self.camera_matrix).reshape(-1, 3, 4)


def _output_layers(trained: ShapeReconstructor) -> list[tuple[Tensor, Tensor]]:
    """Return weights and biases of the layers on the motion features, in the order in which `forward` splits them."""
    side, camera, annotation = trained.input_size, trained.camera, trained.annotation
    centre, centre_bias = camera.weight.new_zeros(12, camera.in_features), camera.bias.new_zeros(12)
    for entry, parameter in ((3, 7), (7, 8)):  # entries of the (3, 4) camera that translate x and y
        centre[entry] = 0.5 * side * camera.weight[parameter]
        centre_bias[entry] = side * (0.5 + 0.5 * camera.bias[parameter]) - 0.5
    offset, offset_bias = (
        offset_scale(side) * nn.functional.pad(values.reshape(LANDMARKS, 2, -1), (0, 0, 0, 1)).flatten(0, 1)
        for values in (annotation.weight, annotation.bias)
    )
    return [
        *_sigmoid_layers(trained),
        (camera.weight[:3][list(ROTATED)], camera.bias[:3][list(ROTATED)]),
        (camera.weight[3:6][list(CROSSED)], camera.bias[3:6][list(CROSSED)]),
        (camera.weight[6:7], camera.bias[6:7] + math.log(side / CROP_SIDE_MM)),
        (centre, centre_bias),
        (offset, offset_bias.flatten()),
        *(_gaze_layers(trained) if trained.has_gaze else ()),
    ]


def _sigmoid_layers(trained: ShapeReconstructor) -> list[tuple[Tensor, Tensor]]:
    """Return the layers that end in a sigmoid: expression and confidence; with gaze, one layer that also gives the
    variance.

    The variance fits because exp(-softplus(x - 2)) is the sigmoid of 2 - x. The logits of eyeLook are constant and give
    0, because their weights come from the gaze.
    """
    weight, bias = trained.expression.weight.clone(), trained.expression.bias.clone()
    layers = [(weight, bias), (trained.confidence.weight, trained.confidence.bias)]
    if not trained.has_gaze:
        return layers
    eye_look = (trained.eye_look != 0).any(0)
    weight[eye_look], bias[eye_look] = 0.0, NO_LOGIT
    layers.append((-trained.precision.weight, 2.0 - trained.precision.bias))
    return [(torch.cat([row for row, _ in layers]), torch.cat([row for _, row in layers]))]


def _gaze_layers(trained: ShapeReconstructor) -> list[tuple[Tensor, Tensor]]:
    """Return the layers of the eyeLook weights and of the angles whose sines give the gaze.

    The eyeLook weights are not yet clamped to 0..1; other blendshapes get 0. Per eye with yaw y and pitch p, the angles
    are y + p, y - p, p, and the first two in reverse order plus a quarter turn.
    """
    turn = math.radians(EYE_LOOK_DEG)
    weight, bias = turn * trained.gaze.weight, turn * trained.gaze.bias
    eye = torch.tensor([[1.0, 1], [1, -1], [0, 1], [1, -1], [1, 1]])
    quarter = math.pi / 2 * torch.tensor([0.0, 0, 0, 1, 1])
    angles = torch.kron(torch.eye(2), eye)
    return [
        (trained.eye_look.T @ weight, trained.eye_look.T @ bias),
        (angles @ weight, angles @ bias + quarter.repeat(2)),
    ]


def _vectors_from_sines() -> Tensor:
    """Return the matrix (10, 6) from the sines of `_gaze_layers` to the two gaze vectors."""
    eye = torch.zeros(5, 3)
    eye[0, 0] = eye[1, 0] = 0.5  # sin y cos p
    eye[2, 1] = 1.0  # sin p
    eye[3, 2] = eye[4, 2] = 0.5  # cos y cos p
    return torch.kron(torch.eye(2), eye)


def _homogeneous(points: Tensor, last: float) -> Tensor:
    """Append a fourth coordinate to 68 points: (K, 68 * 3) -> (K, 68 * 4)."""
    return nn.functional.pad(points.reshape(points.shape[0], LANDMARKS, 3), (0, 1), value=last).flatten(1)


def _camera_matrix() -> Tensor:
    """Return the matrix (18, 12) from products of rows to the rotation and its translation.

    The input is the rotation's first row as ROTATED, its products with the third row, and the third row as CROSSED.
    Both rows are six numbers of norm 1. The translation takes CROP_CENTRE_MM to 0.
    """
    rotation = torch.zeros(18, 3, 3)
    for i in range(3):
        rotation[ROTATED.index(i), 0, i] = 2**0.5
        rotation[12 + CROSSED.index(i), 2, i] = 2**0.5
    # The first row is ROTATED and the third CROSSED, so the difference is first x third: the negative second row.
    rotation[6:12, 1] = -2 * DIFFERENCE
    from_centre = torch.cat([torch.eye(3), -torch.tensor(CROP_CENTRE_MM)[:, None]], 1)
    return (rotation @ from_centre).reshape(18, 12)

"""Crop -> features -> shape, expression, camera and confidence: the FaceModel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from facerecon_rt.align import CROP_CENTRE_MM, CROP_SIDE_MM
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.template import IBUG_MIRROR, load_template
from torch import Tensor, nn
from torch.nn import functional

from .backbones import FeatureExtractor
from .rendered.expressions import EYE_LOOK, EYE_LOOK_DEG

EYE_DISTANCE_MM = 90.0
"""Distance between the outer eye corners of the mean face. It is the unit of landmark errors, at the crop's own
scale."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Settings that are needed to build a FaceModel. They are stored in the .safetensors metadata."""

    backbone: str = "medium"
    """Name of a backbone in backbones.BACKBONES."""
    input_size: int = 160
    """Crop side in pixels, a multiple of 32."""
    shape_code: int = 64
    """Length of the identity code between the reconstructor's layers."""
    hidden: int = 384
    """Width of the reconstructor's hidden layers."""
    terms: str = "untrained"
    """Permitted use of the weights. It is copied into the contract."""
    gaze: bool = True
    """Whether the model has heads for gaze and for the precision of the shape. Weights of release 0.1 have none."""
    places: int = 128
    """Number of features that mix channels and places of the last map, even. Weights of before 30 November 2026 have
    none."""

    def check(self) -> None:
        """Raise ValueError if a field has the wrong type or an impossible value."""
        for name, most in (("input_size", 1024), ("shape_code", 4096), ("hidden", 65_536)):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise ValueError(f"{name} {value!r:.40} is not a whole number from 1 to {most}")
        if self.input_size % 32:
            raise ValueError(f"input_size {self.input_size} is not a multiple of 32")
        if type(self.places) is not int or self.places % 2 or not 0 <= self.places <= 65_536:
            raise ValueError(f"places {self.places!r:.40} is not an even number from 0 to 65536")
        if type(self.gaze) is not bool:
            raise ValueError(f"gaze {self.gaze!r:.40} is neither true nor false")
        for name in ("backbone", "terms"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name).isprintable():
                raise ValueError(f"{name} is not a text of one line")


class FaceOutput(NamedTuple):
    """The outputs of the contract, in its order."""

    shape: Tensor
    """Neutral face (N, V, 3) mm, head frame."""
    vertices: Tensor
    """Face with expression (N, V, 3) mm, head frame."""
    expression: Tensor
    """Blendshape weights (N, 53), 0..1."""
    crop_from_head: Tensor
    """Scaled-orthographic camera (N, 3, 4): crop pixels and relative depth."""
    landmarks: Tensor
    """Landmarks (N, 68, 3) where an annotator would put them: crop pixels and relative depth."""
    confidence: Tensor
    """Confidence (N,), 0..1."""
    gaze: Tensor
    """Gaze (N, 2, 3) of the left and the right eye: unit vectors in the head frame."""
    identity: Tensor
    """Code (N, K) that `shape` is decoded from, in standard deviations over people."""
    identity_variance: Tensor
    """Variance (N, K) of the error of `identity`; 1 if the picture shows nothing of it."""


class FaceCodes(NamedTuple):
    """Values beside the outputs that the losses need."""

    features: Tensor
    """Identity features (N, F / 2), which must agree between two views of one person."""
    shape_code: Tensor
    """Shape code (N, K) with unit variance over people."""
    log_variance: Tensor
    """Logarithm of the variance (N, K) of the shape code's error: 0 if nothing is known, else less."""
    gaze_rad: Tensor
    """Yaw and pitch (N, 2, 2) of the left and the right eye in the head."""
    expression_logit: Tensor
    """Logits (N, 53) of the blendshape weights."""
    confidence_logit: Tensor
    """Logits (N,) of the confidence."""
    vertex_landmarks: Tensor
    """Projected landmark vertices (N, 68, 3): crop pixels and relative depth."""
    motion: Tensor
    """Hidden features (N, hidden) from which expression, camera and confidence are read, and heads of the training."""


def hidden_layer(inputs: int, outputs: int) -> nn.Sequential:
    """Return a fully connected layer, normalised, with ReLU. Without the normalisation, nine in ten units die early."""
    return nn.Sequential(nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True))


class ShapeReconstructor(nn.Module):
    """Features -> face, with fully connected layers.

    Half of the features describe the person, and the shape code is read from them alone: directly, and through a hidden
    layer. Expression, camera and confidence are read from all features. The loss can therefore ask the features of the
    person to agree in two photographs. The decoders are linear maps, and are trained.

    Landmarks are the projected landmark vertices plus an offset in the picture. The offset covers annotators'
    conventions: points on the visible contour of the jaw, which belong to no fixed place on the skull, and habits such
    as the end of an inner lip. Without the offset, geometry would bend to follow conventions.
    """

    def __init__(self, feature_count: int, identity_features: slice, config: ModelConfig) -> None:
        super().__init__()
        vertex_count = load_template().vertex_count
        self.input_size = config.input_size
        self.identity_features = identity_features
        half = identity_features.stop - identity_features.start
        self.identity = nn.Sequential(hidden_layer(half, config.hidden), nn.Linear(config.hidden, config.shape_code))
        self.direct_identity = nn.Linear(half, config.shape_code, bias=False) if config.places else None
        self.motion = hidden_layer(feature_count, config.hidden)
        self.expression = nn.Linear(config.hidden, len(BLENDSHAPES))
        self.has_gaze = config.gaze
        if config.gaze:
            self.gaze = nn.Linear(config.hidden, 4)
            self.precision = nn.Linear(config.hidden, config.shape_code)
            for head in (self.gaze, self.precision):
                nn.init.zeros_(head.weight)
                nn.init.zeros_(head.bias)
        if self.direct_identity is not None:
            nn.init.zeros_(self.direct_identity.weight)
        self.register_buffer("eye_look", eye_look_from_angles(), persistent=False)
        self.eye_look: Tensor
        """Matrix (4, 53) from yaw and pitch of both eyes, in radians, to the eyeLook weights."""
        self.camera = nn.Linear(config.hidden, 9)
        self.confidence = nn.Linear(config.hidden, 1)
        self.annotation = nn.Linear(config.hidden, 68 * 2)
        self.mean = nn.Parameter(torch.zeros(vertex_count * 3))
        self.shape_basis = nn.Parameter(torch.zeros(config.shape_code, vertex_count * 3))
        self.expression_basis = nn.Parameter(torch.zeros(len(BLENDSHAPES), vertex_count * 3))
        landmark_rows = load_template().landmarks.astype(np.int64)[:, None] * 3 + np.arange(3)
        self.register_buffer("landmark_rows", torch.from_numpy(landmark_rows.reshape(-1)), persistent=False)
        self.landmark_rows: Tensor
        self.register_buffer("asymmetry", torch.zeros(68, 2))
        self.asymmetry: Tensor
        """Half the mean difference between the landmarks of a crop and those of its mirror image, mirrored back, in
        crop pixels.

        The average of both images would lose it. It is 0 until `habits.with_habits` has measured it.
        """
        nn.Module.register_load_state_dict_pre_hook(self, _add_asymmetry)
        nn.init.constant_(self.expression.bias, -2.5)
        nn.init.zeros_(self.annotation.weight)
        nn.init.zeros_(self.annotation.bias)
        nn.init.zeros_(self.camera.weight)
        # The initial camera shows an upright frontal head that fills the crop as align places it.
        self.camera.bias.data = torch.tensor([1.0, 0, 0, 0, -1.0, 0, 0, 0, 0])

    def forward(self, features: Tensor) -> tuple[FaceOutput, FaceCodes]:
        """Compute the outputs from features (N, F), and the values that the losses need."""
        identity_features = features[:, self.identity_features]
        code = self.identity(identity_features)
        if self.direct_identity is not None:
            code = code + self.direct_identity(identity_features)
        motion = self.motion(features)
        expression_logit = self.expression(motion)
        expression = torch.sigmoid(expression_logit)
        if self.has_gaze:
            angles = math.radians(EYE_LOOK_DEG) * self.gaze(motion)
            log_variance = -functional.softplus(self.precision(motion) - 2.0)
            # The gaze determines the eyeLook weights, and the lids follow them.
            eye_look = (angles @ self.eye_look).clamp(0, 1)
            expression = expression * (self.eye_look == 0).all(0) + eye_look
        else:
            angles = expression @ self.eye_look.T * math.radians(EYE_LOOK_DEG) ** 2
            log_variance = torch.zeros_like(code)
        logit = self.confidence(motion)[:, 0]
        shape = self.mean + code @ self.shape_basis
        vertices = shape + expression @ self.expression_basis
        # Landmarks use their own few rows, so that a caller who needs only landmarks need not decode every vertex.
        rows = self.landmark_rows
        points = self.mean[rows] + code @ self.shape_basis[:, rows] + expression @ self.expression_basis[:, rows]
        camera = camera_from_parameters(self.camera(motion), self.input_size)
        vertex_landmarks = project(camera, points.reshape(-1, 68, 3))
        offset = offset_scale(self.input_size) * self.annotation(motion).reshape(-1, 68, 2)
        landmarks = vertex_landmarks + nn.functional.pad(offset, (0, 1))
        output = FaceOutput(
            shape.reshape(len(features), -1, 3),
            vertices.reshape(len(features), -1, 3),
            expression,
            camera,
            landmarks,
            torch.sigmoid(logit),
            gaze_vectors(angles.reshape(-1, 2, 2)),
            code,
            log_variance.exp(),
        )
        codes = FaceCodes(
            identity_features,
            code,
            log_variance,
            angles.reshape(-1, 2, 2),
            expression_logit,
            logit,
            vertex_landmarks,
            motion,
        )
        return output, codes


def _add_asymmetry(module: ShapeReconstructor, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Add the asymmetry to weights of release 0.1.0, which had not measured it.

    The value is that of the offset's constant part, which is about 1.4 times as large.
    """
    if f"{prefix}asymmetry" not in state and f"{prefix}annotation.bias" in state:
        constant = offset_scale(module.input_size) * state[f"{prefix}annotation.bias"].reshape(68, 2)
        in_mirror = constant[IBUG_MIRROR] * constant.new_tensor([-1.0, 1.0])
        state[f"{prefix}asymmetry"] = (constant - in_mirror) / 2


class FaceModel(nn.Module):
    """The network from a crop to a face: a FeatureExtractor and a ShapeReconstructor."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.extractor = FeatureExtractor(config.backbone, config.input_size, config.places)
        extractor = self.extractor
        self.reconstructor = ShapeReconstructor(extractor.feature_count, extractor.identity_features, config)

    def forward(self, image: Tensor) -> FaceOutput:
        """Compute the outputs of the contract from (N, 3, S, S) float32 0..255, BGR."""
        return self.with_codes(image)[0]

    def with_codes(self, image: Tensor) -> tuple[FaceOutput, FaceCodes]:
        """Compute the outputs as `forward` does, and the values that the losses need."""
        output, codes = self.reconstructor(self.extractor(image))
        return output, codes


def eye_look_from_angles() -> Tensor:
    """Return the matrix (4, 53) from yaw and pitch of both eyes, in radians, to eyeLook weights that are not yet
    clamped."""
    per_radian = 1 / math.radians(EYE_LOOK_DEG)
    matrix = [[0.0] * len(BLENDSHAPES) for _ in range(4)]
    for eye, (outwards, inwards, up, down) in enumerate(EYE_LOOK):
        left = per_radian if eye == 0 else -per_radian
        matrix[2 * eye][outwards], matrix[2 * eye][inwards] = left, -left
        matrix[2 * eye + 1][up], matrix[2 * eye + 1][down] = per_radian, -per_radian
    # Arithmetic with tensors of the device "meta" would import PyTorch's compiler, which takes seconds.
    return torch.tensor(matrix)


def gaze_vectors(angles: Tensor) -> Tensor:
    """Return unit vectors (..., 3) in the head frame from angles (..., 2) in radians.

    The angles are yaw to the subject's left and pitch upwards.
    """
    yaw, pitch = angles[..., 0], angles[..., 1]
    return torch.stack([yaw.sin() * pitch.cos(), pitch.sin(), yaw.cos() * pitch.cos()], -1)


def offset_scale(input_size: int) -> float:
    """Return the crop pixels per unit of the annotation layer: an eye distance."""
    return input_size * EYE_DISTANCE_MM / CROP_SIDE_MM


def camera_from_parameters(parameters: Tensor, input_size: int) -> Tensor:
    """Return scaled-orthographic cameras (N, 3, 4), crop pixels and relative depth, from free parameters (N, 9).

    Six numbers are two rows of the rotation, made orthonormal by Gram-Schmidt (Zhou et al., On the continuity of
    rotation representations, CVPR 2019). The other three are the logarithm of the scale and the place of
    CROP_CENTRE_MM, relative to where `align` puts an upright head.
    """
    first = nn.functional.normalize(parameters[:, 0:3], dim=1)
    second = parameters[:, 3:6] - (first * parameters[:, 3:6]).sum(1, keepdim=True) * first
    second = nn.functional.normalize(second, dim=1)
    rotation = torch.stack([first, second, torch.linalg.cross(first, second, dim=1)], 1)
    scale = input_size / CROP_SIDE_MM * torch.exp(parameters[:, 6, None, None])
    linear = scale * rotation
    centre = nn.functional.pad(input_size * (0.5 + 0.5 * parameters[:, 7:9]) - 0.5, (0, 1))
    centre_mm = torch.tensor(CROP_CENTRE_MM, dtype=parameters.dtype, device=parameters.device)
    translation = centre - (linear * centre_mm).sum(2)
    return torch.cat([linear, translation[:, :, None]], 2)


def project(camera: Tensor, points: Tensor) -> Tensor:
    """Project points (N, K, 3) mm by cameras crop_from_head (N, 3, 4) to (N, K, 3) crop pixels and relative depth."""
    return points @ camera[:, :, :3].transpose(1, 2) + camera[:, None, :, 3]

"""Outputs and a batch -> the loss. The labels of each picture decide which terms it adds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from facerecon_rt.align import CROP_SIDE_MM
from torch import Tensor
from torch.nn import functional

from .data import Batch
from .losses import (
    LossWeights,
    annotated_points,
    code_of_shape,
    confidence_target,
    contour_points,
    direction_loss,
    expression_loss,
    gaze_loss,
    geometry_loss,
    iris_loss,
    landmark_loss,
    likelihood_loss,
    mean_or_zero,
    motion_loss,
    opening_loss,
    person_loss,
    projection_loss,
    reconstruction_loss,
    rotation_loss,
    shape_loss,
    shared_shapes,
    symmetry_loss,
    teacher_trust,
    unseen_directions,
)
from .model import EYE_DISTANCE_MM, FaceCodes, FaceOutput, ShapeReconstructor, project
from .photometric import SkinModel, photometric_loss
from .rendered.expressions import EYE_LOOK
from .rendered.eyes import BLINK
from .rendered.morphable import MorphableFace

Terms = dict[str, Tensor]
LEAST_POWER = 0.02
"""Minimum mean square of an identity code that the prior allows in any direction."""


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """The morphable face as tensors, which gives true geometry from known weights."""

    mean: Tensor
    """Mean face (V * 3,) mm."""
    identity: Tensor
    """Identity basis (100, V * 3)."""
    expression: Tensor
    """Expression basis (53, V * 3)."""
    unseen: Tensor
    """Orthonormal directions (7, V * 3) of `unseen_directions`."""
    eyes: Tensor
    """Eyeballs (2, 2, 3) mm, the `model` of `losses.iris_loss`."""
    skin: SkinModel | None = None
    """Skin of the photometric term."""

    @classmethod
    def from_face(
        cls, face: MorphableFace, device: torch.device | str = "cpu", skin: SkinModel | None = None
    ) -> Teacher:
        """Return the morphable face on a device."""
        mean, identity, expression = (
            torch.from_numpy(array).to(device) for array in (face.mean, face.identity, face.expression)
        )
        unseen = unseen_directions(mean.flatten())
        eyes = torch.from_numpy(face.eyes).to(device)
        return cls(mean.flatten(), identity.flatten(1), expression.flatten(1), unseen, eyes, skin)

    def true_geometry(self, identity: Tensor, expression: Tensor) -> tuple[Tensor, Tensor]:
        """Return shape and vertices, (N, V, 3) mm each, of identity (N, 100) and expression (N, 53)."""
        shape = self.mean + identity @ self.identity
        vertices = shape + expression @ self.expression
        size = (len(identity), len(self.mean) // 3, 3)
        return shape.reshape(size), vertices.reshape(size)


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Labels of a batch of N pictures, R of them rendered."""

    rendered: Tensor
    """Whether each picture is rendered, (N,) bool."""
    photograph: Tensor
    """Whether each picture is an annotated photograph, (N,) bool."""
    directed: Tensor
    """Whether each picture is a photograph with a known head direction and no other label, (N,) bool."""
    landmarks: Tensor
    """Landmarks (N, 68, 2) crop pixels; 0 where the trust is 0.

    They are annotated, or come from rendered vertices and visible jaw contours.
    """
    trust: Tensor
    """Weights of the landmarks, (N, 68)."""
    shape: Tensor
    """Neutral shapes (R, V, 3) mm of the rendered pictures."""
    vertices: Tensor
    """Vertices (R, V, 3) mm of the rendered pictures."""
    eye: float
    """Distance of the outer eye corners in crop pixels, the unit of errors."""
    person: Tensor
    """Number of the photographed person, (N,) int64; -1 where it is not known."""


Taught = tuple[Tensor, Tensor]
"""Pictures (N,) bool that the running average of the weights has seen, and its landmarks (N, 68, 2) for them."""


def known_of(batch: Batch, teacher: Teacher, taught: Taught | None = None) -> Known:
    """Return the labels of a batch. `taught` holds the running average's landmarks, if it was computed.

    Machine-made landmarks lose trust where the running average disagrees.
    """
    eye = EYE_DISTANCE_MM * batch.image.shape[-1] / CROP_SIDE_MM
    directed = batch.direction.abs().sum(1) > 0
    photograph = (batch.is_face > 0) & ~batch.rendered & ~directed
    camera = batch.crop_from_head[batch.rendered]
    shape, vertices = teacher.true_geometry(batch.identity[batch.rendered], batch.expression[batch.rendered])
    contour, _ = contour_points(vertices, camera)
    inner = project(camera, annotated_points(vertices))[:, :, :2]
    landmarks, trust = batch.landmarks.clone(), batch.landmark_weights.clone()
    landmarks[batch.rendered] = torch.cat([contour, inner], 1)
    trust[batch.rendered] = 1.0
    if taught is not None:
        rows, pseudo = taught
        machine = (batch.machine_made & photograph & rows)[:, None]
        trust = torch.where(machine, teacher_trust(pseudo, landmarks, trust, eye), trust)
    return Known(batch.rendered, photograph, directed, landmarks, trust, shape, vertices, eye, batch.person)


def is_taught(batch: Batch) -> Tensor:
    """Return the pictures (N,) bool that need the running average's landmarks: those that no person annotated.

    The result is empty if no photograph of the batch is annotated by a person. Nothing would then keep the average from
    drifting away.
    """
    annotated = batch.landmark_weights.amax(1) > 0
    held = (annotated & ~batch.machine_made).any()
    return held & (batch.machine_made | (batch.direction.abs().sum(1) > 0))


def face_loss(
    output: FaceOutput,
    codes: FaceCodes,
    batch: Batch,
    pairs: int,
    teacher: Teacher,
    weights: LossWeights,
    skin_code: Tensor | None = None,
    taught: Taught | None = None,
    lesson: FaceOutput | None = None,
    decoder: ShapeReconstructor | None = None,
) -> tuple[Tensor, Terms]:
    """Return the loss of a batch, and its weighted and detached terms by name.

    `skin_code` (N, SKIN_CODE) is for the photometric term. `taught` holds the running average's landmarks of the
    pictures that `is_taught` names. `lesson` holds a bigger network's outputs for all pictures. `decoder` is the
    reconstructor whose shape code learns its variance.
    """
    known = known_of(batch, teacher, taught)
    terms = {
        "reconstruction": reconstruction_term(output, codes, known, pairs, teacher, weights),
        **landmark_terms(output, known, taught, weights),
        **rendered_terms(output, codes, batch, known, weights),
        **photograph_terms(output, codes, batch, known, teacher, weights),
        **pair_terms(output, known, pairs, teacher, weights),
        "direction": weights.direction
        * mean_or_zero(direction_loss(output.crop_from_head[known.directed], batch.direction[known.directed])),
        "confidence": weights.confidence * confidence_term(output, codes, batch, known),
    }
    if decoder is not None:
        true_code = code_of_shape(known.shape, decoder.mean.detach(), decoder.shape_basis.detach(), teacher.unseen)
        rows = known.rendered
        spread = likelihood_loss(codes.shape_code[rows], true_code, codes.log_variance[rows])
        terms["identity"] = weights.identity * mean_or_zero(spread)
    if lesson is not None:
        rows = known.photograph | known.directed
        terms["distillation"] = weights.distillation * distillation_term(
            output, codes, lesson, rows, teacher, weights, known.eye
        )
    if skin_code is not None and teacher.skin is not None:
        code, image = skin_code[known.photograph], batch.image[known.photograph].float()
        vertices, camera = output.vertices[known.photograph], output.crop_from_head[known.photograph]
        colour = photometric_loss(image, vertices, camera, teacher.skin.albedo(code))
        terms["photometric"] = weights.photometric * mean_or_zero(colour)
        terms["skin_prior"] = weights.skin_prior * mean_or_zero((code**2).mean(1))
    return torch.stack(list(terms.values())).sum(), {name: term.detach() for name, term in terms.items()}


def reconstruction_term(
    output: FaceOutput, codes: FaceCodes, known: Known, pairs: int, teacher: Teacher, weights: LossWeights
) -> Tensor:
    """Return the basic loss: shapes of rendered faces, equal features in pairs, and the prior on photographed faces.

    The code is the mean of a posterior, whose mean square over people is 1 minus the variance of its error. Without
    this prior, codes of photographs grow in directions that the network cannot see.
    """
    power = (1 - codes.log_variance[known.photograph].detach().exp()).clamp(min=LEAST_POWER)
    return reconstruction_loss(
        output.shape[known.rendered],
        known.shape,
        codes.features[: 2 * pairs : 2],
        codes.features[1 : 2 * pairs : 2],
        codes.shape_code[known.photograph] / power.sqrt(),
        teacher.unseen,
        weights,
    )


def landmark_terms(output: FaceOutput, known: Known, taught: Taught | None, weights: LossWeights) -> Terms:
    """Return the terms of the landmark output against annotations, rendered faces and the running average."""
    error = landmark_loss(output.landmarks, known.landmarks, known.trust, weights.jaw, known.eye)
    terms = {
        "landmarks": weights.landmarks * mean_or_zero(error[known.photograph]),
        "rendered_landmarks": weights.rendered_landmarks * mean_or_zero(error[known.rendered]),
    }
    if taught is not None:
        rows, pseudo = taught
        everywhere = torch.ones_like(known.trust[rows])
        distance = landmark_loss(output.landmarks[rows], pseudo[rows], everywhere, weights.jaw, known.eye)
        terms["teacher"] = weights.teacher * mean_or_zero(distance)
    return terms


def rendered_terms(output: FaceOutput, codes: FaceCodes, batch: Batch, known: Known, weights: LossWeights) -> Terms:
    """Return the terms of rendered faces beside shape and landmarks: expression, gaze, rotation and projected
    vertices."""
    rows = known.rendered
    vertices, camera, true_camera = output.vertices[rows], output.crop_from_head[rows], batch.crop_from_head[rows]
    off = motion_loss(vertices - output.shape[rows], known.vertices - known.shape)
    seen = projection_loss(camera, vertices[:, ::20], true_camera, known.vertices[:, ::20], known.eye)
    fixed = batch.expression_weights[rows] * not_looks(batch.expression)
    expression = expression_loss(codes.expression_logit[rows], batch.expression[rows], fixed)
    gaze = gaze_loss(codes.gaze_rad[rows], batch.gaze[rows], batch.gaze_weights[rows])
    return {
        "gaze": weights.gaze * mean_or_zero(gaze),
        "motion": weights.motion * mean_or_zero(off),
        "expression": weights.expression * mean_or_zero(expression),
        "rotation": weights.rotation * mean_or_zero(rotation_loss(camera, true_camera)),
        "projection": weights.projection * mean_or_zero(seen),
    }


def not_looks(expression: Tensor) -> Tensor:
    """Return factors (53,): 0 for the eyeLook weights, which follow from the gaze, else 1."""
    kept = torch.ones(expression.shape[1]).to(expression)
    kept[[index for eye in EYE_LOOK for index in eye]] = 0.0
    return kept


def photograph_terms(
    output: FaceOutput, codes: FaceCodes, batch: Batch, known: Known, teacher: Teacher, weights: LossWeights
) -> Terms:
    """Return the terms of annotated photographs beside their landmarks.

    They ask that geometry fits the landmarks, that lids and lips do, and that faces are mostly symmetric and at rest.
    """
    rows = known.photograph
    true, trust = known.landmarks[rows], known.trust[rows]
    vertices, camera = output.vertices[rows], output.crop_from_head[rows]
    geometry = geometry_loss(vertices, camera, true, trust, weights.jaw, weights.jaw_tangent, known.eye)
    openings = opening_loss(codes.vertex_landmarks[rows], true, trust, known.eye)
    weak = expression_loss(
        codes.expression_logit[rows],
        batch.expression[rows],
        batch.expression_weights[rows] * not_looks(batch.expression),
    )
    irises = iris_loss(
        codes.gaze_rad[rows], camera, batch.eyes[rows], batch.eyes_weights[rows], teacher.eyes, known.eye
    )
    gaze = gaze_loss(codes.gaze_rad[rows], batch.gaze[rows], batch.gaze_weights[rows])
    lids = codes.expression_logit[rows][:, BLINK].reshape(-1, 1)
    blink = expression_loss(lids, batch.blink[rows].reshape(-1, 1)) * batch.blink_weights[rows].flatten()
    return {
        "weak_expression": weights.weak_expression * mean_or_zero(weak),
        "eyes": weights.eyes * mean_or_zero(irises),
        "weak_gaze": weights.weak_gaze * mean_or_zero(gaze),
        "geometry": weights.geometry * mean_or_zero(geometry),
        "openings": weights.openings * mean_or_zero(openings),
        "blink": weights.blink * mean_or_zero(blink),
        "symmetry": weights.symmetry * mean_or_zero(symmetry_loss(output.shape[rows])),
        "expression_prior": weights.expression_prior * mean_or_zero(output.expression[rows]),
    }


def pair_terms(output: FaceOutput, known: Known, pairs: int, teacher: Teacher, weights: LossWeights) -> Terms:
    """Return the terms of pairs of photographs, which come first in a batch.

    One shape must explain both photographs of a person, and tell known people apart. Two augmentations of a photograph
    may show anyone. Pairs of rendered faces need neither term, because their shapes are known.
    """
    rows = known.photograph.clone()
    rows[2 * pairs :] = False
    people = rows & (known.person >= 0)
    shared = shared_shapes(output.shape[rows], output.vertices[rows])
    of_sets = geometry_loss(
        shared,
        output.crop_from_head[rows],
        known.landmarks[rows],
        known.trust[rows],
        weights.jaw,
        weights.jaw_tangent,
        known.eye,
    )
    return {
        "image_set": weights.image_set * mean_or_zero(of_sets),
        "person": weights.person * mean_or_zero(person_loss(output.shape[people], teacher.unseen)),
    }


def distillation_term(
    output: FaceOutput,
    codes: FaceCodes,
    lesson: FaceOutput,
    rows: Tensor,
    teacher: Teacher,
    weights: LossWeights,
    eye: float,
) -> Tensor:
    """Return the loss against a bigger network's outputs as the truth, in the pictures `rows` (N,) bool.

    The outputs are shapes, blendshapes, gaze, rotations and landmarks (Hinton, Vinyals and Dean, Distilling the
    knowledge in a neural network, 2015).
    """
    true = FaceOutput(*(tensor[rows] for tensor in lesson))
    fixed = not_looks(true.expression).expand_as(true.expression)
    off = shape_loss(output.shape[rows], true.shape, teacher.unseen, weights.unseen_shares())
    everywhere = torch.ones_like(true.landmarks[:, :, 0])
    points = landmark_loss(output.landmarks[rows], true.landmarks[:, :, :2], everywhere, weights.jaw, eye)
    return (
        weights.shape * mean_or_zero(off)
        + weights.expression * mean_or_zero(expression_loss(codes.expression_logit[rows], true.expression, fixed))
        + weights.gaze * mean_or_zero(1 - (output.gaze[rows] * true.gaze).sum(2))
        + weights.rotation * mean_or_zero(rotation_loss(output.crop_from_head[rows], true.crop_from_head))
        + weights.rendered_landmarks * mean_or_zero(points)
    )


def confidence_term(output: FaceOutput, codes: FaceCodes, batch: Batch, known: Known) -> Tensor:
    """Return the cross-entropy of the confidence with its target, which follows from the error of the inner landmarks.

    The target is 0 for crops without a face. Faces without known landmarks are left out.
    """
    error = landmark_loss(output.landmarks, known.landmarks, (known.trust > 0).to(known.trust), 0.0, known.eye)
    target = batch.is_face * confidence_target(error)
    kept = ~known.directed & ((known.trust > 0).any(1) | (batch.is_face == 0))
    return functional.binary_cross_entropy_with_logits(codes.confidence_logit[kept], target[kept])

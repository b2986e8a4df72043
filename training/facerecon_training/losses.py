"""Outputs and truth -> loss terms, pure functions of tensors. `objective.face_loss` weighs them and adds them up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from facerecon_rt.align import CROP_CENTRE_MM
from facerecon_rt.pose import similarity_directions
from facerecon_rt.template import load_template
from torch import Tensor
from torch.nn import functional

from .conventions import annotated_offsets
from .model import project
from .rendered.eyes import EYES


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weights of the terms of `face_loss`.

    A term's size does not say what its gradient teaches. Most of the loss is the error of shapes and expressions, which
    no picture could remove. Rotations and places of points can become nearly exact, but only with large weights
    (training/RUNS.md).
    """

    shape: float = 1.0
    """Weight per mm^2 of squared vertex distance of the neutral face, on rendered faces."""
    motion: float = 2.0
    """Weight per mm^2 of squared distance between the predicted and the true motion of vertices by the expression."""
    unseen_share: float = 0.02
    """Share with which shifts and turns count in the shape loss."""
    growth_share: float = 0.3
    """Share with which growth counts in the shape loss. A photograph shows growth only by what big heads look like."""
    expression: float = 150.0
    """Weight of the Kullback-Leibler divergence of the blendshape weights, on rendered faces."""
    weak_expression: float = 120.0
    """Weight of the Kullback-Leibler divergence from weak labels, on photographs."""
    gaze: float = 60.0
    """Weight per radian of yaw and pitch of an eye, on rendered faces."""
    weak_gaze: float = 25.0
    """Weight per radian of yaw and pitch of an eye, on photographs with weak labels."""
    eyes: float = 160.0
    """Weight per eye distance of the position of the iris between the corners of the eye, on photographs."""
    identity: float = 0.3
    """Weight of the negative log-likelihood of the shape code's error. It trains the variance alone."""
    rotation: float = 60.0
    """Weight per radian, on rendered faces."""
    direction: float = 12.0
    """Weight per radian, on photographs whose head direction is nominally known."""
    projection: float = 120.0
    """Weight per eye distance of projected-vertex error, on rendered faces."""
    landmarks: float = 80.0
    """Weight per eye distance of landmark error, on photographs."""
    rendered_landmarks: float = 100.0
    """Weight per eye distance of landmark error on rendered faces, whose jaw points lie on the true visible contour."""
    geometry: float = 10.0
    """Weight per eye distance of the error of landmark vertices and of the jaw's visible contour, on photographs."""
    image_set: float = 1.0
    """Weight per eye distance of the error of landmark vertices when two photographs of one person share a shape."""
    jaw: float = 1.5
    """Weight of a jaw point relative to an inner point."""
    jaw_tangent: float = 0.3
    """Weight of the error along the contour relative to the error across it, in the geometry terms."""
    openings: float = 60.0
    """Weight per eye distance of the error of eye and lip openings, on photographs."""
    photometric: float = 0.0
    """Weight per squared mean brightness of colour error, on photographs. With 0 the term costs no time."""
    skin_prior: float = 0.01
    """Weight of the mean square of the skin code, on photographs, if there is a photometric term."""
    teacher: float = 0.0
    """Weight per eye distance between the landmarks of a photograph and those of the running average, seen in a mirror.

    The term applies to photographs that no person annotated. With 0 the average is not computed and costs no time.
    """
    blink: float = 2.0
    """Weight of the Kullback-Leibler divergence of eyeBlink, on photographs whose landmarks show whether eyes are
    closed."""
    person: float = 8.0
    """Weight of the cross-entropy of finding a person's other photograph among all pairs of a batch, by neutral
    shape."""
    distillation: float = 1.0
    """Weight of the losses of rendered faces on photographs, with a bigger network's outputs as the truth."""
    symmetry: float = 0.02
    """Weight per mm^2 of mean squared asymmetry of the neutral face, on photographs."""
    consistency: float = 0.3
    confidence: float = 0.5
    code_prior: float = 0.05
    """Weight of the mean square of the shape code over its expected mean square, on photographs."""
    expression_prior: float = 0.0
    """Weight of the mean blendshape weight, on photographs."""

    def unseen_shares(self) -> Tensor:
        """Return the shares (7,) with which the `unseen_directions` count."""
        return torch.tensor([self.unseen_share] * 6 + [self.growth_share])


LID_PAIRS = tuple(pair for eye in EYES for pair in zip(eye.upper, eye.lower, strict=True))
LIP_PAIRS = ((61, 67), (62, 66), (63, 65))
AGREEMENT = 0.06
"""Distance, in eye distances, between a machine's landmark and the running average's at which the landmark's weight is
halved."""
SAME_PERSON_MM = 0.7
"""Scale of the distance between two neutral shapes, RMS over vertices in mm, by which `person_loss` tells people
apart."""
HALF_TRUST_ERROR = 0.12
"""Mean landmark error, in eye distances, at which the confidence of a face is 0.5."""


def shape_loss(shape: Tensor, true_shape: Tensor, unseen: Tensor, shares: Tensor) -> Tensor:
    """Return the mean squared vertex distance (N,) of shapes (N, V, 3) mm, in mm^2.

    Motion along `unseen` (7, V * 3; see `unseen_directions`) counts only by its share (7,). With full weight, the noise
    in directions that no photograph shows would hide the other errors.
    """
    difference = (shape - true_shape).flatten(1)
    along = difference @ unseen.T
    return ((difference**2).sum(1) - ((1 - shares.to(along)) * along**2).sum(1)) / shape.shape[1]


def motion_loss(motion: Tensor, true_motion: Tensor) -> Tensor:
    """Return the mean squared distance (N,), in mm^2, between predicted and true motion (N, V, 3) of the vertices in
    mm.

    The motion is what the expression adds. It is free of the identity's error, which no picture shows for the most
    part, and which would hide the expression's error.
    """
    return ((motion - true_motion) ** 2).sum(2).mean(1)


def unseen_directions(mean: Tensor) -> Tensor:
    """Return seven orthonormal directions (7, V * 3) of the mean face (V * 3,) in mm: shifts, turns and growth,
    which one photograph does not show (`pose.similarity_directions`)."""
    directions = similarity_directions(mean.detach().cpu().numpy().reshape(-1, 3))
    return torch.from_numpy(directions).to(mean)


def consistency_loss(features: Tensor, reference: Tensor) -> Tensor:
    """Return 1 - cosine (N,) of the angle between features (N, F) of two views of one person; 0 if they agree."""
    return 1.0 - functional.cosine_similarity(features, reference, dim=1)


def reconstruction_loss(
    shape: Tensor,
    true_shape: Tensor,
    features: Tensor,
    reference: Tensor,
    code: Tensor,
    unseen: Tensor,
    weights: LossWeights,
) -> Tensor:
    """Return the basic loss, a number: shape reconstruction, feature consistency and regularisation of the code.

    Shapes are (N, V, 3) mm, features and reference (P, F), and the code (M, K) in the standard deviations that it
    should have. `unseen` (7, V * 3) is that of `shape_loss`. Empty batches add 0.
    """
    return (
        weights.shape * mean_or_zero(shape_loss(shape, true_shape, unseen, weights.unseen_shares()))
        + weights.consistency * mean_or_zero(consistency_loss(features, reference))
        + weights.code_prior * mean_or_zero((code**2).mean(1))
    )


def point_loss(points: Tensor, true_points: Tensor, eye_distance: float) -> Tensor:
    """Return distances (N, K) of points (N, K, 2) pixels, in eye distances, smooth near 0 and linear beyond
    (Charbonnier)."""
    squared = ((points - true_points) ** 2).sum(2) / eye_distance**2
    return torch.sqrt(squared + 1e-6) - 1e-3


def expression_loss(logit: Tensor, true_expression: Tensor, trust: Tensor | None = None) -> Tensor:
    """Return the mean Kullback-Leibler divergence (N,) of logits (N, K) from weights 0..1; 0 if they agree.

    `trust` (N, K) is the trust in each weight. Most blendshapes rest at 0. There the gradient of a squared error
    through the sigmoid vanishes, but the gradient of this loss does not.
    """
    cross_entropy = functional.binary_cross_entropy_with_logits(logit, true_expression, reduction="none")
    entropy = functional.binary_cross_entropy(true_expression, true_expression, reduction="none")
    divergence = cross_entropy - entropy
    if trust is None:
        return divergence.mean(1)
    return (divergence * trust).sum(1) / trust.sum(1).clamp(min=1)


def gaze_loss(angles: Tensor, true_angles: Tensor, seen: Tensor) -> Tensor:
    """Return the mean error (N,) of yaw and pitch of both eyes, (N, 2, 2) radians, weighed by their openness (N, 2)."""
    error = torch.sqrt(((angles - true_angles) ** 2).sum(2) + 1e-4) - 1e-2
    return (error * seen).mean(1)


def iris_loss(angles: Tensor, camera: Tensor, eyes: Tensor, weights: Tensor, model: Tensor, eye: float) -> Tensor:
    """Return the error (N,) of the position of the irises, in eye distances.

    `angles` is the gaze (N, 2, 2) in radians and `camera` (N, 3, 4). `eyes` is the truth (N, 2, 3, 2) in crop pixels:
    outer corner, inner corner and iris of both eyes, with weights (N, 2). The position is relative to the middle
    between the corners.

    `model` (2, 2, 3) in mm holds, for each eye, the centre of the eyeball relative to that middle, and the centre of
    the iris at rest relative to the eyeball's centre.
    """
    yaw, pitch = angles[..., 0], angles[..., 1]
    rest = model[:, 1].expand(*yaw.shape, 3)
    # Pitch comes first, about the axis through both ears, then yaw about the upright axis.
    y = rest[..., 1] * pitch.cos() + rest[..., 2] * pitch.sin()
    z = rest[..., 2] * pitch.cos() - rest[..., 1] * pitch.sin()
    iris = torch.stack([rest[..., 0] * yaw.cos() + z * yaw.sin(), y, z * yaw.cos() - rest[..., 0] * yaw.sin()], -1)
    offset = (model[:, 0] + iris) @ camera[:, :2, :3].transpose(1, 2)
    true = eyes[:, :, 2] - eyes[:, :, :2].mean(2)
    error = point_loss(offset, true, eye)
    return (error * weights).sum(1) / 2


def likelihood_loss(code: Tensor, true_code: Tensor, log_variance: Tensor) -> Tensor:
    """Return the mean negative log-likelihood (N,) of a Gaussian for codes (N, K), without its constant.

    `log_variance` is the logarithm of the variance of the codes' error. The loss trains the variance alone (Nix and
    Weigend 1994).
    """
    squared = (code.detach() - true_code) ** 2
    return 0.5 * (squared * torch.exp(-log_variance) + log_variance).mean(1)


def code_of_shape(shape: Tensor, mean: Tensor, basis: Tensor, unseen: Tensor) -> Tensor:
    """Return the code (N, K) whose shape is nearest to `shape` (N, V, 3) mm, up to the head's place, attitude and size.

    `mean` (V * 3,) and `basis` (K, V * 3) are the decoder's, and `unseen` is (7, V * 3).
    """
    seen = basis - (basis @ unseen.T) @ unseen
    difference = shape.flatten(1) - mean
    difference = difference - (difference @ unseen.T) @ unseen
    gram = seen @ seen.T
    ridge = (0.01 * torch.diagonal(gram).mean() + 1e-6) * torch.eye(len(gram)).to(gram)
    code: Tensor = torch.linalg.solve(gram + ridge, seen @ difference.T)
    return code.T


def rotation_loss(camera: Tensor, true_camera: Tensor) -> Tensor:
    """Return the angles (N,) between rotations of cameras (N, 3, 4).

    The value is the chordal distance over root 2, which equals radians for small angles.
    """
    scale = torch.linalg.det(camera[:, :, :3]).clamp(min=1e-6) ** (1 / 3)
    true_scale = torch.linalg.det(true_camera[:, :, :3]) ** (1 / 3)
    difference = camera[:, :, :3] / scale[:, None, None] - true_camera[:, :, :3] / true_scale[:, None, None]
    return torch.sqrt(0.5 * (difference**2).sum((1, 2)) + 1e-6) - 1e-3


def direction_loss(camera: Tensor, direction: Tensor) -> Tensor:
    """Return the angles (N,) between the cameras' (N, 3, 4) direction out of the face and unit vectors (N, 3).

    The value is the chord, which equals radians for small angles.
    """
    out_of_face = functional.normalize(camera[:, :, 2], dim=1)
    return torch.sqrt(((out_of_face - direction) ** 2).sum(1) + 1e-6) - 1e-3


def projection_loss(camera: Tensor, vertices: Tensor, true_camera: Tensor, true_vertices: Tensor, eye: float) -> Tensor:
    """Return the mean distance (N,) in the picture of projected vertices (N, V, 3), in eye distances.

    Size and distance of a head look alike in one photograph. Shape and camera (N, 3, 4) together must put every vertex
    where it is seen, whichever of the two is wrong.
    """
    seen = project(camera, vertices)[:, :, :2]
    return point_loss(seen, project(true_camera, true_vertices)[:, :, :2], eye).mean(1)


def contour_points(vertices: Tensor, camera: Tensor) -> tuple[Tensor, Tensor]:
    """Return the visible jaw contour (N, 17, 2) in pixels, and its outward normals (N, 17, 2).

    The inputs are vertices (N, V, 3) in mm and cameras (N, 3, 4). Each jaw point has several candidates across the
    cheek; the candidate that lies furthest out in the picture is used (Zhu et al., CVPR 2015, landmark marching).
    Outward is defined in the head's upright frontal view and turns with the head's roll.
    """
    template = load_template()
    candidates = torch.from_numpy(template.jaw_candidates).long().to(vertices.device)
    jaw = torch.from_numpy(template.landmark_positions[:17, :2]).to(vertices)
    outward = functional.normalize(jaw - torch.tensor(CROP_CENTRE_MM[:2]).to(vertices), dim=1)
    # Directions of the head's up and left in the picture, as if the head faced the viewer.
    up = functional.normalize(camera[:, :2, 1], dim=1).detach()
    left = torch.stack([-up[:, 1], up[:, 0]], 1)
    normals = outward[None, :, :1] * left[:, None] + outward[None, :, 1:] * up[:, None]
    points = project(camera, vertices[:, candidates.flatten()])[:, :, :2].reshape(len(vertices), *candidates.shape, 2)
    furthest = (points.detach() * normals[:, :, None]).sum(3).argmax(2)
    chosen = points.gather(2, furthest[:, :, None, None].expand(-1, -1, 1, 2))[:, :, 0]
    return chosen, normals


def annotated_points(vertices: Tensor) -> Tensor:
    """Return the inner 51 points (N, 51, 3) in mm where annotators put them, of faces with vertices (N, V, 3) in mm."""
    chosen = torch.from_numpy(load_template().landmarks[17:]).long().to(vertices.device)
    return vertices[:, chosen] + torch.from_numpy(annotated_offsets()[17:]).to(vertices)


def landmark_loss(landmarks: Tensor, true: Tensor, weights: Tensor, jaw: float, eye: float) -> Tensor:
    """Return the weighted mean error (N,) of landmarks (N, 68, 2+) pixels, in eye distances.

    The truth is (N, 68, 2) with weights (N, 68), and jaw points count by `jaw`.
    """
    price = torch.ones(68).to(weights)
    price[:17] = jaw
    errors = point_loss(landmarks[:, :, :2], true, eye)
    return (errors * weights * price).sum(1) / ((weights > 0) * price).sum(1).clamp(min=1)


def geometry_loss(
    vertices: Tensor,
    camera: Tensor,
    true: Tensor,
    weights: Tensor,
    jaw: float,
    jaw_tangent: float,
    eye: float,
) -> Tensor:
    """Return the mean error (N,) of landmark vertices, in eye distances.

    The inputs are vertices (N, V, 3) in mm, cameras (N, 3, 4), and the truth (N, 68, 2) in pixels with weights (N, 68).
    Landmark vertices, moved to where annotators put them, are compared with their points. Jaw points are compared with
    the visible contour, along which they may slide at a reduced weight (Zhu et al., CVPR 2015).
    """
    inner = point_loss(project(camera, annotated_points(vertices))[:, :, :2], true[:, 17:], eye)
    contour, normals = contour_points(vertices, camera)
    off = contour - true[:, :17]
    across = (off * normals).sum(2, keepdim=True) * normals
    along = (off - across) * jaw_tangent
    outer = point_loss(across + along, torch.zeros_like(off), eye)
    total = (outer * weights[:, :17]).sum(1) * jaw + (inner * weights[:, 17:]).sum(1)
    count = jaw * (weights[:, :17] > 0).sum(1) + (weights[:, 17:] > 0).sum(1)
    return total / count.clamp(min=1)


def opening_loss(landmarks: Tensor, true: Tensor, weights: Tensor, eye: float) -> Tensor:
    """Return the mean error (N,) of seven openings, in eye distances.

    The inputs are landmarks (N, 68, 2+) in pixels, and the truth (N, 68, 2) with weights (N, 68). The openings lie
    between upper and lower lids (eye-closure loss of DECA, Feng et al., SIGGRAPH 2021) and between the lips (EMOCA,
    Danecek et al., CVPR 2022). Lids can close wherever the eye is seen to be.
    """
    upper, lower = torch.tensor(LID_PAIRS + LIP_PAIRS).to(landmarks.device).T
    weight = torch.minimum(weights[:, upper], weights[:, lower])
    opening = landmarks[:, upper, :2] - landmarks[:, lower, :2]
    errors = point_loss(opening, true[:, upper] - true[:, lower], eye)
    return (errors * weight).sum(1) / (weight > 0).sum(1).clamp(min=1)


def symmetry_loss(shape: Tensor) -> Tensor:
    """Return the mean squared distance (N,) of shapes (N, V, 3) mm from their mirrored faces, in mm^2.

    Bilateral symmetry is a soft prior on the side that is not seen (Wu, Rupprecht and Vedaldi, CVPR 2020).
    """
    mirrored = shape[:, torch.from_numpy(load_template().symmetry).long().to(shape.device)]
    across = torch.tensor([-1.0, 1.0, 1.0]).to(shape)
    return ((shape - mirrored * across) ** 2).sum(2).mean(1)


def shared_shapes(shape: Tensor, vertices: Tensor) -> Tensor:
    """Return expressed faces (2 P, V, 3) on the shape that the two photographs of each pair share, as in an image set.

    The inputs are neutral and expressed faces (2 P, V, 3) in mm. The two faces of a pair are neighbours.
    """
    pairs = shape.reshape(-1, 2, *shape.shape[1:])
    mean = pairs.mean(1, keepdim=True).expand_as(pairs).reshape(shape.shape)
    return mean + (vertices - shape)


def person_loss(shape: Tensor, unseen: Tensor) -> Tensor:
    """Return the cross-entropy (2 P,) of finding a face's pair among all other faces by squared distance.

    `shape` (2 P, V, 3) holds neutral faces in mm; the two faces of a pair are neighbours, and no two pairs show one
    person. The loss is InfoNCE (van den Oord et al. 2018), and makes shapes of one person nearer than those of two
    (RingNet, Sanyal et al., CVPR 2019). It is empty for fewer than two pairs.

    Distance along `unseen` (7, V * 3; see `unseen_directions`) does not count. Otherwise a size that no photograph
    shows would be an easy number to recognise people by.
    """
    if len(shape) < 4:
        return shape.new_zeros(0)
    flat = shape.flatten(1)
    flat = flat - flat.mean(0)
    flat = flat - (flat @ unseen.T) @ unseen
    squared = torch.cdist(flat, flat, compute_mode="use_mm_for_euclid_dist") ** 2 / shape.shape[1]
    itself = torch.eye(len(shape), dtype=torch.bool, device=shape.device)
    likeness = (-squared / (2 * SAME_PERSON_MM**2)).masked_fill(itself, -torch.inf)
    pair = torch.arange(len(shape), device=shape.device) ^ 1
    return functional.cross_entropy(likeness, pair, reduction="none")


def confidence_target(error: Tensor) -> Tensor:
    """Return the target confidence (N,) of faces with a mean landmark error (N,) in eye distances.

    It is 1 without error and 0.5 at HALF_TRUST_ERROR. `error_of_confidence` is its inverse.
    """
    return 1.0 / (1.0 + (error.detach() / HALF_TRUST_ERROR) ** 2)


def error_of_confidence(confidence: Tensor) -> Tensor:
    """Return the landmark error (N,), in eye distances, that a confidence (N,) of 0..1 stands for."""
    return HALF_TRUST_ERROR * torch.sqrt(1.0 / confidence.clamp(1e-4, 1 - 1e-6) - 1.0)


def mean_or_zero(values: Tensor) -> Tensor:
    """Return the mean of a tensor that may be empty, or 0."""
    return values.sum() / max(values.numel(), 1)


def teacher_trust(pseudo: Tensor, true: Tensor, weights: Tensor, eye: float) -> Tensor:
    """Return weights (N, 68) that fall where the running average disagrees with a machine's landmarks.

    `pseudo` is what the running average sees and `true` what the machine annotated, both (N, 68, 2). A weight is halved
    at AGREEMENT (Cauchy's weight).
    """
    distance: Tensor = torch.linalg.vector_norm(pseudo - true, dim=2) / eye
    return weights / (1 + (distance / AGREEMENT) ** 2)

"""Outputs and truth -> loss terms, pure functions of tensors. `objective.face_loss` weighs them and adds them up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from facerecon_rt.align import CROP_CENTRE_MM
from facerecon_rt.template import load_template
from torch import Tensor
from torch.nn import functional

from .model import project
from .rendered.eyes import EYES


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Factors of the terms of `face_loss`."""

    shape: float = 0.5
    """Per mm^2 of squared vertex distance, neutral, on rendered faces."""
    motion: float = 2.0
    """Per mm^2 of squared distance between what the expression does to vertices and what it should do."""
    unseen_share: float = 0.02
    """Of shifts and turns in it."""
    growth_share: float = 0.3
    """Of growth in it: a photograph shows it only by what big heads look like."""
    expression: float = 150.0
    """Kullback-Leibler divergence of the blendshape weights, on rendered faces."""
    weak_expression: float = 80.0
    """The same against weak labels, on photographs."""
    gaze: float = 60.0
    """Per radian of yaw and pitch of an eye, on rendered faces."""
    eyes: float = 60.0
    """Per eye distance of the iris' place between the corners of the eye, on photographs."""
    identity: float = 0.3
    """Negative log-likelihood of the shape code's error, which teaches its variance alone."""
    rotation: float = 10.0
    """Per radian, on rendered faces."""
    direction: float = 4.0
    """Per radian, on photographs whose head direction is nominally known."""
    projection: float = 10.0
    """Per eye distance of projected-vertex error, on rendered faces."""
    landmarks: float = 40.0
    """Per eye distance of landmark error, on photographs."""
    rendered_landmarks: float = 20.0
    """The same on rendered faces, whose jaw points lie on the true visible contour."""
    geometry: float = 10.0
    """Per eye distance of the error of landmark vertices and of the jaw's visible contour, on photographs."""
    image_set: float = 1.0
    """Per eye distance of the error of landmark vertices when two photographs of one person share a shape."""
    jaw: float = 0.7
    """Of a jaw point against an inner one."""
    jaw_tangent: float = 0.3
    """Of the error along the contour against that across it, in the geometry terms."""
    openings: float = 5.0
    """Per eye distance of the error of eye and lip openings, on photographs."""
    photometric: float = 0.0
    """Per squared mean brightness of colour error, on photographs; 0 leaves the term out, and its time."""
    skin_prior: float = 0.01
    """Mean square of the skin code, on photographs, when there is a photometric term."""
    teacher: float = 0.0
    """Per eye distance between the landmarks of a photograph that no person annotated and the running average's, seen
    in a mirror; 0 leaves the average's look out, and its time."""
    blink: float = 2.0
    """Kullback-Leibler divergence of eyeBlink, on photographs whose landmarks tell whether eyes are closed."""
    person: float = 2.0
    """Cross-entropy of finding the other photograph of a person among all pairs of the batch, by neutral shape."""
    distillation: float = 1.0
    """Of the losses on rendered faces, with a bigger network's outputs on photographs in place of the truth."""
    symmetry: float = 0.02
    """Per mm^2 of mean squared asymmetry of the neutral face, on photographs."""
    consistency: float = 0.3
    confidence: float = 0.5
    code_prior: float = 0.01
    """Mean square of the shape code, on photographs."""
    expression_prior: float = 0.0
    """Mean blendshape weight, on photographs."""

    def unseen_shares(self) -> Tensor:
        """(7,) shares of the `unseen_directions`."""
        return torch.tensor([self.unseen_share] * 6 + [self.growth_share])


LID_PAIRS = tuple(pair for eye in EYES for pair in zip(eye.upper, eye.lower, strict=True))
LIP_PAIRS = ((61, 67), (62, 66), (63, 65))
AGREEMENT = 0.06
"""Eye distances between a machine's landmark and the running average's at which its weight is halved."""
SAME_PERSON_MM = 0.7
"""Distance between two neutral shapes, RMS over vertices, by which `person_loss` tells people apart."""
HALF_TRUST_ERROR = 0.12
"""Mean landmark error, in eye distances, at which the confidence of a face is a half."""


def shape_loss(shape: Tensor, true_shape: Tensor, unseen: Tensor, shares: Tensor) -> Tensor:
    """(N, V, 3) and (N, V, 3) mm -> (N,) mean squared vertex distance, mm^2.

    What moves along `unseen` (7, V * 3; see `unseen_directions`) counts by its share (7,) only. At full price the noise
    of what no photograph tells would drown the rest.
    """
    difference = (shape - true_shape).flatten(1)
    along = difference @ unseen.T
    return ((difference**2).sum(1) - ((1 - shares.to(along)) * along**2).sum(1)) / shape.shape[1]


def motion_loss(motion: Tensor, true_motion: Tensor) -> Tensor:
    """(N, V, 3) mm by which the expression moves vertices, twice -> (N,) mean squared distance, mm^2.

    Free of the identity's error, most of which no picture tells, and which would drown the expression's.
    """
    return ((motion - true_motion) ** 2).sum(2).mean(1)


def unseen_directions(mean: Tensor) -> Tensor:
    """(V * 3,) mean face, mm -> (7, V * 3) orthonormal: its shifts, its turns and its growth.

    One photograph shows a head's size only against its distance, and its place and attitude against the frame's origin
    only through the camera.
    """
    points = mean.reshape(-1, 3)
    axes = torch.eye(3).to(points)
    centred = points - points.mean(0)
    shifts = [axis.expand_as(points) for axis in axes]
    turns = [torch.linalg.cross(axis.expand_as(points), centred) for axis in axes]
    stacked = torch.stack([*shifts, *turns, centred]).flatten(1)
    return torch.linalg.qr(stacked.T).Q.T.contiguous()


def consistency_loss(features: Tensor, reference: Tensor) -> Tensor:
    """(N, F) features of two views of one person -> (N,) 1 - cosine of their angle, 0 when they agree."""
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
    """The basic loss -> a number: shape reconstruction + feature consistency + regularisation of the code.

    shape, true_shape (N, V, 3) mm; features, reference (P, F); code (M, K) in standard deviations;
    unseen (7, V * 3) as in `shape_loss`. Empty batches add 0.
    """
    return (
        weights.shape * mean_or_zero(shape_loss(shape, true_shape, unseen, weights.unseen_shares()))
        + weights.consistency * mean_or_zero(consistency_loss(features, reference))
        + weights.code_prior * mean_or_zero((code**2).mean(1))
    )


def point_loss(points: Tensor, true_points: Tensor, eye_distance: float) -> Tensor:
    """(N, K, 2) pixels twice -> (N, K) distance in eye distances, smooth near 0 and linear beyond (Charbonnier)."""
    squared = ((points - true_points) ** 2).sum(2) / eye_distance**2
    return torch.sqrt(squared + 1e-6) - 1e-3


def expression_loss(logit: Tensor, true_expression: Tensor, trust: Tensor | None = None) -> Tensor:
    """(N, K) logits, weights 0..1 and how far to trust each (N, K) -> (N,) mean Kullback-Leibler divergence, 0 where
    they agree.

    Most blendshapes rest at 0, where the gradient of a squared error through the sigmoid vanishes; this one's does not.
    """
    cross_entropy = functional.binary_cross_entropy_with_logits(logit, true_expression, reduction="none")
    entropy = functional.binary_cross_entropy(true_expression, true_expression, reduction="none")
    divergence = cross_entropy - entropy
    if trust is None:
        return divergence.mean(1)
    return (divergence * trust).sum(1) / trust.sum(1).clamp(min=1)


def gaze_loss(angles: Tensor, true_angles: Tensor, seen: Tensor) -> Tensor:
    """(N, 2, 2) yaw and pitch of both eyes, twice, radians, and how far each eye is open (N, 2) -> (N,) mean error."""
    error = torch.sqrt(((angles - true_angles) ** 2).sum(2) + 1e-4) - 1e-2
    return (error * seen).mean(1)


def iris_loss(angles: Tensor, camera: Tensor, eyes: Tensor, weights: Tensor, model: Tensor, eye: float) -> Tensor:
    """Gaze (N, 2, 2) radians and camera (N, 3, 4); the truth (N, 2, 3, 2) crop pixels of outer corner, inner corner and
    iris of both eyes, with weights (N, 2) -> (N,) error of the iris' place, counted from the middle between the
    corners, in eye distances.

    model (2, 2, 3) mm: of each eye the centre of its ball, from that middle, and the middle of the iris at rest, from
    that centre.
    """
    yaw, pitch = angles[..., 0], angles[..., 1]
    rest = model[:, 1].expand(*yaw.shape, 3)
    # Pitch first, about the axis through both ears, then yaw about the upright one.
    y = rest[..., 1] * pitch.cos() + rest[..., 2] * pitch.sin()
    z = rest[..., 2] * pitch.cos() - rest[..., 1] * pitch.sin()
    iris = torch.stack([rest[..., 0] * yaw.cos() + z * yaw.sin(), y, z * yaw.cos() - rest[..., 0] * yaw.sin()], -1)
    offset = (model[:, 0] + iris) @ camera[:, :2, :3].transpose(1, 2)
    true = eyes[:, :, 2] - eyes[:, :, :2].mean(2)
    error = point_loss(offset, true, eye)
    return (error * weights).sum(1) / 2


def likelihood_loss(code: Tensor, true_code: Tensor, log_variance: Tensor) -> Tensor:
    """(N, K) codes, the true ones and the logarithm of the variance of their difference -> (N,) mean negative
    log-likelihood of a Gaussian, less its constant. Teaches the variance alone (Nix and Weigend 1994)."""
    squared = (code.detach() - true_code) ** 2
    return 0.5 * (squared * torch.exp(-log_variance) + log_variance).mean(1)


def code_of_shape(shape: Tensor, mean: Tensor, basis: Tensor, unseen: Tensor) -> Tensor:
    """(N, V, 3) mm, the decoder's mean (V * 3,) and basis (K, V * 3), `unseen` (7, V * 3) -> (N, K) the code whose
    shape is nearest, whatever the head's place, attitude and size."""
    seen = basis - (basis @ unseen.T) @ unseen
    difference = shape.flatten(1) - mean
    difference = difference - (difference @ unseen.T) @ unseen
    gram = seen @ seen.T
    ridge = (0.01 * torch.diagonal(gram).mean() + 1e-6) * torch.eye(len(gram)).to(gram)
    return torch.linalg.solve(gram + ridge, seen @ difference.T).T


def rotation_loss(camera: Tensor, true_camera: Tensor) -> Tensor:
    """(N, 3, 4) twice -> (N,) angle between their rotations, radians for small ones (chordal distance over root 2)."""
    scale = torch.linalg.det(camera[:, :, :3]).clamp(min=1e-6) ** (1 / 3)
    true_scale = torch.linalg.det(true_camera[:, :, :3]) ** (1 / 3)
    difference = camera[:, :, :3] / scale[:, None, None] - true_camera[:, :, :3] / true_scale[:, None, None]
    return torch.sqrt(0.5 * (difference**2).sum((1, 2)) + 1e-6) - 1e-3


def direction_loss(camera: Tensor, direction: Tensor) -> Tensor:
    """(N, 3, 4) and unit vectors (N, 3) out of the face -> (N,) angle between them, radians for small ones (chord)."""
    out_of_face = functional.normalize(camera[:, :, 2], dim=1)
    return torch.sqrt(((out_of_face - direction) ** 2).sum(1) + 1e-6) - 1e-3


def projection_loss(camera: Tensor, vertices: Tensor, true_camera: Tensor, true_vertices: Tensor, eye: float) -> Tensor:
    """(N, 3, 4), (N, V, 3) twice -> (N,) mean distance in the picture, in eye distances.

    Size and distance of a head look alike in one photograph: together, shape and camera must put every vertex where it
    is seen, whichever of the two is off.
    """
    seen = project(camera, vertices)[:, :, :2]
    return point_loss(seen, project(true_camera, true_vertices)[:, :, :2], eye).mean(1)


def contour_points(vertices: Tensor, camera: Tensor) -> tuple[Tensor, Tensor]:
    """(N, V, 3) mm and (N, 3, 4) -> the visible jaw contour (N, 17, 2) in pixels and its outward normals (N, 17, 2).

    Of each jaw point's candidates across the cheek, the one that lies furthest out in the picture (Zhu et al., CVPR
    2015, landmark marching). Outward is fixed in the head's upright frontal view and turned with the head's roll.
    """
    template = load_template()
    candidates = torch.from_numpy(template.jaw_candidates).long().to(vertices.device)
    jaw = torch.from_numpy(template.landmark_positions[:17, :2]).to(vertices)
    outward = functional.normalize(jaw - torch.tensor(CROP_CENTRE_MM[:2]).to(vertices), dim=1)
    # Where the head's up and left point in the picture, as if it faced the viewer.
    up = functional.normalize(camera[:, :2, 1], dim=1).detach()
    left = torch.stack([-up[:, 1], up[:, 0]], 1)
    normals = outward[None, :, :1] * left[:, None] + outward[None, :, 1:] * up[:, None]
    points = project(camera, vertices[:, candidates.flatten()])[:, :, :2].reshape(len(vertices), *candidates.shape, 2)
    furthest = (points.detach() * normals[:, :, None]).sum(3).argmax(2)
    chosen = points.gather(2, furthest[:, :, None, None].expand(-1, -1, 1, 2))[:, :, 0]
    return chosen, normals


def landmark_loss(landmarks: Tensor, true: Tensor, weights: Tensor, jaw: float, eye: float) -> Tensor:
    """(N, 68, 2+) pixels, the truth (N, 68, 2) and weights (N, 68) -> (N,) weighted mean error in eye distances."""
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
    """(N, V, 3) mm and (N, 3, 4), the truth (N, 68, 2) pixels and weights (N, 68) -> (N,) mean error in eye distances.

    Landmark vertices go to their places; jaw points to the visible contour, along which they may slide at a reduced
    price (Zhu et al., CVPR 2015).
    """
    chosen = torch.from_numpy(load_template().landmarks[17:]).long().to(vertices.device)
    inner = point_loss(project(camera, vertices[:, chosen])[:, :, :2], true[:, 17:], eye)
    contour, normals = contour_points(vertices, camera)
    off = contour - true[:, :17]
    across = (off * normals).sum(2, keepdim=True) * normals
    along = (off - across) * jaw_tangent
    outer = point_loss(across + along, torch.zeros_like(off), eye)
    total = (outer * weights[:, :17]).sum(1) * jaw + (inner * weights[:, 17:]).sum(1)
    count = jaw * (weights[:, :17] > 0).sum(1) + (weights[:, 17:] > 0).sum(1)
    return total / count.clamp(min=1)


def opening_loss(landmarks: Tensor, true: Tensor, weights: Tensor, eye: float) -> Tensor:
    """(N, 68, 2+) pixels, the truth (N, 68, 2) and weights (N, 68) -> (N,) mean error of seven openings, in eye
    distances: upper lid from lower lid (eye-closure loss of DECA, Feng et al., SIGGRAPH 2021) and lip from lip (EMOCA,
    Danecek et al., CVPR 2022). Lids that close do so wherever the eye is seen to be.
    """
    upper, lower = torch.tensor(LID_PAIRS + LIP_PAIRS).to(landmarks.device).T
    weight = torch.minimum(weights[:, upper], weights[:, lower])
    opening = landmarks[:, upper, :2] - landmarks[:, lower, :2]
    errors = point_loss(opening, true[:, upper] - true[:, lower], eye)
    return (errors * weight).sum(1) / (weight > 0).sum(1).clamp(min=1)


def symmetry_loss(shape: Tensor) -> Tensor:
    """(N, V, 3) mm -> (N,) mean squared distance from the mirrored face, mm^2 (bilateral symmetry as a soft prior on
    what is not seen: Wu, Rupprecht and Vedaldi, CVPR 2020)."""
    mirrored = shape[:, torch.from_numpy(load_template().symmetry).long().to(shape.device)]
    across = torch.tensor([-1.0, 1.0, 1.0]).to(shape)
    return ((shape - mirrored * across) ** 2).sum(2).mean(1)


def shared_shapes(shape: Tensor, vertices: Tensor) -> Tensor:
    """(2 P, V, 3) mm neutral and expressed faces, pairs of one person next to each other -> (2 P, V, 3) expressed
    faces on the shape that the two share: what an image set makes of them."""
    pairs = shape.reshape(-1, 2, *shape.shape[1:])
    mean = pairs.mean(1, keepdim=True).expand_as(pairs).reshape(shape.shape)
    return mean + (vertices - shape)


def person_loss(shape: Tensor, unseen: Tensor) -> Tensor:
    """(2 P, V, 3) mm neutral faces, pairs of one person next to each other -> (2 P,) cross-entropy of finding a face's
    pair among all others by squared distance (InfoNCE, van den Oord et al. 2018; shapes of one person nearer than those
    of two: RingNet, Sanyal et al., CVPR 2019). Nothing to find in fewer than two pairs.

    Distance along `unseen` (7, V * 3; see `unseen_directions`) does not count: a size that no photograph tells would be
    an easy number to tell people by.
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
    """(N,) mean landmark error in eye distances -> (N,) what the confidence of this face should be: 1 without error, a
    half at HALF_TRUST_ERROR. `error_of_confidence` is its inverse."""
    return 1.0 / (1.0 + (error.detach() / HALF_TRUST_ERROR) ** 2)


def error_of_confidence(confidence: Tensor) -> Tensor:
    """(N,) 0..1 -> (N,) the landmark error, in eye distances, that it stands for."""
    return HALF_TRUST_ERROR * torch.sqrt(1.0 / confidence.clamp(1e-4, 1 - 1e-6) - 1.0)


def mean_or_zero(values: Tensor) -> Tensor:
    """Mean of a tensor that may be empty."""
    return values.sum() / max(values.numel(), 1)


def teacher_trust(pseudo: Tensor, true: Tensor, weights: Tensor, eye: float) -> Tensor:
    """Landmarks as the running average sees them (N, 68, 2), as a machine annotated them, and weights (N, 68) ->
    weights that fall where the two disagree: halved at AGREEMENT (Cauchy's weight)."""
    distance = (pseudo - true).norm(dim=2) / eye
    return weights / (1 + (distance / AGREEMENT) ** 2)

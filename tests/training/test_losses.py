"""Each loss on numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from facerecon_rt.align import CROP_SIDE_MM
from facerecon_rt.pose import rotation_from_euler
from facerecon_rt.template import load_template
from facerecon_training.losses import (
    AGREEMENT,
    HALF_TRUST_ERROR,
    LID_PAIRS,
    LIP_PAIRS,
    SAME_PERSON_MM,
    LossWeights,
    annotated_points,
    code_of_shape,
    confidence_target,
    consistency_loss,
    contour_points,
    direction_loss,
    error_of_confidence,
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
    point_loss,
    projection_loss,
    reconstruction_loss,
    rotation_loss,
    shape_loss,
    shared_shapes,
    symmetry_loss,
    teacher_trust,
    unseen_directions,
)
from facerecon_training.model import FaceOutput, project
from facerecon_training.rendered.eyeballs import turned
from facerecon_training.rendered.morphable import MorphableFace, MorphableHead, face_from_head
from facerecon_training.rendered.render import HeadGeometry, camera_for_crop
from torch import Tensor

EYE = 10.0


def charbonnier(distance: float) -> float:
    """Of a distance in eye distances."""
    return math.sqrt(distance**2 + 1e-6) - 1e-3


def no_unseen(vertices: int) -> Tensor:
    return torch.zeros(1, vertices * 3)


def camera(pitch: float = 0, yaw: float = 0, roll: float = 0, side: float = 128.0) -> Tensor:
    return torch.from_numpy(camera_for_crop(pitch, yaw, roll, 128, side))[None]


def output_of(vertices: Tensor, view: Tensor) -> FaceOutput:
    landmarks = project(view, vertices[:, torch.from_numpy(load_template().landmarks).long()])
    ahead = torch.tensor([0.0, 0.0, 1.0]).expand(1, 2, 3)
    code = torch.zeros(1, 4)
    return FaceOutput(vertices, vertices, torch.zeros(1, 53), view, landmarks, torch.ones(1), ahead, code, code + 1)


def geometry_of(output: FaceOutput, true: Tensor, weights: Tensor) -> Tensor:
    return geometry_loss(output.vertices, output.crop_from_head, true, weights, jaw=0.5, jaw_tangent=0.3, eye=EYE)


@pytest.fixture
def mean_face(ball_face: MorphableFace) -> Tensor:
    return torch.from_numpy(ball_face.mean)[None]


def test_shape_loss_is_the_mean_squared_vertex_distance() -> None:
    true = torch.zeros(2, 2, 3)
    shape = true.clone()
    shape[0, 0] = torch.tensor([3.0, 4.0, 0.0])
    torch.testing.assert_close(shape_loss(shape, true, no_unseen(2), torch.zeros(7)), torch.tensor([12.5, 0.0]))


def test_shape_loss_takes_a_share_of_what_is_unseen() -> None:
    along_x = torch.tensor([[1.0, 0, 0, 1, 0, 0]]) / math.sqrt(2)
    shift = torch.tensor([[[2.0, 0, 0], [2.0, 0, 0]]])
    torch.testing.assert_close(
        shape_loss(shift, torch.zeros(1, 2, 3), along_x, torch.tensor([0.02])), torch.tensor([0.02 * 4])
    )
    # Half of it unseen: the two vertices move apart as well.
    apart = torch.tensor([[[2.0, 0, 0], [0.0, 0, 0]]])
    torch.testing.assert_close(
        shape_loss(apart, torch.zeros(1, 2, 3), along_x, torch.tensor([0.02])), torch.tensor([1 + 0.02])
    )


def test_unseen_are_shifts_turns_and_growth(mean_face: Tensor) -> None:
    unseen = unseen_directions(mean_face.flatten())
    torch.testing.assert_close(unseen @ unseen.T, torch.eye(7), atol=1e-4, rtol=0)
    turn = torch.from_numpy(rotation_from_euler(0.5, -0.5, 0.3) @ np.diag([1.0, -1.0, -1.0])).float()
    moved = 1.01 * mean_face @ turn.T + torch.tensor([1.0, -2.0, 3.0])
    shares = LossWeights(unseen_share=0.02, growth_share=0.02).unseen_shares()
    plain = shape_loss(moved, mean_face, torch.zeros_like(unseen), shares)
    assert shape_loss(moved, mean_face, unseen, shares) < 0.025 * plain


def test_growth_has_a_share_of_its_own(mean_face: Tensor) -> None:
    unseen = unseen_directions(mean_face.flatten())
    centre = mean_face.mean(1, keepdim=True)
    grown = centre + 1.05 * (mean_face - centre)
    plain = shape_loss(grown, mean_face, torch.zeros_like(unseen), torch.zeros(7))
    shares = LossWeights(unseen_share=0, growth_share=0.25).unseen_shares()
    torch.testing.assert_close(shape_loss(grown, mean_face, unseen, shares), 0.25 * plain, rtol=1e-3, atol=0)


def test_consistency_loss_is_one_minus_the_cosine() -> None:
    features = torch.tensor([[2.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    reference = torch.tensor([[5.0, 0.0], [0.0, 3.0], [-1.0, -1.0]])
    torch.testing.assert_close(consistency_loss(features, reference), torch.tensor([0.0, 1.0, 2.0]))


def test_reconstruction_loss_is_shape_consistency_and_prior() -> None:
    weights = LossWeights(shape=2, consistency=3, code_prior=5, unseen_share=0.02)
    shape, true = torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)
    shape[0, 0, 0] = 2.0  # 4 / 2 mm^2
    features, reference = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])  # 1
    code = torch.tensor([[1.0, 3.0]])  # (1 + 9) / 2
    loss = reconstruction_loss(shape, true, features, reference, code, no_unseen(2), weights)
    assert loss.item() == pytest.approx(2 * 2 + 3 * 1 + 5 * 5)


def test_point_loss_is_the_distance_in_eye_distances() -> None:
    points = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])
    loss = point_loss(points, torch.zeros(1, 2, 2), EYE)
    torch.testing.assert_close(loss, torch.tensor([[charbonnier(0.5), 0.0]]), atol=1e-6, rtol=0)


def test_expression_loss_vanishes_where_they_agree_and_only_there() -> None:
    truth = torch.tensor([[0.5, 0.0], [0.0, 0.0]])
    logit = torch.tensor([[0.0, -100.0], [0.0, -100.0]])
    expected = torch.tensor([0.0, math.log(2) / 2])
    torch.testing.assert_close(expression_loss(logit, truth), expected, atol=1e-6, rtol=0)


def test_expression_loss_counts_what_is_trusted() -> None:
    """Two of four are known, one of them half: their mean over the trust there is."""
    truth, logit = torch.zeros(2, 4), torch.zeros(2, 4)
    trust = torch.tensor([[1.0, 0.5, 0, 0], [0.0, 0, 0, 0]])
    logit[0, 0], logit[0, 3] = -100.0, 5.0
    expected = torch.tensor([0.5 * math.log(2) / 1.5, 0.0])
    torch.testing.assert_close(expression_loss(logit, truth, trust), expected, atol=1e-6, rtol=0)


def test_gaze_loss_is_the_angle_of_open_eyes() -> None:
    """Half open on the left, closed on the right: 0.3 and 0.4 radians are 0.5."""
    true = torch.zeros(1, 2, 2)
    angles = torch.tensor([[[0.3, -0.4], [1.0, 1.0]]])
    expected = 0.5 * (math.sqrt(0.25 + 1e-4) - 1e-2) / 2
    assert gaze_loss(angles, true, torch.tensor([[0.5, 0.0]])).item() == pytest.approx(expected, abs=1e-6)
    assert gaze_loss(true, true, torch.ones(1, 2)).item() == pytest.approx(0, abs=1e-7)


EYES = torch.tensor([[[0.0, 2, -9], [0, 0, 13]], [[0.0, 2, -9], [0, 0, 13]]])
"""Centre of each ball from the middle of its corners, and the iris at rest from that centre: straight ahead."""


def seen_eyes(view: Tensor, irises: Tensor) -> Tensor:
    """Irises (2, 3) mm from the middle of the corners -> (1, 2, 3, 2) pixels, corners 30 mm apart around x = +-30."""
    middles = torch.tensor([[30.0, 0, 0], [-30.0, 0, 0]])
    half = torch.tensor([[15.0, 0, 0], [-15.0, 0, 0]])
    points = torch.stack([middles + half, middles - half, middles + irises], 1)
    return project(view, points.reshape(1, 6, 3))[:, :, :2].reshape(1, 2, 3, 2)


@pytest.mark.parametrize("yaw", [0.0, 25.0])
def test_an_iris_where_the_eyeball_puts_it_costs_nothing(yaw: float) -> None:
    """30 degrees to the left: 13 sin 30 to the side, 13 cos 30 ahead; 30 up: as far up."""
    view, root = camera(0, yaw, 0), 13 * math.sqrt(3) / 2
    cases = {
        (0.0, 0.0): [0.0, 2, -9 + 13],
        (math.pi / 6, 0.0): [6.5, 2, -9 + root],
        (0.0, math.pi / 6): [0.0, 2 + 6.5, -9 + root],
        (math.pi / 6, -math.pi / 6): [0.5 * root, 2 - 6.5, -9 + root * math.sqrt(3) / 2],
    }
    for gaze, place in cases.items():
        angles = torch.tensor([[gaze, gaze]])
        eyes = seen_eyes(view, torch.tensor([place, place]))
        loss = iris_loss(angles, view, eyes, torch.ones(1, 2), EYES, EYE)
        assert loss.item() == pytest.approx(0, abs=1e-5), gaze


def test_the_gradient_of_an_iris_turns_the_eye_towards_it() -> None:
    """Seen to the subject's left and above, yaw and pitch must grow. Where the corners are does not matter."""
    view = camera()
    eyes = seen_eyes(view, torch.tensor([[3.0, 5.0, 4.0], [3.0, 5.0, 4.0]])) + 7
    angles = torch.zeros(1, 2, 2, requires_grad=True)
    loss = iris_loss(angles, view, eyes, torch.tensor([[1.0, 0.0]]), EYES, EYE)
    scale = float(view[0, 0, 0])
    assert loss.item() == pytest.approx(charbonnier(math.hypot(3, 3) * scale / EYE) / 2, abs=1e-5)
    loss.sum().backward()
    assert angles.grad is not None
    assert (angles.grad[0, 0] < 0).all()
    assert not angles.grad[0, 1].any()


@pytest.mark.parametrize("gaze", [(0.0, 0.0), (20.0, -10.0), (-25.0, 15.0)])
def test_the_models_iris_is_that_of_the_rendered_eyeball(
    ball_head: MorphableHead, ball_geometry: HeadGeometry, gaze: tuple[float, float]
) -> None:
    """What teaches photographs puts irises where rendering does."""
    face = face_from_head(ball_head, np.zeros((1, 3), np.int32), np.full((1, 3), 1 / 3, np.float32))
    view, places = camera(5, -15, 3), []
    for eyeball, corners in zip(ball_geometry.eyeballs, ((45, 42), (36, 39)), strict=True):
        points = turned(eyeball, ball_geometry.mean, np.array(gaze, np.float32))
        # In the plane of the iris, 53 pixels of 256 around the middle of the texture.
        away = np.linalg.norm(eyeball.uv - 0.5, axis=1)
        rim = points[np.abs(away - 53 / 256) < 0.012]
        outer, inner = ball_geometry.mean[ball_geometry.landmarks[list(corners)]]
        places.append(np.stack([outer, inner, rim.mean(0)]))
    eyes = project(view, torch.from_numpy(np.stack(places)).reshape(1, 6, 3).float())[:, :, :2].reshape(1, 2, 3, 2)
    angles = torch.tensor([[gaze, gaze]]) * math.pi / 180
    loss = iris_loss(angles, view, eyes, torch.ones(1, 2), torch.from_numpy(face.eyes), EYE)
    assert loss.item() * EYE < 0.5  # pixels
    wrong = iris_loss(-angles + 0.2, view, eyes, torch.ones(1, 2), torch.from_numpy(face.eyes), EYE)
    assert wrong.item() > 3 * loss.item()


def test_likelihood_is_best_where_the_variance_is_the_squared_error() -> None:
    code, true = torch.tensor([[1.5, 0.0]]), torch.tensor([[1.0, 0.0]])
    variance = torch.tensor([[0.25, 1.0]])
    loss = likelihood_loss(code, true, variance.log())
    assert loss.item() == pytest.approx(0.5 * ((1 + math.log(0.25)) + 0) / 2)
    for factor in (0.8, 1.25):
        assert likelihood_loss(code, true, (variance * torch.tensor([factor, 1.0])).log()).item() > loss.item()


def test_likelihood_teaches_the_variance_alone() -> None:
    code = torch.tensor([[1.5, 0.0]], requires_grad=True)
    log_variance = torch.zeros(1, 2, requires_grad=True)
    likelihood_loss(code, torch.zeros(1, 2), log_variance).sum().backward()
    assert code.grad is None
    assert log_variance.grad is not None
    # Half of 1 minus the squared error over the variance, over two numbers: too sure of the first, not of the second.
    torch.testing.assert_close(log_variance.grad, torch.tensor([[0.5 * (1 - 2.25) / 2, 0.5 / 2]]))


def test_a_code_is_found_again_whatever_the_heads_place_attitude_and_size(mean_face: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    mean = mean_face.flatten()
    unseen = unseen_directions(mean)
    basis = 2.0 * torch.linalg.qr(torch.randn(len(mean), 6, generator=generator)).Q.T * math.sqrt(len(mean))
    code = torch.randn(3, 6, generator=generator)
    shape = (mean + code @ basis).reshape(3, -1, 3)
    found = code_of_shape(shape, mean, basis, unseen)
    torch.testing.assert_close(found, code, atol=0.05, rtol=0.02)
    moved = shape + torch.tensor([8.0, -5.0, 3.0]) + 0.05 * (mean_face - mean_face.mean(1, keepdim=True))
    turn = torch.linalg.cross(torch.tensor([0.03, -0.02, 0.04]).expand_as(mean_face), mean_face - mean_face.mean(1))
    torch.testing.assert_close(code_of_shape(moved + turn, mean, basis, unseen), found, atol=2e-3, rtol=0)
    # A decoder that has not begun to learn gives no shape a code.
    assert not code_of_shape(shape, mean, torch.zeros_like(basis), unseen).any()
    # What the basis cannot make is left out.
    beside = torch.randn(1, len(mean) // 3, 3, generator=generator)
    torch.testing.assert_close(code_of_shape(shape + beside, mean, basis, unseen), code, atol=0.1, rtol=0.05)


@pytest.mark.parametrize("angles", [(10, 0, 0), (0, 10, 0), (0, 0, 10)])
def test_rotation_loss_is_the_angle_whatever_the_scale(angles: tuple[float, float, float]) -> None:
    loss = rotation_loss(camera(*angles, side=70), camera(side=128))
    assert loss.item() == pytest.approx(charbonnier(2 * math.sin(math.radians(5))), abs=1e-5)


@pytest.mark.parametrize("roll", [0, 40])
def test_direction_loss_is_the_angle_whatever_the_roll(roll: float) -> None:
    ahead = torch.tensor([[0.0, 0.0, -1.0]])
    assert direction_loss(camera(0, 0, roll), ahead).item() == pytest.approx(0, abs=1e-5)
    loss = direction_loss(camera(0, 10, 0), ahead)
    assert loss.item() == pytest.approx(charbonnier(2 * math.sin(math.radians(5))), abs=1e-5)


def test_projection_loss_leaves_size_against_distance_free(mean_face: Tensor) -> None:
    view = torch.tensor([[[1.0, 0, 0, 5], [0, -1.0, 0, 7], [0, 0, -1.0, 0]]])
    half = torch.cat([0.5 * view[:, :, :3], view[:, :, 3:]], 2)
    assert projection_loss(half, 2 * mean_face, view, mean_face, EYE).item() == pytest.approx(0, abs=1e-6)
    moved = view.clone()
    moved[0, 0, 3] += 5
    loss = projection_loss(moved, mean_face, view, mean_face, EYE)
    assert loss.item() == pytest.approx(charbonnier(0.5), abs=1e-5)


def test_the_contour_is_the_outermost_candidate(mean_face: Tensor) -> None:
    candidates = load_template().jaw_candidates
    vertices = mean_face.clone()
    # Straight out to the subject's left at the height of landmark 14: the picture's right.
    chosen = int(candidates[14, 3])
    vertices[0, chosen] = torch.tensor([300.0, float(vertices[0, candidates[14, -1], 1]), 0.0])
    points, normals = contour_points(vertices, camera())
    torch.testing.assert_close(points[0, 14], project(camera(), vertices)[0, chosen, :2])
    torch.testing.assert_close(normals.norm(dim=2), torch.ones(1, 17))
    assert normals[0, 0, 0] < -0.5  # landmark 0 is on the subject's right, the picture's left
    assert normals[0, 16, 0] > 0.5
    assert normals[0, 8, 1] > 0.9  # and the chin below


def test_outward_turns_with_the_heads_roll(mean_face: Tensor) -> None:
    _, upright = contour_points(mean_face, camera())
    _, leaning = contour_points(mean_face, camera(roll=90))
    # Leaning to the subject's left by 90 degrees, the chin points to the picture's left.
    assert upright[0, 8, 1] > 0.9
    assert leaning[0, 8, 0] < -0.9


@pytest.mark.parametrize(("along", "price"), [(False, 1.0), (True, 0.3)])
def test_a_jaw_error_along_the_contour_costs_its_share(mean_face: Tensor, along: bool, price: float) -> None:
    output = output_of(mean_face, camera())
    contour, normals = contour_points(mean_face, camera())
    direction = torch.stack([-normals[..., 1], normals[..., 0]], 2) if along else normals
    true = output.landmarks[:, :, :2].clone()
    true[:, :17] = contour + 5 * direction
    weights = torch.zeros(1, 68)
    weights[:, :17] = 1.0
    loss = geometry_of(output, true, weights)
    assert loss.item() == pytest.approx(charbonnier(0.5 * price), abs=1e-5)


def test_inner_landmarks_and_the_jaw_are_averaged_by_weight(mean_face: Tensor) -> None:
    output = output_of(mean_face, camera())
    true = output.landmarks[:, :, :2].clone()
    true[:, :17] = contour_points(mean_face, camera())[0]
    true[:, 17:] = project(camera(), annotated_points(mean_face))[:, :, :2] + torch.tensor([5.0, 0.0])
    loss = geometry_of(output, true, torch.ones(1, 68))
    assert loss.item() == pytest.approx(51 * charbonnier(0.5) / (0.5 * 17 + 51), abs=1e-5)
    # A folder that is trusted less counts less as a whole, not against itself.
    less = geometry_of(output, true, torch.full((1, 68), 0.4))
    assert less.item() == pytest.approx(0.4 * loss.item(), rel=1e-4)


def test_landmarks_without_weight_do_not_count(mean_face: Tensor) -> None:
    output = output_of(mean_face, camera())
    assert geometry_of(output, torch.zeros(1, 68, 2), torch.zeros(1, 68)).tolist() == [0.0]
    assert landmark_loss(output.landmarks, torch.zeros(1, 68, 2), torch.zeros(1, 68), 0.5, EYE).tolist() == [0.0]


def test_landmark_loss_prices_the_jaw_by_its_weight() -> None:
    true = torch.zeros(1, 68, 2)
    off = true.clone()
    off[:, 3] = torch.tensor([3.0, 4.0])
    off[:, 30] = torch.tensor([0.0, 5.0])
    loss = landmark_loss(off, true, torch.ones(1, 68), 0.5, EYE)
    assert loss.item() == pytest.approx(1.5 * charbonnier(0.5) / (0.5 * 17 + 51), abs=1e-5)


def test_openings_count_wherever_the_eye_is() -> None:
    true = torch.zeros(1, 68, 2)
    moved = true + torch.tensor([7.0, -3.0])
    assert opening_loss(moved, true, torch.ones(1, 68), EYE).item() == pytest.approx(0, abs=1e-6)
    moved[:, 37, 1] += 5
    pairs = len(LID_PAIRS) + len(LIP_PAIRS)
    loss = opening_loss(moved, true, torch.ones(1, 68), EYE)
    assert loss.item() == pytest.approx(charbonnier(0.5) / pairs, abs=1e-5)
    # A lid that is not annotated leaves the other six.
    weights = torch.ones(1, 68)
    weights[:, 41] = 0
    assert opening_loss(moved, true, weights, EYE).item() == pytest.approx(0, abs=1e-6)


def test_a_symmetric_face_has_no_symmetry_loss(mean_face: Tensor) -> None:
    template = load_template()
    symmetric = torch.from_numpy(template.landmark_positions).new_zeros(1, template.vertex_count, 3)
    assert symmetry_loss(symmetric).item() == 0
    # One vertex off its mirror image by 2 mm: seen from both sides.
    vertex = int(np.flatnonzero(template.symmetry != np.arange(template.vertex_count))[0])
    symmetric[0, vertex, 1] = 2.0
    assert symmetry_loss(symmetric).item() == pytest.approx(2 * 4 / template.vertex_count, rel=1e-5)


def test_pairs_share_their_mean_shape_and_keep_their_expressions() -> None:
    shape = torch.tensor([[[0.0, 0, 0]], [[4.0, 0, 0]], [[1.0, 1, 1]], [[1.0, 1, 1]]])
    expression = torch.tensor([[[0.0, 1, 0]], [[0.0, 0, 2]], [[0.0, 0, 0]], [[5.0, 0, 0]]])
    shared = shared_shapes(shape, shape + expression)
    torch.testing.assert_close(shared, torch.tensor([[[2.0, 1, 0]], [[2.0, 0, 2]], [[1.0, 1, 1]], [[6.0, 1, 1]]]))


def test_confidence_stands_for_an_error_and_back() -> None:
    error = torch.tensor([0.0, HALF_TRUST_ERROR, 3 * HALF_TRUST_ERROR])
    confidence = confidence_target(error)
    torch.testing.assert_close(confidence, torch.tensor([1.0, 0.5, 0.1]))
    torch.testing.assert_close(error_of_confidence(confidence), error, atol=1e-3, rtol=1e-3)


def test_the_mean_of_nothing_is_zero() -> None:
    assert mean_or_zero(torch.zeros(0)).item() == 0
    assert mean_or_zero(torch.tensor([1.0, 3.0])).item() == 2


def test_people_are_told_apart_by_their_shapes() -> None:
    nothing = no_unseen(10)
    apart = torch.zeros(4, 10, 3)
    apart[2:] = 100 * SAME_PERSON_MM  # two people of equal shapes each, far from each other
    torch.testing.assert_close(person_loss(apart, nothing), torch.zeros(4))
    # All alike: any of the three others may be the pair.
    torch.testing.assert_close(person_loss(torch.zeros(4, 10, 3), nothing), torch.full((4,), math.log(3)))
    # Twice SAME_PERSON_MM from everybody else, whose pairs have the same shape.
    near = torch.zeros(4, 10, 3)
    near[2:, :, 0] = 2 * SAME_PERSON_MM
    torch.testing.assert_close(person_loss(near, nothing), torch.full((4,), math.log(1 + 2 * math.exp(-2))))
    assert person_loss(torch.zeros(2, 10, 3), nothing).numel() == 0
    # Nobody is known by what no photograph tells.
    along_x = torch.tensor([1.0, 0, 0]).repeat(10)[None] / math.sqrt(10)
    torch.testing.assert_close(person_loss(near, along_x), torch.full((4,), math.log(3)))


def test_a_machine_is_trusted_where_the_running_average_agrees() -> None:
    true, weights = torch.zeros(1, 68, 2), torch.full((1, 68), 0.4)
    pseudo = true.clone()
    pseudo[0, 5, 0] = AGREEMENT * EYE
    trust = teacher_trust(pseudo, true, weights, EYE)
    assert trust[0, 5].item() == pytest.approx(0.2)
    assert trust[0, 6].item() == pytest.approx(0.4)


def test_eye_distance_is_in_pixels_of_the_crop(ball_face: MorphableFace) -> None:
    template = load_template()
    corners = np.linalg.norm(template.landmark_positions[36] - template.landmark_positions[45])
    assert corners == pytest.approx(90, abs=6)
    assert corners < CROP_SIDE_MM


def test_motion_is_free_of_who_it_is() -> None:
    moved = torch.zeros(1, 3, 3)
    moved[0, 0, 1] = 3.0
    assert motion_loss(moved, torch.zeros(1, 3, 3)).item() == pytest.approx(3.0)

"""What each kind of picture teaches, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.template import load_template
from facerecon_training.conventions import annotated_offsets
from facerecon_training.data import Batch
from facerecon_training.losses import LossWeights, code_of_shape, likelihood_loss, person_loss
from facerecon_training.model import FaceModel, FaceOutput, ModelConfig, project
from facerecon_training.objective import Teacher, confidence_term, face_loss, is_taught, known_of
from facerecon_training.photometric import SKIN_CODE, SkinModel
from facerecon_training.rendered.expressions import EYE_LOOK
from facerecon_training.rendered.eyes import BLINK
from facerecon_training.rendered.morphable import MorphableFace
from facerecon_training.rendered.render import camera_for_crop
from facerecon_training.train import fit_decoders

RENDERED_TERMS = {"motion", "expression", "gaze", "rotation", "projection", "rendered_landmarks", "identity"}
DIRECTION_TERMS = {"direction"}
PHOTOGRAPH_TERMS = {
    "landmarks", "geometry", "image_set", "openings", "blink", "symmetry", "expression_prior", "weak_expression",
    "eyes", "weak_gaze",
}  # fmt: skip
PERSON_TERMS = {"person"}
"""Takes two pairs."""


def test_a_teacher_adds_modes_and_blendshapes(ball_face: MorphableFace) -> None:
    teacher = Teacher.from_face(ball_face)
    identity, expression = torch.zeros(2, 100), torch.zeros(2, 53)
    identity[1, 3], expression[1, 26] = 2.0, 0.5
    shape, vertices = teacher.true_geometry(identity, expression)
    np.testing.assert_allclose(shape[0].numpy(), ball_face.mean, atol=1e-5)
    np.testing.assert_allclose(shape[1].numpy(), ball_face.mean + 2 * ball_face.identity[3], atol=1e-4)
    np.testing.assert_allclose((vertices - shape)[1].numpy(), 0.5 * ball_face.expression[26], atol=1e-4)


def batch_of(rendered: list[bool], is_face: list[float]) -> Batch:
    n = len(rendered)
    generator = torch.Generator().manual_seed(0)
    return Batch(
        torch.randint(0, 256, (n, 3, 64, 64), dtype=torch.uint8, generator=generator),
        torch.rand(n, 68, 2, generator=generator) * 64,
        torch.ones(n, 68),
        torch.tensor(rendered),
        torch.randn(n, 100, generator=generator),
        torch.rand(n, 53, generator=generator),
        torch.ones(n, 53),
        torch.rand(n, 2, 2, generator=generator) - 0.5,
        torch.ones(n, 2),
        torch.rand(n, 2, 3, 2, generator=generator) * 64,
        torch.ones(n, 2),
        torch.from_numpy(camera_for_crop(0, 20, 5, 64, 60)).repeat(n, 1, 1),
        torch.tensor(is_face),
        torch.zeros(n, dtype=torch.bool),
        torch.zeros(n, 3),
        torch.ones(n, 2),
        torch.ones(n, 2),
        torch.full((n,), -1) if all(rendered) else torch.arange(n) // 2,
    )


@pytest.mark.parametrize(
    ("rendered", "is_face", "silent"),
    [
        ([True, True, True, True], [1.0, 1, 1, 1], PHOTOGRAPH_TERMS),
        ([False, False, False, False], [1.0, 1, 1, 1], RENDERED_TERMS),
        ([False, False, False, False], [0.0, 0, 0, 0], RENDERED_TERMS | PHOTOGRAPH_TERMS),
    ],
)
def test_what_a_batch_lacks_adds_nothing_and_breaks_no_gradient(
    ball_face: MorphableFace, rendered: list[bool], is_face: list[float], silent: set[str]
) -> None:
    torch.manual_seed(0)
    model = FaceModel(ModelConfig("tiny", 64)).train()
    with torch.no_grad():
        model.reconstructor.mean.copy_(torch.from_numpy(ball_face.mean).flatten())
        model.reconstructor.shape_basis.normal_(std=0.5)
    batch = batch_of(rendered, is_face)
    output, codes = model.with_codes(batch.image.float())
    teacher, weights = Teacher.from_face(ball_face), LossWeights(expression_prior=0.1)
    loss, terms = face_loss(output, codes, batch, 1, teacher, weights, decoder=model.reconstructor)
    assert {name for name, term in terms.items() if term == 0} == silent | DIRECTION_TERMS | PERSON_TERMS
    assert loss.item() == pytest.approx(sum(term.item() for term in terms.values()), rel=1e-5)
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert torch.isfinite(parameter.grad).all(), name


def test_a_face_of_known_direction_teaches_that_alone(ball_face: MorphableFace) -> None:
    torch.manual_seed(0)
    model = FaceModel(ModelConfig("tiny", 64)).eval()
    batch = batch_of([False] * 4, [1.0] * 4)._replace(direction=torch.tensor([[0.0, 0.6, -0.8]]).repeat(4, 1))
    output, codes = model.with_codes(batch.image.float())
    _, terms = face_loss(output, codes, batch, 1, Teacher.from_face(ball_face), LossWeights())
    assert {name for name, term in terms.items() if term > 0} == {"direction", "reconstruction"}


def test_confidence_is_taught_where_landmarks_are_known_or_there_is_no_face(ball_face: MorphableFace) -> None:
    model = FaceModel(ModelConfig("tiny", 64)).eval()
    batch = batch_of([False] * 3, [1.0, 1.0, 0.0])
    output, codes = model.with_codes(batch.image.float())
    taught = []
    for unknown in (0, 1, 2):
        weights = batch.landmark_weights.clone()
        weights[unknown] = 0
        known = known_of(batch._replace(landmark_weights=weights), Teacher.from_face(ball_face))
        (slope,) = torch.autograd.grad(
            confidence_term(output, codes, batch, known), codes.confidence_logit, retain_graph=True
        )
        taught.append((slope != 0).flatten().tolist())
    assert taught == [[False, True, True], [True, False, True], [True, True, True]]


def test_blinks_are_taught_where_they_are_known(ball_face: MorphableFace) -> None:
    torch.manual_seed(0)
    model = FaceModel(ModelConfig("tiny", 64)).eval()
    known = torch.tensor([[1.0, 0.5], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    batch = batch_of([False] * 4, [1.0] * 4)._replace(blink_weights=known)
    output, codes = model.with_codes(batch.image.float())
    weights = LossWeights(blink=3)
    _, terms = face_loss(output, codes, batch, 1, Teacher.from_face(ball_face), weights)
    # Divergence from a closed eye: minus the logarithm of the predicted weight.
    divergence = -torch.log(output.expression[0, list(BLINK)])
    expected = 3 * (divergence[0] + 0.5 * divergence[1]) / 8
    torch.testing.assert_close(terms["blink"], expected.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("rendered", "term"), [(True, "gaze"), (False, "weak_gaze")])
def test_a_gaze_is_taught_as_far_as_it_is_known(ball_face: MorphableFace, rendered: bool, term: str) -> None:
    torch.manual_seed(0)
    model = FaceModel(ModelConfig("tiny", 64)).eval()
    known = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    batch = batch_of([rendered] * 4, [1.0] * 4)._replace(gaze_weights=known)
    output, codes = model.with_codes(batch.image.float())
    weights = LossWeights(gaze=2, weak_gaze=2)
    _, terms = face_loss(output, codes, batch, 0, Teacher.from_face(ball_face), weights)
    # Untrained, everybody looks straight ahead.
    angle = batch.gaze.norm(dim=2)
    expected = 2 * (angle[0].sum() + angle[1, 1]) / 8
    torch.testing.assert_close(terms[term], expected, atol=0.02, rtol=0)


def test_looks_come_from_gaze_and_are_taught_as_no_expression(ball_face: MorphableFace) -> None:
    """Neither of rendered faces, nor by weak labels, nor by a bigger network."""
    torch.manual_seed(0)
    model = FaceModel(ModelConfig("tiny", 64)).train()
    gazing = [index for eye in EYE_LOOK for index in eye]
    others = [index for index in range(53) if index not in gazing]
    teacher, weights = Teacher.from_face(ball_face), LossWeights()
    for rendered in (True, False):
        batch = batch_of([rendered] * 4, [1.0] * 4)
        output, codes = model.with_codes(batch.image.float())
        codes.expression_logit.retain_grad()
        lesson = FaceOutput(*(tensor.detach() for tensor in output))._replace(expression=torch.rand(4, 53))
        loss, _ = face_loss(output, codes, batch, 0, teacher, weights, lesson=lesson)
        loss.backward()
        assert codes.expression_logit.grad is not None
        assert not codes.expression_logit.grad[:, gazing].any()
        assert codes.expression_logit.grad[:, others].any(0).all()


def test_weak_labels_teach_where_they_say_something(ball_face: MorphableFace) -> None:
    torch.manual_seed(0)
    model = FaceModel(ModelConfig("tiny", 64)).eval()
    jaw, known = BLENDSHAPES.index("jawOpen"), torch.zeros(4, 53)
    known[0, jaw] = 1.0
    batch = batch_of([False] * 4, [1.0] * 4)._replace(expression_weights=known, eyes_weights=torch.zeros(4, 2))
    batch.expression[0, jaw] = 1.0
    output, codes = model.with_codes(batch.image.float())
    _, terms = face_loss(output, codes, batch, 0, Teacher.from_face(ball_face), LossWeights(weak_expression=3))
    # Divergence from an open jaw: minus the logarithm of the predicted weight.
    expected = -3 * torch.log(output.expression[0, jaw]) / 4
    torch.testing.assert_close(terms["weak_expression"], expected.detach(), atol=1e-5, rtol=1e-4)
    assert terms["eyes"] == 0


def test_the_shape_code_learns_how_sure_it_is_and_nothing_else(ball_face: MorphableFace) -> None:
    torch.manual_seed(0)
    model = FaceModel(ModelConfig("tiny", 64, shape_code=20)).train()
    fit_decoders(model, ball_face, np.random.default_rng(0), count=300)
    batch, teacher = batch_of([True] * 4, [1.0] * 4), Teacher.from_face(ball_face)
    output, codes = model.with_codes(batch.image.float())
    only = replace(LossWeights(**dict.fromkeys(LossWeights.__dataclass_fields__, 0.0)), identity=1.0)
    loss, terms = face_loss(output, codes, batch, 0, teacher, only, decoder=model.reconstructor)
    reconstructor = model.reconstructor
    true = teacher.true_geometry(batch.identity, batch.expression)[0]
    code = code_of_shape(true, reconstructor.mean.detach(), reconstructor.shape_basis.detach(), teacher.unseen)
    assert code.std() == pytest.approx(1, abs=0.35), "codes are in standard deviations over people"
    expected = likelihood_loss(codes.shape_code, code, codes.log_variance).mean()
    torch.testing.assert_close(terms["identity"], expected.detach())
    loss.backward()
    assert reconstructor.precision.bias.grad is not None and reconstructor.precision.bias.grad.any()
    for parameter in (reconstructor.mean, reconstructor.shape_basis, *reconstructor.identity.parameters()):
        assert parameter.grad is None or not parameter.grad.any()
    _, without = face_loss(output, codes, batch, 0, teacher, only)
    assert "identity" not in without


def test_pairs_of_photographs_are_told_apart(ball_face: MorphableFace) -> None:
    torch.manual_seed(0)
    model = FaceModel(ModelConfig("tiny", 64)).eval()
    for rendered in (False, True):
        batch = batch_of([rendered] * 4, [1.0] * 4)
        output, codes = model.with_codes(batch.image.float())
        _, terms = face_loss(output, codes, batch, 2, Teacher.from_face(ball_face), LossWeights())
        assert bool(terms["person"] > 0) is not rendered


def test_the_running_average_is_asked_where_no_person_annotated() -> None:
    batch = batch_of([False] * 3, [1.0] * 3)._replace(
        machine_made=torch.tensor([True, False, False]),
        direction=torch.tensor([[0.0, 0, 0], [0.0, 0, -1], [0.0, 0, 0]]),
    )
    assert is_taught(batch).tolist() == [True, True, False]
    assert not is_taught(batch._replace(landmark_weights=torch.zeros(3, 68))).any()


def test_a_machine_that_nobody_looks_after_keeps_its_trust(ball_face: MorphableFace) -> None:
    batch = batch_of([False] * 2, [1.0] * 2)._replace(machine_made=torch.ones(2, dtype=torch.bool))
    teacher, nowhere = Teacher.from_face(ball_face), torch.zeros(2, 68, 2)
    torch.testing.assert_close(known_of(batch, teacher, (is_taught(batch), nowhere)).trust, batch.landmark_weights)
    looked = torch.tensor([True, False])
    trust = known_of(batch, teacher, (looked, nowhere)).trust
    assert trust[0].max() < 0.5
    torch.testing.assert_close(trust[1], batch.landmark_weights[1])


def test_rendered_landmarks_are_known_from_vertices(ball_face: MorphableFace) -> None:
    batch = batch_of([True, False], [1.0, 1.0])
    known = known_of(batch, Teacher.from_face(ball_face))
    chosen = torch.from_numpy(load_template().landmarks[17:]).long()
    annotated = known.vertices[:, chosen] + torch.from_numpy(annotated_offsets()[17:])
    expected = project(batch.crop_from_head[:1], annotated)[0, :, :2]
    torch.testing.assert_close(known.landmarks[0, 17:], expected)
    torch.testing.assert_close(known.landmarks[1], batch.landmarks[1])
    assert known.photograph.tolist() == [False, True]


def test_skin_and_the_running_average_add_their_terms(ball_face: MorphableFace) -> None:
    torch.manual_seed(0)
    model = FaceModel(ModelConfig("tiny", 64)).eval()
    with torch.no_grad():
        model.reconstructor.mean.copy_(torch.from_numpy(ball_face.mean).flatten())
    batch = batch_of([True, True, False, False], [1.0, 1, 1, 1])._replace(
        machine_made=torch.tensor([False] * 3 + [True])
    )
    output, codes = model.with_codes(batch.image.float())
    vertices = 3 * len(ball_face.mean)
    skin = SkinModel(torch.ones(vertices), torch.zeros(SKIN_CODE, vertices))
    teacher, weights = Teacher.from_face(ball_face, skin=skin), LossWeights(photometric=2, skin_prior=0.5, teacher=3)
    code = torch.full((4, SKIN_CODE), 2.0)
    _, plain = face_loss(output, codes, batch, 1, teacher, weights)
    agreeing = output.landmarks[:, :, :2].detach()
    _, terms = face_loss(output, codes, batch, 1, teacher, weights, code, (is_taught(batch), agreeing))
    assert set(terms) - set(plain) == {"photometric", "skin_prior", "teacher"}
    assert terms["skin_prior"].item() == pytest.approx(0.5 * 4)
    assert terms["teacher"].item() == pytest.approx(0, abs=1e-5)
    assert terms["photometric"].item() > 0
    # The machine's landmarks, far from what the average sees, lose their weight; the hand-checked ones keep theirs.
    assert terms["landmarks"] < plain["landmarks"]


def test_a_bigger_network_teaches_photographs_until_both_agree(ball_face: MorphableFace) -> None:
    torch.manual_seed(0)
    model, other = (FaceModel(ModelConfig("tiny", 64)).eval() for _ in range(2))
    with torch.no_grad():
        for one in (model, other):
            one.reconstructor.shape_basis.normal_()
            one.reconstructor.mean.copy_(torch.from_numpy(ball_face.mean).flatten())
    batch = batch_of([True, False, False, False], [1.0, 1, 1, 0])
    output, codes = model.with_codes(batch.image.float())
    teacher, weights = Teacher.from_face(ball_face), LossWeights()
    own = FaceOutput(*(tensor.detach() for tensor in output))
    _, agreed = face_loss(output, codes, batch, 0, teacher, weights, lesson=own)
    assert agreed["distillation"].item() == pytest.approx(0, abs=1e-4)
    # Untrained, everybody looks straight ahead: at right angles to it, the cosine is 0.
    aside = own._replace(gaze=torch.tensor([1.0, 0, 0]).expand(4, 2, 3))
    _, looking = face_loss(output, codes, batch, 0, teacher, weights, lesson=aside)
    assert looking["distillation"].item() == pytest.approx(weights.gaze, rel=1e-3)
    with torch.no_grad():
        lesson = other(batch.image.float())
    _, apart = face_loss(output, codes, batch, 0, teacher, weights, lesson=lesson)
    assert apart["distillation"].item() > 0.05
    # What it says of rendered faces and of pictures without one is not heard.
    rows = torch.tensor([True, False, False, True])[:, None, None]
    mixed = lesson._replace(landmarks=torch.where(rows, lesson.landmarks + 100, lesson.landmarks))
    _, again = face_loss(output, codes, batch, 0, teacher, weights, lesson=mixed)
    torch.testing.assert_close(again["distillation"], apart["distillation"])


def test_weights_scale_their_terms(ball_face: MorphableFace) -> None:
    torch.manual_seed(0)
    model = FaceModel(ModelConfig("tiny", 64)).eval()
    batch = batch_of([True, True, False, False], [1.0, 1, 1, 0])
    output, codes = model.with_codes(batch.image.float())
    teacher, weights = Teacher.from_face(ball_face), LossWeights()
    _, terms = face_loss(output, codes, batch, 1, teacher, weights)
    doubled = replace(weights, landmarks=2 * weights.landmarks, rotation=0)
    _, changed = face_loss(output, codes, batch, 1, teacher, doubled)
    torch.testing.assert_close(changed["landmarks"], 2 * terms["landmarks"])
    assert changed["rotation"] == 0
    torch.testing.assert_close(changed["projection"], terms["projection"])


def test_only_known_people_are_told_apart(ball_face: MorphableFace) -> None:
    """Two augmentations of photographs outside of image sets may show anyone."""
    torch.manual_seed(0)
    model = FaceModel(ModelConfig("tiny", 64)).eval()
    batch = batch_of([False] * 8, [1.0] * 8)
    output, codes = model.with_codes(batch.image.float())
    found = []
    for people in ([0, 0, 1, 1, -1, -1, -1, -1], [0, 0, 1, 1, 2, 2, 3, 3], [-1] * 8):
        known = batch._replace(person=torch.tensor(people))
        _, terms = face_loss(output, codes, known, 4, Teacher.from_face(ball_face), LossWeights(person=1.0))
        found.append(terms["person"].item())
    some = person_loss(output.shape[:4], Teacher.from_face(ball_face).unseen)
    assert found[0] == pytest.approx(some.mean().item(), rel=1e-5)
    assert found[1] > found[0] > found[2] == 0

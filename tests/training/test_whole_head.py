"""The rest of the head: the shipped file is what the command builds, and tells heads of people it never saw."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from facerecon_rt.errors import UsageError
from facerecon_rt.head import Head, load_head, read_head
from facerecon_rt.template import load_template
from facerecon_rt.types import Floats
from facerecon_training.cli import main
from facerecon_training.head_errors import TrueHeads, as_table, region_masks
from facerecon_training.prepare import template_arrays, template_face
from facerecon_training.rendered.morphable import MorphableHead
from facerecon_training.rendered.morphable import read_head as read_morphable
from facerecon_training.rendered.whole_head import (
    MODES,
    NOISE_MM,
    Rest,
    build_head,
    cut_rest,
    expected_rest,
    save_head,
    spread_samples,
)

MODEL = Path(os.environ.get("FACERECON_DATA", "")) / "face_model" / "ict_facekit.npz"
needs_data = pytest.mark.skipif(
    "FACERECON_DATA" not in os.environ or not MODEL.is_file(), reason="FACERECON_DATA has no face_model/ict_facekit.npz"
)


@pytest.fixture(scope="module")
def morphable() -> MorphableHead:
    return read_morphable(MODEL)


@pytest.fixture(scope="module")
def rest(morphable: MorphableHead) -> Rest:
    return cut_rest(morphable, template_arrays())


@pytest.fixture(scope="module")
def built(morphable: MorphableHead, rest: Rest, tmp_path_factory: pytest.TempPathFactory) -> Head:
    path = tmp_path_factory.mktemp("head") / "head.npz"
    save_head(build_head(morphable, rest, template_arrays(), load_template().sha256), path)
    return read_head(path, load_template())


@needs_data
def test_the_shipped_head_is_what_the_command_builds(built: Head, morphable: MorphableHead) -> None:
    shipped = load_head(load_template())
    for name in ("triangles", "uv", "symmetry"):
        np.testing.assert_allclose(getattr(built.template, name), getattr(shipped.template, name), atol=2e-5)
    assert np.array_equal(built.border, shipped.border)
    face = template_face(morphable)
    random = np.random.default_rng(8)
    for identity in random.normal(size=(5, 100)).astype(np.float32):
        shape = face.mean + np.tensordot(identity, face.identity, 1)
        # Libraries round differently, by a step of a mode at most.
        np.testing.assert_allclose(built.neutral(shape), shipped.neutral(shape), atol=0.1)
    np.testing.assert_allclose(built.moved(face.expression), shipped.moved(face.expression), atol=0.05)


@needs_data
def test_heads_told_from_faces_are_far_nearer_than_the_mean_head(morphable: MorphableHead, rest: Rest) -> None:
    """Figures of `facerecon-train head`, with room: the error is at most four tenths of that of the aligned mean."""
    truth = TrueHeads(morphable, template_face(morphable), rest)
    rows = truth.errors(load_head(load_template()), truth.random_people(30))
    for region in ("all", "ears", "neck", "skull"):
        assert rows["completed"][region] < 0.4 * rows["mean head, aligned"][region]
        assert rows["mean head, aligned"][region] < rows["mean head"][region]
    table = as_table(rows)
    assert table.splitlines()[0] == "| mm | all | ears | neck | skull |"
    assert f"| completed | {rows['completed']['all']:.1f} |" in table


@needs_data
def test_the_rest_moves_as_the_morphable_models_own(morphable: MorphableHead, rest: Rest) -> None:
    """Distance to ICT-FaceKit's own motion over all blendshapes, against leaving the rest where it is."""
    face = template_face(morphable)
    own = np.asarray(
        (morphable.expression[:, rest.source_vertices] * rest.source_weights[..., None]).sum(-2), np.float32
    )
    moved = load_head(load_template()).moved(face.expression)[:, len(face.mean) :]
    assert np.sqrt(((moved - own) ** 2).sum(2).mean()) < 0.35 * np.sqrt((own**2).sum(2).mean())


@needs_data
def test_every_region_has_vertices(rest: Rest, morphable: MorphableHead) -> None:
    mean: Floats = np.asarray((morphable.mean[rest.source_vertices] * rest.source_weights[..., None]).sum(1))
    masks = region_masks(mean)
    assert masks["all"].all()
    parts = np.stack([masks[name] for name in ("ears", "neck", "skull")])
    assert (parts.sum(0) == 1).all()
    assert (parts.sum(1) > 300).all()


def test_a_head_whose_face_has_another_border_is_refused(ball_head: MorphableHead) -> None:
    """The rest of the ball head: nothing lies behind its face, so the template's border has no vertices there."""
    with pytest.raises(UsageError, match="does not fit the face template's border"):
        cut_rest(ball_head, template_arrays())


def test_the_expected_rest_is_the_posterior_mean_of_a_gaussian() -> None:
    """Two directions, worked out by hand: one that the face shows, and one that only the rest has."""
    identity = np.zeros((2, 3, 3))
    identity[0, 0, 0] = 12.0  # mm in the face
    identity[0, 2, 1] = 10.0  # and what goes with it behind
    identity[1, 2, 2] = 7.0
    read, modes = expected_rest(identity, np.array([0, 1]), np.array([2]))
    told = np.tensordot(np.array([6.0, 0, 0, 0, 0, 0]) @ read, modes, 1)
    # Half a standard deviation, shrunk by 144 / (144 + NOISE_MM^2).
    np.testing.assert_allclose(told, [[0, 5.0 * 144 / (144 + NOISE_MM**2), 0]], atol=1e-6)
    assert len(modes) <= MODES


def test_samples_are_spread_over_all_points() -> None:
    points = np.stack([np.arange(100.0), np.zeros(100), np.zeros(100)], 1)
    assert spread_samples(points, 5).tolist() == [0, 25, 50, 75, 99] or np.diff(spread_samples(points, 5)).min() > 10


def test_the_command_says_what_is_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["head", "--face-model", str(tmp_path / "no.npz"), str(tmp_path / "head.npz")]) == 2
    (tmp_path / "kit.npz").write_bytes(b"kit")
    assert main(["head", "--face-model", str(tmp_path / "kit.npz"), str(tmp_path / "kit.npz")]) == 2
    assert (tmp_path / "kit.npz").read_bytes() == b"kit"
    assert "there is no face model at" in capsys.readouterr().err

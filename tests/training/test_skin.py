"""Colours of heads: where what grows, and what a Gaussian model of photographed faces says of new ones."""

from __future__ import annotations

import numpy as np
import pytest
from facerecon_rt.types import Floats
from facerecon_training.rendered.render import HeadGeometry
from facerecon_training.rendered.skin import (
    BALD,
    BEARDED,
    FaceColours,
    SkinMap,
    learn_colours,
    mix,
    random_complexion,
    random_skin,
    skin_map,
    smooth_noise,
)


@pytest.fixture(scope="module")
def where(ball_geometry: HeadGeometry) -> SkinMap:
    return skin_map(ball_geometry)


def test_masks_lie_where_their_names_say(ball_geometry: HeadGeometry, where: SkinMap) -> None:
    head, landmarks = ball_geometry.mean, ball_geometry.mean[ball_geometry.landmarks]

    def middle(mask: Floats) -> Floats:
        return np.asarray((head * mask[:, None]).sum(0) / mask.sum(), np.float32)

    assert middle(where.lips)[1] == pytest.approx(landmarks[48:60, 1].mean(), abs=4)
    assert middle(where.brows)[1] == pytest.approx(landmarks[17:27, 1].mean(), abs=4)
    assert middle(where.beard)[1] < landmarks[33, 1] < middle(where.scalp)[1]
    assert not (where.lips * where.brows).any()
    for mask in (where.lips, where.brows, where.beard, where.cheeks, where.lids, where.scalp, where.iris, where.pupil):
        assert mask.min() >= 0 and mask.max() <= 1 and mask.any()
    eyes = np.zeros(len(head), bool)
    eyes[ball_geometry.parts["eyeballs"]] = True
    assert not where.iris[~eyes].any()
    assert (where.pupil <= where.iris + 1e-6).all()


def test_mixing_is_linear() -> None:
    albedo = np.array([[0.0, 0.2, 0.4]] * 3, np.float32)
    found = mix(albedo, np.array([1.0, 1.0, 1.0]), np.array([0, 0.5, 1]))
    np.testing.assert_allclose(found, [[0.0, 0.2, 0.4], [0.5, 0.6, 0.7], [1.0, 1.0, 1.0]], atol=1e-6)


def test_noise_is_smooth_and_of_unit_variance() -> None:
    line = np.zeros((4000, 3), np.float32)
    line[:, 0] = np.arange(4000) * 0.5
    fields = np.stack([smooth_noise(line, 20.0, np.random.default_rng(seed)) for seed in range(30)])
    assert fields.mean() == pytest.approx(0, abs=0.1)
    assert fields.std() == pytest.approx(1, abs=0.1)
    assert np.abs(np.diff(fields, axis=1)).max() < 0.5
    np.testing.assert_array_equal(fields[3], smooth_noise(line, 20.0, np.random.default_rng(3)))


def test_a_model_of_colours_has_the_spread_of_its_faces_and_is_symmetric() -> None:
    """Two vertices that are mirror images and one in the middle, which alone differs between people."""
    random = np.random.default_rng(0)
    mirror = np.array([1, 0, 2])
    factor = np.exp(0.2 * random.normal(size=200))
    colours = np.full((200, 3, 3), 0.4)
    colours[:, 2] *= factor[:, None]
    colours[:, 0] *= 0.8  # light from one side, in all of them
    model = learn_colours(colours, mirror)
    assert model.basis.shape == (24, 3, 3) and model.skins is None
    np.testing.assert_allclose(model.mean[0], model.mean[1], atol=1e-6)
    spread = np.sqrt((model.basis**2).sum(0))
    np.testing.assert_allclose(spread[:, 0] - spread[:, 1], 0, atol=1e-4)
    # Relative to the median vertex: one standard deviation of the middle one is that of its logarithm.
    relative = np.log(colours[:, 2, 0] / np.median(colours[:, :, 0], axis=1))
    assert spread[2, 0] == pytest.approx(relative.std(), rel=0.02)


def test_shares_of_people_are_bald_and_bearded(ball_geometry: HeadGeometry, where: SkinMap) -> None:
    random = np.random.default_rng(0)
    people = [random_complexion(ball_geometry, where, random) for _ in range(150)]
    assert np.mean([one.bald for one in people]) == pytest.approx(BALD, abs=0.07)
    # One in five wears make-up, and none of those a beard.
    assert np.mean([one.bearded for one in people]) == pytest.approx(0.8 * BEARDED, abs=0.1)
    for one in people[:20]:
        assert one.albedo.shape == ball_geometry.mean.shape
        assert (one.albedo > 0).all() and one.albedo.max() < 2
        assert (one.albedo[ball_geometry.parts["teeth"]].mean(1) > 0.3).all()


def test_whole_skins_are_worn_and_mixed(ball_geometry: HeadGeometry, where: SkinMap) -> None:
    """Of a model with two grey skins, some people are as grey as one of them or in between, shifted in tone."""
    count = len(ball_geometry.parts["face"]) + len(ball_geometry.parts["head"])
    flat = np.zeros((len(ball_geometry.parts["face"]), 3), np.float32)
    skins = np.stack([np.full((count, 3), grey, np.float32) for grey in (0.2, 0.4)])
    colours = FaceColours(flat, np.zeros((1, *flat.shape), np.float32), skins)
    random = np.random.default_rng(1)
    nose = ball_geometry.landmarks[30]
    tones = [random_complexion(ball_geometry, where, random, colours).albedo[nose] for _ in range(60)]
    grey = [tone for tone in tones if np.ptp(tone) < 0.25 * tone.mean()]
    assert 4 <= len(grey) <= 40
    assert 0.08 < np.median([tone.mean() for tone in grey]) < 0.5


def test_painted_skin_has_dark_pupils_in_white_eyes(ball_geometry: HeadGeometry, where: SkinMap) -> None:
    albedo = random_skin(ball_geometry, where, np.random.default_rng(0))
    eyes = ball_geometry.parts["eyeballs"]
    white = eyes[where.iris[eyes] == 0]
    assert albedo[eyes[where.pupil[eyes] == 1]].max() < 0.05
    np.testing.assert_allclose(albedo[white], np.tile([0.72, 0.75, 0.80], (len(white), 1)), atol=1e-5)

"""A face and its mirror image: the conversion back, and what their average keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from facerecon_rt.contract import BLENDSHAPES, ModelContract
from facerecon_rt.networks.ensemble import Mirrored
from facerecon_rt.networks.mirror import blendshape_mirror, mirrored
from facerecon_rt.networks.session import RawFaces, read_contract
from facerecon_rt.pose import euler_from_camera, rotation_angle_deg, rotation_from_euler
from facerecon_rt.providers.onnx_file import read_onnx
from facerecon_rt.template import load_template
from facerecon_rt.types import Floats, Image
from numpy.typing import NDArray

SIZE = 64
SIDED = ("shape", "vertices", "expression", "crop_from_head", "landmarks", "confidence", "gaze")
TURN = 25.0


@pytest.fixture(scope="module")
def contract(model: Path) -> ModelContract:
    return read_contract(read_onnx(model))


def lopsided(yaw: float = TURN, count: int = 1) -> RawFaces:
    """Return a turned face that winks, with an asymmetric shape, a little left of the middle."""
    random = np.random.default_rng(3)
    template = load_template()
    shape = random.normal(0, 40, (count, template.vertex_count, 3)).astype(np.float32)
    camera = np.column_stack([0.3 * rotation_from_euler(5, yaw, 10), [25, 30, 0]]).astype(np.float32)
    cameras = np.repeat(camera[None], count, 0)
    expression = np.zeros((count, len(BLENDSHAPES)), np.float32)
    expression[:, BLENDSHAPES.index("eyeBlink_L")] = 0.9
    gaze = np.array([[0.6, 0, 0.8], [0, 0.6, 0.8]], np.float32)
    return RawFaces(
        shape=shape,
        vertices=shape + 1,
        expression=expression,
        crop_from_head=cameras,
        landmarks=project(cameras, shape[:, template.landmarks] + 1),
        confidence=np.full(count, 0.7, np.float32),
        gaze=np.repeat(gaze[None], count, 0),
        identity=np.full((count, 2), 0.5, np.float32),
        identity_variance=np.full((count, 2), 0.25, np.float32),
    )


def project(cameras: Floats, points: Floats) -> Floats:
    return np.asarray(points @ cameras[:, :, :3].transpose(0, 2, 1) + cameras[:, None, :, 3], np.float32)


def assert_same(a: RawFaces, b: RawFaces) -> None:
    for name in SIDED:
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-3, err_msg=name)


def test_a_mirror_image_mirrored_is_the_face(contract: ModelContract) -> None:
    assert_same(mirrored(mirrored(lopsided(), contract), contract), lopsided())


def test_in_a_mirror_the_other_eye_winks_and_the_head_turns_the_other_way(contract: ModelContract) -> None:
    face = mirrored(lopsided(), contract)
    assert face.expression[0, BLENDSHAPES.index("eyeBlink_R")] == np.float32(0.9)
    assert face.expression[0, BLENDSHAPES.index("eyeBlink_L")] == 0
    np.testing.assert_allclose(euler_from_camera(face.crop_from_head[0]), _mirrored_angles(), atol=1e-3)


def test_in_a_mirror_the_other_eye_looks_the_other_way(contract: ModelContract) -> None:
    """The left eye looks to the subject's left, and the right eye looks up."""
    face = mirrored(lopsided(), contract)
    assert face.gaze is not None
    np.testing.assert_allclose(face.gaze[0], [[0, 0.6, 0.8], [-0.6, 0, 0.8]], atol=1e-6)
    assert face.identity is face.identity_variance is None  # it would be the mirrored person's
    assert mirrored(replace(lopsided(), gaze=None), contract).gaze is None


def _mirrored_angles() -> tuple[float, float, float]:
    pitch, yaw, roll = euler_from_camera(lopsided().crop_from_head[0])
    return pitch, -yaw, -roll


def test_landmarks_of_a_mirror_image_are_its_vertices_seen_by_its_camera(contract: ModelContract) -> None:
    face = mirrored(lopsided(), contract)
    seen = project(face.crop_from_head, face.vertices[:, load_template().landmarks])
    np.testing.assert_allclose(face.landmarks, seen, atol=1e-3)
    # The flip is that of the picture.
    right_eye, left_eye = 36, 45
    flipped = contract.input_size - 1 - lopsided().landmarks[0, right_eye, 0]
    np.testing.assert_allclose(face.landmarks[0, left_eye, 0], flipped, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "becomes"),
    [("eyeBlink_L", "eyeBlink_R"), ("jawRight", "jawLeft"), ("mouthLeft", "mouthRight"), ("jawOpen", "jawOpen")],
)
def test_sides_of_blendshapes_are_swapped_in_a_mirror(name: str, becomes: str) -> None:
    assert BLENDSHAPES[blendshape_mirror(BLENDSHAPES)[BLENDSHAPES.index(name)]] == becomes


def test_a_name_without_its_other_side_stays_where_it_is() -> None:
    assert blendshape_mirror(("smile_L", "browUp")).tolist() == [0, 1]


class SeesBrightSide:
    """A network that recognises a flipped crop by its bright half. Its landmarks are off by `error` pixels, always to
    the same side."""

    provider, sha256 = "cpu", "bright"

    def __init__(self, contract: ModelContract, error: float = 0.0) -> None:
        self.contract = contract
        self.error = error
        self.batches: list[int] = []

    def run(self, images: NDArray[np.uint8]) -> RawFaces:
        self.batches.append(len(images))
        face = lopsided()
        other = mirrored(face, self.contract)
        half = images.shape[2] // 2
        rows = [face if image[:, :half].mean() > image[:, half:].mean() else other for image in images]
        joined = {name: np.concatenate([getattr(row, name) for row in rows]) for name in SIDED}
        joined["landmarks"] = joined["landmarks"] + np.array([self.error, 0, 0], np.float32)
        # The mirrored person has another code.
        joined["identity"] = np.array([[0.5, 0.5] if row is face else [9, 9] for row in rows], np.float32)
        joined["identity_variance"] = joined["identity"] / 2
        disagreement = np.arange(4 * len(images), dtype=np.float32).reshape(-1, 4)
        return RawFaces(**joined, disagreement=disagreement)


def bright_left(count: int = 1) -> Image:
    image = np.zeros((count, SIZE, SIZE, 3), np.uint8)
    image[:, :, : SIZE // 2] = 200
    return image


def test_a_network_that_sees_both_sides_alike_says_the_same_with_a_mirror(contract: ModelContract) -> None:
    network = SeesBrightSide(contract)
    face = Mirrored(network).run(bright_left(2)).rows(slice(1))
    assert_same(face, lopsided())
    assert rotation_angle_deg(face.crop_from_head[0, :, :3] / 0.3, lopsided().crop_from_head[0, :, :3] / 0.3) < 0.01
    assert network.batches == [4]  # one run for all crops
    assert face.identity is not None and face.identity_variance is not None
    assert face.identity.tolist() == [[0.5, 0.5]] and face.identity_variance.tolist() == [[0.25, 0.25]]


def test_what_is_wrong_to_one_side_averages_out(contract: ModelContract) -> None:
    face = Mirrored(SeesBrightSide(contract, error=3.0)).run(bright_left())
    np.testing.assert_allclose(face.landmarks, lopsided().landmarks, atol=1e-3)


def test_what_annotators_do_to_one_side_is_kept(contract: ModelContract) -> None:
    habit = replace(contract, annotation_asymmetry=(3.0, 0.0) * 68)
    face = Mirrored(SeesBrightSide(habit, error=3.0)).run(bright_left())
    np.testing.assert_allclose(face.landmarks - lopsided().landmarks, np.tile([3, 0, 0], (1, 68, 1)), atol=1e-3)


def test_disagreement_is_that_of_both_images(contract: ModelContract) -> None:
    raw = Mirrored(SeesBrightSide(contract)).run(bright_left(2))
    # Crops have rows 0 and 1 of the run, their mirror images rows 2 and 3.
    assert raw.disagreement is not None
    assert raw.disagreement.tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]

"""What another tracker says of photographs: in our names and to scale, and nothing where it says nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import UsageError
from facerecon_training import weak_labels
from facerecon_training.weak_labels import (
    ABSENT_TRUST,
    EYE_POINTS,
    LABELS,
    LOOK_DEG,
    LOOK_LABELS,
    MEANINGS,
    NEVER,
    PRESENT_TRUST,
    SCALE,
    corrected,
    gaze_from_eye_look,
    in_our_names,
    lip_opening,
    read_weak_labels,
    trust_of,
    with_opening,
)

INDEX = {name: i for i, name in enumerate(BLENDSHAPES)}
THEIRS = [
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "cheekPuff", "eyeBlinkLeft", "eyeBlinkRight",
    "eyeLookInLeft", "eyeSquintLeft", "jawLeft", "jawOpen", "mouthPucker", "mouthSmileLeft", "mouthSmileRight",
    "noseSneerLeft",
]  # fmt: skip


def scores(**given: float) -> np.ndarray[Any, Any]:
    return np.array([[given.get(name, 0.0) for name in THEIRS]], np.float32)


def test_sides_stay_sides_and_a_score_for_both_is_that_of_each() -> None:
    ours = in_our_names(
        THEIRS, scores(eyeBlinkLeft=0.9, mouthSmileRight=0.4, jawLeft=0.3, jawOpen=0.72, browInnerUp=0.8)
    )
    assert ours.shape == (1, 53) and ours.dtype == np.float32
    found = {name: float(ours[0, INDEX[name]]) for name in BLENDSHAPES if ours[0, INDEX[name]] > 0}
    expected = {
        "eyeBlink_L": 1, "mouthSmile_R": 0.4, "jawLeft": 1, "jawOpen": 1, "browInnerUp_L": 1, "browInnerUp_R": 1,
    }  # fmt: skip
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("kind", SCALE)
def test_scores_that_never_rest_or_never_reach_one_are_put_to_scale(kind: str) -> None:
    rest, strong = SCALE[kind]
    ours = next(name for name in BLENDSHAPES if name.startswith(kind))
    name = next((t for t in THEIRS if t.startswith(kind)), ours.replace("_L", "Left"))
    names = [*THEIRS, name]
    for score, weight in ((rest, 0), ((rest + strong) / 2, 0.5), (strong, 1), (rest - 0.05, 0), (1.0, 1)):
        row = np.array([[score if one == name else 0.0 for one in names]], np.float32)
        assert in_our_names(names, row)[0, INDEX[ours]] == pytest.approx(weight, abs=1e-6)


def test_what_it_never_says_is_not_known() -> None:
    ours = in_our_names(THEIRS, scores(noseSneerLeft=0.9, cheekPuff=0.5, eyeLookInLeft=0.7))
    unknown = {name for name in BLENDSHAPES if np.isnan(ours[0, INDEX[name]])}
    assert {name for name in BLENDSHAPES if name.startswith(NEVER)} <= unknown
    assert "mouthFunnel" in unknown, "of which this tracker has no column"
    assert not unknown & {"jawOpen", "eyeBlink_R", "mouthSmile_L", "browDown_L"}


def test_a_photograph_that_it_did_not_find_a_face_in_is_not_known() -> None:
    ours = in_our_names(THEIRS, scores(jawOpen=np.nan, eyeSquintLeft=np.nan))
    assert np.isnan(ours[0, [INDEX["jawOpen"], INDEX["eyeSquint_L"]]]).all()


def arrays(count: int = 2) -> dict[str, Any]:
    points = np.arange(count * 478 * 3, dtype=np.float32).reshape(count, 478, 3) % 97
    return {
        "files": np.array([f"helen-train/{i}.jpg" for i in range(count)]),
        "blendshape_names": np.array(THEIRS),
        "blendshapes": np.repeat(scores(mouthSmileLeft=0.5), count, 0).astype(np.float16),
        "landmarks478": points.astype(np.float16),
        "points68": np.ones((count, 68, 2), np.float32),
    }


def test_eyes_are_corners_and_iris_left_first(tmp_path: Path) -> None:
    np.savez(tmp_path / "photographs.npz", **arrays())
    weak = read_weak_labels(tmp_path / "photographs.npz")
    assert weak.files == {"helen-train/0.jpg": 0, "helen-train/1.jpg": 1}
    assert weak.eyes.shape == (2, 2, 3, 2)
    points = arrays()["landmarks478"].astype(np.float32)
    for eye in range(2):
        for place in range(3):
            np.testing.assert_array_equal(weak.eyes[1, eye, place], points[1, EYE_POINTS[eye][place], :2])
    assert weak.blendshapes[0, INDEX["mouthSmile_L"]] == 0.5
    # Jaw points are not on the visible contour.
    assert np.isnan(weak.landmarks[:, :17]).all()
    assert np.isfinite(weak.landmarks[:, 17:]).all()
    # Nothing is said of who they are, and all of the file is picture.
    assert weak.person.tolist() == [-1, -1]
    assert (weak.valid[:, 2:] > 10_000).all() and not weak.valid[:, :2].any()


def test_people_and_borders_are_read_where_they_are_told(tmp_path: Path) -> None:
    told: dict[str, Any] = {
        "person": np.array([7, 8], np.int32),
        "valid": np.array([[0, 10, 256, 250], [5, 0, 200, 256]], np.int16),
    }
    np.savez(tmp_path / "expressive.npz", **arrays(), **told)
    weak = read_weak_labels(tmp_path / "expressive.npz")
    assert weak.person.tolist() == [7, 8]
    assert weak.valid.tolist() == told["valid"].tolist()


@pytest.mark.parametrize("name", ["files", "blendshape_names", "blendshapes", "landmarks478", "points68"])
def test_a_file_that_lacks_something_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "photographs.npz"
    np.savez(path, **{key: value for key, value in arrays().items() if key != name})
    with pytest.raises(UsageError, match=rf"photographs\.npz holds no weak labels \(.*{name}.*see training/README\.md"):
        read_weak_labels(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut short"])
def test_what_is_no_such_file_is_said_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "photographs.npz"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"photographs\.npz holds no weak labels") as caught:
        read_weak_labels(path)
    assert "\n" not in str(caught.value)


def test_a_file_of_meshes_with_fewer_points_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photographs.npz"
    np.savez(path, **{**arrays(), "landmarks478": np.zeros((2, 468, 3), np.float16)})
    with pytest.raises(UsageError, match=r"holds no weak labels"):
        read_weak_labels(path)


def test_the_real_labels_put_the_iris_between_the_corners(data_folder: Path) -> None:
    path = data_folder / "pseudo" / "photographs.npz"
    if not path.is_file():
        pytest.skip("no pseudo/photographs.npz in FACERECON_DATA")
    weak = read_weak_labels(path)
    known = np.isfinite(weak.eyes).all((1, 2, 3))
    assert known.mean() > 0.99
    outer, inner, iris = np.moveaxis(weak.eyes[known], 2, 0)
    along = ((iris - outer) * (inner - outer)).sum(2) / ((inner - outer) ** 2).sum(2)
    assert (np.abs(np.median(along, 0) - 0.5) < 0.08).all()
    # Of the mostly frontal people the subject's left eye is on the picture's right.
    assert (outer[:, 0, 0] > outer[:, 1, 0]).mean() > 0.99
    blink = weak.blendshapes[:, INDEX["eyeBlink_L"]]
    assert 0.02 < np.nanmean(blink > 0.5) < 0.2


def looking(**looks: float) -> np.ndarray[Any, Any]:
    weights = np.zeros(len(BLENDSHAPES), np.float32)
    for name, weight in looks.items():
        weights[INDEX[name]] = weight
    return weights


def test_looks_become_one_gaze_of_both_eyes() -> None:
    aside = gaze_from_eye_look(looking(eyeLookOut_L=0.8, eyeLookIn_R=0.4))
    np.testing.assert_allclose(aside, np.radians([[0.6 * LOOK_DEG, 0]] * 2), atol=1e-6)
    other = gaze_from_eye_look(looking(eyeLookIn_L=0.6, eyeLookOut_R=0.6, eyeLookDown_L=1, eyeLookDown_R=1))
    np.testing.assert_allclose(other, np.radians([[-0.6 * LOOK_DEG, -LOOK_DEG]] * 2), atol=1e-6)


def test_the_jaw_opens_as_far_as_the_tracker_sees_the_lips_apart() -> None:
    points = np.zeros((3, 478, 3), np.float32)
    points[:, 263, 0] = 90.0  # eye corners 90 apart; lips 9 and 27 apart, and shut
    points[:, 14, 1] = [9.0, 27.0, 0.9]
    points[:, :, 2] = [[5.0], [7.0], [9.0]]  # how far away the face is does not matter
    opening = lip_opening(points)
    np.testing.assert_allclose(opening, [0.1, 0.3, 0.01], rtol=1e-5)
    open_ = with_opening(np.stack([looking(mouthFunnel=0.5), looking(jawOpen=0.5), looking(jawOpen=0.2)]), opening)
    jaw = open_[:, INDEX["jawOpen"]]
    # Rest and funnel open by 0.009 + 0.065, rest and half the jaw by 0.009 + 0.1665.
    np.testing.assert_allclose(jaw, [(0.1 - 0.074) / 0.333, 0.5 + (0.3 - 0.1755) / 0.333, 0.2], atol=1e-5)
    assert (with_opening(looking(jawOpen=0.9)[None], np.array([0.9], np.float32)) <= 1).all()
    unknown = np.full((1, len(BLENDSHAPES)), np.nan, np.float32)
    assert np.isnan(with_opening(unknown, np.array([0.3], np.float32))).all()


def test_lips_that_bare_teeth_open_with_the_jaw() -> None:
    """A third of what is missing is opened by the lips, by mouthUpperUp 0.1 against jawOpen 0.2."""
    opening = np.array([0.009 + 0.1 * 0.087 + 0.2 * 0.333 + 0.09], np.float32)
    (open_,) = with_opening(looking(mouthUpperUp_L=0.1, mouthUpperUp_R=0.1, jawOpen=0.2)[None], opening)
    by_lips = 0.03 / (0.087 + 0.074)
    for name, weight in (
        ("mouthUpperUp_R", 0.1 + by_lips),
        ("mouthLowerDown_L", by_lips),
        ("jawOpen", 0.2 + 0.06 / 0.333),
    ):
        assert open_[INDEX[name]] == pytest.approx(weight, abs=2e-3), name


def test_labels_are_trusted_for_what_they_name_and_what_is_absent_but_not_for_what_is_unsure() -> None:
    trust = {name: trust_of({"browDown": "unsure", "browUp": "present"})[INDEX[name]] for name in BLENDSHAPES}
    assert trust["browInnerUp_L"] == trust["browInnerUp_R"] == PRESENT_TRUST
    assert trust["noseSneer_L"] == trust["mouthFrown_R"] == ABSENT_TRUST
    assert {trust[name] for name in ("browDown_L", "browDown_R", "browOuterUp_L", "jawOpen", "eyeLookUp_L")} == {1}
    assert trust_of({"gazeLeft": "present"})[INDEX["eyeLookOut_L"]] == PRESENT_TRUST


def test_what_a_person_saw_corrects_the_tracker() -> None:
    tracker = np.full(len(BLENDSHAPES), 0.3, np.float32)
    tracker[[INDEX["noseSneer_L"], INDEX["noseSneer_R"]]] = np.nan
    seen = corrected(tracker, {"noseSneer": "present", "browDown": "unsure", "gazeUp": "present"})
    assert seen[INDEX["noseSneer_R"]] == pytest.approx(MEANINGS["noseSneer"].least)
    assert seen[INDEX["browDown_L"]] == pytest.approx(0.3), "unsure"
    assert seen[INDEX["mouthFrown_L"]] == pytest.approx(MEANINGS["frown"].most), "absent"
    assert seen[INDEX["eyeLookUp_L"]] == 0.5 and seen[INDEX["eyeLookDown_R"]] == 0
    assert seen[INDEX["jawOpen"]] == pytest.approx(0.3), "no label speaks of it"
    nothing = corrected(tracker, {})
    assert nothing[INDEX["noseSneer_L"]] == 0 and np.isfinite(nothing).sum() == np.isfinite(tracker).sum() + 2 + 0
    assert gaze_from_eye_look(nothing).max() == gaze_from_eye_look(tracker).max()


def test_labels_given_by_looking_are_used_for_their_photographs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "labels.json").write_text('{"helen-train/1.jpg": {"noseSneer": "present"}}')
    monkeypatch.setattr(weak_labels, "LABELS", tmp_path / "labels.json")
    np.savez(tmp_path / "photographs.npz", **arrays())
    weak = read_weak_labels(tmp_path / "photographs.npz")
    assert np.isnan(weak.blendshapes[0, INDEX["noseSneer_L"]])
    assert weak.blendshapes[1, INDEX["noseSneer_L"]] == pytest.approx(0.7)
    assert weak.trust[1, INDEX["noseSneer_L"]] == PRESENT_TRUST and (weak.trust[0] == 1).all()


def test_the_shipped_labels_are_of_known_kinds_and_of_no_photograph_that_measures() -> None:
    labels = json.loads(LABELS.read_text())
    assert len(labels) > 500
    kinds = {*MEANINGS, *LOOK_LABELS, "jawOpen"}
    assert all(set(one) <= kinds and set(one.values()) <= {"present", "unsure"} for one in labels.values())
    measured = json.loads((Path(__file__).parents[2] / "benchmarks/expression_labels.json").read_text())["images"]
    assert not {Path(name).name for name in labels} & {image["file"] for image in measured}

"""Another tracker's scores -> our names, to scale, and nothing where it has nothing to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import UsageError
from facerecon_training.weak_labels import in_our_names, read_weak_labels

INDEX = {name: i for i, name in enumerate(BLENDSHAPES)}
NAMES = ["browInnerUp", "eyeBlinkLeft", "eyeBlinkRight", "eyeSquintLeft", "noseSneerLeft", "eyeLookOutLeft", "jawOpen"]


def test_names_are_translated_and_left_stays_left() -> None:
    ours = in_our_names(NAMES, np.array([[0.8, 0.7, 0.1, 0.3, 0.9, 0.9, 0.4]], np.float32))[0]
    assert ours[INDEX["eyeBlink_L"]] == pytest.approx(0.7)
    assert ours[INDEX["eyeBlink_R"]] == pytest.approx(0.1)
    assert ours[INDEX["jawOpen"]] == pytest.approx(0.4)
    assert ours[INDEX["browInnerUp_L"]] == ours[INDEX["browInnerUp_R"]] == pytest.approx(1.0)


def test_a_squint_that_every_face_has_is_none() -> None:
    ours = in_our_names(NAMES, np.array([[0, 0, 0, 0.30, 0, 0, 0], [0, 0, 0, 0.85, 0, 0, 0]], np.float32))
    np.testing.assert_allclose(ours[:, INDEX["eyeSquint_L"]], [0, 1], atol=1e-6)


def test_what_the_tracker_never_says_is_not_known() -> None:
    ours = in_our_names(NAMES, np.ones((1, 7), np.float32))[0]
    for name in ("noseSneer_L", "eyeLookOut_L", "cheekPuff_L", "mouthSmile_L"):
        assert np.isnan(ours[INDEX[name]])


def test_a_file_gives_eyes_and_landmarks_without_jaw(tmp_path: Path) -> None:
    points = np.zeros((1, 478, 3), np.float16)
    points[0, [263, 362, 473, 33, 133, 468], 0] = [60, 40, 52, 0, 20, 12]
    arrays: dict[str, Any] = {
        "files": np.array(["a/1.jpg"]),
        "blendshape_names": np.array(NAMES),
        "blendshapes": np.zeros((1, 7), np.float16),
        "landmarks478": points,
        "points68": np.ones((1, 68, 2), np.float32),
    }
    np.savez(tmp_path / "weak.npz", **arrays)
    weak = read_weak_labels(tmp_path / "weak.npz")
    assert weak.files == {"a/1.jpg": 0}
    np.testing.assert_allclose(weak.eyes[0, :, :, 0], [[60, 40, 52], [0, 20, 12]])
    assert np.isnan(weak.landmarks[0, :17]).all()
    assert (weak.landmarks[0, 17:] == 1).all()
    assert weak.person.tolist() == [-1]


def test_a_file_that_holds_something_else_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "weak.npz", nothing=np.zeros(1))
    with pytest.raises(UsageError, match=r"weak\.npz holds no weak labels"):
        read_weak_labels(tmp_path / "weak.npz")

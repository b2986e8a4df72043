"""ICT-FaceKit's files: as upstream lays them out, as a packed .npz, and what is said about neither."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import UsageError
from facerecon_training.rendered.morphable import (
    EYEBALLS,
    HEAD_VERTICES,
    IDENTITY_MODES,
    MorphableHead,
    _read_landmarks,
    _read_obj_quads,
    _read_obj_vertices,
    _triangles,
    face_from_head,
    read_head,
)


def packed(head: MorphableHead) -> dict[str, Any]:
    return {
        "mean": head.mean,
        "identity": head.identity.astype(np.float16),
        "expression": head.expression.astype(np.float16),
        "expression_names": np.array(BLENDSHAPES),
        "quads": np.hstack([head.triangles, np.full((len(head.triangles), 1), -1, np.int32)]),
        "landmarks68": head.landmarks,
    }


def save(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path, **arrays)
    return path


def test_a_packed_head_has_its_origin_midway_between_the_eyeballs(tmp_path: Path, ball_head: MorphableHead) -> None:
    arrays = packed(ball_head) | {"mean": ball_head.mean + np.float32(7)}
    head = read_head(save(tmp_path / "head.npz", arrays))
    np.testing.assert_allclose(np.mean([head.mean[part].mean(0) for part in EYEBALLS], axis=0), 0, atol=1e-4)
    np.testing.assert_array_equal(head.triangles, ball_head.triangles)
    # Where that is in the file's own coordinates; everything else was moved by as much.
    np.testing.assert_allclose(head.mean + head.origin, arrays["mean"], atol=1e-4)
    np.testing.assert_allclose(head.origin[:2], 7, atol=1e-3)
    assert head.identity.dtype == head.expression.dtype == np.float32
    assert head.identity.shape == (IDENTITY_MODES, HEAD_VERTICES, 3)


@pytest.mark.parametrize("name", ["mean", "identity", "expression", "expression_names", "quads", "landmarks68"])
def test_a_packed_head_that_lacks_an_array_is_named(tmp_path: Path, ball_head: MorphableHead, name: str) -> None:
    arrays = {key: np.zeros(2) for key in packed(ball_head) if key != name}
    with pytest.raises(UsageError, match=rf"head\.npz lacks the arrays \['{name}'\]"):
        read_head(save(tmp_path / "head.npz", arrays))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"mean": np.zeros((5, 3))}, r"mean has the shape \(5, 3\), but ICT-FaceKit has \(26719, 3\); run `git clone"),
        ({"landmarks68": np.zeros(49, np.int32)}, r"landmarks has the shape \(49,\)"),
        ({"quads": np.full((3, 4), HEAD_VERTICES)}, "names vertices that do not exist"),
        ({"quads": np.zeros(3, np.int32)}, "is not a readable packed ICT-FaceKit"),
        ({"expression_names": np.array(["smile"])}, "expression_names are not ICT-FaceKit's 53"),
        ({"expression_names": np.array([None])}, "is not a readable packed ICT-FaceKit"),
    ],
)
def test_a_packed_head_with_a_wrong_array_is_refused(
    tmp_path: Path, ball_head: MorphableHead, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        read_head(save(tmp_path / "head.npz", packed(ball_head) | change))


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut short", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_npz_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "head.npz"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"head\.npz is not an \.npz file; .*git clone") as caught:
        read_head(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_npz_is_refused(tmp_path: Path, ball_head: MorphableHead) -> None:
    path = save(tmp_path / "head.npz", packed(ball_head))
    content = bytearray(path.read_bytes())
    content[1000:5000] = bytes(4000)
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"is not a readable packed ICT-FaceKit \(Bad CRC-32"):
        read_head(path)


def test_a_plain_npy_file_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "head.npy", np.zeros(3))
    with pytest.raises(UsageError, match=r"is not an \.npz file"):
        read_head(tmp_path / "head.npy")


def test_a_path_that_is_not_there_says_where_to_get_the_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no face model at .*nowhere; .*git clone .*--face-model"):
        read_head(tmp_path / "nowhere")


def test_a_wrong_folder_is_named_with_how_much_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"lacks vertex_indices\.json and 154 more; run `git clone"):
        read_head(tmp_path)


def test_a_folder_that_lacks_one_mesh_names_it_before_reading_any(tmp_path: Path) -> None:
    folder = tmp_path / "FaceXModel"
    folder.mkdir()
    for name in ["generic_neutral_mesh", *(f"identity{i:03}" for i in range(100)), *BLENDSHAPES]:
        (folder / f"{name}.obj").touch()
    (folder / "vertex_indices.json").touch()
    (folder / "jawOpen.obj").unlink()
    with pytest.raises(UsageError, match=r"FaceXModel lacks jawOpen\.obj; run `git clone"):
        read_head(tmp_path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("v 1 2 3\nv 4 5 6\n", "has 2 vertices, but ICT-FaceKit has 26719"), ("v 1 2 x\n", "is not a readable OBJ file")],
)
def test_a_mesh_with_other_vertices_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "jawOpen.obj"
    path.write_text(text)
    with pytest.raises(UsageError, match=rf"jawOpen\.obj {complaint}.*git clone"):
        _read_obj_vertices(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"idx_to_landmark_verts": ["a"]}'])
def test_a_file_of_indices_without_landmarks_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "vertex_indices.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"vertex_indices\.json lists no landmark vertices"):
        _read_landmarks(path)


def test_a_quad_is_two_triangles_of_its_own_orientation() -> None:
    triangles = _triangles(np.array([[0, 1, 2, 3], [4, 5, 6, -1]], np.int32))
    assert triangles.tolist() == [[0, 1, 2], [4, 5, 6], [0, 2, 3]]


def test_modes_are_carried_over_by_barycentric_coordinates(ball_head: MorphableHead) -> None:
    sources = np.array([[5, 6, 7], [8, 0, 0]], np.int32)
    weights = np.array([[0.5, 0.25, 0.25], [1, 0, 0]], np.float32)
    face = face_from_head(ball_head, sources, weights)
    np.testing.assert_allclose(face.mean[0], ball_head.mean[[5, 6, 7]].T @ weights[0], rtol=1e-6)
    np.testing.assert_array_equal(face.expression[:, 1], ball_head.expression[:, 8])
    assert face.identity.shape == (IDENTITY_MODES, 2, 3)


def test_eyes_are_counted_from_the_middle_of_their_corners(ball_head: MorphableHead) -> None:
    """The balls are at x = 30 and -30, 15 mm large, and look straight ahead; the left one comes first."""
    face = face_from_head(ball_head, np.zeros((1, 3), np.int32), np.full((1, 3), 1 / 3, np.float32))
    assert face.eyes.shape == (2, 2, 3)
    for side, (x, corners) in enumerate(((30, (42, 45)), (-30, (36, 39)))):
        middle = ball_head.mean[ball_head.landmarks[list(corners)]].mean(0)
        np.testing.assert_allclose(face.eyes[side, 0] + middle, [x, 0, 0], atol=0.4)
        # The iris is a circle of 6.1 mm on a sphere of 15.
        np.testing.assert_allclose(face.eyes[side, 1], [0, 0, np.sqrt(15**2 - 6.1**2)], atol=0.4)


def test_upstream_files_equal_the_packed_ones(data_folder: Path) -> None:
    folder = data_folder / "face_model" / "upstream_sample" / "FaceXModel"
    with np.load(data_folder / "face_model" / "ict_facekit.npz", allow_pickle=False) as arrays:
        mean, identity, expression = arrays["mean"], arrays["identity"][:2], arrays["expression"]
        quads, landmarks = arrays["quads"], arrays["landmarks68"]
    neutral = _read_obj_vertices(folder / "generic_neutral_mesh.obj")
    np.testing.assert_allclose(neutral, mean, atol=1e-3)
    pairs = [
        *((f"identity{i:03}", identity[i]) for i in range(2)),
        *((name, expression[BLENDSHAPES.index(name)]) for name in ("jawOpen", "eyeBlink_L")),
    ]
    for name, offset in pairs:
        read = _read_obj_vertices(folder / f"{name}.obj") - neutral
        # float16 has 11 significant bits; the texts have 6 decimals of a centimetre.
        np.testing.assert_allclose(read, offset.astype(np.float32), rtol=2**-11, atol=2e-4, err_msg=name)
    np.testing.assert_array_equal(_read_obj_quads(folder / "generic_neutral_mesh.obj"), quads)
    np.testing.assert_array_equal(_read_landmarks(folder / "vertex_indices.json"), landmarks)
    assert tuple(json.loads((folder / "vertex_indices.json").read_text())["expressions"]) == BLENDSHAPES

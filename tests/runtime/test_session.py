"""A model of a few kilobytes through the whole session: its answers, and files that are refused before they run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import pytest
from facerecon_rt.contract import CONTRACT_KEY
from facerecon_rt.errors import ModelRefused, UsageError
from facerecon_rt.networks.session import FaceSession, output_dims
from facerecon_rt.pose import euler_from_camera
from facerecon_rt.providers import choice as providers
from facerecon_rt.providers.choice import open_ort_session
from facerecon_rt.template import load_template
from numpy.typing import NDArray
from onnx import ModelProto


class MakeTinyModel(Protocol):
    def __call__(self, path: Path, **contract_overrides: Any) -> Path: ...


def crops(levels: list[int], size: int = 64) -> NDArray[np.uint8]:
    return np.stack([np.full((size, size, 3), level, np.uint8) for level in levels])


def edited(source: Path, target: Path, edit: Callable[[ModelProto], None]) -> Path:
    model = onnx.load(source)
    edit(model)
    onnx.save(model, target)
    return target


def test_a_batch_gives_every_output_of_the_contract(tiny_model: Path) -> None:
    with FaceSession(tiny_model) as session:
        faces = session.run(crops([0, 128, 255]))
        for name, dims in output_dims(session.contract).items():
            array = getattr(faces, name)
            assert array.shape == (3, *dims), name
            assert array.dtype == np.float32, name
    assert len(np.unique(faces.confidence)) == 2
    np.testing.assert_allclose(faces.confidence, [0.0, 0.95, 0.95])


def test_a_file_of_contract_1_has_no_gaze_and_says_all_else_alike(tiny_model: Path, tiny_model_1: Path) -> None:
    with FaceSession(tiny_model) as session, FaceSession(tiny_model_1) as older:
        assert (session.contract.version, older.contract.version) == (2, 1)
        faces, found = session.run(crops([0, 90])), older.run(crops([0, 90]))
        with pytest.raises(UsageError, match="unknown output 'gaze'"):
            older.run(crops([1]), ["gaze"])
    for name in output_dims(older.contract):
        np.testing.assert_array_equal(getattr(found, name), getattr(faces, name))
    assert found.gaze is found.identity is found.identity_variance is None
    assert found.rows(slice(1)).gaze is None
    assert faces.gaze is not None and faces.rows(slice(1)).gaze is not None
    sine, cosine = np.sin(np.radians(30 * 90 / 255)), np.cos(np.radians(30 * 90 / 255))
    np.testing.assert_allclose(faces.gaze[1], [[sine, 0, cosine]] * 2, atol=1e-6)


def test_a_crop_gets_the_same_answer_alone_and_in_a_batch(tiny_model: Path) -> None:
    with FaceSession(tiny_model) as session:
        together = session.run(crops([10, 90, 200]))
        alone = session.run(crops([90]))
    for name in output_dims(session.contract):
        np.testing.assert_array_equal(getattr(together, name)[1:2], getattr(alone, name))


def test_the_tiny_face_is_frontal_and_in_the_middle(tiny_model: Path) -> None:
    with FaceSession(tiny_model) as session:
        faces = session.run(crops([128]))
    np.testing.assert_allclose(euler_from_camera(faces.crop_from_head[0]), 0.0, atol=1e-6)
    landmarks = faces.vertices[0][load_template().landmarks]
    camera = faces.crop_from_head[0]
    np.testing.assert_allclose(faces.landmarks[0], landmarks @ camera[:, :3].T + camera[:, 3], atol=1e-4)
    np.testing.assert_allclose(faces.landmarks[0, :, :2].mean(0), 31.5, atol=6)
    assert (faces.landmarks >= -32).all()
    assert faces.landmarks[0, 36, 0] < faces.landmarks[0, 45, 0], "the subject's right eye is on the picture's left"
    assert faces.landmarks[0, 8, 1] > faces.landmarks[0, 27, 1], "the chin is below the nose"


def test_no_crops_give_empty_arrays(tiny_model: Path) -> None:
    with FaceSession(tiny_model) as session:
        faces = session.run(np.empty((0, 64, 64, 3), np.uint8))
    for name, dims in output_dims(session.contract).items():
        assert getattr(faces, name).shape == (0, *dims)


def test_only_the_outputs_asked_for_are_computed(tiny_model: Path) -> None:
    with FaceSession(tiny_model) as session:
        faces = session.run(crops([1, 2]), ["confidence", "landmarks"])
    assert (len(faces.landmarks), len(faces.confidence), len(faces.shape), len(faces.expression)) == (2, 2, 0, 0)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (np.zeros((1, 64, 64, 3), np.float32), "crops are float32"),
        (np.zeros((64, 64, 3), np.uint8), r"crops are uint8 \(64, 64, 3\)"),
        (np.zeros((1, 32, 32, 3), np.uint8), r"takes uint8 \(N, 64, 64, 3\)"),
    ],
)
def test_other_crops_than_the_contracts_are_refused(images: Any, says: str, tiny_model: Path) -> None:
    with FaceSession(tiny_model) as session, pytest.raises(UsageError, match=says):
        session.run(images)


def test_an_unknown_output_and_a_closed_session_are_said_to_be(tiny_model: Path) -> None:
    session = FaceSession(tiny_model)
    with pytest.raises(UsageError, match=r"unknown output 'depth'; the outputs are shape, "):
        session.run(crops([1]), ["depth"])
    session.close()
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.run(crops([1]))


def test_a_session_says_which_file_it_is_and_where_it_runs(tiny_model: Path) -> None:
    with FaceSession(str(tiny_model), provider="cpu", threads=2) as session:
        assert session.path == tiny_model
        assert len(session.sha256) == 64
        assert session.provider == "cpu"
        assert session.choice == "cpu, as requested"
        assert session.contract.input_size == 64


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"version": 3}, "contract version is 3, but this runtime reads 1 and 2"),
        ({"precision": "fp8"}, "precision 'fp8'"),
        ({"outputs": ("shape",)}, "outputs"),
        ({"input_size": 96}, r"input image is uint8 \(N, 64, 64, 3\).* says uint8 \(N, 96, 96, 3\)"),
        ({"vertex_count": 100}, r"output shape is float32 .* says float32 \(N, 100, 3\)"),
        ({"blendshapes": ("jawOpen",)}, r"output expression is float32 \(N, 53\).* says float32 \(N, 1\)"),
        ({"template_sha256": "0" * 64}, "made for face template 000000000000 .*export the model again"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_contract_that_does_not_hold_is_refused(
    overrides: dict[str, Any], says: str, make_tiny_model: MakeTinyModel, tmp_path: Path
) -> None:
    path = make_tiny_model(tmp_path / "face.onnx", **overrides)
    with pytest.raises(ModelRefused, match=rf"face\.onnx: .*{says}") as refusal:
        FaceSession(path)
    assert "\n" not in str(refusal.value)


def lose_the_contract(model: ModelProto) -> None:
    model.ClearField("metadata_props")


def fix_the_batch(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def take_floats(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def rename_the_input(model: ModelProto) -> None:
    model.graph.input[0].name = "picture"


def drop_an_output(model: ModelProto) -> None:
    del model.graph.output[-1]


def lose_a_shape(model: ModelProto) -> None:
    model.graph.output[0].type.tensor_type.ClearField("shape")


def garble_the_contract(model: ModelProto) -> None:
    onnx.helper.set_model_props(model, {CONTRACT_KEY: "{"})


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lose_the_contract, "holds no facerecon.contract"),
        (garble_the_contract, "not JSON"),
        (fix_the_batch, r"is uint8 \(1, 64, 64, 3\).* N dynamic"),
        (take_floats, r"image is float32 \(N, 64"),
        (rename_the_input, "inputs are picture, but its contract says image"),
        (
            drop_an_output,
            "outputs are shape, .*, confidence, gaze, identity, but its contract says shape, .*, identity_variance",
        ),
        (lose_a_shape, r"output shape is float32 \(\)"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_file_that_is_not_as_its_contract_says_is_refused(
    edit: Callable[[ModelProto], None], says: str, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelRefused, match=rf"edited\.onnx: .*{says}"):
        FaceSession(edited(tiny_model, tmp_path / "edited.onnx", edit))


def test_a_graph_that_onnx_runtime_cannot_load_is_refused_in_one_line(tiny_model: Path, tmp_path: Path) -> None:
    def invent_an_operator(model: ModelProto) -> None:
        model.graph.node[0].op_type = "Imagined"

    with pytest.raises(ModelRefused, match=r"edited\.onnx: ONNX Runtime cannot load the model") as refusal:
        FaceSession(edited(tiny_model, tmp_path / "edited.onnx", invent_an_operator))
    assert "\n" not in str(refusal.value)


def test_products_in_blocks_that_onnx_runtime_does_not_know_ask_for_a_newer_one(
    tiny_model: Path, tmp_path: Path
) -> None:
    """ONNX Runtime 1.21 refuses 8-bit blocks with this message. Here the message comes from another unknown
    operator."""

    def multiply_in_blocks(model: ModelProto) -> None:
        model.graph.node[0].op_type, model.graph.node[0].domain = "MatMulNBits", "com.microsoft"
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))

    with pytest.raises(ModelRefused, match=r"edited\.onnx: ONNX Runtime .* is too old for this model; .*>=1\.23"):
        FaceSession(edited(tiny_model, tmp_path / "edited.onnx", multiply_in_blocks))


def test_a_file_cut_short_anywhere_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    whole = tiny_model.read_bytes()
    path = tmp_path / "short.onnx"
    ends = [*range(0, 2000, 37), *range(2000, len(whole) - 3000, 4999), *range(len(whole) - 3000, len(whole), 41)]
    for end in ends:
        path.write_bytes(whole[:end])
        with pytest.raises(ModelRefused, match=r"short\.onnx: "):
            FaceSession(path)


def test_a_file_that_computes_another_shape_than_it_declares_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    def drop_landmarks(model: ModelProto) -> None:
        indices = next(tensor for tensor in model.graph.initializer if tensor.name == "landmark_vertices")
        indices.CopyFrom(onnx.numpy_helper.from_array(np.arange(5), indices.name))
        del model.graph.value_info[:]

    session = FaceSession(edited(tiny_model, tmp_path / "edited.onnx", drop_landmarks))
    with session, pytest.raises(ModelRefused, match=r"edited\.onnx: output landmarks has the wrong shape \(2, 5, 3\)"):
        session.run(crops([1, 2]))


@pytest.mark.parametrize(
    ("constant", "value", "says"),
    [
        ("most", np.nan, "output confidence is not finite; export the model again"),
        ("jaw_open", np.inf, "output vertices is not finite"),
        ("camera", 0.0, "output crop_from_head is mirrored or flat"),
    ],
)
def test_numbers_that_nothing_can_be_made_of_are_refused(
    tiny_model: Path, tmp_path: Path, constant: str, value: float, says: str
) -> None:
    def overflow(model: ModelProto) -> None:
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == constant)
        full = np.full(tuple(tensor.dims), value, np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(full, constant))

    session = FaceSession(edited(tiny_model, tmp_path / "edited.onnx", overflow))
    with session, pytest.raises(ModelRefused, match=says):
        session.run(crops([1, 2]))


def test_external_data_never_reaches_onnx_runtime(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_model.with_name("external.onnx")
    onnx.save(onnx.load(tiny_model), path, save_as_external_data=True, location="secrets.bin", size_threshold=0)
    monkeypatch.setattr(providers, "import_onnxruntime", lambda: pytest.fail("asked for ONNX Runtime"))
    for open_it in (FaceSession, open_ort_session):
        with pytest.raises(ModelRefused, match=r"external\.onnx: .*external data"):
            open_it(path)


def test_importing_the_session_loads_no_onnx_runtime() -> None:
    program = (
        "import sys, facerecon_rt, facerecon_rt.networks.session\n"
        "heavy = {'onnxruntime', 'onnx', 'torch', 'facerecon_export', 'facerecon_training'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_onnx_runtime_does_not_report_home(tiny_model: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from facerecon_rt.networks.session import FaceSession; FaceSession(sys.argv[1], provider='cpu')"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ORT_", "CI", "GITHUB_"))}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program, str(tiny_model)], env=environment, check=True)
    assert not list(tmp_path.rglob("*deviceid*")), "the identifier that its telemetry would send"

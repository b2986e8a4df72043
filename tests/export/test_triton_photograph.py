"""The model that takes photographs inside Triton. A stand-in for Triton's own module runs the two other models with
ONNX Runtime; tests/runtime/test_kserve_client.py asks a real server."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from facerecon_export.cli import main
from facerecon_rt.faces.reconstruct import Reconstructor
from facerecon_rt.networks.session import read_contract
from facerecon_rt.providers.onnx_file import read_onnx
from facerecon_rt.types import Image

MODELS = Path(__file__).parents[2] / "models"
CLIP = Path(__file__).parents[1] / "data" / "talking_head.mp4"


class Tensor:
    """A stand-in for Triton's Tensor."""

    def __init__(self, name: str, array: Any) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Any:
        return self._array


class Response:
    """A stand-in for Triton's InferenceResponse."""

    def __init__(self, output_tensors: Sequence[Tensor] = (), error: Any = None) -> None:
        self._tensors, self._error = output_tensors, error

    def output_tensors(self) -> Sequence[Tensor]:
        return self._tensors

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> Any:
        return self._error

    def arrays(self) -> dict[str, Any]:
        assert not self.has_error(), self._error.message()
        return {tensor.name(): tensor.as_numpy() for tensor in self._tensors}


class Asked:
    """A stand-in for Triton's InferenceRequest to the models of a repository."""

    sessions: dict[str, onnxruntime.InferenceSession]

    def __init__(self, model_name: str, requested_output_names: list[str], inputs: list[Tensor], **_: Any) -> None:
        self.model, self.names = model_name, requested_output_names
        self.given = {tensor.name(): tensor.as_numpy() for tensor in inputs}

    def exec(self) -> Response:
        if self.model not in self.sessions:
            return Response(error=SimpleNamespace(message=lambda: f"unknown model {self.model}"))
        arrays = self.sessions[self.model].run(self.names, self.given)
        return Response(
            [Tensor(name, a[:, None] if a.ndim == 1 else a) for name, a in zip(self.names, arrays, strict=True)]
        )


@pytest.fixture(scope="module")
def photograph() -> Image:
    reader = cv2.VideoCapture(str(CLIP))
    seen, image = reader.read()
    assert seen
    return np.asarray(image, np.uint8)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Callable[..., Response]:
    """Function that sends a request to the model that `--photographs` wrote for the shipped network: `backend(file,
    ...)`."""
    started: Callable[..., Response] = request.getfixturevalue("start")(MODELS / "face.int8-cpu.onnx")
    return started


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], Callable[..., Response]]]:
    """Function that returns a `backend` for any network: `start(model)`."""
    yield lambda face: _started(face, tmp_path, monkeypatch)
    monkeypatch.delitem(sys.modules, "model", raising=False)


def _started(face: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Response]:
    pb = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import json_format, text_format

    files = [str(face), str(MODELS / "face_detector.onnx")]
    assert main(["triton", *files, "--name", "face", "--photographs", "-o", str(tmp_path)]) == 0
    Asked.sessions = {
        name: onnxruntime.InferenceSession(
            str(tmp_path / name / "1" / "model.onnx"), providers=["CPUExecutionProvider"]
        )
        for name in ("face", "face_detector")
    }
    tritons = ModuleType("triton_python_backend_utils")
    tritons.__dict__.update(Tensor=Tensor, InferenceRequest=Asked, InferenceResponse=Response)
    tritons.__dict__.update(PreferredMemory=lambda memory: memory, TRITONSERVER_MEMORY_CPU=0)
    tritons.__dict__.update(TritonError=lambda text: SimpleNamespace(message=lambda: text))
    tritons.__dict__.update(get_input_tensor_by_name=lambda request, name: request[name])
    monkeypatch.setitem(sys.modules, tritons.__name__, tritons)
    monkeypatch.syspath_prepend(str(tmp_path / "face_photograph" / "1"))
    monkeypatch.delitem(sys.modules, "model", raising=False)
    model = importlib.import_module("model").TritonPythonModel()
    text = (tmp_path / "face_photograph" / "config.pbtxt").read_text()
    config = json_format.MessageToJson(text_format.Parse(text, pb.ModelConfig()), preserving_proto_field_name=True)
    model.initialize({"model_config": config})

    def ask(*files: bytes) -> Response:
        (response,) = model.execute([{"picture": Tensor("picture", np.array(files, np.object_))}])
        assert isinstance(response, Response)
        return response

    return ask


def encoded(image: Image) -> bytes:
    return bytes(cv2.imencode(".png", image)[1])


def test_photographs_in_faces_out_as_the_runtime_has_them(backend: Callable[..., Response], photograph: Image) -> None:
    nobody = np.zeros((200, 300, 3), np.uint8)
    two = np.concatenate([photograph, photograph], 1)
    arrays = backend(encoded(two), encoded(nobody), encoded(photograph)).arrays()
    with Reconstructor(MODELS / "face.int8-cpu.onnx", provider="cpu") as reconstructor:
        expected = reconstructor.reconstruct([two, nobody, photograph])
    records = [json.loads(record) for record in arrays["record"]]
    assert [len(record["faces"]) for record in records] == [2, 0, 1] == [len(faces) for faces in expected]
    assert [record["size"] for record in records] == [[1024, 512], [300, 200], [512, 512]]
    assert arrays["photograph"].tolist() == [0, 0, 2]
    faces = [face for of_one in expected for face in of_one]
    for name in ("shape", "vertices", "expression", "frame_from_head", "landmarks", "confidence"):
        assert arrays[name].dtype == np.float32
        np.testing.assert_allclose(arrays[name], np.array([getattr(face, name) for face in faces]), atol=1e-4)


def test_gaze_is_among_the_answers_of_a_network_that_tells_it(
    start: Callable[[Path], Callable[..., Response]], tiny_model: Path, photograph: Image
) -> None:
    backend = start(tiny_model)
    arrays = backend(encoded(photograph)).arrays()
    with Reconstructor(tiny_model, detector=MODELS / "face_detector.onnx", provider="cpu") as reconstructor:
        ((face,),) = reconstructor.reconstruct([photograph])
    assert face.gaze is not None
    assert arrays["gaze"].dtype == np.float32
    np.testing.assert_allclose(arrays["gaze"], face.gaze[None], atol=1e-5)
    (record,) = (json.loads(one) for one in arrays["record"])
    np.testing.assert_allclose(record["faces"][0]["gaze"]["left"], face.gaze[0], atol=1e-4)
    assert backend(encoded(np.zeros((64, 64, 3), np.uint8))).arrays()["gaze"].shape == (0, 2, 3)


def test_nobody_in_any_photograph_is_an_answer(backend: Callable[..., Response]) -> None:
    arrays = backend(encoded(np.zeros((64, 64, 3), np.uint8))).arrays()
    outputs = read_contract(read_onnx(MODELS / "face.int8-cpu.onnx")).outputs
    assert ("gaze" in arrays) == ("gaze" in outputs)
    assert json.loads(arrays["record"][0])["faces"] == []
    assert arrays["vertices"].shape == (0, 4032, 3)
    assert arrays["confidence"].shape == (0,)


def test_what_is_no_photograph_is_an_error_that_says_so(backend: Callable[..., Response]) -> None:
    assert backend(b"hello there").error().message() == "picture 0 is a text file, not a photograph"


def test_a_model_that_is_not_loaded_is_named(backend: Callable[..., Response], photograph: Image) -> None:
    del Asked.sessions["face"]
    said = backend(encoded(photograph)).error().message()
    assert said == "face: unknown model face; make sure that the server has loaded the model"

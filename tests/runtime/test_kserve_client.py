"""The example client against Triton itself (repository, configuration, batching, versions, both protocols), and against
KServe's own server.

Only Triton's ONNX Runtime backend is a stand-in (tests/servers/onnxruntime_backend.py). Tests that need a server are
skipped without it; tests/servers/start_triton.py and start_kserve.py say how to install the servers.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import cv2
import numpy as np
import pytest
from facerecon_rt import FaceSession, Reconstructor
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import ModelRefused, ProviderMissing, UsageError
from facerecon_rt.providers.onnx_file import read_onnx
from facerecon_rt.types import Image

from tests.servers.process import Server
from tests.servers.start_kserve import kserve
from tests.servers.start_triton import PYTHON, triton

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
CLIP = ROOT / "tests" / "data" / "talking_head.mp4"
PROTOCOLS = ("http", "grpc")


def _load(path: Path) -> Any:
    """Load an example, which belongs to no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


client = _load(ROOT / "runtime" / "examples" / "kserve_client.py")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that the command wrote from the shipped files."""
    from facerecon_export.cli import main

    out = tmp_path_factory.mktemp("triton") / "repository"
    detector = str(MODELS / "face_detector.onnx")
    assert main(["triton", str(MODELS / "face.onnx"), detector, "--photographs", "-o", str(out)]) == 0
    for name in ("face.int8-cpu", "face.fp16", "face.int8", "face.clean"):
        on_cpu = ["--kind", "cpu", "--max-delay-ms", "500"]
        assert main(["triton", str(MODELS / f"{name}.onnx"), *on_cpu, "-o", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def clients() -> None:
    """Skip the test without the libraries of both protocols."""
    for name in ("geventhttpclient", "grpc"):
        pytest.importorskip(name)


@pytest.fixture(scope="module")
def server(clients: None, repository: Path) -> Iterator[Server]:
    with triton(repository, repository.parent) as started:
        yield started


@pytest.fixture(params=PROTOCOLS)
def connection(request: pytest.FixtureRequest, server: Server) -> Iterator[Any]:
    with client.Server(getattr(server, request.param)) as opened:
        yield opened


@pytest.fixture(scope="module")
def photograph() -> Image:
    reader = cv2.VideoCapture(str(CLIP))
    seen, image = reader.read()
    assert seen
    return np.asarray(image, np.uint8)


def test_triton_loads_every_model_strictly_as_configured(server: Server, repository: Path) -> None:
    states = re.findall(r"^\| (face\w*) +\| (\d+) +\| (\w+)", server.log.read_text(), re.MULTILINE)
    assert sorted(states) == sorted((folder.name, "1", "READY") for folder in repository.iterdir())


@pytest.mark.parametrize("name", ["face", "face_fp16", "face_int8", "face_int8_cpu", "face_clean"])
def test_the_server_answers_as_a_session_here(connection: Any, name: str) -> None:
    network = client.served_network(connection, name)
    file = MODELS / f"{'face.int8-cpu' if name == 'face_int8_cpu' else name.replace('_', '.')}.onnx"
    size = network.contract.input_size
    crops = np.random.default_rng(0).integers(0, 255, (19, size, size, 3)).astype(np.uint8)
    raw = network.run(crops)
    with FaceSession(file, provider="cpu") as session:
        expected = session.run(crops)
        assert (network.contract, network.sha256) == (session.contract, session.sha256)
    for output in network.contract.outputs:
        np.testing.assert_array_equal(getattr(raw, output), getattr(expected, output))


def test_photographs_are_reconstructed_as_here(connection: Any, photograph: Image) -> None:
    network = client.served_network(connection, "face")
    detector = client.detector_of(connection, "face_detector")
    two = np.concatenate([photograph, photograph[:, ::-1]], 1)
    with (
        Reconstructor(MODELS / "face.onnx", provider="cpu") as here,
        Reconstructor(network, detector=detector) as there,
    ):
        found, expected = there.faces(two), here.faces(two)
    assert len(found) == len(expected) == 2
    for face, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(face.vertices, other.vertices)
        np.testing.assert_array_equal(face.frame_from_head, other.frame_from_head)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("on_server", [False, True])
def test_the_example_prints_the_record_that_the_runtime_writes(
    server: Server,
    protocol: str,
    on_server: bool,
    photograph: Image,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from facerecon_rt.cli import main

    path = tmp_path / "photograph.png"
    cv2.imwrite(str(path), photograph)
    arguments = ["--model", str(MODELS / "face.onnx"), "--input", str(path), "--output", "-", "--quiet"]
    arguments += ["--provider", "cpu"]
    if on_server:  # its NumPy may sum in another order, so that the last digit differs
        command = [os.environ[PYTHON], "-m", "facerecon_rt.cli", *arguments]
        expected = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    else:
        assert main(arguments) == 0
        expected = json.loads(capsys.readouterr().out)
    model = ["--model", "face_photograph", "--on-server"] if on_server else ["--model", "face"]
    assert client.main(["--url", getattr(server, protocol), *model, "--input", str(path)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["provider"] == ("triton" if on_server else "kserve")
    assert record["source"] == str(path)
    assert record["model"] == read_onnx(MODELS / "face.onnx").sha256
    for name in ("faces", "size", "precision", "schema"):
        assert record[name] == expected[name]


def test_the_example_writes_a_mesh_with_the_detector_here(server: Server, photograph: Image, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "photograph.png"), photograph)
    arguments = ["--url", server.grpc, "--detector", str(MODELS / "face_detector.onnx"), "--output"]
    arguments += [str(tmp_path / "face.obj"), "--contract", str(MODELS / "face.onnx"), "--no-mirror"]
    assert client.main([*arguments, "--input", str(tmp_path / "photograph.png")]) == 0
    assert (tmp_path / "face.obj").read_text().count("\nv ") == 4032


def test_what_goes_wrong_on_the_server_is_one_line(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photograph.jpg").write_text("no photograph")
    given = ["--input", str(tmp_path / "photograph.jpg")]
    for url in (server.http, server.grpc):
        assert client.main(["--url", url, "--model", "face_photograph", "--on-server", *given]) == 4
        assert "picture 0 is a text file, not a photograph" in capsys.readouterr().err
        assert client.main(["--url", url, "--model", "absent", *given]) == 4
        said = capsys.readouterr().err
        assert "absent" in said
        assert said.count("\n") == 1


def test_requests_at_once_share_runs(server: Server) -> None:
    import tritonclient.grpc as grpc

    crops = np.random.default_rng(1).integers(0, 255, (16, 1, 128, 128, 3)).astype(np.uint8)
    name = "face_int8_cpu"
    with grpc.InferenceServerClient(server.grpc.removeprefix("grpc://")) as asking:

        def executions() -> int:
            return int(asking.get_inference_statistics(name).model_stats[0].execution_count)

        before = executions()
        errors: SimpleQueue[Any] = SimpleQueue()
        for crop in crops:
            tensor = grpc.InferInput("image", list(crop.shape), "UINT8")
            tensor.set_data_from_numpy(crop)
            asking.async_infer(name, [tensor], lambda result, error: errors.put(error))
        assert [errors.get(timeout=60) for _ in crops] == [None] * len(crops)
        assert executions() - before < len(crops)


def test_labels_name_the_strongest_blendshapes(server: Server, photograph: Image) -> None:
    import tritonclient.grpc as grpc

    tensor = grpc.InferInput("image", [1, 128, 128, 3], "UINT8")
    crop = np.asarray(cv2.resize(photograph, (128, 128)), np.uint8)[None]
    tensor.set_data_from_numpy(crop)
    wanted = grpc.InferRequestedOutput("expression", class_count=3)
    with grpc.InferenceServerClient(server.grpc.removeprefix("grpc://")) as asking:
        labels = asking.infer("face", [tensor], outputs=[wanted]).as_numpy("expression").ravel()
    with FaceSession(MODELS / "face.onnx", provider="cpu") as session:
        weights = session.run(crop).expression[0]
    names = [label.decode().split(":")[2] for label in labels]
    assert names == [BLENDSHAPES[index] for index in np.argsort(-weights)[:3]]


def test_the_next_version_takes_the_place_of_the_one_before(server: Server, repository: Path) -> None:
    import tritonclient.grpc as grpc
    from facerecon_export.cli import main

    given = ["--name", "turned_over", "--kind", "cpu", "-o", str(repository)]
    with (
        grpc.InferenceServerClient(server.grpc.removeprefix("grpc://")) as asking,
        client.Server(server.grpc) as connection,
    ):
        for name, version in (("face", 1), ("face.clean", 2), ("face", 1)):
            assert main(["triton", str(MODELS / f"{name}.onnx"), *given]) == 0
            asking.load_model("turned_over")
            assert asking.is_model_ready("turned_over", str(version))
            assert not asking.is_model_ready("turned_over", str(3 - version))
            # The golden crop proves that the weights of the given contract answer.
            network = client.served_network(connection, "turned_over")
            assert network.sha256 == read_onnx(MODELS / f"{name}.onnx").sha256
        with pytest.raises(ModelRefused, match="the server runs another file"):
            client.served_network(connection, "turned_over", MODELS / "face.clean.onnx")


def test_another_server_of_the_protocol_answers_as_a_session_here(
    clients: None, repository: Path, photograph: Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with kserve(repository, tmp_path / "log") as other, Reconstructor(MODELS / "face.onnx", provider="cpu") as here:
        expected = here.faces(photograph)
        for url in (other.http, other.grpc):
            with client.Server(url) as connection:
                network = client.served_network(connection, "face", MODELS / "face.onnx")
                with Reconstructor(network, detector=MODELS / "face_detector.onnx") as there:
                    found = there.faces(photograph)
            assert len(found) == len(expected) == 1
            np.testing.assert_array_equal(found[0].vertices, expected[0].vertices)
            # KServe has no configurations to ask for.
            assert client.main(["--url", url, "--input", "photograph.png"]) == 4
            assert "--contract" in capsys.readouterr().err


def test_an_address_that_is_none_or_where_nobody_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("grpc")
    for url in ("localhost:8000", "ftp://localhost", "http://"):
        with pytest.raises(UsageError, match="is not the address of a server"):
            client.Server(url)
    with client.Server("grpc://127.0.0.1:1", timeout_s=5) as nobody, pytest.raises(ProviderMissing, match="127"):
        client.served_network(nobody, "face")
    monkeypatch.setitem(sys.modules, "tritonclient.http", None)
    with pytest.raises(UsageError, match=r"needs tritonclient; pip install 'tritonclient\[http\]'"):
        client.Server("http://localhost:8000")
    assert client.main(["--url", "nowhere", "--input", "photograph.jpg"]) == 2
    assert "is not the address of a server" in capsys.readouterr().err

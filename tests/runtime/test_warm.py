"""The first session answers at once. The better session takes over when it is ready and agrees."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import pytest
from facerecon_rt.cli import main
from facerecon_rt.commands.arguments import idle_gpu_options
from facerecon_rt.errors import ProviderMissing
from facerecon_rt.faces.reconstruct import Reconstructor
from facerecon_rt.networks.precision import open_session
from facerecon_rt.networks.session import FaceSession
from facerecon_rt.networks.warm import WarmSession, build_arguments, start_building
from facerecon_rt.providers.engines import default_root
from facerecon_rt.providers.nvidia import GpuOptions

from tests.conftest import TINY_SIZE
from tests.runtime.conftest import Pretend

IMAGES = np.random.default_rng(0).integers(0, 255, (2, TINY_SIZE, TINY_SIZE, 3)).astype(np.uint8)


class StartProcess(Protocol):
    def __call__(self, code: int = 0) -> subprocess.Popen[bytes]: ...


@pytest.fixture
def building() -> Iterator[StartProcess]:
    """Function that starts a process which ends with this code as soon as its input ends: `building(code)`."""
    started: list[subprocess.Popen[bytes]] = []

    def start(code: int = 0) -> subprocess.Popen[bytes]:
        program = f"import sys; sys.stdin.read(); sys.exit({code})"
        started.append(subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        let_end(process)


def let_end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    process.stdin.close()
    process.wait()


def test_the_better_session_takes_over_when_its_engine_is_built(
    building: StartProcess, tiny_model: Path, pretend: Pretend
) -> None:
    process = building()
    first = FaceSession(tiny_model, provider="cpu")
    pretend("cuda")
    with WarmSession(first, process, lambda: FaceSession(tiny_model, provider="cuda")) as session:
        before = session.run(IMAGES)
        assert session.provider == "cpu"
        assert session.choice == "cpu, as requested (until the engine of tensorrt is built)"
        let_end(process)
        after = session.run(IMAGES)
        assert session.provider == "cuda"
        assert session.choice == "cuda, as requested"
        np.testing.assert_allclose(after.vertices, before.vertices, atol=1e-4)


def test_one_that_says_otherwise_does_not(
    building: StartProcess, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = onnx.load(tiny_model)
    mean = next(tensor for tensor in other.graph.initializer if tensor.name == "mean_face")
    mean.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(mean) + 3, "mean_face"))
    onnx.save(other, tmp_path / "other.onnx")
    process = building()
    first = FaceSession(tiny_model, provider="cpu")
    with WarmSession(first, process, lambda: FaceSession(tmp_path / "other.onnx", provider="cpu")) as session:
        let_end(process)
        session.run(IMAGES)
        assert session.path == tiny_model
        assert "staying on cpu: cpu differs by " in caplog.text
        session.run(IMAGES)  # the build is not asked again
        assert caplog.text.count("staying on") == 1


def test_one_that_opens_and_then_does_not_run_changes_nothing(
    building: StartProcess, tiny_model: Path, pretend: Pretend, caplog: pytest.LogCaptureFixture
) -> None:
    process = building()
    first = FaceSession(tiny_model, provider="cpu")
    pretend("cuda", breaks=True)
    better = FaceSession(tiny_model, provider="cuda", self_test=False)
    with WarmSession(first, process, lambda: better) as session:
        let_end(process)
        assert len(session.run(IMAGES).vertices) == 2
        assert session.provider == "cpu"
    assert "staying on cpu: cuda does not run (CUDA failure 2: out of memory)" in caplog.text


@pytest.mark.parametrize("ends", ["with an error", "and then does not open"])
def test_an_engine_that_is_not_to_be_had_changes_nothing(
    building: StartProcess, ends: str, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> FaceSession:
        raise ProviderMissing("no tensorrt: gone; mend it")

    process = building(4 if ends == "with an error" else 0)
    with WarmSession(FaceSession(tiny_model, provider="cpu"), process, refuse) as session:
        let_end(process)
        session.run(IMAGES)
        assert session.provider == "cpu"
    assert ("failed with exit code 4" if ends == "with an error" else "no tensorrt: gone") in caplog.text


def test_closing_ends_what_still_builds(building: StartProcess, tiny_model: Path) -> None:
    process = building()
    session = WarmSession(FaceSession(tiny_model, provider="cpu"), process, lambda: pytest.fail("not built"))
    session.close()
    session.close()
    assert process.returncode is not None


def test_the_process_that_builds_is_given_what_this_one_was(tiny_model: Path, tmp_path: Path) -> None:
    gpu = GpuOptions(memory_mb=64, cuda_graph=True, engines=tmp_path / "e")
    assert build_arguments(gpu) == ["--engines", str(tmp_path / "e"), "--gpu-memory", "64", "--cuda-graph"]
    # This is a real build. The machine has no TensorRT, as its exit code says.
    process = start_building(tiny_model, gpu)
    assert process.wait(60) == 4


def test_only_an_engine_that_is_not_kept_is_waited_for(
    building: StartProcess, model: Path, pretend: Pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend("tensorrt", "cuda")
    started: list[Path] = []

    def start(file: Path, gpu: GpuOptions) -> subprocess.Popen[bytes]:
        started.append(file)
        return building()

    monkeypatch.setattr("facerecon_rt.networks.precision.start_building", start)
    gpu = GpuOptions(engines=default_root())
    with Reconstructor(model, warm_while_building=True, gpu=gpu) as reconstructor:
        assert reconstructor.network.provider == "cuda"
        assert idle_gpu_options(reconstructor, gpu, warm=True) == []  # TensorRT takes over
    assert started == [model]
    open_session(model, provider="tensorrt").close()  # builds, and keeps
    with Reconstructor(model, warm_while_building=True) as reconstructor:
        assert reconstructor.network.provider == "tensorrt"
    assert started == [model]


def test_build_keeps_an_engine(
    model: Path, pretend: Pretend, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend("tensorrt", "cuda")
    for engines in ([], ["--engines", str(tmp_path / "here")]):
        assert main(["build", "--model", str(model), *engines]) == 0
        root = tmp_path / "here" if engines else default_root()
        said = capsys.readouterr().out
        assert "fp32, answers on tensorrt" in said and f"engines in {root}" in said
        assert [path.suffix for path in sorted(root.iterdir())] == ["", ".lock"]


def test_a_build_that_keeps_no_engine_fails(
    model: Path, pretend: Pretend, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend("tensorrt", "cuda")
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    assert main(["build", "--model", str(model), "--engines", str(open_to_all)]) == 2
    said = capsys.readouterr()
    assert f"no engine of {model} is kept in {open_to_all}; give another folder with --engines" in said.err
    assert said.out == ""


def test_build_says_what_is_missing(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--model", str(model)]) == 4
    assert "no tensorrt: this ONNX Runtime is built without it" in capsys.readouterr().err

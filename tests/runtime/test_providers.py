"""The chosen provider, its options, and the message where it does not work. The GPU is pretended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
from facerecon_rt.errors import ProviderMissing, UsageError
from facerecon_rt.networks.session import FaceSession
from facerecon_rt.providers import choice as providers
from facerecon_rt.providers.batches import BUCKETS, USUAL
from facerecon_rt.providers.choice import open_ort_session
from facerecon_rt.providers.engines import default_root
from facerecon_rt.providers.nvidia import GpuOptions, cuda_options, rtx_options, tensorrt_options

from tests.conftest import TINY_SIZE
from tests.runtime.conftest import Pretend

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
SHAPES = {"image": ((1, 64, 64, 3), (4, 64, 64, 3), (16, 64, 64, 3))}


def test_a_gpu_wheel_on_a_machine_without_a_gpu_is_seen_through(tiny_model: Path, pretend: Pretend) -> None:
    pretend(claims=["tensorrt", "cuda"])
    with pytest.raises(ProviderMissing, match=r"no cuda: .*could not start.*'facerecon-rt\[gpu\]'.*nvidia-smi"):
        FaceSession(tiny_model, provider="cuda")
    with FaceSession(tiny_model) as session:
        assert session.provider == "cpu"
        assert "no tensorrt" in session.choice
        assert "no cuda" in session.choice


def test_a_provider_that_fails_aloud_is_left_out_and_said_why(tiny_model: Path, pretend: Pretend) -> None:
    failure = RuntimeError(
        "/onnxruntime_src/core/cuda_call.cc:129 bool onnxruntime::CudaCall() CUDA failure 100:\n no device"
    )
    pretend(claims=["cuda"], raises=failure)
    assert "no cuda: it does not start (CUDA failure 100: no device)" in FaceSession(tiny_model).choice
    with pytest.raises(ProviderMissing, match=r"no cuda: it does not start \(CUDA failure 100: no device\)"):
        FaceSession(tiny_model, provider="cuda")


@pytest.mark.parametrize(("works", "best"), [(["cuda"], "cuda"), (["tensorrt", "cuda"], "tensorrt")])
def test_auto_takes_the_best_that_works(works: list[str], best: str, tiny_model: Path, pretend: Pretend) -> None:
    pretend(*works)
    with FaceSession(tiny_model) as session:
        assert session.provider == best
        assert session.choice.startswith(f"{best}, the fastest provider that works")


def test_a_gpu_answers_as_the_cpu_does_in_runs_of_a_few_sizes(tiny_model: Path, pretend: Pretend) -> None:
    count = 16 + 3
    images = np.random.default_rng(0).integers(0, 255, (count, TINY_SIZE, TINY_SIZE, 3)).astype(np.uint8)
    with FaceSession(tiny_model, provider="cpu") as session:
        expected = session.run(images)
    pretend("cuda")
    with FaceSession(tiny_model, provider="cuda") as session:
        for _ in range(2):  # the second run uses the buffers of the first
            found = session.run(images)
            for name in session.contract.outputs:
                np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-4)
        first = session.run(images[:1])
        kept = first.landmarks.copy()
        session.run(images[1:2])
        np.testing.assert_array_equal(first.landmarks, kept)  # the earlier result is not overwritten


def test_nodes_left_to_the_cpu_are_not_kept_silent(tiny_model: Path, pretend: Pretend) -> None:
    pretend("cuda", leaves=["Shape", "MatMul"])
    with pytest.raises(ProviderMissing, match=r"no cuda: it leaves \d+ nodes to the CPU \(\d+ MatMul\); take another"):
        FaceSession(tiny_model, provider="cuda")
    pretend("cuda", leaves=["Shape"])
    FaceSession(tiny_model, provider="cuda").close()


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_captured_graph_that_repeats_itself_is_found_out(provider: Any, tiny_model: Path, pretend: Pretend) -> None:
    pretend("tensorrt", "cuda", frozen=True)
    with pytest.raises(ProviderMissing, match="its CUDA graph of 1 crops repeats itself"):
        FaceSession(tiny_model, provider=provider, gpu=GpuOptions(cuda_graph=True))
    calls = pretend("tensorrt", "cuda")
    FaceSession(tiny_model, provider=provider, gpu=GpuOptions(cuda_graph=True)).close()
    options = dict(calls[0]["providers"][0][1])
    assert options["enable_cuda_graph" if provider == "cuda" else "trt_cuda_graph_enable"] == "1"


def test_threads_sleep_when_idle_and_no_fallback_is_silent(tiny_model: Path, pretend: Pretend) -> None:
    calls = pretend()
    FaceSession(tiny_model, threads=2, provider="cpu")
    options = calls[0]["options"]
    assert options.intra_op_num_threads == 2
    assert options.inter_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert calls[0]["enable_fallback"] == 0
    assert not options.enable_profiling


def test_an_engine_is_built_for_the_runs_that_there_are(tiny_model: Path, pretend: Pretend) -> None:
    calls = pretend("tensorrt", "cuda")
    with FaceSession(tiny_model, provider="tensorrt") as session:
        sha256 = session.sha256
    assert calls[0]["names"] == [TENSORRT, CUDA, CPU]
    options = calls[0]["providers"][0][1]
    picture = f"{TINY_SIZE}x{TINY_SIZE}x3"
    assert options["trt_profile_min_shapes"] == f"image:{BUCKETS[0]}x{picture}"
    assert options["trt_profile_opt_shapes"] == f"image:{USUAL}x{picture}"
    assert options["trt_profile_max_shapes"] == f"image:{BUCKETS[-1]}x{picture}"
    assert options["trt_engine_cache_prefix"] == sha256[:16]
    assert Path(options["trt_engine_cache_path"]).parent == default_root()


def test_a_file_of_a_fixed_batch_needs_no_profile(four_at_a_time: Path, pretend: Pretend) -> None:
    calls = pretend("tensorrt", "cuda")
    with FaceSession(four_at_a_time, provider="tensorrt") as session:
        images = np.zeros((5, TINY_SIZE, TINY_SIZE, 3), np.uint8)
        assert len(session.run(images).landmarks) == 5
    assert not [name for name in calls[0]["providers"][0][1] if "profile" in name]


def test_precision_lives_in_the_graph_and_is_only_allowed() -> None:
    for precision, half, int8 in (("fp32", "0", "0"), ("fp16", "1", "0"), ("int8", "0", "1")):
        options = tensorrt_options("ab" * 32, precision, SHAPES, GpuOptions(), Path("/e"))
        assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == (half, int8)
    assert cuda_options(GpuOptions())["use_tf32"] == "0"


def test_memory_is_limited_where_that_is_asked_for() -> None:
    limited, free = GpuOptions(memory_mb=512), GpuOptions()
    assert cuda_options(limited)["gpu_mem_limit"] == str(512 * 2**20)
    assert "gpu_mem_limit" not in cuda_options(free)
    assert tensorrt_options("ab" * 32, "fp32", {}, limited, None)["trt_max_workspace_size"] == str(512 * 2**20)
    assert rtx_options({}, limited, None)["nv_max_workspace_size"] == str(512 * 2**20)


def test_engines_that_cannot_be_kept_are_not_asked_for() -> None:
    options = tensorrt_options("ab" * 32, "fp32", SHAPES, GpuOptions(), None)
    assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "0"
    assert not [name for name in options if "path" in name]
    assert "nv_runtime_cache_path" not in rtx_options(SHAPES, GpuOptions(), None)


def test_tensorrt_for_rtx_is_a_tensorrt_too(
    tiny_model: Path, pretend: Pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend("cuda")
    monkeypatch.setattr(providers, "rtx_version", lambda: "RTX 1.0")
    monkeypatch.setattr(providers, "rtx_devices", lambda ort: [])
    with pytest.raises(ProviderMissing, match="no tensorrt: TensorRT for RTX sees no GPU; "):
        FaceSession(tiny_model, provider="tensorrt")
    assert not default_root().exists()
    monkeypatch.setattr(providers, "rtx_devices", lambda ort: ["a GPU"])
    given: list[dict[str, str]] = []

    def add_rtx(ort: Any, options: Any, rtx: dict[str, str]) -> str:
        given.append(rtx)
        raise RuntimeError("it is too old")

    monkeypatch.setattr(providers, "add_rtx", add_rtx)
    with pytest.raises(ProviderMissing, match=r"no tensorrt: it does not start \(it is too old\)"):
        FaceSession(tiny_model, provider="tensorrt")
    assert given[0]["nv_profile_max_shapes"] == f"image:16x{TINY_SIZE}x{TINY_SIZE}x3"


@pytest.mark.parametrize(("provider", "extra"), [("cuda", "gpu"), ("tensorrt", "tensorrt")])
def test_a_named_provider_that_is_not_built_in_names_the_extra(
    provider: Any, extra: str, tiny_model: Path, pretend: Pretend
) -> None:
    pretend()
    with pytest.raises(ProviderMissing, match=rf"no {provider}: .*built without it; .*'facerecon-rt\[{extra}\]'"):
        FaceSession(tiny_model, provider=provider)


def test_a_tensorrt_that_is_not_the_one_linked_is_said(tiny_model: Path, pretend: Pretend) -> None:
    pretend("cuda", claims=["tensorrt", "cuda"])
    with pytest.raises(ProviderMissing, match=r"no tensorrt: TensorRT .*is missing or does not load; .*\[tensorrt\]"):
        FaceSession(tiny_model, provider="tensorrt")
    assert not default_root().exists()  # nothing is built, and no message speaks of building


@pytest.mark.parametrize("module", [None, ModuleType("onnxruntime")], ids=["missing", "broken"])
def test_without_onnx_runtime_the_extra_is_named_once(
    module: ModuleType | None, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    with pytest.raises(ProviderMissing, match=r"pip install 'facerecon-rt\[cpu\]'") as refusal:
        FaceSession(tiny_model)
    assert str(refusal.value).count("[cpu]") == 1


@pytest.mark.parametrize(("arguments", "says"), [({"provider": "gpu"}, "'gpu'"), ({"threads": 0}, "threads is 0")])
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], says: str, tiny_model: Path) -> None:
    with pytest.raises(UsageError, match=says):
        FaceSession(tiny_model, **arguments)


def test_any_onnx_file_opens_for_other_networks(tiny_model: Path) -> None:
    session, provider, choice = open_ort_session(tiny_model, "cpu", 1)
    assert [value.name for value in session.get_inputs()] == ["image"]
    assert (provider, choice) == ("cpu", "cpu, as requested")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            "/src/cuda_call.cc:154 void CudaCall(int) [with bool THRW = true; T = void] /src/b.cc:146 void Call(int) "
            "[with U = void] CUDA failure 36: not supported by the driver ; GPU=-1 ; hostname=vm ; line=3",
            "CUDA failure 36: not supported by the driver",
        ),
        (
            "/src/info.cc:63 static Info From(const Options&) [ONNXRuntimeError] : 1 : FAIL : utils.h:182 Parse "
            'Unknown provider option: "x".\n\n',
            'utils.h:182 Parse Unknown provider option: "x".',
        ),
        ("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : no model", "no model"),
        ("plain words", "plain words"),
    ],
)
def test_of_onnx_runtimes_errors_what_is_wrong_is_said(error: str, says: str) -> None:
    assert providers.short_reason(RuntimeError(error)) == says


def test_engines_need_nothing_where_there_is_no_tensorrt() -> None:
    # Not every system has fcntl. Only systems that build engines need engines.py.
    program = "import sys, facerecon_rt; print('facerecon_rt.providers.engines' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "False"

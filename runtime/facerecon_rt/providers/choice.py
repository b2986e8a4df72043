"""A checked ONNX file and a provider -> an ONNX Runtime session that really runs there, or an error with the fix."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..errors import ModelRefused, ProviderMissing, UsageError
from ..interrupts import importing
from ..limits import MOST_THREADS
from .batches import Shapes
from .nvidia import (
    GpuOptions,
    add_rtx,
    cuda_options,
    engine_key,
    load_tensorrt,
    preload_cuda,
    rtx_devices,
    rtx_options,
    rtx_version,
    tensorrt_linked,
    tensorrt_options,
)
from .onnx_file import OnnxFile, read_onnx, refuse_unsafe
from .placement import left_on_the_cpu, placement, taking_notes

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

T = TypeVar("T")
Provider = Literal["auto", "tensorrt", "cuda", "cpu"]

ORT_NAMES = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
PROVIDERS: tuple[Provider, ...] = ("tensorrt", "cuda", "cpu")
"""Providers from fastest to slowest. `auto` tries them in this order."""
OLDEST = "1.23"
"""Oldest supported ONNX Runtime, as in pyproject.toml."""
BUILT_WITHOUT = "this ONNX Runtime is built without it"
DRIVER = "install NVIDIA's driver, and check that nvidia-smi runs"
_FIX = {
    "tensorrt": "pip uninstall -y onnxruntime && pip install 'facerecon-rt[tensorrt]', and check that nvidia-smi runs",
    "cuda": "pip uninstall -y onnxruntime && pip install 'facerecon-rt[gpu]', and check that nvidia-smi runs",
    "cpu": "pip install --force-reinstall 'facerecon-rt[cpu]'",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model file with everything that a provider needs to open it."""

    model: OnnxFile
    threads: int = 1
    precision: str = "fp32"
    profile: Mapping[str, Shapes] = field(default_factory=dict)
    """Smallest, usual and largest shape of each input with dynamic dimensions."""
    gpu: GpuOptions = field(default_factory=GpuOptions)


def open_ort_session(
    model: str | Path | OnnxFile, provider: Provider = "auto", threads: int = 1
) -> tuple[InferenceSession, str, str]:
    """Open a checked ONNX file. Returns ONNX Runtime's session, the provider it really uses, and a line with the reason
    for that choice.

    `auto` takes the first of tensorrt, cuda and cpu that works. A provider given by name works or raises
    ProviderMissing; ONNX Runtime itself would silently fall back to the CPU. Raises ModelRefused for a file that is
    missing, unsafe or that ONNX Runtime cannot load.
    """
    if not isinstance(model, OnnxFile):
        model = read_onnx(model)
    refuse_unsafe(model)
    wanted = Wanted(model, threads)
    return best_provider(provider, lambda name: open_on(wanted, name))


def best_provider(
    provider: Provider, open_it: Callable[[Provider], T], order: Sequence[Provider] = PROVIDERS
) -> tuple[T, Provider, str]:
    """Open with the given provider, or for `auto` with the first of `order` that works. Returns what `open_it` opened,
    the provider, and a line with the reason for that choice.

    Raises ProviderMissing where no provider works; `open_it` raises it for its provider.
    """
    if provider == "auto":
        import_onnxruntime()  # so that a broken ONNX Runtime is reported once, not per provider
        out: list[str] = []
        for name in order:
            try:
                with _quiet():
                    opened = open_it(name)
            except ProviderMissing as error:
                # The fix concerns only users who ask for this provider. Everybody needs the fix for the last provider,
                # the CPU.
                out.append(str(error) if name == order[-1] else str(error).partition(";")[0])
                continue
            if name == "cpu" and out and not may_use_gpu():
                return opened, name, f"{name} (this ONNX Runtime supports CPUs only)"
            return opened, name, f"{name}, the fastest provider that works" + (f" ({'; '.join(out)})" if out else "")
        raise ProviderMissing("; ".join(out))
    if provider not in ORT_NAMES:
        raise UsageError(f"unknown provider {provider!r}; choose from auto, {', '.join(ORT_NAMES)}")
    return open_it(provider), provider, f"{provider}, as requested"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence ONNX Runtime's log while a provider is tried. The caller reports the failure once."""
    ort = import_onnxruntime()
    ort.set_default_logger_severity(4)
    try:
        yield
    finally:
        ort.set_default_logger_severity(2)  # ONNX Runtime's own default


def offers_gpu() -> bool:
    """Return whether the installed ONNX Runtime has a provider for GPUs. Raises ProviderMissing without ONNX
    Runtime."""
    return not {ORT_NAMES["tensorrt"], ORT_NAMES["cuda"]}.isdisjoint(import_onnxruntime().get_available_providers())


def may_use_gpu() -> bool:
    """Return whether the installed ONNX Runtime has a provider for GPUs, or TensorRT for RTX is there as a plug-in.
    Raises ProviderMissing without ONNX Runtime."""
    return offers_gpu() or bool(rtx_version())


def import_onnxruntime() -> Any:
    """Import ONNX Runtime with its telemetry turned off. No other place imports it.

    Since 1.29 its Linux wheels send an identifier of the machine, hashes of the models and timings to Microsoft, unless
    the environment disables it before the import. ORT_DISABLE_TELEMETRY=0 allows it.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        with importing():
            import onnxruntime
    except ImportError as error:
        raise ProviderMissing(
            f"ONNX Runtime is not installed or cannot be loaded ({str(error).replace(';', ',')}); pip install "
            "'facerecon-rt[cpu]', or 'facerecon-rt[gpu]' on a machine with an NVIDIA GPU"
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise ProviderMissing(
            "ONNX Runtime is broken: its CPU and GPU wheels overwrote each other; "
            "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'facerecon-rt[cpu]' or 'facerecon-rt[gpu]'"
        )
    return onnxruntime


def open_on(wanted: Wanted, provider: Provider) -> InferenceSession:
    """Open a session that really runs on `provider`. Raises ProviderMissing, with the fix, where the provider does not
    work, and ModelRefused where the CPU cannot load the file."""
    if not 1 <= wanted.threads <= MOST_THREADS:
        raise UsageError(f"threads is {wanted.threads}; give 1 to {MOST_THREADS}")
    ort = import_onnxruntime()
    if provider == "tensorrt":
        return _open_tensorrt(ort, wanted)
    if not _built_in(ort, provider):
        raise missing(provider, BUILT_WITHOUT)
    if provider == "cuda":
        return _create(ort, wanted, provider, _cuda_and_cpu(ort, wanted))
    return _create(ort, wanted, provider, [ORT_NAMES["cpu"]])


def _built_in(ort: Any, provider: Provider) -> bool:
    return ORT_NAMES[provider] in ort.get_available_providers()


def _cuda_and_cpu(ort: Any, wanted: Wanted) -> list[Any]:
    """Return the CUDA provider, and the CPU for the shapes of tensors, which ONNX Runtime computes there on purpose."""
    preload_cuda(ort)
    return [(ORT_NAMES["cuda"], cuda_options(wanted.gpu)), ORT_NAMES["cpu"]]


def _open_tensorrt(ort: Any, wanted: Wanted) -> InferenceSession:
    """Open a session with ONNX Runtime's built-in TensorRT, or with the plug-in TensorRT for RTX where that is
    installed."""
    from .engines import heartbeat, open_with_engine, private_entry

    root, key = _engine(ort, wanted)
    model, gpu = wanted.model, wanted.gpu
    if not _built_in(ort, "tensorrt"):
        with heartbeat(f"TensorRT for RTX prepares {model.path.name}"):
            return _create(ort, wanted, "tensorrt", [], rtx_options(wanted.profile, gpu, private_entry(root, key)))
    others = _cuda_and_cpu(ort, wanted)

    def open_in(folder: Path | None) -> InferenceSession:
        options = tensorrt_options(model.sha256, wanted.precision, wanted.profile, gpu, folder)
        return _create(ort, wanted, "tensorrt", [(ORT_NAMES["tensorrt"], options), *others])

    return open_with_engine(root, key, model.path.name, open_in)


def engine_is_kept(wanted: Wanted) -> bool:
    """Return whether a kept engine lets TensorRT start at once. Raises ProviderMissing where there is no TensorRT."""
    from .engines import is_kept

    ort = import_onnxruntime()
    root, key = _engine(ort, wanted)
    # TensorRT for RTX needs only seconds, with or without a kept engine.
    return not _built_in(ort, "tensorrt") or is_kept(root, key)


def _engine(ort: Any, wanted: Wanted) -> tuple[Path, dict[str, str]]:
    """Return the folder of engines and the key of this engine. Raises ProviderMissing where there is no TensorRT to
    build it."""
    from .engines import default_root

    if _built_in(ort, "tensorrt"):
        linked = tensorrt_linked(ort)
        tensorrt = load_tensorrt(linked)
        if not tensorrt:
            raise missing("tensorrt", f"TensorRT {linked} (libnvinfer.so.{linked}) is missing or does not load")
    else:
        tensorrt = rtx_version()
        if not tensorrt:
            raise missing("tensorrt", BUILT_WITHOUT)
        try:
            devices = rtx_devices(ort)
        except failures(ort) as error:
            raise missing("tensorrt", f"TensorRT for RTX does not load ({short_reason(error)})", DRIVER) from error
        if not devices:
            raise missing("tensorrt", "TensorRT for RTX sees no GPU", DRIVER)
    key = engine_key(ort, wanted.model.sha256, wanted.precision, wanted.profile, wanted.gpu, tensorrt)
    return wanted.gpu.engines or default_root(), key


def _create(
    ort: Any, wanted: Wanted, provider: Provider, providers: list[Any], rtx: Mapping[str, str] | None = None
) -> InferenceSession:
    options = session_options(ort, wanted.threads)
    name = ORT_NAMES[provider]
    with ExitStack() as stack:
        if provider != "cpu":
            stack.enter_context(taking_notes(options))
        try:
            if rtx is not None:
                name = add_rtx(ort, options, rtx)
            session: InferenceSession = ort.InferenceSession(
                wanted.model.data,
                options,
                providers=providers or None,
                enable_fallback=0,  # the fallback prints to standard output and continues on the CPU
                read_config_from_model=0,  # a model must not choose its own session options
            )
            # The GPU wheel offers CUDA even on machines without it and then drops it. Only the session shows it.
            if name not in session.get_providers():
                raise missing(provider, "this ONNX Runtime includes it but could not start it")
            left = left_on_the_cpu(placement(ort, session, wanted.profile)) if provider != "cpu" else None
        except failures(ort) as error:
            reason = short_reason(error)
            if provider == "cpu":
                refusal = f"{wanted.model.path}: ONNX Runtime cannot load the model ({reason}); export it again"
                if "MatMulNBits" in str(error):  # supports 8 bits since 1.22
                    refusal = (
                        f"{wanted.model.path}: ONNX Runtime {ort.__version__} is too old for this model; update it "
                        f"(pip install -U 'onnxruntime>={OLDEST}'), or use the fp32 file"
                    )
                raise ModelRefused(refusal) from error
            raise missing(provider, f"it does not start ({reason})") from error
    if left:
        what = ", ".join(f"{count} {operator}" for operator, count in left.most_common(3))
        raise missing(provider, f"it leaves {left.total()} nodes to the CPU ({what})", "take another --precision")
    return session


def short_reason(error: Exception) -> str:
    """Return the essential part of ONNX Runtime's error on one line: without the places in its source before it, and
    without the call and host that follow in errors of CUDA."""
    text = " ".join(str(error).split())
    text = re.sub(r"^.*(?=CUDA failure)|^.*\[ONNXRuntimeError\] : \d+ : \w+ : |^\S+\.cc:\d+ .*?\) ", "", text)
    return text.partition(" ; ")[0][:300]


def failures(ort: Any) -> tuple[type[Exception], ...]:
    """Return the exceptions that ONNX Runtime raises when a session cannot be created or run."""
    state = ort.capi.onnxruntime_pybind11_state
    of_state = (
        "EPFail",
        "RuntimeException",
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NotImplemented",
    )
    return (RuntimeError, ValueError, OSError, *(getattr(state, name) for name in of_state))


def missing(provider: str, reason: str, fix: str = "") -> ProviderMissing:
    """Return the error that says why a provider is missing, and how to get it."""
    return ProviderMissing(f"no {provider}: {reason.replace(';', ',')}; {fix or _FIX[provider]}")


def session_options(ort: Any, threads: int) -> Any:
    """Return the session options that benchmarks/sessions.py measured to be best."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only; the warnings state which node runs where
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads would burn whole cores
    options.add_session_config_entry("session.load_model_format", "ONNX")  # only the checked format, never .ort
    return options

"""A checked ONNX file and a provider -> ONNX Runtime's session that really runs there, or an error with the fix."""

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
"""Best first: `auto` tries them in this order."""
OLDEST = "1.23"
"""ONNX Runtime that is supported, as pyproject.toml has it."""
BUILT_WITHOUT = "this ONNX Runtime is built without it"
DRIVER = "install NVIDIA's driver, and see that nvidia-smi runs"
_FIX = {
    "tensorrt": "pip uninstall -y onnxruntime && pip install 'facerecon-rt[tensorrt]', and see that nvidia-smi runs",
    "cuda": "pip uninstall -y onnxruntime && pip install 'facerecon-rt[gpu]', and see that nvidia-smi runs",
    "cpu": "pip install --force-reinstall 'facerecon-rt[cpu]'",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file, and what a provider has to know of it."""

    model: OnnxFile
    threads: int = 1
    precision: str = "fp32"
    profile: Mapping[str, Shapes] = field(default_factory=dict)
    """Input -> smallest, usual and largest shape, of inputs whose shape is not fixed."""
    gpu: GpuOptions = field(default_factory=GpuOptions)


def open_ort_session(
    model: str | Path | OnnxFile, provider: Provider = "auto", threads: int = 1
) -> tuple[InferenceSession, str, str]:
    """A checked ONNX file -> ONNX Runtime's session, the provider it really uses, and a line that says why that one.

    `auto` takes the first that works of tensorrt, cuda, cpu. A provider asked for by name works or raises
    ProviderMissing: ONNX Runtime itself would fall back to the CPU without a word. Raises ModelRefused for a file that
    is missing, unsafe or that ONNX Runtime does not load.
    """
    if not isinstance(model, OnnxFile):
        model = read_onnx(model)
    refuse_unsafe(model)
    wanted = Wanted(model, threads)
    return best_provider(provider, lambda name: open_on(wanted, name))


def best_provider(
    provider: Provider, open_it: Callable[[Provider], T], order: Sequence[Provider] = PROVIDERS
) -> tuple[T, Provider, str]:
    """What `open_it` opens on the provider asked for, or for `auto` on the first of `order` that works; that provider;
    and a line that says why that one. `open_it` raises ProviderMissing where it does not work; so does this."""
    if provider == "auto":
        import_onnxruntime()  # what it lacks as a whole is not to be said of each provider
        out: list[str] = []
        for name in order:
            try:
                with _quiet():
                    opened = open_it(name)
            except ProviderMissing as error:
                # The fix belongs to those who asked for this one. That of the last, the CPU, is needed by everybody.
                out.append(str(error) if name == order[-1] else str(error).partition(";")[0])
                continue
            if name == "cpu" and out and all(BUILT_WITHOUT in reason for reason in out):
                return opened, name, f"{name} (this ONNX Runtime is for CPUs alone)"
            return opened, name, f"{name}, the best that works" + (f" ({'; '.join(out)})" if out else "")
        raise ProviderMissing("; ".join(out))
    if provider not in ORT_NAMES:
        raise UsageError(f"unknown provider {provider!r}; choose from auto, {', '.join(ORT_NAMES)}")
    return open_it(provider), provider, f"{provider}, as asked for"


@contextmanager
def _quiet() -> Iterator[None]:
    """What does not work here is said once, by whoever caught it, and not by ONNX Runtime too."""
    ort = import_onnxruntime()
    ort.set_default_logger_severity(4)
    try:
        yield
    finally:
        ort.set_default_logger_severity(2)  # ONNX Runtime's own default


def import_onnxruntime() -> Any:
    """The only place that imports ONNX Runtime, so that it never reports to Microsoft.

    Since 1.29 its Linux wheels send an identifier of the machine, hashes of the models and timings unless the
    environment says otherwise before the import. ORT_DISABLE_TELEMETRY=0 allows it.
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
    """A session that really runs on `provider`. Raises ProviderMissing, with the fix, where there is none, and
    ModelRefused where the CPU cannot load the file."""
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
    """CUDA, and the CPU for the shapes of tensors, which it computes on purpose."""
    preload_cuda(ort)
    return [(ORT_NAMES["cuda"], cuda_options(wanted.gpu)), ORT_NAMES["cpu"]]


def _open_tensorrt(ort: Any, wanted: Wanted) -> InferenceSession:
    """TensorRT as ONNX Runtime has it built in, or TensorRT for RTX where that is plugged in instead."""
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
    """Would TensorRT start at once, its engine built before? Raises ProviderMissing where there is no TensorRT."""
    from .engines import is_kept

    ort = import_onnxruntime()
    root, key = _engine(ort, wanted)
    # TensorRT for RTX takes seconds, whether it has been here before or not.
    return not _built_in(ort, "tensorrt") or is_kept(root, key)


def _engine(ort: Any, wanted: Wanted) -> tuple[Path, dict[str, str]]:
    """The folder of engines, and the key of this one. Raises ProviderMissing where there is no TensorRT to build it."""
    from .engines import default_root

    if _built_in(ort, "tensorrt"):
        linked = tensorrt_linked(ort)
        tensorrt = load_tensorrt(linked)
        if not tensorrt:
            raise missing("tensorrt", f"TensorRT {linked} (libnvinfer.so.{linked}) is not there or does not load")
    else:
        tensorrt = rtx_version()
        if not tensorrt:
            raise missing("tensorrt", BUILT_WITHOUT)
        try:
            devices = rtx_devices(ort)
        except failures(ort) as error:
            raise missing("tensorrt", f"TensorRT for RTX does not load ({said_by(error)})", DRIVER) from error
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
                enable_fallback=0,  # it prints to the standard output and goes on with the CPU
                read_config_from_model=0,  # a model must not choose its own session options
            )
            # The GPU wheel offers CUDA on machines that have none and then leaves it out: only the session tells.
            if name not in session.get_providers():
                raise missing(provider, "this ONNX Runtime has it but could not start it")
            left = left_on_the_cpu(placement(ort, session, wanted.profile)) if provider != "cpu" else None
        except failures(ort) as error:
            reason = said_by(error)
            if provider == "cpu":
                refusal = f"{wanted.model.path}: ONNX Runtime cannot load it ({reason}); export it again"
                if "MatMulNBits" in str(error):  # in 8 bits since 1.22
                    refusal = (
                        f"{wanted.model.path}: ONNX Runtime {ort.__version__} is too old for it; update that "
                        f"(pip install -U 'onnxruntime>={OLDEST}'), or use the fp32 file"
                    )
                raise ModelRefused(refusal) from error
            raise missing(provider, f"it does not start ({reason})") from error
    if left:
        what = ", ".join(f"{count} {operator}" for operator, count in left.most_common(3))
        raise missing(provider, f"it leaves {left.total()} nodes to the CPU ({what})", "take another --precision")
    return session


def said_by(error: Exception) -> str:
    """ONNX Runtime's error on one line, from where it says what is wrong: before that stand places in its source, and
    after it, of CUDA's errors, the call and the host."""
    text = " ".join(str(error).split())
    text = re.sub(r"^.*(?=CUDA failure)|^.*\[ONNXRuntimeError\] : \d+ : \w+ : |^\S+\.cc:\d+ .*?\) ", "", text)
    return text.partition(" ; ")[0][:300]


def failures(ort: Any) -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises where a session cannot be made or does not run."""
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
    """The error that says why there is no such provider, and what mends it."""
    return ProviderMissing(f"no {provider}: {reason.replace(';', ',')}; {fix or _FIX[provider]}")


def session_options(ort: Any, threads: int) -> Any:
    """As measured by benchmarks/sessions.py."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; the warnings are about which node runs where
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads would burn whole cores
    options.add_session_config_entry("session.load_model_format", "ONNX")  # what was checked, and never its .ort format
    return options

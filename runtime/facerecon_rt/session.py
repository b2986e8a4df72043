"""Crops -> raw outputs: one ONNX file, checked before it is trusted."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from .contract import CONTRACT_KEY, ModelContract
from .errors import ModelRefused, ProviderMissing, UsageError
from .golden import failure, golden_crop
from .onnx_file import FLOAT, TYPE_NAMES, UINT8, OnnxFile, TensorInfo, read_onnx, refuse_unsafe
from .template import load_template
from .types import Floats

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

T = TypeVar("T")
Provider = Literal["auto", "tensorrt", "cuda", "cpu"]

_ORT_NAMES = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
PROVIDERS: tuple[Provider, ...] = ("tensorrt", "cuda", "cpu")
"""Best first: `auto` tries them in this order."""

_FIX = {
    "tensorrt": "pip uninstall -y onnxruntime, pip install 'facerecon-rt[tensorrt]', and see that nvidia-smi runs",
    "cuda": "pip uninstall -y onnxruntime, pip install 'facerecon-rt[gpu]', and see that nvidia-smi runs",
    "cpu": "pip install --force-reinstall 'facerecon-rt[cpu]'",
}


@dataclass(frozen=True, slots=True, eq=False)
class RawFaces:
    """What the network says about N crops, float32. Outputs that were not asked for have no rows."""

    shape: Floats
    """(N, V, 3) mm, head frame: the neutral face, identity only."""
    vertices: Floats
    """(N, V, 3) mm, head frame: `shape` plus expression."""
    expression: Floats
    """(N, 53) 0..1, blendshape weights in the contract's order."""
    crop_from_head: Floats
    """(N, 3, 4) scaled-orthographic camera: crop pixels and relative depth."""
    landmarks: Floats
    """(N, 68, 3) iBUG order, crop pixels and relative depth."""
    confidence: Floats
    """(N,) 0..1: is this a face, seen well enough."""
    disagreement: Floats | None = None
    """(N, 4) of files that hold several networks: see `contract.DISAGREEMENT`."""

    def rows(self, which: slice) -> RawFaces:
        """Of some of the crops alone."""
        arrays: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: array[which] for name, array in arrays.items() if array is not None})


class FaceSession:
    """A FaceModel file, loaded and ready. Owns ONNX Runtime's session; a context manager."""

    def __init__(
        self, path: str | Path, *, provider: Provider = "auto", threads: int = 1, self_test: bool = True
    ) -> None:
        """`self_test`: ask about the golden crop first, whose answer stands in the contract.

        Raises ModelRefused for a file that is no FaceModel of this release or answers wrongly, ProviderMissing where it
        cannot run.
        """
        model = read_onnx(path)
        refuse_unsafe(model)
        self.path = model.path
        self.sha256 = model.sha256
        """Of the file."""
        self.contract = read_contract(model)
        if self.contract.set_size:
            raise ModelRefused(
                f"{self.path}: averages {self.contract.set_size} photographs of one person inside the graph; the "
                "runtime averages by itself, so give it the model this was made of"
            )
        self._session: InferenceSession | None = None

        def open_tested(name: Provider) -> InferenceSession:
            session, _, _ = open_ort_session(model, name, threads)
            if self_test:
                self._test(session, name)
            return session

        self._session, self.provider, self.choice = best_provider(provider, open_tested)

    def run(self, images: NDArray[np.uint8], outputs: Sequence[str] | None = None) -> RawFaces:
        """(N, S, S, 3) uint8 BGR crops -> what the network says; `outputs` names those wanted, None means all."""
        if self._session is None:
            raise UsageError(f"{self.path}: this session is closed; open a new FaceSession")
        size = self.contract.input_size
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
            raise UsageError(
                f"crops are {images.dtype} {images.shape}, {self.path.name} takes uint8 (N, {size}, {size}, 3); "
                "cut them with align()"
            )
        names = list(self.contract.outputs if outputs is None else outputs)
        unknown = [name for name in names if name not in self.contract.outputs]
        if unknown:
            raise UsageError(f"unknown output {unknown[0]!r}; the outputs are {', '.join(self.contract.outputs)}")
        arrays = {name: np.empty((0, *dims), np.float32) for name, dims in output_dims(self.contract).items()}
        if len(images) and names:
            for name, array in zip(names, self._run(self._session, names, images), strict=True):
                # A file can declare one shape and compute another; ONNX Runtime only warns.
                if array.shape != (len(images), *arrays[name].shape[1:]):
                    raise ModelRefused(f"{self.path}: output {name} came out as {array.shape}; export the model again")
                if not np.isfinite(array).all():
                    # As half precision does where it overflows. Nothing after this could make sense of it.
                    raise ModelRefused(f"{self.path}: output {name} is not finite; use the fp32 model")
                arrays[name] = array
            if (np.linalg.det(arrays["crop_from_head"][..., :3]) <= 0).any():
                raise ModelRefused(f"{self.path}: output crop_from_head mirrors or flattens; export the model again")
        return RawFaces(**arrays)

    def _test(self, session: InferenceSession, provider: Provider) -> None:
        """Ask about the golden crop. Raises ModelRefused where the CPU gives a wrong answer, ProviderMissing where
        another provider does."""
        if not self.contract.golden:
            return
        names = ["landmarks", "vertices"]
        landmarks, vertices = self._run(session, names, golden_crop(self.contract.input_size)[None])
        failed = failure(self.contract, landmarks[0], vertices[0])
        if failed and provider == "cpu":
            raise ModelRefused(f"{self.path}: {failed}; export the model again")
        if failed:
            raise ProviderMissing(f"no {provider}: {failed}; update its driver and libraries, or use --provider cpu")

    def _run(self, session: InferenceSession, names: list[str], images: NDArray[np.uint8]) -> list[Floats]:
        """In one go; a file of a fixed batch gets its number of crops at a time, the last ones repeated."""
        batch = self.contract.batch
        if not batch:
            return list(session.run(names, {"image": images}))
        count = len(images)
        padded = np.concatenate([images, np.repeat(images[-1:], -count % batch, axis=0)])
        runs = [session.run(names, {"image": padded[i : i + batch]}) for i in range(0, len(padded), batch)]
        return [np.concatenate(parts)[:count] for parts in zip(*runs, strict=True)]

    def close(self) -> None:
        """Give the session's memory back. Closing twice is harmless."""
        self._session = None

    def __enter__(self) -> FaceSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def output_dims(contract: ModelContract) -> dict[str, tuple[int, ...]]:
    """Output name -> its dimensions after the first, in the contract's order."""
    mesh = (contract.vertex_count, 3)
    known: dict[str, tuple[int, ...]] = {
        "shape": mesh,
        "vertices": mesh,
        "expression": (len(contract.blendshapes),),
        "crop_from_head": (3, 4),
        "landmarks": (68, 3),
        "confidence": (),
        "disagreement": (4,),
        "spread_mm": mesh[:1],
        "weights": (),
    }
    return {name: known[name] for name in contract.outputs}


def read_contract(model: OnnxFile) -> ModelContract:
    """The file's contract, after the file was seen to keep it and to fit this package's face template."""
    text = model.metadata.get(CONTRACT_KEY)
    if text is None:
        raise ModelRefused(
            f"{model.path}: holds no {CONTRACT_KEY}, so it is no FaceModel; export one: facerecon-export"
        )
    try:
        contract = ModelContract.from_json(text)
    except ModelRefused as error:
        raise ModelRefused(f"{model.path}: {error}") from error
    size, batch = contract.input_size, contract.set_size or contract.batch
    firsts = dict.fromkeys(("shape", "spread_mm"), 1) if contract.set_size else {}
    _check_tensors(model, "input", model.inputs, {"image": (batch, size, size, 3)}, UINT8)
    dims = {name: (firsts.get(name, batch), *rest) for name, rest in output_dims(contract).items()}
    _check_tensors(model, "output", model.outputs, dims, FLOAT)
    template = load_template()
    if (contract.template_sha256, contract.vertex_count) != (template.sha256, template.vertex_count):
        raise ModelRefused(
            f"{model.path}: made for face template {contract.template_sha256!s:.12} ({contract.vertex_count} vertices) "
            f"where this release has {template.sha256[:12]} ({template.vertex_count}); "
            "export the model again with this release, or use the release it was made with"
        )
    return contract


def _check_tensors(
    model: OnnxFile, kind: str, tensors: Sequence[TensorInfo], dims: Mapping[str, tuple[int, ...]], elem_type: int
) -> None:
    """Exactly these names in this order, the dimensions as given; a first one of 0 is to be dynamic."""
    names = [tensor.name for tensor in tensors]
    if names != list(dims):
        raise ModelRefused(
            f"{model.path}: its {kind}s are {' '.join(', '.join(names).split()) or 'none'}, its contract says "
            f"{', '.join(dims)}; export the model again"
        )
    for tensor in tensors:
        wanted, found = dims[tensor.name], tensor.dims or ()
        dynamic = "" if wanted[0] else " with N dynamic"
        first = bool(found) and (found[0] == wanted[0] if wanted[0] else isinstance(found[0], str))
        if tensor.elem_type != elem_type or not first or found[1:] != wanted[1:]:
            raise ModelRefused(
                f"{model.path}: its {kind} {tensor.name} is {_described(tensor.elem_type, found)}, its contract says "
                f"{_described(elem_type, (wanted[0] or 'N', *wanted[1:]))}{dynamic}; export the model again"
            )


def _described(elem_type: int, dims: Sequence[int | str]) -> str:
    """As in "float32 (N, 68, 3)"."""
    return f"{TYPE_NAMES.get(elem_type, f'type {elem_type}')} ({', '.join(str(d) or '?' for d in dims)})"


def open_ort_session(
    model: str | Path | OnnxFile, provider: Provider = "auto", threads: int = 1
) -> tuple[InferenceSession, str, str]:
    """A checked ONNX file -> ONNX Runtime's session, the provider it really uses, and a line that says why that one.

    `auto` takes the first that works of tensorrt, cuda, cpu. A provider asked for by name works or raises
    ProviderMissing: ONNX Runtime itself would fall back to the CPU without a word. Raises ModelRefused for a file that
    is missing, unsafe or that ONNX Runtime does not load.
    """
    if threads < 1:
        raise UsageError(f"threads is {threads}; give 1 or more")
    if not isinstance(model, OnnxFile):
        model = read_onnx(model)
    checked = model
    refuse_unsafe(checked)
    return best_provider(provider, lambda name: _open_on(checked, name, threads))


def best_provider(provider: Provider, open_on: Callable[[Provider], T]) -> tuple[T, Provider, str]:
    """What `open_on` opens on the provider asked for, or for `auto` on the best that works; that provider; and a line
    that says why that one. `open_on` raises ProviderMissing where it does not work; so does this."""
    if provider == "auto":
        missing: list[str] = []
        for name in PROVIDERS:
            try:
                with _quiet():
                    opened = open_on(name)
            except ProviderMissing as error:
                # The fix belongs to those who asked for this one. That of the last, the CPU, is needed by everybody.
                missing.append(str(error) if name == PROVIDERS[-1] else str(error).partition(";")[0])
                continue
            return opened, name, f"{name}, the best that works" + (f" ({'; '.join(missing)})" if missing else "")
        raise ProviderMissing("; ".join(missing))
    if provider not in _ORT_NAMES:
        raise UsageError(f"unknown provider {provider!r}; choose from auto, {', '.join(_ORT_NAMES)}")
    return open_on(provider), provider, f"{provider}, as asked for"


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
        import onnxruntime
    except ImportError as error:
        raise ProviderMissing(
            f"ONNX Runtime is not installed or cannot be loaded ({error}): pip install 'facerecon-rt[cpu]', or "
            "'facerecon-rt[gpu]' on a machine with an NVIDIA GPU"
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise ProviderMissing(
            "ONNX Runtime is broken: its CPU and GPU wheels overwrote each other; "
            "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'facerecon-rt[cpu]' or 'facerecon-rt[gpu]'"
        )
    return onnxruntime


def _open_on(model: OnnxFile, provider: Provider, threads: int) -> InferenceSession:
    """A session that really runs on `provider`. Raises ProviderMissing, with the fix, where there is none, and
    ModelRefused where the CPU cannot load the file."""
    name = _ORT_NAMES[provider]
    ort = import_onnxruntime()
    if name not in ort.get_available_providers():
        raise _missing(provider, "this ONNX Runtime is built without it")
    state = ort.capi.onnxruntime_pybind11_state
    refusals = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented)
    try:
        session = ort.InferenceSession(
            model.data,
            _session_options(ort, threads),
            providers=_with_fallbacks(provider, model),
            enable_fallback=0,  # it prints to the standard output and goes on with the CPU
            read_config_from_model=0,  # a model must not choose its own session options
        )
    except (RuntimeError, ValueError, OSError, state.EPFail, state.RuntimeException, *refusals) as error:
        # On one line, without the place in ONNX Runtime's source that some messages begin with.
        reason = re.sub(r"^\S+\.cc:\d+ .*?\) ", "", " ".join(str(error).split()))[:200]
        if provider == "cpu":
            raise ModelRefused(f"{model.path}: ONNX Runtime cannot load it ({reason}); export it again") from error
        raise _missing(provider, f"it does not start ({reason})") from error
    # The GPU wheel offers CUDA on machines that have none and then leaves it out: only the session tells.
    if name not in session.get_providers():
        raise _missing(provider, "this ONNX Runtime has it but could not start it")
    opened: InferenceSession = session
    return opened


def _missing(provider: Provider, reason: str) -> ProviderMissing:
    return ProviderMissing(f"no {provider}: {reason.replace(';', ',')}; {_FIX[provider]}")


def _session_options(ort: Any, threads: int) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; the warnings are about which node runs where
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads would burn whole cores
    options.add_session_config_entry("session.load_model_format", "ONNX")  # what was checked, and never its .ort format
    return options


def _with_fallbacks(provider: str, model: OnnxFile) -> list[Any]:
    """ONNX Runtime's list of providers: the one wanted, then those that may take single operators it lacks."""
    cpu = _ORT_NAMES["cpu"]
    # Precision lives in the graph: an fp32 model is not to be computed in TF32.
    cuda = (_ORT_NAMES["cuda"], {"use_tf32": "0"})
    if provider == "cpu":
        return [cpu]
    if provider == "cuda":
        return [cuda, cpu]
    return [(_ORT_NAMES["tensorrt"], _tensorrt_options(model)), cuda, cpu]


def _tensorrt_options(model: OnnxFile) -> dict[str, str]:
    """Engines are cached by the model's hash: ONNX Runtime's own key ignores the weights."""
    cache = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "facerecon-rt" / "tensorrt" / model.sha256
    )
    cache.mkdir(parents=True, exist_ok=True)
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_engine_cache_prefix": model.sha256[:16],
    }

"""Crops -> raw outputs of one ONNX file, which is checked before it is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contract import CONTRACT_KEY, ModelContract
from ..errors import ModelRefused, UsageError
from ..pose import scale_of
from ..providers.batches import buckets_of, profile, runs_of
from ..providers.bound import BoundSession
from ..providers.choice import (
    ORT_NAMES,
    Provider,
    Wanted,
    best_provider,
    failures,
    import_onnxruntime,
    missing,
    open_on,
    short_reason,
)
from ..providers.nvidia import AS_USUAL, GpuOptions
from ..providers.onnx_file import FLOAT, TYPE_NAMES, UINT8, OnnxFile, TensorInfo, read_onnx, refuse_unsafe
from ..template import load_template
from ..types import Floats
from ..unpicklable import Unpicklable
from .golden import failure, golden_crop

Answer = Callable[[Sequence[str], NDArray[np.uint8]], "list[Floats]"]
"""Function that takes names of outputs and the crops of one run, and returns those outputs."""


DISAGREEMENTS = ("shape_mm", "vertices_mm", "landmarks_px", "rotation_deg")
"""Names of the mean distances of an ensemble's members to their average."""


@dataclass(frozen=True, slots=True, eq=False)
class RawFaces:
    """Output of a network for N crops, float32. Outputs that were not requested have no rows."""

    shape: Floats
    """(N, V, 3) mm, head frame: the neutral face, identity only."""
    vertices: Floats
    """(N, V, 3) mm, head frame: `shape` plus expression."""
    expression: Floats
    """(N, 53) blendshape weights, 0 to 1, in the contract's order."""
    crop_from_head: Floats
    """(N, 3, 4) scaled-orthographic camera: crop pixels and relative depth."""
    landmarks: Floats
    """(N, 68, 3) iBUG order, crop pixels and relative depth."""
    confidence: Floats
    """(N,) confidence that this is a clearly visible face, 0 to 1."""
    gaze: Floats | None = None
    """(N, 2, 3) unit vectors, head frame, of the left and the right eye; None for files of contract 1."""
    identity: Floats | None = None
    """(N, K) code from which the shape is decoded; None for files of contract 1 and of several networks."""
    identity_variance: Floats | None = None
    """(N, K) variance of the code's error."""
    disagreement: Floats | None = None
    """(N, 4) mean distances of several networks to their average, in the order of `DISAGREEMENTS`: millimetres, crop
    pixels and degrees; None for a single network."""

    def rows(self, which: slice) -> RawFaces:
        """Return the rows of some of the crops."""
        arrays: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: array[which] for name, array in arrays.items() if array is not None})


class FaceSession(Unpicklable):
    """An opened FaceModel file. A context manager that owns ONNX Runtime's session."""

    def __init__(
        self,
        path: str | Path,
        *,
        provider: Provider = "auto",
        threads: int = 1,
        self_test: bool = True,
        gpu: GpuOptions = AS_USUAL,
    ) -> None:
        """Open the file on a provider, and check its contract.

        `self_test`: run the golden crop first, and compare the answer with that in the contract. Raises ModelRefused
        for a file that is not a FaceModel of this release or answers wrongly, and ProviderMissing where it cannot run.
        """
        model = read_onnx(path)
        refuse_unsafe(model)
        self.path = model.path
        self.sha256 = model.sha256
        """SHA-256 of the file."""
        self.contract = read_contract(model)
        if self.contract.set_size:
            raise ModelRefused(
                f"{self.path}: averages {self.contract.set_size} photographs of one person inside the graph; the "
                "runtime averages by itself, so give it the model that this file was made from"
            )
        self._no_rows = no_rows(self.contract)
        self._answer: Answer | None = None
        wanted = wanted_of(model, self.contract, threads, gpu)

        def open_tested(name: Provider) -> Answer:
            answer = self._open(wanted, name)
            if self_test:
                self._test(answer, name, gpu)
            return answer

        self._answer, self.provider, self.choice = best_provider(provider, open_tested)

    def run(self, images: NDArray[np.uint8], outputs: Sequence[str] | None = None) -> RawFaces:
        """Run crops (N, S, S, 3) uint8 BGR. `outputs`: names of the requested outputs, None for all."""
        if self._answer is None:
            raise UsageError(f"{self.path}: this session is closed; open a new FaceSession")
        pad = self.provider != "cpu"
        return raw_faces(self._answer, self.contract, self._no_rows, images, outputs, str(self.path), pad=pad)

    def _open(self, wanted: Wanted, provider: Provider) -> Answer:
        session = open_on(wanted, provider)
        # Device buffers work with ONNX Runtime's built-in providers, not with plug-ins to its CPU wheel.
        ort = import_onnxruntime()
        if provider == "cpu" or session.get_providers()[0] not in ORT_NAMES.values():

            def answer(names: Sequence[str], images: NDArray[np.uint8]) -> list[Floats]:
                try:
                    return list(session.run(names, {"image": images}))
                except failures(ort) as error:
                    if provider != "cpu":
                        raise
                    raise ModelRefused(
                        f"{self.path}: the model does not run ({short_reason(error)}); export the model again"
                    ) from error

            return answer
        dims = output_dims(self.contract)
        return BoundSession(ort, session, "cuda", dims, cuda_graph=wanted.gpu.cuda_graph).run

    def _test(self, answer: Answer, provider: Provider, gpu: GpuOptions) -> None:
        """Test the session with the golden crop. Raises ModelRefused where the CPU gives a wrong answer or none, and
        ProviderMissing where another provider does."""
        failed = ""
        try:
            if self.contract.golden:
                failed = self._failure(answer, buckets_of(self.contract)[0])
            if provider != "cpu" and gpu.cuda_graph:
                failed = failed or self._graph_failure(answer)
        except failures(import_onnxruntime()) as error:
            failed = f"the model does not run ({short_reason(error)})"
        if failed and provider == "cpu":
            raise ModelRefused(f"{self.path}: {failed}; export the model again")
        if failed:
            raise missing(provider, failed, "update its driver and libraries, or use --provider cpu")

    def _failure(self, answer: Answer, size: int) -> str:
        """Return a description of the error in the answer to a batch of golden crops; "" for a correct answer."""
        crops = np.repeat(golden_crop(self.contract.input_size)[None], size, axis=0)
        landmarks, vertices = answer(["landmarks", "vertices"], crops)
        return failure(self.contract, landmarks[-1], vertices[-1])

    def _graph_failure(self, answer: Answer) -> str:
        """Return a description of a CUDA graph that repeats its first answer for ever; "" where all graphs work. To
        find out, each batch size gets another picture, and then the golden crop again."""
        blank = np.zeros_like(golden_crop(self.contract.input_size))[None]
        for size in buckets_of(self.contract):
            for _ in range(2):
                wrong = self._failure(answer, size) if self.contract.golden else ""
                (other,) = answer(["landmarks"], np.repeat(blank, size, axis=0))
                (golden,) = answer(["landmarks"], np.repeat(golden_crop(self.contract.input_size)[None], size, axis=0))
                if wrong or np.array_equal(other, golden):
                    return f"its CUDA graph of {size} crops repeats itself{f' ({wrong})' if wrong else ''}"
        return ""

    def close(self) -> None:
        """Release the session's memory. A second call does nothing."""
        self._answer = None

    def __enter__(self) -> FaceSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def raw_faces(
    answer: Answer,
    contract: ModelContract,
    empty: Mapping[str, Floats],
    images: NDArray[np.uint8],
    outputs: Sequence[str] | None,
    where: str,
    *,
    pad: bool,
) -> RawFaces:
    """Run crops (N, S, S, 3) uint8 BGR in batches of a few sizes, and check the answer.

    `empty`: values of outputs that are not requested, from `no_rows`. `outputs`: names of the requested outputs, None
    for all. `where`: name of the network in messages. `pad`: fill each batch up to its size. Raises UsageError for
    invalid crops or outputs, and ModelRefused for an answer that no FaceModel gives.
    """
    size = contract.input_size
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
        raise UsageError(
            f"crops are {images.dtype} {images.shape}, but {where} takes uint8 (N, {size}, {size}, 3); "
            "cut them with align()"
        )
    names = contract.outputs if outputs is None else outputs
    for name in outputs or ():
        if name not in contract.outputs:
            raise UsageError(f"unknown output {name!r}; the outputs are {', '.join(contract.outputs)}")
    arrays = dict(empty)
    if len(images) and names:
        for name, array in zip(names, _in_runs(answer, contract, names, images, pad), strict=True):
            # A file may declare one shape and compute another, about which ONNX Runtime only warns.
            if array.shape != (len(images), *arrays[name].shape[1:]):
                raise ModelRefused(f"{where}: output {name} has the wrong shape {array.shape}; export the model again")
            # A single product covers all values: it is not finite if one of them is not, or is as large as 1e19.
            if not math.isfinite(np.vdot(array, array)):
                # Half precision overflows this way. No later step could use the values.
                fix = "export the model again" if contract.precision == "fp32" else "use the fp32 model"
                raise ModelRefused(f"{where}: output {name} is not finite; {fix}")
            arrays[name] = array
        if any(scale_of(*camera) <= 0 for camera in arrays["crop_from_head"].tolist()):
            raise ModelRefused(f"{where}: output crop_from_head is mirrored or flat; export the model again")
    return RawFaces(**arrays)


def _in_runs(
    answer: Answer, contract: ModelContract, names: Sequence[str], images: NDArray[np.uint8], pad: bool
) -> list[Floats]:
    """Return the outputs for all crops. The last crop is repeated to fill a batch; without `pad` only where the file
    takes a fixed number."""
    if len(images) == 1 and not contract.batch:  # most frames have one face, which needs no batches
        return answer(names, images)
    parts = []
    for run in runs_of(len(images), buckets_of(contract)):
        crops = images[run.start : run.stop]
        if (pad or contract.batch) and len(crops) < run.size:
            crops = np.concatenate([crops, np.repeat(crops[-1:], run.size - len(crops), axis=0)])
        parts.append([array[: run.stop - run.start] for array in answer(names, crops)])
    return parts[0] if len(parts) == 1 else [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def wanted_of(model: OnnxFile, contract: ModelContract, threads: int, gpu: GpuOptions) -> Wanted:
    """Return a FaceModel file with everything that a provider needs to open it."""
    return Wanted(model, threads, contract.precision, profile(contract), gpu)


def no_rows(contract: ModelContract) -> dict[str, Floats]:
    """Return the outputs for no crops, arrays (0, ...) by name."""
    return {name: np.empty((0, *dims), np.float32) for name, dims in output_dims(contract).items()}


def output_dims(contract: ModelContract) -> dict[str, tuple[int, ...]]:
    """Return the dimensions of each output after the first, in the contract's order."""
    mesh = (contract.vertex_count, 3)
    known: dict[str, tuple[int, ...]] = {
        "shape": mesh,
        "vertices": mesh,
        "expression": (len(contract.blendshapes),),
        "crop_from_head": (3, 4),
        "landmarks": (68, 3),
        "confidence": (),
        "gaze": (2, 3),
        "identity": (contract.code_size,),
        "identity_variance": (contract.code_size,),
        "disagreement": (4,),
        "spread_mm": mesh[:1],
        "weights": (),
    }
    return {name: known[name] for name in contract.outputs}


def read_contract(model: OnnxFile) -> ModelContract:
    """Return the file's contract, after checking that the file matches it and this package's face template. Raises
    ModelRefused."""
    text = model.metadata.get(CONTRACT_KEY)
    if text is None:
        raise ModelRefused(
            f"{model.path}: holds no {CONTRACT_KEY}, so it is not a FaceModel; export one: facerecon-export"
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
            f"but this release has {template.sha256[:12]} ({template.vertex_count});  "
            "export the model again with this release, or use the release it was made with"
        )
    return contract


def _check_tensors(
    model: OnnxFile, kind: str, tensors: Sequence[TensorInfo], dims: Mapping[str, tuple[int, ...]], elem_type: int
) -> None:
    """Check that the tensors have exactly these names in this order, and these dimensions. A first dimension of 0
    stands for a dynamic one."""
    names = [tensor.name for tensor in tensors]
    if names != list(dims):
        raise ModelRefused(
            f"{model.path}: its {kind}s are {' '.join(', '.join(names).split()) or 'none'}, but its contract says "
            f"{', '.join(dims)}; export the model again"
        )
    for tensor in tensors:
        wanted, found = dims[tensor.name], tensor.dims or ()
        dynamic = "" if wanted[0] else " with N dynamic"
        first = bool(found) and (found[0] == wanted[0] if wanted[0] else isinstance(found[0], str))
        if tensor.elem_type != elem_type or not first or found[1:] != wanted[1:]:
            raise ModelRefused(
                f"{model.path}: its {kind} {tensor.name} is {_described(tensor.elem_type, found)}, but its contract "
                f"says {_described(elem_type, (wanted[0] or 'N', *wanted[1:]))}{dynamic}; export the model again"
            )


def _described(elem_type: int, dims: Sequence[int | str]) -> str:
    """Return a description such as "float32 (N, 68, 3)"."""
    return f"{TYPE_NAMES.get(elem_type, f'type {elem_type}')} ({', '.join(str(d) or '?' for d in dims)})"

"""Crops -> outputs, through buffers on the device that are allocated once and reused (ONNX Runtime's I/O binding)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..types import Floats

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


@dataclass(frozen=True, slots=True, eq=False)
class _Buffers:
    """The buffers for one batch size and one choice of outputs."""

    binding: Any
    image: Any
    outputs: tuple[Any, ...]
    options: Any


class BoundSession:
    """A session with buffers for each batch size that it has run. Only one thread at a time may use it."""

    def __init__(
        self, ort: Any, session: InferenceSession, device: str, dims: Mapping[str, tuple[int, ...]], *, cuda_graph: bool
    ) -> None:
        """Bind a session to a device. Buffers are allocated at the first run of each batch size.

        `device`: ONNX Runtime's name, "cuda" or "cpu". `dims`: dimensions of each output after the first. `cuda_graph`:
        whether to replay captured graphs.
        """
        self._ort = ort
        self._session = session
        self._device = device
        self._dims = dims
        self._cuda_graph = cuda_graph
        self._buffers: dict[tuple[int, tuple[str, ...]], _Buffers] = {}

    def run(self, names: Sequence[str], images: NDArray[np.uint8]) -> list[Floats]:
        """Run crops (N, S, S, 3) uint8 and return the named outputs, each as its own array."""
        # A captured graph writes all its outputs, to the addresses they had when it was captured.
        bound = tuple(self._dims) if self._cuda_graph else tuple(names)
        key = (len(images), bound)
        if key not in self._buffers:
            self._buffers[key] = self._make_buffers(images, bound)
        buffers = self._buffers[key]
        buffers.image.update_inplace(np.ascontiguousarray(images))
        self._session.run_with_iobinding(buffers.binding, buffers.options)
        values = dict(zip(bound, buffers.outputs, strict=True))
        # The values are copied, because the next run overwrites the buffers.
        return [np.array(values[name].numpy(), np.float32) for name in names]

    def _make_buffers(self, images: NDArray[np.uint8], names: tuple[str, ...]) -> _Buffers:
        binding = self._session.io_binding()
        image = self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(images), self._device, 0)
        binding.bind_ortvalue_input("image", image)
        outputs = tuple(self._output((len(images), *self._dims[name])) for name in names)
        for name, output in zip(names, outputs, strict=True):
            binding.bind_ortvalue_output(name, output)
        options = self._ort.RunOptions()
        if self._cuda_graph:
            options.add_run_config_entry("gpu_graph_id", str(len(images)))  # one graph for each batch size
        return _Buffers(binding, image, outputs, options)

    def _output(self, shape: tuple[int, ...]) -> Any:
        """Allocate an output buffer in page-locked host memory, which the device writes at full speed, where this ONNX
        Runtime offers it. Otherwise, and for captured graphs, use device memory."""
        make = self._ort.OrtValue.ortvalue_from_shape_and_type
        if self._device == "cuda" and not self._cuda_graph and "memory_info" in inspect.signature(make).parameters:
            state = self._ort.capi.onnxruntime_pybind11_state
            with suppress(RuntimeError, ValueError, TypeError):
                pinned = state.OrtMemoryInfo(
                    "CudaPinned", state.OrtAllocatorType.ORT_DEVICE_ALLOCATOR, 0, state.OrtMemType.CPU_OUTPUT
                )
                return make(shape, np.float32, memory_info=pinned)
        return make(shape, np.float32, self._device, 0)

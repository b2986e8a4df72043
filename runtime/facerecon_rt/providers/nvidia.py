"""Options of ONNX Runtime's NVIDIA providers, and everything that their engines depend on.

The option names follow ONNX Runtime's documentation of the CUDA and TensorRT providers and the header of TensorRT for
RTX. The CUDA provider of onnxruntime-gpu 1.31.1 accepted its options in a test.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..environment import board, gpus, installed_version, jetpack
from .batches import Shapes

RTX_MODULE = "onnxruntime_ep_nv_tensorrt_rtx"
"""Module of TensorRT for RTX, a provider that plugs into ONNX Runtime's CPU wheel."""


@dataclass(frozen=True, slots=True)
class GpuOptions:
    """Options for the use of a GPU."""

    memory_mb: int | None = None
    """Maximum GPU memory in MB for ONNX Runtime, and for the workspace of one TensorRT engine; None for no limit."""
    cuda_graph: bool = False
    """Whether to replay captured graphs instead of launching each kernel. Opening a file tests the graphs."""
    engines: Path | None = None
    """Folder that keeps TensorRT's engines; None for facerecon-rt/engines in the user's cache folder."""


AS_USUAL = GpuOptions()


# CUDA


def preload_cuda(ort: Any) -> None:
    """Load the CUDA and cuDNN libraries of the pip packages, which the dynamic loader does not find by itself."""
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()


def cuda_options(gpu: GpuOptions) -> dict[str, str]:
    """Return the options of ONNX Runtime's CUDA provider, named as in its documentation."""
    options = {
        "use_tf32": "0",  # the graph sets the precision, so an fp32 model must not run in TF32
        "cudnn_conv_algo_search": "HEURISTIC",  # trying all algorithms stalls the first frame of each batch size
        "arena_extend_strategy": "kSameAsRequested",  # the default doubles the arena
        "enable_cuda_graph": str(int(gpu.cuda_graph)),
    }
    if gpu.memory_mb is not None:
        options["gpu_mem_limit"] = str(gpu.memory_mb * 2**20)
    return options


# TensorRT


def tensorrt_options(
    sha256: str, precision: str, profile: Mapping[str, Shapes], gpu: GpuOptions, folder: Path | None
) -> dict[str, str]:
    """Return the options of ONNX Runtime's TensorRT provider. `folder`: where engines are kept; None to keep none.

    The graph sets the precision, but TensorRT 10 builds with half or int8 tensors only where an option allows it.
    """
    options = {
        "trt_fp16_enable": str(int(precision == "fp16")),
        "trt_int8_enable": str(int(precision == "int8")),
        "trt_cuda_graph_enable": str(int(gpu.cuda_graph)),
        "trt_engine_cache_enable": str(int(folder is not None)),
        "trt_timing_cache_enable": str(int(folder is not None)),
        **_profiles("trt", profile),
    }
    if gpu.memory_mb is not None:
        options["trt_max_workspace_size"] = str(gpu.memory_mb * 2**20)
    if folder is not None:
        options |= {
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_path": str(folder),
            # ONNX Runtime's own name for an engine ignores the weights.
            "trt_engine_cache_prefix": sha256[:16],
        }
    return options


def rtx_options(profile: Mapping[str, Shapes], gpu: GpuOptions, folder: Path | None) -> dict[str, str]:
    """Return the options of the plug-in provider TensorRT for RTX, named as in tensorrt_rtx_provider_options.h."""
    options = {"enable_cuda_graph": str(int(gpu.cuda_graph)), **_profiles("nv", profile)}
    if gpu.memory_mb is not None:
        options["nv_max_workspace_size"] = str(gpu.memory_mb * 2**20)
    if folder is not None:
        options["nv_runtime_cache_path"] = str(folder)
    return options


def _profiles(prefix: str, profile: Mapping[str, Shapes]) -> dict[str, str]:
    """Return the profile options, for example {"trt_profile_min_shapes": "image:1x128x128x3"}."""
    if not profile:
        return {}
    return {
        f"{prefix}_profile_{which}_shapes": ",".join(
            f"{name}:{'x'.join(map(str, shapes[index]))}" for name, shapes in profile.items()
        )
        for index, which in enumerate(("min", "opt", "max"))
    }


def add_rtx(ort: Any, options: Any, rtx: Mapping[str, str]) -> str:
    """Add the plug-in provider to session options. Returns its name."""
    first = rtx_devices(ort)[0]
    options.add_provider_for_devices([first], dict(rtx))
    return str(first.ep_name)


def rtx_devices(ort: Any) -> list[Any]:
    """Return the GPUs that the plug-in provider sees. Raises ONNX Runtime's errors where the plug-in does not load."""
    plugin = importlib.import_module(RTX_MODULE)
    name: str = plugin.get_ep_name()
    if all(device.ep_name != name for device in ort.get_ep_devices()):
        ort.register_execution_provider_library(name, plugin.get_library_path())
    return [device for device in ort.get_ep_devices() if device.ep_name == name]


def engine_key(
    ort: Any, sha256: str, precision: str, profile: Mapping[str, Shapes], gpu: GpuOptions, tensorrt: str
) -> dict[str, str]:
    """Return everything that an engine built by TensorRT version `tensorrt` depends on."""
    return {
        "model": sha256,
        "precision": precision,
        "profile": json.dumps(profile, sort_keys=True),
        "options": json.dumps([gpu.memory_mb, gpu.cuda_graph]),
        "tensorrt": tensorrt,
        "onnxruntime": ort.__version__,
        "gpu": "; ".join(", ".join(one.values()) for one in gpus(("name", "driver_version"))) or board(),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES", "all"),
        "jetpack": jetpack(),
    }


def rtx_version() -> str:
    """Return the version of the plug-in provider, for example "RTX 0.5.0"; "" where it is not installed."""
    if importlib.util.find_spec(RTX_MODULE) is None:
        return ""
    for cuda in ("cu13", "cu12"):
        if found := installed_version(f"{RTX_MODULE}-{cuda}"):
            return f"RTX {found}"
    return "RTX"


def tensorrt_linked(ort: Any) -> str:
    """Return the major version of TensorRT that this ONNX Runtime was linked with, for example "10"; "" if unknown."""
    library = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_tensorrt.so"
    try:
        found = re.search(rb"libnvinfer\.so\.(\d+)", library.read_bytes())
    except OSError:
        return ""
    return found.group(1).decode() if found else ""


def load_tensorrt(linked: str) -> str:
    """Load TensorRT of this major version, from the system or from pip. Returns its version, for example "10.13.3"; ""
    where it does not load."""
    soname = f"libnvinfer.so.{linked}" if linked else "libnvinfer.so"
    library = load_library(soname)
    if library is None:
        return ""
    for beside in ("libnvinfer_plugin", "libnvonnxparser"):
        load_library(soname.replace("libnvinfer", beside))
    number: int = library.getInferLibVersion()
    # This encoding of the version is used since TensorRT 10.
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def load_library(soname: str) -> ctypes.CDLL | None:
    """Load a shared library of the system or of the wheel tensorrt_libs. Returns None where neither loads."""
    wheel = importlib.util.find_spec("tensorrt_libs")
    folders = [Path(folder) for folder in (wheel.submodule_search_locations or ())] if wheel else []
    for name in (soname, *(str(folder / soname) for folder in folders)):
        with suppress(OSError):
            return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    return None

"""ONNX file -> an engine by NVIDIA's own parser and builder, if TensorRT-RTX is installed. No GPU is needed.

TensorRT-RTX comes with the extra `trtcheck`. It builds ahead of time for a GPU that need not be present, and its parser
is that of TensorRT.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facerecon_rt.interrupts import importing

BATCH = (1, 4, 16)
"""Smallest, usual and largest batch of the engine's profile."""
PICTURE = 256
"""Side of the pictures in pixels for which an engine is tried, if the file takes any size."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of TensorRT-RTX for a file."""

    version: str
    built: bool
    message: str
    """Its errors on one line, or the size of the engine."""

    def __str__(self) -> str:
        return f"TensorRT-RTX {self.version}: {'built an engine' if self.built else 'refused'} ({self.message})"


def installed() -> bool:
    """Return whether the extra `trtcheck` is installed."""
    return importlib.util.find_spec("tensorrt_rtx_bindings") is not None


def try_build(path: Path) -> Verdict:
    """Parse a file and build its engine for compute capability 8.6, without a GPU.

    8.6 is Ampere; Jetson Orin has 8.7.
    """
    with importing():
        import tensorrt_rtx_bindings as trt

    messages: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                messages.append(" ".join(message.split()))

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(path.read_bytes()):
        errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        return Verdict(trt.__version__, False, "; ".join(errors or messages)[:500])
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    image = network.get_input(0)
    dims = tuple(image.shape)
    if -1 in dims:
        profile = builder.create_optimization_profile()
        shapes = [(batch, *(PICTURE if d == -1 else d for d in dims[1:])) for batch in BATCH]
        profile.set_shape(image.name, *shapes)
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        return Verdict(trt.__version__, False, "; ".join(messages)[:500] or "no engine and no error message")
    return Verdict(trt.__version__, True, f"{engine.nbytes / 1e6:.1f} MB")


def build_commands(path: Path, size: int | None, batch: int) -> list[str]:
    """Return command lines that build an engine of the file on the device, for each major version of TensorRT.

    `size` is the side of the pictures in pixels, or None for a file that takes any size. No flag asks for a precision,
    because the precision is part of the graph and TensorRT 11 has no such flag. TensorRT 10 needs a flag to keep the
    graph's types.
    """
    side = size or PICTURE
    shapes = (
        ""
        if batch
        else "".join(
            f" --{name}Shapes=image:{count}x{side}x{side}x3"
            for name, count in zip(("min", "opt", "max"), BATCH, strict=True)
        )
    )
    engine = path.with_suffix(".engine").name
    return [
        f"TensorRT 10: trtexec --onnx={path.name} --stronglyTyped{shapes} --saveEngine={engine}",
        f"TensorRT 11: trtexec --onnx={path.name}{shapes} --saveEngine={engine}",
        # The runtime runs detectors on the CPU.
        *([f"ONNX Runtime: facerecon-rt build --model {path.name}"] if size else []),
    ]

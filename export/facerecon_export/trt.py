"""ONNX file -> an engine by NVIDIA's own parser and builder, where TensorRT-RTX is installed; no GPU is needed.

The extra `trtcheck`. TensorRT-RTX builds ahead of time for a GPU that is not there; its parser is that of TensorRT.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facerecon_rt.interrupts import importing

BATCH = (1, 4, 16)
"""Least, usual and largest batch of the engine's profile."""
PICTURE = 256
"""Side of the pictures an engine is tried for, where the file takes any."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What TensorRT-RTX made of a file."""

    version: str
    built: bool
    said: str
    """Its errors, on one line; or the engine's size."""

    def __str__(self) -> str:
        return f"TensorRT-RTX {self.version}: {'built an engine' if self.built else 'refused'} ({self.said})"


def installed() -> bool:
    """Is the extra there?"""
    return importlib.util.find_spec("tensorrt_rtx_bindings") is not None


def try_build(path: Path) -> Verdict:
    """Parse and build, for compute capability 8.6 (Ampere; Jetson Orin's is 8.7), without a GPU."""
    with importing():
        import tensorrt_rtx_bindings as trt

    said: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                said.append(" ".join(message.split()))

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(path.read_bytes()):
        errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        return Verdict(trt.__version__, False, "; ".join(errors or said)[:500])
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
        return Verdict(trt.__version__, False, "; ".join(said)[:500] or "no engine, and no word why")
    return Verdict(trt.__version__, True, f"{engine.nbytes / 1e6:.1f} MB")


def build_commands(path: Path, size: int | None, batch: int) -> list[str]:
    """Command lines that build an engine of the file on the device, per TensorRT major.

    `size`: side of its pictures; None for a file that takes any. Precision is in the graph: no flag asks for it, and
    TensorRT 11 has none. TensorRT 10 needs to be told that types are to be kept.
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
        f"ONNX Runtime: facerecon-rt --model {path.name} --provider tensorrt --input photograph.jpg",
    ]

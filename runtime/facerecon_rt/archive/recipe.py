"""What decides the rows of an archive, and what only decides where and how fast they are made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..faces.reconstruct import DETECTOR_NAME, MIN_CONFIDENCE
from ..faces.shapes import Average
from ..providers.choice import Provider
from ..providers.nvidia import AS_USUAL, GpuOptions
from ..providers.onnx_file import read_onnx


@dataclass(frozen=True, slots=True)
class Recipe:
    """Two archives of the same inputs and recipe hold the same rows."""

    models: tuple[str, ...]
    """Files; every node must see them under these names. Several make an ensemble."""
    detector: str | None = None
    precision: str | None = None
    mirror: bool = True
    detector_size: int | None = None
    detect_every: int = 10
    min_confidence: float = MIN_CONFIDENCE
    average: Average = "robust"
    most_bytes: int = 64 * 10**6
    """A photograph's file of more is an error row."""
    most_pixels: int = 10**8
    """Likewise a photograph of more, which is not decoded."""

    def identity(self) -> dict[str, Any]:
        """The recipe as JSON holds it, files by their SHA-256. Raises ModelRefused where one cannot be read."""
        return {
            **asdict(self),
            "models": [read_onnx(model).sha256 for model in self.models],
            "detector": read_onnx(self.detector or Path(self.models[0]).with_name(DETECTOR_NAME)).sha256,
            "facerecon-rt": version("facerecon-rt"),
        }


@dataclass(frozen=True, slots=True)
class Workers:
    """Where rows are made: nothing here changes them beyond a provider's rounding."""

    least: int = 1
    """Actors that the pool keeps."""
    most: int | None = None
    """Actors that it grows to; None for as many as there is room for."""
    cpus: float = 1.0
    """Of an actor."""
    gpus: float = 0.0
    """Of an actor: 0.25 puts four on one."""
    provider: Provider = "auto"
    threads: int = 1
    """Of the network on the CPU."""
    gpu: GpuOptions = AS_USUAL

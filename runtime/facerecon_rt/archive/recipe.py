"""Options that decide the rows of an archive, and options that decide only where and how fast they are computed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..faces.pipeline import DETECT_EVERY
from ..faces.reconstruct import DETECTOR_NAME, MIN_CONFIDENCE
from ..faces.shapes import Average
from ..networks.basis import basis_path
from ..networks.precision import files_of_precision
from ..networks.views import VIEWS
from ..providers.choice import Provider
from ..providers.nvidia import AS_USUAL, GpuOptions
from ..providers.onnx_file import read_onnx

MOST_ACTORS = 10**5


@dataclass(frozen=True, slots=True)
class Recipe:
    """Options that decide the rows: two archives of the same inputs and recipe hold the same rows."""

    models: tuple[str, ...]
    """Model files, which every node must see under these names. Several files make an ensemble."""
    detector: str | None = None
    precision: str | None = None
    mirror: bool = True
    detector_size: int | None = None
    detect_every: int = DETECT_EVERY
    min_confidence: float = MIN_CONFIDENCE
    average: Average | None = None
    """None for "precision" where the model allows it, else "robust"."""
    most_bytes: int = 64 * 10**6
    """Maximum bytes of a photograph's file; a larger one becomes an error row."""
    most_pixels: int = 10**8
    """Maximum pixels of a photograph; a larger one is not decoded and becomes an error row."""

    def identity(self) -> dict[str, Any]:
        """Return the recipe ready for JSON, with files as their SHA-256. Raises ModelRefused where a file cannot be
        read, and UsageError where no file has the precision."""
        return {
            **asdict(self),
            # Averages over other crops are other rows.
            "views": [list(view) for view in VIEWS] if self.mirror else [],
            "models": [sha256 for model in self.models for sha256 in self._files_of(model)],
            # Where it is missing, photographs of a person are averaged otherwise.
            "basis": basis_path(Path(self.models[0])).is_file(),
            "detector": read_onnx(self.detector or Path(self.models[0]).with_name(DETECTOR_NAME)).sha256,
            "facerecon-rt": version("facerecon-rt"),
        }

    def _files_of(self, model: str) -> list[str]:
        """Return the SHA-256 of the files that may stand for a model: several in int8, by the provider of a node."""
        if self.precision is None:
            return [read_onnx(model).sha256]
        return sorted({read_onnx(file).sha256 for file in files_of_precision(model, self.precision)})


@dataclass(frozen=True, slots=True)
class Workers:
    """Options for where rows are computed. They do not change the rows beyond a provider's rounding."""

    least: int = 1
    """Minimum number of actors in the pool."""
    most: int | None = None
    """Maximum number of actors; None for as many as there is room for."""
    cpus: float = 1.0
    """Processors per actor."""
    gpus: float = 0.0
    """GPUs per actor: 0.25 puts four actors on a GPU."""
    provider: Provider = "auto"
    threads: int = 1
    """CPU threads of the network."""
    gpu: GpuOptions = AS_USUAL

"""What is exported: a FaceModel or a face detector, seen alike by the steps that make files of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnx
from facerecon_rt.contract import PRECISIONS

from .fp16 import Feeds
from .graph import Parts
from .to_onnx import OPSET
from .verify import Row

HELD_OUT_EACH = 5
"""Every fifth calibration picture is kept aside to choose a recipe by."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What `facerecon-export` takes."""

    precisions: tuple[str, ...] = PRECISIONS
    opset: int = OPSET
    batch: int = 0
    """Crops the files take at a time; 0 for any number."""
    size: int | None = None
    """Side of the crops; None for the one the weights were trained with."""
    crops: Path | None = None
    """Photographs to verify with; None for $FACERECON_DATA/faces/lfpw-test, or made-up pictures."""
    calibration: Path | None = None
    """Photographs to calibrate int8 with; None for $FACERECON_DATA/faces/helen-train."""
    budget_s: float = 90.0
    """How long to try recipes for each of the two int8 files."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Real pictures to quantise with, and others to choose by."""

    feeds: Feeds
    score: Callable[[Path], float]
    """How far a file is from PyTorch on pictures that are not among the feeds; 1 is all that is allowed."""
    source: str
    """In words."""


class Subject(Protocol):
    """Weights that were read, and everything that depends on what they are of."""

    @property
    def weights_sha256(self) -> str:
        """Of the .safetensors file."""

    @property
    def pictures(self) -> str:
        """What is verified on, in words."""

    def trace(self, path: Path) -> None:
        """The network as an fp32 ONNX file on uint8 pictures, simplified and checked, without a contract."""

    def stamp(self, path: Path, precision: str, target: str) -> None:
        """Write the contract into a file."""

    def parts(self, model: onnx.ModelProto) -> Parts:
        """Which nodes of the traced file do what."""

    def feeds(self) -> Feeds:
        """Pictures as the file takes them, to look at activations with. Raises UsageError where they are not real."""

    def calibration(self) -> Calibration:
        """Raises UsageError where there are too few real pictures."""

    def write_companions(self, folder: Path, stem: str) -> list[str]:
        """Write what belongs beside the files of every precision -> the names of it."""

    def verify(self, path: Path, precision: str) -> list[Row]:
        """A file against PyTorch."""


def score_of(rows: Sequence[Row]) -> float:
    """The row that uses up most of what it is allowed, as a share of that."""
    return max(row.decisive / row.allowed for row in rows)

"""The subject of an export, a FaceModel or a face detector, behind one interface."""

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
"""Interval of calibration pictures that are set aside to choose a recipe by: every fifth."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options of `facerecon-export`."""

    precisions: tuple[str, ...] = PRECISIONS
    opset: int = OPSET
    batch: int = 0
    """Batch size of the files; 0 for any number of crops."""
    size: int | None = None
    """Side of the crops in pixels; None for the size of the training."""
    crops: Path | None = None
    """Folder of photographs for verification; None for $FACERECON_DATA/faces/lfpw-test, or artificial pictures."""
    calibration: Path | None = None
    """Folder of photographs for int8 calibration; None for $FACERECON_DATA/faces/helen-train."""
    budget_s: float = 90.0
    """Time in seconds to try recipes, for each of the two int8 files."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Real pictures to quantise with, and a score on other pictures to choose a recipe by."""

    feeds: Feeds
    score: Callable[[Path], float]
    """Function from a file to its error on pictures that are not among the feeds; 1 is the tolerance."""
    source: str
    """Description of the pictures, for messages."""


class Subject(Protocol):
    """Weights that were read, and the steps of an export that depend on their kind."""

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the .safetensors file."""

    @property
    def pictures(self) -> str:
        """Description of the pictures that files are verified on."""

    def trace(self, path: Path) -> None:
        """Write the network as an fp32 ONNX file on uint8 pictures, simplified and checked, without a contract."""

    def stamp(self, path: Path, precision: str, target: str) -> None:
        """Write the contract into a file."""

    def parts(self, model: onnx.ModelProto) -> Parts:
        """Return the names of the traced file's nodes by part."""

    def feeds(self) -> Feeds:
        """Return pictures as inputs of the file, to measure activations with. Raises UsageError for artificial
        pictures."""

    def calibration(self) -> Calibration:
        """Return pictures to quantise with. Raises UsageError for too few real pictures."""

    def write_companions(self, folder: Path, stem: str) -> list[str]:
        """Write the files that belong beside the files of every precision, and return their names."""

    def check_pictures(self) -> None:
        """Raise UsageError if files of lower precisions cannot be judged by the pictures for verification."""

    def verify(self, path: Path, precision: str) -> list[Row]:
        """Compare a file with PyTorch and return the table's rows."""


def score_of(rows: Sequence[Row]) -> float:
    """Return the largest share of its tolerance that any row uses up."""
    return max(row.decisive / row.allowed for row in rows)

"""What is exported: a FaceModel or a face detector, seen alike by the steps that make files of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnx

from .fp16 import Feeds
from .graph import Parts
from .verify import Row


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

    def verify(self, path: Path, precision: str) -> list[Row]:
        """A file against PyTorch."""


def score_of(rows: Sequence[Row]) -> float:
    """The row that uses up most of what it is allowed, as a share of that."""
    return max(row.decisive / row.allowed for row in rows)

"""Record of one exported file and all findings about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from . import trt
from .int8 import Trial
from .lint import Finding
from .verify import Row


@dataclass(slots=True)
class Exported:
    """An exported file with the results of its verification, lint and trials."""

    path: Path
    """Path of the file; the path it would have if it did not pass."""
    precision: str
    target: str
    rows: list[Row]
    bytes: int
    sha256: str
    findings: list[Finding]
    """Findings of the lint for TensorRT."""
    verdict: trt.Verdict | None
    commands: list[str]
    """Commands that build an engine of the file."""
    written: bool = False
    """Whether the file was moved to `path`."""
    float_layers: dict[str, str] = field(default_factory=dict)
    """Layers in a higher precision than the file's -> the reason."""
    trials: list[Trial] = field(default_factory=list)
    """Recipes that were tried for int8."""

    @property
    def passed(self) -> bool:
        """Whether every row is within the tolerance of the file's precision."""
        return all(row.passed for row in self.rows)

"""An exported file and everything that was found out about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from . import trt
from .int8 import Trial
from .lint import Finding
from .verify import Row


@dataclass(slots=True)
class Exported:
    """One file, and all that was found out about it."""

    path: Path
    """Where it lies, or would if it had passed."""
    precision: str
    target: str
    rows: list[Row]
    bytes: int
    sha256: str
    findings: list[Finding]
    """Of the lint."""
    verdict: trt.Verdict | None
    commands: list[str]
    """That build an engine."""
    float_layers: dict[str, str] = field(default_factory=dict)
    """Layers in more than the file's precision -> why."""
    trials: list[Trial] = field(default_factory=list)
    """Recipes tried for int8."""

    @property
    def passed(self) -> bool:
        """Within every tolerance of its precision."""
        return all(row.passed for row in self.rows)

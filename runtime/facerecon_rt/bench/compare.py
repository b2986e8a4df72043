"""Two reports -> which run is faster, by how much, and whether they are comparable."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError
from .report import Report

COMPARED = ("mean", "p50", "p90", "p95", "p99", "max")
DECIDE = ("p50", "p90")
"""Figures that decide the verdict. Between two runs of the same program, tails differ by chance."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Result of `compare`."""

    rows: list[tuple[str, float, float, float]]
    """Rows of (figure, before, after, after / before)."""
    notes: list[str]
    """Other differences between the two reports."""
    verdict: str
    """Verdict: "slower", "faster" or "alike"."""


def compare(before: Report, after: Report, tolerance: float = 0.1) -> Comparison:
    """Compare two reports of one scenario.

    The verdict is "slower" when p50 or p90 rose by more than `tolerance`, a share, and "faster" when both fell by more.
    Raises UsageError where the scenarios differ, or where a report is incomplete.
    """
    try:
        return _compare(before, after, tolerance)
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        # Both files declare that they are reports of this release, so they have been changed.
        raise UsageError(f"one of the reports is incomplete ({error!r:.80}); run `facerecon-rt bench` again") from error


def _compare(before: Report, after: Report, tolerance: float) -> Comparison:
    if before["scenario"] != after["scenario"]:
        raise UsageError(
            f"one report is of {before['scenario']}, the other of {after['scenario']}; compare equal scenarios"
        )
    rows = []
    batches = [[one["batch"] for one in report["batches"]] for report in (before, after)]
    if batches[0][:1] != batches[1][:1]:
        # The figures of a report belong to its first batch size.
        raise UsageError(
            f"the reports begin with batches of {batches[0][0]} and {batches[1][0]} crops; give both the same --batch"
        )
    for name in COMPARED:
        first, second = before["latency_ms"][name], after["latency_ms"][name]
        if first is not None and second is not None:
            rows.append(_row(name, first, second))
    for name in ("cpu_ms", "faces"):
        first, second = before["per_query"][name], after["per_query"][name]
        rows.append(_row(name.replace("_", " ") + " per query", first, second))
    for one in before["batches"]:
        for other in after["batches"]:
            if one["batch"] == other["batch"]:
                first, second = one["latency_ms"]["p50"], other["latency_ms"]["p50"]
                rows.append(_row(f"p50 of batch {one['batch']}", first, second))
    ratios = [ratio for name, _, _, ratio in rows if name in DECIDE]
    verdict = "alike"
    if max(ratios) > 1 + tolerance:
        verdict = "slower"
    elif max(ratios) < 1 - tolerance:
        verdict = "faster"
    return Comparison(rows, _notes(before, after), verdict)


def _row(name: str, before: float, after: float) -> tuple[str, float, float, float]:
    return name, float(before), float(after), float(after) / max(float(before), 1e-9)


def _notes(before: Report, after: Report) -> list[str]:
    notes = []
    for part in ("model", "input"):
        for name in sorted(before[part].keys() | after[part].keys()):
            first, second = before[part].get(name), after[part].get(name)
            if first != second:
                notes.append(f"{part} {name}: {_short(first)} -> {_short(second)}")
    first, second = before["environment"]["machine"], after["environment"]["machine"]
    for name in sorted(first.keys() | second.keys()):
        if first.get(name) != second.get(name):
            notes.append(f"machine {name}: {first.get(name, 'none')} -> {second.get(name, 'none')}")
    notes += [f"before: {warning}" for warning in before["warnings"]]
    notes += [f"after: {warning}" for warning in after["warnings"]]
    return notes


def _short(value: object) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return ", ".join(f"{one['name']} ({one['sha256'][:12]})" for one in value)
    return str(value)

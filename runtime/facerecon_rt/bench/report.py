"""Samples and facts -> report.json, report.md, report.html and two plots, in one folder.

Fields of `report.json` (schema `facerecon-bench/1`; fields are only added):

    schema, created (UTC), command, scenario
    model       files [{name, sha256, precision, backbone, terms}], provider, choice, threads, detector, detect_every,
                outputs
    input       name, size [w, h], frames (null: a camera), streams, fps (of a file used as a camera, or null)
    warm_up     load_ms (opening the model and the detector), queries, first_ms, rest_p50_ms
    latency_ms  count, mean, p50, p90, p95, p99 (null for fewer than 1000 samples), max, variation (standard deviation
                over mean)
    read_ms     the same of a camera's records, captured to read by another process at a Unix socket; null in other
                scenarios
    stages_ms   {stage: {mean, p50, p90}} per frame
    per_query   faces, cpu_ms (processor time of the whole process), queries_per_s, dropped_percent (camera only)
    batches     [{batch, latency_ms {..}, crops_per_s}] (offline only; latency_ms above is that of the first batch size)
    accuracy    fidelity {crops, vertices_mm, rotation_deg, landmarks_px} or null, fidelity_note,
                photographs {photographs, found_percent, nme_inner51, nme_68, ..} or null, folder
    environment machine {..}, before {..}, after {..}: load, clocks, temperatures, power where available
    warnings    [text]
    verdict     {budget_ms, figure, value_ms, passed} or null
    samples_ms  every latency, in order of measurement
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..interrupts import importing
from ..paths import is_folder, read_file
from ..sinks.outputs import MOST_REPORT_BYTES, write_whole

SCHEMA = "facerecon-bench/1"
FIGURES = ("count", "mean", "p50", "p90", "p95", "p99", "max", "variation")
JUDGED_BY = {"single-stream": "p90", "multi-stream": "p99", "camera": "p99"}
"""Figure of each scenario that the budget applies to: MLPerf's choice, and for a camera the limit of nearly all
frames."""
MEANS = {
    "single-stream": "time per frame; the next frame starts when the last is done",
    "multi-stream": "time per query of one frame of every stream",
    "camera": "age of results, captured to reconstructed; only the newest frame is used",
    "offline": "time per batch of crops in the network alone",
}

Report = dict[str, Any]
Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write all files into the existing `folder`. Returns their paths. Without matplotlib the plots are left out, and
    the report has a warning."""
    # The measurement is written first, since it cannot be repeated. It is written again with the warnings about plots.
    write_whole(folder / "report.json", json.dumps(report, indent=1).encode())
    plots: list[Path] = []
    try:
        with importing():
            from .plots import draw

        plots = draw(report["samples_ms"], report["latency_ms"], report["verdict"], folder)
    except ModuleNotFoundError as error:
        report["warnings"].append(f"no plots: {error.name} is not installed (pip install 'facerecon-rt[bench]')")
    except (ImportError, OSError) as error:
        report["warnings"].append(f"no plots: {error}")
    texts = {
        "report.json": json.dumps(report, indent=1) + "\n",
        "report.md": markdown(report, plots),
        "report.html": web_page(report, plots),
    }
    for name, text in texts.items():
        write_whole(folder / name, text.encode())
    return [*(folder / name for name in texts), *plots]


def is_report(value: object) -> bool:
    """Return whether a JSON value is a report of this or an earlier release."""
    return isinstance(value, dict) and str(value.get("schema")).startswith(SCHEMA.partition("/")[0])


def read_report(path: Path) -> Report:
    """Read a report.json, or that of a folder. Raises UsageError for anything else."""
    file = path / "report.json" if is_folder(path) else path
    try:
        report = json.loads(read_file(file, MOST_REPORT_BYTES))
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror}); give a report.json of `bench`") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file}: is not JSON; give a report.json of `bench`") from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise UsageError(f"{file}: is not a report of this release ({SCHEMA}); run `facerecon-rt bench` again")
    return report


def markdown(report: Report, plots: Sequence[Path] = ()) -> str:
    """Return the report for people, as Markdown."""
    lines = [f"# Latency: {report['scenario']}", "", f"`{report['command']}`", "", *_said(report), ""]
    for title, (head, rows) in tables(report).items():
        lines += [f"## {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
        lines.append("")
    for plot in plots:
        lines += [f"![{plot.stem.replace('_', ' ')}]({plot.name})", ""]
    return "\n".join(lines)


def web_page(report: Report, plots: Sequence[Path] = ()) -> str:
    """Return the report as one HTML file that contains the plots."""
    parts = [f"<h1>Latency: {html.escape(report['scenario'])}</h1><pre>{html.escape(report['command'])}</pre>"]
    parts += [f"<p>{html.escape(line)}</p>" for line in _said(report) if line]
    for title, (head, rows) in tables(report).items():
        cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
        parts.append(f"<h2>{html.escape(title)}</h2><table><tr>{cells}</tr>{body}</table>")
    for plot in plots:
        data = base64.b64encode(plot.read_bytes()).decode()
        parts.append(f'<img alt="{plot.stem}" src="data:image/png;base64,{data}">')
    style = "body{font:15px sans-serif;max-width:60em;margin:2em auto}td,th{padding:.2em .8em;text-align:left}"
    style += "table{border-collapse:collapse}tr:nth-child(even){background:#eee}img{max-width:100%}pre{overflow:auto}"
    head = f'<meta charset="utf-8"><title>facerecon-rt bench</title><style>{style}</style>'
    return f"<!doctype html>\n<html><head>{head}</head><body>\n" + "\n".join(parts) + "\n</body></html>\n"


def tables(report: Report) -> dict[str, Table]:
    """Return the head and rows of each table by title, all text."""
    model = report["model"]
    found: dict[str, Table] = {
        "Latency, ms": (
            ("", *FIGURES),
            [(report["scenario"], *(_number(name, report["latency_ms"][name]) for name in FIGURES))],
        )
    }
    if report.get("read_ms"):
        read = [("captured to read", *(_number(name, report["read_ms"][name]) for name in FIGURES))]
        found["Records at a Unix socket, ms"] = (("", *FIGURES), read)
    if report["batches"]:
        found["By batch, ms"] = (
            ("crops in a batch", *FIGURES, "crops per second"),
            [
                (
                    str(one["batch"]),
                    *(_number(name, one["latency_ms"][name]) for name in FIGURES),
                    f"{one['crops_per_s']:.0f}",
                )
                for one in report["batches"]
            ],
        )
    if report["stages_ms"]:
        stages = [(stage, *(f"{value:.3f}" for value in of.values())) for stage, of in report["stages_ms"].items()]
        found["Stages, ms per frame"] = (("", "mean", "p50", "p90"), stages)
    found["Per query"] = (("", ""), _pairs(report["per_query"], 2))
    found["Warm-up, apart from the figures"] = (("", ""), _pairs(report["warm_up"], 1))
    accuracy = report["accuracy"]
    rows = [*_pairs(accuracy["fidelity"] or {}, 4), ("difference", accuracy["fidelity_note"])]
    rows += _pairs(accuracy["photographs"] or {}, 2)
    if accuracy["folder"]:
        rows.append(("photographs of", accuracy["folder"]))
    found["Accuracy of the same files"] = (("", ""), rows)
    files = [(one["name"], f"{one['precision']}, {one['backbone']}, sha256 {one['sha256']}") for one in model["files"]]
    settings = [(name.replace("_", " "), str(value)) for name, value in model.items() if name != "files"]
    found["Model"] = (("", ""), [*files, *settings])
    found["Input"] = (("", ""), [(name, str(value)) for name, value in report["input"].items() if value])
    environment = report["environment"]
    found["Machine"] = (("", ""), list(environment["machine"].items()))
    before, after = environment["before"], environment["after"]
    names = list(dict.fromkeys((*before, *after)))
    found["Sensors"] = (("", "before", "after"), [(name, before.get(name, ""), after.get(name, "")) for name in names])
    return found


def _said(report: Report) -> list[str]:
    lines = [MEANS[report["scenario"]].capitalize() + "."]
    verdict = report["verdict"]
    if verdict is not None:
        word = "PASSED" if verdict["passed"] else "FAILED"
        lines.append(f"{word}: {verdict['figure']} {verdict['value_ms']:.2f} ms, budget {verdict['budget_ms']:g} ms.")
    return [*lines, *(f"WARNING: {warning}." for warning in report["warnings"])]


def _pairs(figures: Mapping[str, float], digits: int) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), f"{value:.{digits}f}") for name, value in figures.items()]


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "needs 1000 samples"
    return f"{value:.0f}" if name == "count" else f"{value:.3f}"


def verdict_of(scenario: str, latency: Mapping[str, float | None], budget_ms: float | None) -> Report | None:
    """Return whether the scenario's figure keeps the budget, as an entry of the report; None where no budget was
    given."""
    if budget_ms is None:
        return None
    figure = JUDGED_BY[scenario]
    value = latency[figure]
    if value is None:
        # The run ended early, and an unknown figure does not pass.
        return {"budget_ms": budget_ms, "figure": "max", "value_ms": latency["max"], "passed": False}
    return {"budget_ms": budget_ms, "figure": figure, "value_ms": value, "passed": value <= budget_ms}

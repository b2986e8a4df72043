"""Figures of pages are those of the results that they name, so that a new result reaches every page."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
LANDMARK_PAGES = ("README.md", "models/README.md", "benchmarks/docs/accuracy.md")


def rows_of(page: str) -> list[list[str]]:
    """Return the cells of every row of every table of a page."""
    lines = (ROOT / page).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def row_of(page: str, first: str) -> list[str]:
    """Return the cells behind the first one, which begins with `first`, in the only such row of a page."""
    (row,) = (cells[1:] for cells in rows_of(page) if cells[0].startswith(first))
    return row


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


@pytest.fixture(scope="module")
def accuracy() -> Any:
    return json.loads((RESULTS / "accuracy.json").read_text())


def test_accuracy_is_that_of_the_shipped_model(accuracy: Any) -> None:
    shipped = hashlib.sha256((ROOT / "models" / "face.onnx").read_bytes()).hexdigest()
    assert shipped.startswith(accuracy["model"])


@pytest.mark.parametrize("page", LANDMARK_PAGES)
@pytest.mark.parametrize(("figure", "points"), [("nme_inner51", "inner 51 points"), ("nme_68", ", 68 points")])
def test_errors_of_landmarks_are_those_of_the_results(accuracy: Any, page: str, figure: str, points: str) -> None:
    still, moving = accuracy["figures"]["Landmarks from detected boxes"].values()
    # Tables beside others have facerecon-rt first, the others have photographs and frames of videos.
    rows = [row for row in rows_of(page) if points in row[0] and "bbox" not in row[0] and numbers(row[1])]
    assert rows
    for cells in rows:
        assert cells[1] == f"{still[figure]:.2f} %", cells
        if len(cells) == 3:
            assert cells[2] == f"{moving[figure]:.2f} %", cells


@pytest.mark.parametrize("page", ["models/README.md", "benchmarks/docs/accuracy.md"])
def test_head_pose_and_identity_are_those_of_the_results(accuracy: Any, page: str) -> None:
    pose = accuracy["figures"]["Head pose (Pointing'04, within 60 degrees)"]
    (people,) = accuracy["figures"]["Image sets"].values()
    of_all, of_others = (f"{row['pan_deg']:.1f} / {row['tilt_deg']:.1f} degrees" for row in pose.values())
    assert row_of(page, "Pointing'04 within 60 degrees") == [of_all]
    assert [cells[1:] for cells in rows_of(page) if cells[0].endswith("people not trained on")] == [[of_others]]
    assert row_of(page, "shape of one person") == [f"{people['same_person_mm']:.2f} mm"]
    assert row_of(page, "shapes of two") == [f"{people['two_people_mm']:.2f} mm"]


def test_jitter_and_lag_are_those_of_the_results(accuracy: Any) -> None:
    smoothing = accuracy["figures"]["Smoothing (--smooth)"]
    for level, row in smoothing.items():
        jitter, lag, error = row_of("benchmarks/docs/accuracy.md", level)
        assert (jitter, error) == (f"{row['jitter_percent']:.2f}", f"{row['nme_inner51']:.2f} %")
        assert numbers(lag) == ([] if level == "off" else [round(row["lag_ms"] - smoothing["off"]["lag_ms"])])


def test_times_per_frame_are_those_of_the_results() -> None:
    tracking, detecting = (
        json.loads((RESULTS / f"{name}.json").read_text()) for name in ("latency", "latency_detecting")
    )
    for first, result in (("tracking, p50 / p90", tracking), ("detection in every frame", detecting)):
        expected = [[round(program["p50"], 1), round(program["p90"], 1)] for program in result.values()]
        assert [numbers(cell) for cell in row_of("benchmarks/docs/speed.md", first)] == expected
    ours, theirs, _ = row_of("README.md", "time per 720p frame")
    assert numbers(ours)[0] == round(tracking["facerecon-rt int8"]["p50"], 1)
    assert numbers(theirs) == [round(tracking["MediaPipe 0.10.14 FaceMesh"]["p50"], 1)]


@pytest.mark.parametrize("name", ["face.onnx", "face.fp16.onnx", "face.int8.onnx", "face.int8-cpu.onnx"])
def test_sizes_of_model_files_are_those_of_the_files(name: str) -> None:
    size = f"{(ROOT / 'models' / name).stat().st_size / 1e6:.1f}"
    assert row_of("models/README.md", f"`{name}`")[-1] == f"{size} MB"
    assert row_of("benchmarks/docs/speed.md", f"`{name}`")[0] == size


@pytest.fixture(scope="module")
def expression() -> Any:
    return json.loads((RESULTS / "expression.json").read_text())


OF_LABELS = {
    "gaze to the left / right": ("gazeLeft", "gazeRight"),
    "gaze up / down": ("gazeUp", "gazeDown"),
    "squint; brow up; brow down": ("squint", "browUp", "browDown"),
    "eyes wide; mouth": ("eyesWide", "mouthPressOrRoll", "frown", "noseSneer"),
}


def test_expressions_are_those_of_the_results(expression: Any) -> None:
    columns = list(expression["auc"].values())
    page = "benchmarks/docs/accuracy.md"
    means = row_of(page, "AUC, mean of 17 labels")[1:]
    assert [numbers(cell)[0] for cell in means] == [round(column["auc"]["mean"], 3) for column in columns]
    assert [column["auc"]["labels"] for column in columns] == [17, 17, 15]
    for first, labels in OF_LABELS.items():
        for cell, column in zip(row_of(page, first)[1:], columns, strict=True):
            rows = [column["labels"].get(label, {"present": 0}) for label in labels]
            # Fewer than six pictures with the expression have no figure.
            assert numbers(cell) == [round(row["auc"], 2) for row in rows if row["present"] >= 6], (first, cell)
    of_first = columns[0]["auc"]
    text = row_of("models/README.md", "expressions and gaze against their absence")[0]
    assert text == f"mean AUC of 17 labels {of_first['mean']:.3f}, the least {of_first['least']:.2f}"


def test_openings_and_irises_are_those_of_the_results(expression: Any) -> None:
    mesh, still = expression["figures"].values()
    text = " ".join((ROOT / "benchmarks" / "docs" / "accuracy.md").read_text().split())
    assert f"our lips are {mesh['lip_gap']:.3f} eye distances apart" in text
    assert f"our mouth opens {mesh['opening_gain']:.2f} times as far" in text
    irises = f"correlate by {mesh['iris_x_correlation']:.2f} (sideways) and {mesh['iris_y_correlation']:.2f} (height)"
    assert irises in text
    gaze = f"correlate by {mesh['yaw_correlation']:.2f} (yaw) and {mesh['pitch_correlation']:.2f} (pitch)"
    assert gaze in text
    takes = " ".join((ROOT / "runtime" / "docs" / "takes.md").read_text().split())
    assert f"{still['deviation']:.3f}" in takes


@pytest.mark.parametrize(("folder", "column"), [("clean", 1), (".", -1)])
def test_the_clean_card_has_the_figures_of_both_models(folder: str, column: int) -> None:
    measured = json.loads((RESULTS / folder / "accuracy.json").read_text())
    expressions = json.loads((RESULTS / folder / "expression.json").read_text())
    figures = measured["figures"]
    still, moving = figures["Landmarks from detected boxes"].values()
    of_labels, mesh = next(iter(expressions["auc"].values())), next(iter(expressions["figures"].values()))
    strangers = of_labels["auc_strangers"]
    jitter = figures["Jitter of still photographs under sensor noise"]["lfpw-test"]
    eyes = figures["Blink"]["photographs labelled by hand"]
    others = figures["Head pose (Pointing'04, within 60 degrees)"]["people not trained on"]
    rows = {
        "lfpw-test, inner 51": [f"{still['nme_inner51']:.2f}"],
        "the same as frames": [f"{moving['nme_inner51']:.2f}"],
        "lfpw-test, 68": [f"{still['nme_68']:.2f}"],
        "expressions and gaze": [f"{of_labels['auc']['mean']:.3f}", f"{of_labels['auc']['least']:.2f}"],
        "the same without": [f"{strangers['mean']:.3f}", f"{strangers['least']:.2f}"],
        "blinks among": [f"{of_labels['labels'][f'blink{side}']['auc']:.2f}" for side in ("Left", "Right")],
        "closed against open": [f"{eyes['auc']:.2f}"],
        "gap of lips": [f"{mesh['lip_gap']:.3f}", f"{mesh['opening_gain']:.2f}"],
        "places of irises": [f"{mesh[f'iris_{axis}_correlation']:.2f}" for axis in "xy"],
        "Pointing'04 within": [f"{others['pan_deg']:.1f}", f"{others['tilt_deg']:.1f}"],
        "jitter of stills": [f"{jitter['jitter_percent']:.2f}"],
        "same person or not": [f"{figures['Image sets']['identities']['auc_of_pairs']:.2f}"],
        "tracks of the crowd": [str(figures["Tracking"]["crowd_1080p.mp4"]["tracks"])],
    }
    for first, expected in rows.items():
        cell = ["", *row_of("models/face.clean.md", first)][column]
        assert re.findall(r"\d+(?:\.\d+)?", cell)[: len(expected)] == expected, first


def test_crossings_and_cuts_are_those_of_the_results() -> None:
    kinds = [cells for cells in rows_of("benchmarks/results/crossing.md") if cells[1].isdecimal()]
    cases, kept = (sum(int(cells[column]) for cells in kinds) for column in (1, 2))
    cuts = [cells for cells in rows_of("benchmarks/results/cuts.md") if len(cells) == 6 and cells[2].isdecimal()]
    alone = [cells for cells in cuts if cells[1] == "head"]
    whole = [cells for cells in cuts if cells[1] == "whole"]
    text = " ".join((ROOT / "runtime" / "docs" / "live.md").read_text().split())
    assert f"in {kept} of {cases} cases" in text
    assert f"in {sum(int(c[3]) for c in whole)} of {sum(int(c[2]) for c in whole)} cases" in text
    assert f"only {sum(int(c[3]) for c in alone)} of {sum(int(c[2]) for c in alone)} such cuts" in text
    accuracy = " ".join((ROOT / "benchmarks" / "docs" / "accuracy.md").read_text().split())
    assert f"of {cases} crossings and meetings of two heads, both kept their numbers in {kept}" in accuracy

"""Predictions of a model -> the pictures of a report: error curves, reliability, worst cases, meshes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import matplotlib

matplotlib.use("Agg")
import numpy as np
from facerecon_rt.types import Floats, Image
from matplotlib import pyplot
from matplotlib.figure import Figure

from .evaluate import PredictedPhotographs
from .prepare import draw_clay


def draw_error_curves(errors: Mapping[str, Floats], path: Path) -> None:
    """Draw cumulative error distributions: the share of photographs below each error."""
    figure, axis = pyplot.subplots(figsize=(6, 4))
    for name, values in errors.items():
        axis.plot(100 * np.sort(values), np.linspace(0, 100, len(values)), label=name)
    axis.set(xlim=(0, 10), ylim=(0, 100), xlabel="inner 51, inter-ocular NME, %", ylabel="photographs, %")
    axis.grid(alpha=0.3)
    axis.legend()
    _save(figure, path)


def draw_reliability(bins: list[dict[str, float]], path: Path) -> None:
    """Draw the error that the confidence stands for against the measured error, in bins of equal size."""
    figure, axis = pyplot.subplots(figsize=(4.5, 4))
    predicted, measured = ([100 * one[key] for one in bins] for key in ("predicted_error", "error"))
    axis.plot(predicted, measured, "o-")
    top = 1.1 * max(predicted + measured)
    axis.plot([0, top], [0, top], "k--", linewidth=0.8)
    axis.set(xlabel="error that the confidence stands for, %", ylabel="inner 51, inter-ocular NME, %")
    axis.grid(alpha=0.3)
    _save(figure, path)


def draw_calibration(rows: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draw the error that image sets expect of their shape against the measured error, in bins of equal size."""
    figure, axis = pyplot.subplots(figsize=(4.5, 4))
    expected, measured = ([row[key] for row in rows.values()] for key in ("expected_rmse_mm", "rmse_mm"))
    axis.plot(expected, measured, "o-")
    ends = [0.95 * min(expected + measured), 1.05 * max(expected + measured)]
    axis.plot(ends, ends, "k--", linewidth=0.8)
    axis.set(xlabel="expected error of the shape, mm", ylabel="error of the shape, mm")
    axis.grid(alpha=0.3)
    _save(figure, path)


def draw_yaw_bins(rows: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draw the errors of rotation and shape by the yaw of rendered heads."""
    figure, axis = pyplot.subplots(figsize=(6, 4))
    for key in ("rotation_deg", "rmse_mm"):
        axis.plot(list(rows), [row[key] for row in rows.values()], "o-", label=key)
    axis.set(xlabel="yaw, degrees", ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend()
    _save(figure, path)


def worst_sheet(seen: PredictedPhotographs, count: int = 24, size: int = 160) -> Image:
    """Return a picture of the crops with the largest errors, with the error in percent and the name.

    The truth is green, the prediction red.
    """
    cells = []
    inverse = [np.linalg.inv(np.vstack([m, [0, 0, 0, 1]])) for m in seen.matrices]
    for index in np.argsort(-seen.errors)[:count]:
        scale = size / len(seen.crops[index])
        cell = cv2.resize(seen.crops[index], (size, size), interpolation=cv2.INTER_LINEAR)
        back = inverse[index]
        truth = seen.truth[index] @ back[:2, :2].T + back[:2, 3]
        for points, colour in ((truth, (80, 220, 80)), (seen.output.landmarks[index, :, :2].numpy(), (60, 60, 240))):
            for x, y in (points + 0.5) * scale - 0.5:
                if np.isfinite(x):
                    cv2.circle(cell, (round(float(x)), round(float(y))), 1, colour, -1, cv2.LINE_AA)
        text = f"{100 * seen.errors[index]:.1f} {seen.paths[index].stem}"
        cv2.putText(cell, text, (3, size - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255, 255, 255), 1, cv2.LINE_AA)
        cells.append(cell)
    return _grid(cells, 8)


def mesh_sheet(seen: PredictedPhotographs, count: int = 40, size: int = 110) -> Image:
    """Return a picture of photographs and their neutral shapes: front, three-quarter, profile."""
    cells = []
    for index in np.linspace(0, len(seen.crops) - 1, min(count, len(seen.crops))).astype(int):
        shape = seen.output.shape[index].numpy()
        views = [draw_clay(shape, size, yaw=yaw) for yaw in (0.0, 35.0, 90.0)]
        cells.append(np.hstack([cv2.resize(seen.crops[index], (size, size)), *views]))
    return _grid(cells, 4)


def _grid(cells: list[Image], columns: int) -> Image:
    empty = np.full_like(cells[0], 255)
    cells = cells + [empty] * (-len(cells) % columns)
    return np.vstack([np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)])


def _save(figure: Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)

"""Weights and data -> report.md, report.json and pictures: all measurements of a model in one folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from facerecon_rt.align import align, square_from_box
from facerecon_rt.annotated import annotated_photographs, landmark_figures
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import UsageError
from facerecon_rt.faces.detect import Detector, open_detector
from facerecon_rt.pose import euler_from_camera
from facerecon_rt.sinks.outputs import make_folder, write_whole
from facerecon_rt.sources.files import read_image
from facerecon_rt.types import Floats
from numpy.typing import NDArray

from .augment import bad_square, crop_from_canvas
from .consistency import auc, can_be_paired, pair_figures, set_figures
from .ensemble import FaceModelEnsemble, FaceNetwork
from .evaluate import (
    PredictedPeople,
    PredictedPhotographs,
    blendshape_figures,
    evaluate_blinks,
    evaluate_landmarks,
    evaluate_pose,
    people_figures,
    predict,
    predict_people,
    predict_photographs,
    predict_twice,
    read_teacher,
    rotation_errors,
)
from .fused_sets import basis_of, calibration, fused_set_figures, fused_sets
from .losses import error_of_confidence
from .model import FaceModel
from .photographs import canvas_from_photograph
from .plots import draw_calibration, draw_error_curves, draw_reliability, draw_yaw_bins, mesh_sheet, worst_sheet
from .rendered.backgrounds import background_files, random_patch, read_backgrounds
from .rendered.head_pose import pointing_photographs

Rows = dict[str, dict[str, float]]
YAW_BINS = (0, 15, 30, 45, 60, 75, 90)
AT_REST = [i for i, name in enumerate(BLENDSHAPES) if not name.startswith("eye")]


def write_report(
    members: Sequence[FaceModel], data: Path, prepared: Path, detector: Path, out: Path
) -> dict[str, Rows]:
    """Measure one model or an ensemble on all data that exist, and write figures and pictures to `out`.

    Returns the figures by section, row and name. Raises UsageError if there are no data to measure on.
    """
    model = members[0] if len(members) == 1 else FaceModelEnsemble(members)
    make_folder(out)
    earlier = pictures_in(out)
    finder = open_detector(detector) if detector.is_file() else None
    if finder is None:
        print(f"there is no face detector at {detector}, so head poses and identities are left out; give --detector")
    seen = {
        folder.name: predict_photographs(model, annotated_photographs(folder))
        for folder in sorted((data / "faces").glob("*-test"))
    }
    report: dict[str, Rows] = photograph_sections(model, seen, data, out) if seen else {}
    if blinks := evaluate_blinks(model, data / "faces"):
        report["Blinks, photographs labelled by hand"] = {"all": blinks}
    packed = prepared / "people" / "held-out"
    if (packed / "labels.npz").is_file():
        report |= people_sections(model, packed, out)
        report["Plausible faces"] = {
            name: {"coefficient_spread": coefficient_spread(one, prepared)} for name, one in seen.items()
        }
    else:
        print(f"{prepared} holds no rendered people, so shapes, angles and blendshapes are left out; give --prepared")
    if (data / "head_pose").is_dir() and finder:
        report["Head pose (Pointing'04, within 60 degrees, detected box)"] = evaluate_pose(
            model, data / "head_pose", finder
        )
        report["Expression at rest (Pointing'04, within 15 degrees)"] = {"all": at_rest(model, data, finder)}
    report |= people_apart(model, seen, data, finder)
    if len(members) > 1 and report:
        report["Ensembles"] = ensemble_rows(members, data, prepared)
    if not report:
        raise UsageError(
            f"nothing to evaluate on: {data} has no faces/*-test and {prepared} has no held-out people; add one of them"
        )
    drawn = [path.name for path, when in pictures_in(out).items() if earlier.get(path) != when]
    write_whole(out / "report.json", (json.dumps(report, indent=1) + "\n").encode())
    write_whole(out / "report.md", markdown(report, drawn).encode())
    return report


def pictures_in(folder: Path) -> dict[Path, int]:
    """Return the pictures of a folder in name order, with the times of their last changes in nanoseconds."""
    return {path: path.stat().st_mtime_ns for path in sorted(folder.glob("*.[jp][pn]g"))}


def photograph_sections(
    model: FaceNetwork, seen: dict[str, PredictedPhotographs], data: Path, out: Path
) -> dict[str, Rows]:
    """Return the sections about annotated photographs (`seen`, by the name of their folder), and draw their
    pictures."""
    draw_error_curves({name: one.errors for name, one in seen.items()}, out / "error_curves.png")
    first = next(iter(seen.values()))
    cv2.imwrite(str(out / "worst.jpg"), worst_sheet(first))
    cv2.imwrite(str(out / "meshes.jpg"), mesh_sheet(first))
    bins = reliability(first)
    draw_reliability(bins, out / "reliability.png")
    return {
        "Landmarks, true box": {
            name: {"photographs": float(len(one.crops)), **landmark_figures(one.landmarks, one.truth)}
            for name, one in seen.items()
        },
        "Confidence: error it stands for, error there is": {str(i + 1): one for i, one in enumerate(bins)},
        "Confidence: faces from others (AUC)": {name: face_auc(model, one, data) for name, one in seen.items()},
    }


def people_sections(model: FaceNetwork, packed: Path, out: Path) -> dict[str, Rows]:
    """Return the sections about rendered people whom training never saw (the folder `packed`), and draw their
    pictures."""
    people = predict_people(model, packed)
    sections = {
        "Rendered people not trained on": {"all": people_figures(people)},
        "Rendered people, by yaw": rows_by_yaw(people),
        "Rendered people, weights of nearly frontal faces": blendshape_figures(people),
        "Rendered people, by photographs in a set": set_figures(
            people.output.shape.numpy(), people.output.confidence.numpy(), people.person, people.shape.numpy()
        ),
    }
    if isinstance(model, FaceModel) and model.config.gaze:
        fused = fused_sets(people.output, people, basis_of(model))
        expected = calibration(fused)
        sections["Rendered people, sets fused by precision, after a similarity"] = fused_set_figures(fused, people)
        sections["Rendered people, error that sets expect and error there is"] = expected
        draw_calibration(expected, out / "calibration.png")
    draw_yaw_bins(sections["Rendered people, by yaw"], out / "yaw.png")
    return sections


def reliability(seen: PredictedPhotographs, bins: int = 6) -> list[dict[str, float]]:
    """Return mean confidence, predicted error and measured error of photographs, in up to `bins` equal bins by falling
    confidence."""
    order = np.argsort(-seen.output.confidence.numpy())
    rows = []
    for part in np.array_split(order, min(bins, len(order))):
        confidence = seen.output.confidence[torch.from_numpy(part)]
        rows.append(
            {
                "confidence": float(confidence.mean()),
                "predicted_error": float(error_of_confidence(confidence).mean()),
                "error": float(seen.errors[part].mean()),
            }
        )
    return rows


def face_auc(model: FaceNetwork, seen: PredictedPhotographs, data: Path, count: int = 300) -> dict[str, float]:
    """Return how surely confidence tells faces from pictures without a face, and from crops that miss it (AUC)."""
    random = np.random.default_rng(0)
    size = model.config.input_size
    faces = seen.output.confidence.numpy()
    figures = {}
    if (data / "backgrounds").is_dir():
        pictures = read_backgrounds(background_files(data / "backgrounds"))
        patches = [
            np.asarray(cv2.resize(random_patch(pictures, random, 0.15, 0.9), (size, size)), np.uint8)
            for _ in range(count)
        ]
        figures["backgrounds"] = auc(faces, predict(model, patches).confidence.numpy())
    beside = []
    for index in random.integers(len(seen.paths), size=count):
        canvas, _ = canvas_from_photograph(read_image(seen.paths[index]), seen.truth[index], reflect=False)
        beside.append(crop_from_canvas(canvas, bad_square(random), size)[0])
    figures["shifted_crops"] = auc(faces, predict(model, beside).confidence.numpy())
    return figures


def rows_by_yaw(seen: PredictedPeople) -> Rows:
    """Return errors of rotation, shape and depth by the yaw of the heads."""
    yaw = np.array([abs(euler_from_camera(camera)[1]) for camera in seen.cameras])
    angles, rmse = rotation_errors(seen.output, seen.cameras), seen.rmse_mm
    depth = ((seen.output.shape[:, :, 2] - seen.shape[:, :, 2]) ** 2).mean(1).sqrt().numpy()
    rows = {}
    for low, high in pairwise(YAW_BINS):
        inside = (yaw >= low) & (yaw < high + (high == YAW_BINS[-1]))
        if inside.any():
            rows[f"{low}-{high}"] = {
                "pictures": float(inside.sum()),
                "rotation_deg": float(angles[inside].mean()),
                "rmse_mm": float(rmse[inside].mean()),
                "depth_rms_mm": float(depth[inside].mean()),
            }
    return rows


def ensemble_rows(members: Sequence[FaceModel], data: Path, prepared: Path) -> Rows:
    """Return figures of one model (mean over members), of the first two together, and so on.

    Landmarks are measured on the first `faces/*-test`, geometry on rendered people.
    """
    folder = next(iter(sorted((data / "faces").glob("*-test"))), None)
    photographs = list(annotated_photographs(folder)) if folder else []
    packed = prepared / "people" / "held-out"

    def row(model: FaceNetwork) -> dict[str, float]:
        figures = evaluate_landmarks(model, photographs) if photographs else {}
        if (packed / "labels.npz").is_file():
            people = people_figures(predict_people(model, packed))
            figures |= {key: people[key] for key in ("rotation_deg", "rmse_mm", "vertices_mm", "expression_mae")}
        return figures

    alone = [row(member) for member in members]
    rows = {"1 (mean of members)": {key: float(np.mean([one[key] for one in alone])) for key in alone[0]}}
    return rows | {str(count): row(FaceModelEnsemble(members[:count])) for count in range(2, len(members) + 1)}


def coefficient_spread(seen: PredictedPhotographs, prepared: Path) -> float:
    """Return the standard deviation over photographs of the shapes' first twenty identity coefficients.

    The morphable model's prior has 1.
    """
    teacher = read_teacher(prepared)
    difference = (seen.output.shape.flatten(1) - teacher.mean).double()
    solution = torch.linalg.lstsq(teacher.identity.T.double(), difference.T).solution
    return float(solution[:20].std(1).mean())


def at_rest(model: FaceNetwork, data: Path, detector: Detector) -> dict[str, float]:
    """Return mean and largest blendshape weight, without gaze and lids, of people who were asked to look at a mark."""
    crops = []
    for photograph in pointing_photographs(data / "head_pose"):
        if max(abs(photograph.tilt), abs(photograph.pan)) > 15:
            continue
        image = read_image(photograph.path)
        found = detector.detect(image)
        if found:
            crops.append(align(image, square_from_box(found[0].box), model.config.input_size).image)
    if not crops:
        return {"photographs": 0.0}
    weights = predict(model, crops).expression[:, AT_REST].numpy()
    return {
        "photographs": float(len(crops)),
        "mean_weight": float(weights.mean()),
        "mean_of_largest": float(weights.max(1).mean()),
    }


def people_apart(
    model: FaceNetwork, seen: dict[str, PredictedPhotographs], data: Path, detector: Detector | None
) -> dict[str, Rows]:
    """Return how well the neutral shape alone tells people apart, and figures of the shapes of image sets."""
    sources: dict[str, tuple[Floats, Floats, NDArray[np.int64]]] = {}
    if (data / "identities").is_dir() and detector:
        images, squares, people = [], [], []
        for number, folder in enumerate(sorted(path for path in (data / "identities").iterdir() if path.is_dir())):
            for path in sorted(folder.glob("*.jpg")):
                image = read_image(path)
                found = detector.detect(image)
                if found:
                    # The largest face is that of the named person.
                    box = max((one.box for one in found), key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
                    images.append(image)
                    squares.append(square_from_box(box))
                    people.append(number)
        if images:
            output, _ = predict_twice(model, images, squares)
            sources["identities"] = (output.shape.numpy(), output.confidence.numpy(), np.array(people))
    for name, one in seen.items():
        names = [path.stem.rpartition("_")[0] for path in one.paths]
        _, number_of_name = np.unique(names, return_inverse=True)
        if name.startswith("youtube"):
            sources[name] = (one.output.shape.numpy(), one.output.confidence.numpy(), number_of_name)
    report: dict[str, Rows] = {}
    if sources:
        report["Same person or not, from neutral shapes"] = {
            name: pair_figures(shapes, who) for name, (shapes, _, who) in sources.items() if can_be_paired(who)
        }
    for name, (shapes, confidences, who) in sources.items():
        report[f"Shapes of sets, {name}"] = set_figures(shapes, confidences, who)
    return report


def markdown(report: dict[str, Rows], pictures: list[str]) -> str:
    """Return the sections as tables, followed by the pictures."""
    lines = ["# Evaluation", ""]
    for title, rows in report.items():
        columns = list(dict.fromkeys(name for row in rows.values() for name in row))
        if len(columns) > 8:  # many figures with few rows read better as columns
            lines += [f"## {title}", "", "| | " + " | ".join(rows) + " |", "|---" * (len(rows) + 1) + "|"]
            lines += [f"| {c} | " + " | ".join(_cell(row, c) for row in rows.values()) + " |" for c in columns]
        else:
            lines += [f"## {title}", "", "| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
            lines += [f"| {name} | " + " | ".join(_cell(row, c) for c in columns) + " |" for name, row in rows.items()]
        lines.append("")
    lines += ["## Pictures", "", *(f"![{name}]({name})" for name in pictures)]
    return "\n".join(lines) + "\n"


def _cell(row: dict[str, float], column: str) -> str:
    return f"{row[column]:.3f}" if column in row else ""

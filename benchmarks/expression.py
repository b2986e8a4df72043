"""Photographs with expression labels of a vision language model -> how surely blendshape weights show each expression.

    python benchmarks/expression.py --data DATA          # two minutes; writes results/expression.md and .json

The figure is the area under the ROC curve (AUC) of the matching weight, present against absent; "unsure" is left out.
The mean is over labels with at least six positives. A vision language model gave the labels in `expression_labels.json`
by looking at the pictures, which are named by their files under DATA. People of `pseudo/expressive` that appear here
were never trained on (`weak_labels.DEVELOPMENT_SHARE`). MediaPipe's scores of the same pictures stand beside, where
DATA has them. The first model's mesh is also compared with MediaPipe's (`beside_mediapipe.py`), and its weights of
still faces are watched under the noise of a camera.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from beside_mediapipe import beside_mediapipe
from commands import command_of
from facerecon_rt import Frame, Pipeline, Reconstructor, read_image
from facerecon_rt.annotated import read_pts
from facerecon_rt.data_folder import default_data
from facerecon_rt.faces.calibrate import MOST, NOISE
from facerecon_rt.faces.reconstruct import largest
from facerecon_rt.providers.onnx_file import named_by_hash
from facerecon_rt.sinks.record import arkit_blendshapes
from facerecon_training.consistency import auc

LABELS = Path(__file__).with_name("expression_labels.json")
RESULTS = Path(__file__).with_name("results")
MODELS = [Path("models/face.onnx"), Path("models/face.int8-cpu.onnx")]
LEAST_POSITIVES = 6
SEEN = "faces/youtube-test"
Weights = Mapping[str, float]


def _sides(name: str) -> Callable[[Weights], float]:
    return lambda w: (w[name + "Left"] + w[name + "Right"]) / 2


def _towards(first: str, second: str, against: str, against_too: str) -> Callable[[Weights], float]:
    return lambda w: (w[first] + w[second] - w[against] - w[against_too]) / 2


LEFTWARDS, RIGHTWARDS = ("eyeLookOutLeft", "eyeLookInRight"), ("eyeLookInLeft", "eyeLookOutRight")
UPWARDS, DOWNWARDS = ("eyeLookUpLeft", "eyeLookUpRight"), ("eyeLookDownLeft", "eyeLookDownRight")
READ: dict[str, Callable[[Weights], float]] = {
    "browUp": lambda w: max(w["browInnerUp"], w["browOuterUpLeft"], w["browOuterUpRight"]),
    "browDown": _sides("browDown"),
    "blinkLeft": lambda w: w["eyeBlinkLeft"],
    "blinkRight": lambda w: w["eyeBlinkRight"],
    "squint": _sides("eyeSquint"),
    "eyesWide": _sides("eyeWide"),
    "gazeLeft": _towards(*LEFTWARDS, *RIGHTWARDS),
    "gazeRight": _towards(*RIGHTWARDS, *LEFTWARDS),
    "gazeUp": _towards(*UPWARDS, *DOWNWARDS),
    "gazeDown": _towards(*DOWNWARDS, *UPWARDS),
    "jawOpen": lambda w: w["jawOpen"],
    "smile": _sides("mouthSmile"),
    "frown": _sides("mouthFrown"),
    "puckerOrFunnel": lambda w: max(w["mouthPucker"], w["mouthFunnel"]),
    "mouthLeft": lambda w: w["mouthLeft"] - w["mouthRight"],
    "mouthRight": lambda w: w["mouthRight"] - w["mouthLeft"],
    "noseSneer": _sides("noseSneer"),
    "mouthPressOrRoll": lambda w: max(
        w["mouthPressLeft"], w["mouthPressRight"], w["mouthRollLower"], w["mouthRollUpper"]
    ),
    "upperLipRaise": _sides("mouthUpperUp"),
}
"""Label -> function of Apple's weights that should tell it. Left and right are the subject's."""


def scores(found: Mapping[str, Weights], images: list[dict[str, object]]) -> dict[str, dict[str, float]]:
    """Return the AUC, counts and mean values of each label, from the weights of each file and the labelled images."""
    rows = {}
    for label, read in READ.items():
        values: dict[str, list[float]] = {"present": [], "absent": []}
        for image in images:
            labels = image["labels"]
            assert isinstance(labels, dict)
            if str(image["file"]) in found and labels.get(label) in values:
                values[labels[label]].append(read(found[str(image["file"])]))
        if values["present"] and values["absent"]:
            rows[label] = {
                "auc": auc(np.array(values["present"]), np.array(values["absent"])),
                "present": len(values["present"]),
                "absent": len(values["absent"]),
                "mean_present": float(np.mean(values["present"])),
                "mean_absent": float(np.mean(values["absent"])),
            }
    return rows


def wink_differences(found: Mapping[str, Weights], images: list[dict[str, object]]) -> list[float]:
    """Return differences of the two eyeBlink weights, for pictures labelled with one closed eye.

    The difference is that of the closed eye minus the open eye. A negative value is the wrong side.
    """
    differences = []
    for image in images:
        labels = image["labels"]
        assert isinstance(labels, dict)
        sides = [labels.get("blinkLeft"), labels.get("blinkRight")]
        if str(image["file"]) in found and sorted(map(str, sides)) == ["absent", "present"]:
            w = found[str(image["file"])]
            difference = w["eyeBlinkLeft"] - w["eyeBlinkRight"]
            differences.append(difference if sides[0] == "present" else -difference)
    return differences


def through_runtime(
    model: Path, detector: Path | None, data: Path, images: list[dict[str, object]]
) -> dict[str, Weights]:
    """Return Apple's weights of one face in each file: the annotated face where there are landmarks, or the largest."""
    found: dict[str, Weights] = {}
    with Reconstructor(model, detector=detector, provider="cpu") as reconstructor:
        for image in images:
            path = data / str(image["folder"]) / str(image["file"])
            picture = read_image(path)
            faces = reconstructor.faces(picture)
            face = largest(faces, (picture.shape[1], picture.shape[0]))
            if faces and path.with_suffix(".pts").is_file():
                middle = np.nanmean(read_pts(path.with_suffix(".pts")), axis=0)
                face = min(faces, key=lambda face: float(np.linalg.norm(face.box.reshape(2, 2).mean(0) - middle)))
            if face is not None:
                found[str(image["file"])] = arkit_blendshapes(face.expression, reconstructor.contract.blendshapes)
    return found


def of_weak_labels(path: Path) -> dict[str, Weights]:
    """Return the scores that another tracker gave each file."""
    with np.load(path, allow_pickle=False) as arrays:
        names = [str(name) for name in arrays["blendshape_names"]]
        return {
            Path(str(file)).name: dict(zip(names, map(float, row), strict=True))
            for file, row in zip(arrays["files"], arrays["blendshapes"], strict=True)
        }


def noise(model: Path, detector: Path | None, photographs: list[Path], frames: int = 30) -> dict[str, float]:
    """Return the noise of weights on still photographs, which are shown as tracked videos with sensor noise (normal, 4
    of 255 levels).

    Weights are calibrated, as with `--calibrate`, by the median over the frames of each photograph.

    - `deviation` and `largest_deviation`: standard deviation over time, mean and largest of all weights
    - `calibrated_below_noise_percent` and `calibrated_zero_percent`: calibrated weights below `NOISE`, and exactly 0
    """
    random = np.random.default_rng(0)
    deviations, calibrated = [], []
    with Reconstructor(model, detector=detector, provider="cpu") as reconstructor:
        for path in photographs:
            image, pipeline, weights = read_image(path), Pipeline(reconstructor), []
            for index in range(frames + 5):
                noisy = np.clip(image + random.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
                frame = Frame(noisy, path.name, index, index / 30, still=False, fps=30)
                faces = pipeline.process(frame).faces
                # The crop settles in the first frames.
                if index >= 5 and faces:
                    weights.append(faces[0].expression)
            if weights:
                deviations.append(np.std(weights, axis=0))
                rest = np.clip(np.median(weights, axis=0), 0, MOST)
                calibrated += [np.clip((one - rest) / (1 - rest), 0, 1) for one in weights]
    spread = np.mean(deviations, axis=0)
    moved = np.array(calibrated)
    return {
        "photographs": float(len(deviations)),
        "deviation": float(spread.mean()),
        "largest_deviation": float(spread.max()),
        "calibrated_below_noise_percent": 100 * float(np.mean(moved < NOISE)),
        "calibrated_zero_percent": 100 * float(np.mean(moved == 0)),
    }


MEDIAPIPE = "MediaPipe's scores"
DEFINITIONS = f"""\
- **AUC**: how often the matching weight of a picture with the expression is larger than that of a picture without it:
  0.5 is chance, 1 is perfect. A label with fewer than {LEAST_POSITIVES} such pictures has no AUC here (–) and is left
  out of the mean.
- **weights**: mean weight of pictures with the expression / without it, of the first model.
- **{MEDIAPIPE}** are known for some of the pictures only.
- **shared**: the pictures whose scores of MediaPipe are known, alone.
- **strangers**: without the pictures of `{SEEN}`, whose people have other frames in training.
- **lip_gap**: median distance of our inner lips where MediaPipe's are shut; **opening_gain**: how far our mouth opens
  where MediaPipe's is open, as a factor.
- **iris_x_correlation**, **iris_y_correlation**: places of our irises and of MediaPipe's between the corners of the
  eye, sideways and in height. **yaw_correlation**, **pitch_correlation**: our gaze in the head frame beside the place
  of MediaPipe's irises.
- **deviation**, **largest_deviation**: standard deviation of weights over the frames, mean and largest of all weights.
  **calibrated_below_noise_percent**, **calibrated_zero_percent**: calibrated weights (`--calibrate`) below {NOISE},
  and those that are exactly 0.
"""


def of_model(
    found: Mapping[str, Weights], images: list[dict[str, object]], shared: Mapping[str, Weights]
) -> dict[str, Any]:
    """Return the figures of one source of weights: `scores` by label, and the means of their AUC and the winks. The
    pictures in `shared` have a mean of their own."""
    rows = scores(found, images)
    strange = scores(found, [image for image in images if image["folder"] != SEEN])
    common = scores(found, [image for image in images if str(image["file"]) in shared])
    return {
        "found": sum(str(image["file"]) in found for image in images),
        "labels": rows,
        "auc": summary(rows),
        "auc_shared": summary(common),
        "auc_strangers": summary(strange),
        "winks": wink_differences(found, images),
    }


def summary(rows: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Return the mean AUC, the least AUC with its label, and the number of labels that have enough positives. Without
    such labels, there is the number alone."""
    counted = {label: row["auc"] for label, row in rows.items() if row["present"] >= LEAST_POSITIVES}
    if not counted:
        return {"labels": 0}
    least = min(counted, key=lambda label: counted[label])
    return {
        "labels": len(counted),
        "mean": float(np.mean(list(counted.values()))),
        "least": counted[least],
        "label": least,
    }


def markdown(report: Mapping[str, Any]) -> str:
    """Return the report as Markdown."""
    columns: Mapping[str, Any] = report["auc"]
    first = next(iter(columns.values()))
    lines = ["# Expressions and gaze of photographs", "", f"`{report['command']}`", ""]
    lines += [f"Models {report['models']}, detector `{report['detector']}`.", "", DEFINITIONS]
    lines += [f"| AUC | pictures with / without | {' | '.join(columns)} | weights |", "|---" * (len(columns) + 3) + "|"]
    for label, row in first["labels"].items():
        cells = []
        for column in columns.values():
            of_label = column["labels"].get(label)
            enough = of_label is not None and of_label["present"] >= LEAST_POSITIVES
            cells.append(f"{of_label['auc']:.2f}" if enough else "–")
        lines.append(
            f"| {label} | {row['present']} / {row['absent']} | {' | '.join(cells)} "
            f"| {row['mean_present']:.2f} / {row['mean_absent']:.2f} |"
        )
    kinds = {"mean": "auc", "mean, shared": "auc_shared", "mean, strangers": "auc_strangers"}
    for title, name in kinds.items():
        cells = [
            f"{c[name]['mean']:.3f} of {c[name]['labels']}" if c[name]["labels"] else "–" for c in columns.values()
        ]
        lines.append(f"| **{title}** | | {' | '.join(cells)} | |")
        cells = [f"{c[name]['least']:.2f} ({c[name]['label']})" if c[name]["labels"] else "–" for c in columns.values()]
        lines.append(f"| **{title.replace('mean', 'least')}** | | {' | '.join(cells)} | |")
    cells = [_winks(column["winks"]) for column in columns.values()]
    lines.append(f"| winks: difference of the two eyeBlinks; on the right side | | {' | '.join(cells)} | |")
    cells = [str(column["found"]) for column in columns.values()]
    lines += [f"| pictures that count | {report['pictures']} | {' | '.join(cells)} | |", ""]
    for title, figures in report["figures"].items():
        lines += [f"## {title}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {value:.{0 if value.is_integer() else 4}f} |" for name, value in figures.items()] + [""]
    return "\n".join(lines)


def _winks(differences: list[float]) -> str:
    right = sum(difference > 0 for difference in differences)
    return f"{np.mean(differences):.2f}; {right} of {len(differences)}" if differences else "–"


def main() -> None:
    """Measure everything for which there are data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=default_data(), help="data folder [$FACERECON_DATA]")
    parser.add_argument("--models", type=Path, nargs="+", default=MODELS, help=f"model files [{_listed(MODELS)}]")
    parser.add_argument("--detector", type=Path, help="face detector [face_detector.onnx beside each model]")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results [benchmarks/results]")
    options = parser.parse_args()
    if options.data is None or not options.data.is_dir():
        parser.error("there is no data folder; give --data or set FACERECON_DATA")
    if len({model.name for model in options.models}) < len(options.models):
        parser.error("two model files have the same name, which would name both columns; rename one")
    options.out.mkdir(parents=True, exist_ok=True)
    images = json.loads(LABELS.read_text())["images"]
    tracker = options.data / "pseudo" / "expressive.npz"
    theirs = of_weak_labels(tracker) if tracker.is_file() else {}
    columns = {
        model.name: of_model(through_runtime(model, options.detector, options.data, images), images, theirs)
        for model in options.models
    }
    first, figures = options.models[0], {}
    if theirs:
        columns[MEDIAPIPE] = of_model(theirs, images, theirs)
        figures[f"The mesh of {first.name} beside MediaPipe's mesh"] = beside_mediapipe(
            first, options.detector, options.data
        )
    stills = sorted((options.data / "faces" / "lfpw-test").glob("*.jpg"))[::12]
    if stills:
        figures[f"Noise of {first.name} on still photographs"] = noise(first, options.detector, stills)
    report = {
        "command": command_of(parser, options),
        "models": named_by_hash(*options.models),
        "detector": (options.detector or Path("face_detector.onnx")).name,
        "pictures": len(images),
        "auc": columns,
        "figures": figures,
    }
    (options.out / "expression.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "expression.md").write_text(markdown(report))
    print(markdown(report))


def _listed(paths: list[Path]) -> str:
    return " ".join(str(path) for path in paths)


if __name__ == "__main__":
    main()

"""Value of each loss term: a short training without it, beside a training with all terms.

    python benchmarks/ablation.py --data DATA --prepared runs/prepared --init WEIGHTS

Every run starts from the same weights and sees the same crops. Stopped runs resume, and finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from facerecon_rt.annotated import annotated_photographs, landmark_figures
from facerecon_rt.data_folder import default_data
from facerecon_rt.faces.detect import open_detector
from facerecon_training.accuracy_report import people_apart
from facerecon_training.checkpoint import load_weights
from facerecon_training.config import TrainConfig
from facerecon_training.evaluate import (
    evaluate_blinks,
    evaluate_pose,
    people_figures,
    predict_people,
    predict_photographs,
)
from facerecon_training.losses import LossWeights
from facerecon_training.train import train

RESULTS = Path(__file__).with_name("results")
EXACT = ("shape", "motion", "expression", "rotation", "projection", "rendered_landmarks")
WITHOUT: dict[str, tuple[str, ...]] = {
    "exact losses on rendered faces": EXACT,
    "geometry": ("geometry",),
    "image set": ("image_set",),
    "people apart": ("person",),
    "feature consistency": ("consistency",),
    "openings": ("openings",),
    "blink": ("blink",),
    "running average": ("teacher",),
    "head directions": ("direction",),
    "symmetry": ("symmetry",),
    "priors of codes and expressions": ("code_prior", "expression_prior"),
}
"""Row of the table -> weights of losses.LossWeights that are 0 in it."""
WITH = {"photometric": {"photometric": 1.0}}
"""Terms that are off by default. They are measured by adding them."""


def variants() -> dict[str, LossWeights]:
    """Return the loss weights of each row, by its name."""
    base = LossWeights()
    rows = {"all terms": base}
    rows |= {f"without {title}": replace(base, **dict.fromkeys(names, 0.0)) for title, names in WITHOUT.items()}
    return rows | {f"with {title}": replace(base, **changed) for title, changed in WITH.items()}


def figures(weights: Path, data: Path, prepared: Path, detector: Path) -> dict[str, float]:
    """Return one row of the table: lfpw-test from the true box, and Pointing'04 of people not trained on."""
    model = load_weights(weights)
    seen = predict_photographs(model, annotated_photographs(data / "faces" / "lfpw-test"))
    landmarks = landmark_figures(seen.landmarks, seen.truth)
    people = people_figures(predict_people(model, prepared / "people" / "held-out"))
    finder = open_detector(detector)
    pose = evaluate_pose(model, data / "head_pose", finder)["people not trained on"]
    return {
        "inner 51, %": landmarks["nme_inner51"],
        "68, %": landmarks["nme_68"],
        "pan, deg": pose["pan_deg"],
        "tilt, deg": pose["tilt_deg"],
        "rotation, deg": people["rotation_deg"],
        "shape, mm": people["rmse_mm"],
        "expression, MAE": people["expression_mae"],
        "blink AUC": evaluate_blinks(model, data / "faces")["auc"],
        "same person AUC": people_apart(model, {}, data, finder)["Same person or not, from neutral shapes"][
            "identities"
        ]["auc"],
    }


def markdown(rows: dict[str, dict[str, float]], about: str) -> str:
    """Return the results as a Markdown table."""
    names = list(next(iter(rows.values())))
    lines = ["# Ablation", "", about, "", "| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {row} | " + " | ".join(f"{values[n]:.3f}" for n in names) + " |" for row, values in rows.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train and measure row by row. The table is written after each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=default_data(), help="data folder [$FACERECON_DATA]")
    parser.add_argument("--prepared", type=Path, default=Path("runs/prepared"), help="prepared data [%(default)s]")
    parser.add_argument(
        "--init", type=Path, default=Path("models/face.safetensors"), help="weights to start from [%(default)s]"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"), help="folder of the runs [%(default)s]")
    parser.add_argument(
        "--detector", type=Path, default=Path("models/face_detector.onnx"), help="face detector [%(default)s]"
    )
    parser.add_argument("--pictures", type=int, default=40_000, help="crops of each run [%(default)s]")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="learning rate [%(default)s]")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads [%(default)s]")
    parser.add_argument("--rows", nargs="+", help="rows of the table to measure, by name [all]")
    options = parser.parse_args()
    if options.data is None or not Path(options.data).is_dir():
        parser.error(
            "there is no data folder; give --data or set FACERECON_DATA (training/README.md describes the layout)"
        )
    torch.set_num_threads(options.threads)
    start = load_weights(options.init)
    path = RESULTS / "ablation.json"
    about = f"From `{options.init.name}`, {options.pictures} crops each, learning rate {options.learning_rate:g}."
    losses = asdict(LossWeights())
    new: dict[str, Any] = {"about": about, "losses": losses, "rows": {}}
    before = json.loads(path.read_text()) if path.is_file() else new
    if (before["about"], before["losses"]) != (about, losses):
        parser.error(f"{path} belongs to other runs ({before['about']}); delete it and {options.runs} to start again")
    rows: dict[str, dict[str, float]] = before["rows"]
    for name, weights in variants().items():
        if name in rows or (options.rows and name not in options.rows):
            continue
        config = TrainConfig(
            prepared=options.prepared,
            data=Path(options.data),
            run=options.runs / name.replace(" ", "-"),
            init=options.init,
            pictures=options.pictures,
            learning_rate=options.learning_rate,
            threads=options.threads,
            evaluate_minutes=1e9,
            loss=weights,
            model=start.config,
        )
        print(f"\n{name}")
        rows[name] = figures(train(config), config.data, options.prepared, options.detector)
        path.write_text(json.dumps({"about": about, "losses": losses, "rows": rows}, indent=1) + "\n")
        (RESULTS / "ablation.md").write_text(markdown(rows, about))
    print(markdown(rows, about))


if __name__ == "__main__":
    main()

"""Options and run of `facerecon-train detector`. Nothing heavy is imported before it runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from facerecon_rt.data_folder import data_folder, default_data
from facerecon_rt.interrupts import importing
from facerecon_rt.values import batch, number_above_0, positive, seed, threads, whole_number

from .config import LARGEST_SCENE, DetectorConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `facerecon-train detector`."""
    defaults = DetectorConfig(data=Path())
    parser.add_argument(
        "--data",
        type=Path,
        default=default_data(),
        help="folder with faces/, head_pose/, backgrounds/, detector/ [$FACERECON_DATA]",
    )
    parser.add_argument("--run", type=Path, default=defaults.run, help="run folder [%(default)s]")
    parser.add_argument(
        "--init", type=Path, help="start from these weights, e.g. models/face_detector.safetensors [random weights]"
    )
    parser.add_argument("--steps", type=positive, default=defaults.steps, help="training steps [%(default)s]")
    parser.add_argument("--batch", type=batch, default=defaults.batch, help="scenes per step [%(default)s]")
    parser.add_argument(
        "--size",
        type=whole_number(64, LARGEST_SCENE),
        default=defaults.size,
        help=f"side of the scenes in pixels, a multiple of 32, up to {LARGEST_SCENE} [%(default)s]",
    )
    parser.add_argument(
        "--learning-rate",
        type=number_above_0(100),
        default=defaults.learning_rate,
        help="learning rate after the warm-up [%(default)s]",
    )
    parser.add_argument("--threads", type=threads, default=defaults.threads, help="CPU threads [%(default)s]")
    parser.add_argument("--seed", type=seed, default=defaults.seed, help="seed of scenes and weights [%(default)s]")


def run(args: argparse.Namespace) -> None:
    """Run `facerecon-train detector`: train or resume, and print how good the weights are."""
    data = data_folder(args.data)
    with importing():
        from tqdm import tqdm

        from .data import build_cache
        from .train import choose_score, evaluate_detector, load_weights, train_detector, verdict

    config = DetectorConfig(
        data=data,
        run=args.run,
        init=args.init,
        steps=args.steps,
        batch=args.batch,
        size=args.size,
        learning_rate=args.learning_rate,
        threads=args.threads,
        seed=args.seed,
    )
    weights = train_detector(config)
    net, cache = load_weights(weights), build_cache(data, args.run / "cache")
    tqdm.write(f"{weights}: {verdict(*evaluate_detector(net, cache))}")
    for score, (missed, false) in choose_score(net, cache).items():
        tqdm.write(f"score {score:.2f}: {missed:.2%} missed, {false:.3f} false detections per background")

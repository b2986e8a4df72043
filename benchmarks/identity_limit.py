"""Lower limit of the error of a neutral shape: the best possible guess from ever more exact observations.

    python benchmarks/identity_limit.py --prepared runs/prepared

Faces are mean + weights @ modes with standard normal weights. Points are seen from the front without perspective, with
Gaussian noise, and the head's place, attitude and size are unknown. This is a linear Gaussian model, whose posterior is
known in closed form (Bishop, Pattern Recognition and Machine Learning, 2006, section 2.3.3). No method that sees these
points alone can have a smaller mean error than its trace gives. Expression and view are known here; in reality both add
to the error.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from facerecon_rt.template import load_template
from facerecon_rt.types import Floats
from facerecon_training.losses import unseen_directions
from facerecon_training.prepare import read_face

NOISE_MM = (0.5, 1.0, 2.0, 4.0)
OBSERVED = {
    "68 landmarks in the picture": (None, (0, 1)),
    "200 points in the picture": (200, (0, 1)),
    "200 points in space": (200, (0, 1, 2)),
}


def expected_rmse(modes: Floats, unseen: Floats, rows: np.ndarray, noise_mm: float) -> tuple[float, float]:
    """Return the RMSE in mm of the best guess after rigid alignment, and after a similarity.

    `modes` is (K, V * 3), `unseen` (7, V * 3) holds shifts, turns and growth, and `rows` are the observed coordinates.
    """
    design = np.vstack([modes, unseen])[:, rows].T.astype(np.float64)
    prior = np.diag([1.0] * len(modes) + [1e-8] * len(unseen))
    spread = np.linalg.inv(design.T @ design / noise_mm**2 + prior)[: len(modes), : len(modes)]
    return _rmse(spread, modes, unseen[:6]), _rmse(spread, modes, unseen)


def _rmse(spread: np.ndarray, modes: Floats, aligned: Floats) -> float:
    """Return the RMSE for weights with the covariance `spread` (K, K), without the part along `aligned`."""
    rest = (modes - (modes @ aligned.T) @ aligned).astype(np.float64)
    return float(np.sqrt(((spread @ rest) * rest).sum() / (rest.shape[1] / 3)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("runs/prepared"), help="prepared data [%(default)s]")
    face = read_face(parser.parse_args().prepared)
    modes = face.identity.reshape(len(face.identity), -1)
    unseen = unseen_directions(torch.from_numpy(face.mean.ravel())).numpy()
    everything = np.eye(len(modes))
    print("| observed | noise, mm | rigid, mm | similarity, mm |\n|---|---|---|---|")
    print(f"| nothing | | {_rmse(everything, modes, unseen[:6]):.2f} | {_rmse(everything, modes, unseen):.2f} |")
    for name, (count, axes) in OBSERVED.items():
        vertices = load_template().landmarks if count is None else np.arange(0, len(face.mean), len(face.mean) // count)
        rows = (np.asarray(vertices)[:, None] * 3 + np.array(axes)).ravel()
        for noise in NOISE_MM:
            rigid, similar = expected_rmse(modes, unseen, rows, noise)
            print(f"| {name} | {noise} | {rigid:.2f} | {similar:.2f} |")


if __name__ == "__main__":
    main()

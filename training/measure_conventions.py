"""Mesh points of rendered people -> offsets from landmark vertices to annotated points.

    mediapipe_mesh.py runs/clean/people/held-out/images.npy mesh.npz       # in MediaPipe's environment
    measure_conventions.py runs/clean mesh.npz

The offsets ship as training/facerecon_training/landmark_offsets.json. They need to be measured again only if the places
of rendered brows, lids or lips change.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from facerecon_training.arrays import read_arrays
from facerecon_training.conventions import OFFSETS, measured_offsets
from facerecon_training.data import Packed
from facerecon_training.prepare import read_face


def main(prepared: str, mesh: str) -> None:
    """Measure the offsets on the held-out people of a prepared folder, and write them to OFFSETS."""
    people = Packed.read(Path(prepared) / "people" / "held-out").labels
    arrays = read_arrays(Path(mesh))
    rows = arrays["files"].astype(np.int64)
    identity, expression, camera = (people[name][rows] for name in ("identity", "expression", "canvas_from_head"))
    offsets = measured_offsets(arrays["points68"], identity, expression, camera, read_face(Path(prepared)))
    lines = ",\n".join(json.dumps([round(float(value), 2) for value in offset]) for offset in offsets)
    OFFSETS.write_text('{"offset_mm": [\n' + lines + "\n]}\n")
    print(f"{OFFSETS}: up to {np.abs(offsets).max():.1f} mm, from {len(rows)} pictures")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What decides a training run of the face detector. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

SCORE = 0.5
"""From this score a face counts. Chosen on what training kept aside: from 0.2 to 0.6 one face in 489 is missed, and 1.3
to 0.03 are seen per background (0.07 at 0.5); of faces of 10 and 24 pixels, 85 % and 96 % are found at 0.5."""


DETECTOR_MARK = "facerecon.detector"
"""In the metadata of a .safetensors file: it holds a detector, not a FaceModel."""


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """A training run."""

    data: str
    """Folder with faces/, head_pose/, backgrounds/ and detector/."""
    run: str = "runs/detector"
    """Run folder: cache/, config.json, log.csv, curve.png, checkpoint.pt, face_detector.safetensors."""
    init: str | None = None
    """Weights to go on from, .safetensors, also of a detector that does not tell rolls."""
    steps: int = 5000
    batch: int = 16
    size: int = 256
    """Side of the scenes, pixels, a multiple of 32."""
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup: int = 200
    """Steps in which the learning rate rises; then it falls along a cosine."""
    box_weight: float = 4.0
    roll_weight: float = 1.0
    seed: int = 0
    threads: int = 1
    checkpoint_every_s: float = 120.0
    validate_every: int = 1000
    """Steps."""

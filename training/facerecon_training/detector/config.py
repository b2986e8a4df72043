"""Configuration of a training run of the face detector. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

SCORE = 0.5
"""Score from which a detection counts as a face, chosen on held-out pictures.

At 0.2 to 0.6 one face in 489 is missed, with 1.3 to 0.03 false detections per background, 0.07 of them at 0.5. At 0.5,
85 % of the faces of 10 pixels and 96 % of the faces of 24 pixels are found.
"""


DETECTOR_MARK = "facerecon.detector"
"""Key in the metadata of a .safetensors file. It marks a detector, not a FaceModel."""


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """Settings of a training run."""

    data: str
    """Folder with faces/, head_pose/, backgrounds/ and detector/."""
    run: str = "runs/detector"
    """Run folder with cache/, config.json, log.csv, curve.png, checkpoint.pt and face_detector.safetensors."""
    init: str | None = None
    """Weights to start from, a .safetensors file. Weights of a detector without roll also serve."""
    steps: int = 5000
    batch: int = 16
    size: int = 256
    """Side of the scenes in pixels, a multiple of 32."""
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup: int = 200
    """Number of steps in which the learning rate rises. After them it falls along a cosine."""
    box_weight: float = 4.0
    roll_weight: float = 1.0
    seed: int = 0
    threads: int = 1
    checkpoint_every_s: float = 120.0
    validate_every: int = 1000
    """Interval of the validation in steps."""

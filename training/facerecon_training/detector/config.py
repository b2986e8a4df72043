"""Configuration of a training run of the face detector. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SCORE = 0.4
"""Minimum score of a detection, chosen on hard pictures of 40 photographs of lfpw-test: the runtime reads 80 % of the
faces of 20 pixels and 97.5 % of the heads rolled by 60 degrees at 0.5; 87.5 and 97.5 % at 0.42; 90 and 100 % at 0.4.
`benchmarks/hard_faces.py` uses another 40 photographs, four of them the same."""
SURE = 0.6
"""Detections of a lower score are doubtful: the FaceModel has to be sure of them. In the 61 background photographs kept
aside there are 10 detections from 0.4 on and 1 from 0.6 on; none of them is a face to the FaceModel."""

DETECTOR_MARK = "facerecon.detector"
"""Key in the metadata of a .safetensors file. It marks a detector, not a FaceModel."""


LARGEST_SCENE = 640
"""Largest side of a scene in pixels."""


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """Settings of a training run."""

    data: Path
    """Folder with faces/, head_pose/, backgrounds/ and detector/."""
    run: Path = Path("runs/detector")
    """Run folder with cache/, config.json, curves.png, checkpoint.pt and face_detector.safetensors."""
    init: Path | None = None
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

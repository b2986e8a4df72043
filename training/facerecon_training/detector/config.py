"""What decides a training run of the face detector. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

SCORE = 0.4
"""Least score of a detection. Chosen on hard pictures of 40 photographs of lfpw-test: at 0.5, 80 % of the faces of 20
pixels and 97.5 % of the heads rolled by 60 degrees are read; at 0.42 87.5 and 97.5 %, at 0.4 90 and 100 %. The pictures
of `benchmarks/hard_faces.py` are of other 40, and judge."""
SURE = 0.6
"""Detections of a lower score are doubtful: the FaceModel has to be sure of them. In the 61 background photographs kept
aside there are 10 detections from 0.4 on and 1 from 0.6 on; none of them is a face to the FaceModel."""

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

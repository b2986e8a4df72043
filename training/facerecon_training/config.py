"""Configuration of a training run, in one documented value."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .augment import AugmentConfig
from .data import BatchConfig, Folder
from .losses import LossWeights
from .model import ModelConfig

RESEARCH_TERMS = "research only: learnt from research photographs"
CLEAN_TERMS = "any purpose: learnt from rendered faces and Pointing'04 (cite Gourier et al. 2004) alone"


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Arguments of `facerecon-train train`. They are written to the run folder as config.json."""

    prepared: Path
    """Folder that `facerecon-train prepare` wrote."""
    data: Path
    """Folder with faces/ and backgrounds/. Data that were prepared clean need neither."""
    run: Path
    """Folder for checkpoints, weights, log and curves. An existing run resumes."""
    init: Path | None = None
    """Weights to start from, or None for random weights. With another backbone, the run starts from the layers that
    both have."""
    hints: int = 60_000
    """Number of crops on which a smaller backbone's first blocks learn the features of the blocks that they replace."""
    distil: tuple[Path, ...] = ()
    """Weights of one or more bigger networks to learn from, beside the annotations. They need crops of the same
    size."""
    pictures: int = 400_000
    """Total number of crops to train on. The learning rate's schedule follows from it."""
    learning_rate: float = 2e-3
    output_rate: float = 0.1
    """Learning rate of the reconstructor's output layers, as a share of `learning_rate`."""
    direct_rate: float = 0.1
    """Learning rate of the direct map from features to the shape code, as a share of `learning_rate`. No normalisation
    follows the map: with 1, the loss rose from 75 to 93 within 200 steps."""
    decoder_rate: float = 0.01
    """Learning rate of the linear decoders, as a share of `learning_rate`. They start at a fit of random faces."""
    weight_decay: float = 0.02
    warmup: float = 0.02
    """Share of the run in which the learning rate rises."""
    average: float = 0.998
    """Decay of the running average of the weights. The average is saved and evaluated."""
    seed: int = 0
    device: str = "auto"
    """Device: auto, cpu or cuda."""
    threads: int = 2
    """Threads of the network on the CPU. Another process loads data."""
    bfloat16: bool = False
    """Whether to compute features in bfloat16. Processors with instructions for it are faster, most of all for dense
    convolutions."""
    checkpoint_minutes: float = 3.0
    evaluate_minutes: float = 10.0
    folders: tuple[Folder, ...] = ()
    """Shares and weights of folders of photographs that replace the values in data.FOLDERS."""
    development: str = "lfpw-test"
    """Folder under data/faces that is evaluated during training; if it does not exist, the first whose name ends in
    -test is. It is never trained on."""
    model: ModelConfig = field(default_factory=ModelConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossWeights = field(default_factory=LossWeights)

"""Everything a training run depends on, in one documented value."""

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
    """Arguments of `facerecon-train train`; written to the run folder as config.json."""

    prepared: Path
    """What `facerecon-train prepare` wrote."""
    data: Path
    """Folder with faces/ and backgrounds/; data prepared clean need neither."""
    run: Path
    """Where checkpoints, weights, log and curves go. A run that is there goes on where it stopped."""
    init: Path | None = None
    """Start from these weights instead of random ones; of those of a bigger backbone, from what both have in common."""
    hints: int = 60_000
    """Crops from which a smaller backbone's first blocks learn to give the features of those they replace."""
    distil: tuple[Path, ...] = ()
    """Weights of a bigger network, or of several, to learn from beside the annotations; they see crops of the same
    size."""
    pictures: int = 400_000
    """How many crops to train on in all; the learning rate follows."""
    learning_rate: float = 2e-3
    output_rate: float = 0.1
    """Of the learning rate, for the reconstructor's output layers."""
    decoder_rate: float = 0.01
    """Of the learning rate, for the linear decoders, which start at a fit of random faces."""
    weight_decay: float = 0.02
    warmup: float = 0.02
    """Part of the run in which the learning rate rises."""
    average: float = 0.998
    """Decay of the running average of the weights, which is what gets saved and evaluated."""
    seed: int = 0
    device: str = "auto"
    """auto, cpu, cuda."""
    threads: int = 2
    """Of the network on the CPU; one more process loads data."""
    bfloat16: bool = False
    """Compute features in bfloat16: faster where processors have instructions for it, for dense convolutions most."""
    checkpoint_minutes: float = 3.0
    evaluate_minutes: float = 10.0
    folders: tuple[Folder, ...] = ()
    """Shares and weights of folders of photographs, in place of those in data.FOLDERS."""
    development: str = "lfpw-test"
    """Folder under data/faces that is evaluated on the way; never trained on."""
    model: ModelConfig = field(default_factory=ModelConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossWeights = field(default_factory=LossWeights)

"""Scenes -> face detector weights, and how good they are."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from facerecon_rt.errors import ModelRefused, UsageError
from facerecon_rt.faces.detect import detections
from facerecon_rt.faces.detector_contract import MULTIPLE
from facerecon_rt.faces.detector_runs import SMALL_INPUT
from facerecon_rt.paths import resolved
from facerecon_rt.sinks.outputs import check_no_input, make_folder
from facerecon_rt.types import Detection, Floats, Image
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from ..backbones import in_channels_last
from ..checkpoint import read_tensors, written
from ..run import LOG_EVERY, Interrupt, Run, check_config, take_step, use_processor, write_config
from .config import DETECTOR_MARK, SCORE, DetectorConfig
from .data import DetectorCache, build_cache
from .measure import (
    Found,
    best_hit,
    false_per_background,
    held_out_backgrounds,
    held_out_photographs,
    measure_found,
    turned,
)
from .net import FaceDetectorNet, detector_loss, make_targets
from .scenes import SceneMaker


def train_detector(config: DetectorConfig) -> Path:
    """Train or resume, and return the path of the weights.

    Raises UsageError for a wrong size or a checkpoint of another network, and ModelRefused for unfit weights or
    checkpoints.
    """
    folder = config.run
    weights = folder / "face_detector.safetensors"
    check_no_input(weights, set() if config.init is None else {resolved(config.init)})
    use_processor(config.threads)
    cv2.setNumThreads(config.threads)
    torch.manual_seed(config.seed)
    if config.size % MULTIPLE:
        raise UsageError(f"--size {config.size}: must be a multiple of {MULTIPLE}")
    make_folder(folder)
    check_config(folder, config)
    net = in_channels_last(FaceDetectorNet() if config.init is None else begin_from(config.init))
    cache = build_cache(config.data, folder / "cache")
    scenes = SceneMaker(cache, config.size, config.seed)
    write_config(folder, config)

    optimizer = torch.optim.AdamW(net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    run = Run(folder)
    run.resume({"net": net, "optimizer": optimizer})

    saved = time.monotonic()
    bar = tqdm(total=config.steps * config.batch, initial=run.step * config.batch, unit="image", mininterval=10)
    with Interrupt() as interrupt:
        while run.step < config.steps and not interrupt.asked:
            losses = train_step(net, optimizer, config, run.step, *scenes.batch(run.step, config.batch))
            run.count(losses)
            bar.update(config.batch)
            if run.step % LOG_EVERY == 0:
                bar.set_postfix({name: f"{value:.3f}" for name, value in run.running.items()}, refresh=False)
            if run.step % config.validate_every == 0 or run.step == config.steps:
                found, turned, false = evaluate_detector(net, cache)
                run.note(held_out_figures(found, turned, false))
                bar.write(f"step {run.step}: {verdict(found, turned, false)}")
            if time.monotonic() - saved > config.checkpoint_every_s or run.step == config.steps:
                run.save()
                saved = time.monotonic()
    bar.close()
    if interrupt.asked:
        run.save()
        print(f"stopped; run the same command to resume from {run.checkpoint_path}")
        raise KeyboardInterrupt
    save_weights(net, weights)
    return weights


def train_step(
    net: FaceDetectorNet,
    optimizer: torch.optim.Optimizer,
    config: DetectorConfig,
    step: int,
    images: Sequence[Image],
    labels: Sequence[Floats],
) -> dict[str, Tensor]:
    """Train on one batch of scenes (S, S, 3) uint8 BGR and their labels (K, 5) as in `SceneMaker.scene`.

    Returns the losses. Raises FaceReconError where the training diverges.
    """
    net.train()
    targets = torch.from_numpy(np.stack([make_targets(faces, config.size, config.size) for faces in labels]))
    # (N, H, W, 3) seen as (N, 3, H, W) is channels_last already.
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()

    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * schedule(step, config.warmup, config.steps)
    logits, boxes = net(pixels)
    loss, heat, box, roll = detector_loss(logits, boxes, targets, config.box_weight, config.roll_weight)
    take_step(optimizer, net, loss, step)
    return {"loss": loss.detach(), "heat": heat.detach(), "box": box.detach(), "roll": roll.detach()}


def held_out_figures(upright: Found, sideways: Found, false: float) -> dict[str, float]:
    """Return the figures of `evaluate_detector` for the log."""
    return {
        "recall": upright.recall,
        "centre_error": upright.centre_error,
        "scale_error": upright.scale_error,
        "recall_turned": sideways.recall,
        "roll_error_deg": sideways.roll_error_deg,
        "false_per_background": false,
    }


def schedule(step: int, warmup: int, steps: int) -> float:
    """Return the share of the learning rate: a linear rise, then half a cosine down to 1 %."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def save_weights(net: FaceDetectorNet, path: Path) -> None:
    """Write the weights as safetensors, marked as a detector, completely or not at all."""
    state = {name: value.contiguous() for name, value in net.state_dict().items() if "num_batches" not in name}
    with written(path) as partial:
        save_file(state, partial, {DETECTOR_MARK: "1"})


def load_weights(path: Path) -> FaceDetectorNet:
    """Return the network that `save_weights` wrote, ready to predict. Raises ModelRefused for any other file."""
    _, tensors = read_tensors(path, "facerecon-train detector")
    return _filled(tensors, path).eval()


def begin_from(path: Path) -> FaceDetectorNet:
    """Return the network of a weights file, ready to train.

    A head without roll gets a new roll. Raises ModelRefused for other files.
    """
    _, state = read_tensors(path, "facerecon-train detector")
    head = FaceDetectorNet().head
    for name, begun in (("head.weight", head.weight), ("head.bias", head.get_parameter("bias"))):
        if name in state and state[name].shape[1:] == begun.shape[1:]:
            state[name] = torch.cat([state[name], begun.detach()[len(state[name]) :]])
    return _filled(state, path).train()


def _filled(state: dict[str, Tensor], path: Path) -> FaceDetectorNet:
    net = FaceDetectorNet()
    try:
        missing, unexpected = net.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ModelRefused(f"{path} does not fit this detector: {str(error).splitlines()[0]}") from error
    if unexpected or any("num_batches" not in name for name in missing):
        raise ModelRefused(
            f"{path}: these are not weights of this detector; train it again with `facerecon-train detector`"
        )
    return net


@dataclass(frozen=True, slots=True, eq=False)
class NetDetector:
    """The runtime's FaceDetector with the PyTorch network instead of the ONNX file."""

    net: FaceDetectorNet
    score: float
    size: int = SMALL_INPUT

    def detect(self, image: Image) -> list[Detection]:
        """Return the faces of a picture (H, W, 3) uint8 BGR, best first."""
        return detections(self._answer, image, self.size, self.score)

    def _answer(self, pictures: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        with torch.inference_mode():
            logits, boxes = self.net(torch.from_numpy(pictures).permute(0, 3, 1, 2).float())
        return torch.sigmoid(logits).numpy(), boxes.numpy()


def evaluate_detector(net: FaceDetectorNet, cache: DetectorCache, score: float = SCORE) -> tuple[Found, Found, float]:
    """Measure the network on held-out data.

    Returns figures of the annotated faces, figures of the same pictures turned by one, two or three quarters, and false
    positives per background.
    """
    detector = NetDetector(net.eval(), score)
    upright = measure_found(detector, held_out_photographs(cache))
    pictures = enumerate(held_out_photographs(cache))
    sideways = (one for number, picture in pictures for one in turned([picture], 1 + number % 3))
    return upright, measure_found(detector, sideways), false_per_background(detector, cache)


def verdict(upright: Found, sideways: Found, false: float) -> str:
    """Return the figures of `evaluate_detector` as text."""
    return f"{upright.line()}; turned: {sideways.line()}; {false:.3f} false detections per background"


def choose_score(net: FaceDetectorNet, cache: DetectorCache) -> dict[float, tuple[float, float]]:
    """Return for each threshold the share of missed faces and the false positives per background, on held-out data.

    A good `score` for the exported file is low in both. Small faces, which these photographs lack, need a lower
    threshold.
    """
    thresholds = [round(0.2 + 0.05 * i, 2) for i in range(12)]
    detector = NetDetector(net.eval(), thresholds[0])
    best = []
    for image, label in held_out_photographs(cache):
        hits = [d.score for d in detector.detect(image) if best_hit([d], label) is not None]
        best.append(max(hits, default=0.0))
    backgrounds = list(held_out_backgrounds(cache))
    false = np.array([d.score for image in backgrounds for d in detector.detect(image)])
    return {
        t: (float(np.mean(np.array(best) < t)), float((false >= t).sum()) / max(1, len(backgrounds)))
        for t in thresholds
    }

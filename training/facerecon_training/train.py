"""Batches -> weights: the training loop, written out."""

from __future__ import annotations

import json
import math
import re
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from facerecon_rt.annotated import annotated_photographs
from facerecon_rt.errors import SourceError, UsageError
from facerecon_rt.paths import resolved
from facerecon_rt.sinks.outputs import check_no_input, make_folder
from facerecon_rt.template import IBUG_MIRROR
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from .backbones import in_channels_last
from .checkpoint import load_weights, save_weights
from .config import CLEAN_TERMS, RESEARCH_TERMS, TrainConfig
from .data import Batch, Batches
from .ensemble import FaceModelEnsemble
from .evaluate import evaluate_landmarks, people_figures, predict_people
from .habits import with_habits
from .losses import LossWeights
from .model import FaceModel
from .objective import Teacher, Terms, face_loss, is_taught
from .optimizer import Group, MuonWithAdamW, is_matrix
from .photometric import SKIN_CODE, SkinModel
from .prepare import TEST_SUFFIX, is_clean, read_face
from .rendered.backgrounds import background_files
from .rendered.morphable import MorphableFace
from .run import Interrupt, Run, Stateful, check_config, take_step, use_processor, write_config
from .shrink import imitate, take_over

WEIGHTS_NAME = "face.safetensors"
"""Name of the file of averaged weights in the run folder."""
MOST_PHOTOGRAPHS = 300
"""Number of photographs that are evaluated during training."""


def train(config: TrainConfig) -> Path:
    """Run or resume a training, and return the path of the averaged weights.

    A resumed run gives the same weights as an uninterrupted run. Ctrl-C saves a checkpoint after the first step, then
    raises KeyboardInterrupt. Raises UsageError or SourceError if data are missing, ModelRefused for unfit weights or
    checkpoints, and FaceReconError if the training diverges.
    """
    device = choose_device(config.device)
    check_no_input(config.run / WEIGHTS_NAME, {resolved(path) for path in (config.init, *config.distil) if path})
    use_processor(config.threads)
    torch.manual_seed(config.seed)
    face = read_face(config.prepared)
    if not is_clean(config.prepared):
        background_files(config.data / "backgrounds")
    make_folder(config.run)
    check_config(config.run, config)
    skin = SkinModel.read(config.prepared / "skin.npz", device) if config.loss.photometric else None
    teacher = Teacher.from_face(face, device, skin)
    bigger = read_bigger(config.distil, config.model.input_size, device) if config.distil else None
    state = TrainingState(config, face, device)
    for network in (state.model, *(bigger.members if bigger is not None else ())):
        network.extractor.mixed_precision = config.bfloat16
    if (seen := state.step * config.batch.size) > config.pictures:
        raise UsageError(
            f"{config.run} has seen {seen} crops already; give --pictures {seen} or more, or another --run"
        )
    first = development_figures(state.average, config)  # reads everything that later evaluations need
    write_config(config.run, config)
    print(summary(state.model, config, device))
    if not state.step:
        print(f"at the start: {json.dumps(state.note(first))}")
    batches = iter(batch_loader(config, state.step))
    done = state.step * config.batch.size
    steps = config.pictures // config.batch.size
    total = steps * config.batch.size
    progress = tqdm(total=total, initial=done, unit="img", desc="training", smoothing=0.05)
    saved = evaluated = time.monotonic()
    with Interrupt() as interrupt:
        while state.step < steps and not interrupt.asked:
            batch = Batch(*(tensor.to(device, non_blocking=True) for tensor in next(batches)))
            state.set_learning_rate(learning_rate(config, state.step / steps))
            loss, terms = batch_loss(state, batch, teacher, bigger, config)
            state.learn(loss, config.average)
            state.count({"loss": loss.detach(), **terms})
            progress.update(config.batch.size)
            if state.step % 50 == 0:
                progress.set_postfix({name: f"{state.running[name]:.2f}" for name in ("loss", "landmarks", "motion")})
            now = time.monotonic()
            if now - evaluated > 60 * config.evaluate_minutes:
                evaluated = now
                progress.write(json.dumps(state.note(development_figures(state.average, config))))
            if now - saved > 60 * config.checkpoint_minutes:
                saved = now
                state.save()
    del batches  # this ends the process that makes them
    progress.close()
    if interrupt.asked:
        state.save()
        print(f"stopped; run the same command to resume from {state.checkpoint_path}")
        raise KeyboardInterrupt
    state.save()  # an interruption from here on loses nothing
    finished = with_habits(state.average, config.prepared / "photographs", config.folders)
    print(json.dumps(state.note(development_figures(finished, config))))
    state.save()
    save_weights(finished, state.weights_path)
    return state.weights_path


def summary(model: FaceModel, config: TrainConfig, device: torch.device) -> str:
    """Return a line that says what is trained, and which loss weights are not the defaults."""
    network, millions = config.model, sum(parameter.numel() for parameter in model.parameters()) / 1e6
    usual = LossWeights()
    weights = {field.name: getattr(config.loss, field.name) for field in fields(LossWeights)}
    changed = [f"{name} {value:g}" for name, value in weights.items() if value != getattr(usual, name)]
    return (
        f"training `{network.backbone}` at {network.input_size} px ({millions:.1f} M parameters, "
        f"{network.places} features of places) on {config.pictures} crops, on {device}; "
        f"loss weights: {', '.join(changed) if changed else 'the defaults'}"
    )


class TrainingState(Run):
    """The networks and the optimizer of a run, new or from a checkpoint."""

    def __init__(self, config: TrainConfig, face: MorphableFace, device: torch.device) -> None:
        """Start or resume. This takes minutes if a smaller backbone starts from a bigger one's weights.

        Raises UsageError for a checkpoint of another network and for unfit `config.init`, and ModelRefused for files
        that cannot be read.
        """
        super().__init__(config.run)
        self.weights_path = config.run / WEIGHTS_NAME
        model, taught = (FaceModel(config.model), False) if self.begun else start_model(config, face, device)
        self.model = in_channels_last(model.to(device))
        self.average = deepcopy(self.model).eval()
        self.skin_head = torch.nn.Linear(config.model.hidden, SKIN_CODE).to(device)
        torch.nn.init.zeros_(self.skin_head.weight)
        skin_group = {"params": list(self.skin_head.parameters()), "scale": config.output_rate}
        matrices, others = parameter_groups(self.model, config)
        self.optimizer = MuonWithAdamW(matrices, [*others, skin_group])
        parts: dict[str, Stateful] = {
            "model": self.model,
            "average": self.average,
            "skin_head": self.skin_head,
            "optimizer": self.optimizer,
        }
        if self.resume(parts):
            print(f"resuming {config.run} at {self.step * config.batch.size} of {config.pictures} pictures")
        elif taught:
            self.save()

    def set_learning_rate(self, rate: float) -> None:
        """Set the learning rate of each parameter group by its own scale."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["scale"] * rate

    def learn(self, loss: Tensor, average: float) -> None:
        """Take one gradient step, and update the running average. Raises FaceReconError where the training diverges."""
        take_step(self.optimizer, self.model, loss, self.step)
        update_average(self.average, self.model, min(average, (self.step + 1) / (self.step + 10)))

    def save(self) -> None:
        """Write checkpoint, curves and averaged weights, each completely or not at all."""
        super().save()
        save_weights(self.average, self.weights_path)


def batch_loss(
    state: TrainingState, batch: Batch, teacher: Teacher, bigger: FaceModelEnsemble | None, config: TrainConfig
) -> tuple[Tensor, Terms]:
    """Return the loss of a batch and its terms, from the network, its running average and the bigger network if there
    is one."""
    state.model.train()
    image = batch.image.float().contiguous(memory_format=torch.channels_last)
    output, codes = state.model.with_codes(image)
    skin_code = state.skin_head(codes.motion) if teacher.skin is not None else None
    rows = is_taught(batch)
    taught = (rows, mirrored_landmarks(state.average, image, rows)) if config.loss.teacher else None
    with torch.no_grad():
        lesson = bigger(image) if bigger is not None else None
    decoder = state.model.reconstructor
    return face_loss(output, codes, batch, config.batch.pairs, teacher, config.loss, skin_code, taught, lesson, decoder)


def batch_loader(config: TrainConfig, start: int) -> DataLoader[Batch]:
    """Return batches from step `start` on, which another process makes."""
    backgrounds = None if is_clean(config.prepared) else config.data / "backgrounds"
    # OpenCV's threads must end before the process is forked, because the fork would wait for them for ever.
    cv2.setNumThreads(1)
    batches = Batches(
        config.prepared,
        backgrounds,
        config.batch,
        config.augment,
        config.model.input_size,
        config.seed,
        start,
        config.folders,
    )
    return DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=6, worker_init_fn=leave_interrupts)


@torch.no_grad()
def mirrored_landmarks(model: FaceModel, image: Tensor, rows: Tensor) -> Tensor:
    """Return landmarks (N, 68, 2), crop pixels, of mirrored pictures (N, 3, S, S), mirrored back.

    Only `rows` (N,) bool are computed; the others are 0. The model is a mean teacher (Tarvainen and Valpola, NeurIPS
    2017), and the flip makes it independent.
    """
    seen = image.new_zeros(len(image), 68, 2)
    if not rows.any():
        return seen
    points = model(image[rows].flip(3).contiguous(memory_format=torch.channels_last)).landmarks[:, IBUG_MIRROR, :2]
    points[:, :, 0] = image.shape[3] - 1 - points[:, :, 0]
    seen[rows] = points
    return seen


def leave_interrupts(worker: int) -> None:
    """Ignore Ctrl-C in the loader's process, because the batches of the last step are still needed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def default_terms(prepared: Path, *others: Path | None) -> str:
    """Return the permitted use of weights.

    It is any purpose only if the data are clean, and so are the weights that the run starts or learns from.
    """
    clean = all(load_weights(path).config.terms == CLEAN_TERMS for path in others if path is not None)
    return CLEAN_TERMS if is_clean(prepared) and clean else RESEARCH_TERMS


def read_bigger(paths: Sequence[Path], input_size: int, device: torch.device) -> FaceModelEnsemble:
    """Return the networks to learn from, as an ensemble. Raises UsageError if a network takes crops of another size."""
    members = [load_weights(path) for path in paths]
    for path, member in zip(paths, members, strict=True):
        if member.config.input_size != input_size:
            raise UsageError(
                f"--distil {path} takes crops of {member.config.input_size} pixels, but the run {input_size}; give "
                f"--size {member.config.input_size}"
            )
    return in_channels_last(FaceModelEnsemble(members).to(device)).eval()


def choose_device(name: str) -> torch.device:
    """Return a device; auto is the GPU if there is one. Raises UsageError for a missing GPU and for an unknown name."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UsageError(f"--device {name} is not supported; give auto, cpu, cuda, or cuda:1 for the second GPU")
    device = torch.device(name)
    if device.type == "cuda" and not (0 <= (device.index or 0) < (count := torch.cuda.device_count())):
        raise UsageError(f"--device {name}: PyTorch finds {count or 'no'} GPU{'s' * (count > 1)}; use --device auto")
    return device


def start_model(config: TrainConfig, face: MorphableFace, device: torch.device) -> tuple[FaceModel, bool]:
    """Return the FaceModel that a run starts with, and whether its blocks were taught, which takes minutes.

    Without config.init, the decoders are fitted to random faces. With config.init the model takes over its weights: all
    of them, or the layers in common with another backbone. Raises UsageError for weights of another configuration, or
    for a network that the run cannot start from.
    """
    torch.manual_seed(config.seed)
    if config.init is None:
        model = FaceModel(config.model)
        fit_decoders(model, face, np.random.default_rng(config.seed))
        return model, False
    trained = load_weights(config.init)
    own = config.model
    if replace(own, shape_code=trained.config.shape_code, hidden=trained.config.hidden) != own:
        raise UsageError(
            f"{config.init} has the configuration {trained.config}, but the run has {config.model}; give matching "
            "options"
        )
    # This asymmetry belongs to the initial network. The run measures its own at the end.
    trained.reconstructor.asymmetry.zero_()
    if replace(trained.config, terms=own.terms) != own:
        model = FaceModel(own)
        return model, shrink(trained, model, config, device)
    trained.config = config.model
    return trained, False


def shrink(trained: FaceModel, model: FaceModel, config: TrainConfig, device: torch.device) -> bool:
    """Copy the blocks that `model` has in common with `trained`, and teach its first blocks to replace the trained
    ones.

    Returns whether there were blocks to teach. Raises UsageError if a block has no counterpart to start from.
    """
    backbones = f"`{trained.config.backbone}`", f"`{config.model.backbone}`"
    try:
        own, theirs = take_over(model, trained)
        first = f", but the first {own}," if own else ""
        print(f"{config.init} is {backbones[0]}: its blocks in common with {backbones[1]}{first} are taken over")
        if model.config.places != trained.config.places:
            print(f"{model.config.places} features of places are new, and are not read at first")
        if own:
            blocks, originals = (
                in_channels_last(torch.nn.Sequential(*list(network.extractor.backbone)[:count]).to(device))
                for network, count in ((model, own), (trained, theirs))
            )
            missed = imitate(blocks, originals, iter(batch_loader(config, 0)), config.hints)
            print(f"the first {own} blocks now differ by {missed:.3f} of the variance")
    except ValueError as error:
        raise UsageError(f"--init {config.init} ({backbones[0]}) cannot start {backbones[1]}: {error}") from error
    except KeyboardInterrupt:
        print("stopped before the first blocks were trained; the same command starts with them again")
        raise
    return own > 0


def fit_decoders(model: FaceModel, face: MorphableFace, random: np.random.Generator, count: int = 3000) -> None:
    """Start the linear decoders, which training refines.

    The shape decoder gets principal components of random neutral faces. The expression decoder gets the least-squares
    map from random blendshape weights to offsets.
    """
    reconstructor = model.reconstructor
    weights = random.normal(size=(count, len(face.identity))).astype(np.float32)
    # The faces span as many dimensions as there are modes. Principal components are found there, not over all vertices.
    span, coordinates = np.linalg.qr(face.identity.reshape(len(face.identity), -1).T)
    shapes = weights @ coordinates.T
    _, values, vectors = np.linalg.svd(shapes - shapes.mean(0), full_matrices=False)
    mean = span @ shapes.mean(0)
    basis = (vectors[: model.config.shape_code] * (values[: model.config.shape_code, None] / np.sqrt(count))) @ span.T
    expression = random.uniform(size=(count // 5, len(face.expression))).astype(np.float32)
    offsets = expression @ face.expression.reshape(len(face.expression), -1)
    solution, *_ = np.linalg.lstsq(expression, offsets, rcond=None)
    with torch.no_grad():
        reconstructor.mean.copy_(torch.from_numpy(face.mean.ravel() + mean))
        reconstructor.shape_basis.copy_(torch.from_numpy(basis))
        reconstructor.expression_basis.copy_(torch.from_numpy(solution))


def parameter_groups(model: FaceModel, config: TrainConfig) -> tuple[list[Group], list[Group]]:
    """Return the parameter groups of Muon and of AdamW with their weight decay and relative learning rate.

    Muon trains the hidden layers, and slowly the direct map from features to the shape code. Weights decay, biases and
    normalisation do not. The output layers learn slowly, because one step of Adam moves a camera by its rate times all
    hidden units at once. The decoders learn more slowly still and do not decay.
    """
    reconstructor = model.reconstructor
    decoder = [reconstructor.mean, reconstructor.shape_basis, reconstructor.expression_basis]
    layers = (
        reconstructor.identity[-1],
        reconstructor.expression,
        reconstructor.camera,
        reconstructor.confidence,
        reconstructor.annotation,
        *((reconstructor.gaze, reconstructor.precision) if reconstructor.has_gaze else ()),
    )
    outputs = [parameter for layer in layers for parameter in layer.parameters()]
    direct = [] if reconstructor.direct_identity is None else list(reconstructor.direct_identity.parameters())
    apart = {id(parameter) for parameter in (*decoder, *outputs, *direct)}
    others = [parameter for parameter in model.parameters() if id(parameter) not in apart]
    weights = [p for p in others if p.ndim > 1]
    matrices = [p for p in weights if is_matrix(p)]
    return [
        {"params": matrices, "weight_decay": config.weight_decay, "scale": 1.0},
        {"params": direct, "weight_decay": config.weight_decay, "scale": config.direct_rate},
    ], [
        {"params": [p for p in weights if not is_matrix(p)], "weight_decay": config.weight_decay, "scale": 1.0},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0, "scale": 1.0},
        {"params": outputs, "weight_decay": 0.0, "scale": config.output_rate},
        {"params": decoder, "weight_decay": 0.0, "scale": config.decoder_rate},
    ]


def learning_rate(config: TrainConfig, done: float) -> float:
    """Return the learning rate at a share `done` of the run: a linear rise, then half a cosine to a hundredth."""
    if done < config.warmup:
        return config.learning_rate * done / config.warmup
    along = (done - config.warmup) / (1 - config.warmup)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * along)))


@torch.no_grad()
def update_average(average: FaceModel, model: FaceModel, decay: float) -> None:
    """Update the exponential moving average of the weights (Polyak and Juditsky 1992). Counts are copied."""
    current: dict[str, Tensor] = model.state_dict()
    for name, tensor in average.state_dict().items():
        if tensor.dtype.is_floating_point:
            tensor.lerp_(current[name], 1 - decay)
        else:
            tensor.copy_(current[name])


def development_figures(model: FaceModel, config: TrainConfig) -> dict[str, float]:
    """Return figures of the development benchmark and of held-out rendered people, computed in a few seconds."""
    figures = people_figures(predict_people(model, config.prepared / "people" / "held-out", limit=200))
    if (folder := development_folder(config)) is not None:
        figures |= evaluate_landmarks(model, islice(annotated_photographs(folder), MOST_PHOTOGRAPHS))
    return {name: round(value, 4) for name, value in figures.items()}


def development_folder(config: TrainConfig) -> Path | None:
    """Return the folder of photographs that is evaluated during training: config.development, or else the first whose
    name ends in -test and that holds annotated photographs. None if there is none."""
    faces = config.data / "faces"
    for folder in (faces / config.development, *sorted(faces.glob(f"*{TEST_SUFFIX}"))):
        with suppress(SourceError):
            if folder.is_dir() and next(annotated_photographs(folder), None) is not None:
                return folder
    return None

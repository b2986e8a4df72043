"""The training loop on a dozen drawn faces: the loss falls, and a stopped run ends like one that never stopped."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from facerecon_rt.errors import FaceReconError, ModelRefused, SourceError, UsageError
from facerecon_training import train as train_module
from facerecon_training.augment import AugmentConfig
from facerecon_training.backbones import BACKBONES
from facerecon_training.checkpoint import load_checkpoint, load_weights, save_weights
from facerecon_training.config import CLEAN_TERMS, RESEARCH_TERMS, TrainConfig
from facerecon_training.data import Batch, BatchConfig
from facerecon_training.losses import LossWeights
from facerecon_training.model import FaceModel, ModelConfig
from facerecon_training.optimizer import is_matrix
from facerecon_training.rendered.morphable import MorphableFace
from facerecon_training.shrink import imitate
from facerecon_training.train import (
    TrainingState,
    choose_device,
    default_terms,
    development_folder,
    fit_decoders,
    learning_rate,
    parameter_groups,
    start_model,
    summary,
    train,
    update_average,
)

STEPS = 100


@pytest.fixture
def config(prepared: Path, data: Path, tmp_path: Path) -> TrainConfig:
    return tiny_config(prepared, data, tmp_path / "run")


def tiny_config(prepared: Path, data: Path, run: Path) -> TrainConfig:
    batch = BatchConfig(
        rendered_pairs=2, person_pairs=1, photograph_pairs=0, photographs=1, backgrounds=1, head_poses=0
    )
    return TrainConfig(
        prepared=prepared,
        data=data,
        run=run,
        pictures=STEPS * batch.size,
        threads=1,
        device="cpu",
        checkpoint_minutes=60,
        evaluate_minutes=60,
        model=ModelConfig("tiny", 64, shape_code=8, hidden=16, terms="for tests"),
        learning_rate=1e-2,
        batch=batch,
        augment=AugmentConfig(roll_deg=3, grey=0, blur=0, low_resolution=0, jpeg=0, cut=0, half_hidden=0, dark=0),
    )


def test_the_first_line_says_what_is_trained_and_with_which_weights(config: TrainConfig) -> None:
    model, device = FaceModel(ModelConfig("compact", 128)), torch.device("cpu")
    started = replace(config, model=model.config, pictures=5000)
    assert summary(model, started, device) == (
        "training `compact` at 128 px (2.9 M parameters, 128 features of places) on 5000 crops, on cpu; "
        "loss weights: the defaults"
    )
    other = replace(started, loss=LossWeights(shape=1.5, person=12))
    assert summary(model, other, device).endswith("; loss weights: shape 1.5, person 12")


def assert_same_weights(a: Path, b: Path) -> None:
    one, other = load_weights(a).state_dict(), load_weights(b).state_dict()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=0, rtol=0)


@pytest.fixture(scope="module")
def finished(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "data").mkdir()
    config = tiny_config(prepared, backgrounds(folder / "data"), folder / "run")
    torch.set_num_threads(1)
    assert train(config) == folder / "run" / "face.safetensors"
    assert multiprocessing.active_children() == []  # the process that made the batches has ended
    return folder / "run"


def backgrounds(data: Path) -> Path:
    """A data folder that holds one background and nothing else."""
    (data / "backgrounds").mkdir(parents=True)
    picture = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    cv2.imwrite(str(data / "backgrounds" / "noise.jpg"), picture)
    return data


def test_the_loss_falls(finished: Path) -> None:
    entries = load_checkpoint(finished / "checkpoint.pt")["log"]
    losses = [entry for entry in entries if "loss" in entry]
    assert [entry["step"] for entry in losses] == [50, 100]
    assert losses[1]["loss"] < 0.95 * losses[0]["loss"]
    assert losses[1]["expression"] < losses[0]["expression"]
    # Gaze, weak labels, irises and the certainty of the code are part of it.
    assert {"gaze", "weak_expression", "eyes", "identity"} <= set(losses[0])
    assert all(losses[0][name] > 0 for name in ("gaze", "weak_expression", "eyes"))


def test_a_run_leaves_weights_configuration_curves_and_figures(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "checkpoint.pt",
        "config.json",
        "curves.png",
        "face.safetensors",
    }
    config = json.loads((finished / "config.json").read_text())
    assert config["model"]["backbone"] == "tiny"
    assert config["loss"]["landmarks"] > 0
    assert load_weights(finished / "face.safetensors").config.terms == "for tests"
    figures = load_checkpoint(finished / "checkpoint.pt")["log"][-1]
    assert figures["step"] == STEPS
    assert figures["shape_mm"] > 0
    assert 0 < figures["gaze_deg"] < 60
    assert (finished / "curves.png").read_bytes()[:4] == b"\x89PNG"


def stopped(config: TrainConfig, steps: int, number: signal.Signals) -> int:
    """Start or resume the run in a process group of its own, send the group a signal in the middle of a step, after
    some whole ones -> the step of its checkpoint."""
    process = multiprocessing.get_context("fork").Process(target=_in_own_group, args=(config, steps, number))
    process.start()
    process.join()
    assert process.exitcode == (-signal.SIGKILL if number == signal.SIGKILL else 1)
    return int(load_checkpoint(config.run / "checkpoint.pt")["step"])


def _in_own_group(config: TrainConfig, steps: int, number: signal.Signals) -> None:
    os.setsid()
    learn, begun = TrainingState.learn, repeat(None, steps)

    def signalled(state: TrainingState, loss: torch.Tensor, average: float) -> None:
        if next(begun, number):
            os.killpg(0, number)  # Ctrl-C reaches the loader's process as well
        learn(state, loss, average)

    TrainingState.learn = signalled  # type: ignore[method-assign, assignment]
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere), redirect_stdout(nowhere):
        train(config)


def test_a_run_interrupted_and_killed_ends_with_the_weights_of_one_that_was_not(prepared: Path, tmp_path: Path) -> None:
    config = tiny_config(prepared, backgrounds(tmp_path / "data"), tmp_path / "run")
    config = replace(config, pictures=10 * config.batch.size)
    uninterrupted = replace(config, run=tmp_path / "uninterrupted")
    train(uninterrupted)
    # Interrupted, it ends its step and saves it; killed, it goes on from what it saved after the step before.
    assert stopped(config, 3, signal.SIGINT) == 4
    assert stopped(replace(config, checkpoint_minutes=0), 2, signal.SIGKILL) == 6
    train(config)
    assert_same_weights(config.run / "face.safetensors", uninterrupted.run / "face.safetensors")
    resumed, whole = (load_checkpoint(one.run / "checkpoint.pt") for one in (config, uninterrupted))
    for name in ("step", "log", "running"):
        assert resumed[name] == whole[name]


def test_a_finished_run_stays_as_it_is(finished: Path, prepared: Path, tmp_path: Path) -> None:
    config = tiny_config(prepared, backgrounds(tmp_path / "data"), finished)
    shutil.copy(finished / "face.safetensors", tmp_path / "before.safetensors")
    before = load_checkpoint(finished / "checkpoint.pt")["log"]
    train(config)
    assert_same_weights(finished / "face.safetensors", tmp_path / "before.safetensors")
    assert load_checkpoint(finished / "checkpoint.pt")["log"] == before


def test_photographs_that_cannot_be_evaluated_are_named_before_training(config: TrainConfig, tmp_path: Path) -> None:
    folder = config.data / "faces" / config.development
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        (folder / f"{name}.pts").write_text("{" + "".join(f"{9 * i} {8 * i}\n" for i in range(49)) + "}")
        (folder / f"{name}.jpg").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"a\.jpg"):
        train(config)
    assert not (config.run / "config.json").exists()


def test_a_run_that_diverges_says_so_and_keeps_its_weights(config: TrainConfig) -> None:
    diverging = replace(config, learning_rate=1e30, output_rate=1e6, checkpoint_minutes=0.0)
    with pytest.raises(FaceReconError, match=r"diverged: at step \d+, .*; resume with a lower --learning-rate"):
        train(diverging)
    load_weights(config.run / "face.safetensors")  # refuses numbers that are not finite


def test_a_run_starts_from_other_weights(finished: Path, config: TrainConfig) -> None:
    init = finished / "face.safetensors"
    train(replace(config, init=init, pictures=0))
    assert_same_weights(config.run / "face.safetensors", init)


def test_a_run_starts_from_what_a_bigger_backbone_has_in_common(config: TrainConfig, ball_face: MorphableFace) -> None:
    bigger, init = FaceModel(replace(config.model, backbone="mobile")), config.run.parent / "bigger.safetensors"
    torch.nn.init.normal_(bigger.reconstructor.mean, std=40)
    save_weights(bigger, init)
    smaller = replace(config, init=init, model=replace(config.model, backbone="compact"))
    found, taught = start_model(replace(smaller, hints=3 * config.batch.size), ball_face, torch.device("cpu"))
    assert taught
    theirs, own = bigger.extractor.backbone, found.extractor.backbone
    # Index of each of the smaller one's blocks among the bigger one's: all but the first, and the two left out.
    for place, original in enumerate((2, 3, 4, 5, 7, 8, 10), 1):
        for name, tensor in theirs[original].state_dict().items():
            torch.testing.assert_close(own[place].state_dict()[name], tensor, atol=0, rtol=0)
    torch.testing.assert_close(found.reconstructor.camera.weight, bigger.reconstructor.camera.weight, atol=0, rtol=0)


@pytest.mark.parametrize("backbone", ["mobile", "compact"])
def test_what_a_mirror_lost_of_the_first_weights_is_not_said_of_the_run(
    config: TrainConfig, ball_face: MorphableFace, backbone: str
) -> None:
    model = replace(config.model, backbone=backbone)
    start, init = FaceModel(replace(config.model, backbone="mobile")), config.run.parent / "start.safetensors"
    start.reconstructor.asymmetry.fill_(1.0)
    save_weights(start, init)
    begun, _ = start_model(replace(config, init=init, model=model, hints=0), ball_face, torch.device("cpu"))
    assert not begun.reconstructor.asymmetry.any()


def test_a_smaller_backbones_run_goes_on_from_what_its_first_blocks_learnt(config: TrainConfig) -> None:
    bigger, init = FaceModel(replace(config.model, backbone="mobile")), config.run.parent / "bigger.safetensors"
    torch.nn.init.normal_(bigger.reconstructor.mean, std=40)
    save_weights(bigger, init)
    model = replace(config.model, backbone="compact")
    stopped = replace(config, init=init, pictures=0, model=model, hints=3 * config.batch.size)
    whole = replace(stopped, pictures=3 * config.batch.size, run=config.run.parent / "whole")
    train(stopped)
    train(replace(whole, run=stopped.run))
    train(whole)
    assert_same_weights(stopped.run / "face.safetensors", whole.run / "face.safetensors")


def test_a_bigger_backbone_and_bigger_crops_start_from_all_of_a_smaller_ones(
    config: TrainConfig, ball_face: MorphableFace
) -> None:
    smaller, init = FaceModel(replace(config.model, backbone="compact")), config.run.parent / "smaller.safetensors"
    torch.nn.init.normal_(smaller.reconstructor.mean, std=40)
    save_weights(smaller, init)
    bigger = replace(config, init=init, model=replace(config.model, backbone="medium", input_size=96))
    found, _ = start_model(bigger, ball_face, torch.device("cpu"))
    assert (found.config.backbone, found.config.input_size) == ("medium", 96)
    torch.testing.assert_close(found.reconstructor.mean, smaller.reconstructor.mean, atol=0, rtol=0)
    theirs, own = smaller.extractor.backbone, found.extractor.backbone
    for place, original in ((0, 0), (4, 3), (10, 7)):
        for name, tensor in theirs[original].state_dict().items():
            torch.testing.assert_close(own[place].state_dict()[name], tensor, atol=0, rtol=0)


def test_weights_of_before_gaze_and_places_are_a_start(config: TrainConfig) -> None:
    init = config.run.parent / "older.safetensors"
    older = FaceModel(replace(config.model, gaze=False, places=0))
    torch.nn.init.normal_(older.reconstructor.mean, std=40)
    save_weights(older, init)
    train(replace(config, init=init, pictures=2 * config.batch.size))
    found = load_weights(config.run / "face.safetensors")
    assert found.config.gaze
    assert found.config.places == config.model.places > 0
    assert load_checkpoint(config.run / "checkpoint.pt")["running"]["gaze"] > 0
    assert found.reconstructor.mean.std() > 20


def test_a_start_of_another_kind_of_network_is_refused(config: TrainConfig) -> None:
    init = config.run.parent / "other.safetensors"
    save_weights(FaceModel(replace(config.model, backbone="resnet18")), init)
    with pytest.raises(UsageError, match=r"cannot start `mobile`: the two backbones have no block in common"):
        train(replace(config, init=init, model=replace(config.model, backbone="mobile")))


def test_the_first_blocks_of_a_smaller_backbone_learn_what_the_bigger_ones_do() -> None:
    torch.manual_seed(0)
    bigger, smaller = torch.nn.Sequential(*list(BACKBONES["mobile"]())[:2]), BACKBONES["compact"]()
    random = np.random.default_rng(0)
    # Smooth pictures, as faces are: noise of 4x4 pixels made bigger.
    pictures = [cv2.resize(random.integers(0, 256, (4, 4, 3)).astype(np.uint8), (32, 32)) for _ in range(64)]
    image = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    bigger.train()
    for _ in range(50):  # statistics of these pictures, as a trained one has them
        bigger(image / 128)
    bigger.eval()
    batch = Batch(image, *[torch.zeros(0)] * (len(Batch._fields) - 1))
    error = imitate(smaller[0], bigger, repeat(batch), 200 * len(image))
    assert error < 0.3  # 1 is what a constant gives


def test_a_network_with_nothing_in_common_is_no_start(finished: Path, config: TrainConfig) -> None:
    other = replace(config, init=finished / "face.safetensors", model=replace(config.model, backbone="compact"))
    with pytest.raises(UsageError, match=r"cannot start `compact`: it gives 16 features, not 512"):
        train(other)


def test_a_run_learns_from_a_bigger_network_of_the_same_size(finished: Path, config: TrainConfig) -> None:
    bigger = finished / "face.safetensors"
    train(replace(config, distil=(bigger, bigger), pictures=3 * config.batch.size))
    assert load_checkpoint(config.run / "checkpoint.pt")["running"]["distillation"] > 0
    with pytest.raises(UsageError, match=r"--distil .* takes crops of 64 pixels, but the run 96; give --size 64"):
        train(replace(config, distil=(bigger,), run=config.run / "other", model=replace(config.model, input_size=96)))


def test_a_run_in_bfloat16_learns_much_the_same(finished: Path, config: TrainConfig) -> None:
    train(replace(config, bfloat16=True))
    logs = [load_checkpoint(run / "checkpoint.pt")["log"][-1] for run in (config.run, finished)]
    assert logs[0]["rmse_mm"] == pytest.approx(logs[1]["rmse_mm"], rel=0.1)
    assert logs[0] != logs[1]


def test_a_run_never_replaces_the_weights_that_it_learns_from(finished: Path, config: TrainConfig) -> None:
    weights = finished / "face.safetensors"
    before = weights.read_bytes()
    for learning in ({"init": weights}, {"distil": (weights,)}):
        with pytest.raises(UsageError, match=r"face\.safetensors is an input and would be overwritten"):
            train(replace(config, run=finished / ".." / finished.name, **learning))
    assert weights.read_bytes() == before


def test_weights_of_another_configuration_are_no_start(finished: Path, config: TrainConfig) -> None:
    other = replace(config, init=finished / "face.safetensors", model=replace(config.model, hidden=32))
    with pytest.raises(UsageError, match=r"face\.safetensors has .*hidden=16.* the run has .*hidden=32"):
        train(other)


def test_a_run_of_another_network_is_not_resumed(finished: Path, config: TrainConfig) -> None:
    other = replace(config, run=finished, model=replace(config.model, hidden=32))
    with pytest.raises(UsageError, match=r"was begun with model\.hidden = \d+, not 32"):
        train(other)
    # Weights that are for research only stay so.
    with pytest.raises(UsageError, match=r"was begun with model\.terms = for tests, not any purpose"):
        train(replace(config, run=finished, model=replace(config.model, terms="any purpose")))


def test_a_run_does_not_claim_fewer_crops_than_it_saw(finished: Path, config: TrainConfig) -> None:
    before = (finished / "config.json").read_text()
    with pytest.raises(UsageError, match=r"has seen \d+ crops already"):
        train(replace(config, run=finished, pictures=config.batch.size))
    assert (finished / "config.json").read_text() == before


def test_an_interruption_after_the_last_step_loses_nothing(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    short = replace(config, pictures=2 * config.batch.size)
    with monkeypatch.context() as context:
        context.setattr(train_module, "with_habits", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(short)
    assert load_checkpoint(config.run / "checkpoint.pt")["step"] == 2
    assert train(short).is_file()


def test_another_folder_of_test_photographs_is_evaluated_where_ours_is_missing(config: TrainConfig) -> None:
    faces = config.data / "faces"
    assert development_folder(config) is None
    for name in ("empty-test", "mine-test", "mine", config.development):
        (faces / name).mkdir(parents=True)
    assert development_folder(config) is None
    for name in ("mine", "mine-test"):
        cv2.imwrite(str(faces / name / "a.png"), np.zeros((9, 9, 3), np.uint8))
        points = "".join(f"{i + 1} {i * i % 60}\n" for i in range(68))
        (faces / name / "a.pts").write_text(f"version: 1\nn_points: 68\n{{\n{points}}}\n")
    assert development_folder(config) == faces / "mine-test"
    shutil.copytree(faces / "mine", faces / config.development, dirs_exist_ok=True)
    assert development_folder(config) == faces / config.development


def test_without_backgrounds_the_run_says_so_before_it_starts(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere/backgrounds holds no \.jpg"):
        train(replace(config, data=tmp_path / "nowhere"))
    assert not config.run.exists()


def test_clean_data_need_no_photograph_to_train_on(config: TrainConfig, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    clean.mkdir()
    for name in ("people", "face.npz"):
        (clean / name).symlink_to(config.prepared / name)
    (clean / "prepare.json").write_text('{"clean": true}')
    (tmp_path / "bare").mkdir()
    train(replace(config, prepared=clean, data=tmp_path / "bare", pictures=3 * config.batch.size))
    state = load_checkpoint(config.run / "checkpoint.pt")
    assert state["step"] == 3
    assert state["running"]["landmarks"] == 0
    assert state["running"]["projection"] > 0


def test_a_folder_that_was_not_prepared_is_named(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no prepared data; run `facerecon-train prepare --out"):
        train(replace(config, prepared=tmp_path / "nowhere"))
    assert not config.run.exists()


def test_weights_are_for_any_purpose_only_if_everything_was_clean(finished: Path, tmp_path: Path) -> None:
    clean, photographed = tmp_path / "clean", tmp_path / "photographed"
    for folder in (clean, photographed):
        folder.mkdir()
        (folder / "prepare.json").write_text(json.dumps({"clean": folder == clean}))
    assert default_terms(clean, None) == CLEAN_TERMS
    assert default_terms(photographed, None) == RESEARCH_TERMS
    assert default_terms(tmp_path, None) == RESEARCH_TERMS
    assert default_terms(clean, finished / "face.safetensors") == RESEARCH_TERMS
    assert default_terms(clean, None, finished / "face.safetensors") == RESEARCH_TERMS
    with pytest.raises(ModelRefused, match="no weights at"):
        default_terms(clean, tmp_path / "missing.safetensors")


def test_decoders_start_as_the_morphable_face(ball_face: MorphableFace) -> None:
    torch.manual_seed(0)
    model = FaceModel(ModelConfig("tiny", 64, shape_code=20))
    fit_decoders(model, ball_face, np.random.default_rng(0), count=500)
    reconstructor = model.reconstructor
    apart = (reconstructor.mean.detach().numpy() - ball_face.mean.ravel()).reshape(-1, 3)
    assert np.abs(apart).max() < 1
    np.testing.assert_allclose(
        reconstructor.expression_basis.detach().numpy(), ball_face.expression.reshape(53, -1), atol=1e-3
    )
    # Twenty components span the twenty modes.
    modes, basis = ball_face.identity[:20].reshape(20, -1), reconstructor.shape_basis.detach().numpy()
    explained = np.linalg.lstsq(basis.T, modes.T, rcond=None)[0]
    np.testing.assert_allclose(basis.T @ explained, modes.T, atol=1e-2)


def test_the_learning_rate_rises_then_falls_to_a_hundredth(config: TrainConfig) -> None:
    rate = config.learning_rate
    assert learning_rate(config, 0) == 0
    assert learning_rate(config, config.warmup / 2) == pytest.approx(rate / 2)
    assert learning_rate(config, config.warmup) == pytest.approx(rate)
    assert learning_rate(config, (1 + config.warmup) / 2) == pytest.approx(rate * (0.01 + 0.99 / 2))
    assert learning_rate(config, 1) == pytest.approx(rate / 100)


def test_every_weight_is_in_one_group_and_only_matrices_decay(config: TrainConfig) -> None:
    model = FaceModel(config.model)
    matrices, others = parameter_groups(model, config)
    groups = [*matrices, *others]
    assert all(is_matrix(p) for group in matrices for p in group["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    decaying = [group for group in groups if group["weight_decay"]]
    assert all(p.ndim > 1 for group in decaying for p in group["params"])
    assert model.reconstructor.direct_identity is not None
    direct = model.reconstructor.direct_identity.weight
    for group in decaying:
        assert group["scale"] == (config.direct_rate if any(p is direct for p in group["params"]) else 1.0)
    (decoder,) = (group for group in groups if any(p is model.reconstructor.mean for p in group["params"]))
    assert (decoder["scale"], decoder["weight_decay"]) == (config.decoder_rate, 0.0)


def test_the_average_moves_by_one_minus_the_decay(config: TrainConfig) -> None:
    average, model = FaceModel(config.model), FaceModel(config.model)
    with torch.no_grad():
        average.reconstructor.mean.fill_(1.0)
        model.reconstructor.mean.fill_(3.0)
    count = "extractor.pool.1.num_batches_tracked"
    model.state_dict()[count].fill_(7)
    update_average(average, model, 0.75)
    torch.testing.assert_close(average.reconstructor.mean, torch.full_like(average.reconstructor.mean, 1.5))
    assert average.state_dict()[count] == 7


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named() -> None:
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(UsageError, match="--device cuda: PyTorch finds no GPU; use --device auto"):
        choose_device("cuda")
    for name in ("mps", "xpu", "meta", "gpu", "cuda:x"):
        with pytest.raises(UsageError, match="give auto, cpu, cuda"):
            choose_device(name)

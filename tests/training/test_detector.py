"""Pictures to face boxes: targets and losses by hand-worked numbers, labels that move along, runs that resume."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from facerecon_rt.align import BOX_SIDE_MM
from facerecon_rt.detect import decode
from facerecon_rt.errors import ModelRefused, UsageError
from facerecon_rt.template import load_template
from facerecon_rt.types import Detection, Floats
from facerecon_training import detector_train
from facerecon_training.detector import FaceDetectorNet, box_loss, detector_loss, heat_loss, make_targets
from facerecon_training.detector_config import DetectorConfig
from facerecon_training.detector_data import (
    DetectorCache,
    box_from_landmarks,
    build_cache,
    label_photograph,
)
from facerecon_training.detector_scenes import SceneMaker, move_labels, share_covered, similarity, warp
from facerecon_training.detector_train import (
    evaluate_detector,
    load_weights,
    save_weights,
    schedule,
    train_detector,
)
from safetensors.torch import save_file


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads beside another busy program are many times slower than one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def labels(*rows: tuple[float, float, float, float]) -> Floats:
    return np.array(rows, np.float32).reshape(-1, 4)


# Targets


def test_a_face_in_the_middle_of_a_cell_is_one_peak_there() -> None:
    targets = make_targets(labels((19.5, 11.5, 32, 1)), 32, 64)
    assert targets.shape == (6, 4, 8)
    assert targets[0, 1, 2] == 1.0
    # Sigma is 0.45 cells, as 0.11 x 32 pixels are fewer; the next cell is 8 pixels away.
    assert targets[0, 1, 3] == pytest.approx(math.exp(-(8**2) / (2 * 3.6**2)), rel=1e-5)
    np.testing.assert_allclose(targets[1:5, 1, 2], [0, 0, 0, 1], atol=1e-6)
    assert targets[4].sum() == pytest.approx(1.0)


def test_a_large_face_is_learnt_by_the_cells_around_its_centre_too() -> None:
    targets = make_targets(labels((20.5, 11.5, 64, 1)), 32, 64)
    # The cell to the right has its middle at 27.5: the centre is 7 pixels, 7 / 64 sides, to its left.
    np.testing.assert_allclose(targets[1:4, 1, 3], [-7 / 64, 0, math.log(2)], atol=1e-6)
    assert 0 < targets[4, 1, 3] < targets[4, 1, 2]
    assert targets[4].sum() == pytest.approx(1.0)


def test_a_region_to_ignore_does_not_count_but_a_known_face_in_it_does() -> None:
    targets = make_targets(labels((31.5, 31.5, 48, 0), (27.5, 27.5, 10, 1)), 64, 64)
    assert targets[5, 4, 4] == 0.0
    assert targets[5, 3, 3] == 1.0
    assert targets[5, 0, 0] == 1.0


def test_where_faces_overlap_the_smaller_one_decides() -> None:
    targets = make_targets(labels((27.5, 27.5, 16, 1), (35.5, 27.5, 128, 1)), 64, 64)
    assert targets[3, 3, 3] == pytest.approx(math.log(0.5))
    assert targets[3, 3, 4] == pytest.approx(math.log(4))


def test_faces_outside_the_picture_are_no_targets() -> None:
    assert make_targets(labels((-3, 10, 20, 1), (70, 10, 20, 1)), 64, 64)[:5].max() == 0.0


def test_decoding_what_the_cells_should_say_gives_the_faces_back() -> None:
    faces = labels((21.3, 40.9, 12.5, 1), (90.2, 60.4, 55, 1))
    targets = make_targets(faces, 128, 128)
    boxes, _ = decode(targets[0], targets[1:4], 1.0)
    x, y, side = faces[:, 0], faces[:, 1], faces[:, 2]
    wanted = np.stack([x - side / 2, y - side / 2, x + side / 2, y + side / 2], axis=1)
    np.testing.assert_allclose(sorted(boxes.tolist()), sorted(wanted.tolist()), atol=1e-4)


# Losses


def test_the_heat_loss_is_focal_at_centres_and_lenient_beside_them() -> None:
    logits, counts = torch.zeros(1, 1, 3), torch.ones(1, 1, 3)
    heat = torch.tensor([[[1.0, 0.5, 0.0]]])
    # Score 0.5 everywhere: 0.25 x log 2 for the centre and for plain background, 0.5^4 of that beside the centre.
    wanted = 0.25 * math.log(2) * (1 + 0.5**4 + 1)
    assert heat_loss(logits, heat, counts).item() == pytest.approx(wanted, rel=1e-6)


def test_the_heat_loss_leaves_out_what_does_not_count_and_divides_by_the_faces() -> None:
    logits = torch.zeros(1, 1, 3)
    heat = torch.tensor([[[1.0, 1.0, 0.0]]])
    counts = torch.tensor([[[1.0, 1.0, 0.0]]])
    assert heat_loss(logits, heat, counts).item() == pytest.approx(0.25 * math.log(2), rel=1e-6)


def test_the_heat_loss_of_pictures_without_faces_is_finite() -> None:
    loss = heat_loss(torch.full((2, 4, 4), 80.0), torch.zeros(2, 4, 4), torch.ones(2, 4, 4))
    assert loss.item() == pytest.approx(16 * 80.0)


def test_the_box_loss_is_the_weighted_sum_of_absolute_errors_per_face() -> None:
    boxes = torch.tensor([0.1, -0.2, 0.3]).reshape(1, 3, 1, 1).expand(1, 3, 1, 2)
    weight = torch.tensor([[[0.75, 0.25]]])
    target = torch.zeros(1, 3, 1, 2)
    target[0, :, 0, 1] = torch.tensor([0.1, -0.2, 0.7])
    # Cell 0: 0.1 + 0.2 + 0.3; cell 1: 0.4.
    assert box_loss(boxes, target, weight).item() == pytest.approx(0.75 * 0.6 + 0.25 * 0.4, rel=1e-6)


def test_the_network_learns_a_picture_by_heart() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (2, 3, 64, 64)).astype(np.float32))
    faces = [labels((20, 30, 20, 1)), labels((45, 12, 40, 1))]
    targets = torch.from_numpy(np.stack([make_targets(f, 64, 64) for f in faces]))
    net = FaceDetectorNet(channels=(8, 8, 8, 8, 8), neck=8)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        logits, boxes = net(image)
        loss, _, _ = detector_loss(logits, boxes, targets, 4.0)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_outputs_have_a_cell_per_8_pixels_whatever_the_size() -> None:
    net = FaceDetectorNet(channels=(8, 8, 8, 8, 8), neck=8).eval()
    with torch.inference_mode():
        logits, boxes = net(torch.zeros(2, 3, 96, 160))
    assert logits.shape == (2, 12, 20)
    assert boxes.shape == (2, 3, 12, 20)


# Labels


def test_the_box_of_the_mean_face_has_its_size() -> None:
    landmarks = load_template().landmark_positions[:, :2] * [0.5, -0.5] + [100, 80]
    left, top, right, bottom = box_from_landmarks(np.asarray(landmarks, np.float32))
    assert right - left == pytest.approx(0.5 * BOX_SIDE_MM, rel=1e-4)
    assert bottom - top == pytest.approx(0.5 * BOX_SIDE_MM, rel=1e-4)


def seen(x: float, y: float, side: float, score: float) -> Detection:
    return Detection(np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32), score)


def test_other_faces_in_a_photograph_are_labelled_and_doubtful_ones_ignored() -> None:
    own = [100.0, 100.0, 60.0, 1.0]
    found = [seen(103, 98, 65, 0.95), seen(250, 80, 30, 0.9), seen(20, 30, 12, 0.5)]
    assert label_photograph(np.zeros((1, 1, 3), np.uint8), own, found, noisy=False) == [
        own,
        [250.0, 80.0, 30.0, 1.0],
        [20.0, 30.0, 12.0, 0.0],
    ]


def test_a_machine_made_annotation_that_yunet_contradicts_is_left_out() -> None:
    own = [100.0, 100.0, 60.0, 1.0]
    contradiction = [seen(118, 100, 60, 0.95)]
    image = np.zeros((1, 1, 3), np.uint8)
    assert label_photograph(image, own, contradiction, noisy=True) is None
    assert label_photograph(image, own, contradiction, noisy=False) == [own]


# Scenes


@pytest.mark.parametrize("scale", [0.3, 0.8, 2.0])
@pytest.mark.parametrize("flip", [False, True])
def test_a_label_moves_with_its_picture(scale: float, flip: bool) -> None:
    rows, columns = np.mgrid[:200, :240]
    spot = 255 * np.exp(-((columns - 90.0) ** 2 + (rows - 70.0) ** 2) / (2 * 5.0**2))
    image = np.repeat(spot[..., None], 3, 2).astype(np.uint8)
    matrix = similarity(scale, 0.5, flip, np.array([100.0, 80.0]), np.array([60.0, 75.0]))
    canvas = warp(image, matrix, scale, (128, 128), cv2.BORDER_CONSTANT)[..., 0].astype(np.float64)
    ((x, y, side, known),) = move_labels(labels((90, 70, 40, 1)), matrix, scale, 128)
    centre_y, centre_x = (np.indices(canvas.shape) * canvas).sum((1, 2)) / canvas.sum()
    assert (centre_x, centre_y) == pytest.approx((x, y), abs=0.1)
    assert (side, known) == pytest.approx((40 * scale, 1))


def test_labels_too_small_or_half_outside_are_ignored_and_those_outside_dropped() -> None:
    identity = similarity(1.0, 0.0, False, np.zeros(2), np.zeros(2))
    faces = labels((50, 50, 5, 1), (-3, 50, 20, 1), (-30, 50, 20, 1), (50, 50, 20, 0), (50, 50, 20, 1))
    assert [label[3] for label in move_labels(faces, identity, 1.0, 100)] == [0, 0, 0, 1]


def test_the_share_covered_is_that_of_the_box() -> None:
    assert share_covered([10, 10, 10, 1], 10, 0, 100, 100) == pytest.approx(0.5)
    assert share_covered([10, 10, 10, 1], 40, 40, 100, 100) == 0.0


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose cache holds twelve pictures of bright discs on noise, and two backgrounds."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "cache").mkdir()
    rng = np.random.default_rng(0)
    images, faces, groups = [], [], []
    for number in range(14):
        image = rng.integers(0, 120, (90, 100, 3)).astype(np.uint8)
        x, y, side = rng.uniform(30, 60), rng.uniform(30, 60), rng.uniform(20, 40)
        if number < 12:
            cv2.circle(image, (round(x), round(y)), round(side / 2), (255, 255, 255), -1)
            faces.append(labels((x, y, side, 1)))
        else:
            faces.append(labels())
        images.append(image)
        groups.append("helen-train" if number < 12 else "backgrounds")
    (folder / "cache" / "pixels.bin").write_bytes(b"".join(image.tobytes() for image in images))
    np.savez(
        folder / "cache" / "labels.npz",
        offsets=np.arange(14, dtype=np.int64) * images[0].size,
        sizes=np.tile(np.array([[90, 100]], np.int32), (14, 1)),
        groups=np.array(groups),
        held_out=np.arange(14) % 6 == 0,
        counts=np.array([len(f) for f in faces]),
        faces=np.concatenate(faces),
    )
    return folder


@pytest.fixture(scope="module")
def cache(run_folder: Path) -> DetectorCache:
    return build_cache(Path("/nowhere"), run_folder / "cache")


def test_the_cache_gives_pictures_and_their_labels_back(cache: DetectorCache) -> None:
    assert len(cache.faces) == 14
    for index in range(12):
        x, y, _, _ = cache.faces[index][0]
        assert cache.image(index)[round(float(y)), round(float(x))].min() == 255


def test_a_cache_without_data_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="FACERECON_DATA"):
        build_cache(tmp_path, tmp_path / "cache")


def test_the_scenes_of_a_step_are_always_the_same(cache: DetectorCache) -> None:
    first, again = (SceneMaker(cache, 128, seed=3).batch(7, 2) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(np.concatenate(first[1]), np.concatenate(again[1]))
    other, _ = SceneMaker(cache, 128, seed=3).batch(8, 2)
    assert not np.array_equal(first[0], other)


def test_scenes_hold_faces_of_many_sizes_inside_the_picture(cache: DetectorCache) -> None:
    images, faces = SceneMaker(cache, 128, seed=0).batch(0, 40)
    assert all(image.shape == (128, 128, 3) and image.dtype == np.uint8 for image in images)
    known = np.concatenate(faces)
    known = known[known[:, 3] > 0.5]
    assert known[:, :2].min() >= 0
    assert known[:, :2].max() <= 127.5
    assert known[:, 2].min() < 12
    assert known[:, 2].max() > 100


# Training


def test_the_learning_rate_rises_and_then_falls() -> None:
    rates = [schedule(step, 10, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == pytest.approx(1.0)
    assert rates == sorted(rates[:10]) + sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.02


def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(name: str) -> DetectorConfig:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        if not (folder / "cache").exists():
            (folder / "cache").symlink_to(run_folder / "cache")
        return DetectorConfig("/nowhere", str(folder), steps=4, batch=2, size=64, warmup=2, checkpoint_every_s=0.0)

    whole = load_weights(train_detector(config("whole"))).state_dict()
    calls = 0

    def killed(step: int, warmup: int, steps: int) -> float:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return schedule(step, warmup, steps)

    monkeypatch.setattr(detector_train, "schedule", killed)
    with pytest.raises(KeyboardInterrupt):
        train_detector(config("resumed"))
    monkeypatch.undo()
    resumed = load_weights(train_detector(config("resumed"))).state_dict()
    assert calls == 3
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value)
    assert {"config.json", "log.csv", "curve.png", "checkpoint.pt"} <= {p.name for p in (tmp_path / "whole").iterdir()}


def test_weights_survive_their_file(tmp_path: Path) -> None:
    net = FaceDetectorNet().eval()
    save_weights(net, tmp_path / "w.safetensors")
    image = torch.rand(1, 3, 64, 64) * 255
    with torch.inference_mode():
        for a, b in zip(net(image), load_weights(tmp_path / "w.safetensors")(image), strict=True):
            torch.testing.assert_close(a, b)


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="no weights at"):
        load_weights(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("not weights")
    with pytest.raises(ModelRefused, match=r"not a \.safetensors file"):
        load_weights(tmp_path / "text.safetensors")
    for other in (torch.nn.Linear(2, 2).state_dict(), FaceDetectorNet(channels=(8, 8, 8, 8, 8)).state_dict()):
        save_file(other, tmp_path / "other.safetensors")
        with pytest.raises(ModelRefused, match=r"other\.safetensors"):
            load_weights(tmp_path / "other.safetensors")


def test_a_run_can_go_on_from_weights(run_folder: Path, tmp_path: Path) -> None:
    net = FaceDetectorNet()
    save_weights(net, tmp_path / "w.safetensors")
    (tmp_path / "cache").symlink_to(run_folder / "cache")
    config = DetectorConfig(
        "/nowhere", str(tmp_path), init=str(tmp_path / "w.safetensors"), steps=1, batch=2, size=64, learning_rate=1e-6
    )
    trained = load_weights(train_detector(config))
    torch.testing.assert_close(trained.head.weight, net.head.weight, atol=1e-5, rtol=0)


def test_an_evaluation_counts_faces_and_backgrounds_kept_aside(cache: DetectorCache) -> None:
    found, false = evaluate_detector(FaceDetectorNet(channels=(8, 8, 8, 8, 8), neck=8), cache)
    assert found.pictures == 2
    assert 0.0 <= found.recall <= 1.0
    assert false == 0.0

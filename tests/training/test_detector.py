"""Pictures to face boxes: targets and losses by hand-worked numbers, labels that move along, runs that resume."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from facerecon_rt.align import BOX_SIDE_MM
from facerecon_rt.errors import FaceReconError, ModelRefused, SourceError, UsageError
from facerecon_rt.faces.detect import decode
from facerecon_rt.template import load_template
from facerecon_rt.types import Detection, Floats
from facerecon_training.detector import train as detector_train
from facerecon_training.detector.config import LARGEST_SCENE, DetectorConfig
from facerecon_training.detector.data import (
    ANNOTATED,
    CACHE_VERSION,
    YUNET,
    DetectorCache,
    build_cache,
    check_pictures,
    label_from_landmarks,
    label_images,
    label_photograph,
)
from facerecon_training.detector.net import FaceDetectorNet, box_loss, detector_loss, heat_loss, make_targets
from facerecon_training.detector.scenes import (
    SceneMaker,
    judged,
    move_labels,
    occlude,
    occluder,
    quarter_turns,
    share_covered,
    similarity,
    warp,
    write,
)
from facerecon_training.detector.train import (
    begin_from,
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


def labels(*rows: tuple[float, ...]) -> Floats:
    """Rows of centre x, y, side, known, and roll where it is not 0."""
    return np.array([(*row, 0.0)[:5] for row in rows], np.float32).reshape(-1, 5)


# Targets


def test_a_face_in_the_middle_of_a_cell_is_one_peak_there() -> None:
    targets = make_targets(labels((19.5, 11.5, 32, 1)), 32, 64)
    assert targets.shape == (8, 4, 8)
    assert targets[0, 1, 2] == 1.0
    # Sigma is 0.45 cells, as 0.11 x 32 pixels are fewer; the next cell is 8 pixels away.
    assert targets[0, 1, 3] == pytest.approx(math.exp(-(8**2) / (2 * 3.6**2)), rel=1e-5)
    np.testing.assert_allclose(targets[1:7, 1, 2], [0, 0, 0, 1, 0, 1], atol=1e-6)
    assert targets[6].sum() == pytest.approx(1.0)


def test_a_large_face_is_learnt_by_the_cells_around_its_centre_too() -> None:
    targets = make_targets(labels((20.5, 11.5, 64, 1)), 32, 64)
    # The cell to the right has its middle at 27.5: the centre is 7 pixels, 7 / 64 sides, to its left.
    np.testing.assert_allclose(targets[1:4, 1, 3], [-7 / 64, 0, math.log(2)], atol=1e-6)
    assert 0 < targets[6, 1, 3] < targets[6, 1, 2]
    assert targets[6].sum() == pytest.approx(1.0)


def test_all_cells_of_a_face_say_how_far_it_is_turned() -> None:
    targets = make_targets(labels((20.5, 11.5, 64, 1, math.radians(120))), 32, 64)
    for column in (2, 3):
        np.testing.assert_allclose(targets[4:6, 1, column], [-0.5, math.sqrt(3) / 2], atol=1e-6)


def test_a_region_to_ignore_does_not_count_but_a_known_face_in_it_does() -> None:
    targets = make_targets(labels((31.5, 31.5, 48, 0), (27.5, 27.5, 10, 1)), 64, 64)
    assert targets[7, 4, 4] == 0.0
    assert targets[7, 3, 3] == 1.0
    assert targets[7, 0, 0] == 1.0


def test_where_faces_overlap_the_smaller_one_decides() -> None:
    targets = make_targets(labels((27.5, 27.5, 16, 1), (35.5, 27.5, 128, 1)), 64, 64)
    assert targets[3, 3, 3] == pytest.approx(math.log(0.5))
    assert targets[3, 3, 4] == pytest.approx(math.log(4))


def test_a_face_whose_middle_is_outside_is_told_by_the_cell_at_the_edge() -> None:
    targets = make_targets(labels((-8.5, 27.5, 40, 1)), 64, 64)
    assert np.argwhere(targets[0] == 1.0).tolist() == [[3, 0]]
    # The cell's middle is at 3.5: the centre is 12 pixels to its left.
    np.testing.assert_allclose(targets[1:3, 3, 0], [-0.3, 0], atol=1e-6)
    assert targets[6].sum() == pytest.approx(1.0)


def test_decoding_what_the_cells_should_say_gives_the_faces_back() -> None:
    faces = labels((21.3, 40.9, 12.5, 1, 2.0), (90.2, 60.4, 55, 1, 2.0), (131.0, 100.4, 55, 1, 2.0))
    targets = make_targets(faces, 128, 128)
    boxes, _, rolls = decode(targets[0], targets[1:6], 1.0)
    np.testing.assert_allclose(np.arctan2(rolls[:, 1], rolls[:, 0]), [2.0, 2.0, 2.0], atol=1e-5)
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


def test_box_and_roll_are_weighed_apart() -> None:
    targets = torch.zeros(1, 8, 1, 1)
    targets[0, 6:] = 1.0
    targets[0, 4] = 1.0  # upright: cosine 1
    boxes = torch.tensor([0.1, 0.0, -0.2, 0.0, 0.5]).reshape(1, 5, 1, 1)
    total, heat, box, roll = detector_loss(torch.full((1, 1, 1), -80.0), boxes, targets, 4.0, 0.5)
    assert (heat.item(), box.item(), roll.item()) == pytest.approx((0.0, 0.3, 1.25), abs=1e-6)
    assert total.item() == pytest.approx(4 * 0.3 + 0.5 * 1.25)


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
        loss, *_ = detector_loss(logits, boxes, targets, 4.0, 0.5)
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
    assert boxes.shape == (2, 5, 12, 20)


# Labels


@pytest.mark.parametrize("degrees", [0, 90, -150])
def test_the_label_of_the_mean_face_is_its_box_and_its_roll(degrees: float) -> None:
    c, s = 0.5 * math.cos(math.radians(degrees)), 0.5 * math.sin(math.radians(degrees))
    upright = load_template().landmark_positions[:, :2] * [1, -1]
    points = upright @ np.array([[c, s], [-s, c]]) + [100, 80]
    x, y, side, known, roll = label_from_landmarks(np.asarray(points, np.float32))
    # The middle of a crop is 30 mm below the head's origin.
    assert (x, y) == pytest.approx((100 - 30 * s, 80 + 30 * c), abs=0.01)
    assert (side, known) == pytest.approx((0.5 * BOX_SIDE_MM, 1.0), rel=1e-4)
    assert math.degrees(roll) == pytest.approx(degrees, abs=0.01)


def seen(x: float, y: float, side: float, score: float) -> Detection:
    return Detection(np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32), score)


def test_other_faces_in_a_photograph_are_labelled_and_doubtful_ones_ignored() -> None:
    own = [100.0, 100.0, 60.0, 1.0, 0.0]
    found = [seen(103, 98, 65, 0.95), seen(250, 80, 30, 0.9), seen(20, 30, 12, 0.5)]
    assert label_photograph(own, found, noisy=False) == [
        own,
        [250.0, 80.0, 30.0, 1.0, 0.0],
        [20.0, 30.0, 12.0, 0.0, 0.0],
    ]


def test_a_machine_made_annotation_that_yunet_contradicts_is_left_out() -> None:
    own = [100.0, 100.0, 60.0, 1.0, 0.0]
    contradiction = [seen(118, 100, 60, 0.95)]
    assert label_photograph(own, contradiction, noisy=True) is None
    assert label_photograph(own, contradiction, noisy=False) == [own]


# Scenes


@pytest.mark.parametrize("scale", [0.3, 0.8, 2.0])
@pytest.mark.parametrize("flip", [False, True])
def test_a_label_moves_with_its_picture(scale: float, flip: bool) -> None:
    rows, columns = np.mgrid[:200, :240]
    spot = 255 * np.exp(-((columns - 90.0) ** 2 + (rows - 70.0) ** 2) / (2 * 5.0**2))
    image = np.repeat(spot[..., None], 3, 2).astype(np.uint8)
    matrix = similarity(scale, 0.5, flip, np.array([100.0, 80.0]), np.array([60.0, 75.0]))
    canvas = warp(image, matrix, scale, (128, 128), cv2.BORDER_CONSTANT)[..., 0].astype(np.float64)
    ((x, y, side, known, roll),) = move_labels(labels((90, 70, 40, 1, 0.2)), matrix, 128)
    assert roll == pytest.approx(0.5 + (-0.2 if flip else 0.2))
    centre_y, centre_x = (np.indices(canvas.shape) * canvas).sum((1, 2)) / canvas.sum()
    assert (centre_x, centre_y) == pytest.approx((x, y), abs=0.1)
    assert (side, known) == pytest.approx((40 * scale, 1))


def test_labels_out_of_the_canvas_are_dropped() -> None:
    identity = similarity(1.0, 0.0, False, np.zeros(2), np.zeros(2))
    faces = labels((-30, 50, 20, 1), (50, 50, 20, 0), (-9, 50, 20, 1))
    assert [label[:2] for label in move_labels(faces, identity, 100)] == [[50, 50], [-9, 50]]


def test_faces_that_are_hard_to_see_are_ignored_and_those_nobody_could_see_are_none() -> None:
    def known(*label: float) -> list[float]:
        found = judged([[*label, 1.0, 0.0]], 200, 100, largest=150, no_face=180, smallest=8)
        return [float(value) for value in found[:, 3]]

    assert known(50, 50, 20) == [1]
    assert known(50, 50, 7) == [0]  # too small
    assert known(100, 50, 151) == [0]  # hardly more than a part of it
    assert known(100, 50, 181) == []
    assert known(0, 50, 40) == [1]  # half outside, its middle at the edge
    assert known(50, 104, 40) == [0]  # 16 of 40 pixels inside
    assert known(50, 119, 40) == []


def test_a_scene_turned_by_a_quarter_takes_its_faces_along() -> None:
    canvas = np.zeros((100, 100, 3), np.uint8)
    canvas[10, 30] = 255
    for count, x, y, roll in ((1, 89, 30, 90), (2, 69, 89, 180), (3, 10, 69, -90)):
        turned, ((found_x, found_y, _, _, found_roll),) = quarter_turns(canvas, [[30.0, 10.0, 20.0, 1.0, 0.0]], count)
        assert turned[y, x].tolist() == [255] * 3
        assert (found_x, found_y) == (x, y)
        assert math.degrees(math.remainder(found_roll - math.radians(roll), 2 * math.pi)) == pytest.approx(0)


def test_an_occluder_hides_part_of_its_face_and_turns_with_it() -> None:
    grey = np.full((100, 100, 3), 90, np.uint8)
    hidden = []
    for roll in (0.0, math.pi / 2):
        canvas = grey.copy()
        faces = [[50.0, 50.0, 40.0, 1.0, roll], [50.0, 50.0, 4.0, 1.0, 0.0]]
        occlude(np.random.default_rng(4), canvas, faces, 0, np.full((30, 30, 3), 200, np.uint8))
        hidden.append((canvas != grey).any(2))
        assert faces[0][3] == 1.0
    assert 0.05 < hidden[0][30:70, 30:70].mean() < 0.6
    # A quarter clockwise about the middle of the face, pixel (50, 50): as rot90 of a square around it does.
    agree = np.rot90(hidden[0][1:, 1:], -1) == hidden[1][1:, 1:]
    assert agree.mean() > 0.97


def test_a_face_that_an_occluder_leaves_nothing_of_is_ignored() -> None:
    rng = np.random.default_rng(0)
    gone = 0
    for _ in range(40):
        faces = [[50.0, 50.0, 60.0, 1.0, 0.0], [50.0, 62.0, 8.0, 1.0, 0.0]]
        canvas = np.zeros((100, 100, 3), np.uint8)
        occlude(rng, canvas, faces, 0, np.full((30, 30, 3), 200, np.uint8))
        left = (canvas[58:66, 46:54] == 0).all(2).mean()
        assert faces[1][3] == float(left >= 0.4)
        gone += left < 0.4
    assert 5 < gone < 35


def test_occluders_leave_enough_of_a_face_to_find() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        mask = np.zeros((100, 100), np.uint8)
        cv2.fillPoly(mask, [np.round(occluder(rng) * 100 + 50).astype(np.int32)], 1)
        shares.append(mask.mean())
    assert max(shares) < 0.75
    assert np.mean(np.array(shares) > 0.25) > 0.3


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
        version=CACHE_VERSION,
    )
    return folder


@pytest.fixture(scope="module")
def cache(run_folder: Path) -> DetectorCache:
    return build_cache(Path("/nowhere"), run_folder / "cache")


def test_the_cache_gives_pictures_and_their_labels_back(cache: DetectorCache) -> None:
    assert len(cache.faces) == 14
    for index in range(12):
        x, y, *_ = cache.faces[index][0]
        assert cache.image(index)[round(float(y)), round(float(x))].min() == 255


def test_a_cache_without_data_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="FACERECON_DATA"):
        build_cache(tmp_path, tmp_path / "cache")


def test_a_cache_of_another_version_is_not_taken_for_one(run_folder: Path, tmp_path: Path) -> None:
    with np.load(run_folder / "cache" / "labels.npz") as arrays:
        np.savez(tmp_path / "labels.npz", **{name: arrays[name] for name in arrays if name != "version"})
    with pytest.raises(UsageError, match="remove the folder"):
        build_cache(Path("/nowhere"), tmp_path)


@pytest.mark.parametrize("name", ["labels.npz", "pixels.bin"])
@pytest.mark.parametrize("how", ["emptied", "halved", "text", "other arrays"])
def test_a_damaged_cache_is_refused_in_one_line(name: str, how: str, run_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    shutil.copytree(run_folder / "cache", folder)
    build_cache(Path("/nowhere"), folder)
    data = (folder / name).read_bytes()
    other = BytesIO()
    np.savez(other, version=CACHE_VERSION, sizes=np.zeros(3))
    damaged = {"emptied": b"", "halved": data[: len(data) // 2], "text": b"[" * 5000, "other arrays": other.getvalue()}
    (folder / name).write_bytes(damaged[how])
    with pytest.raises(UsageError, match=r"cannot be read .*; remove the folder and run the command again") as said:
        build_cache(Path("/nowhere"), folder)
    assert "\n" not in str(said.value)


def test_the_scenes_of_a_step_are_always_the_same(cache: DetectorCache) -> None:
    first, again = (SceneMaker(cache, 128, seed=3).batch(7, 2) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(np.concatenate(first[1]), np.concatenate(again[1]))
    other, _ = SceneMaker(cache, 128, seed=3).batch(8, 2)
    assert not np.array_equal(first[0], other)


def test_scenes_hold_faces_of_many_sizes_and_all_rolls_some_cut_off(cache: DetectorCache) -> None:
    images, faces = SceneMaker(cache, 128, seed=0).batch(0, 60)
    assert all(image.shape == (128, 128, 3) and image.dtype == np.uint8 for image in images)
    known = np.concatenate(faces)
    known = known[known[:, 3] > 0.5]
    assert known[:, 2].min() < 12
    assert known[:, 2].max() > 100
    upright = np.abs(known[:, 4]) < 0.8
    assert 0.4 < upright.mean() < 0.8
    assert np.histogram(known[~upright, 4], bins=4, range=(-np.pi, np.pi))[0].min() > 1
    assert known[:, :2].min() < 0 or known[:, :2].max() > 128


def test_letters_stand_in_the_scene_in_one_colour() -> None:
    shares = []
    for seed in range(20):
        canvas = np.zeros((128, 128, 3), np.uint8)
        write(np.random.default_rng(seed), canvas)
        shares.append(canvas.any(2).mean())
        assert len(np.unique(canvas.max(2))) > 1 or shares[-1] == 0
    assert np.mean(np.array(shares) > 0.01) > 0.7
    assert max(shares) < 0.9


def test_some_scenes_end_in_black_as_letterboxes_do(cache: DetectorCache) -> None:
    images, _ = SceneMaker(cache, 128, seed=0).batch(0, 60)
    ends = [bool((image[-1] == 0).all() or (image[:, -1] == 0).all()) for image in images]
    assert 0.15 < np.mean(ends) < 0.6


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
        return DetectorConfig(Path("/nowhere"), folder, steps=4, batch=2, size=64, warmup=2, checkpoint_every_s=0.0)

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
    assert {"config.json", "curves.png", "checkpoint.pt"} <= {p.name for p in (tmp_path / "whole").iterdir()}


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
        for read in (load_weights, begin_from):
            with pytest.raises(ModelRefused, match=r"other\.safetensors"):
                read(tmp_path / "other.safetensors")


def test_weights_that_do_not_tell_rolls_are_gone_on_from_but_not_run(tmp_path: Path) -> None:
    net = FaceDetectorNet().eval()
    state = {name: value for name, value in net.state_dict().items() if "num_batches" not in name}
    state["head.weight"] = torch.randn(4, 32, 1, 1, generator=torch.Generator().manual_seed(0))
    state["head.bias"] = torch.tensor([-3.0, 0.1, 0.2, 0.3])
    save_file(state, tmp_path / "old.safetensors")
    with pytest.raises(ModelRefused, match="does not fit this detector"):
        load_weights(tmp_path / "old.safetensors")
    begun = begin_from(tmp_path / "old.safetensors").head
    torch.testing.assert_close(begun.weight[:4], state["head.weight"])
    torch.testing.assert_close(begun.get_parameter("bias"), torch.tensor([-3.0, 0.1, 0.2, 0.3, 1.0, 0.0]))


def test_a_run_can_go_on_from_weights(run_folder: Path, tmp_path: Path) -> None:
    net = FaceDetectorNet()
    save_weights(net, tmp_path / "w.safetensors")
    (tmp_path / "cache").symlink_to(run_folder / "cache")
    config = DetectorConfig(
        Path("/nowhere"), tmp_path, init=tmp_path / "w.safetensors", steps=1, batch=2, size=64, learning_rate=1e-6
    )
    trained = load_weights(train_detector(config))
    with pytest.raises(UsageError, match=r"face_detector\.safetensors is an input and would be overwritten"):
        train_detector(replace(config, init=tmp_path / "face_detector.safetensors"))
    torch.testing.assert_close(trained.head.weight, net.head.weight, atol=1e-5, rtol=0)


def test_a_run_that_diverges_says_so_and_keeps_its_weights(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").symlink_to(run_folder / "cache")
    config = DetectorConfig(
        Path("/nowhere"), tmp_path, steps=40, batch=2, size=64, warmup=1, learning_rate=1e30, checkpoint_every_s=0.0
    )
    with pytest.raises(FaceReconError, match=r"diverged: at step \d+, .*; resume with a lower --learning-rate"):
        train_detector(config)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["net"]
    assert all(torch.isfinite(value).all() for value in saved.values())


@pytest.mark.parametrize("missing", ["yunet", "faces/afw", "head_pose", "backgrounds"])
def test_missing_pictures_are_named_before_anything_is_labelled(tmp_path: Path, missing: str) -> None:
    for name in ANNOTATED:
        (tmp_path / "faces" / name).mkdir(parents=True)
        (tmp_path / "faces" / name / "a.jpg").touch()
        (tmp_path / "faces" / name / "a.pts").write_text("{" + "".join(f"{9 * i} {8 * i}\n" for i in range(49)) + "}")
    for name in (YUNET, "head_pose/person01100+0+0.jpg", "backgrounds/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    check_pictures(tmp_path)
    shutil.rmtree(tmp_path / {"yunet": "detector"}.get(missing, missing))
    with pytest.raises((UsageError, SourceError), match=missing):
        next(label_images(tmp_path))


def test_scenes_of_the_largest_size_have_noise(cache: DetectorCache) -> None:
    largest = SceneMaker(cache, LARGEST_SCENE, 0)
    assert {image.shape for image, _ in (largest.scene() for _ in range(12))} == {(LARGEST_SCENE, LARGEST_SCENE, 3)}


def test_an_evaluation_counts_faces_and_backgrounds_kept_aside(cache: DetectorCache) -> None:
    found, sideways, false = evaluate_detector(FaceDetectorNet(channels=(8, 8, 8, 8, 8), neck=8), cache)
    assert (found.pictures, sideways.pictures) == (2, 2)
    assert 0.0 <= found.recall <= 1.0
    assert false == 0.0

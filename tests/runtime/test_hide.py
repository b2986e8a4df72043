"""Covered faces: what pictures still show of a face, which places are covered, and that every output covers them."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from facerecon_rt.cli import main
from facerecon_rt.commands.options import parse_options
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import UsageError
from facerecon_rt.faces.detect import open_detector
from facerecon_rt.faces.detector_contract import DetectorContract
from facerecon_rt.faces.pipeline import Pipeline
from facerecon_rt.faces.reconstruct import Reconstructor
from facerecon_rt.sinks.draw import draw_scene
from facerecon_rt.sinks.files import open_sink
from facerecon_rt.sinks.hide import CELLS, COVERS, cover_faces
from facerecon_rt.sources.files import open_source, read_image
from facerecon_rt.template import FaceTemplate
from facerecon_rt.types import Face, Frame, Image, Scene

from ..conftest import ROOT
from .conftest import MakeDetector, MakeFace, PaintSpots

SPOT = [(0.5, 0.5)]
MODELS = ROOT / "models"


def noise(height: int = 120, width: int = 160) -> Image:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)


def seen(face: Face, image: Image) -> Scene:
    return Scene(Frame(image, "cam0", still=False, live=True), (face,))


@pytest.mark.parametrize("cover", COVERS)
def test_a_covered_face_keeps_only_the_means_of_a_few_cells(ball_face: MakeFace, cover: Any) -> None:
    image = noise()
    face = replace(ball_face(80, 60), box=np.array([60, 40, 100, 80], np.float32))
    picture = cover_faces(seen(face, image), cover, 0.25)
    covered = picture[30:91, 50:111]  # 40 pixels and a quarter of them on each side
    # Means of cells of noise are near the middle; pixels of noise are not.
    assert np.abs(covered.astype(int) - 128).max() < 40 < np.abs(image[30:91, 50:111].astype(int) - 128).max()
    if cover == "pixelate":
        assert len(np.unique(covered.reshape(-1, 3), axis=0)) == CELLS**2
    changed = (picture != image).any(axis=2)
    assert not changed[:30].any() and not changed[91:].any() and not changed[:, :50].any()
    assert np.array_equal(image, noise()), "the frame itself stays as it is"


def test_nothing_is_drawn_on_a_covered_face_but_its_label(ball: FaceTemplate, ball_face: MakeFace) -> None:
    scene = seen(ball_face(80, 60, track=3), noise())
    covered = cover_faces(scene, "mask")
    assert np.array_equal(draw_scene(scene, style="mask", ids=False, template=ball), covered)
    assert (draw_scene(scene, style="mask", template=ball) != covered).any()


def test_the_place_of_a_face_that_the_scene_lacks_is_covered_too(ball_face: MakeFace) -> None:
    image = noise()
    outside, corner = (np.array(box, np.float32) for box in ([-90, -90, -60, -60], [-20, -20, 20, 20]))
    scene = replace(seen(ball_face(80, 60), image), faces=(), elsewhere=(outside, corner))
    picture = cover_faces(scene, "mask", 0.0)
    assert np.array_equal(picture[22:, 22:], image[22:, 22:])
    assert np.ptp(picture[:20, :20]) == 0


@pytest.fixture
def reconstructor(tiny_model: Path, bright_detector: Path) -> Reconstructor:
    return Reconstructor(tiny_model, detector=bright_detector)


def frames(*images: Image) -> list[Frame]:
    return [Frame(image, "talk.mp4", index=i, time_s=i / 25, still=False) for i, image in enumerate(images)]


def test_a_missed_track_is_covered_until_it_ends(reconstructor: Reconstructor, spots: PaintSpots) -> None:
    there, gone = spots(256, 192, SPOT), np.zeros((192, 256, 3), np.uint8)
    with reconstructor:
        pipeline = Pipeline(reconstructor, detect_every=1)
        scenes = [pipeline.process(frame) for frame in frames(there, there, *[gone] * 30)]
    (face,) = scenes[1].faces
    assert scenes[1].elsewhere == ()
    middle, side = (face.box[:2] + face.box[2:]) / 2, face.box[2] - face.box[0]
    for missed, scene in enumerate(scenes[2:27], start=1):
        (box,) = scene.elsewhere
        np.testing.assert_allclose((box[:2] + box[2:]) / 2, middle, atol=0.5)
        assert box[2] - box[0] == pytest.approx(side * (1 + 0.04 * missed), rel=0.02)
    assert scenes[27].left == (1,) and scenes[27].elsewhere == ()


def test_faces_beyond_the_limit_and_doubted_ones_are_covered(
    tiny_model: Path, bright_detector: Path, spots: PaintSpots
) -> None:
    image = spots(384, 192, [(0.25, 0.5), (0.75, 0.5)])
    for min_confidence, most, shown in ((0.5, 1, 1), (1.0, None, 0)):
        options: dict[str, Any] = {"detector": bright_detector, "min_confidence": min_confidence}
        with Reconstructor(tiny_model, **options) as reconstructor:
            pipeline = Pipeline(reconstructor, max_faces=most)
            for frame in (Frame(image, "photo.png"), *frames(image)):
                scene = pipeline.process(frame)
                assert len(scene.faces) == shown and len(scene.elsewhere) == 2 - shown
                assert (cover_faces(scene, "mask")[96, [96, 288]] == 96).all()


def test_where_faces_are_covered_the_detector_runs_on_every_frame() -> None:
    command = ["--model", "m.onnx", "--input", "cam0"]
    assert parse_options(command).det_every == 10
    assert parse_options([*command, "--style", "pixelate"]).det_every == 1
    assert parse_options([*command, "--style", "pixelate", "--det-every", "3"]).det_every == 3


def test_a_folder_with_covered_faces_has_no_montage(tmp_path: Path, ball: FaceTemplate, ball_face: MakeFace) -> None:
    scene = Scene(Frame(noise(), "photo.jpg"), (ball_face(80, 60),))
    with open_sink(f"{tmp_path}/out/", blendshapes=BLENDSHAPES, style="mask", template=ball, meshes=False) as sink:
        sink.write(scene)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["photo.jpg", "records.jsonl"]
    assert np.abs(read_image(tmp_path / "out" / "photo.jpg")[60, 80].astype(int) - 96).max() < 8


@pytest.mark.parametrize("name", ["out.mp4", "out.avi", "out.jpg", "out.webp"])
def test_without_pictures_an_output_of_pictures_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="--no-pictures forbids them"):
        open_sink(str(tmp_path / name), blendshapes=BLENDSHAPES, pictures=False)
    assert not list(tmp_path.iterdir())


def test_without_pictures_a_folder_has_records_and_meshes_alone(
    tmp_path: Path, tiny_model: Path, bright_detector: Path, spots: PaintSpots
) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), spots(256, 192, SPOT))
    out = tmp_path / "out"
    files = ["--model", str(tiny_model), "--detector", str(bright_detector), "--input", str(tmp_path / "photo.png")]
    assert main([*files, "--no-pictures", "--output", f"{out}/"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["photo_face0.obj", "records.jsonl"]
    assert len(json.loads((out / "records.jsonl").read_text())["faces"]) == 1


def test_a_place_with_a_low_score_is_covered_and_nothing_else(
    tiny_model: Path, make_bright_detector: MakeDetector, tmp_path: Path, spots: PaintSpots
) -> None:
    contract = DetectorContract(0.9).to_json()
    detector = make_bright_detector(tmp_path / "strict.onnx", contract)
    dim = spots(256, 192, SPOT) // 3  # a third of the brightness, and of the score
    for hints, places in ((False, 0), (True, 1)):
        with Reconstructor(tiny_model, detector=detector, hints=hints) as reconstructor:
            for frame in (Frame(dim, "photo.png"), *frames(dim)):
                scene = Pipeline(reconstructor).process(frame)
                assert scene.faces == () and len(scene.elsewhere) == places
                assert (cover_faces(scene, "mask")[96, 128] == 96).all() == hints


@pytest.mark.parametrize("cover", COVERS)
def test_no_detector_finds_a_face_in_a_covered_crowd(data_folder: Path, cover: Any) -> None:
    yunet = open_detector(data_folder / "detector" / "face_detection_yunet_2023mar.onnx", size=1280)
    with (
        Reconstructor(MODELS / "face.int8-cpu.onnx", provider="cpu", hints=True) as reconstructor,
        Reconstructor(MODELS / "face.int8-cpu.onnx", provider="cpu", mirror=False) as plain,
        open_source(str(data_folder / "videos" / "crowd_1080p.mp4")) as source,
    ):
        pipeline = Pipeline(reconstructor, detect_every=1)
        for frame in islice(source, 47, 56):
            scene = pipeline.process(frame)
            if frame.index in (50, 55):
                picture = draw_scene(scene, style=cover)
                # Above 300 pixels there is only a wall, with the head of a lion, which YuNet takes for a face.
                assert len([face for face in yunet.detect(frame.image) if face.box[1] > 300]) >= 6
                assert [face for face in yunet.detect(picture) if face.box[1] > 300] == []
                assert len(plain.faces(frame.image)) >= 4 and plain.faces(picture) == ()

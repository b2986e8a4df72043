"""The example gstreamer_faces.py in real GStreamer pipelines: pictures, records beside them, and both in one file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import pytest
from facerecon_rt import Pipeline, Reconstructor, euler_from_camera, open_source
from facerecon_rt.networks.golden import golden_crop
from facerecon_rt.networks.session import FaceSession
from facerecon_rt.types import Image

from ..conftest import ROOT

SCRIPT = ROOT / "runtime" / "examples" / "gstreamer_faces.py"
MODEL = ROOT / "models" / "face.onnx"
DEBIAN = Path("/usr/lib/python3/dist-packages/gi")
ELEMENTS = ("appsink", "appsrc", "avidemux", "jpegdec", "jpegenc", "avimux", "matroskamux", "videoconvert")
NEEDED = "import gi; gi.require_version('GstApp', '1.0'); from gi.repository import Gst, GstApp; Gst.init(None); "
NEEDED += f"assert all(Gst.ElementFactory.find(name) for name in {ELEMENTS})"
FRAMES, FPS, WIDTH = 6, 25, 250
"""Frames of the video, and its width, whose rows GStreamer pads: 750 bytes are no multiple of 4."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables with which this Python finds Debian's `gi`, and no other package of Debian's."""
    folder = tmp_path_factory.mktemp("debian")
    if DEBIAN.is_dir():
        (folder / "gi").symlink_to(DEBIAN)
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}
    if subprocess.run([sys.executable, "-c", NEEDED], env=variables, capture_output=True).returncode != 0:
        pytest.skip(
            "GStreamer is not installed for this Python: apt install python3-gst-1.0 gir1.2-gst-plugins-base-1.0 "
            "gstreamer1.0-plugins-good"
        )
    return variables


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The beginning of the test clip as Motion JPEG."""
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (WIDTH, WIDTH))
    with open_source(ROOT / "tests" / "data" / "talking_head.mp4") as source:
        for _, frame in zip(range(FRAMES), source, strict=False):
            writer.write(cv2.resize(frame.image, (WIDTH, WIDTH), interpolation=cv2.INTER_AREA))
    writer.release()
    return path


def pictures_of(path: Path) -> list[Image]:
    with open_source(path) as source:
        return [frame.image for frame in source]


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments, "--model", str(MODEL)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_pictures_and_records_come_out_with_their_times(
    environment: dict[str, str], video: Path, tmp_path: Path
) -> None:
    out, records = tmp_path / "out.avi", tmp_path / "records.jsonl"
    done = run(
        environment,
        f"filesrc location={video} ! avidemux ! jpegdec",
        f"appsrc name=pictures ! videoconvert ! jpegenc quality=95 ! avimux ! filesink location={out} "
        f"appsrc name=records ! filesink location={records}",
    )
    assert (done.returncode, done.stderr) == (0, f"{FRAMES} frames\n")
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert [line["time_s"] for line in lines] == pytest.approx([n / FPS for n in range(FRAMES)], abs=2e-3)
    with Reconstructor(MODEL) as reconstructor, open_source(video) as source:
        expected = list(Pipeline(reconstructor).run(source))
    for line, scene in zip(lines, expected, strict=True):
        (face,), (known,) = line["faces"], scene.faces
        # GStreamer and FFmpeg decode colours a little differently.
        np.testing.assert_allclose(face["box"], known.box, atol=1.5)
        angles = list(face["pose"]["euler_deg"].values())
        np.testing.assert_allclose(sorted(angles), sorted(euler_from_camera(known.frame_from_head)), atol=1.5)
    before, after = pictures_of(video), pictures_of(out)
    assert len(after) == FRAMES and after[0].shape == (WIDTH, WIDTH, 3)
    x1, y1, x2, y2 = expected[-1].faces[0].box.astype(int)
    drawn = np.abs(after[-1].astype(int) - before[-1])
    assert drawn[y1:y2, x1:x2].mean() > 10 > 3 > drawn[:, : x1 // 2].mean()


def test_a_muxer_puts_pictures_and_records_into_one_file_and_a_style_covers_faces(
    environment: dict[str, str], video: Path, tmp_path: Path
) -> None:
    out = tmp_path / "both.mkv"
    done = run(
        environment,
        f"filesrc location={video} ! avidemux ! jpegdec",
        f"appsrc name=pictures ! videoconvert ! jpegenc ! matroskamux name=both ! filesink location={out} "
        "appsrc name=records ! both.subtitle_0",
        "--style",
        "mask",
    )
    assert (done.returncode, done.stderr) == (0, f"{FRAMES} frames\n")
    assert out.read_bytes().count(b'"schema":"facerecon-rt/1"') == FRAMES
    pictures = pictures_of(out)
    assert len(pictures) == FRAMES
    middle = pictures[-1][WIDTH // 2 - 20 : WIDTH // 2 + 20, WIDTH // 2 - 20 : WIDTH // 2 + 20].astype(int)
    assert np.abs(middle - 96).max() < 10


@pytest.mark.parametrize(
    ("source", "said"),
    [("filesrc location=none.avi ! avidemux ! jpegdec", "fails: Resource not found"), ("nonsense", "cannot make the")],
)
def test_a_pipeline_that_fails_is_one_line(environment: dict[str, str], source: str, said: str) -> None:
    done = run(environment, source, "appsrc name=records ! fakesink")
    assert done.returncode in (2, 5)
    assert said in done.stderr and done.stderr.count("\n") == 1


def test_the_page_makes_a_file_for_nvinfer_that_takes_float_planes(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    page = (ROOT / "runtime" / "docs" / "gstreamer.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"<!-- nvinfer -->\n```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "models").symlink_to(ROOT / "models")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    with FaceSession(MODEL, provider="cpu") as session:
        size = session.contract.input_size
        crop = golden_crop(size)[None]
        expected = session.run(crop).landmarks
    planes = ort.InferenceSession(str(tmp_path / "face.planes.onnx"), providers=["CPUExecutionProvider"])
    (given,) = planes.get_inputs()
    assert (given.type, list(given.shape[1:])) == ("tensor(float)", [3, size, size])
    (landmarks,) = planes.run(["landmarks"], {given.name: crop.transpose(0, 3, 1, 2).astype(np.float32)})
    np.testing.assert_allclose(landmarks, expected, atol=1e-3)
    assert f"infer-dims=3;{size};{size}\n" in page
    names = re.search(r"output-blob-names=(.*)\n", page)
    assert names is not None and set(names[1].split(";")) <= {out.name for out in planes.get_outputs()}


def test_without_gi_the_example_tells_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "gi.py").write_text("raise ModuleNotFoundError('No module named gi', name='gi')")
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    done = subprocess.run([sys.executable, str(SCRIPT), "--help"], env=variables, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "sudo apt install python3-gst-1.0 gir1.2-gst-plugins-base-1.0" in done.stderr


def test_a_decoder_that_is_missing_is_named_by_its_package(environment: dict[str, str]) -> None:
    found = f"{NEEDED}; import sys; sys.exit(any(map(Gst.ElementFactory.find, ('avdec_h264', 'openh264dec'))))"
    if subprocess.run([sys.executable, "-c", found], env=environment, capture_output=True).returncode:
        pytest.skip("this machine has a decoder of H.264")
    source = f"filesrc location={ROOT / 'tests/data/talking_head.mp4'} ! decodebin"
    command = [sys.executable, str(SCRIPT), source, "appsrc name=records ! fakesink"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 5 and "sudo apt install gstreamer1.0-libav" in done.stderr

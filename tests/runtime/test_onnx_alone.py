"""The ONNX file without this package: examples in Python, Node, a browser and C cut the same crop and agree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from facerecon_rt import Reconstructor, open_source
from facerecon_rt.align import Square, box_from_square, square_from_box, square_from_camera
from facerecon_rt.contract import GOLDEN_COLUMNS
from facerecon_rt.networks.golden import golden_crop
from facerecon_rt.types import Floats, Image

from ..conftest import ROOT

MODEL = ROOT / "models" / "face.onnx"
EXAMPLES = ROOT / "runtime" / "examples"
HEADERS = (os.environ.get("ORT_INCLUDE", ""), "/usr/include/onnxruntime", "/usr/local/include/onnxruntime")
MOST_PX = 0.05
"""Maximum distance of a landmark, in crop pixels."""


def in_python(folder: Path) -> tuple[list[str], str]:
    return [sys.executable, "-W", "error", str(EXAMPLES / "onnx_alone.py")], ".png"


def in_node(folder: Path) -> tuple[list[str], str]:
    if shutil.which("node") is None:
        pytest.skip("Node is not installed")
    script = folder / "onnx_alone.mjs"  # Node looks for packages beside the script, and then in NODE_PATH
    shutil.copy(EXAMPLES / "onnx_alone.mjs", script)
    found = subprocess.run(["node", "-e", "require('onnxruntime-node')"], capture_output=True, cwd=folder)
    if found.returncode != 0:
        pytest.skip("onnxruntime-node is not installed: npm install onnxruntime-node, and set NODE_PATH")
    return ["node", str(script)], ".ppm"


FRAME = """<body><script>
const frame = document.createElement("iframe");
frame.src = "onnx_alone.html" + location.search;
document.body.append(frame);
setInterval(() => {
  const answer = frame.contentDocument?.getElementById("answer")?.textContent;
  if (answer) fetch("/answer", { method: "POST", body: answer });
}, 100);
</script>"""
"""A page that shows the example and sends its answer to the server."""
BROWSER = """
import http.server, os, shutil, subprocess, sys, tempfile, threading
model, photograph, *numbers = sys.argv[1:]
os.chdir(os.path.dirname(__file__))
shutil.copy(model, "face.onnx")
shutil.copy(photograph, "photo.png")
answers, answered = [], threading.Event()

class Handler(http.server.SimpleHTTPRequestHandler):
    def do_POST(self):
        answers.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(204)
        self.end_headers()
        answered.set()

    def log_message(self, *given):
        pass

with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, tempfile.TemporaryDirectory() as profile:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = f"http://127.0.0.1:{server.server_port}/frame.html?model=face.onnx&photo=photo.png&box="
    page += ",".join(numbers[:4]) + "&looks=" + numbers[4]
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", page]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as browser:
        answered.wait(110)
        browser.terminate()
    server.shutdown()
print(answers[0])
"""
"""Serves the example and shows it in Chromium. Takes the arguments of the other examples."""


def in_chromium(folder: Path) -> tuple[list[str], str]:
    if shutil.which("chromium") is None:
        pytest.skip("Chromium is not installed")
    places = [Path(place) / "onnxruntime-web" for place in os.environ.get("NODE_PATH", "").split(":") if place]
    package = next((place for place in places if (place / "dist").is_dir()), None)
    if package is None:
        pytest.skip("onnxruntime-web is not installed: npm install onnxruntime-web, and set NODE_PATH")
    (folder / "browser.py").write_text(BROWSER)
    (folder / "frame.html").write_text(FRAME)
    (folder / "node_modules").mkdir()
    (folder / "node_modules" / "onnxruntime-web").symlink_to(package.resolve())
    for name in ("onnx_alone.mjs", "onnx_alone.html"):
        shutil.copy(EXAMPLES / name, folder / name)
    return [sys.executable, str(folder / "browser.py")], ".png"


def in_c(folder: Path) -> tuple[list[str], str]:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler is installed")
    include = next((place for place in HEADERS if place and (Path(place) / "onnxruntime_c_api.h").is_file()), None)
    if include is None:
        pytest.skip("onnxruntime_c_api.h is not installed: Debian's libonnxruntime-dev has it, or set ORT_INCLUDE")
    onnxruntime = pytest.importorskip("onnxruntime")
    libraries = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))
    if not libraries:
        pytest.skip("this wheel of onnxruntime has no libonnxruntime.so")
    program, library = folder / "onnx_alone", folder / "libonnxruntime.so.1"  # the name that the linker writes down
    library.symlink_to(libraries[0])
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-isystem", include, f"-Wl,-rpath,{folder}"]
    command = ["cc", *flags, "-o", str(program), str(EXAMPLES / "onnx_alone.c"), str(library), "-lm"]
    subprocess.run(command, check=True)
    return [str(program)], ".ppm"


@pytest.fixture(scope="module", params=[in_python, in_node, in_chromium, in_c])
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], str]:
    """The command of an example, and the suffix of the pictures that it reads."""
    command: tuple[list[str], str] = request.param(tmp_path_factory.mktemp("example"))
    return command


def said_about(
    example: tuple[list[str], str], image: Image, box: Sequence[float], looks: int, folder: Path
) -> tuple[float, Floats]:
    """Return the confidence and the landmarks (68, 2) in image pixels that an example prints."""
    command, suffix = example
    photograph = folder / f"photo{suffix}"
    assert cv2.imwrite(str(photograph), image)
    given = [*command, str(MODEL), str(photograph), *map(repr, map(float, box)), str(looks)]
    (folder / "facerecon_rt.py").write_text("raise ImportError('the examples must not need this package')")
    environment = {**os.environ, "PYTHONPATH": str(folder), "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(given, cwd=folder, capture_output=True, text=True, timeout=120, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines = done.stdout.splitlines()
    landmarks = np.array([line.split() for line in lines], np.float32)
    assert landmarks.shape == (68, 2)
    return float(first), landmarks


def test_the_golden_answer_comes_without_this_package(example: tuple[list[str], str], tmp_path: Path) -> None:
    with Reconstructor(MODEL, provider="cpu") as reconstructor:
        contract = reconstructor.contract
    size, left, top = contract.input_size, 37, 21
    image = np.full((top + size + 30, left + size + 5, 3), (20, 200, 90), np.uint8)
    image[top : top + size, left : left + size] = golden_crop(size)
    box = box_from_square(Square(left + (size - 1) / 2, top + (size - 1) / 2, size))
    confidence, landmarks = said_about(example, image, box.tolist(), 1, tmp_path)
    golden = np.reshape(contract.golden, (68, GOLDEN_COLUMNS))[:, :2]
    assert np.linalg.norm(landmarks - [left, top] - golden, axis=1).max() < MOST_PX
    assert 0 < confidence <= 1


@pytest.mark.parametrize("enlarged", [1, 3])
def test_a_tilted_head_at_the_edge_of_a_large_picture_is_cut_as_here(
    example: tuple[list[str], str], tmp_path: Path, enlarged: int
) -> None:
    with open_source(ROOT / "tests" / "data" / "talking_head.mp4") as source:
        frame = next(frame for frame in source if frame.index == 30).image
    height, width = frame.shape[:2]
    tilt = cv2.getRotationMatrix2D((width / 2, height / 2), 25.0, enlarged)
    tilt[:, 2] += [(enlarged - 1) * width / 2, (enlarged - 1) * height / 2]
    large = np.asarray(cv2.warpAffine(frame, tilt, (width * enlarged, height * enlarged)), np.uint8)
    with Reconstructor(MODEL, provider="cpu") as reconstructor:
        (found, *_) = reconstructor.faces(large)
        # The head lies partly outside, in a picture whose sides are odd.
        x = int(found.box[0] + 0.1 * (found.box[2] - found.box[0])) | 1
        image = np.ascontiguousarray(large[: large.shape[0] - 1, x:])
        box = np.add(found.box, [-x + 6 * enlarged, -4 * enlarged, -x + 6 * enlarged, 4 * enlarged])
        square = square_from_box(box)
        for _ in range(2):
            ((face,),) = reconstructor.faces_at_each([image], [[square]])
            scale = square.side / reconstructor.contract.input_size
            square = square_from_camera(face.frame_from_head)
    confidence, landmarks = said_about(example, image, box.tolist(), 2, tmp_path)
    off = np.linalg.norm(landmarks - face.landmarks[:, :2], axis=1) / scale
    assert off.mean() < MOST_PX, off.mean()
    assert confidence == pytest.approx(face.confidence, abs=0.02)


def test_the_page_shows_what_the_example_prints(tmp_path: Path) -> None:
    page = (ROOT / "runtime" / "docs" / "onnx.md").read_text()
    shown = re.search(r"```text\n([\d.]+)\n([\d. ]+)\n([\d. ]+)\n…\n```", page)
    box = re.search(r"onnx_alone.py models/face.onnx photo.ppm ([\d ]+)$", page, re.MULTILINE)
    assert shown and box
    with open_source(ROOT / "tests" / "data" / "talking_head.mp4") as source:
        image = next(iter(source)).image
    example = in_python(tmp_path)
    confidence, landmarks = said_about(example, image, [float(side) for side in box[1].split()], 2, tmp_path)
    first = "\n".join([f"{confidence:.4f}", *(f"{x:.3f} {y:.3f}" for x, y in landmarks[:2])])
    on_page = np.array([line.split() for line in shown.groups()[1:]], float)
    assert float(shown[1]) == pytest.approx(confidence, abs=0.002), f"write into onnx.md:\n{first}"
    assert np.abs(on_page - landmarks[:2]).max() < MOST_PX, f"write into onnx.md:\n{first}"

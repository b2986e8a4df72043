"""Make and try inputs: a line KIND NUMBER in, a line of JSON out.

    python -m fuzzing.worker SEED FOLDER        (started by fuzz.py, which watches its end and its time)

The outcome is `taken` (the input was read, and the result makes sense) or `refused` (an error of this package on one
line). Any other exception ends the process with its traceback, which fuzz.py counts as a fault.
"""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import sys
import warnings
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from facerecon_rt import FaceReconError, Reconstructor, open_detector, open_sink, open_source, read_image
from facerecon_rt.annotated import landmark_figures, read_pts
from facerecon_rt.bench.compare import compare
from facerecon_rt.bench.report import read_report
from facerecon_rt.contract import BLENDSHAPES, ModelContract
from facerecon_rt.errors import ProviderMissing
from facerecon_rt.faces.detector_contract import DetectorContract
from facerecon_rt.networks.session import FaceSession
from facerecon_rt.providers.engines import entry_name, fault, is_kept, open_with_engine
from facerecon_rt.sources.inputs import Inputs
from facerecon_rt.types import Frame, Image, Scene
from numpy.random import Generator

from . import media, models, texts
from .damage import chosen

FRAMES = 12
"""Number of frames of a video that are read."""
LONGEST_LINE = 20_000
"""Maximum number of characters of an error. Names and addresses in it may be long."""
MOST_DETECTED_IN = 2**22
"""Maximum number of pixels of a picture in which faces are detected."""


@cache
def reconstructor() -> Reconstructor:
    """Return a Reconstructor with the shipped models."""
    return Reconstructor(models.MODELS[0], provider="cpu")


def picture(random: Generator, folder: Path) -> None:
    """Read a picture, detect faces in it, and sometimes write it."""
    path = media.picture(random, folder)
    detected_in(read_image(path))
    if random.random() < 0.05:
        written_out(path, folder / "out")


def detected_in(image: Image) -> None:
    """Detect faces in a picture."""
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size
    if image.shape[0] * image.shape[1] <= MOST_DETECTED_IN:
        for face in reconstructor().faces(image):
            assert np.isfinite(face.vertices).all()


def written_out(path: Path, out: Path) -> None:
    """Write outputs as `facerecon-rt --input PATH --output OUT/` does."""
    with open_source(path) as source, open_sink(f"{out}/", blendshapes=BLENDSHAPES) as sink:
        for frame in islice(source, FRAMES):
            sink.write(
                Scene(frame, reconstructor().faces(frame.image), provider="cpu", precision="int8", model="0" * 64)
            )


def video(random: Generator, folder: Path) -> None:
    """Read some frames, and sometimes write them. The video beside it must stay unread."""
    (folder / "clip.mp4").write_bytes(media.CLIP.read_bytes())
    path = media.video(random, folder)
    read = 0
    with open_source(path) as source:
        for frame in islice(source, FRAMES):
            assert frame.image.dtype == np.uint8 and frame.image.ndim == 3 and frame.image.size
            assert np.isfinite(frame.time_s) and frame.time_s >= 0
            read += 1
    assert read, "no frame and no error"
    if random.random() < 0.02:
        written_out(path, folder / "out")


def contract(random: Generator, folder: Path) -> None:
    """Read a contract as a model's and as a detector's."""
    text = models.contract(random, folder)
    refusals = 0
    for kind in (ModelContract, DetectorContract):
        try:
            made = kind.from_json(text)
            assert "\n" not in made.terms and isinstance(made.weights_sha256, str)
            json.dumps(json.loads(made.to_json()), allow_nan=False)
        except FaceReconError as error:
            one_line(error)
            refusals += 1
    if refusals == 2:
        raise FaceReconError("neither")


def model(random: Generator, folder: Path) -> None:
    """Open a model, run it on one and on three crops, and sometimes describe it."""
    path = models.model(random, folder)
    if random.random() < 0.2:
        from facerecon_export.describe import describe

        assert describe(path)
    picture = np.zeros((96, 128, 3), np.uint8)
    if path.name == models.MODELS[0].name:
        with FaceSession(path, provider="cpu") as session:
            for count in (1, 3):
                size = session.contract.input_size
                assert len(session.run(np.zeros((count, size, size, 3), np.uint8)).shape) == count
    else:
        assert all(np.isfinite(one.box).all() for one in open_detector(path).detect(picture))


def sources(random: Generator, folder: Path) -> None:
    """Read a list of sources. Every name must be fit for a log, and every option within its range."""
    path = texts.yaml_list(random, folder)
    listed = Inputs([str(path)])._listed
    for one in listed:
        assert one.name.replace(str(folder), "").isprintable() or "\xa0" in one.name, one.name
        assert isinstance(one.uri, str) and 0 < one.options.timeout_s <= 3600
        assert one.options.fps is None or 0 < one.options.fps <= 1000
        assert one.retries is None or one.retries >= 0


def weights(random: Generator, folder: Path) -> None:
    """Load a FaceModel's weights or a detector's."""
    from facerecon_export.deploy import is_detector
    from facerecon_training.checkpoint import load_weights
    from facerecon_training.detector.train import load_weights as load_detector

    path = models.safetensors(random, folder)
    if is_detector(path):
        load_detector(path)
    else:
        import torch

        network = load_weights(path)
        if network.config.input_size <= 128:
            network(torch.zeros(1, 3, network.config.input_size, network.config.input_size))


def checkpoint(random: Generator, folder: Path) -> None:
    """Load training state."""
    from facerecon_training.checkpoint import load_checkpoint

    load_checkpoint(models.checkpoint(random, folder))


def landmarks(random: Generator, folder: Path) -> None:
    """Read landmarks, fit them, and cut out crops as training, export and measuring do."""
    from facerecon_export.crops import load_crops
    from facerecon_training.photographs import canvas_from_photograph

    path = media.landmarks(random, folder)
    points = read_pts(path)
    known = points[np.isfinite(points[:, 0])]
    assert len(known) in (49, 68) and np.abs(known).max() < 1e7
    crops = load_crops(folder, 64, 10)
    assert crops.images.shape == (1, 64, 64, 3)
    canvas_from_photograph(read_image(path.with_suffix(".png")), points, reflect=True)
    landmark_figures(points[None] + 1, points[None])


def engines(random: Generator, folder: Path) -> None:
    """Check a folder of engines, and use or rebuild its engine. An unlisted engine must never be read."""
    root = texts.engines(random, folder)
    whole = is_kept(root, texts.KEY)
    fault(root / entry_name(texts.KEY), texts.KEY)
    read: list[Path] = []

    def open_in(entry: Path | None) -> str:
        if entry is not None and (entry / "a.engine").exists():
            if random.random() < 0.1:
                raise ProviderMissing("no tensorrt: the engine does not load")
            read.append(entry)
        elif entry is not None:
            (entry / "a.engine").write_bytes(b"machine code")
        return "session"

    assert open_with_engine(root, texts.KEY, "face.onnx", open_in) == "session"
    assert whole or not read or is_kept(root, texts.KEY)


def name(random: Generator, folder: Path) -> None:
    """Use a text as the name of a source, of an existing file, and of an output in this folder."""
    text = texts.name(random, folder)
    refused: list[FaceReconError] = []

    @contextmanager
    def noting() -> Iterator[None]:
        try:
            yield
        except FaceReconError as error:
            one_line(error)
            refused.append(error)

    with noting(), open_source(text) as source:
        for _ in islice(source, 2):
            pass
    path = Path(text) if not text.startswith("/") else folder / text.lstrip("/")
    try:
        inside = Path(os.path.realpath(path)).is_relative_to(folder)
        if inside and path.suffix:
            whole = (
                media.CLIP.read_bytes() if path.suffix.lower() in (".mp4", ".avi", ".mkv") else media.pictures()[".png"]
            )
            path.write_bytes(whole)
    except (OSError, ValueError):
        inside = inside_by_name(path)
    with noting(), open_source(path) as source:
        for _ in islice(source, 2):
            pass
    if inside and "/" not in text.rstrip("/"):
        frame = Frame(np.zeros((48, 64, 3), np.uint8), text)
        with noting(), open_sink(text, blendshapes=BLENDSHAPES) as sink:
            sink.write(Scene(frame, (), provider="cpu", precision="int8", model="0" * 64))
        out = open_sink(str(folder / "out") + "/", blendshapes=BLENDSHAPES)
        with noting(), out as sink:
            sink.write(Scene(frame, (), provider="cpu", precision="int8", model="0" * 64))
    if refused:
        raise FaceReconError("refused")


def inside_by_name(path: Path) -> bool:
    """Return whether a name that no file can have stays inside the folder. Nothing is written in any case."""
    return ".." not in path.parts and not path.is_absolute()


def number(random: Generator, folder: Path) -> None:
    """Give a text to the type function of a random option."""
    from facerecon_export import cli as export
    from facerecon_rt.archive.cli import archive_parser
    from facerecon_rt.bench.cli import bench_parser, compare_parser
    from facerecon_rt.commands.build import engine_parser
    from facerecon_rt.commands.options import build_parser
    from facerecon_training import cli as training

    makers: tuple[Callable[[], Any], ...] = (
        build_parser, bench_parser, compare_parser, archive_parser, engine_parser, training.build_parser,
        *(make for make, _ in export.COMMANDS.values()),
    )  # fmt: skip
    parser = chosen(random, makers)()
    actions = [action for action in parser._actions if callable(action.type)]
    text = texts.number(random, folder)
    if not actions:
        raise FaceReconError("takes none")
    try:
        chosen(random, actions).type(text)
    except ArgumentTypeError as error:
        raise FaceReconError(str(error)) from error


def report(random: Generator, folder: Path) -> None:
    """Compare a report with itself."""
    path = models.report(random, folder)
    found = compare(read_report(path), read_report(path))
    for figure, before, after, ratio in found.rows:
        assert f"{figure:24}{before:10.3f}{after:10.3f}{ratio:8.2f}"


KINDS: dict[str, tuple[Callable[[Generator, Path], None], int]] = {
    "pictures": (picture, 2500),
    "videos": (video, 1000),
    "ONNX files": (model, 1500),
    "contracts": (contract, 1500),
    "lists (YAML)": (sources, 1000),
    "weights (safetensors)": (weights, 600),
    "checkpoints": (checkpoint, 300),
    "landmarks (.pts)": (landmarks, 500),
    "engine folders": (engines, 300),
    "names": (name, 400),
    "numbers": (number, 200),
    "reports": (report, 200),
}
"""Name -> function that tries an input, and its number of inputs in 10 000."""


def one_line(error: FaceReconError) -> str:
    """Return the text of an error of this package, which must fit on a line of a log."""
    text = str(error)
    assert text and len(text) < LONGEST_LINE, f"an error of {len(text)} characters"
    assert "\n" not in text and "\r" not in text, f"an error of several lines: {text!r}"
    return text


def tried(kind: str, seed: int, number: int, folder: Path) -> dict[str, str]:
    """Make and try one input in an empty folder."""
    random = np.random.default_rng([seed, list(KINDS).index(kind), number])
    os.chdir(folder)
    try:
        KINDS[kind][0](random, folder)
    except FaceReconError as error:
        return {"outcome": "refused", "why": one_line(error)[:300]}
    return {"outcome": "taken", "why": ""}


def main() -> None:
    """Try inputs until standard input ends."""
    seed, folder = int(sys.argv[1]), Path(sys.argv[2])
    faulthandler.enable()
    warnings.simplefilter("ignore")
    cv2.setNumThreads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries must not mix with the answers
    for line in sys.stdin:
        kind, _, which = line.rstrip("\n").rpartition(" ")
        os.chdir("/")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak memory, so that it is this input's
        result = tried(kind, seed, int(which), folder)
        answers.write(json.dumps(result) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()

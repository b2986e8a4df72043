"""Fixtures for the tests of every stage, such as a model of a few kilobytes that keeps the whole contract."""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Protocol

# Threads of PyTorch and BLAS wait for each other where several processes share two cores. Read when they are loaded.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import pytest
from facerecon_rt.align import CROP_CENTRE_MM, CROP_SIDE_MM
from facerecon_rt.contract import BLENDSHAPES, CONTRACT_KEY, OUTPUTS_1, ModelContract
from facerecon_rt.template import load_template
from facerecon_rt.types import Floats
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

# Tests import ONNX Runtime themselves too; the package sets this before it does.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Where the environment forbids bytecode, each of the hundreds of processes that tests start would compile the packages
# again, and each worker would rewrite the asserts of all tests again. The tests take precedence.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

TINY_SIZE = 64
ROOT = Path(__file__).parents[1]


class MakeTinyModel(Protocol):
    """The type of the fixture `make_tiny_model`."""

    def __call__(self, path: Path, **contract_overrides: Any) -> Path: ...


TOGETHER = {
    "exported": [
        f"tests/export/test_{name}.py"
        for name in ("basis", "cli", "deploy", "describe", "fp16", "fuse", "int8", "lean", "lint")
    ],
    "api_reference": ["tests/test_api_reference.py", "tests/test_docs.py"],
}
"""Fixture that takes long to build -> the files that ask for it. They run in one process, which builds it once."""
SLOW = (
    "tests/export/test_deploy.py",
    "tests/runtime/test_archive_ray.py",
    "tests/export/test_shipped.py",
    "tests/export/test_backbones.py",
    "tests/export/test_export_detector.py",
    "tests/test_docs.py",
    "tests/test_shipped_models.py",
    "tests/training/test_train.py",
    "tests/training/test_prepare.py",
    "tests/test_fuzz.py",
)
"""Files that take longest. They come first, so that no process is left with one of them at the end."""


def unit_of(file: str) -> str:
    """The name of what runs in one process: a file of tests, or files that share what one of them builds."""
    return next((fixture for fixture, files in TOGETHER.items() if file in files), file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put slow files first."""
    first = [unit_of(file) for file in SLOW]
    places = {unit: place for place, unit in enumerate(first)}
    items.sort(key=lambda item: places.get(unit_of(item.nodeid.partition("::")[0]), len(places)))


def pytest_collection_finish() -> None:
    """Spare the garbage collector the modules and the tests, which stay until the end."""
    gc.collect()
    gc.freeze()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """Hand out `unit_of` each file instead of files."""
    return Units(config, log) if config.getoption("dist") == "loadfile" else None


class Units(LoadFileScheduling):  # type: ignore[misc]
    """As --dist loadfile, but for units of several files."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(super()._split_scope(nodeid))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape file names that are not UTF-8 in captured output: reports travel between processes as UTF-8."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_configure() -> None:
    """Give SIGHUP its default action. Under nohup it is ignored, which the program respects, and tests of a closed
    terminal would wait for ever."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def log_of_the_package() -> Iterator[None]:
    """Restore the package's log. Commands that run within a test send it to a stream that is closed after the test."""
    log = logging.getLogger("facerecon_rt")
    # A fixture of a whole session may have run a command before, which switches propagation off.
    log.handlers[:], log.propagate = [], True
    log.setLevel(logging.NOTSET)
    handlers, propagate, level = list(log.handlers), log.propagate, log.level
    yield
    log.handlers[:], log.propagate = handlers, propagate
    log.setLevel(level)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Return the folder of real data. Skips the test without it."""
    if "FACERECON_DATA" not in os.environ:
        pytest.skip("set FACERECON_DATA to the folder of training/README.md for the tests on real data")
    return Path(os.environ["FACERECON_DATA"])


def build_api(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Build the API reference into `folder`; modules beside it can be imported. Skips the test without pdoc."""
    pytest.importorskip("pdoc", reason="the extra `dev` is not installed")
    # The tests' own path: what is imported here is what the reference shows.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder.parent), *filter(None, sys.path)])}
    command: list[str | Path] = [sys.executable, ROOT / ".ci" / "api_reference.py", *arguments, "-o", folder]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="session")
def api_reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the API reference of this checkout, which must cause no warning."""
    folder = tmp_path_factory.mktemp("reference") / "api"
    done = build_api(folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


@pytest.fixture(scope="session")
def make_tiny_model() -> MakeTinyModel:
    """Make a `tiny_model` with other values in its contract: `make_tiny_model(path, precision="fp16")`. The graph stays
    the same, but `version=1` removes the outputs that contract 1 lacks."""
    return _make_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FaceModel file with the real contract that sees a frontal face, upright and in the middle, in every crop.

    Crops have 64 pixels. The mean brightness m (0..1) of a crop decides everything else, so that the faces of a batch
    differ: the face is 1 + (m - 0.5) / 50 times as large, jawOpen is m, and the other blendshapes are 0.1 m. The
    confidence is min(20 m, 0.95): 0 for a black crop, 0.95 for crops above 12 of 255. Both eyes look 30 m degrees to
    the subject's left. The identity code is (m, 0), and its variance (0.5, 1).
    """
    return _make_tiny_model(tmp_path_factory.mktemp("models") / "tiny.onnx")


@pytest.fixture(scope="session")
def tiny_model_1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_model` with contract 1, as release 0.1 exported: six outputs, no gaze."""
    return _make_tiny_model(tmp_path_factory.mktemp("models") / "tiny_1.onnx", version=1)


def _make_tiny_model(path: Path, **contract_overrides: Any) -> Path:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    template = load_template()
    contract = ModelContract(
        TINY_SIZE, template.vertex_count, template.sha256, "constant", terms="test use only", code_size=2
    )
    if contract_overrides.get("version") == 1:
        contract_overrides = {"outputs": OUTPUTS_1, "code_size": 0, **contract_overrides}
    # y down and away from the camera in the crop; CROP_CENTRE_MM in its middle, as `align` places it.
    scale = TINY_SIZE / CROP_SIDE_MM
    linear = np.diag([scale, -scale, -scale])
    translation = np.array([(TINY_SIZE - 1) / 2, (TINY_SIZE - 1) / 2, 0.0]) - linear @ np.array(CROP_CENTRE_MM)
    expression = np.full((1, len(BLENDSHAPES)), 0.1)
    expression[0, BLENDSHAPES.index("jawOpen")] = 1.0
    vertices = _plausible_vertices()
    lower = np.clip((-40.0 - vertices[:, 1:2]) / 40.0, 0.0, 1.0) * [0.0, -15.0, 0.0]
    constants = {
        "mean_face": vertices[None],
        "jaw_open": lower[None],
        "per_brightness": expression,
        "camera": np.hstack([linear, translation[:, None]])[None],
        "linear_transposed": linear.T,
        "translation": translation,
        "zero": np.zeros(()),
        "half": np.array(0.5),
        "fiftieth": np.array(0.02),
        "twenty_over_255": np.array(20.0 / 255.0),
        "over_255": np.array(1.0 / 255.0),
        "most": np.array(0.95),
        "thirty_degrees": np.radians(np.full((1, 2, 1), 30.0)),
        "code": np.array([[1.0, 0.0]]),
        "variance": np.array([[0.5, 1.0]]),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["image_float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["image_float", "image_axes"], ["mean_level"], keepdims=0),
        helper.make_node("Mul", ["mean_level", "over_255"], ["m"]),
        helper.make_node("Unsqueeze", ["m", "axis_1"], ["m_rows"]),
        helper.make_node("Unsqueeze", ["m", "axes_1_2"], ["m_blocks"]),
        helper.make_node("Sub", ["m_blocks", "half"], ["m_centred"]),
        helper.make_node("Mul", ["m_centred", "fiftieth"], ["larger"]),
        helper.make_node("Mul", ["larger", "mean_face"], ["growth"]),
        helper.make_node("Add", ["mean_face", "growth"], ["shape"]),
        helper.make_node("Mul", ["m_blocks", "jaw_open"], ["opening"]),
        helper.make_node("Add", ["shape", "opening"], ["vertices"]),
        helper.make_node("Mul", ["m_rows", "per_brightness"], ["expression"]),
        helper.make_node("Mul", ["m_blocks", "zero"], ["one_zero_per_crop"]),
        helper.make_node("Add", ["camera", "one_zero_per_crop"], ["crop_from_head"]),
        helper.make_node("Gather", ["vertices", "landmark_vertices"], ["landmarks_head"], axis=1),
        helper.make_node("MatMul", ["landmarks_head", "linear_transposed"], ["landmarks_turned"]),
        helper.make_node("Add", ["landmarks_turned", "translation"], ["landmarks"]),
        helper.make_node("Mul", ["mean_level", "twenty_over_255"], ["seen"]),
        helper.make_node("Min", ["seen", "most"], ["confidence"]),
    ]
    looking = [
        helper.make_node("Mul", ["m_blocks", "thirty_degrees"], ["yaw"]),
        helper.make_node("Sin", ["yaw"], ["sideways"]),
        helper.make_node("Mul", ["yaw", "zero"], ["upwards"]),
        helper.make_node("Cos", ["yaw"], ["ahead"]),
        helper.make_node("Concat", ["sideways", "upwards", "ahead"], ["gaze"], axis=2),
        helper.make_node("Mul", ["m_rows", "code"], ["identity"]),
        helper.make_node("Mul", ["m_rows", "zero"], ["zero_rows"]),
        helper.make_node("Add", ["zero_rows", "variance"], ["identity_variance"]),
    ]
    mesh: list[str | int] = ["N", template.vertex_count, 3]
    dims: dict[str, list[str | int]] = {
        "shape": mesh,
        "vertices": mesh,
        "expression": ["N", len(BLENDSHAPES)],
        "crop_from_head": ["N", 3, 4],
        "landmarks": ["N", 68, 3],
        "confidence": ["N"],
    }
    if contract_overrides.get("version") != 1:
        nodes += looking
        dims |= {"gaze": ["N", 2, 3], "identity": ["N", 2], "identity_variance": ["N", 2]}
    integers = {
        "image_axes": np.array([1, 2, 3]),
        "axis_1": np.array([1]),
        "axes_1_2": np.array([1, 2]),
        "landmark_vertices": template.landmarks,
    }
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", TINY_SIZE, TINY_SIZE, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in dims.items()],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
        + [numpy_helper.from_array(value.astype(np.int64), name) for name, value in integers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {CONTRACT_KEY: dataclasses.replace(contract, **contract_overrides).to_json()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def _plausible_vertices() -> Floats:
    """Return vertices (V, 3) in mm, head frame: a smooth surface over the template's texture coordinates that is exact
    at the 68 landmarks."""
    template = load_template()
    u, v = template.uv.T.astype(np.float64)
    powers = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], 1)
    weights, *_ = np.linalg.lstsq(powers[template.landmarks], template.landmark_positions, rcond=None)
    vertices: Floats = np.clip(powers @ weights, [-85, -125, -60], [85, 75, 50]).astype(np.float32)
    vertices[template.landmarks] = template.landmark_positions
    return vertices

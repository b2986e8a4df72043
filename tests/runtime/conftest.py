"""Fixtures for the tests of the runtime: a head that is a ball, and detectors that take bright spots for faces."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from facerecon_rt.align import box_from_square, square_from_camera
from facerecon_rt.faces.detector_contract import DETECTOR_KEY, DetectorContract
from facerecon_rt.faces.detector_runs import detector_runs
from facerecon_rt.networks import session as session_module
from facerecon_rt.pose import rotation_from_euler
from facerecon_rt.providers import choice as providers
from facerecon_rt.providers.choice import ORT_NAMES
from facerecon_rt.template import FaceTemplate
from facerecon_rt.types import Face, Floats, Image

from tests.conftest import MakeTinyModel

RADIUS_MM = 80.0


class MakeFace(Protocol):
    """The type of the fixture `ball_face`."""

    def __call__(
        self, x: float, y: float, *, scale: float = 0.5, yaw: float = 0.0, track: int | None = None
    ) -> Face: ...


class MakeDetector(Protocol):
    """The type of the fixture `make_bright_detector`."""

    def __call__(self, path: Path, contract: str = ..., *, box_name: str = ..., box: Sequence[float] = ...) -> Path: ...


class PaintSpots(Protocol):
    """The type of the fixture `spots`."""

    def __call__(self, width: int, height: int, at: Sequence[tuple[float, float]]) -> Image: ...


class Pretend(Protocol):
    """The type of the fixture `pretend`."""

    def __call__(
        self,
        *works: str,
        claims: Sequence[str] = ...,
        raises: Exception | None = ...,
        leaves: Sequence[str] = ...,
        wrong: bool = ...,
        breaks: bool = ...,
        frozen: bool = ...,
    ) -> list[dict[str, Any]]: ...


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pretend:
    """Pretend that ONNX Runtime is its GPU wheel, on a machine where these providers work besides the CPU:
    `pretend("cuda")`. They compute on the CPU. Returns the names of the providers that sessions asked for.

    - `claims`: providers that the wheel was built with, if more than those that work.
    - `raises`: error of a provider that does not work; without it, ONNX Runtime leaves the provider out silently.
    - `leaves`: operators that the provider leaves to the CPU.
    - `wrong`: the provider's answers are wrong.
    - `breaks`: the provider opens, but does not run.
    - `frozen`: a captured graph repeats its first answer.
    """

    def start(
        *works: str,
        claims: Sequence[str] = (),
        raises: Exception | None = None,
        leaves: Sequence[str] = (),
        wrong: bool = False,
        breaks: bool = False,
        frozen: bool = False,
    ) -> list[dict[str, Any]]:
        names = [ORT_NAMES[name] for name in (*(claims or works), "cpu")]
        real = [ORT_NAMES[name] for name in (*works, "cpu")]
        calls: list[dict[str, Any]] = []

        def create(data: bytes, options: Any, *, providers: list[Any], **others: Any) -> Any:
            asked = [provider if isinstance(provider, str) else provider[0] for provider in providers]
            calls.append({"names": asked, "providers": providers, "options": options, **others})
            if raises is not None and asked[0] not in real:
                raise raises
            session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            if asked[0] == ORT_NAMES["cpu"]:
                return session
            return GpuSession(session, [name for name in asked if name in real], leaves, wrong, breaks, frozen)

        fake = SimpleNamespace(**{name: getattr(onnxruntime, name) for name in FROM_ORT})
        fake.__file__, fake.__version__ = onnxruntime.__file__, onnxruntime.__version__
        fake.InferenceSession = create
        fake.get_available_providers = lambda: names
        fake.set_default_logger_severity = lambda severity: None
        fake.OrtValue = SimpleNamespace(
            ortvalue_from_numpy=lambda array, device, number: onnxruntime.OrtValue.ortvalue_from_numpy(array),
            ortvalue_from_shape_and_type=lambda shape, dtype, device, number: (
                onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype)
            ),
        )
        for module in (providers, session_module):
            monkeypatch.setattr(module, "import_onnxruntime", lambda: fake)
        monkeypatch.setattr(providers, "load_tensorrt", lambda linked: "10.13.3" if "tensorrt" in works else "")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return calls

    return start


FROM_ORT = (
    "SessionOptions",
    "GraphOptimizationLevel",
    "ExecutionMode",
    "RunOptions",
    "capi",
    "__file__",
    "__version__",
)


class GpuSession:
    """A session on the CPU that claims to run elsewhere."""

    def __init__(
        self, session: Any, names: list[str], leaves: Sequence[str], wrong: bool, breaks: bool, frozen: bool
    ) -> None:
        self._session = session
        self._names = names
        self._leaves = leaves
        self._wrong = wrong
        self._breaks = breaks
        self._frozen = frozen
        self._first: dict[Any, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return self._names

    def end_profiling(self) -> str:
        path = str(self._session.end_profiling())
        events = json.loads(Path(path).read_text())
        for event in events:
            args = event.get("args", {})
            if "provider" in args and args["op_name"] not in self._leaves:
                args["provider"] = self._names[0]
        Path(path).write_text(json.dumps(events))
        return path

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        if self._breaks:
            raise onnxruntime.capi.onnxruntime_pybind11_state.Fail("CUDA failure 2: out of memory")
        self._session.run_with_iobinding(binding, options)
        for index, output in enumerate(binding.get_outputs()):
            array = output.numpy()
            if self._frozen:
                array = self._first.setdefault((options.get_run_config_entry("gpu_graph_id"), index), array.copy())
            output.update_inplace(np.ascontiguousarray(array + 7 if self._wrong else array))


@pytest.fixture(params=["PyAV", "OpenCV"])
def video_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The library that reads and writes videos: PyAV or OpenCV, in turn."""
    if request.param == "PyAV":
        pytest.importorskip("av", reason="the extra `video` is not installed")
    else:
        without_pyav(monkeypatch)
    return str(request.param)


def without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the extra `video` is not installed."""
    for module in ("facerecon_rt.sources.video_av", "facerecon_rt.sinks.video_writer_av"):
        monkeypatch.setitem(sys.modules, module, None)


@pytest.fixture(scope="session")
def make_bright_detector() -> MakeDetector:
    """Make a `bright_detector` with another contract: `make_bright_detector(path, contract)`."""
    return _make_bright_detector


@pytest.fixture(scope="session")
def bright_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector file whose faces are bright cells: score is the mean brightness of 8 x 8 pixels, sides are 32."""
    return _make_bright_detector(tmp_path_factory.mktemp("models") / "bright.onnx")


@pytest.fixture(scope="session")
def model(tiny_model: Path, bright_detector: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_model` in a folder of its own, with `bright_detector` beside it under the default name."""
    folder = tmp_path_factory.mktemp("shipped")
    shutil.copy(bright_detector, folder / "face_detector.onnx")
    return Path(shutil.copy(tiny_model, folder / "face.onnx"))


@pytest.fixture(scope="session")
def model_1(tiny_model_1: Path, bright_detector: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `model` of contract 1, which has no gaze."""
    folder = tmp_path_factory.mktemp("shipped")
    shutil.copy(bright_detector, folder / "face_detector.onnx")
    return Path(shutil.copy(tiny_model_1, folder / "face.onnx"))


@pytest.fixture
def four_at_a_time(make_tiny_model: MakeTinyModel, tmp_path: Path) -> Path:
    """`tiny_model` as a file that takes exactly four crops."""
    model = onnx.load(make_tiny_model(tmp_path / "any.onnx", batch=4))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, tmp_path / "four.onnx")
    return tmp_path / "four.onnx"


@pytest.fixture(scope="session")
def spots() -> PaintSpots:
    """Function that paints a grey picture in which `bright_detector` finds a face at each place: `spots(width, height,
    [(x, y)])`.

    Each spot is one cell of the detector's input, and its face is 4 cells wide. x and y are shares of the picture,
    0..1.
    """

    def paint(width: int, height: int, at: Sequence[tuple[float, float]]) -> Image:
        seen = detector_runs(max(width, height), None)[0].size
        columns, rows = (max(1, round(side * seen / max(width, height) / 8)) for side in (width, height))
        cells = np.full((rows, columns, 3), 60, np.uint8)
        for x, y in at:
            cells[int(y * rows), int(x * columns)] = 255
        return np.asarray(cv2.resize(cells, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)

    return paint


@pytest.fixture(scope="session")
def ball() -> FaceTemplate:
    """A ball with a radius of 80 mm: rings of latitude, with 68 landmarks on vertices of the front half."""
    rings, spokes = 15, 24
    ring, spoke = (grid.ravel() for grid in np.meshgrid(np.arange(1, rings), np.arange(spokes), indexing="ij"))
    bands_uv = np.stack([spoke / spokes, 1 - ring / rings], axis=1)
    uv = np.vstack([bands_uv, [[0.5, 1.0], [0.5, 0.0]]]).astype(np.float32)
    here = np.arange(spokes)
    right = np.roll(here, -1)
    bands = [
        triangle + band * spokes
        for band in range(rings - 2)
        for triangle in (np.stack([here, here + spokes, right], 1), np.stack([right, here + spokes, right + spokes], 1))
    ]
    north, south = (rings - 1) * spokes, (rings - 1) * spokes + 1
    last = (rings - 2) * spokes
    caps = [
        np.stack([np.full(spokes, north), here, right], 1),
        np.stack([np.full(spokes, south), right + last, here + last], 1),
    ]
    points = _sphere(uv)
    front = np.flatnonzero(points[:, 2] > 10)
    landmarks = front[np.linspace(0, len(front) - 1, 68).astype(int)].astype(np.int32)
    return FaceTemplate(
        triangles=np.vstack(bands + caps).astype(np.int32),
        uv=uv,
        landmarks=landmarks,
        landmark_positions=points[landmarks],
        symmetry=np.arange(len(uv), dtype=np.int32),
        jaw_candidates=np.zeros((17, 1), np.int32),
        sha256="ball",
    )


@pytest.fixture(scope="session")
def ball_face(ball: FaceTemplate) -> MakeFace:
    """Function that makes the ball with its centre at a pixel of the frame, with `scale` pixels per mm: `ball_face(x,
    y, scale=0.5)`."""

    def make(x: float, y: float, *, scale: float = 0.5, yaw: float = 0.0, track: int | None = None) -> Face:
        vertices = _sphere(ball.uv)
        camera = np.column_stack([scale * rotation_from_euler(0, yaw, 0), [x, y, 0.0]]).astype(np.float32)
        return Face(
            shape=vertices,
            vertices=vertices,
            expression=np.zeros(53, np.float32),
            frame_from_head=camera,
            landmarks=vertices[ball.landmarks] @ camera[:, :3].T + camera[:, 3],
            confidence=0.9,
            box=box_from_square(square_from_camera(camera)),
            track=track,
        )

    return make


def _sphere(uv: Floats) -> Floats:
    """Return points (V, 3) in mm, head frame, of coordinates (V, 2): u runs once around, v from the south pole to the
    north pole."""
    longitude, latitude = 2 * np.pi * uv[:, 0], np.pi * (uv[:, 1] - 0.5)
    across = np.cos(latitude)
    points = np.stack([across * np.sin(longitude), np.sin(latitude), across * np.cos(longitude)], axis=1)
    return (RADIUS_MM * points).astype(np.float32)


def _make_bright_detector(
    path: Path,
    contract: str = DetectorContract(0.5).to_json(),
    *,
    box_name: str = "box",
    box: Sequence[float] = (0, 0, 0, 1, 0),
) -> Path:
    """Make the file. `box`: the answer of every cell, by default an upright head."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["levels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("ReduceMean", ["cells", "channels"], ["grey"], keepdims=0),
        helper.make_node("Mul", ["grey", "over_255"], ["score"]),
        helper.make_node("Conv", ["cells", "nothing", "always"], [box_name]),
    ]
    graph = helper.make_graph(
        nodes,
        "bright",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", "h", "w"]),
            helper.make_tensor_value_info(box_name, TensorProto.FLOAT, ["N", len(box), "h", "w"]),
        ],
        [
            numpy_helper.from_array(np.array([1], np.int64), "channels"),
            numpy_helper.from_array(np.array(1 / 255, np.float32), "over_255"),
            numpy_helper.from_array(np.zeros((len(box), 3, 1, 1), np.float32), "nothing"),
            numpy_helper.from_array(np.array(box, np.float32), "always"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {DETECTOR_KEY: contract})
    onnx.save(model, path)
    return path


@pytest.fixture
def python_answers_ctrl_c() -> Iterator[None]:
    """Let Python handle Ctrl-C as in a terminal, however the tests were started."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)

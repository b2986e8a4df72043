"""Networks on a model server. A function stands in for the server, because the runtime does not depend on a
protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from facerecon_rt.errors import ModelRefused, UsageError
from facerecon_rt.faces.detect import FaceDetector
from facerecon_rt.faces.detector_contract import read_detector_contract
from facerecon_rt.faces.reconstruct import Reconstructor
from facerecon_rt.faces.served import ServedDetector, ServedNetwork
from facerecon_rt.networks.session import FaceSession, read_contract
from facerecon_rt.providers.onnx_file import read_onnx
from facerecon_rt.types import Floats
from numpy.typing import NDArray

from tests.conftest import TINY_SIZE, MakeTinyModel
from tests.runtime.conftest import PaintSpots

Infer = Callable[[Sequence[str], NDArray[np.uint8]], dict[str, Floats]]
MODELS = Path(__file__).parents[2] / "models"


def answering(path: Path, batches: list[int] | None = None) -> Infer:
    """Return a function that answers from this file. It gives (N, 1) for (N,) as Triton does, and notes the crops of
    each request."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def infer(names: Sequence[str], images: NDArray[np.uint8]) -> dict[str, Floats]:
        if batches is not None:
            batches.append(len(images))
        arrays = session.run(list(names), {"image": images})
        return {name: a[:, None] if a.ndim == 1 else a for name, a in zip(names, arrays, strict=True)}

    return infer


@pytest.mark.parametrize("which", ["tiny_model", "tiny_model_1"])
def test_a_served_network_answers_as_a_session_in_requests_of_at_most_sixteen(
    which: str, request: pytest.FixtureRequest
) -> None:
    tiny_model: Path = request.getfixturevalue(which)
    batches: list[int] = []
    network = ServedNetwork(answering(tiny_model, batches), read_contract(read_onnx(tiny_model)), where="there")
    crops = np.random.default_rng(0).integers(0, 255, (19, TINY_SIZE, TINY_SIZE, 3)).astype(np.uint8)
    raw = network.run(crops)
    assert batches == [16, 3]
    with FaceSession(tiny_model, provider="cpu") as session:
        expected = session.run(crops)
    for name in network.contract.outputs:
        np.testing.assert_array_equal(getattr(raw, name), getattr(expected, name))
    assert (raw.gaze is None) == (which == "tiny_model_1")
    assert raw.disagreement is None


def test_a_server_of_other_weights_is_found_out_by_the_golden_crop(tmp_path: Path) -> None:
    """The server has the same network, but the filters of its first convolution are a third stronger."""
    model = onnx.load(MODELS / "face.onnx")
    first = next(node for node in model.graph.node if node.op_type == "Conv").input[1]
    (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == first)
    weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights) * np.float32(1.3), first))
    onnx.save(model, tmp_path / "other.onnx")
    contract = read_contract(read_onnx(MODELS / "face.onnx"))
    assert ServedNetwork(answering(MODELS / "face.onnx"), contract, where="there").contract is contract
    with pytest.raises(ModelRefused, match=r"there: its self-test fails: .*; the server runs another file"):
        ServedNetwork(answering(tmp_path / "other.onnx"), contract, where="there")


def test_a_file_of_four_crops_gets_four(four_at_a_time: Path) -> None:
    batches: list[int] = []
    network = ServedNetwork(answering(four_at_a_time, batches), read_contract(read_onnx(four_at_a_time)), where="there")
    raw = network.run(np.full((5, TINY_SIZE, TINY_SIZE, 3), 90, np.uint8))
    assert (batches, len(raw.shape)) == ([4, 4], 5)


def test_an_answer_that_no_face_model_gives_is_refused(tiny_model: Path) -> None:
    contract = read_contract(read_onnx(tiny_model))
    whole = answering(tiny_model)
    crops = np.full((1, TINY_SIZE, TINY_SIZE, 3), 90, np.uint8)

    def without(names: Sequence[str], images: NDArray[np.uint8]) -> dict[str, Floats]:
        return {name: array for name, array in whole(names, images).items() if name != "landmarks"}

    def not_finite(names: Sequence[str], images: NDArray[np.uint8]) -> dict[str, Floats]:
        return {name: array * np.float32(np.nan) for name, array in whole(names, images).items()}

    with pytest.raises(ModelRefused, match="there: the answer lacks landmarks"):
        ServedNetwork(without, contract, where="there").run(crops)
    with pytest.raises(ModelRefused, match="there: output shape is not finite"):
        ServedNetwork(not_finite, contract, where="there").run(crops)
    with pytest.raises(UsageError, match="there takes uint8"):
        ServedNetwork(whole, contract, where="there").run(crops[:, 1:])


def test_sets_are_not_for_crops(make_tiny_model: MakeTinyModel, tmp_path: Path) -> None:
    contract = read_contract(read_onnx(make_tiny_model(tmp_path / "tiny.onnx")))
    object.__setattr__(contract, "set_size", 3)
    with pytest.raises(UsageError, match="averages sets of photographs"):
        ServedNetwork(answering(tmp_path / "tiny.onnx"), contract, where="there")


def test_a_served_detector_finds_what_one_here_finds(bright_detector: Path, spots: PaintSpots) -> None:
    contract = read_detector_contract(read_onnx(bright_detector))
    served = ServedDetector(answering(bright_detector), contract, where="there")
    for width, height in ((320, 240), (1920, 1080)):
        picture = spots(width, height, [(0.3, 0.4), (0.7, 0.6)])
        with FaceDetector(bright_detector) as here:
            expected = here.detect(picture)
        found = served.detect(picture)
        assert len(found) == len(expected) == 2
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one.box, other.box)
            assert one.score == other.score


def test_a_reconstructor_works_on_a_server_as_on_files(model: Path, spots: PaintSpots) -> None:
    picture = spots(320, 240, [(0.3, 0.4), (0.7, 0.6)])
    network = ServedNetwork(answering(model), read_contract(read_onnx(model)), where="there", provider="kserve")
    beside = model.with_name("face_detector.onnx")
    detector = ServedDetector(answering(beside), read_detector_contract(read_onnx(beside)), where="there")
    with Reconstructor(model, provider="cpu") as here, Reconstructor(network, detector=detector) as there:
        faces, expected = there.faces(picture), here.faces(picture)
        assert there.choice == "kserve, the caller's"
    assert len(faces) == len(expected) == 2
    for face, other in zip(faces, expected, strict=True):
        np.testing.assert_array_equal(face.vertices, other.vertices)
        np.testing.assert_array_equal(face.frame_from_head, other.frame_from_head)
    with pytest.raises(UsageError, match="a network has no detector file beside it"):
        Reconstructor(network)

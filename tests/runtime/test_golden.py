"""Each file is tested with a drawn face when it is opened, and files with wrong answers are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from facerecon_rt.errors import ModelRefused, ProviderMissing
from facerecon_rt.networks.golden import TOLERANCES, failure, golden_answer, golden_crop
from facerecon_rt.networks.session import FaceSession

from tests.conftest import TINY_SIZE, MakeTinyModel
from tests.runtime.conftest import Pretend


def answer_of(path: Path) -> tuple[float, ...]:
    """Return a file's answer to the golden crop."""
    with FaceSession(path, provider="cpu", self_test=False) as session:
        raw = session.run(golden_crop(session.contract.input_size)[None])
    return golden_answer(raw.landmarks[0], raw.vertices[0])


@pytest.fixture
def golden(tiny_model: Path) -> tuple[float, ...]:
    return answer_of(tiny_model)


def test_the_golden_crop_is_a_lit_face_in_the_middle() -> None:
    crop = golden_crop(128).astype(int)
    assert crop.shape == (128, 128, 3)
    assert crop[70, 50].sum() > crop[70, 78].sum()  # the light comes from the left
    assert crop[2, 2].tolist() == [90, 90, 80]
    mirrored = crop[:, ::-1]
    assert 0 < np.abs(crop - mirrored).max() < 60
    # The same picture at another size, not another picture.
    small = golden_crop(64).astype(int)
    assert np.abs(crop.reshape(64, 2, 64, 2, 3).mean((1, 3)) - small).mean() < 3


def test_a_right_answer_opens(make_tiny_model: MakeTinyModel, golden: tuple[float, ...], tmp_path: Path) -> None:
    path = make_tiny_model(tmp_path / "right.onnx", golden=golden)
    with FaceSession(path) as session:
        assert session.contract.golden == golden


@pytest.mark.parametrize("index", [0, 2], ids=["landmarks", "vertices"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_wrong_answer_is_refused_by_the_tolerance_of_its_precision(
    make_tiny_model: MakeTinyModel, golden: tuple[float, ...], tmp_path: Path, index: int, precision: str
) -> None:
    for factor in (0.9, 1.1):
        rows = np.reshape(golden, (68, 5)).copy()
        rows[:, index] += factor * TOLERANCES[precision]
        path = make_tiny_model(tmp_path / "m.onnx", golden=tuple(map(float, rows.ravel())), precision=precision)
        if factor < 1:
            FaceSession(path).close()
        else:
            with pytest.raises(ModelRefused, match="self-test fails: landmarks of the golden crop are off by"):
                FaceSession(path)


def test_what_is_no_number_is_no_answer(
    make_tiny_model: MakeTinyModel, golden: tuple[float, ...], tmp_path: Path
) -> None:
    with FaceSession(make_tiny_model(tmp_path / "m.onnx", golden=golden)) as session:
        raw = session.run(golden_crop(TINY_SIZE)[None])
        assert failure(session.contract, raw.landmarks[0], raw.vertices[0]) == ""
        assert failure(session.contract, raw.landmarks[0] * np.nan, raw.vertices[0]) != ""


def test_auto_leaves_a_provider_that_answers_wrongly_and_says_so(
    make_tiny_model: MakeTinyModel, golden: tuple[float, ...], tmp_path: Path, pretend: Pretend
) -> None:
    path = make_tiny_model(tmp_path / "m.onnx", golden=golden)
    pretend("cuda", wrong=True)
    with FaceSession(path) as opened:
        assert opened.provider == "cpu"
        assert "no cuda: its self-test fails" in opened.choice
    with pytest.raises(ProviderMissing, match=r"no cuda: its self-test fails.*or use --provider cpu"):
        FaceSession(path, provider="cuda")


def test_auto_leaves_a_provider_that_opens_and_then_does_not_run(
    make_tiny_model: MakeTinyModel, golden: tuple[float, ...], tmp_path: Path, pretend: Pretend
) -> None:
    path = make_tiny_model(tmp_path / "m.onnx", golden=golden)
    pretend("cuda", breaks=True)
    with FaceSession(path) as opened:
        assert "no cuda: the model does not run (CUDA failure 2: out of memory)" in opened.choice
    with pytest.raises(ProviderMissing, match="no cuda: the model does not run"):
        FaceSession(path, provider="cuda")

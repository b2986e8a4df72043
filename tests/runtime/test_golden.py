"""A file is asked about a drawn face when it is opened, and wrong answers are not taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facerecon_rt import session as session_module
from facerecon_rt.errors import ModelRefused, ProviderMissing
from facerecon_rt.golden import TOLERANCES, failure, golden_answer, golden_crop
from facerecon_rt.session import FaceSession

from tests.conftest import TINY_SIZE, MakeTinyModel


def answer_of(path: Path) -> tuple[float, ...]:
    """What the file says about the golden crop."""
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
    make_tiny_model: MakeTinyModel, golden: tuple[float, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_tiny_model(tmp_path / "m.onnx", golden=golden)
    open_ort_session = session_module.open_ort_session
    real_run = FaceSession._run

    def open_anywhere(model: Any, provider: Any = "auto", threads: int = 1) -> Any:
        """As if CUDA were there; its sessions are the CPU's."""
        if provider == "tensorrt":
            raise ProviderMissing("no tensorrt: not here; install it")
        session, _, _ = open_ort_session(model, "cpu", threads)
        return (("cuda", session) if provider == "cuda" else session), provider, ""

    def run(self: FaceSession, session: Any, names: list[str], images: Any) -> Any:
        if isinstance(session, tuple):
            return [array + 7 for array in real_run(self, session[1], names, images)]
        return real_run(self, session, names, images)

    monkeypatch.setattr(session_module, "open_ort_session", open_anywhere)
    monkeypatch.setattr(FaceSession, "_run", run)
    with FaceSession(path) as opened:
        assert opened.provider == "cpu"
        assert opened.choice.startswith("cpu, the best that works (no tensorrt: not here; no cuda: its self-test fails")
    with pytest.raises(ProviderMissing, match=r"no cuda: its self-test fails.*or use --provider cpu"):
        FaceSession(path, provider="cuda")

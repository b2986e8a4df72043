"""The choice among files that were made from one set of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from facerecon_rt.errors import ModelRefused, UsageError
from facerecon_rt.networks.precision import file_of_precision, files_of_precision, open_session
from facerecon_rt.networks.session import FaceSession

from tests.runtime.conftest import Pretend


class MakeTinyModel(Protocol):
    def __call__(self, path: Path, **contract_overrides: Any) -> Path: ...


@pytest.fixture
def family(make_tiny_model: MakeTinyModel, tmp_path: Path) -> Path:
    """A folder with the fp32 file, both int8 files, and a file of other weights. Returns the fp32 file."""
    make_tiny_model(tmp_path / "a-stranger.onnx", precision="fp16", weights_sha256="b" * 64)
    make_tiny_model(tmp_path / "face.int8.onnx", precision="int8", target="tensorrt", weights_sha256="a" * 64)
    make_tiny_model(tmp_path / "face.int8-cpu.onnx", precision="int8", target="cpu", weights_sha256="a" * 64)
    (tmp_path / "broken.onnx").write_bytes(b"no ONNX")
    return make_tiny_model(tmp_path / "face.onnx", weights_sha256="a" * 64)


def test_int8_is_the_file_for_the_provider(family: Path) -> None:
    assert file_of_precision(family, "int8", "cpu").name == "face.int8-cpu.onnx"
    assert file_of_precision(family, "int8", "tensorrt").name == "face.int8.onnx"
    assert file_of_precision(family, "fp32", "cpu") == family


def test_files_of_a_precision_are_those_for_every_provider(family: Path) -> None:
    assert [file.name for file in files_of_precision(family, "int8")] == ["face.int8.onnx", "face.int8-cpu.onnx"]
    assert files_of_precision(family.with_name("face.int8.onnx"), "fp32") == [family]
    with pytest.raises(UsageError, match="no fp16 file of the same weights"):
        files_of_precision(family, "fp16")


def test_files_of_other_weights_do_not_count(family: Path) -> None:
    says = r"no fp16 file of the same weights for cpu beside .*face\.onnx; leave --precision out, or make one"
    with pytest.raises(UsageError, match=says):
        file_of_precision(family, "fp16", "cpu")


def test_what_is_no_model_is_refused(family: Path) -> None:
    with pytest.raises(ModelRefused, match=r"broken\.onnx: not an ONNX file"):
        file_of_precision(family.with_name("broken.onnx"), "fp32", "cpu")
    with pytest.raises(ModelRefused, match=r"absent\.onnx"):
        file_of_precision(family.with_name("absent.onnx"), "fp32", "cpu")
    (family.parent / "a-folder.onnx").mkdir()
    assert file_of_precision(family, "fp32", "cpu") == family
    with pytest.raises(UsageError, match="unknown precision 'fp8'"):
        file_of_precision(family, "fp8", "cpu")


def test_a_session_opens_the_file_of_that_precision(family: Path) -> None:
    with open_session(family, provider="cpu", precision="int8") as session:
        assert (session.path.name, session.contract.precision, session.provider) == (
            "face.int8-cpu.onnx",
            "int8",
            "cpu",
        )
    with open_session(family, provider="cpu") as session:
        assert session.path == family


def test_auto_takes_the_file_that_fits_the_provider_that_works(family: Path, pretend: Pretend) -> None:
    pretend(claims=["cuda"])
    with open_session(family, precision="int8") as session:
        assert session.path.name == "face.int8-cpu.onnx"
        assert session.choice.startswith("cpu, the fastest provider that works (no tensorrt: ")
    pretend("cuda")
    with open_session(family, precision="int8") as session:
        assert (session.path.name, session.provider) == ("face.int8.onnx", "cuda")


def test_auto_passes_over_a_provider_that_has_no_file(family: Path, pretend: Pretend) -> None:
    family.with_name("face.int8.onnx").unlink()
    with open_session(family, precision="int8") as session:
        assert session.choice == "cpu (this ONNX Runtime supports CPUs only)"
    pretend(claims=["cuda"])
    with open_session(family, precision="int8") as session:
        assert session.path.name == "face.int8-cpu.onnx"
        assert "no tensorrt: no int8 file of the same weights for tensorrt beside" in session.choice
    with pytest.raises(UsageError, match="no int8 file of the same weights for tensorrt"):
        open_session(family, provider="tensorrt", precision="int8")
    with pytest.raises(UsageError, match="no fp16 file of the same weights for cpu"):
        open_session(family, precision="fp16")


def test_a_file_of_a_fixed_batch_takes_any_number_of_crops(four_at_a_time: Path, tiny_model: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)
    with FaceSession(four_at_a_time, provider="cpu") as four, FaceSession(tiny_model, provider="cpu") as any_:
        np.testing.assert_array_equal(four.run(images).vertices, any_.run(images).vertices)


def test_a_file_that_averages_a_set_is_not_run_face_by_face(make_tiny_model: MakeTinyModel, tmp_path: Path) -> None:
    path = make_tiny_model(tmp_path / "any.onnx", batch=3)
    with pytest.raises(ModelRefused, match=r"its contract says uint8 \(3, 64, 64, 3\)"):
        FaceSession(path, provider="cpu")

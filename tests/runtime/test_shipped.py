"""The shipped models: they are found by name, used without --model, and listed with the terms in their files."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from facerecon_rt import shipped
from facerecon_rt.cli import main
from facerecon_rt.networks.session import read_contract
from facerecon_rt.providers.onnx_file import read_onnx
from facerecon_rt.shipped import model_path, shipped_folder

from ..conftest import ROOT

CLIP = str(ROOT / "tests" / "data" / "talking_head.mp4")


def test_a_name_is_a_shipped_file_unless_a_file_here_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = shipped_folder()
    assert folder is not None
    for name in ("face", "face.onnx"):
        assert model_path(name) == str(folder / "face.onnx")
    assert model_path("face.int8-cpu") == str(folder / "face.int8-cpu.onnx")
    assert model_path("face_detector.onnx") == "face_detector.onnx", "a detector is no FaceModel"
    assert model_path("models/face.onnx") == "models/face.onnx"
    Path("face.onnx").touch()
    assert model_path("face.onnx") == "face.onnx"


def test_a_model_that_is_not_there_is_answered_with_the_names_of_those_that_ship(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--model", "models/face.onnx", "--input", CLIP]) == 3
    names = ", ".join(sorted(path.name for path in (ROOT / "models").glob("face.*onnx")))
    assert "face.int8-cpu.onnx" in names
    assert f"or the name of a shipped one (shipped: {names})" in capsys.readouterr().err


def test_without_a_model_the_shipped_one_runs_in_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--input", CLIP, "--frames", "2", "--provider", "cpu", "--output", "out.jsonl"]) == 0
    said = capsys.readouterr().err
    model = read_onnx(shipped_folder() / "face.int8-cpu.onnx")  # type: ignore[operator]
    assert f"face.int8-cpu.onnx; terms: {read_contract(model).terms}" in said
    lines = Path("out.jsonl").read_text().splitlines()
    assert len(lines) == 2 and json.loads(lines[0])["precision"] == "int8"
    assert json.loads(lines[0])["model"] == model.sha256


def test_models_lists_the_files_with_their_terms(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    for path in sorted((ROOT / "models").glob("face.*onnx")):
        assert f"{path.name}\n" in said and read_contract(read_onnx(path)).terms in said
    measured = json.loads((ROOT / "benchmarks" / "results" / "precisions.json").read_text())
    for name, row in measured["files"].items():
        about = said.partition(f"{name}\n")[2].partition("face.")[0]
        assert f"speed: {row['milliseconds']:.1f} ms per crop" in about and measured["machine"] in about
    card = (ROOT / "models" / "README.md").read_text()
    (error,) = re.findall(r"^\| inter-ocular NME, inner 51 points \| ([\d.]+ %)", card, re.MULTILINE)
    assert error in said and "inter-ocular NME" in said, "from the model card"


def test_an_installation_without_files_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "site" / "facerecon_rt"
    package.mkdir(parents=True)
    monkeypatch.setattr(shipped, "files", lambda name: package)
    assert shipped_folder() is None and model_path("face") == "face"
    assert main(["--input", CLIP]) == 2
    assert main(["models"]) == 3
    assert capsys.readouterr().err.count("this installation has no model files") == 2
    shutil.copytree(ROOT / "models", package / "models", ignore=shutil.ignore_patterns("*.safetensors"))
    assert shipped_folder() == package / "models", "as in the wheel"


@pytest.mark.parametrize(
    ("command", "file"), [("bench", "face.int8-cpu.onnx"), ("archive", "face.int8-cpu.onnx"), ("build", "face.onnx")]
)
def test_other_commands_take_the_shipped_model_too(
    command: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = {
        "bench": ["--input", CLIP, "--count", "3", "--warm-up", "1", "--provider", "cpu"],
        "archive": ["--input", "none.jpg", "--output", "rows/", "--provider", "cpu"],
        "build": [],
    }
    if command == "archive":
        pytest.importorskip("ray", reason="the extra `ray` is not installed")
    code = main([command, *words[command]])
    said = capsys.readouterr().err
    assert f"{file}; terms: research only" in said
    if command == "bench":
        assert code == 0
        report = json.loads(Path("bench-report/report.json").read_text())
        assert report["model"]["files"][0]["name"] == file
    else:  # no such photograph, and no TensorRT
        assert code in (4, 5)

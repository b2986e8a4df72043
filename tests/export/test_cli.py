"""`facerecon-export` as it is typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from facerecon_export import cli
from facerecon_export.cli import main, target_path
from facerecon_rt.errors import UsageError


def test_the_file_goes_where_it_is_sent(tmp_path: Path) -> None:
    weights = Path("runs/face.safetensors")
    assert target_path(weights, None) == Path("runs/face.onnx")
    assert target_path(weights, tmp_path) == tmp_path / "face.onnx"
    assert target_path(weights, tmp_path / "other.onnx") == tmp_path / "other.onnx"
    with pytest.raises(UsageError, match="neither a folder that exists nor a path ending in"):
        target_path(weights, tmp_path / "absent")
    with pytest.raises(UsageError, match="absent: no such folder"):
        target_path(weights, tmp_path / "absent" / "face.onnx")


def test_what_was_asked_for_is_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(cli, "_exporter", lambda: lambda *arguments: calls.append(arguments[:3]))
    assert main(["a/face.safetensors", "-o", str(tmp_path), "--crops", "faces"]) == 0
    assert calls == [(Path("a/face.safetensors"), tmp_path / "face.onnx", Path("faces"))]


def test_an_error_is_one_line_and_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "absent.safetensors")]) == 3
    error = capsys.readouterr().err
    assert error.startswith("facerecon-export: ")
    assert "absent.safetensors" in error
    assert error.count("\n") == 1


def test_without_pytorch_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "facerecon_export.to_onnx", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main([str(tmp_path / "face.safetensors")]) == 2
    assert "torch is not installed: pip install 'facerecon-rt[export]'" in capsys.readouterr().err


def test_help_teaches_and_needs_no_pytorch(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--help"])
    assert leaving.value.code == 0
    text = capsys.readouterr().out
    assert "facerecon-export models/face.safetensors -o models/" in text
    assert "exit codes" in text
    program = "import sys, facerecon_export.cli; print('torch' in sys.modules, 'onnx' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "False"]

"""The commands that results of benchmarks name, and counts that a benchmark cannot measure."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    made.add_argument("networks", nargs="*")
    made.add_argument("--data", type=Path)
    made.add_argument("--model", action="append")
    made.add_argument("--models", type=Path, nargs="+", default=[Path("models/face.onnx")])
    made.add_argument("--count", type=int, default=1000)
    made.add_argument("--npm", type=Path)
    made.add_argument("--time", action="store_true")
    made.add_argument("--worker", help=argparse.SUPPRESS)
    return made


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ("", ""),
        ("--data /home/me/data --count 1000", " --data DATA"),
        ("a --model a.onnx --model b.onnx --time", " --model a.onnx --model b.onnx --time"),
        ("--models a.onnx b.onnx --npm /home/me/js", " --models a.onnx b.onnx --npm JS"),
        ("--count 5 --worker w", " --count 5"),
    ],
)
def test_a_command_has_every_option_that_changes_the_run_and_no_folder_of_the_machine(
    given: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/benchmarks/speed.py"])
    options = parser().parse_args(given.split())
    assert importlib.import_module("commands").command_of(parser(), options) == f"python benchmarks/speed.py{command}"


def test_too_few_photographs_for_all_actors_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="pip install 'facerecon-rt[ray]' for archives")
    archive = importlib.import_module("archive")
    for name in archive.SETS:
        (tmp_path / "faces" / name).mkdir(parents=True)
    for number in range(9):
        (tmp_path / "faces" / archive.SETS[0] / f"{number}.jpg").touch()
    monkeypatch.setenv("FACERECON_DATA", str(tmp_path))
    for given in (["--count", "6", "--part-size", "3"], ["--part-size", "5"]):
        monkeypatch.setattr(sys, "argv", ["benchmarks/archive.py", *given])
        with pytest.raises(SystemExit):
            archive.main()
        assert "give more with --count, or a smaller --part-size" in capsys.readouterr().err


@pytest.mark.parametrize(("script", "needs"), [("archive", "ray"), ("texture", "cv2")])
def test_a_missing_data_folder_is_one_line(
    script: str, needs: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(needs)
    monkeypatch.delenv("FACERECON_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", [f"benchmarks/{script}.py"])
    with pytest.raises(SystemExit):
        importlib.import_module(script).main()
    assert "set FACERECON_DATA" in capsys.readouterr().err

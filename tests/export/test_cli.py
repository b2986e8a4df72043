"""`facerecon-export` as it is typed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from facerecon_export import deploy, lint
from facerecon_export.cli import COMMANDS, OPSETS, _export_parser, main
from facerecon_export.subject import ExportOptions

from tests.interrupted import console_script, signalled_while_importing
from tests.numbers import assert_numbers_have_a_range

if TYPE_CHECKING:
    from tests.export.conftest import SmallExport


def test_what_was_asked_for_is_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(deploy, "export_weights", lambda *arguments: calls.append(arguments[:3]))
    weights = Path("a/face.safetensors")
    assert main([str(weights)]) == 0
    arguments = ["-o", str(tmp_path), "--crops", "faces", "--calibration", "more", "--budget", "5", "--opset", "18"]
    assert main([str(weights), *arguments, "--precision", "int8", "fp32", "--batch", "4", "--size", "96"]) == 0
    assert calls == [
        (weights, Path(), ExportOptions()),
        (weights, tmp_path, ExportOptions(("int8", "fp32"), 18, 4, 96, Path("faces"), Path("more"), 5.0)),
    ]


def test_options_for_int8_are_named_where_no_int8_file_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(deploy, "export_weights", lambda *_: None)
    given = ["--calibration", "faces", "--budget", "5"]
    assert main(["face.safetensors", *given]) == 0
    assert capsys.readouterr().err == ""
    assert main(["face.safetensors", *given, "--precision", "fp32", "fp16"]) == 0
    warning = "facerecon-export: warning: --calibration, --budget do nothing here; they are for --precision int8\n"
    assert capsys.readouterr().err == warning


@pytest.mark.parametrize("command", [("set", "--set-size", "2"), ("ensemble", "other.onnx")])
def test_a_fused_file_never_replaces_what_it_is_made_from(
    exported: SmallExport, tmp_path: Path, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "face.onnx"
    file.write_bytes(exported.onnx.read_bytes())
    assert main([command[0], str(file), *command[1:], "-o", f"{tmp_path}/../{tmp_path.name}/face.onnx"]) == 2
    assert "face.onnx is an input and would be overwritten; choose another name" in capsys.readouterr().err
    assert file.read_bytes() == exported.onnx.read_bytes()


def test_a_fused_file_is_no_folder(exported: SmallExport, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "set.onnx"
    folder.mkdir()
    assert main(["set", str(exported.onnx), "--set-size", "2", "-o", str(folder)]) == 2
    said = capsys.readouterr()
    assert f"-o {folder}: is a folder; give the name of a file" in said.err
    assert said.out == ""


@pytest.mark.parametrize("batch", ["0", "-1", "many"])
def test_a_batch_is_dynamic_or_a_number(batch: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["face.safetensors", "--batch", batch])
    assert leaving.value.code == 2
    assert "give dynamic, or a number of crops" in capsys.readouterr().err or batch == "-1"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_number_of_every_command_has_a_range(command: str) -> None:
    parser = COMMANDS[command][0]() if command else _export_parser()
    assert assert_numbers_have_a_range(parser) >= {"": 4, "set": 1, "triton": 3}.get(command, 0)


def test_ctrl_c_while_torch_is_imported_is_exit_code_130(tmp_path: Path) -> None:
    # Before the arguments are parsed, the command ends at once. Later it completes the import first.
    module = [sys.executable, "-m", "facerecon_export.cli"]
    for stop, command, go_on, what in (
        ("cv2", console_script("facerecon-export", tmp_path), False, "interrupted"),
        ("torch", [*module, "face.safetensors"], True, "stopped by Ctrl-C; no incomplete file was left"),
    ):
        folder = tmp_path / stop
        folder.mkdir()
        code, said = signalled_while_importing(command, stop, signal.SIGINT, folder, go_on=go_on)
        assert (code, said) == (130, f"facerecon-export: {what}\n")


def test_files_go_into_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["face.safetensors", "-o", str(tmp_path / "face.onnx")]) == 2
    assert "give a folder; the files in it are named after the weights" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["face.safetensors", "-o", str(tmp_path / "file")]) == 2
    assert "is a file, not a folder; give a folder" in capsys.readouterr().err


def test_an_error_is_one_line_and_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "absent.safetensors"), "-o", str(tmp_path)]) == 3
    error = capsys.readouterr().err
    assert error.startswith("facerecon-export: ")
    assert "absent.safetensors" in error
    assert error.count("\n") == 1


def test_verify_gives_the_table_and_an_exit_code(
    exported: SmallExport, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FACERECON_DATA", raising=False)
    file, weights = str(exported.folder / "small.int8-cpu.onnx"), str(exported.weights)
    given = ["verify", file, "--against", weights, "--crops", str(exported.crops)]
    assert main(given) == 0
    assert "vertices" in capsys.readouterr().out
    monkeypatch.setattr("facerecon_export.verify.Row.passed", False)
    assert main(given) == 1


def test_a_lower_precision_is_not_verified_by_few_or_artificial_pictures(
    exported: SmallExport, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FACERECON_DATA", raising=False)
    (tmp_path / "one.png").write_bytes((exported.crops / "000.png").read_bytes())
    for name in ("small.int8-cpu.onnx", "small.fp16.onnx"):
        given = ["verify", str(exported.folder / name), "--against", str(exported.weights)]
        for crops, said in (([], "not 28 artificial"), (["--crops", str(tmp_path)], "not 1 crops of")):
            assert main([*given, *crops]) == 2
            assert f"fp16 or int8 needs at least 200 real pictures, {said}" in capsys.readouterr().err
    assert main(["verify", str(exported.onnx), "--against", str(exported.weights)]) == 0


def test_an_opset_that_is_not_written_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["face.safetensors", "--opset", "40"])
    assert "argument --opset: '40' is not a whole number from 18 to 22" in capsys.readouterr().err
    assert OPSETS[1] == lint.OPSETS[-1]


def test_inspect_says_what_a_file_is(exported: SmallExport, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(exported.folder / "small.int8.onnx")]) == 0
    text = capsys.readouterr().out
    for part in ("precision: int8", "target: tensorrt", "terms: test use only", "blendshapes: 53 names"):
        assert part in text
    for part in ("in  image: uint8 (N, 64, 64, 3)", "multiply-adds", "ready for TensorRT", "opset 20"):
        assert part in text
    assert main(["inspect", str(exported.folder / "absent.onnx")]) == 3


def test_a_reader_who_has_seen_enough_is_no_error(exported: SmallExport) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", "import sys; from facerecon_export.cli import main; sys.exit(main())"]
    command += ["inspect", str(exported.folder / "small.onnx")]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_pytorch_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("facerecon_export.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main([str(tmp_path / "face.safetensors")]) == 2
    assert "torch is not installed: pip install 'facerecon-rt[export]'" in capsys.readouterr().err


def test_help_teaches_and_needs_no_pytorch(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["--help"])
    assert leaving.value.code == 0
    text = capsys.readouterr().out
    assert "facerecon-export models/face.safetensors -o out/" in text
    assert "exit codes" in text
    for command in ("inspect", "verify", "ensemble", "set", "triton"):
        assert f"facerecon-export {command} " in text
        with pytest.raises(SystemExit):
            main([command, "--help"])
    program = "import sys, facerecon_export.cli; print('torch' in sys.modules, 'onnx' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "False"]

"""A small FaceModel through the export, and what must hold for the files that come out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from facerecon_export import deploy, face
from facerecon_export.cli import main
from facerecon_export.crops import synthetic_crops
from facerecon_export.deploy import VerificationError, export_weights, verify_file
from facerecon_export.fp16 import stays_fp32, store_in_half
from facerecon_export.lean import ROTATED
from facerecon_export.subject import ExportOptions
from facerecon_export.verify import GATES, UNITS, run_torch
from facerecon_rt.contract import OUTPUTS, OUTPUTS_1
from facerecon_rt.errors import ModelRefused, UsageError
from facerecon_rt.networks.golden import TOLERANCES, distances, golden_crop
from facerecon_rt.networks.precision import open_session
from facerecon_rt.networks.session import FaceSession, read_contract
from facerecon_rt.providers.onnx_file import read_onnx
from facerecon_rt.template import load_template
from facerecon_training.checkpoint import load_weights, save_weights
from onnx import numpy_helper
from safetensors.torch import load_file, save_file

from tests.interrupted import default_interrupts

if TYPE_CHECKING:
    from tests.export.conftest import SmallExport

FP32 = ExportOptions(("fp32",))


def quiet(line: str) -> None:
    """Ignore a message."""


def test_the_file_answers_as_the_model_does(exported: SmallExport) -> None:
    crops = synthetic_crops(64, 5)
    reference = run_torch(load_weights(exported.weights), crops)
    with FaceSession(exported.onnx) as session:
        answer = session.run(crops)
    for name in OUTPUTS:
        np.testing.assert_allclose(getattr(answer, name), getattr(reference, name), atol=1e-3, err_msg=name)
    assert np.ptp(answer.landmarks, axis=0).max() > 0.3, "the crops must not all look the same to the model"


def test_weights_that_know_no_gaze_give_a_file_of_contract_1(small_weights_1: Path, exported_1: Path) -> None:
    crops = synthetic_crops(64, 5)
    reference = run_torch(load_weights(small_weights_1), crops)
    with FaceSession(exported_1) as session:
        contract, answer = session.contract, session.run(crops)
    assert (contract.version, contract.outputs, contract.code_size) == (1, OUTPUTS_1, 0)
    for name in OUTPUTS_1:
        np.testing.assert_allclose(getattr(answer, name), getattr(reference, name), atol=1e-3, err_msg=name)
    assert answer.gaze is answer.identity is reference.gaze is reference.identity is None


def test_the_contract_says_how_long_the_code_is(exported: SmallExport) -> None:
    for name in exported.files:
        with FaceSession(exported.folder / name) as session:
            assert (session.contract.version, session.contract.code_size) == (2, 8)


def test_all_precisions_and_a_report_are_written_and_nothing_else(exported: SmallExport) -> None:
    names = {"small.onnx", "small.fp16.onnx", "small.int8.onnx", "small.int8-cpu.onnx"}
    assert set(exported.files) == names
    beside = {"small.basis.npz", "report.md", "report.json"}
    assert {path.name for path in exported.folder.iterdir()} == names | beside


@pytest.mark.parametrize(
    ("name", "precision", "target"),
    [
        ("small.onnx", "fp32", ""),
        ("small.fp16.onnx", "fp16", ""),
        ("small.int8.onnx", "int8", "tensorrt"),
        ("small.int8-cpu.onnx", "int8", "cpu"),
    ],
)
def test_every_file_carries_its_contract_and_is_what_the_report_says(
    exported: SmallExport, name: str, precision: str, target: str
) -> None:
    with FaceSession(exported.folder / name) as session:
        contract = session.contract
    assert (contract.precision, contract.target) == (precision, target)
    assert (contract.input_size, contract.backbone, contract.terms) == (64, "tiny", "test use only")
    assert contract.template_sha256 == load_template().sha256
    assert contract.weights_sha256 == hashlib.sha256(exported.weights.read_bytes()).hexdigest()
    (entry,) = (
        one for one in json.loads((exported.folder / "report.json").read_text())["files"] if one["file"] == name
    )
    assert entry["written"]
    assert entry["sha256"] == hashlib.sha256((exported.folder / name).read_bytes()).hexdigest()
    assert {row["name"] for row in entry["differences"]} >= {"vertices", "rotation", "landmarks"}
    assert name in (exported.folder / "report.md").read_text()


def test_inputs_and_outputs_are_named_and_sized_as_in_the_contract(exported: SmallExport) -> None:
    for name in exported.files:
        graph = onnx.load(exported.folder / name).graph
        dims = [d.dim_param or d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
        assert (graph.input[0].name, dims) == ("image", ["N", 64, 64, 3])
        assert tuple(value.name for value in graph.output) == OUTPUTS
        assert all(value.type.tensor_type.shape.dim[0].dim_param == "N" for value in graph.output)


def test_batch_normalisation_is_folded_and_the_picture_is_cast_first(exported: SmallExport) -> None:
    nodes = onnx.load(exported.onnx).graph.node
    operators = [node.op_type for node in nodes if not node.input[0].endswith("_half")]
    assert operators[:2] == ["Cast", "Transpose"]
    assert "BatchNormalization" not in operators


def test_files_tell_nothing_of_the_machine_they_were_made_on(exported: SmallExport) -> None:
    for path in exported.folder.iterdir():
        content = path.read_bytes()
        for trace in (b"stack_trace", b"model.py", str(Path(deploy.__file__).parent.parent).encode(), b"/tmp/"):
            assert trace not in content or path.suffix == ".md", path.name


def test_progress_is_told_and_tables_shown(exported: SmallExport) -> None:
    beginnings = [line.split()[0].rstrip(":,") for line in exported.said]
    assert beginnings[:5] == ["reading", "fp32", "fp16", "int8", "int8"]
    assert beginnings.count("wrote") == 5
    assert "landmarks         px" in exported.said[5]


@pytest.mark.parametrize("name", ["small.onnx", "small.fp16.onnx", "small.int8.onnx", "small.int8-cpu.onnx"])
def test_every_file_is_tested_as_the_runtime_tests_it(name: str, exported: SmallExport) -> None:
    row = exported.files[name].rows[0]
    assert (row.name, row.passed) == ("self-test", True)
    path = exported.folder / name
    contract = read_contract(read_onnx(path))
    with FaceSession(path, provider="cpu") as session:
        answer = session.run(golden_crop(contract.input_size)[None])
    off = max(distances(contract, answer.landmarks[0], answer.vertices[0]))
    # A file in int8 has its own answer in exact arithmetic, which processors round differently; the others have
    # PyTorch's.
    assert off < {"fp32": 0.002, "fp16": 0.1, "int8": 0.2}[contract.precision]
    of_weights = read_contract(read_onnx(exported.onnx)).golden
    assert (contract.golden == of_weights) == (contract.precision != "int8")


def test_a_file_that_the_runtime_would_refuse_is_not_written(
    exported: SmallExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOLERANCES, "fp32", -1.0)
    with pytest.raises(VerificationError, match=r"small\.onnx: not written"):
        export_weights(exported.weights, tmp_path, ExportOptions(("fp32",)), quiet)
    assert "self-test" in (tmp_path / "report.md").read_text()


def test_the_runtime_takes_the_int8_file_of_its_provider(exported: SmallExport) -> None:
    with open_session(exported.onnx, provider="cpu", precision="int8") as session:
        assert session.path.name == "small.int8-cpu.onnx"


CAMERA_UP = [53 + 1 + 8 + i for i, component in enumerate(ROTATED) if component == 1]
"""Indices in the bias of the second number of the camera's first row, which occurs twice. The camera follows
expression, confidence and the code's variance."""


def spoil(monkeypatch: pytest.MonkeyPatch, exported: SmallExport, edit: Callable[[np.ndarray[Any, Any]], None]) -> None:
    """Replace tracing: use the existing file with edited biases."""

    def trace(self: face.FaceSubject, path: Path) -> None:
        model = onnx.load(exported.onnx)
        bias = next(tensor for tensor in model.graph.initializer if tensor.name == "reconstructor.outputs.bias")
        values = onnx.numpy_helper.to_array(bias).copy()
        edit(values)
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        onnx.save(model, path)

    monkeypatch.setattr(face.FaceSubject, "trace", trace)


def test_a_file_that_answers_differently_is_not_put_in_place(
    exported: SmallExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def turn(values: np.ndarray[Any, Any]) -> None:
        values[CAMERA_UP] += 1e-3

    spoil(monkeypatch, exported, turn)
    (tmp_path / "small.onnx").write_bytes(b"the one before")
    said: list[str] = []
    with pytest.raises(
        VerificationError, match=r"small\.onnx: not written, because the answers differ too much from .*report\.md"
    ):
        export_weights(exported.weights, tmp_path, FP32, said.append)
    assert (tmp_path / "small.onnx").read_bytes() == b"the one before"
    assert {path.name for path in tmp_path.iterdir()} == {"small.onnx", "report.md", "report.json"}
    assert "differs too much" in "\n".join(said)
    assert "**differs too much**" in (tmp_path / "report.md").read_text()


def other_weights(exported: SmallExport, folder: Path) -> Path:
    """Write other weights of the same name into a folder."""
    model = load_weights(exported.weights)
    with torch.no_grad():
        model.reconstructor.mean.add_(1)
    folder.mkdir()
    save_weights(model, folder / exported.weights.name)
    return folder / exported.weights.name


def test_files_of_other_weights_keep_their_decoder(exported: SmallExport, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("small.int8.onnx", "small.basis.npz"):
        (out / name).write_bytes((exported.folder / name).read_bytes())
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UsageError, match=r"^small\.int8\.onnx in .* of other weights, whose small\.basis"):
        export_weights(other_weights(exported, tmp_path / "other"), out, FP32, quiet)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    export_weights(exported.weights, out, FP32, quiet)  # of the same weights


def test_no_file_is_written_beside_one_of_other_weights_that_stays(
    exported: SmallExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, weights = tmp_path / "out", other_weights(exported, tmp_path / "other")
    out.mkdir()
    for name in ("small.onnx", "small.basis.npz"):
        (out / name).write_bytes((exported.folder / name).read_bytes())
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setitem(GATES, "fp32", dataclasses.replace(GATES["fp32"], allowed=dict.fromkeys(UNITS, 0.0)))
    with pytest.raises(VerificationError, match=r"no file was written, because small\.onnx of other weights"):
        export_weights(weights, out, ExportOptions(("fp32", "fp16"), crops=exported.crops), quiet)
    assert {path.name: path.read_bytes() for path in out.iterdir() if not path.name.startswith("report")} == before
    assert [one["written"] for one in json.loads((out / "report.json").read_text())["files"]] == [False, False]


def test_a_report_of_another_program_is_not_replaced(exported: SmallExport, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"schema": "facerecon-bench/1"}')
    with pytest.raises(UsageError, match=r"report\.json is not a report of facerecon-export and would be overwritten"):
        export_weights(exported.weights, tmp_path, FP32, quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_batch_that_the_pictures_do_not_fill_is_refused(
    exported: SmallExport, precision: str, tmp_path: Path
) -> None:
    options = ExportOptions((precision,), batch=300, crops=exported.crops, calibration=exported.crops)
    with pytest.raises(UsageError, match=r"--batch 300: only \d+ pictures of .* give a smaller --batch"):
        export_weights(exported.weights, tmp_path / "out", options, quiet)
    assert not (tmp_path / "out").exists()


def test_what_passes_is_written_beside_what_does_not(
    exported: SmallExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def turn(values: np.ndarray[Any, Any]) -> None:
        values[CAMERA_UP] += 2e-4  # 0.01 degrees: too much for fp32, little for fp16

    spoil(monkeypatch, exported, turn)
    options = ExportOptions(("fp32", "fp16"), crops=exported.crops)
    with pytest.raises(VerificationError, match=r"^small\.onnx: not written"):
        export_weights(exported.weights, tmp_path, options, quiet)
    assert (tmp_path / "small.fp16.onnx").is_file()
    assert not (tmp_path / "small.onnx").exists()


def test_lossy_layers_go_back_to_float32_until_half_precision_passes(
    exported: SmallExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, exported, lambda values: None)
    before = {row.name: row.mean for row in exported.files["small.fp16.onnx"].rows}
    strict = {**GATES["fp16"].allowed, "landmarks": 0.8 * before["landmarks"]}
    monkeypatch.setitem(GATES, "fp16", dataclasses.replace(GATES["fp16"], allowed=strict))
    options = ExportOptions(("fp16",), crops=exported.crops)
    (file,) = export_weights(exported.weights, tmp_path, options, quiet)
    assert "adds most to the error" in file.float_layers.values()


@pytest.mark.parametrize(("precision", "name"), [("fp32", "small.onnx"), ("fp16", "small.fp16.onnx")])
def test_matrices_are_stored_in_half_only_if_the_file_passes_so(
    precision: str, name: str, exported: SmallExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that fails with its matrices in half, here because they are also enlarged, is written as it passed."""
    spoil(monkeypatch, exported, lambda values: None)

    def store_badly(model: onnx.ModelProto, names: tuple[str, ...]) -> None:
        store_in_half(model, names)
        (basis,) = (one for one in model.graph.initializer if one.name == "reconstructor.shape_basis_half")
        basis.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(basis) * np.float16(30), basis.name))

    monkeypatch.setattr(deploy, "store_in_half", store_badly)
    (file,) = export_weights(exported.weights, tmp_path, ExportOptions((precision,), crops=exported.crops), quiet)
    assert all(row.passed for row in file.rows)
    assert file.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    bases = [
        numpy_helper.to_array(tensor)
        for folder in (exported.folder, tmp_path)
        for tensor in onnx.load(folder / name).graph.initializer
        if tensor.name == "reconstructor.shape_basis_half"  # also in what is traced here: see `spoil`
    ]
    first, second = bases
    np.testing.assert_array_equal(first, second)


def test_int8_refuses_to_guess_what_faces_look_like(
    exported: SmallExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FACERECON_DATA", raising=False)
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="needs at least 200 real pictures, not 28 artificial pictures"):
        export_weights(exported.weights, out, ExportOptions(("int8",)), quiet)
    with pytest.raises(UsageError, match="--calibration FOLDER"):
        export_weights(exported.weights, out, ExportOptions(("int8",), crops=exported.crops), quiet)
    few = tmp_path / "few"
    few.mkdir()
    (few / "one.png").write_bytes((exported.crops / "000.png").read_bytes())
    options = ExportOptions(("int8",), crops=exported.crops, calibration=few)
    with pytest.raises(UsageError, match=r"not 1 crops of .*few"):
        export_weights(exported.weights, out, options, quiet)
    assert not out.exists()


def test_a_fixed_batch_is_exported_and_taken_by_the_runtime(small_weights: Path, tmp_path: Path) -> None:
    export_weights(small_weights, tmp_path, ExportOptions(("fp32",), batch=3), quiet)
    graph = onnx.load(tmp_path / "small.onnx").graph
    assert [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim] == [3, 64, 64, 3]
    crops = synthetic_crops(64, 4)
    with FaceSession(tmp_path / "small.onnx", provider="cpu") as session:
        answer = session.run(crops)
    np.testing.assert_allclose(answer.vertices, run_torch(load_weights(small_weights), crops).vertices, atol=1e-3)


def test_another_size_than_the_weights_know_names_the_training(small_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--size 96: .* trained on crops of 64 pixels; .* train --size 96"):
        export_weights(small_weights, tmp_path, dataclasses.replace(FP32, size=96), quiet)


def test_missing_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"absent\.safetensors"):
        export_weights(tmp_path / "absent.safetensors", tmp_path, FP32, quiet)
    assert not list(tmp_path.iterdir())


def test_weights_that_are_cut_off_or_pickled_code_are_refused(small_weights: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(small_weights.read_bytes()[:5000])
    pickled = tmp_path / "pickled.safetensors"
    torch.save({"model": torch.nn.Linear(2, 2)}, pickled)
    foreign = tmp_path / "foreign.safetensors"
    save_file(load_file(small_weights), foreign)
    for weights in (cut, pickled, foreign):
        with pytest.raises(ModelRefused, match=weights.name):
            export_weights(weights, tmp_path / "out", FP32, quiet)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_that_cannot_be_written_is_named(small_weights: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="cannot be written"):
        export_weights(small_weights, tmp_path, FP32, quiet)


def test_a_folder_that_cannot_be_made_is_named(small_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write .*file/out: Not a directory"):
        export_weights(small_weights, tmp_path / "file" / "out", FP32, quiet)


def test_a_disk_that_runs_full_leaves_nothing_half_written(
    exported: SmallExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: face.FaceSubject, path: Path) -> None:
        path.write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(face.FaceSubject, "trace", full)
    with pytest.raises(UsageError, match=r"cannot be written \(No space left on device\)"):
        export_weights(exported.weights, tmp_path, FP32, quiet)
    assert not list(tmp_path.iterdir())


def test_ctrl_c_leaves_nothing_half_written(
    exported: SmallExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(monkeypatch, exported, lambda values: None)
    out = tmp_path / "out"
    there: list[list[str]] = []

    def interrupted(*given: Any) -> Any:
        there.append([path.name for folder in out.iterdir() for path in folder.iterdir()])
        signal.raise_signal(signal.SIGINT)
        return stays_fp32(*given)

    monkeypatch.setattr(deploy, "stays_fp32", interrupted)
    arguments = ["--crops", str(exported.crops), "--calibration", str(exported.crops)]
    with default_interrupts():
        assert main([str(exported.weights), "-o", str(out), *arguments]) == 130
    said, errors = capsys.readouterr()
    assert said.splitlines()[-1].startswith("fp16")
    assert errors.splitlines()[-1] == "facerecon-export: stopped by Ctrl-C; no incomplete file was left"
    assert "small.onnx" in there[0]  # which is whole, but not all is done
    assert not list(out.iterdir())


def test_a_file_is_held_against_its_weights(exported: SmallExport, tmp_path: Path) -> None:
    options = ExportOptions(crops=exported.crops)
    for name in exported.files:
        assert all(row.passed for row in verify_file(exported.folder / name, exported.weights, options)), name
    other = tmp_path / "other.safetensors"
    model = load_weights(exported.weights)
    with torch.no_grad():
        model.reconstructor.mean.add_(1)
    save_weights(model, other)
    with pytest.raises(UsageError, match="give the weights that it was exported from, or export again"):
        verify_file(exported.onnx, other, options)

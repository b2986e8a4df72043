"""The figures that `inspect` shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest
import torch
from facerecon_export.deploy import export_weights
from facerecon_export.describe import describe, multiply_adds
from facerecon_export.fuse import fuse_set
from facerecon_export.subject import ExportOptions
from facerecon_rt.contract import CONTRACT_KEY
from facerecon_rt.errors import ModelRefused
from facerecon_training import backbones
from facerecon_training.checkpoint import load_weights

if TYPE_CHECKING:
    from tests.export.conftest import SmallExport


@pytest.mark.parametrize("name", ["small.onnx", "small.fp16.onnx", "small.int8.onnx", "small.int8-cpu.onnx"])
def test_work_is_that_of_the_pytorch_model_in_every_precision(exported: SmallExport, name: str) -> None:
    model = load_weights(exported.weights)
    layers = backbones.multiply_adds(model, torch.zeros(1, 3, 64, 64))
    decoders = (8 + 53) * (3 * 4032 + 4 * 68)
    # Extra outputs of `lean`, each from 16 features: 6 numbers for 3 (twice), 12 for 2, and 3 for 2 per landmark.
    rearranged = (3 + 3 + 10 + 68) * 16 + 6 * 6 + 18 * 12
    # 53 eyeLook weights and 10 angles instead of yaw and pitch of both eyes, and 6 numbers of gaze from the 10 sines.
    rearranged += (53 + 10 - 4) * 16 + 10 * 6
    assert multiply_adds(onnx.load(exported.folder / name)) == layers + decoders + rearranged


def test_work_is_per_picture_in_fused_files_and_fixed_batches(
    exported: SmallExport, small_weights: Path, tmp_path: Path
) -> None:
    one = multiply_adds(onnx.load(exported.onnx))
    fuse_set(exported.onnx, 3, tmp_path / "set.onnx", lambda line: None)
    export_weights(small_weights, tmp_path, ExportOptions(("fp32",), batch=4), lambda line: None)
    for name in ("set.onnx", "small.onnx"):
        assert multiply_adds(onnx.load(tmp_path / name)) == one, name


def test_work_of_a_file_for_any_size_is_that_of_a_named_size() -> None:
    path = Path("models/face_detector.onnx")
    assert "M multiply-adds per picture of 256x256" in describe(path)
    fixed = onnx.load(path)
    for axis, size in enumerate((5, 256, 256)):
        fixed.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
    assert multiply_adds(fixed) == multiply_adds(onnx.load(path)) > 50_000_000


def test_precisions_are_those_that_layers_really_have(exported: SmallExport) -> None:
    texts = {name: describe(exported.folder / name) for name in exported.files}
    assert "fp16" not in texts["small.onnx"]
    assert "int8" not in texts["small.fp16.onnx"].partition("layers by the precision")[2]
    assert "Conv           fp16" in texts["small.fp16.onnx"]
    assert "MatMul         fp32" in texts["small.fp16.onnx"]
    assert "Conv           int8" in texts["small.int8.onnx"]
    assert "MatMulNBits    int8" in texts["small.int8-cpu.onnx"]
    assert "MatMul         fp32" in texts["small.int8.onnx"]


def test_a_file_that_keeps_its_values_elsewhere_is_refused(exported: SmallExport) -> None:
    path = exported.folder.parent / "external.onnx"
    model = onnx.load(exported.onnx)
    onnx.save(model, path, save_as_external_data=True, location="values.bin", size_threshold=0)
    with pytest.raises(ModelRefused, match="external"):
        describe(path)


def test_a_graph_that_makes_no_sense_is_refused(exported: SmallExport, tmp_path: Path) -> None:
    model = onnx.load(exported.onnx)
    layer = next(node for node in model.graph.node if node.op_type == "Conv")
    del layer.input[:]
    onnx.save(model, tmp_path / "no_inputs.onnx")
    model = onnx.load(exported.onnx)
    next(entry for entry in model.metadata_props if entry.key == CONTRACT_KEY).value = "[" * 100_000
    onnx.save(model, tmp_path / "no_json.onnx")
    for name, why in (("no_inputs", "its graph is invalid"), ("no_json", "its contract is not JSON")):
        with pytest.raises(ModelRefused, match=why):
            describe(tmp_path / f"{name}.onnx")

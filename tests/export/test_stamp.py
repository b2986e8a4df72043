"""Keys of metadata_props are set one at a time."""

from __future__ import annotations

from pathlib import Path

import onnx
from facerecon_export.stamp import stamp
from facerecon_rt.providers.onnx_file import read_onnx


def test_a_stamp_replaces_its_own_key_and_no_other(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(onnx.load(tiny_model), path)
    before = dict(read_onnx(path).metadata)
    stamp(path, "facerecon.detector", '{"a":1}')
    stamp(path, "facerecon.detector", '{"a":2}')
    assert read_onnx(path).metadata == {**before, "facerecon.detector": '{"a":2}'}
    assert read_onnx(path).outputs == read_onnx(tiny_model).outputs

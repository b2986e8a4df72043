"""Networks other than a FaceModel through the exporter."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import pytest
import torch
from facerecon_export.cli import OPSETS
from facerecon_export.to_onnx import export_onnx
from facerecon_rt.errors import UsageError
from torch import Tensor, nn


class TwoPictures(nn.Module):
    """A network unlike those of this project: two inputs, two dynamic dimensions."""

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return a + b, (a * b).sum(dim=1) / a.shape[0]


def test_any_module_can_be_exported(tmp_path: Path) -> None:
    batch, width = torch.export.Dim("N", min=1), torch.export.Dim("W", min=2)
    shapes = ({0: batch, 1: width}, {0: batch, 1: width})
    path = tmp_path / "two.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_onnx(
            TwoPictures().eval(), (torch.ones(2, 4), torch.ones(2, 4)), ["a", "b"], ["total", "mean"], shapes, path
        )
    graph = onnx.load(path).graph
    named = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.input}
    assert named == {"a": ["N", "W"], "b": ["N", "W"]}
    assert [value.name for value in graph.output] == ["total", "mean"]
    assert not [entry for entry in tmp_path.iterdir() if entry != path], "one self-contained file"


def test_a_module_in_training_mode_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="training mode"):
        export_onnx(TwoPictures(), (torch.ones(2, 4), torch.ones(2, 4)), ["a", "b"], ["c", "d"], None, tmp_path / "x")


class FixedBatch(nn.Module):
    """A network that the tracer cannot keep dynamic: len() gives it a number."""

    def forward(self, a: Tensor) -> Tensor:
        return a.sum(1) / len(a)


def test_a_dynamic_batch_is_never_made_a_fixed_one(tmp_path: Path) -> None:
    shapes = ({0: torch.export.Dim("N", min=1)},)
    with pytest.raises(RuntimeError, match="marked N as dynamic"):
        export_onnx(FixedBatch().eval(), (torch.ones(2, 4),), ["a"], ["b"], shapes, tmp_path / "fixed.onnx")
    assert not list(tmp_path.iterdir())


class Doubled(nn.Module):
    """A network of two operators."""

    def forward(self, a: Tensor) -> Tensor:
        return 2 * a.relu()


@pytest.mark.parametrize("opset", OPSETS)
def test_the_file_has_the_opset_that_is_asked_for(opset: int, tmp_path: Path) -> None:
    export_onnx(Doubled().eval(), (torch.ones(2, 4),), ["a"], ["b"], None, tmp_path / "a.onnx", opset)
    assert onnx.load(tmp_path / "a.onnx").opset_import[0].version == opset


@pytest.mark.filterwarnings("ignore")
def test_an_opset_that_pytorch_does_not_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--opset 40: PyTorch's exporter writes opset \d\d instead"):
        export_onnx(Doubled().eval(), (torch.ones(2, 4),), ["a"], ["b"], None, tmp_path / "a.onnx", 40)

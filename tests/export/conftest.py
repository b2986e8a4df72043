"""A small FaceModel through the whole export, once for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import pytest
import torch
from facerecon_export import crops
from facerecon_export.crops import synthetic_crops
from facerecon_export.deploy import export_weights
from facerecon_export.exported import Exported
from facerecon_export.subject import ExportOptions
from facerecon_training.checkpoint import save_weights
from facerecon_training.model import FaceModel, ModelConfig
from torch import nn


@pytest.fixture(scope="session", autouse=True)
def operators_are_read_once() -> Iterator[None]:
    """Keep what PyTorch's exporter learns about its 500 operators. It parses their sources in every export, which takes
    a third of a small network's time. The name is internal to PyTorch, whose version this project fixes."""
    from torch.onnx._internal import _lazy_import

    apis = vars(_lazy_import)["onnxscript_apis"]  # mypy takes it for a name that this module imports for itself
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apis, "get_torchlib_ops", cache(apis.get_torchlib_ops))
        yield


@dataclass(frozen=True, slots=True)
class SmallExport:
    """A small FaceModel, and all files that were made from it."""

    weights: Path
    folder: Path
    crops: Path
    """Folder of the pictures that calibrated and verified the files."""
    files: dict[str, Exported]
    """Exported files by their names."""
    said: list[str]
    """The progress lines."""

    @property
    def onnx(self) -> Path:
        return self.folder / "small.onnx"


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the smallest backbone. All are random, so that no result is right only because a weight is zero."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(_random_model(gaze=True), path)
    return path


@pytest.fixture(scope="session")
def small_weights_1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights like `small_weights` of a network without gaze and places, as in release 0.1."""
    path = tmp_path_factory.mktemp("weights") / "older.safetensors"
    save_weights(_random_model(gaze=False), path)
    return path


def _random_model(*, gaze: bool) -> FaceModel:
    torch.manual_seed(0)
    places = ModelConfig().places if gaze else 0
    config = ModelConfig("tiny", 64, shape_code=8, hidden=16, terms="test use only", gaze=gaze, places=places)
    model = FaceModel(config)
    with torch.no_grad():
        if gaze:
            for head in (model.reconstructor.gaze, model.reconstructor.precision):
                head.weight.normal_(0, 0.3)
                head.bias.normal_(0, 0.3)
        if model.reconstructor.direct_identity is not None:
            model.reconstructor.direct_identity.weight.normal_(0, 0.3)
        model.reconstructor.mean.normal_(0, 40)
        model.reconstructor.shape_basis.normal_(0, 0.3)
        model.reconstructor.expression_basis.normal_()
        model.reconstructor.camera.weight.normal_(0, 0.2)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 2)
                layer.weight.uniform_(0.5, 2)
                layer.bias.normal_(0, 0.1)
    return model


@pytest.fixture(scope="session")
def exported_1(small_weights_1: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The float32 file of `small_weights_1`."""
    folder = tmp_path_factory.mktemp("exported_1")
    export_weights(small_weights_1, folder, ExportOptions(("fp32",)), lambda line: None)
    return folder / "older.onnx"


@pytest.fixture(scope="session")
def crops_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with as many pictures as int8 needs. They show no faces."""
    folder = tmp_path_factory.mktemp("crops")
    for number, crop in enumerate(synthetic_crops(64, 205)):
        cv2.imwrite(str(folder / f"{number:03}.png"), crop)
    return folder


@pytest.fixture(scope="session")
def few_crops(crops_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 60 of these pictures, for networks that take long, together with `few_are_enough`."""
    folder = tmp_path_factory.mktemp("few")
    for picture in sorted(crops_folder.iterdir())[:60]:
        (folder / picture.name).symlink_to(picture)
    return folder


@contextmanager
def few_are_enough() -> Iterator[None]:
    """Let the exporter calibrate and verify lower precisions with 60 pictures. Their number costs most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crops, "LEAST_CROPS", 60)
        yield


@pytest.fixture(scope="session")
def exported(small_weights: Path, crops_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> SmallExport:
    """The small model in all precisions."""
    said: list[str] = []
    folder = tmp_path_factory.mktemp("exported")
    options = ExportOptions(crops=crops_folder, calibration=crops_folder, budget_s=0)
    files = export_weights(small_weights, folder, options, said.append)
    return SmallExport(small_weights, folder, crops_folder, {file.path.name: file for file in files}, said)

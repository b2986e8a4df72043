"""FaceModel weights -> the steps of their export: tracing, contract, crops for calibration and verification."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import torch
from facerecon_rt.contract import CONTRACT_KEY, CONTRACT_VERSION, OUTPUTS, OUTPUTS_1, ModelContract
from facerecon_rt.errors import UsageError
from facerecon_rt.networks.basis import SUFFIX
from facerecon_rt.networks.golden import golden_answer, golden_crop
from facerecon_rt.networks.session import FaceSession
from facerecon_rt.providers.choice import import_onnxruntime
from facerecon_rt.template import load_template
from facerecon_training.checkpoint import load_weights
from facerecon_training.model import FaceModel

from .basis import write_basis
from .crops import FaceCrops, calibration_folder, enough, load_crops, verification_crops
from .fp16 import Feeds
from .graph import Parts, face_parts
from .lean import LeanFace
from .simplify import simplify
from .stamp import stamp
from .subject import HELD_OUT_EACH, Calibration, ExportOptions, score_of
from .to_onnx import export_onnx
from .verify import GATES, Reference, Row, compare, run_onnx, run_torch, self_test, verify
from .wrapper import take_images

CALIBRATION_CROPS = 320


class FaceSubject:
    """A FaceModel's weights as a `subject.Subject`."""

    def __init__(self, weights: Path, options: ExportOptions) -> None:
        """Read the weights and the crops to verify with.

        Raises ModelRefused for unfit weights, UsageError if `options.size` is not the size of the training, and
        SourceError for unreadable photographs.
        """
        self.model = load_weights(weights)
        size = self.model.config.input_size
        if options.size not in (None, size):
            raise UsageError(
                f"--size {options.size}: {weights} was trained on crops of {size} pixels; leave out --size, or train a "
                f"model for {options.size}: facerecon-train train --size {options.size}"
            )
        self.weights_sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
        self.contract = contract_of(self.model, self.weights_sha256, options.batch)
        self.options = options
        self.crops = verification_crops(options.crops, size)

    @property
    def pictures(self) -> str:
        """Description of the crops that files are verified on."""
        return self.crops.source

    def trace(self, path: Path) -> None:
        """See `subject.Subject`."""
        size, batch = self.contract.input_size, self.contract.batch
        dynamic = None if batch else ({0: torch.export.Dim("N", min=1)},)
        example = (torch.zeros(batch or 2, 3, size, size),)
        names = list(self.contract.outputs)
        export_onnx(LeanFace(self.model), example, ["image"], names, dynamic, path, self.options.opset)
        graph = onnx.load(path)
        take_images(graph)
        onnx.save(graph, path)
        simplify(path)

    def stamp(self, path: Path, precision: str, target: str) -> None:
        """See `subject.Subject`. An int8 file gets its own answer to the golden crop (see `networks.golden`)."""
        golden = _exact_answer(path, self.contract) if precision == "int8" else self.contract.golden
        contract = replace(self.contract, precision=precision, target=target, golden=golden)
        stamp(path, CONTRACT_KEY, contract.to_json())

    def parts(self, model: onnx.ModelProto) -> Parts:
        """See `subject.Subject`."""
        return face_parts(model)

    def feeds(self) -> Feeds:
        """See `subject.Subject`."""
        return self._feeds(enough(self.crops, "half precision", "--crops"))

    def calibration(self) -> Calibration:
        """See `subject.Subject`."""
        enough(self.crops, "int8", "--crops")
        folder = calibration_folder(self.options.calibration)
        crops = enough(load_crops(folder, self.contract.input_size, CALIBRATION_CROPS), "int8", "--calibration")
        aside = np.arange(len(crops.images)) % HELD_OUT_EACH == HELD_OUT_EACH - 1
        held_out = replace(crops, images=crops.images[aside], landmarks=crops.landmarks[aside])
        reference = run_torch(self.model, held_out.images)

        def score(path: Path) -> float:
            stamp(path, CONTRACT_KEY, replace(self.contract, precision="int8", golden=()).to_json())
            with FaceSession(path, provider="cpu", self_test=False) as session:
                answers = run_onnx(session, held_out.images, 8)
            return score_of(compare(reference, [answers], GATES["int8"], held_out.landmarks))

        return Calibration(self._feeds(replace(crops, images=crops.images[~aside])), score, crops.source)

    def write_companions(self, folder: Path, stem: str) -> list[str]:
        """See `subject.Subject`: the decoder, for weights whose files give the shape code that it takes."""
        if not self.model.config.gaze:
            return []
        write_basis(self.model, self.weights_sha256, folder / f"{stem}{SUFFIX}")
        return [f"{stem}{SUFFIX}"]

    def check_pictures(self) -> None:
        """See `subject.Subject`."""
        enough(self.crops, "a comparison in fp16 or int8", "--crops", "")

    def verify(self, path: Path, precision: str) -> list[Row]:
        """See `subject.Subject`."""
        with FaceSession(path, provider="cpu", self_test=False) as session:
            tested = [self_test(session)] if session.contract.golden else []
            return tested + verify(session, self._reference, GATES[precision])

    @cached_property
    def _reference(self) -> Reference:
        return Reference.of(self.model, self.crops)

    def _feeds(self, crops: FaceCrops) -> Feeds:
        # Incomplete batches are left out: calibrators need batches of one shape.
        step = self.contract.batch or 8
        if step > len(crops.images):
            raise UsageError(
                f"--batch {step}: only {len(crops.images)} pictures of {crops.source} are there to measure the network "
                "with, which fill no batch; give a smaller --batch, or ask for --precision fp32 alone"
            )
        return [{"image": crops.images[i : i + step]} for i in range(0, len(crops.images) - step + 1, step)]


def _exact_answer(path: Path, contract: ModelContract) -> tuple[float, ...]:
    """Return the answer of an int8 file to the golden crop, computed as the file states it: rounded values in float.

    Without optimisation, ONNX Runtime uses no 8-bit kernels, whose sums saturate on processors without 8-bit dot
    products. The answer is therefore the same on every exporter's machine.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    crops = golden_crop(contract.input_size)[None].repeat(contract.batch or 1, axis=0)
    landmarks, vertices = session.run(["landmarks", "vertices"], {"image": crops})
    return golden_answer(landmarks[0], vertices[0])


def contract_of(model: FaceModel, weights_sha256: str, batch: int = 0) -> ModelContract:
    """Return the contract of the exported model, with the golden answer of these weights."""
    template = load_template()
    contract = ModelContract(
        input_size=model.config.input_size,
        vertex_count=template.vertex_count,
        template_sha256=template.sha256,
        backbone=model.config.backbone,
        outputs=OUTPUTS if model.config.gaze else OUTPUTS_1,
        version=CONTRACT_VERSION if model.config.gaze else 1,
        code_size=model.config.shape_code if model.config.gaze else 0,
        terms=model.config.terms,
        weights_sha256=weights_sha256,
        batch=batch,
        annotation_asymmetry=tuple(round(float(x), 4) for x in model.reconstructor.asymmetry.ravel()),
    )
    contract.check()
    answer = run_torch(model, golden_crop(contract.input_size)[None])
    return replace(contract, golden=golden_answer(answer.landmarks[0], answer.vertices[0]))

"""fp32 ONNX file and real crops -> the same network in 8-bit integers, as explicit QuantizeLinear/DequantizeLinear.

The module quantises after training, statically, with onnxruntime.quantization. The two targets need opposite things.
TensorRT takes symmetric int8 with zero point 0 for weights and activations, and biases that are not quantised. ONNX
Runtime's CPU provider would be slower with these than in float32. It needs unsigned activations, which the VNNI
instructions of Intel and AMD multiply.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from facerecon_rt.interrupts import importing
from facerecon_rt.providers.choice import import_onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper
from tqdm import tqdm

from .fold import PLANES, fold_columns, take_codes
from .fp16 import Feeds, store_in_half
from .graph import BLOCKED, HIDDEN, JOINS, MATRICES, ONNX_RUNTIME_DOMAIN, Parts

Target = Literal["tensorrt", "cpu"]
PERCENTILE = 99.99
BLOCK = 64
"""Number of rows of a matrix that share a scale."""
NEARLY = 1.35
"""Factor of the best score up to which a recipe counts as nearly as good."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to quantise a network."""

    method: Literal["percentile", "minmax"]
    """Method of choosing the range of an activation."""
    first_float: int
    """Number of first convolutions that stay in float32."""

    def __str__(self) -> str:
        return f"{self.method}, {self.first_float or 'none'} of the first convolutions in float"


RECIPES = tuple(Recipe(method, count) for count in (1, 0, 3) for method in ("percentile", "minmax"))
"""Recipes in the order in which they are tried, likely ones first.

Entropy ranges gave the same result as min-max ranges, at two and a half times the cost.
"""


@dataclass(frozen=True, slots=True)
class Trial:
    """A recipe and its score: the error of its file on crops set aside, where 1 is the tolerance."""

    recipe: Recipe
    score: float
    path: Path


def choose(
    source: Path,
    folder: Path,
    parts: Parts,
    feeds: Feeds,
    target: Target,
    score: Callable[[Path], float],
    budget_s: float,
) -> list[Trial]:
    """Try recipes until the time budget is used up and a file is within the tolerance; return all trials, best first.

    Recipes that leave nothing to quantise are skipped. `score` judges a file on crops that are not among `feeds`. Files
    are written to `folder`.
    """
    trials: list[Trial] = []
    end = time.monotonic() + budget_s
    model = onnx.load(source)
    recipes = [recipe for recipe in RECIPES if recipe.first_float < len(parts.body)]
    for recipe in tqdm(recipes, desc=f"int8 for {target}", unit="recipe", leave=False, disable=None):
        if time.monotonic() > end and any(trial.score <= 1.0 for trial in trials):
            break
        path = folder / f"{target}-{recipe.method}-{recipe.first_float}.onnx"
        quantise(model, path, parts, recipe, feeds, target)
        trials.append(Trial(recipe, score(path), path))
    return best_first(trials)


def best_first(trials: Sequence[Trial]) -> list[Trial]:
    """Sort trials by score, and put the fastest of the nearly best trials first.

    Among the trials within `NEARLY` of the best score, the trial with the fewest layers in float is the fastest. A
    trial beyond the tolerance is never nearly as good as a trial within it. A score that is not a number
    counts as the worst.
    """
    ordered = sorted(trials, key=lambda trial: np.nan_to_num(trial.score, nan=np.inf))
    best = ordered[0].score
    limit = min(NEARLY * best, 1.0) if best <= 1.0 else NEARLY * best
    near = [trial for trial in ordered if trial.score <= limit]
    first = min(near or ordered, key=lambda trial: trial.recipe.first_float)
    return [first, *(trial for trial in ordered if trial is not first)]


def quantise(
    source: onnx.ModelProto,
    path: Path,
    parts: Parts,
    recipe: Recipe,
    feeds: Feeds,
    target: Target,
) -> None:
    """Quantise `source` (fp32) by one recipe, and write the result to `path`.

    For the CPU, the first convolutions are folded if none of them stays in float, and the reconstructor's matrices are
    quantised as well.
    """
    import_onnxruntime()
    with importing():
        from onnxruntime import quantization

    methods = {
        "percentile": quantization.CalibrationMethod.Percentile,
        "minmax": quantization.CalibrationMethod.MinMax,
    }
    chosen = [*parts.body[recipe.first_float :], *parts.joins]
    source = onnx.ModelProto.FromString(source.SerializeToString())
    folded = target == "cpu" and not recipe.first_float and fold_columns(source)
    if target == "cpu":
        # The quantiser removes each ReLU that is listed here, because codes that start at 0 cut off negative values. A
        # ReLU that is not listed is computed in float between two roundings.
        chosen += relus_beside(source, chosen)
    # The quantiser computes the ranges of all tensors of these operators, so fewer operators are faster.
    operators = {node.name: node.op_type for node in source.graph.node}
    with _quiet():
        quantization.quantize_static(
            source,
            path,
            _reader(feeds, f"calibrating, {recipe.method}"),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=sorted({operators[name] for name in chosen}),
            nodes_to_quantize=chosen,
            per_channel=True,
            activation_type=quantization.QuantType.QInt8 if target == "tensorrt" else quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=methods[recipe.method],
            extra_options=_quantiser_options(target, folded=folded),
        )
    model = onnx.load(path)
    if folded:
        take_codes(model)
    if target == "cpu":
        multiply_in_blocks(model, parts.matrices)
        store_in_half(model, HIDDEN)
    else:
        store_in_half(model, (*HIDDEN, *MATRICES))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _quantiser_options(target: Target, *, folded: bool) -> dict[str, Any]:
    """Return the extra options of the quantiser. `folded`: whether the first convolutions read the picture as bytes."""
    options: dict[str, Any] = {"CalibPercentile": PERCENTILE}
    if folded:
        options["TensorQuantOverrides"] = {
            PLANES: [{"scale": np.array(1, np.float32), "zero_point": np.array(0, np.uint8)}]
        }
    if target == "tensorrt":
        # Q/DQ pairs stand where TensorRT's documentation asks for them: before integer operators, not after them.
        options |= {
            "ActivationSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": ["Conv", *JOINS],
        }
    return options


def relus_beside(model: onnx.ModelProto, layers: Sequence[str]) -> list[str]:
    """Return the names of the ReLUs that read the outputs of these layers, or write their inputs."""
    chosen = [node for node in model.graph.node if node.name in layers]
    seen = {name for node in chosen for name in (*node.input, *node.output)}
    return [node.name for node in model.graph.node if node.op_type == "Relu" and seen & {*node.input, *node.output}]


def multiply_in_blocks(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Store the constant matrices of products (Gemm, MatMul) as 8-bit codes, in place.

    Every `BLOCK` rows of a column share a scale. The operator is ONNX Runtime's MatMulNBits (see its
    ContribOperators.md), which also rounds the other factor to 8 bits by blocks, and gives float32. With outputs in 8
    bits, an opening mouth would move in steps of millimetres.

    For one face, this operator is faster than MatMulInteger and than float32, because reading the weights takes most of
    the time. ONNX Runtime 1.23 would convert blocks behind a DequantizeLinear to floats in every run.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.name not in names:
            nodes.append(node)
            continue
        data, matrix, *bias = node.input
        weights = numpy_helper.to_array(constants[matrix])
        if any(attribute.name == "transB" and attribute.i for attribute in node.attribute):
            weights = weights.T
        codes, scales = in_blocks(weights)
        model.graph.initializer.remove(constants[matrix])
        model.graph.initializer.append(numpy_helper.from_array(codes, f"{matrix}_codes"))
        model.graph.initializer.append(numpy_helper.from_array(scales, f"{matrix}_scales"))
        # Zero points and row order stand between scales and bias; both keep their defaults.
        inputs = [data, f"{matrix}_codes", f"{matrix}_scales", *(["", "", *bias] if bias else [])]
        attributes = {"K": len(weights), "N": weights.shape[1], "bits": 8, "block_size": BLOCK, "accuracy_level": 4}
        nodes.append(
            onnx.helper.make_node(
                BLOCKED, inputs, list(node.output), node.name, domain=ONNX_RUNTIME_DOMAIN, **attributes
            )
        )
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    if names and all(entry.domain != ONNX_RUNTIME_DOMAIN for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(ONNX_RUNTIME_DOMAIN, 1))


def in_blocks(weights: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Quantise a matrix (K, N) to codes (N, blocks, BLOCK) and scales (N, blocks).

    Codes are 1..255 and 128 means zero. Missing rows of the last block are zeros.
    """
    rows, columns = weights.shape
    blocks = -(-rows // BLOCK)
    padded = np.zeros((columns, blocks * BLOCK), np.float32)
    padded[:, :rows] = weights.T
    blocked = padded.reshape(columns, blocks, BLOCK)
    scales = np.abs(blocked).max(2) / np.float32(127)
    # A block of zeros has scale 0. With another scale, ONNX Runtime would give the noise of its sums instead of 0.
    codes = np.round(blocked / np.where(scales == 0, 1, scales)[:, :, None]) + 128
    return codes.astype(np.uint8), scales


def _reader(feeds: Feeds, what: str) -> Any:
    """Return a reader that gives the feeds to onnxruntime's calibrators one by one, with a progress bar."""
    with importing():
        from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = iter(tqdm(feeds, desc=what, unit="batch", leave=False, disable=None))

        def get_next(self) -> dict[str, Any] | None:
            feed = next(self.feeds, None)
            return dict(feed) if feed is not None else None

    return Reader()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the output and warnings of onnxruntime.quantization, which ask for pre-processing that is already
    done."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)

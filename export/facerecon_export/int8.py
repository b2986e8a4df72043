"""fp32 ONNX file and real crops -> the same network in 8-bit integers, as explicit QuantizeLinear/DequantizeLinear.

Static post-training quantisation with onnxruntime.quantization. Two targets want opposite things. TensorRT takes
symmetric int8 with zero point 0 on weights and activations, and unquantised biases. ONNX Runtime's CPU provider is
faster in float32 than with those; it wants unsigned activations, which Intel's and AMD's VNNI instructions multiply.
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
from onnx import TensorProto, numpy_helper
from tqdm import tqdm

from .fold import PLANES, fold_columns, take_codes
from .fp16 import Feeds
from .graph import BLOCKED, HIDDEN, JOINS, ONNX_RUNTIME_DOMAIN, Parts

Target = Literal["tensorrt", "cpu"]
PERCENTILE = 99.99
BLOCK = 64
"""Rows of a matrix that share a scale."""
NEARLY = 1.35
"""Of the best score."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to quantise."""

    method: Literal["percentile", "minmax"]
    """Of choosing the range of an activation."""
    first_float: int
    """How many of the first convolutions stay in float32."""

    def __str__(self) -> str:
        return f"{self.method}, {self.first_float or 'none'} of the first convolutions in float"


RECIPES = tuple(Recipe(method, count) for count in (1, 0, 3) for method in ("percentile", "minmax"))
"""In the order they are tried, likely ones first. Entropy gave what minmax gives, at two and a half times the cost."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A recipe, and how far what it makes is from the original on crops kept aside: 1 is all that is allowed."""

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
    """Try recipes that leave something to quantise until the time is up, at least one -> all trials, the best first.

    `score` judges a file on crops that are not among `feeds`. Files are written to `folder`.
    """
    trials: list[Trial] = []
    end = time.monotonic() + budget_s
    model = onnx.load(source)
    recipes = [recipe for recipe in RECIPES if recipe.first_float < len(parts.body)]
    for recipe in tqdm(recipes, desc=f"int8 for {target}", unit="recipe", leave=False, disable=None):
        if trials and time.monotonic() > end:
            break
        path = folder / f"{target}-{recipe.method}-{recipe.first_float}.onnx"
        quantise(model, path, parts, recipe, feeds, target)
        trials.append(Trial(recipe, score(path), path))
    return best_first(trials)


def best_first(trials: Sequence[Trial]) -> list[Trial]:
    """By score; but of those that are nearly as good as the best, the one with the fewest layers in float goes first,
    since it is the fastest."""
    ordered = sorted(trials, key=lambda trial: trial.score)
    near = [trial for trial in ordered if trial.score <= NEARLY * ordered[0].score]
    first = min(near, key=lambda trial: trial.recipe.first_float)
    return [first, *(trial for trial in ordered if trial is not first)]


def quantise(
    source: onnx.ModelProto,
    path: Path,
    parts: Parts,
    recipe: Recipe,
    feeds: Feeds,
    target: Target,
) -> None:
    """One recipe carried out: `source` (fp32) -> `path`.

    For the CPU the first convolutions are folded where none stays in float, and the matrices behind them quantised as
    well.
    """
    import_onnxruntime()
    with importing():
        from onnxruntime import quantization

    methods = {
        "percentile": quantization.CalibrationMethod.Percentile,
        "minmax": quantization.CalibrationMethod.MinMax,
    }
    chosen = [*parts.body[recipe.first_float :], *parts.joins]
    options: dict[str, Any] = {"CalibPercentile": PERCENTILE}
    source = onnx.ModelProto.FromString(source.SerializeToString())
    folded = target == "cpu" and not recipe.first_float and fold_columns(source)
    if folded:
        options["TensorQuantOverrides"] = {
            PLANES: [{"scale": np.array(1, np.float32), "zero_point": np.array(0, np.uint8)}]
        }
    if target == "tensorrt":
        # Q/DQ pairs where TensorRT's documentation wants them: before what computes in integers, not after it.
        options |= {
            "ActivationSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": ["Conv", *JOINS],
        }
    else:
        # The quantiser drops a ReLU that it is told of: codes that start at 0 cut off what is negative themselves. Left
        # alone, ReLUs are computed in float between two roundings.
        chosen += relus_beside(source, chosen)
    # The ranges of all tensors of these operators are taken, wanted or not: the fewer, the faster.
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
            extra_options=options,
        )
    model = onnx.load(path)
    if folded:
        take_codes(model)
    if target == "cpu":
        multiply_in_blocks(model, parts.matrices)
        store_hidden_in_half(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def relus_beside(model: onnx.ModelProto, layers: Sequence[str]) -> list[str]:
    """Names of the ReLUs that take what these layers give, or give what they take."""
    chosen = [node for node in model.graph.node if node.name in layers]
    seen = {name for node in chosen for name in (*node.input, *node.output)}
    return [node.name for node in model.graph.node if node.op_type == "Relu" and seen & {*node.input, *node.output}]


def multiply_in_blocks(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Products with constant matrices (Gemm, MatMul) take those as 8-bit codes, a scale for every `BLOCK` rows of each
    column, in place.

    By ONNX Runtime's own MatMulNBits (its ContribOperators.md), which rounds what it multiplies them with to 8 bits by
    blocks as well, and gives float32: millimetres in 8 bits would make an open mouth a matter of steps. For one face
    that is faster than MatMulInteger, and than float32: it is the reading of the weights that takes the time. Said by
    DequantizeLinear of blocks, ONNX Runtime 1.23 makes floats of them in every run.
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
        # Between scales and bias: zero points and an order of the rows, both as usual.
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
    """(K, N) -> codes (N, blocks, BLOCK) 1..255, 128 of them zero, and scales (N, blocks); rows that lack are zeros."""
    rows, columns = weights.shape
    blocks = -(-rows // BLOCK)
    padded = np.zeros((columns, blocks * BLOCK), np.float32)
    padded[:, :rows] = weights.T
    blocked = padded.reshape(columns, blocks, BLOCK)
    scales = np.abs(blocked).max(2) / np.float32(127)
    # Of zeros the scale is 0: with another, ONNX Runtime would give the noise of its sums instead of nothing.
    codes = np.round(blocked / np.where(scales == 0, 1, scales)[:, :, None]) + 128
    return codes.astype(np.uint8), scales


def store_hidden_in_half(model: onnx.ModelProto) -> None:
    """Float32 weights of the hidden layers, on which 8 bits would show, become float16 with a Cast behind them, which
    runtimes fold while loading: half the bytes in the file, float32 in use. In place."""
    weights = {node.input[1] for node in model.graph.node if node.op_type == "Gemm"}
    casts = []
    for tensor in list(model.graph.initializer):
        hidden = tensor.name in weights and tensor.name.startswith(HIDDEN)
        if hidden and tensor.data_type == TensorProto.FLOAT:
            half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{tensor.name}_half")
            casts.append(
                onnx.helper.make_node("Cast", [half.name], [tensor.name], f"{tensor.name}_cast", to=TensorProto.FLOAT)
            )
            model.graph.initializer.remove(tensor)
            model.graph.initializer.append(half)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _reader(feeds: Feeds, what: str) -> Any:
    """The feeds, one after the other, as onnxruntime's calibrators ask for them; with a progress bar."""
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
    """What onnxruntime.quantization prints and warns of (pre-processing that was done already) is no user's concern."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)

"""Contracts, ONNX files, weights, checkpoints and reports with false or damaged content."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from facerecon_rt.contract import CONTRACT_KEY, ModelContract
from facerecon_rt.faces.detector_contract import DETECTOR_KEY, DetectorContract
from facerecon_rt.template import load_template
from numpy.random import Generator

from .damage import chosen, damaged, spoiled, spoiled_json, written

MODELS = [Path(__file__).parents[2] / "models" / name for name in ("face.int8-cpu.onnx", "face_detector.onnx")]


def contract_value() -> dict[str, Any]:
    """Return the contract of a FaceModel as a JSON value."""
    template = load_template()
    golden = tuple(float(number) for number in range(340))
    asymmetry = (0.5,) * 136
    contract = ModelContract(
        128, template.vertex_count, template.sha256, "mobile", annotation_asymmetry=asymmetry, golden=golden
    )
    return dict(json.loads(contract.to_json()))


def contract(random: Generator, folder: Path) -> str:
    """Return the spoiled text of a FaceModel's or a detector's contract."""
    value = contract_value() if random.random() < 0.7 else dict(json.loads(DetectorContract(0.5).to_json()))
    return spoiled_json(value, random)


def report(random: Generator, folder: Path) -> Path:
    """Write a spoiled report of `bench`."""
    latency = dict.fromkeys(("count", "mean", "p50", "p90", "p95", "p99", "max", "variation"), 10.0)
    value = {
        "schema": "facerecon-bench/1",
        "scenario": "offline",
        "latency_ms": latency,
        "per_query": {"cpu_ms": 3.0, "faces": 1.0},
        "batches": [{"batch": 4, "latency_ms": latency, "crops_per_s": 10.0}],
        "model": {"files": [{"name": "face.onnx", "sha256": "ab" * 32}], "provider": "cpu"},
        "input": {"name": "clip", "size": [640, 480]},
        "environment": {"machine": {"processor": "one"}},
        "warnings": ["a warning"],
    }
    return written(folder / "report.json", spoiled_json(value, random).encode("utf-8", "surrogatepass"))


@cache
def models() -> list[Any]:
    """Return the shipped files for CPUs, parsed."""
    import onnx

    return [onnx.load(path) for path in MODELS]


def model(random: Generator, folder: Path) -> Path:
    """Write a FaceModel or detector file with changes in its graph, its weights' shapes, its contract or its bytes."""
    import onnx

    which = int(random.integers(len(MODELS)))
    path = folder / MODELS[which].name
    if random.random() < 0.2:
        return written(path, damaged(MODELS[which].read_bytes(), random))
    changed = onnx.ModelProto()
    changed.CopyFrom(models()[which])
    for _ in range(1 if random.random() < 0.6 else int(random.integers(2, 5))):
        chosen(random, CHANGES)(changed, random)
    data = changed.SerializeToString()
    return written(path, damaged(data, random) if random.random() < 0.1 else data)


def _attribute(model: Any, random: Generator) -> None:
    nodes = [node for node in model.graph.node if node.attribute]
    attribute = chosen(random, chosen(random, nodes).attribute)
    number = chosen(random, (0, 1, -1, 2, 3, 255, 2**31 - 1, 2**31, -(2**63), 2**63 - 1))
    if attribute.ints:
        attribute.ints[int(random.integers(len(attribute.ints)))] = number
    elif attribute.floats:
        attribute.floats[0] = float(number)
    else:
        attribute.i = number
        attribute.f = float(number)


def _tensor_shape(model: Any, random: Generator) -> None:
    tensor = chosen(random, model.graph.initializer)
    if tensor.dims and random.random() < 0.7:
        tensor.dims[int(random.integers(len(tensor.dims)))] = chosen(random, (0, 1, -1, 7, 2**20, 2**40, 2**62))
    else:
        tensor.dims.append(chosen(random, (0, 1, 2, 2**40)))


def _tensor_data(model: Any, random: Generator) -> None:
    tensor = chosen(random, model.graph.initializer)
    kind = int(random.integers(4))
    if kind == 0:
        tensor.raw_data = tensor.raw_data[: int(random.integers(len(tensor.raw_data) + 1))]
    elif kind == 1:
        tensor.raw_data += b"\xff" * int(random.integers(1, 100))
    elif kind == 2:
        tensor.raw_data = b"\xff\xff\xff\x7f" * (len(tensor.raw_data) // 4) + b"\x7f" * (len(tensor.raw_data) % 4)
    else:
        tensor.data_type = int(random.integers(-1, 30))


def _wiring(model: Any, random: Generator) -> None:
    node, other = chosen(random, model.graph.node), chosen(random, model.graph.node)
    if node.input and other.output:
        node.input[int(random.integers(len(node.input)))] = chosen(random, [*other.output, "", "nothing", "image"])


def _operator(model: Any, random: Generator) -> None:
    node = chosen(random, model.graph.node)
    names = (
        "Conv",
        "MatMul",
        "Reshape",
        "Expand",
        "Tile",
        "ConstantOfShape",
        "Range",
        "Pad",
        "Resize",
        "Concat",
        "Loop",
    )
    node.op_type = chosen(random, (*names, "If", "Scan", "Identity", "EPContext", "Nothing", "", "NonZero", "OneHot"))
    if random.random() < 0.1:
        node.domain = chosen(random, ("com.microsoft", "ai.onnx.ml", "evil", "\x00"))


def _nodes(model: Any, random: Generator) -> None:
    place = int(random.integers(len(model.graph.node)))
    if random.random() < 0.5:
        del model.graph.node[place]
    else:
        model.graph.node.add().CopyFrom(model.graph.node[place])


def _declared(model: Any, random: Generator) -> None:
    value = chosen(random, [*model.graph.input, *model.graph.output])
    shape = value.type.tensor_type.shape
    if shape.dim:
        shape.dim[int(random.integers(len(shape.dim)))].dim_value = chosen(random, (0, -1, 1, 3, 2**31, 2**62))
    if random.random() < 0.2:
        value.type.tensor_type.elem_type = int(random.integers(-1, 30))


def _metadata(model: Any, random: Generator) -> None:
    entry = chosen(random, [one for one in model.metadata_props if one.key in (CONTRACT_KEY, DETECTOR_KEY)])
    try:
        contract = json.loads(entry.value)
    except (ValueError, RecursionError):
        return  # an earlier change spoiled it already
    text = spoiled_json(contract, random)
    entry.value = text.encode("utf-8", "replace").decode()


def _versions(model: Any, random: Generator) -> None:
    model.opset_import[0].version = chosen(random, (0, -1, 1, 7, 13, 30, 2**31, 2**62))
    model.ir_version = chosen(random, (0, 1, 3, 12, 99, 2**62))


def _elsewhere(model: Any, random: Generator) -> None:
    tensor = chosen(random, model.graph.initializer)
    tensor.data_location = 1
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", chosen(random, ("/etc/passwd", "../face.onnx", "x" * 5000))


def _nested(model: Any, random: Generator) -> None:
    """Add graphs within graphs."""
    import onnx

    graph = onnx.GraphProto(name="deep")
    for _ in range(int(random.integers(1, 80))):
        outer = onnx.GraphProto(name="deep")
        node = outer.node.add(op_type="If", input=["image"], output=["out"])
        node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g.CopyFrom(graph)
        graph = outer
    model.graph.node.add(op_type="If", input=["image"], output=["deep"]).attribute.add(
        name="then_branch", type=onnx.AttributeProto.GRAPH
    ).g.CopyFrom(graph)


CHANGES: tuple[Callable[[Any, Generator], None], ...] = (
    _attribute, _attribute, _tensor_shape, _tensor_shape, _tensor_data, _wiring, _operator, _operator, _nodes,
    _declared, _metadata, _versions, _elsewhere, _nested,
)  # fmt: skip


@cache
def weights() -> bytes:
    """Return a small FaceModel's .safetensors file."""
    import torch
    from facerecon_training.checkpoint import save_weights
    from facerecon_training.model import FaceModel, ModelConfig

    torch.manual_seed(0)
    path = Path(os.environ["TMPDIR"]) / "small.safetensors"
    save_weights(FaceModel(ModelConfig("tiny", 64, shape_code=8, hidden=16, terms="for tests")), path)
    return path.read_bytes()


def safetensors(random: Generator, folder: Path) -> Path:
    """Write weights with a spoiled header, configuration or value."""
    data = weights()
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    kind = random.random()
    if kind < 0.3:
        return written(folder / "face.safetensors", damaged(data, random))
    if kind < 0.6:
        text = header["__metadata__"]["facerecon.config"]
        header["__metadata__"]["facerecon.config"] = spoiled_json(json.loads(text), random)
    elif kind < 0.8:
        name = chosen(random, [name for name in header if name != "__metadata__"])
        header[name] = spoiled(header[name], random)
    else:
        place = int(random.integers(len(body) // 4)) * 4
        number = chosen(random, (float("nan"), float("inf"), 3e38, 1e-45, 0.0))
        body = body[:place] + struct.pack("<f", number) + body[place + 4 :]
    text = json.dumps(header)
    if random.random() < 0.1:
        depth = int(random.integers(100, 100_000))
        text = text[:-1] + ', "deep": ' + "[" * depth + "]" * depth + "}"
    encoded = text.encode("utf-8", "surrogatepass")
    announced = chosen(random, (len(encoded), len(encoded), len(encoded), 2**63, 0)) if kind > 0.95 else len(encoded)
    return written(folder / "face.safetensors", struct.pack("<Q", announced) + encoded + body)


def checkpoint(random: Generator, folder: Path) -> Path:
    """Write training state with a spoiled archive, or a spoiled pickle inside."""
    import torch

    path = folder / "checkpoint.pt"
    torch.save({"step": 7, "log": [{"loss": 0.5}], "model": {"a": torch.arange(30.0), "b": torch.zeros(3)}}, path)
    data = path.read_bytes()
    if random.random() < 0.4:
        return written(path, damaged(data, random))
    with zipfile.ZipFile(BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    compression = zipfile.ZIP_DEFLATED if random.random() < 0.1 else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, part in parts.items():
            spoil = name.endswith("data.pkl") or random.random() < 0.1
            if random.random() < 0.02:
                continue
            archive.writestr(name, damaged(part, random) if spoil else part)
    return path

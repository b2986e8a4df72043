"""An ONNX file -> its content, read without the onnx package, and whether it can be trusted. Standard library only.

The module reads the protobuf wire format for the few messages that matter here, with the field numbers of onnx.proto.
The file is read once, so that the bytes that are checked and hashed are those that ONNX Runtime gets.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..errors import ModelRefused
from ..paths import read_file
from ..shipped import shipped_models

FLOAT, UINT8, INT8, INT32, INT64, FLOAT16 = 1, 2, 3, 6, 7, 10
"""Element types of TensorProto.DataType that models of this project use."""
TYPE_NAMES = {FLOAT: "float32", UINT8: "uint8", INT8: "int8", INT32: "int32", INT64: "int64", FLOAT16: "float16"}

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
ALLOWED_CONTRIB = frozenset({"QuantizeLinear", "DequantizeLinear", "MatMulNBits"})
"""Allowed operators of domain com.microsoft.

The int8 converter writes QuantizeLinear and DequantizeLinear where the opset's own lack an integer type. MatMulNBits
multiplies with matrices in blocks of codes, which is fast in every release. All other operators of the domain come from
ONNX Runtime's optimiser in files saved for one machine, or run foreign code.
"""

_LARGEST = 2**31 - 1
"""Maximum size of a protobuf message in bytes."""
_DEEPEST = 16
"""Maximum depth of graphs within graphs (If, Loop, Scan). Models of this project have none."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output, as the file declares it."""

    name: str
    elem_type: int
    """Element type: `FLOAT`, `UINT8`, ...; 0 where it is not a tensor."""
    dims: tuple[int | str, ...] | None
    """Size of each dimension, or a name (or "") for a dynamic dimension; None where the file gives no shape."""


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """An ONNX file and its declared content."""

    path: Path
    data: bytes = field(repr=False)
    """The whole file as bytes."""
    metadata: Mapping[str, str]
    """Entries of metadata_props."""
    opsets: Mapping[str, int]
    """Version of each operator domain; the standard domain is ""."""
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    operators: frozenset[tuple[str, str]]
    """(domain, op_type) of every node, including subgraphs and functions."""
    external: tuple[str, ...]
    """Names of the tensors whose values lie in another file."""

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file. It is computed on first use, since it takes longer than reading the file."""
        return hashlib.sha256(self.data).hexdigest()


def named_by_hash(*paths: str | Path) -> str:
    """Return the names of model files with the first 16 digits of their SHA-256, by which a result says what it
    measured: "`face.onnx` (`b61fa6e3a94d3f3b`)". Raises ModelRefused as `read_onnx` does."""
    return ", ".join(f"`{Path(path).name}` (`{read_onnx(path).sha256[:16]}`)" for path in paths)


def read_onnx(path: str | Path) -> OnnxFile:
    """Read an ONNX file. Raises ModelRefused where it is missing or not ONNX. `refuse_unsafe` judges the content."""
    path = Path(path)
    data = _read(path)
    try:
        model = _parse(memoryview(data))
        graphs = _messages(model, 7)
        opsets = {_text(opset, 1): _integer(opset, 2) for opset in _messages(model, 8)}
        if not graphs or not opsets or not _integer(model, 1):
            raise _MalformedError("it has no graph")
        found = _Found(set(), [])
        for graph in graphs:
            _walk_graph(graph, found, 0)
        for training in _messages(model, 20):
            for graph in _messages(training, 1) + _messages(training, 2):
                _walk_graph(graph, found, 0)
        for function in _messages(model, 25):
            _walk_nodes(_messages(function, 7), found, 0)
            _walk_attributes(_messages(function, 11), found, 0)
        return OnnxFile(
            path=path,
            data=data,
            metadata={_text(entry, 1): _text(entry, 2) for entry in _messages(model, 14)},
            opsets=opsets,
            inputs=tuple(_tensor_info(value) for graph in graphs for value in _messages(graph, 11)),
            outputs=tuple(_tensor_info(value) for graph in graphs for value in _messages(graph, 12)),
            operators=frozenset(found.operators),
            external=tuple(dict.fromkeys(found.external)),
        )
    except _MalformedError as error:
        raise ModelRefused(f"{path}: not an ONNX file, or cut short ({error}); {_fix(data)}") from error


def refuse_unsafe(model: OnnxFile) -> None:
    """Raise ModelRefused for a file that makes ONNX Runtime read other files or run code that is not its own."""
    if model.external:
        raise ModelRefused(
            f"{model.path}: keeps {_listed(model.external)} in another file (external data), which is not allowed; "
            "save the model as one file"
        )
    if any(op_type == "EPContext" for _, op_type in model.operators):
        raise ModelRefused(
            f"{model.path}: holds an engine compiled for one machine (EPContext), which is not allowed; "
            "use the .onnx file it was compiled from"
        )
    foreign = sorted(
        f"{domain}.{op_type}"
        for domain, op_type in model.operators
        if domain not in STANDARD_DOMAINS and not (domain == "com.microsoft" and op_type in ALLOWED_CONTRIB)
    )
    if foreign:
        raise ModelRefused(
            f"{model.path}: uses operators outside the ONNX standard ({_listed(foreign)}); export it with "
            "facerecon-export, and do not save it from an optimised session"
        )


def _read(path: Path) -> bytes:
    try:
        return read_file(path, _LARGEST)
    except FileNotFoundError:
        shipped = ", ".join(model.name for model in shipped_models())
        known = f", or the name of a shipped one (shipped: {shipped})" if shipped else ""
        raise ModelRefused(f"{path}: no such file; give the path of a .onnx file{known}") from None
    except IsADirectoryError:
        raise ModelRefused(f"{path}: is a folder; give the path of a .onnx file in it") from None
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ModelRefused(
                f"{path}: larger than an ONNX file can be (2 GiB); give the path of a .onnx file"
            ) from None
        raise ModelRefused(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error


def _fix(data: bytes) -> str:
    if data.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer: run `git lfs pull`"
    return "download or export it again" if data else "it is empty: download or export it again"


def _listed(names: tuple[str, ...] | list[str]) -> str:
    """Return the first three names on one line."""
    shown = ", ".join(" ".join(name.split()) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


# The content of a graph. The walk enters every message that can hold a tensor or a node.


@dataclass(frozen=True, slots=True)
class _Found:
    operators: set[tuple[str, str]]
    external: list[str]


def _walk_graph(graph: _Message, found: _Found, depth: int) -> None:
    if depth > _DEEPEST:
        raise _MalformedError(f"graphs within graphs deeper than {_DEEPEST}")
    _walk_nodes(_messages(graph, 1), found, depth)
    _walk_tensors(_messages(graph, 5), found)
    _walk_sparse(_messages(graph, 15), found)


def _walk_nodes(nodes: list[_Message], found: _Found, depth: int) -> None:
    for node in nodes:
        found.operators.add((_text(node, 7), _text(node, 4)))
        _walk_attributes(_messages(node, 5), found, depth)


def _walk_attributes(attributes: list[_Message], found: _Found, depth: int) -> None:
    for attribute in attributes:
        _walk_tensors(_messages(attribute, 5) + _messages(attribute, 10), found)
        _walk_sparse(_messages(attribute, 22) + _messages(attribute, 23), found)
        for graph in _messages(attribute, 6) + _messages(attribute, 11):
            _walk_graph(graph, found, depth + 1)


def _walk_tensors(tensors: list[_Message], found: _Found) -> None:
    for tensor in tensors:
        # Any entry of external_data and any data_location but DEFAULT counts. This is stricter than the standard on
        # purpose.
        if tensor.get(13) or any(tensor.get(14, ())):
            found.external.append(_text(tensor, 8) or "a tensor")


def _walk_sparse(sparse: list[_Message], found: _Found) -> None:
    for tensor in sparse:
        _walk_tensors(_messages(tensor, 1) + _messages(tensor, 2), found)


def _tensor_info(value: _Message) -> TensorInfo:
    """Return the name, the element type of TypeProto.Tensor and the shape of a ValueInfoProto."""
    name = _text(value, 1)
    for kind in _messages(value, 2):
        for tensor in _messages(kind, 1):
            shapes = _messages(tensor, 2)
            dims = tuple(_dimension(d) for shape in shapes for d in _messages(shape, 1)) if shapes else None
            return TensorInfo(name, _integer(tensor, 1), dims)
    return TensorInfo(name, 0, None)


def _dimension(dimension: _Message) -> int | str:
    return _integer(dimension, 1) if 1 in dimension else _text(dimension, 2)


# The protobuf wire format: a message is a sequence of fields, each a key (field number and wire type) and a value.

_Message = dict[int, list["int | memoryview"]]
"""Values of each field number in file order: varints as integers, length-delimited values as undecoded bytes."""


class _MalformedError(Exception):
    """The bytes are not a protobuf message, or not a message of an ONNX model."""


def _parse(data: memoryview) -> _Message:
    message: _Message = {}
    for number, value in _fields(data):
        message.setdefault(number, []).append(value)
    return message


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise _MalformedError(f"field number 0 at byte {at}")
        if wire_type == 0:
            value, at = _varint(data, at)
            yield number, value
        elif wire_type == 2:
            length, at = _varint(data, at)
            if length > end - at:
                raise _MalformedError(f"{length} bytes declared, but only {end - at} left")
            yield number, data[at : at + length]
            at += length
        elif wire_type in (1, 5):
            # These are floats, which nothing here reads.
            at += 8 if wire_type == 1 else 4
            if at > end:
                raise _MalformedError("ends within a number")
        else:
            raise _MalformedError(f"unknown wire type {wire_type} at byte {at}")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Read a varint, with seven bits per byte and the lowest first. Returns (value, offset behind it)."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _MalformedError("ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise _MalformedError("a number of more than ten bytes")


def _messages(message: _Message, number: int) -> list[_Message]:
    return [_parse(value) for value in message.get(number, ()) if isinstance(value, memoryview)]


def _integer(message: _Message, number: int) -> int:
    """Return the last value of a field, which counts in protobuf; 0 where there is none."""
    integers = [value for value in message.get(number, ()) if isinstance(value, int)]
    return integers[-1] if integers else 0


def _text(message: _Message, number: int) -> str:
    texts = [value for value in message.get(number, ()) if isinstance(value, memoryview)]
    try:
        return str(texts[-1], "utf-8") if texts else ""
    except UnicodeDecodeError as error:
        raise _MalformedError("a name that is not UTF-8") from error

"""The reader of ONNX files, which does not need the onnx package, on files that the package made and on broken
files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from facerecon_rt.errors import ModelRefused
from facerecon_rt.providers.onnx_file import FLOAT, UINT8, TensorInfo, named_by_hash, read_onnx, refuse_unsafe
from onnx import ModelProto, NodeProto, TensorProto, helper

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])


def model_of(*nodes: NodeProto, tensors: tuple[TensorProto, ...] = ()) -> ModelProto:
    graph = helper.make_graph([*nodes, helper.make_node("Relu", ["x"], ["y"])], "g", [X], [Y], list(tensors))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def saved(model: ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def external_tensor(name: str = "elsewhere") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def inside_an_if(*nodes: NodeProto, tensors: tuple[TensorProto, ...] = ()) -> NodeProto:
    branch = helper.make_graph(list(nodes), "branch", [], [Y], list(tensors))
    return helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=branch)


def test_the_file_says_what_it_takes_and_gives(tiny_model: Path) -> None:
    file = read_onnx(tiny_model)
    size = onnx.load(tiny_model).graph.input[0].type.tensor_type.shape.dim[1].dim_value
    assert file.path == tiny_model
    assert file.sha256 == hashlib.sha256(tiny_model.read_bytes()).hexdigest()
    assert file.data == tiny_model.read_bytes()
    assert file.inputs == (TensorInfo("image", UINT8, ("N", size, size, 3)),)
    assert file.outputs[4:6] == (TensorInfo("landmarks", FLOAT, ("N", 68, 3)), TensorInfo("confidence", FLOAT, ("N",)))
    assert file.opsets == {"": 20}
    assert file.external == ()
    refuse_unsafe(file)


def test_a_result_names_files_by_their_hash(tiny_model: Path, tmp_path: Path) -> None:
    other = saved(model_of(), tmp_path)
    first, second = (hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in (tiny_model, other))
    assert first != second
    assert named_by_hash(tiny_model, str(other)) == f"`{tiny_model.name}` (`{first}`), `model.onnx` (`{second}`)"


def test_the_reader_finds_what_the_onnx_package_finds(tiny_model: Path) -> None:
    file, model = read_onnx(tiny_model), onnx.load(tiny_model)
    assert file.metadata == {entry.key: entry.value for entry in model.metadata_props}
    assert file.operators == {(node.domain, node.op_type) for node in model.graph.node}
    assert [tensor.name for tensor in file.outputs] == [value.name for value in model.graph.output]


def test_an_input_without_a_shape_or_that_is_no_tensor_is_read_as_such(tmp_path: Path) -> None:
    model = model_of()
    model.graph.input.append(helper.make_tensor_value_info("free", TensorProto.FLOAT, None))
    model.graph.input.append(helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, [1]))
    model.graph.input.append(helper.make_tensor_value_info("unnamed", TensorProto.INT64, [None, 2]))
    assert read_onnx(saved(model, tmp_path)).inputs[1:] == (
        TensorInfo("free", FLOAT, None),
        TensorInfo("list", 0, None),
        TensorInfo("unnamed", TensorProto.INT64, ("", 2)),
    )


def test_operators_in_subgraphs_and_functions_are_found(tmp_path: Path) -> None:
    model = model_of(inside_an_if(inside_an_if(helper.make_node("Sin", [], ["y"]))))
    body = [helper.make_node("Cos", ["a"], ["b"])]
    model.functions.append(helper.make_function("ours", "Turn", ["a"], ["b"], body, [helper.make_opsetid("", 20)]))
    operators = read_onnx(saved(model, tmp_path)).operators
    assert {("", "If"), ("", "Sin"), ("", "Cos"), ("", "Relu")} <= operators


def in_an_initializer() -> ModelProto:
    return model_of(tensors=(external_tensor(),))


def in_a_constant() -> ModelProto:
    return model_of(helper.make_node("Constant", [], ["c"], value=external_tensor()))


def in_a_list_of_tensors() -> ModelProto:
    return model_of(helper.make_node("Constant", [], ["c"], values=[external_tensor()]))


def in_a_subgraph() -> ModelProto:
    return model_of(inside_an_if(tensors=(external_tensor(),)))


def in_a_sparse_initializer() -> ModelProto:
    model = model_of()
    model.graph.sparse_initializer.add().values.CopyFrom(external_tensor())
    return model


def in_a_function() -> ModelProto:
    model = model_of()
    body = [helper.make_node("Constant", [], ["b"], value=external_tensor())]
    model.functions.append(helper.make_function("", "Relu", [], ["b"], body, [helper.make_opsetid("", 20)]))
    return model


def in_training_information() -> ModelProto:
    model = model_of()
    model.training_info.add().initialization.initializer.append(external_tensor())
    return model


def without_a_data_location() -> ModelProto:
    tensor = external_tensor()
    tensor.ClearField("data_location")
    return model_of(tensors=(tensor,))


@pytest.mark.parametrize(
    "make",
    [
        in_an_initializer,
        in_a_constant,
        in_a_list_of_tensors,
        in_a_subgraph,
        in_a_sparse_initializer,
        in_a_function,
        in_training_information,
        without_a_data_location,
    ],
    ids=lambda make: make.__name__,
)
def test_external_data_is_refused_wherever_it_hides(make: Callable[[], ModelProto], tmp_path: Path) -> None:
    file = read_onnx(saved(make(), tmp_path))
    assert file.external == ("elsewhere",)
    with pytest.raises(ModelRefused, match=r"model\.onnx: keeps elsewhere in another file .* save the model as one"):
        refuse_unsafe(file)


def test_external_data_is_refused_however_its_number_is_spelt(tmp_path: Path) -> None:
    # data_location = 1 + 2**32, which protobuf cuts down to 1, in the wire format: field 14, varint.
    tensor = TensorProto(name="sly", data_type=TensorProto.FLOAT, dims=[3]).SerializeToString()
    tensor += b"\x70\x81\x80\x80\x80\x10"
    model = model_of()
    graph = model.graph.SerializeToString() + b"\x2a" + bytes([len(tensor)]) + tensor
    model.ClearField("graph")
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString() + b"\x3a" + varint(len(graph)) + graph)
    assert onnx.load(path, load_external_data=False).graph.initializer[0].data_location == TensorProto.EXTERNAL
    assert read_onnx(path).external == ("sly",)


@pytest.mark.parametrize(
    ("domain", "op_type"),
    [("com.microsoft", "FusedConv"), ("com.microsoft.nchwc", "Conv"), ("ai.onnx.ml", "TreeEnsemble"), ("evil", "Relu")],
)
def test_operators_outside_the_standard_are_refused(domain: str, op_type: str, tmp_path: Path) -> None:
    node = inside_an_if(helper.make_node(op_type, ["x"], ["y"], domain=domain))
    with pytest.raises(ModelRefused, match=rf"model\.onnx: .*{domain}\.{op_type}.* facerecon-export"):
        refuse_unsafe(read_onnx(saved(model_of(node), tmp_path)))


@pytest.mark.parametrize("domain", ["", "com.microsoft", "other"])
def test_a_compiled_engine_is_refused(domain: str, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"model\.onnx: .*EPContext"):
        refuse_unsafe(read_onnx(saved(model_of(helper.make_node("EPContext", ["x"], ["z"], domain=domain)), tmp_path)))


def test_the_operators_of_int8_files_are_allowed(tmp_path: Path) -> None:
    names = ("QuantizeLinear", "DequantizeLinear", "MatMulNBits")
    nodes = [helper.make_node(name, ["x"], [name], domain="com.microsoft") for name in names]
    refuse_unsafe(read_onnx(saved(model_of(*nodes), tmp_path)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"hello, this is not a model\n", "not an ONNX file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not an ONNX file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (TensorProto(name="a tensor, no model", dims=[1]).SerializeToString(), "not an ONNX file"),
    ],
    ids=["empty", "text", "picture", "git-lfs", "other-message"],
)
def test_other_files_are_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelRefused, match=f"other.onnx: .*{reason}") as refusal:
        read_onnx(path)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"absent\.onnx: no such file; give the path"):
        read_onnx(tmp_path / "absent.onnx")
    with pytest.raises(ModelRefused, match="is a folder; give the path"):
        read_onnx(tmp_path)


def test_graphs_nested_without_end_are_refused(tmp_path: Path) -> None:
    graph = b""
    for _ in range(500):
        attribute = b"\x32" + varint(len(graph)) + graph  # AttributeProto.g
        node = b"\x2a" + varint(len(attribute)) + attribute  # NodeProto.attribute
        graph = b"\x0a" + varint(len(node)) + node  # GraphProto.node
    model = model_of()
    model.ClearField("graph")
    path = tmp_path / "deep.onnx"
    path.write_bytes(model.SerializeToString() + b"\x3a" + varint(len(graph)) + graph)
    with pytest.raises(ModelRefused, match=r"deep\.onnx: .*graphs within graphs"):
        read_onnx(path)


def test_a_damaged_file_is_read_or_refused_and_nothing_else(tiny_model: Path, tmp_path: Path) -> None:
    whole = np.frombuffer(tiny_model.read_bytes(), np.uint8)
    random = np.random.default_rng(0)
    path = tmp_path / "damaged.onnx"
    refused = 0
    for _ in range(300):
        damaged = whole.copy()
        # Where names and lengths are, not within the constants: the first and last two kilobytes.
        places = np.concatenate([random.integers(0, 2000, 3), random.integers(-2000, 0, 3)])
        damaged[places] = random.integers(0, 256, 6)
        path.write_bytes(damaged.tobytes())
        try:
            refuse_unsafe(read_onnx(path))
        except ModelRefused as refusal:
            refused += 1
            assert str(refusal).startswith(str(path))
    assert refused > 0


def varint(value: int) -> bytes:
    groups = []
    while True:
        groups.append(value & 0x7F)
        value >>= 7
        if not value:
            return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])

"""Model repositories for Triton, read by NVIDIA's own protobuf and ONNX Runtime."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from facerecon_export import triton
from facerecon_export.cli import main
from facerecon_rt.contract import BLENDSHAPES, CONTRACT_KEY, SET_OUTPUTS, ModelContract
from facerecon_rt.errors import UsageError
from facerecon_rt.faces.detector_contract import DETECTOR_KEY, DetectorContract
from facerecon_rt.faces.served import SHA256_KEY
from facerecon_rt.networks.golden import golden_crop
from facerecon_rt.networks.session import output_dims, read_contract
from facerecon_rt.providers.batches import BUCKETS, profile
from facerecon_rt.providers.onnx_file import read_onnx
from facerecon_rt.sinks.outputs import write_whole
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import TINY_SIZE, MakeTinyModel

pb = pytest.importorskip("tritonclient.grpc.model_config_pb2")

MODELS = Path(__file__).parents[2] / "models"
SHIPPED = sorted(path.name for path in MODELS.glob("*.onnx"))
TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}
TENSORRT_PARAMETERS = {
    *("precision_mode", "max_workspace_size_bytes", "trt_cuda_graph_enable", "trt_engine_cache_enable"),
    *("trt_engine_cache_path", "trt_engine_cache_prefix", "trt_timing_cache_enable", "trt_timing_cache_path"),
    *("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes"),
}
"""Those of ours in the table of the ONNX Runtime backend's README; it refuses a model with others."""


def read(folder: Path) -> Any:
    """Read config.pbtxt as Triton does: an unknown field or a wrong type is an error."""
    return text_format.Parse((folder / "config.pbtxt").read_text(), pb.ModelConfig())


def serve(out: Path, *arguments: Path | str) -> int:
    return main(["triton", *map(str, arguments), "-o", str(out)])


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_file_is_described_as_onnx_runtime_sees_it(name: str, tmp_path: Path) -> None:
    assert serve(tmp_path, MODELS / name) == 0
    (folder,) = tmp_path.iterdir()
    config = read(folder)
    assert config.name == folder.name
    assert (config.backend, config.max_batch_size) == ("onnxruntime", BUCKETS[-1])
    file = folder / "1" / config.default_model_filename
    assert file.read_bytes() == (MODELS / name).read_bytes()
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for declared, found in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [tensor.name for tensor in declared] == [tensor.name for tensor in found]
        for tensor, real in zip(declared, found, strict=True):
            assert pb.DataType.Name(tensor.data_type) == TYPES[real.type]
            assert isinstance(real.shape[0], str)  # Triton's batch
            dims = [d if isinstance(d, int) else -1 for d in real.shape[1:]]
            assert list(tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims) == dims
            assert tensor.dims  # Triton accepts no tensor without dimensions


@pytest.mark.parametrize("name", SHIPPED)
def test_every_warm_up_of_a_shipped_file_runs(name: str, tmp_path: Path) -> None:
    serve(tmp_path, MODELS / name)
    (folder,) = tmp_path.iterdir()
    config = read(folder)
    session = onnxruntime.InferenceSession(str(folder / "1" / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [sample.batch_size for sample in config.model_warmup] == list(BUCKETS)
    smallest = config.model_warmup[0].inputs["image"]
    picture = np.frombuffer((folder / "warmup" / smallest.input_data_file).read_bytes(), np.uint8)
    outputs = session.run(None, {"image": picture.reshape(1, *smallest.dims)})
    assert all(np.isfinite(output).all() for output in outputs)


def test_crops_are_warmed_up_with_the_golden_one(tiny_model: Path, tmp_path: Path) -> None:
    serve(tmp_path, tiny_model)
    picture = np.frombuffer((tmp_path / "tiny" / "warmup" / "golden").read_bytes(), np.uint8)
    np.testing.assert_array_equal(picture.reshape(TINY_SIZE, TINY_SIZE, 3), golden_crop(TINY_SIZE))


@pytest.mark.parametrize(
    ("name", "asked", "kind", "accelerators"),
    [
        ("face.onnx", (), "KIND_AUTO", ["cuda"]),
        ("face.fp16.onnx", (), "KIND_GPU", ["tensorrt", "cuda"]),
        ("face.int8.onnx", (), "KIND_GPU", ["tensorrt", "cuda"]),
        ("face.int8-cpu.onnx", (), "KIND_CPU", []),
        ("face.onnx", ("--kind", "gpu"), "KIND_GPU", ["cuda"]),
        ("face.fp16.onnx", ("--kind", "cpu"), "KIND_CPU", []),
    ],
)
def test_a_file_runs_where_its_precision_belongs(
    name: str, asked: tuple[str, ...], kind: str, accelerators: list[str], tmp_path: Path
) -> None:
    serve(tmp_path, MODELS / name, "--name", "face", "--instances", "3", *asked)
    config = read(tmp_path / "face")
    (group,) = config.instance_group
    assert (pb.ModelInstanceGroup.Kind.Name(group.kind), group.count) == (kind, 3)
    found = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert [one.name for one in found] == accelerators
    assert not config.optimization.execution_accelerators.cpu_execution_accelerator
    for one in found:
        if one.name == "cuda":
            assert one.parameters["use_tf32"] == "0"
    if kind != "KIND_GPU":
        assert config.parameters["intra_op_thread_count"].string_value == "1"


@pytest.mark.parametrize(("name", "mode"), [("face.fp16.onnx", "FP16"), ("face.int8.onnx", "INT8")])
def test_tensorrt_gets_the_runtimes_profile_and_keeps_its_engines_apart(name: str, mode: str, tmp_path: Path) -> None:
    serve(tmp_path, MODELS / name, "--name", "face", "--engines", "/engines")
    parameters = read(tmp_path / "face").optimization.execution_accelerators.gpu_execution_accelerator[0].parameters
    assert set(parameters) <= TENSORRT_PARAMETERS
    assert parameters["precision_mode"] == mode
    assert parameters["trt_profile_min_shapes"] == "image:1x160x160x3"
    assert parameters["trt_profile_max_shapes"] == "image:16x160x160x3"
    assert (parameters["trt_engine_cache_enable"], parameters["trt_engine_cache_path"]) == ("1", "/engines")
    # Without it, two models of one architecture would share an engine.
    assert parameters["trt_engine_cache_prefix"] == read_onnx(MODELS / name).sha256[:16]
    serve(tmp_path, MODELS / name, "--name", "unkept")
    unkept = read(tmp_path / "unkept").optimization.execution_accelerators.gpu_execution_accelerator[0].parameters
    assert unkept["trt_engine_cache_enable"] == "0"
    assert "trt_engine_cache_path" not in unkept


def test_requests_wait_for_each_other_as_long_as_is_asked_for(tiny_model: Path, tmp_path: Path) -> None:
    serve(tmp_path, tiny_model, "--max-delay-ms", "2.5")
    batching = read(tmp_path / "tiny").dynamic_batching
    assert list(batching.preferred_batch_size) == [2, 4, 8, 16]
    assert batching.max_queue_delay_microseconds == 2500


def test_blendshapes_are_labels_and_the_contract_can_be_asked_for(tiny_model: Path, tmp_path: Path) -> None:
    serve(tmp_path, tiny_model)
    config = read(tmp_path / "tiny")
    (labelled,) = [output for output in config.output if output.label_filename]
    assert labelled.name == "expression"
    assert (tmp_path / "tiny" / labelled.label_filename).read_text().split() == list(BLENDSHAPES)
    told = config.parameters[CONTRACT_KEY].string_value
    assert ModelContract.from_json(told) == read_contract(read_onnx(tiny_model))
    assert config.parameters[SHA256_KEY].string_value == read_onnx(tiny_model).sha256


def test_other_weights_are_the_next_version_and_the_same_file_is_none(
    make_tiny_model: MakeTinyModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "repository"
    first = make_tiny_model(tmp_path / "first.onnx")
    second = make_tiny_model(tmp_path / "second.onnx", weights_sha256="retrained")
    for path, version in ((first, 1), (first, 1), (second, 2), (second, 2), (first, 1)):
        assert serve(out, path, "--name", "face") == 0
        assert f"version {version} " in capsys.readouterr().out
        config = read(out / "face")
        assert list(config.version_policy.specific.versions) == [version]
        assert config.parameters[SHA256_KEY].string_value == read_onnx(path).sha256
        assert (out / "face" / str(version) / "model.onnx").read_bytes() == path.read_bytes()
    assert sorted(path.name for path in (out / "face").iterdir()) == [
        *("1", "2", "blendshapes.txt", "config.pbtxt", "warmup")
    ]


def test_a_version_in_the_repository_goes_back_to_itself(make_tiny_model: MakeTinyModel, tmp_path: Path) -> None:
    out, detector = tmp_path / "repository", MODELS / "face_detector.onnx"
    first = make_tiny_model(tmp_path / "first.onnx")
    second = make_tiny_model(tmp_path / "second.onnx", weights_sha256="retrained")
    assert serve(out, first, detector, "--name", "face") == serve(out, second, "--name", "face") == 0
    assert serve(out, out / "face" / "1" / "model.onnx", out / "face_detector" / "1" / "model.onnx") == 0
    assert sorted(path.name for path in out.iterdir()) == ["face", "face_detector"]
    assert list(read(out / "face").version_policy.specific.versions) == [1]


def test_options_that_do_nothing_for_the_files_are_named(
    make_tiny_model: MakeTinyModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = make_tiny_model(tmp_path / "half.onnx", precision="fp16")
    for file, options, said in (
        (MODELS / "face.int8-cpu.onnx", ("--engines", "e"), "--engines does nothing here; it is for files on TensorRT"),
        (half, ("--threads", "2"), "--threads does nothing here; it is for files on the CPU"),
        (half, ("--engines", "e"), ""),
        (MODELS / "face.int8-cpu.onnx", ("--threads", "2", "--max-delay-ms", "2"), ""),
    ):
        assert serve(tmp_path / "repository", file, *options) == 0
        assert said in (err := capsys.readouterr().err) and bool(err) == bool(said)


def test_until_the_configuration_is_there_the_version_before_is_served(
    make_tiny_model: MakeTinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "repository"
    serve(out, make_tiny_model(tmp_path / "first.onnx"), "--name", "face")

    def full(path: Path, data: bytes) -> None:
        if path.name == "config.pbtxt":
            raise UsageError("cannot write it: No space left on device")
        write_whole(path, data)

    monkeypatch.setattr(triton, "write_whole", full)
    second = make_tiny_model(tmp_path / "second.onnx", weights_sha256="retrained")
    assert serve(out, second, "--name", "face") == 2
    assert list(read(out / "face").version_policy.specific.versions) == [1]


def test_a_version_has_the_tensors_of_the_one_before(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(tmp_path, tiny_model, "--name", "face")
    assert serve(tmp_path, MODELS / "face.int8-cpu.onnx", "--name", "face") == 2
    assert "serve the file under another --name" in capsys.readouterr().err
    assert not (tmp_path / "face" / "2").exists()


def test_a_file_of_four_crops_is_served_as_it_is(make_tiny_model: MakeTinyModel, tmp_path: Path) -> None:
    model = onnx.load(make_tiny_model(tmp_path / "four.onnx", batch=4))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, tmp_path / "four.onnx")
    assert serve(tmp_path / "repository", tmp_path / "four.onnx") == 0
    config = read(tmp_path / "repository" / "four")
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert list(config.input[0].dims) == [4, TINY_SIZE, TINY_SIZE, 3]
    (confidence,) = (output for output in config.output if output.name == "confidence")
    assert list(confidence.dims) == [4]
    assert not confidence.HasField("reshape")
    assert [sample.batch_size for sample in config.model_warmup] == [1]  # Triton's batch of 1 holds all four crops
    picture = np.frombuffer((tmp_path / "repository" / "four" / "warmup" / "golden").read_bytes(), np.uint8)
    np.testing.assert_array_equal(picture.reshape(4, TINY_SIZE, TINY_SIZE, 3)[3], golden_crop(TINY_SIZE))


def test_a_file_that_averages_a_set_is_served_as_it_is(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = read_contract(read_onnx(tiny_model))
    contract = dataclasses.replace(tiny, outputs=SET_OUTPUTS, set_size=3)
    assert profile(contract) == {}  # TensorRT has shapes to choose from only where a dimension is free
    firsts = {"shape": 1, "spread_mm": 1}
    dims = {name: [firsts.get(name, 3), *rest] for name, rest in output_dims(contract).items()}
    graph = helper.make_graph(
        [helper.make_node("ConstantOfShape", [f"{name}_dims"], [name]) for name in dims],
        "set",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [3, TINY_SIZE, TINY_SIZE, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in dims.items()],
        [numpy_helper.from_array(np.array(shape, np.int64), f"{name}_dims") for name, shape in dims.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {CONTRACT_KEY: contract.to_json()})
    onnx.save(model, tmp_path / "three.onnx")
    assert serve(tmp_path / "repository", tmp_path / "three.onnx", MODELS / "face_detector.onnx", "--photographs") == 2
    assert "averages 3 crops of one person; give the file that it was made from" in capsys.readouterr().err
    assert serve(tmp_path / "repository", tmp_path / "three.onnx") == 0
    config = read(tmp_path / "repository" / "three")
    assert [output.name for output in config.output] == list(SET_OUTPUTS)
    assert config.max_batch_size == 0
    assert [list(output.dims) for output in config.output] == list(dims.values())


def test_a_detector_on_a_gpu_is_left_to_cuda(tmp_path: Path) -> None:
    model = onnx.load(MODELS / "face_detector.onnx")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    contract = dataclasses.replace(DetectorContract.from_json(metadata[DETECTOR_KEY]), precision="fp16", target="")
    onnx.helper.set_model_props(model, {DETECTOR_KEY: contract.to_json()})
    onnx.save(model, tmp_path / "detector.onnx")
    serve(tmp_path / "repository", tmp_path / "detector.onnx")
    config = read(tmp_path / "repository" / "detector")
    assert [list(tensor.dims) for tensor in (*config.input, *config.output)] == [[-1, -1, 3], [-1, -1], [5, -1, -1]]
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert [one.name for one in accelerators] == ["cuda"]
    assert config.parameters[DETECTOR_KEY].string_value == contract.to_json()


def test_photographs_are_a_model_that_knows_the_two_others(tiny_model: Path, tmp_path: Path) -> None:
    assert serve(tmp_path, tiny_model, MODELS / "face_detector.onnx", "--name", "face", "--photographs") == 0
    folder = tmp_path / "face_photograph"
    config = read(folder)
    assert (config.name, config.backend, config.max_batch_size) == ("face_photograph", "python", 0)
    assert config.parameters["face"].string_value == "face"
    assert config.parameters["detector"].string_value == "face_detector"
    assert config.parameters[CONTRACT_KEY] == read(tmp_path / "face").parameters[CONTRACT_KEY]
    assert config.parameters[DETECTOR_KEY] == read(tmp_path / "face_detector").parameters[DETECTOR_KEY]
    assert (folder / "1" / "model.py").read_text() == (
        Path(triton.__file__).with_name("triton_photograph.py").read_text()
    )


def test_photographs_give_gaze_where_the_face_model_tells_it(
    tiny_model: Path, tiny_model_1: Path, tmp_path: Path
) -> None:
    for model, gaze in ((tiny_model, True), (tiny_model_1, False)):
        out = tmp_path / model.stem
        assert serve(out, model, MODELS / "face_detector.onnx", "--name", "face", "--photographs") == 0
        outputs = {output.name: list(output.dims) for output in read(out / "face_photograph").output}
        assert outputs.get("gaze") == ([-1, 2, 3] if gaze else None)
        assert {"record", "photograph", "vertices", "confidence"} < set(outputs)
        served = [output.name for output in read(out / "face").output]
        assert served == list(read_contract(read_onnx(model)).outputs)


def test_a_model_that_tells_gaze_is_no_next_version_of_one_that_does_not(
    tiny_model: Path, tiny_model_1: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve(tmp_path, tiny_model_1, "--name", "face") == 0
    assert serve(tmp_path, tiny_model, "--name", "face") == 2
    assert "its tensors differ from those of version 1" in capsys.readouterr().err


def test_photographs_are_not_forgotten_by_a_new_version(
    make_tiny_model: MakeTinyModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, detector = tmp_path / "repository", MODELS / "face_detector.onnx"
    serve(out, make_tiny_model(tmp_path / "first.onnx"), detector, "--name", "face", "--photographs")
    second = make_tiny_model(tmp_path / "second.onnx", weights_sha256="retrained")
    assert serve(out, second, "--name", "face") == 2
    assert "face_photograph uses face and needs its new contract" in capsys.readouterr().err
    assert not (out / "face" / "2").exists()
    assert serve(out, second, detector, "--name", "face", "--photographs") == 0
    contract = ModelContract.from_json(read(out / "face_photograph").parameters[CONTRACT_KEY].string_value)
    assert contract.weights_sha256 == "retrained"


def test_what_does_not_fit_is_said_before_anything_is_written(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "repository"
    (tmp_path / "other").mkdir()
    again = tmp_path / "other" / tiny_model.name
    again.write_bytes(tiny_model.read_bytes())
    named = tmp_path / "a face.onnx"
    named.write_bytes(tiny_model.read_bytes())
    detector = MODELS / "face_detector.onnx"
    for arguments, said in (
        ((tiny_model, again), "two files would be served as tiny"),
        ((tiny_model, again, "--name", "face"), "names one FaceModel, but 2 were given"),
        ((detector, "--name", "face"), "names one FaceModel, but 0 were given"),
        ((tiny_model, detector, "--name", "face_detector"), "two files would be served as face_detector"),
        ((named,), "cannot name a model"),
        ((tiny_model, "--name", "../face"), "cannot name a model"),
        ((MODELS / "face.int8-cpu.onnx", "--kind", "gpu"), "this int8 file is for CPUs"),
        ((tiny_model, "--photographs"), "one face detector's file; give both"),
    ):
        assert serve(out, *arguments) == 2, arguments
        assert said in capsys.readouterr().err
    assert serve(out, tmp_path / "absent.onnx") == 3
    assert not out.exists()
    for wrong in (("--instances", "0"), ("--threads", "x"), ("--max-delay-ms", "-1"), ("--max-delay-ms", "soon")):
        with pytest.raises(SystemExit):
            serve(out, tiny_model, *wrong)

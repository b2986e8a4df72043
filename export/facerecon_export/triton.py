"""Deployed files -> a model repository for NVIDIA's Triton Inference Server, each with its config.pbtxt.

Triton's model_config.proto says what a configuration may hold, the README of its ONNX Runtime backend what that makes
of it. Nothing here needs PyTorch or onnx.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from facerecon_rt.contract import CONTRACT_KEY, ModelContract
from facerecon_rt.errors import UsageError
from facerecon_rt.faces.detect import DETECTOR_KEY, SMALL_INPUT, DetectorContract, read_detector_contract
from facerecon_rt.faces.served import SHA256_KEY
from facerecon_rt.networks.golden import golden_crop
from facerecon_rt.networks.session import read_contract
from facerecon_rt.providers.batches import BUCKETS, profile
from facerecon_rt.providers.nvidia import AS_USUAL, tensorrt_options
from facerecon_rt.providers.onnx_file import FLOAT, UINT8, OnnxFile, TensorInfo, read_onnx, refuse_unsafe
from facerecon_rt.sinks.outputs import make_folder, write_whole

from .pbtxt import Message, Name, entries, pbtxt
from .staging import staging

Say = Callable[[str], None]
Kind = Literal["gpu", "cpu"]

TYPES = {UINT8: "TYPE_UINT8", FLOAT: "TYPE_FP32"}
MODEL_FILE = "model.onnx"
LABELS = "blendshapes.txt"
WARM_UP = "golden"
"""File of a warm-up sample, in the folder `warmup`, where Triton looks for it."""
PHOTOGRAPH = "_photograph"
"""What the name of a model that takes photographs has after that of its FaceModel."""


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """How files are to be served."""

    name: str | None = None
    """Of the model, for a single FaceModel file; None: after the file."""
    kind: Kind | None = None
    """Where instances run; None: where the file's precision belongs."""
    instances: int = 1
    """Per GPU, or on the CPU."""
    threads: int = 1
    """Of ONNX Runtime in each instance on the CPU."""
    max_delay_ms: float = 1.0
    """That a request may wait for others to share a batch with."""
    engines: str | None = None
    """Folder on the server that keeps TensorRT's engines; None: built at each start."""
    photographs: bool = False
    """Add a model that takes photographs and does the rest inside Triton."""


@dataclass(frozen=True, slots=True)
class _Served:
    """One file, and how it is served."""

    model: OnnxFile
    name: str
    contract: ModelContract | DetectorContract
    kind: Name
    """KIND_GPU, KIND_CPU or KIND_AUTO: a GPU where there is one."""

    @property
    def tensorrt(self) -> bool:
        """Does TensorRT accelerate it? A detector's pictures come in all shapes, for each of which it would build an
        engine anew. Float32 files gain little by it, and it would compute them in TF32."""
        return (
            isinstance(self.contract, ModelContract) and self.kind == "KIND_GPU" and self.contract.precision != "fp32"
        )

    @property
    def batched(self) -> bool:
        """Does it take any number of pictures? Then Triton batches, and a tensor's first dimension is Triton's."""
        return all(isinstance(dims[0], str) for dims in map(_dims, (*self.model.inputs, *self.model.outputs)))


def write_repository(paths: Sequence[Path], out: Path, options: TritonOptions, say: Say) -> None:
    """FaceModel and detector files -> the model repository `out`, made or added to.

    A model that is there already gets the file as its next version, or is set back to the version that has it, and its
    configuration names that version alone. Files are whole or not there, and the configuration comes last, so that a
    server that watches the repository never sees one without the other. Raises ModelRefused for a file that is not
    fit, UsageError for names that clash, options that do not fit, tensors other than those of the version before, or a
    place that cannot be written.
    """
    served = [_served(path, options) for path in paths]
    faces = [one for one in served if isinstance(one.contract, ModelContract)]
    detectors = [one for one in served if isinstance(one.contract, DetectorContract)]
    if options.name is not None and len(faces) != 1:
        raise UsageError(f"--name {options.name}: names one FaceModel, {len(faces)} were given; give one")
    for one in served:
        if [other.name for other in served].count(one.name) > 1:
            raise UsageError(f"two files would be served as {one.name}; rename one, or run once for each with --name")
    if options.photographs and (not faces or len(detectors) != 1):
        raise UsageError("--photographs: give one face detector's file beside the FaceModel's")
    for face in faces:
        photograph = out / (face.name + PHOTOGRAPH)
        if photograph.exists() and not options.photographs:
            raise UsageError(
                f"{photograph} asks {face.name} and must be told of its contract; give --photographs and the detector, "
                "or remove it"
            )
    for one in served:
        _check_tensors_stay(one, out)
    for one in served:
        version = _write_model(one, out, options)
        say(f"wrote {out / one.name}, version {version} ({one.kind}{', TensorRT' if one.tensorrt else ''})")
    for face in faces if options.photographs else ():
        _write_photograph(face, detectors[0], out, options)
        say(f"wrote {out / (face.name + PHOTOGRAPH)}; Triton's Python needs facerecon-rt for it")


def _served(path: Path, options: TritonOptions) -> _Served:
    model = read_onnx(path)
    refuse_unsafe(model)
    contract = read_detector_contract(model) if DETECTOR_KEY in model.metadata else read_contract(model)
    # Triton allows dots, but not all that makes names of metrics or services of its models' does.
    name = re.sub(r"[.-]", "_", path.stem)
    if options.name is not None and isinstance(contract, ModelContract):
        name = options.name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UsageError(f"{name!r} is no name for a model: letters, digits, - and _; give another with --name")
    return _Served(model, name, contract, _kind(path, contract, options.kind))


def _kind(path: Path, contract: ModelContract | DetectorContract, asked: Kind | None) -> Name:
    if contract.target == "cpu" and asked == "gpu":
        raise UsageError(f"{path}: its int8 is for CPUs; serve the int8 file for TensorRT, or leave --kind out")
    if asked is not None:
        return Name(f"KIND_{asked.upper()}")
    if contract.target == "cpu":
        return Name("KIND_CPU")
    return Name("KIND_AUTO" if contract.precision == "fp32" else "KIND_GPU")


# A model's folder


def _write_model(one: _Served, out: Path, options: TritonOptions) -> int:
    folder = out / one.name
    make_folder(folder / "warmup")
    write_whole(folder / "warmup" / WARM_UP, _warm_up_picture(one).tobytes())
    if isinstance(one.contract, ModelContract):
        write_whole(folder / LABELS, "".join(f"{name}\n" for name in one.contract.blendshapes).encode())
    version = _version_of(one, folder)
    if not (folder / str(version)).exists():
        with staging(folder) as partial:
            made = partial / str(version)
            made.mkdir()
            (made / MODEL_FILE).write_bytes(one.model.data)
            made.rename(folder / str(version))
    write_whole(folder / "config.pbtxt", _config(one, version, options).encode())
    return version


def _versions(folder: Path) -> list[int]:
    """Rising."""
    return sorted(int(path.parent.name) for path in folder.glob(f"*/{MODEL_FILE}") if path.parent.name.isdigit())


def _version_of(one: _Served, folder: Path) -> int:
    """The one that holds this very file, or the next."""
    there = _versions(folder)
    for version in reversed(there):
        if read_onnx(folder / str(version) / MODEL_FILE).sha256 == one.model.sha256:
            return version
    return there[-1] + 1 if there else 1


def _check_tensors_stay(one: _Served, out: Path) -> None:
    """A model's clients must not have to care for its version."""
    there = _versions(out / one.name)
    if not there:
        return
    before = read_onnx(out / one.name / str(there[-1]) / MODEL_FILE)
    if _signature(before) != _signature(one.model):
        raise UsageError(
            f"{one.model.path}: has other tensors than version {there[-1]} of {out / one.name}, and clients of one "
            "model expect the same; serve it under another --name"
        )


def _signature(model: OnnxFile) -> list[tuple[str, int, list[int]]]:
    return [
        (tensor.name, tensor.elem_type, [_fixed(d) for d in _dims(tensor)])
        for tensor in (*model.inputs, *model.outputs)
    ]


def _warm_up_picture(one: _Served) -> np.typing.NDArray[np.uint8]:
    """What one sample of `image` is, without Triton's batch: golden crops, or black where there is no telling."""
    dims = [_fixed(d) for d in _config_dims(one, one.model.inputs[0])]
    if isinstance(one.contract, ModelContract):
        return np.broadcast_to(golden_crop(one.contract.input_size), dims).copy()
    return np.zeros(_detector_picture(dims), np.uint8)


def _detector_picture(dims: Sequence[int]) -> list[int]:
    return [SMALL_INPUT if d < 0 else d for d in dims]


# config.pbtxt


def _config(one: _Served, version: int, options: TritonOptions) -> str:
    """The text of a model's config.pbtxt."""
    message: dict[str, Message | Sequence[Message] | str | int] = {
        "name": one.name,
        "backend": "onnxruntime",
        "default_model_filename": MODEL_FILE,
        "max_batch_size": BUCKETS[-1] if one.batched else 0,
        "version_policy": {"specific": {"versions": [version]}},
        "input": [_tensor(one, tensor) for tensor in one.model.inputs],
        "output": [_tensor(one, tensor) for tensor in one.model.outputs],
        "instance_group": [{"count": options.instances, "kind": one.kind}],
    }
    if one.batched:
        # Not the bucket of one: a batch of a preferred size is run at once, so nothing would ever wait.
        message["dynamic_batching"] = {
            "preferred_batch_size": list(BUCKETS[1:]),
            "max_queue_delay_microseconds": round(1000 * options.max_delay_ms),
        }
    if one.kind != "KIND_CPU":
        message["optimization"] = {"execution_accelerators": {"gpu_execution_accelerator": _accelerators(one, options)}}
    message["model_warmup"] = _warm_ups(one)
    message["parameters"] = entries({key: {"string_value": text} for key, text in _parameters(one, options).items()})
    return f"# {_HEADER.format(file=one.model.path.name, version=version)}\n{pbtxt(message)}"


_HEADER = """Written by facerecon-export triton from {file}: run it again rather than edit this.
# Serves version {version} alone: what is below belongs to its weights, as names of TensorRT's engines do. To go back to
# another version, run the command with that version's model.onnx."""


def _tensor(one: _Served, tensor: TensorInfo) -> Message:
    """As Triton describes it: a scalar per picture is (1,) to its clients."""
    dims = _config_dims(one, tensor)
    found: dict[str, Message | Sequence[int] | str] = {
        "name": tensor.name,
        "data_type": Name(TYPES[tensor.elem_type]),
        "dims": [_fixed(d) for d in dims] or [1],
    }
    if not dims:
        found["reshape"] = {"shape": list[int]()}
    if tensor.name == "expression":
        found["label_filename"] = LABELS
    return found


def _accelerators(one: _Served, options: TritonOptions) -> list[Message]:
    # CUDA computes what TensorRT does not, and never in TF32: precision lives in the graph.
    cuda: Message = {"name": "cuda", "parameters": entries({"use_tf32": "0"})}
    if not one.tensorrt or not isinstance(one.contract, ModelContract):
        return [cuda]
    folder = None if options.engines is None else Path(options.engines)
    precision = one.contract.precision
    given = tensorrt_options(one.model.sha256, precision, profile(one.contract), AS_USUAL, folder)
    # Triton has one name for the two switches of precision; the others are called as ONNX Runtime calls them.
    kept = {key: value for key, value in given.items() if key not in ("trt_fp16_enable", "trt_int8_enable")}
    return [{"name": "tensorrt", "parameters": entries({"precision_mode": precision.upper(), **kept})}, cuda]


def _warm_ups(one: _Served) -> list[Message]:
    """Each batch size that others prefer has been seen before the first request comes."""
    image = one.model.inputs[0]
    dims = _detector_picture([_fixed(d) for d in _config_dims(one, image)])
    sample: Message = {"data_type": Name(TYPES[image.elem_type]), "dims": dims, "input_data_file": WARM_UP}
    return [
        {"name": f"{WARM_UP}_{size}", "batch_size": size, "inputs": entries({image.name: sample})}
        for size in (BUCKETS if one.batched else (1,))
    ]


def _parameters(one: _Served, options: TritonOptions) -> Mapping[str, str]:
    """Of the backend, and what clients of ours read back: contract and hash of the file."""
    key = CONTRACT_KEY if isinstance(one.contract, ModelContract) else DETECTOR_KEY
    known = {key: one.contract.to_json(), SHA256_KEY: one.model.sha256}
    if one.kind != "KIND_GPU":
        # Instances are how Triton uses more cores; threads of one would spin while they wait.
        known["intra_op_thread_count"] = str(options.threads)
    if one.kind != "KIND_CPU":
        # As the runtime has it (gpu.cuda_options), by the numbers that the backend has for it.
        known |= {"cudnn_conv_algo_search": "1", "arena_extend_strategy": "1"}
    return known


def _dims(tensor: TensorInfo) -> tuple[int | str, ...]:
    return tensor.dims or ("",)


def _config_dims(one: _Served, tensor: TensorInfo) -> tuple[int | str, ...]:
    return _dims(tensor)[1:] if one.batched else _dims(tensor)


def _fixed(dimension: int | str) -> int:
    return dimension if isinstance(dimension, int) else -1


# Photographs


def _write_photograph(face: _Served, detector: _Served, out: Path, options: TritonOptions) -> None:
    """The model of Triton's Python backend that takes photographs: `triton_photograph.py` and its configuration."""
    assert isinstance(face.contract, ModelContract)
    name = face.name + PHOTOGRAPH
    make_folder(out / name / "1")
    write_whole(out / name / "1" / "model.py", Path(__file__).with_name("triton_photograph.py").read_bytes())
    mesh = [-1, face.contract.vertex_count, 3]
    outputs = {
        "photograph": ("TYPE_INT32", [-1]),
        "shape": ("TYPE_FP32", mesh),
        "vertices": ("TYPE_FP32", mesh),
        "expression": ("TYPE_FP32", [-1, len(face.contract.blendshapes)]),
        "frame_from_head": ("TYPE_FP32", [-1, 3, 4]),
        "landmarks": ("TYPE_FP32", [-1, 68, 3]),
        "confidence": ("TYPE_FP32", [-1]),
    }
    if "gaze" in face.contract.outputs:
        outputs["gaze"] = ("TYPE_FP32", [-1, 2, 3])
    parameters = {
        "face": face.name,
        "detector": detector.name,
        CONTRACT_KEY: face.contract.to_json(),
        DETECTOR_KEY: detector.contract.to_json(),
        SHA256_KEY: face.model.sha256,
    }
    message: Message = {
        "name": name,
        "backend": "python",
        "max_batch_size": 0,
        "input": [{"name": "picture", "data_type": Name("TYPE_STRING"), "dims": [-1]}],
        "output": [
            {"name": "record", "data_type": Name("TYPE_STRING"), "dims": [-1]},
            *({"name": key, "data_type": Name(kind), "dims": dims} for key, (kind, dims) in outputs.items()),
        ],
        # Each does one request at a time: while one waits for the networks, another decodes and cuts crops.
        "instance_group": [{"count": 2 * options.instances, "kind": Name("KIND_CPU")}],
        "parameters": entries({key: {"string_value": text} for key, text in parameters.items()}),
    }
    header = f"# Written by facerecon-export triton --photographs, for {face.name} and {detector.name}.\n"
    write_whole(out / name / "config.pbtxt", (header + pbtxt(message)).encode())

"""Exported files -> a model repository for NVIDIA's Triton Inference Server, each with its config.pbtxt.

Triton's model_config.proto lists the fields of a configuration, and the README of its ONNX Runtime backend describes
their effect. This module needs neither PyTorch nor onnx.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from facerecon_rt.commands.arguments import idle_sentences
from facerecon_rt.contract import CONTRACT_KEY, ModelContract
from facerecon_rt.errors import UsageError
from facerecon_rt.faces.detector_contract import DETECTOR_KEY, DetectorContract, read_detector_contract
from facerecon_rt.faces.detector_runs import SMALL_INPUT
from facerecon_rt.faces.served import SHA256_KEY
from facerecon_rt.networks.golden import golden_crop
from facerecon_rt.networks.session import read_contract
from facerecon_rt.paths import resolved
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
"""Name of the warm-up sample's file in the folder `warmup`, where Triton looks for it."""
PHOTOGRAPH = "_photograph"
"""Suffix that the name of a FaceModel gets for its model that takes photographs."""


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """Options of `facerecon-export triton`."""

    name: str | None = None
    """Name of the model, for a single FaceModel file; None for the name of the file."""
    kind: Kind | None = None
    """Device of the instances; None for the device that suits the file's precision."""
    instances: int = 1
    """Number of instances per GPU, or on the CPU."""
    threads: int = 1
    """Number of ONNX Runtime's threads in each instance on the CPU."""
    max_delay_ms: float = 1.0
    """Longest time in milliseconds that a request waits for others to share a batch with."""
    engines: str | None = None
    """Folder on the server for TensorRT's engines; None to build them at each start."""
    photographs: bool = False
    """Whether to add a model that takes photographs and does the rest inside Triton."""


@dataclass(frozen=True, slots=True)
class _Served:
    """A file with the settings by which it is served."""

    model: OnnxFile
    name: str
    contract: ModelContract | DetectorContract
    kind: Name
    """Device of the instances: KIND_GPU, KIND_CPU, or KIND_AUTO for a GPU if there is one."""

    @property
    def tensorrt(self) -> bool:
        """Whether TensorRT accelerates the file.

        A detector's pictures have all shapes, and TensorRT would build an engine for each shape. Float32 files gain
        little, and TensorRT would compute them in TF32.
        """
        return (
            isinstance(self.contract, ModelContract) and self.kind == "KIND_GPU" and self.contract.precision != "fp32"
        )

    @property
    def batched(self) -> bool:
        """Whether the file takes any number of pictures. If so, Triton makes the batches and owns the first
        dimension."""
        return all(isinstance(dims[0], str) for dims in map(_dims, (*self.model.inputs, *self.model.outputs)))


def write_repository(paths: Sequence[Path], out: Path, options: TritonOptions, say: Say, warn: Say) -> None:
    """Write FaceModel and detector files into the model repository `out`, which is created if it does not exist.

    A model that is already there gets the file as its next version, or goes back to the version with this file. Its
    configuration names that version alone. Files are written completely or not at all, and the configuration comes
    last. A server that watches the repository therefore never sees one without the other. `say` is called with what was
    written, and `warn` with options that do nothing.

    Raises ModelRefused for an unfit file. Raises UsageError for clashing names, options that do not fit, tensors that
    differ from the previous version, or a folder that cannot be written.
    """
    served = [_served(path, out, options) for path in paths]
    faces = [one for one in served if isinstance(one.contract, ModelContract)]
    detectors = [one for one in served if isinstance(one.contract, DetectorContract)]
    if options.name is not None and len(faces) != 1:
        raise UsageError(
            f"--name {options.name}: the option names one FaceModel, but {len(faces)} were given; give one file"
        )
    for one in served:
        if [other.name for other in served].count(one.name) > 1:
            raise UsageError(
                f"two files would be served as {one.name}; rename one file, or run the command once for each with "
                "--name"
            )
    if options.photographs and (not faces or len(detectors) != 1):
        raise UsageError("--photographs: needs a FaceModel's file and one face detector's file; give both")
    for face in faces if options.photographs else ():
        if isinstance(face.contract, ModelContract) and face.contract.set_size:
            raise UsageError(
                f"--photographs: {face.model.path} averages {face.contract.set_size} crops of one person; give the "
                "file that it was made from"
            )
    for face in faces:
        photograph = out / (face.name + PHOTOGRAPH)
        if photograph.exists() and not options.photographs:
            raise UsageError(
                f"{photograph} uses {face.name} and needs its new contract; give --photographs and the detector, or "
                "remove that folder"
            )
    for line in without_effect(served, options):
        warn(line)
    for one in served:
        _check_tensors_stay(one, out)
    for one in served:
        version = _write_model(one, out, options)
        say(f"wrote {out / one.name}, version {version} ({one.kind}{', TensorRT' if one.tensorrt else ''})")
    for face in faces if options.photographs else ():
        _write_photograph(face, detectors[0], out, options)
        say(f"wrote {out / (face.name + PHOTOGRAPH)}; it needs facerecon-rt in Triton's Python")


def without_effect(served: Sequence[_Served], options: TritonOptions) -> list[str]:
    """Return sentences about options that are given and do nothing for these files."""
    usual = TritonOptions()
    return idle_sentences(
        (option, purpose)
        for option, given, works, purpose in (
            ("--engines", options.engines != usual.engines, any(one.tensorrt for one in served), "files on TensorRT"),
            (
                "--threads",
                options.threads != usual.threads,
                any(one.kind != "KIND_GPU" for one in served),
                "files on the CPU",
            ),
            (
                "--max-delay-ms",
                options.max_delay_ms != usual.max_delay_ms,
                any(one.batched for one in served),
                "files that take any number of crops",
            ),
        )
        if given and not works
    )


def _served(path: Path, out: Path, options: TritonOptions) -> _Served:
    model = read_onnx(path)
    refuse_unsafe(model)
    contract = read_detector_contract(model) if DETECTOR_KEY in model.metadata else read_contract(model)
    # Triton allows dots, but some programs that make names of metrics or services from its models do not.
    name = _name_there(path, out) or re.sub(r"[.-]", "_", path.stem)
    if options.name is not None and isinstance(contract, ModelContract):
        name = options.name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UsageError(
            f"{name!r} cannot name a model; use letters, digits, - and _, or give another name with --name"
        )
    return _Served(model, name, contract, _kind(path, contract, options.kind))


def _name_there(path: Path, out: Path) -> str:
    """Return the name of the model in the repository `out` that a file is a version of, or "" for other files."""
    folder, version = resolved(path).parent.parent, resolved(path).parent.name
    return folder.name if folder.parent == resolved(out) and version.isdigit() else ""


def _kind(path: Path, contract: ModelContract | DetectorContract, asked: Kind | None) -> Name:
    if contract.target == "cpu" and asked == "gpu":
        raise UsageError(f"{path}: this int8 file is for CPUs; serve the int8 file for TensorRT, or leave out --kind")
    if asked is not None:
        return Name(f"KIND_{asked.upper()}")
    if contract.target == "cpu":
        return Name("KIND_CPU")
    return Name("KIND_AUTO" if contract.precision == "fp32" else "KIND_GPU")


# The folder of a model


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
    """Return the versions in a model's folder, in ascending order."""
    return sorted(int(path.parent.name) for path in folder.glob(f"*/{MODEL_FILE}") if path.parent.name.isdigit())


def _version_of(one: _Served, folder: Path) -> int:
    """Return the version that holds exactly this file, or the next free version."""
    there = _versions(folder)
    for version in reversed(there):
        if read_onnx(folder / str(version) / MODEL_FILE).sha256 == one.model.sha256:
            return version
    return there[-1] + 1 if there else 1


def _check_tensors_stay(one: _Served, out: Path) -> None:
    """Raise UsageError if the tensors differ from the previous version, because clients expect the same tensors."""
    there = _versions(out / one.name)
    if not there:
        return
    before = read_onnx(out / one.name / str(there[-1]) / MODEL_FILE)
    if _signature(before) != _signature(one.model):
        raise UsageError(
            f"{one.model.path}: its tensors differ from those of version {there[-1]} in {out / one.name}, and clients "
            "of a model expect the same tensors; serve the file under another --name"
        )


def _signature(model: OnnxFile) -> list[tuple[str, int, list[int]]]:
    return [
        (tensor.name, tensor.elem_type, [_fixed(d) for d in _dims(tensor)])
        for tensor in (*model.inputs, *model.outputs)
    ]


def _warm_up_picture(one: _Served) -> np.typing.NDArray[np.uint8]:
    """Return one sample of `image` without Triton's batch: golden crops for a FaceModel, black for a detector."""
    dims = [_fixed(d) for d in _config_dims(one, one.model.inputs[0])]
    if isinstance(one.contract, ModelContract):
        return np.broadcast_to(golden_crop(one.contract.input_size), dims).copy()
    return np.zeros(_detector_picture(dims), np.uint8)


def _detector_picture(dims: Sequence[int]) -> list[int]:
    return [SMALL_INPUT if d < 0 else d for d in dims]


# The text of config.pbtxt


def _config(one: _Served, version: int, options: TritonOptions) -> str:
    """Return the text of a model's config.pbtxt."""
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
        # The bucket of one is left out: Triton runs a batch of a preferred size at once, so no request would ever wait.
        message["dynamic_batching"] = {
            "preferred_batch_size": list(BUCKETS[1:]),
            "max_queue_delay_microseconds": round(1000 * options.max_delay_ms),
        }
    if one.kind != "KIND_CPU":
        message["optimization"] = {"execution_accelerators": {"gpu_execution_accelerator": _accelerators(one, options)}}
    message["model_warmup"] = _warm_ups(one)
    message["parameters"] = entries({key: {"string_value": text} for key, text in _parameters(one, options).items()})
    return f"# {_HEADER.format(file=one.model.path.name, version=version)}\n{pbtxt(message)}"


_HEADER = """Written by facerecon-export triton from {file}. Run the command again instead of editing this file.
# It serves version {version} alone, because the settings below belong to its weights, like the names of TensorRT's
# engines. To go back to another version, run the command with that version's model.onnx and the same options."""


def _tensor(one: _Served, tensor: TensorInfo) -> Message:
    """Return Triton's description of a tensor. A scalar per picture is (1,) for clients."""
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
    # CUDA computes what TensorRT does not, and never in TF32, because precision is part of the graph.
    cuda: Message = {"name": "cuda", "parameters": entries({"use_tf32": "0"})}
    if not one.tensorrt or not isinstance(one.contract, ModelContract):
        return [cuda]
    folder = None if options.engines is None else Path(options.engines)
    precision = one.contract.precision
    given = tensorrt_options(one.model.sha256, precision, profile(one.contract), AS_USUAL, folder)
    # Triton has one name for the two precision switches. The other options keep ONNX Runtime's names.
    kept = {key: value for key, value in given.items() if key not in ("trt_fp16_enable", "trt_int8_enable")}
    return [{"name": "tensorrt", "parameters": entries({"precision_mode": precision.upper(), **kept})}, cuda]


def _warm_ups(one: _Served) -> list[Message]:
    """Return the warm-ups, so that each preferred batch size has run before the first request comes."""
    image = one.model.inputs[0]
    dims = _detector_picture([_fixed(d) for d in _config_dims(one, image)])
    sample: Message = {"data_type": Name(TYPES[image.elem_type]), "dims": dims, "input_data_file": WARM_UP}
    return [
        {"name": f"{WARM_UP}_{size}", "batch_size": size, "inputs": entries({image.name: sample})}
        for size in (BUCKETS if one.batched else (1,))
    ]


def _parameters(one: _Served, options: TritonOptions) -> Mapping[str, str]:
    """Return parameters of the backend, and the contract and hash of the file, which our clients read back."""
    key = CONTRACT_KEY if isinstance(one.contract, ModelContract) else DETECTOR_KEY
    known = {key: one.contract.to_json(), SHA256_KEY: one.model.sha256}
    if one.kind != "KIND_GPU":
        # Triton uses more cores by more instances. More threads of one instance would spin while they wait.
        known["intra_op_thread_count"] = str(options.threads)
    if one.kind != "KIND_CPU":
        # The runtime uses the same options (gpu.cuda_options); these are the backend's numbers for them.
        known |= {"cudnn_conv_algo_search": "1", "arena_extend_strategy": "1"}
    return known


def _dims(tensor: TensorInfo) -> tuple[int | str, ...]:
    return tensor.dims or ("",)


def _config_dims(one: _Served, tensor: TensorInfo) -> tuple[int | str, ...]:
    return _dims(tensor)[1:] if one.batched else _dims(tensor)


def _fixed(dimension: int | str) -> int:
    return dimension if isinstance(dimension, int) else -1


# The model that takes photographs


def _write_photograph(face: _Served, detector: _Served, out: Path, options: TritonOptions) -> None:
    """Write the model for Triton's Python backend that takes photographs: `triton_photograph.py` and its
    configuration."""
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
        # Each instance handles one request at a time. While one waits for the networks, another decodes and cuts crops.
        "instance_group": [{"count": 2 * options.instances, "kind": Name("KIND_CPU")}],
        "parameters": entries({key: {"string_value": text} for key, text in parameters.items()}),
    }
    header = f"# Written by facerecon-export triton --photographs for {face.name} and {detector.name}.\n"
    write_whole(out / name / "config.pbtxt", (header + pbtxt(message)).encode())

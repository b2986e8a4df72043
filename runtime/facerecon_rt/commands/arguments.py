"""The parser of every command, and the options that several commands share."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace, _ActionsContainer, _SubParsersAction
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, get_args

from ..addresses import without_secrets
from ..faces.reconstruct import Reconstructor
from ..head import MESH_FORMS
from ..networks.warm import WarmSession
from ..providers.choice import Provider
from ..providers.nvidia import GpuOptions
from ..shipped import model_path
from ..sinks.meshes import UNITS
from ..values import gpu_megabytes, name, threads


class Parser(ArgumentParser):
    """A parser that reports a mistake on one line, without listing all options, and accepts no abbreviations."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **options})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse as argparse does, but report unknown options before missing ones."""
        words = sys.argv[1:] if args is None else list(args)
        if any(isinstance(action, _SubParsersAction) for action in self._actions):
            words = []  # the parser of each command checks its own options
        for word in (word.partition("=")[0] for word in words if word.startswith("--") and word != "--"):
            if word not in self._option_string_actions:
                near = get_close_matches(word, self._option_string_actions, 1)
                self.error(f"unknown option {word}" + (f"; did you mean {near[0]}?" if near else ""))
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print the message and end the program with exit code 2."""
        self.exit(2, f"{self.prog}: {without_secrets(message)}; see {self.prog} --help\n")


def idle_sentences(idle: Iterable[tuple[str, str]]) -> list[str]:
    """Return sentences about options that are given and do nothing, from pairs of an option and its purpose. Options of
    one purpose share a sentence."""
    options: dict[str, list[str]] = {}
    for option, purpose in idle:
        options.setdefault(purpose, []).append(option)
    return [
        f"{first} does nothing here; it is for {purpose}"
        if not others
        else f"{', '.join([first, *others])} do nothing here; they are for {purpose}"
        for purpose, (first, *others) in options.items()
    ]


def idle_gpu_options(reconstructor: Reconstructor, gpu: GpuOptions, *, warm: bool = False) -> list[str]:
    """Return sentences about GPU options that are given and do nothing on the provider of an opened reconstructor.
    `warm`: whether `--warm-while-building` is given."""
    if any(isinstance(session, WarmSession) for session in reconstructor.sessions):
        return []  # TensorRT takes over later
    provider = reconstructor.network.provider
    return idle_sentences(
        (option, purpose)
        for option, given, works, purpose in (
            ("--gpu-memory", gpu.memory_mb is not None, provider != "cpu", "GPUs"),
            ("--cuda-graph", gpu.cuda_graph, provider != "cpu", "GPUs"),
            ("--engines", gpu.engines is not None, provider == "tensorrt", "TensorRT"),
            ("--warm-while-building", warm, provider == "tensorrt", "TensorRT"),
        )
        if given and not works
    )


def model_file(text: str) -> str:
    """Return the path of a model file, from a path or the name of a shipped file."""
    return model_path(name(text))


def add_model(parser: _ActionsContainer) -> None:
    """Add `--model`, which several commands share."""
    parser.add_argument(
        "--model",
        action="append",
        type=model_file,
        metavar="FILE",
        help="FaceModel file (.onnx), or the name of a shipped one; repeat it for an ensemble "
        "[shipped: face.int8-cpu.onnx on the CPU, else face.onnx]",
    )


def add_detector(parser: _ActionsContainer) -> None:
    """Add `--detector`, which commands that find faces share."""
    parser.add_argument(
        "--detector",
        type=name,
        metavar="FILE",
        help="detector of this project or YuNet .onnx [face_detector.onnx beside the model]",
    )


def add_provider(parser: _ActionsContainer) -> None:
    """Add `--provider`, which commands that run the network share."""
    parser.add_argument(
        "--provider", choices=get_args(Provider), default="auto", help="execution provider [%(default)s]"
    )


def add_threads(parser: _ActionsContainer) -> None:
    """Add `--threads`, which commands that run the network share."""
    parser.add_argument("--threads", type=threads, default=1, metavar="N", help="CPU threads of the network [1]")


def add_unit(parser: _ActionsContainer) -> None:
    """Add `--unit`, which commands that write meshes share."""
    parser.add_argument(
        "--unit", choices=tuple(UNITS), default="mm", help="unit of .obj and .ply; .glb is in metres [%(default)s]"
    )


def add_mesh(parser: _ActionsContainer, formats: str) -> None:
    """Add `--mesh`, which commands that write meshes share. `formats`: suffixes of these meshes."""
    parser.add_argument(
        "--mesh",
        choices=MESH_FORMS,
        default=MESH_FORMS[0],
        help=f"part of the head in {formats}: head adds ears, neck and the back of the head [%(default)s]",
    )


def add_gpu_options(parser: _ActionsContainer) -> None:
    """Add the options that `gpu_options` reads."""
    parser.add_argument(
        "--gpu-memory",
        type=gpu_megabytes,
        metavar="MB",
        help="maximum GPU memory in MB that ONNX Runtime allocates [no limit]",
    )
    parser.add_argument(
        "--cuda-graph",
        action="store_true",
        help="replay captured CUDA graphs; they are tested when the model is opened",
    )
    parser.add_argument(
        "--engines",
        type=Path,
        metavar="FOLDER",
        help="folder that keeps TensorRT engines [facerecon-rt/engines in the user's cache folder]",
    )


def gpu_options(options: Namespace) -> GpuOptions:
    """Return the GPU options of a command line."""
    return GpuOptions(memory_mb=options.gpu_memory, cuda_graph=options.cuda_graph, engines=options.engines)

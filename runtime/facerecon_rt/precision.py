"""Model file and a precision -> the file beside it that has it, and fits where it will run."""

from __future__ import annotations

from pathlib import Path

from .contract import CONTRACT_KEY, PRECISIONS, ModelContract
from .errors import ModelRefused, UsageError
from .onnx_file import read_onnx
from .providers import Provider, best_provider
from .session import FaceSession

TARGET_OF = {"cpu": "cpu", "cuda": "tensorrt", "tensorrt": "tensorrt"}
"""Provider -> which of the two int8 files it takes: signed activations are slow on CPUs, unsigned ones refused by
TensorRT."""


def open_session(
    path: str | Path, *, provider: Provider = "auto", threads: int = 1, precision: str | None = None
) -> FaceSession:
    """A FaceModel file, or the one of another precision made from the same weights that lies beside it.

    `auto` takes the first provider that works of tensorrt, cuda, cpu, each with the file that fits it. Raises what
    FaceSession raises, and UsageError where no file has that precision.
    """
    if precision is None:
        return FaceSession(path, provider=provider, threads=threads)
    wanted = precision

    def open_on(name: Provider) -> FaceSession:
        return FaceSession(file_of_precision(path, wanted, name), provider=name, threads=threads)

    session, _, choice = best_provider(provider, open_on)
    session.choice = choice
    return session


def file_of_precision(path: str | Path, precision: str, provider: str) -> Path:
    """Among the .onnx files of that folder, the one of `precision` made from the same weights; of int8 files, the one
    for `provider`. Raises UsageError where there is none, ModelRefused where `path` is no FaceModel."""
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}; choose from {', '.join(PRECISIONS)}")
    path = Path(path)
    wanted = _contract(path)
    if wanted is None:
        raise ModelRefused(f"{path}: holds no {CONTRACT_KEY}, so it is no FaceModel; export one: facerecon-export")
    others = sorted(other for other in path.parent.glob("*.onnx") if other != path)
    for other in (path, *others):
        contract = _contract(other)
        if (
            contract is not None
            and contract.precision == precision
            and contract.target in ("", TARGET_OF[provider])
            and (contract.weights_sha256, contract.outputs) == (wanted.weights_sha256, wanted.outputs)
        ):
            return other
    raise UsageError(
        f"no {precision} file for {provider} beside {path}; make one: facerecon-export WEIGHTS.safetensors -o "
        f"{path.parent} --precision {precision}"
    )


def _contract(path: Path) -> ModelContract | None:
    """None of files that are no FaceModel, or not this release's."""
    try:
        text = read_onnx(path).metadata.get(CONTRACT_KEY)
        return ModelContract.from_json(text) if text is not None else None
    except ModelRefused:
        if path.is_file():
            return None
        raise

"""A model file and a precision -> the file beside it that has this precision and fits the provider."""

from __future__ import annotations

from pathlib import Path

from ..contract import CONTRACT_KEY, PRECISIONS, ModelContract
from ..errors import ModelRefused, ProviderMissing, UsageError
from ..paths import is_file
from ..providers.choice import PROVIDERS, Provider, Wanted, best_provider, engine_is_kept
from ..providers.nvidia import AS_USUAL, GpuOptions
from ..providers.onnx_file import read_onnx, refuse_unsafe
from .session import FaceSession, read_contract, wanted_of
from .warm import WarmSession, start_building

TARGET_OF = {"cpu": "cpu", "cuda": "tensorrt", "tensorrt": "tensorrt"}
"""Target of the int8 file for each provider. Signed activations are slow on CPUs, and TensorRT refuses unsigned
ones."""


def open_session(
    path: str | Path,
    *,
    provider: Provider = "auto",
    threads: int = 1,
    precision: str | None = None,
    gpu: GpuOptions = AS_USUAL,
    warm_while_building: bool = False,
) -> FaceSession | WarmSession:
    """Open a FaceModel file, or the file of another precision beside it that was made from the same weights.

    `auto` takes the first provider of tensorrt, cuda and cpu that works, each with the file that fits it.
    `warm_while_building`: answer on CUDA or the CPU until TensorRT's engine is built. Raises the errors of FaceSession,
    and UsageError where no file has that precision.
    """
    path = Path(path)
    no_file: list[UsageError] = []

    def file_for(name: Provider) -> Path:
        try:
            return path if precision is None else file_of_precision(path, precision, name)
        except UsageError as error:
            if provider != "auto":
                raise
            no_file.append(error)
            raise ProviderMissing(f"no {name}: {error}") from error

    def open_file(file: Path, name: Provider) -> FaceSession:
        return FaceSession(file, provider=name, threads=threads, gpu=gpu)

    def open_on(name: Provider) -> FaceSession | WarmSession:
        file = file_for(name)
        if name == "tensorrt" and warm_while_building and not engine_is_kept(wanted_of_file(file, threads, gpu)):
            first, _, _ = best_provider("auto", lambda other: open_file(file_for(other), other), PROVIDERS[1:])
            return WarmSession(first, start_building(file, gpu), lambda: open_file(file, name))
        return open_file(file, name)

    try:
        session, _, choice = best_provider(provider, open_on)
    except ProviderMissing:
        if len(no_file) == len(PROVIDERS):
            raise no_file[-1] from None
        raise
    if isinstance(session, FaceSession):
        session.choice = choice
    return session


def wanted_of_file(file: Path, threads: int, gpu: GpuOptions) -> Wanted:
    """Return the file with everything that a provider needs to open it. Raises ModelRefused."""
    model = read_onnx(file)
    refuse_unsafe(model)
    return wanted_of(model, read_contract(model), threads, gpu)


def file_of_precision(path: str | Path, precision: str, provider: str) -> Path:
    """Return the .onnx file of `precision` in the same folder that was made from the same weights. For int8, it is the
    file for `provider`. Raises UsageError where there is no such file, and ModelRefused where `path` is not a
    FaceModel."""
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}; choose from {', '.join(PRECISIONS)}")
    path = Path(path)
    text = read_onnx(path).metadata.get(CONTRACT_KEY)
    if text is None:
        raise ModelRefused(f"{path}: holds no {CONTRACT_KEY}, so it is not a FaceModel; export one: facerecon-export")
    wanted = ModelContract.from_json(text)
    if _is(wanted, precision, provider):
        return path
    # Files named after the precision come first, so that the others rarely need to be read.
    beside = (other for other in path.parent.glob("*.onnx") if other != path and is_file(other))
    others = sorted(beside, key=lambda other: (precision not in other.name, other.name))
    for other in others:
        contract = _contract(other)
        if (
            contract is not None
            and _is(contract, precision, provider)
            and (contract.weights_sha256, contract.outputs) == (wanted.weights_sha256, wanted.outputs)
        ):
            return other
    raise UsageError(
        f"no {precision} file of the same weights for {provider} beside {path}; leave --precision out, or make one: "
        f"facerecon-export WEIGHTS.safetensors -o {path.parent} --precision {precision}"
    )


def files_of_precision(path: str | Path, precision: str) -> list[Path]:
    """Return the files that `file_of_precision` gives for the providers, each once. Raises UsageError where no provider
    has such a file, and ModelRefused where `path` is not a FaceModel."""
    found: list[Path] = []
    missing: list[UsageError] = []
    for provider in PROVIDERS:
        try:
            found.append(file_of_precision(path, precision, provider))
        except UsageError as error:
            missing.append(error)
    if not found:
        raise missing[-1]
    return list(dict.fromkeys(found))


def _is(contract: ModelContract, precision: str, provider: str) -> bool:
    return contract.precision == precision and contract.target in ("", TARGET_OF[provider])


def _contract(path: Path) -> ModelContract | None:
    """Return the contract of a file; None for a file that is not a FaceModel of this release."""
    try:
        text = read_onnx(path).metadata.get(CONTRACT_KEY)
        return ModelContract.from_json(text) if text is not None else None
    except ModelRefused:
        return None

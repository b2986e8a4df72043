"""Options -> the shipped model file that a command takes without `--model`."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..errors import UsageError
from ..networks.session import read_contract
from ..providers.choice import Provider, offers_gpu
from ..providers.onnx_file import read_onnx
from ..shipped import DEFAULT, DEFAULT_ON_CPU, shipped_folder

log = logging.getLogger("facerecon_rt")


def models_or_default(models: Sequence[str] | None, provider: Provider, precision: str | None) -> tuple[str, ...]:
    """Return the given paths, or that of the shipped file for the provider, whose terms are logged. Raises UsageError
    where no file ships with this installation."""
    if models:
        return tuple(models)
    folder = shipped_folder()
    if folder is None:
        raise UsageError("this installation has no model files; give one with --model")
    on_cpu = provider == "cpu" or (provider == "auto" and not offers_gpu())
    path = folder / (DEFAULT_ON_CPU if on_cpu and precision is None else DEFAULT)
    log.info("model %s; terms: %s", path, read_contract(read_onnx(path)).terms or "see the model card")
    return (str(path),)

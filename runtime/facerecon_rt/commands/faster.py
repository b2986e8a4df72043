"""A model on the CPU -> the int8 file beside it, and how much of the time it takes by the model card."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import UsageError
from ..networks.precision import file_of_precision
from ..paths import is_file, read_file
from ..shipped import CARD, MOST_CARD_BYTES

_SHARE = re.compile(r"`face\.int8-cpu\.onnx`[^\n]*?(\d+) % of the time per frame")


def faster_on_cpu(model: Path) -> str:
    """Return a line about the int8 file beside a float32 FaceModel; empty where there is none.

    Raises ModelRefused where `model` is not a FaceModel.
    """
    try:
        beside = file_of_precision(model, "int8", "cpu")
    except UsageError:
        return ""
    share = share_of_time(model.parent / CARD)
    time = "less time" if share is None else f"{share} % of the time"
    return f"--precision int8 takes {time} per frame, with slightly larger errors: {beside.name} is beside the model"


def share_of_time(card: Path) -> int | None:
    """Return the time of the int8 file on the CPU, in percent of the float32 file's, from a model card."""
    if not is_file(card):
        return None
    found = _SHARE.search(read_file(card, MOST_CARD_BYTES).decode(errors="replace"))
    return None if found is None else int(found[1])

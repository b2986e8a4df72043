"""The folder of photographs and face models that training, export and benchmarks read: --data or $FACERECON_DATA."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import UsageError
from .paths import is_folder

VARIABLE = "FACERECON_DATA"
"""Environment variable that names the data folder. training/README.md describes its layout."""


def default_data() -> Path | None:
    """Return the folder that the environment names; None where the variable is not set."""
    return Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def data_folder(given: Path | None) -> Path:
    """Return the folder `given` on a command line, else the folder that the environment names.

    Raises UsageError where neither names a folder.
    """
    data = given or default_data()
    if data is None:
        raise UsageError(
            f"no data folder was given; give --data or set {VARIABLE} (training/README.md describes the layout)"
        )
    if not is_folder(data):
        raise UsageError(
            f"--data {data} is not a folder; give the data folder (training/README.md describes the layout)"
        )
    return data

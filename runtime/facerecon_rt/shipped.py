"""A name -> the model file that ships with this package: in the wheel, or in models/ of a checkout."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from .paths import is_file, is_folder

DEFAULT = "face.onnx"
DEFAULT_ON_CPU = "face.int8-cpu.onnx"
CARD = "README.md"
MOST_CARD_BYTES = 2**20
"""Maximum size in bytes of the card, and of the file of precisions."""
PRECISIONS = "precisions.json"
"""File of the speed and accuracy of each shipped file, which benchmarks/precisions.py writes."""


def shipped_folder() -> Path | None:
    """Return the folder of the shipped files; None where the package came without them."""
    package = Path(str(files("facerecon_rt")))
    folders = (package / "models", package.parents[1] / "models")
    return next((folder for folder in folders if is_file(folder / DEFAULT)), None)


def shipped_models() -> tuple[Path, ...]:
    """Return the FaceModel files that ship, in the order of their names."""
    folder = shipped_folder()
    return () if folder is None else tuple(sorted(folder.glob("face.*onnx")))


def model_path(name: str) -> str:
    """Return the path of a model: the name itself where such a file exists, else a shipped file of that name, with or
    without `.onnx`. Other names stay as they are, so that opening them reports the missing file."""
    if is_file(Path(name)) or is_folder(Path(name)):
        return name
    return next((str(path) for path in shipped_models() if name in (path.name, path.name[: -len(".onnx")])), name)


def measured_precisions() -> Path | None:
    """Return the file of the shipped files' speed and accuracy; None where the package came without it."""
    folder = shipped_folder()
    if folder is None:
        return None
    places = (folder / PRECISIONS, folder.parent / "benchmarks" / "results" / PRECISIONS)
    return next((place for place in places if is_file(place)), None)

"""The names of outputs -> their kinds, and which of them a run has written."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ..addresses import public_name
from ..errors import UsageError
from ..paths import exists, is_folder, resolved, status
from ..sinks.avatars import is_avatar
from ..sinks.local_socket import is_socket
from ..sinks.meshes import MESH_SUFFIXES
from ..sinks.mqtt_address import is_mqtt
from ..sinks.outputs import is_folder_name, numbered
from ..sinks.pictures import PICTURE_SUFFIXES
from ..sinks.sequence import is_sequence
from ..sinks.usd import USD_SUFFIXES
from ..sinks.video_writer import CODECS

log = logging.getLogger("facerecon_rt")


def name_of(target: str) -> str:
    """Return the name of an output for messages, without passwords."""
    return "standard output" if target == "-" else public_name(target)


def is_place(target: str) -> bool:
    """Return whether an output is a file or folder, and not a service to other programs."""
    return target != "-" and not is_avatar(target) and not is_mqtt(target) and not is_socket(target)


def is_drawn(target: str) -> bool:
    """Return whether the output holds annotated pictures or video."""
    return is_folder_output(target) or Path(target).suffix.lower() in (*CODECS, *PICTURE_SUFFIXES)


def is_folder_output(target: str) -> bool:
    """Return whether an output is a folder, which may not exist yet."""
    return is_place(target) and is_folder_name(target)


def has_meshes(target: str) -> bool:
    """Return whether the output holds meshes that may have a colour map."""
    return is_folder_output(target) or Path(target).suffix.lower() in MESH_SUFFIXES


def has_heads(target: str) -> bool:
    """Return whether the output holds meshes that may be whole heads."""
    return has_meshes(target) or Path(target).suffix.lower() in USD_SUFFIXES


def check_inputs_stay(files: Iterable[Path], targets: Iterable[str]) -> None:
    """Check before any work that no output would replace a file that is read, at once or later.

    `files`: the files that are read. `targets`: the outputs. Raises UsageError.
    """
    folders: dict[Path, Path] = {}
    inside: dict[Path, dict[str, Path]] = {}
    """Files by the name in their folder, for each folder. A link has two places: its own and that of its file."""
    for file in files:
        if file.parent not in folders:
            folders[file.parent] = resolved(file.parent)
        places = [folders[file.parent] / file.name]
        if file.is_symlink():
            places.append(resolved(file))
        for place in places:
            inside.setdefault(place.parent, {})[place.name] = file
    for target in filter(is_place, targets):
        if is_folder_output(target):
            for file in inside.get(resolved(target), {}).values():
                raise UsageError(f"{file} lies in the output folder {target}; choose another folder")
            continue
        for path in {resolved(target), resolved(Path(target).parent) / Path(target).name}:
            for name, file in inside.get(path.parent, {}).items():
                if may_be_written(name, path):
                    raise UsageError(
                        f"{file} is read in this run and may be overwritten by the output {target}; choose another name"
                    )


def may_be_written(name: str, path: Path) -> bool:
    """Return whether the output `path` may write a file of this name: its own, one with a number, or one beside it."""
    if is_sequence(path.name):
        fields = {"{frame}": r"\d+", "{track}": r"\d+", "{source}": ".*"}
        parts = re.split(r"({\w+})", path.name)
        return bool(re.fullmatch("".join(fields.get(part, re.escape(part)) for part in parts), name))
    if name == path.name:
        return True
    if path.suffix.lower() in CODECS:
        return False  # a full video gets a number that no file has
    beside = r"|\.mtl|_texture\.png" if path.suffix.lower() == ".obj" else ""
    found = re.fullmatch(rf"{re.escape(path.stem)}(?:_(\d{{4,6}}))?(?:{re.escape(path.suffix)}{beside})", name)
    return found is not None and (found[1] is None or found[1] == f"{int(found[1]):04d}")


class Written:
    """The outputs that this run has written. Files of earlier runs do not count."""

    def __init__(self, targets: Sequence[str]) -> None:
        """Remember the state of the outputs before the run."""
        self._before = {target: changed_at(target) for target in targets if is_place(target)}

    def say(self) -> None:
        """Log one line for each output."""
        for target, before in self._before.items():
            if changed_at(target) == before:
                log.info("nothing to write to %s", target)
            elif exists(target) or is_sequence(target):
                log.info("wrote %s", target)
            else:
                log.info("wrote %s and so on", numbered(Path(target), 1))


def changed_at(target: str) -> int:
    """Return when the output, or any file in it, last changed, in ns since 1970; 0 where it does not exist."""
    path = Path(target)
    paths = [path, numbered(path, 1)]
    if is_sequence(target):
        pattern = re.sub(r"{\w+}", "*", glob.escape(path.name))
        paths = list(path.parent.glob(pattern))
    if is_folder(path):
        with suppress(OSError):  # the folder is gone, or may not be read
            paths = list(path.iterdir())
    # Files may appear and vanish meanwhile, because other programs may write into the same folder.
    return max((found.st_mtime_ns for one in paths if (found := _status(one)) is not None), default=0)


def _status(path: Path) -> os.stat_result | None:
    with suppress(OSError):
        return status(path)
    return None

"""What a command line or a sources.yaml names -> what is to be read, each under a name of its own."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .addresses import public_name
from .arguments import size
from .camera import AS_IT_IS, LiveOptions, is_live, with_environment
from .errors import SourceError, UsageError

SUFFIXES = (".yaml", ".yml")
EXAMPLE = "sources: [{uri: 'rtsp://user:${PASSWORD}@host/door', name: door}, cam0]"
KEYS = ("uri", "name", "size", "fps", "flip", "timeout", "retries")


@dataclass(frozen=True, slots=True)
class ListedSource:
    """One source that is to be read."""

    uri: str
    """As for `open_source`; `${NAME}` in an address is not yet replaced."""
    name: str
    """What frames, records and messages call it."""
    options: LiveOptions = AS_IT_IS
    """Of cameras and streams."""
    retries: int | None = None
    """Likewise: attempts to open it again after a loss; None: for ever."""

    @property
    def live(self) -> bool:
        """Is it a camera or stream?"""
        return is_live(self.uri)


def is_list(uri: str) -> bool:
    """Is this a file that names sources?"""
    return uri.lower().endswith(SUFFIXES) and "://" not in uri


def listed_sources(
    uris: Sequence[str], options: LiveOptions = AS_IT_IS, retries: int | None = None
) -> list[ListedSource]:
    """URIs, `sources.yaml` among them -> everything they name, in order; no two live sources share a name. `options`
    and `retries` hold for all that do not say otherwise.

    A sources.yaml holds a list, by itself or under `sources`; an entry is a URI, or a mapping of `uri` and any of
    `name`, `size` (1280x720), `fps`, `flip`, `timeout` (seconds) and `retries`. Paths in it are relative to it.
    Raises SourceError for one that cannot be read, UsageError for one that makes no sense.
    """
    listed: list[ListedSource] = []
    for uri in uris:
        listed += _read_list(Path(uri), options, retries) if is_list(uri) else [_listed(uri, options, retries)]
    return _told_apart(listed)


def _listed(uri: str, options: LiveOptions, retries: int | None, name: str = "") -> ListedSource:
    return ListedSource(uri, name or public_name(uri), options, retries)


def _read_list(path: Path, options: LiveOptions, retries: int | None) -> list[ListedSource]:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise UsageError(f"{path} needs PyYAML: pip install 'facerecon-rt[yaml]'") from error
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # Not the error's own words, which show the line, and in it perhaps a password.
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        raise UsageError(f"{path} is no YAML{where}: {getattr(error, 'problem', '') or 'it cannot be read'}") from error
    if isinstance(content, dict) and list(content) == ["sources"]:
        content = content["sources"]
    if not isinstance(content, list) or not content:
        raise UsageError(f"{path} names no sources; write for example: {EXAMPLE}")
    names = [str(entry["name"]) for entry in content if isinstance(entry, dict) and entry.get("name")]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"{path}: two sources are called {public_name(twice[0])}; give each a name of its own")
    return [_entry(entry, f"{path}, source {place}", path, options, retries) for place, entry in enumerate(content, 1)]


def _entry(entry: Any, where: str, path: Path, options: LiveOptions, retries: int | None) -> ListedSource:
    given: Mapping[str, Any] = {"uri": entry} if isinstance(entry, str) else entry
    if not isinstance(given, dict) or not isinstance(given.get("uri"), str) or not given["uri"]:
        raise UsageError(f"{where} has no uri; write for example: {EXAMPLE}")
    if unknown := [str(key) for key in given if key not in KEYS]:
        raise UsageError(f"{where}: there is no {unknown[0]!r}; choose from {', '.join(KEYS)}")
    uri = given["uri"]
    if is_live(uri):
        with_environment(uri)  # what is not set now will not be later
    elif "://" not in uri:
        uri = str(path.parent / uri)
    try:
        options = replace(
            options,
            timeout_s=_number(given, "timeout", options.timeout_s),
            size=size(str(given["size"])) if "size" in given else options.size,
            fps=_number(given, "fps", options.fps),
            flip=str(given.get("flip", options.flip)),
        )
        retries = _retries(given["retries"]) if "retries" in given else retries
    except (UsageError, ValueError, ArgumentTypeError) as error:
        raise UsageError(f"{where}: {error}") from error
    return _listed(uri, options, retries, public_name(str(given.get("name") or "")))


def _number(given: Mapping[str, Any], key: str, otherwise: Any) -> Any:
    value = given.get(key, otherwise)
    if key in given and (isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e9):
        raise ValueError(f"{key} {value!r} is not a number above 0")
    return value


def _retries(value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ValueError(f"retries {value!r} is not a whole number; leave it out for ever")
    return None if value is None else int(value)


def _told_apart(listed: Sequence[ListedSource]) -> list[ListedSource]:
    """Tracks, videos and metrics are kept by name, and two channels of one recorder may differ in nothing but what is
    not shown; the second is then called `...#2`. Names of files may be equal: they are read one after the other."""
    told_apart: list[ListedSource] = []
    taken: set[str] = set()
    for one in listed:
        name, number = one.name, 2
        while one.live and name in taken:
            name, number = f"{one.name}#{number}", number + 1
        if one.live:
            taken.add(name)
        told_apart.append(replace(one, name=name))
    return told_apart

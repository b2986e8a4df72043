"""What a command line or a sources.yaml names -> what is to be read, each under a name of its own."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from ..addresses import is_live, public_name
from ..errors import SourceError, UsageError, one_line
from ..interrupts import importing
from ..paths import read_file
from ..values import frame_rate, number_above_0, shown, size, whole
from .camera import AS_IT_IS, LONGEST_TIMEOUT_S, LiveOptions, with_environment

SUFFIXES = (".yaml", ".yml")
EXAMPLE = "sources: [{uri: 'rtsp://user:${PASSWORD}@host/door', name: door}, cam0]"
KEYS = ("uri", "name", "size", "fps", "flip", "timeout", "retries")
MOST_BYTES, MOST_NODES = 2**20, 10_000
"""Of a list."""
TAG = "tag:yaml.org,2002:"
TAGS = ("str", "int", "float", "bool", "null", "timestamp", "value", "merge", "seq", "map")
NOTHING = ("", "~", "null", "Null", "NULL")
"""As YAML writes it."""
Yaml = str | list[Any] | dict[str, Any]
"""Texts, as they stand there, and what holds them: whether one is a number is for whoever wants a number to say. YAML
itself takes 1:59 for one, and no for a boolean."""
T = TypeVar("T")


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
    content = _read_yaml(path)
    if isinstance(content, dict) and list(content) == ["sources"]:
        content = content["sources"]
    if not isinstance(content, list) or not content:
        raise UsageError(f"{path} names no sources; write for example: {EXAMPLE}")
    listed = [_entry(one, f"{path}, source {place}", path, options, retries) for place, one in enumerate(content, 1)]
    names = Counter(entry["name"] for entry in content if isinstance(entry, dict) and _is_given(entry, "name"))
    for name, count in names.most_common(1):
        if count > 1:
            raise UsageError(f"{path}: two sources are called {public_name(name)}; give each a name of its own")
    return listed


def _read_yaml(path: Path) -> Yaml:
    """Raises SourceError where the file cannot be read, UsageError where it is no YAML of ours."""
    try:
        with importing():
            import yaml
    except ModuleNotFoundError as error:
        raise UsageError(f"{path} needs PyYAML: pip install 'facerecon-rt[yaml]'") from error
    try:
        node = yaml.compose(read_file(path, MOST_BYTES).decode(), yaml.SafeLoader)
        return _plain(node, [MOST_NODES])
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        # Not the error's own words, which show the line, and in it perhaps a password.
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        raise UsageError(f"{path} is no YAML{where}: {getattr(error, 'problem', '') or 'it cannot be read'}") from error


def _plain(node: Any, left: list[int]) -> Yaml:
    """A node of YAML as texts, lists and mappings. An alias counts as often as it stands there: a few of them, one in
    the other, name more than a machine can hold. `left`: nodes that may still come. Raises YAMLError."""
    if node is None:
        return ""
    left[0] -= 1
    if left[0] < 0:
        raise _fault(node, f"more than {MOST_NODES} entries, counting those behind aliases")
    if node.tag.removeprefix(TAG) not in TAGS:
        raise _fault(node, "a kind of entry that is none of text, number, list and mapping")
    if node.id == "scalar":
        text: str = node.value
        if one_line(text) != text:
            raise _fault(node, "a text with a character that belongs into no name, such as a line feed")
        return text
    if node.id == "sequence":
        return [_plain(one, left) for one in node.value]
    found: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key, value = _plain(key_node, left), _plain(value_node, left)
        if not isinstance(key, str):
            raise _fault(key_node, "a key that is no text")
        if key_node.tag == f"{TAG}merge":
            for one in value if isinstance(value, list) else [value]:
                if not isinstance(one, dict):
                    raise _fault(value_node, "a << that leads to no mapping")
                merged = {**one, **merged}
        else:
            found[key] = value
    return {**merged, **found}


def _fault(node: Any, problem: str) -> Exception:
    from yaml import MarkedYAMLError

    return MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _entry(entry: Any, where: str, path: Path, options: LiveOptions, retries: int | None) -> ListedSource:
    given: Mapping[str, Any] = {"uri": entry} if isinstance(entry, str) else entry
    if not isinstance(given, dict) or not isinstance(given.get("uri"), str) or not given["uri"]:
        raise UsageError(f"{where} has no uri; write for example: {EXAMPLE}")
    if unknown := [key for key in given if key not in KEYS]:
        raise UsageError(f"{where}: there is no {shown(unknown[0])}; choose from {', '.join(KEYS)}")
    if nested := [key for key in given if not isinstance(given[key], str)]:
        raise UsageError(f"{where}: {nested[0]} is a list or a mapping, and should be a text or a number")
    uri = given["uri"]
    if is_live(uri):
        with_environment(uri)  # what is not set now will not be later
    elif "://" not in uri:
        uri = str(path.parent / uri)
    try:
        options = replace(
            options,
            timeout_s=_number(given, "timeout", number_above_0(LONGEST_TIMEOUT_S), options.timeout_s),
            size=_number(given, "size", size, options.size),
            fps=_number(given, "fps", frame_rate, options.fps),
            flip=given.get("flip", options.flip),
        )
        if "retries" in given:
            retries = _number(given, "retries", whole, 0) if _is_given(given, "retries") else None
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    return _listed(uri, options, retries, public_name(given["name"]) if _is_given(given, "name") else "")


def _is_given(given: Mapping[str, str], key: str) -> bool:
    return given.get(key, "") not in NOTHING


def _number(given: Mapping[str, str], key: str, parse: Callable[[str], T], otherwise: T) -> T:
    try:
        return parse(given[key]) if key in given else otherwise
    except ArgumentTypeError as error:
        raise UsageError(f"{key} {error}") from error


def _told_apart(listed: Sequence[ListedSource]) -> list[ListedSource]:
    """Tracks, videos and metrics are kept by name, and two channels of one recorder may differ in nothing but what is
    not shown; the second is then called `...#2`. Names of files may be equal: they are read one after the other."""
    told_apart: list[ListedSource] = []
    taken: set[str] = set()
    numbers: Counter[str] = Counter()
    """The last one that each name was given."""
    for one in listed:
        name = one.name
        while one.live and name in taken:
            numbers[one.name] = max(2, numbers[one.name] + 1)
            name = f"{one.name}#{numbers[one.name]}"
        if one.live:
            taken.add(name)
        told_apart.append(replace(one, name=name))
    return told_apart

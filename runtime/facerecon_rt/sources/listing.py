"""URIs of a command line or a sources.yaml -> the list of sources to read, each live source with a unique name."""

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
"""Maximum size in bytes, and maximum number of YAML nodes, of a list of sources."""
TAG = "tag:yaml.org,2002:"
TAGS = ("str", "int", "float", "bool", "null", "timestamp", "value", "merge", "seq", "map")
NOTHING = ("", "~", "null", "Null", "NULL")
"""Spellings of null in YAML."""
Yaml = str | list[Any] | dict[str, Any]
"""Texts as they stand in the file, and the lists and mappings that hold them. The reader of a value decides whether it
is a number, because YAML itself reads 1:59 as a number and no as a boolean."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ListedSource:
    """A source to read, with its options."""

    uri: str
    """URI as for `open_source`. `${NAME}` in an address is not yet replaced."""
    name: str
    """Display name of the source in frames, records and messages."""
    options: LiveOptions = AS_IT_IS
    """Options for opening it, if it is a camera or stream."""
    retries: int | None = None
    """Maximum number of attempts to reopen a camera or stream after a loss; None for no limit."""

    @property
    def live(self) -> bool:
        """Whether the source is a camera or stream."""
        return is_live(self.uri)


def is_list(uri: str) -> bool:
    """Return whether a URI is the path of a YAML file that lists sources."""
    return uri.lower().endswith(SUFFIXES) and "://" not in uri


def listed_sources(
    uris: Sequence[str], options: LiveOptions = AS_IT_IS, retries: int | None = None
) -> list[ListedSource]:
    """Return all sources that the URIs name, in order; a `sources.yaml` among them is read. Live sources have unique
    names.

    `options` and `retries` apply where an entry gives no value of its own. A sources.yaml holds a list, by itself or
    under `sources`. An entry is a URI, or a mapping of `uri` and any of `name`, `size` (1280x720), `fps`, `flip`,
    `timeout` (seconds) and `retries`. Paths in the file are relative to it.

    Raises SourceError for a file that cannot be read, and UsageError for a file that is not valid.
    """
    listed: list[ListedSource] = []
    for uri in uris:
        listed += _read_list(Path(uri), options, retries) if is_list(uri) else [_listed(uri, options, retries)]
    return _told_apart(listed)


def _listed(uri: str, options: LiveOptions, retries: int | None, name: str = "") -> ListedSource:
    # People write 0 for the first camera; records call it cam0.
    shown_as = f"cam{uri}" if uri.isdecimal() and is_live(uri) else public_name(uri)
    return ListedSource(uri, name or shown_as, options, retries)


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
    """Read a YAML file. Raises SourceError when the file cannot be read, UsageError when it is not a valid list."""
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
        # The parser's own message shows the line, which may hold a password, so it is left out.
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
        raise UsageError(
            f"{path} is not valid YAML{where}: {getattr(error, 'problem', '') or 'it cannot be read'}"
        ) from error


def _plain(node: Any, left: list[int]) -> Yaml:
    """Convert a YAML node to texts, lists and mappings. Raises YAMLError.

    Each use of an alias counts towards the limit, because a few nested aliases can stand for more nodes than a machine
    can hold. `left`: number of nodes that are still allowed.
    """
    if node is None:
        return ""
    left[0] -= 1
    if left[0] < 0:
        raise _fault(node, f"more than {MOST_NODES} entries, aliases included")
    if node.tag.removeprefix(TAG) not in TAGS:
        raise _fault(node, "an entry that is not a text, number, list or mapping")
    if node.id == "scalar":
        text: str = node.value
        if one_line(text) != text:
            raise _fault(node, "a text with a control character, such as a line feed")
        return text
    if node.id == "sequence":
        return [_plain(one, left) for one in node.value]
    found: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key, value = _plain(key_node, left), _plain(value_node, left)
        if not isinstance(key, str):
            raise _fault(key_node, "a key that is not a text")
        if key_node.tag == f"{TAG}merge":
            for one in value if isinstance(value, list) else [value]:
                if not isinstance(one, dict):
                    raise _fault(value_node, "a << that does not refer to a mapping")
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
        raise UsageError(f"{where}: unknown key {shown(unknown[0])}; choose from {', '.join(KEYS)}")
    if nested := [key for key in given if not isinstance(given[key], str)]:
        raise UsageError(f"{where}: {nested[0]} is a list or a mapping, but must be a text or a number")
    uri = given["uri"]
    ignored = [key for key in KEYS[1:] if _is_given(given, key)]
    if ignored and not is_live(uri):
        raise UsageError(
            f"{where}: {ignored[0]} applies to cameras and streams, and {public_name(uri)} is a file; leave it out"
        )
    if is_live(uri):
        with_environment(uri)  # a variable that is not set now will not be set later
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
    """Give live sources unique names, because tracks, videos and metrics are kept by name. Two channels of one recorder
    may differ only in the hidden part of the address; the second is then called `...#2`. Files may share a name,
    because they are read one after the other."""
    told_apart: list[ListedSource] = []
    taken: set[str] = set()
    numbers: Counter[str] = Counter()
    """Last number given to each name."""
    for one in listed:
        name = one.name
        while one.live and name in taken:
            numbers[one.name] = max(2, numbers[one.name] + 1)
            name = f"{one.name}#{numbers[one.name]}"
        if one.live:
            taken.add(name)
        told_apart.append(replace(one, name=name))
    return told_apart

"""Inputs -> numbered parts, stored beside the results, so that no part is computed twice.

    results.parquet/
        _manifest.json       everything that decides the rows, versions, and at the end counts; identifies the archive
        _lock                exists while a program writes here
        _inputs.parquet      every input with its number and part; addresses without passwords and tokens, which reach
                             the workers only in memory
        part-000000.parquet  the rows of one part, written in one step: one per input, in order
        _persons/part-000000.parquet  for image sets, one row per person; written before the part of the same number

Only the file of a part marks it as done, so a crash at any moment needs no repair. pyarrow, pandas, Spark and DuckDB's
hive reader do not read names with a leading underscore or dot as part of the table.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from ..addresses import public_name
from ..environment import installed_version
from ..errors import SourceError, UsageError, one_line
from ..paths import exists, is_folder, is_utf8, matches, read_file
from ..sinks.outputs import Partial, cannot_write, make_folder, write_whole
from ..sources.camera import with_environment
from ..sources.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, natural_order
from .lock import LOCK
from .recipe import Recipe
from .rows import Input

log = logging.getLogger("facerecon_rt")

SCHEMA = "facerecon-rt/archive/1"
MANIFEST, INPUTS, PERSONS = "_manifest.json", "_inputs.parquet", "_persons"
MOST_MANIFEST_BYTES = 2**24
COUNTS_KEY = b"facerecon-rt.counts"
"""Metadata key of the counts in the file of a part."""
PACKAGES = ("facerecon-rt", "ray", "pyarrow", "numpy")
ROW_GROUP = 2**16
"""Number of inputs per row group, the unit that is read to find the inputs of one part."""
CHECKERS = 16
"""Number of part files that are checked at once."""
_ENCODINGS = {"faces.list.element.shape.list.element": "BYTE_STREAM_SPLIT"}
"""Column encoding that makes files a fifth smaller, because the high bytes of neighbouring vertices are alike."""


def list_inputs(names: Sequence[str], group_by: str | None = None) -> pa.Table:
    """Return a table with the column `uri` of all inputs, and the column `person` where inputs are grouped.

    `names`: folders with their subfolders, globs, photographs, videos, addresses, and Parquet files with a column
    `uri`. Persons come from a column `person`, or from the group of the regular expression `group_by` in each public
    URI. `${NAME}` in an address is replaced by the environment variable, but not in a Parquet file, which may come from
    somebody else. Raises SourceError, UsageError.
    """
    tables = [_listed(name) for name in names]
    uris = pa.concat_tables([table.select(["uri"]) for table in tables])
    if group_by is not None:
        return uris.append_column("person", pa.array(_persons(uris["uri"].to_pylist(), group_by), pa.string()))
    grouped = ["person" in table.column_names for table in tables]
    if not any(grouped):
        return uris
    if not all(grouped):
        raise UsageError("some inputs name persons and others do not; give --group-by, or a column `person` in each")
    return pa.concat_tables(tables)


def _listed(name: str) -> pa.Table:
    path = Path(name)
    if path.suffix == ".parquet":
        return _uris_of(path)
    if "://" in name:
        return pa.table({"uri": pa.array([_from_environment(name)], pa.string())})
    if is_folder(path):
        found = (Path(at) / file for at, _, files in os.walk(path) for file in files if not file.startswith("."))
        media = [one for one in found if one.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES]
        if not media:
            raise SourceError(f"folder {name} holds no photograph (.jpg, .png, ...) or video")
        return _table(sorted(media, key=natural_order))
    if exists(path):
        return _table([path])
    files = [one for one in map(Path, matches(name)) if not is_folder(one)]
    if not files:
        raise SourceError(f"{name} does not exist; give a folder, a glob, a photograph, a video or a .parquet of URIs")
    return _table(sorted(files, key=natural_order))


def _table(paths: Iterable[Path]) -> pa.Table:
    """Return the absolute paths as a table. Workers may have another current folder.

    Raises SourceError where no name is UTF-8, which is the only encoding of texts in Parquet; a warning counts names
    that are not.
    """
    names = [str(path.absolute()) for path in paths]
    kept = [name for name in names if is_utf8(name)]
    if len(kept) < len(names):
        odd = next(name for name in names if not is_utf8(name))
        said = f"the names of {len(names) - len(kept)} files are not UTF-8, such as {one_line(odd)}; rename them"
        if not kept:
            raise SourceError(said)
        log.warning("left out: %s", said)
    return pa.table({"uri": pa.array(kept, pa.string())})


def _from_environment(name: str) -> str:
    """Return the address with the values of its variables. Raises SourceError where a variable is not set, and
    UsageError where its value would be written into the archive."""
    uri = with_environment(name)
    if public_name(uri) != public_name(name):
        raise UsageError(
            f"{name}: the value of a variable would be written into the archive; use variables only for user, "
            "password or token, as in http://user:${PASSWORD}@host/ or ?token=${TOKEN}"
        )
    return uri


def _uris_of(path: Path) -> pa.Table:
    try:
        dataset = pads.dataset(path)
        columns = [name for name in ("uri", "person") if name in dataset.schema.names]
        if "uri" not in columns:
            raise UsageError(
                f"{path} has no column uri, only {', '.join(dataset.schema.names)}; rename the column of URIs"
            )
        table = dataset.to_table(columns=columns)
        table = table.cast(pa.schema([(name, pa.string()) for name in columns]))
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"cannot read {path} as Parquet: {' '.join(str(error).split())}") from error
    for name in columns:
        if table[name].null_count:
            raise SourceError(f"{path}: {table[name].null_count} rows have no {name}; remove them")
    if not len(table):
        raise SourceError(f"{path} names no input; add rows with a column uri")
    return table


def _persons(uris: Sequence[str], pattern: str) -> list[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--group-by {pattern!r} is not a regular expression: {error}") from error
    if expression.groups < 1:
        raise UsageError(
            f"--group-by {pattern!r} has no group; put the part that names the person in brackets: '([^/]+)/[^/]+$'"
        )
    persons = []
    for uri in map(public_name, uris):
        found = expression.search(uri)
        if found is None or found.group(1) is None:
            raise UsageError(f"--group-by {pattern!r} does not match {uri}; leave this input out, or widen the pattern")
        persons.append(found.group(1))
    return persons


def with_parts(inputs: pa.Table, part_size: int) -> pa.Table:
    """Return a table with the columns `part`, `input`, `uri` and `person`, with `part_size` inputs per part. Inputs of
    a person stand together and never in two parts, so parts of persons may be larger."""
    count = len(inputs)
    if "person" in inputs.column_names:
        inputs = inputs.sort_by("person")
        persons = inputs["person"].combine_chunks().dictionary_encode().indices.to_numpy()
        ends = np.append(np.flatnonzero(np.diff(persons)) + 1, count)
    else:
        inputs = inputs.append_column("person", pa.nulls(count, pa.string()))
        ends = np.append(np.arange(part_size, count, part_size), count)
    starts = [0]
    for end in ends[:-1].tolist():
        if end - starts[-1] >= part_size:
            starts.append(end)
    part = np.repeat(np.arange(len(starts), dtype=np.int32), np.diff([*starts, count]))
    return pa.table({"part": part, "input": np.arange(count), "uri": inputs["uri"], "person": inputs["person"]})


@dataclass(frozen=True, slots=True)
class Plan:
    """An archive that has been started."""

    folder: Path
    sizes: np.ndarray[Any, np.dtype[np.int64]]
    """(P,) number of inputs of each part."""
    secret: pa.Table
    """Columns `part`, `input` and `uri` of the inputs whose addresses hold secrets, ordered by part."""

    def secret_of(self, part: int) -> dict[int, str]:
        """Return the addresses of a part's inputs that hold secrets, by input number."""
        start, end = np.searchsorted(self.secret["part"].to_numpy(), [part, part + 1]).tolist()
        return {row["input"]: row["uri"] for row in self.secret.slice(start, end - start).to_pylist()}

    def done(self) -> dict[int, dict[str, Any]]:
        """Return the counts of each part whose file exists and is complete, by part number."""
        with ThreadPoolExecutor(CHECKERS) as checkers:
            counts = checkers.map(self._counts, range(len(self.sizes)))
            return {part: of_one for part, of_one in enumerate(counts) if of_one is not None}

    def _counts(self, part: int) -> dict[str, Any] | None:
        try:
            metadata = pq.read_metadata(part_path(self.folder, part))
        except (OSError, pa.ArrowException):
            return None  # missing, or damaged by a full disk or power loss
        if metadata.num_rows != self.sizes[part]:
            return None
        return dict(json.loads(metadata.metadata[COUNTS_KEY]))

    def finish(self, counts: dict[str, Any]) -> None:
        """Write the counts of the whole archive into the manifest. Raises UsageError."""
        manifest = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
        _write_json(self.folder / MANIFEST, {**manifest, "done": counts})


def open_plan(folder: Path, inputs: pa.Table, part_size: int, recipe: Recipe) -> Plan:
    """Start an archive in `folder`, or continue the existing one. The caller is its `only_writer`. Raises UsageError
    where the existing archive has other inputs or another recipe, or where the folder holds other files."""
    table, secret = _without_secrets(with_parts(inputs, part_size))
    identity = {
        "inputs": len(table),
        "inputs_sha256": _hash(table),
        "part_size": part_size,
        "parts": int(table["part"][-1].as_py()) + 1,
        "grouped": "person" in inputs.column_names,
        "recipe": recipe.identity(),
    }
    make_folder(folder)
    before = _read_manifest(folder)
    if before is None:
        if any(path.name != LOCK for path in folder.iterdir()):
            raise UsageError(f"{folder} holds files that do not belong to an archive; give another --output")
        write_table(table, folder / INPUTS, row_group_size=ROW_GROUP)
        versions = {name: found for name in PACKAGES if (found := installed_version(name))} | {
            "opencv": cv2.__version__
        }
        _write_json(folder / MANIFEST, {"schema": SCHEMA, "plan": identity, "versions": versions, "done": None})
    elif before.get("plan") != identity:
        different = ", ".join(_differences(before.get("plan", {}), identity))
        raise UsageError(
            f"{folder} holds another archive (different: {different}); repeat the command that it was started with, or "
            "give another --output"
        )
    for left in [*folder.glob(".*.partial*"), *(folder / PERSONS).glob(".*.partial*")]:
        left.unlink(missing_ok=True)
    return Plan(folder, np.bincount(table["part"].to_numpy()), secret)


def _without_secrets(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the table with public addresses, and the true addresses of the inputs where these differ."""
    uris = table["uri"].to_pylist()
    shown = [public_name(uri) for uri in uris]
    hidden = pa.array([uri != name for uri, name in zip(uris, shown, strict=True)], pa.bool_())
    where = table.column_names.index("uri")
    public = table.set_column(where, "uri", pa.array(shown, pa.string()))
    return public, table.select(["part", "input", "uri"]).filter(hidden)


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads(read_file(folder / MANIFEST, MOST_MANIFEST_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read {folder / MANIFEST}: {error}; give another --output") from error
    return manifest if isinstance(manifest, dict) else {}


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    flat = [{**plan, **plan.get("recipe", {}), "recipe": None} for plan in (before, now)]
    return [name for name in flat[1] if flat[0].get(name) != flat[1][name]]


def _hash(table: pa.Table) -> str:
    digest = hashlib.sha256()
    for batch in table.select(["uri", "person"]).to_batches(max_chunksize=ROW_GROUP):
        digest.update(json.dumps(batch.to_pydict()["uri"] + batch.to_pydict()["person"]).encode())
    return digest.hexdigest()


def inputs_of(folder: Path, part: int, secret: Mapping[int, str] = MappingProxyType({})) -> list[Input]:
    """Return the inputs of one part, in order. `secret`: addresses that are not stored, from `Plan.secret_of`. Raises
    OSError where this node does not see the folder."""
    table = pq.read_table(folder / INPUTS, filters=pc.field("part") == part)
    return [Input(row["input"], secret.get(row["input"], row["uri"]), row["person"]) for row in table.to_pylist()]


def part_path(folder: Path, part: int) -> Path:
    """Return the path of a part's rows."""
    return folder / f"part-{part:06d}.parquet"


def write_part(folder: Path, part: int, inputs: pa.Table, persons: pa.Table | None, counts: dict[str, Any]) -> None:
    """Write the files of a part, each complete and deterministic, so that a part that Ray computes twice exists once.
    Raises UsageError."""
    if persons is not None:
        make_folder(folder / PERSONS)
        write_table(persons, part_path(folder / PERSONS, part))
    metadata = {**inputs.schema.metadata, COUNTS_KEY: json.dumps(counts)}
    write_table(inputs.replace_schema_metadata(metadata), part_path(folder, part), column_encoding=_ENCODINGS)


def write_table(table: pa.Table, path: Path, **options: Any) -> None:
    """Write a table under a hidden name until it is complete and on the disk. Raises UsageError."""
    repeated = [
        name for name in ("source", "person", "error", "provider", "precision", "model") if name in table.column_names
    ]
    with Partial(path) as partial:
        try:
            pq.write_table(table, partial.file, compression="zstd", use_dictionary=repeated, **options)
            partial.file.flush()
            os.fsync(partial.file.fileno())
        except OSError as error:
            raise cannot_write(path, error) from error
        partial.finish()


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(value, indent=1) + "\n").encode())

"""A part -> the work that Ray distributes: tasks that read it, actors that reconstruct it, tasks that write it.

A part is one row in each step, which Ray never divides. Expected errors (`FaceReconError`) travel as values, so that
the main program reports them in one line and not as tracebacks of other processes.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from ..errors import FaceReconError, ModelRefused
from ..networks.session import read_contract
from ..providers.onnx_file import read_onnx
from .part import PartReconstructor, read_ahead
from .plan import Plan, inputs_of, write_part
from .recipe import Recipe, Workers
from .rows import Input, Row, input_schema, person_schema

_INPUTS = pa.list_(
    pa.struct(
        [
            ("number", pa.int64()),
            ("uri", pa.string()),
            ("person", pa.string()),
            ("data", pa.large_binary()),
            ("error", pa.string()),
        ]
    )
)


class Parts(Datasource):  # type: ignore[misc]
    """The parts still to compute. A separate task reads each."""

    def __init__(self, plan: Plan, remaining: Sequence[int], most_bytes: int) -> None:
        super().__init__()
        self._plan = plan
        self._remaining = remaining
        self._most_bytes = most_bytes

    def estimate_inmemory_data_size(self) -> int | None:
        """Return None: the size is unknown until the files are read."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: object = None
    ) -> list[ReadTask]:
        """Return one task per part."""
        about = BlockMetadata(num_rows=1, size_bytes=None, input_files=None, exec_stats=None)
        return [
            ReadTask(partial(read_part, self._plan.folder, part, self._plan.secret_of(part), self._most_bytes), about)
            for part in self._remaining
        ]


def read_part(folder: Path, part: int, secret: Mapping[int, str], most_bytes: int) -> Iterable[pa.Table]:
    """Yield the inputs of a part, with the files of its photographs."""
    inputs = read_ahead(inputs_of(folder, part, secret), most_bytes)
    yield pa.table({"part": [part], "inputs": pa.array([[_packed(one) for one in inputs]], _INPUTS)})


def _packed(one: Input) -> dict[str, Any]:
    return {"number": one.number, "uri": one.uri, "person": one.person, "data": one.data, "error": one.error}


class ReconstructPart:
    """An actor of Ray with one session for all parts it gets."""

    def __init__(self, recipe: Recipe, identity: dict[str, Any], workers: Workers) -> None:
        self._failed: FaceReconError | None = None
        try:
            if recipe.identity() != identity:
                raise ModelRefused(
                    f"{', '.join(recipe.models)}: on {platform.node()}, the model, the detector or facerecon-rt "
                    "differs from those that the archive was started with; install the same on all nodes"
                )
            contract = read_contract(read_onnx(recipe.models[0]))
            self._schemas = (
                input_schema(contract.blendshapes, contract.vertex_count),
                person_schema(contract.vertex_count),
            )
            self._part = PartReconstructor(recipe, workers)
        except FaceReconError as error:
            self._failed = error  # if raised here, Ray would log it ten times and restart the actor

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Reconstruct the inputs of one part. Returns its rows."""
        (part,) = batch["part"].to_pylist()
        if self._failed is not None:
            return _rows_table(part, failed=self._failed)
        try:
            (inputs,) = batch["inputs"].to_pylist()
            found = self._part.rows([Input(**one) for one in inputs])
        except FaceReconError as error:
            return _rows_table(part, failed=error)
        of_inputs, of_persons = self._schemas
        counts = counts_of(found.inputs, found.persons)
        rows = pa.Table.from_pylist(found.inputs, schema=of_inputs)
        persons = pa.Table.from_pylist(found.persons, schema=of_persons) if found.persons else None
        return _rows_table(part, rows, persons, counts)


def _rows_table(
    part: int,
    rows: pa.Table | None = None,
    persons: pa.Table | None = None,
    counts: dict[str, Any] | None = None,
    failed: FaceReconError | None = None,
) -> pa.Table:
    """Pack the tables of a part as one row, which Ray never divides."""
    return pa.table(
        {
            "part": [part],
            "rows": pa.array([_to_bytes(rows)], pa.large_binary()),
            "persons": pa.array([_to_bytes(persons)], pa.large_binary()),
            "counts": [json.dumps(counts)],
            "failed": pa.array([None if failed is None else str(failed)], pa.string()),
            "exit_code": [0 if failed is None else failed.exit_code],
        }
    )


def write_rows(batch: pa.Table, *, folder: Path) -> pa.Table:
    """Write the rows of a part to its file. Returns only whether that failed."""
    (row,) = batch.to_pylist()
    failed, exit_code = row["failed"], row["exit_code"]
    if failed is None:
        persons = None if row["persons"] is None else _from_bytes(row["persons"])
        try:
            write_part(folder, row["part"], _from_bytes(row["rows"]), persons, json.loads(row["counts"]))
        except FaceReconError as error:
            failed, exit_code = str(error), error.exit_code
    return pa.table({"failed": pa.array([failed], pa.string()), "exit_code": [exit_code]})


def _to_bytes(table: pa.Table | None) -> bytes | None:
    if table is None:
        return None
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def _from_bytes(data: bytes) -> pa.Table:
    with pa.ipc.open_stream(data) as stream:
        return stream.read_all()


def counts_of(rows: Sequence[Row], persons: Sequence[Row]) -> dict[str, Any]:
    """Return the counts of one part, ready for JSON."""
    stages: Counter[str] = Counter()
    for row in rows:
        stages.update(row.get("stages_ms") or {})
    return {
        "inputs": len(rows),
        "errors": sum("error" in row for row in rows),
        "faces": sum(len(row.get("faces") or ()) for row in rows),
        "persons": len(persons),
        "stages_ms": {stage: round(spent, 1) for stage, spent in stages.items()},
    }

"""Records -> rows with the record's fields as Arrow columns: one row per input, and one per person of image sets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ..addresses import public_name, without_secrets
from ..faces.shapes import ImageSet
from ..faces.stages import Stages
from ..sinks.record import SCHEMA
from ..types import Floats

Row = dict[str, Any]
ABOUT = {
    "schema": SCHEMA,
    "input": "number of the input in _inputs.parquet",
    "error": "reason why the other columns are null; null without an error",
    "frames": "number of frames used; 1 for a photograph",
    "faces": "faces of a photograph, the most confident first; for a video one per track, from its most confident "
    "frame",
    "faces.frame, faces.time_s": "number and time of that frame of the video",
    "faces.frames": "number of frames in which the track was seen",
    "faces.pose.frame_from_head": "(3, 4), row by row",
    "faces.landmarks": "(68, 3), point by point, frame pixels and relative depth",
    "faces.gaze": "unit vectors of both eyes, head frame; euler_deg is their mean, seen from the camera; null for a "
    "model that predicts no gaze",
    "faces.shape": "(V, 3) mm, vertex by vertex: the neutral face, for a track averaged over its frames; null where "
    "_persons holds the person's shape",
    "stages_ms": "time for the input, all its frames together",
}
"""Descriptions of the columns. Every file holds them as JSON under `facerecon-rt`."""


@dataclass(frozen=True, slots=True)
class Input:
    """One photograph or video of the plan."""

    number: int
    uri: str
    person: str | None = None
    data: bytes | None = None
    """File of the photograph, where it was read ahead."""
    error: str | None = None
    """Reason why the file could not be read."""


def input_schema(blendshapes: Sequence[str], vertex_count: int) -> pa.Schema:
    """Return the schema of the rows of inputs."""
    number, text = pa.float32(), pa.string()
    angles = pa.struct([(name, number) for name in ("pitch", "yaw", "roll")])
    face = pa.struct(
        [
            ("frame", pa.int32()),
            ("time_s", pa.float64()),
            ("frames", pa.int32()),
            ("track", pa.int32()),
            ("box", pa.list_(number, 4)),
            ("confidence", number),
            ("pose", pa.struct([("frame_from_head", pa.list_(number, 12)), ("euler_deg", angles)])),
            ("landmarks", pa.list_(number, 68 * 3)),
            ("blendshapes", pa.struct([(name, number) for name in blendshapes])),
            ("gaze", _gaze_type()),
            ("doubts", pa.list_(text)),
            ("spread_mm", _spread_type()),
            (
                "disagreement",
                pa.struct([(name, number) for name in ("shape_mm", "vertices_mm", "landmarks_px", "rotation_deg")]),
            ),
            ("shape", pa.list_(pa.float16(), vertex_count * 3)),
        ]
    )
    return pa.schema(
        [
            pa.field("input", pa.int64(), nullable=False),
            pa.field("source", text, nullable=False),
            ("person", text),
            ("error", text),
            ("size", pa.list_(pa.int32(), 2)),
            ("frames", pa.int32()),
            ("provider", text),
            ("precision", text),
            ("model", text),
            ("faces", pa.list_(face)),
            ("stages_ms", pa.struct([(name, number) for name in Stages().milliseconds])),
        ],
        metadata={"facerecon-rt": json.dumps(ABOUT)},
    )


def person_schema(vertex_count: int) -> pa.Schema:
    """Return the schema of the rows of persons."""
    return pa.schema(
        [
            pa.field("person", pa.string(), nullable=False),
            pa.field("photographs", pa.int32(), nullable=False),
            pa.field("used", pa.int32(), nullable=False),
            ("shape", pa.list_(pa.float16(), vertex_count * 3)),
            ("spread", pa.list_(pa.float16(), vertex_count)),
            ("spread_mm", _spread_type()),
        ],
        metadata={
            "facerecon-rt": json.dumps(
                {
                    "used": "photographs in which a face was found",
                    "shape": "(V, 3) mm, vertex by vertex: the neutral face averaged over them; null without any",
                    "spread": "(V,) mm, the spread between them per vertex; spread_mm is its mean and maximum",
                }
            )
        },
    )


def _gaze_type() -> pa.DataType:
    vector = pa.list_(pa.float32(), 3)
    angles = pa.struct([(name, pa.float32()) for name in ("pitch", "yaw")])
    return pa.struct([("left", vector), ("right", vector), ("euler_deg", angles)])


def _spread_type() -> pa.DataType:
    return pa.struct([("mean", pa.float32()), ("max", pa.float32())])


def error_row(of: Input, why: str) -> Row:
    """Return the row of an input that could not be read."""
    return {**_origin(of), "error": " ".join(without_secrets(why).split())}


def row_of_record(of: Input, record: Mapping[str, Any], shapes: Sequence[Floats | None]) -> Row:
    """Return the row of a photograph. `shapes`: (V, 3) mm of each face; None leaves the shape out."""
    faces = [face_row(record, face, shape) for face, shape in zip(record["faces"], shapes, strict=True)]
    return {**_origin(of), **_made_by(record), "frames": 1, "faces": faces, "stages_ms": record["stages_ms"]}


def row_of_video(
    of: Input, first: Mapping[str, Any], frames: int, faces: Sequence[Row], stages_ms: Mapping[str, float]
) -> Row:
    """Return the row of a video. `first`: the record of a frame. `faces`: one `face_row` per track."""
    return {**_origin(of), **_made_by(first), "frames": frames, "faces": faces, "stages_ms": stages_ms}


def face_row(record: Mapping[str, Any], face: Mapping[str, Any], shape: Floats | None) -> Row:
    """Convert a face of a record to an entry of `faces`, with nested lists flattened."""
    pose = face["pose"]
    return {
        **face,
        "frame": record["frame"],
        "time_s": record["time_s"],
        "frames": 1,
        "pose": {"frame_from_head": _flat(pose["frame_from_head"]), "euler_deg": pose["euler_deg"]},
        "landmarks": _flat(face["landmarks"]),
        "shape": None if shape is None else _half(shape),
    }


def person_row(person: str, photographs: int, image_set: ImageSet | None) -> Row:
    """Return the row of a person. `image_set` is None where no face was found."""
    row: Row = {"person": person, "photographs": photographs, "used": 0}
    if image_set is None:
        return row
    spread = image_set.spread_mm
    return {
        **row,
        "used": sum(face is not None for face in image_set.faces),
        "shape": _half(image_set.shape),
        "spread": _half(spread),
        "spread_mm": {"mean": float(spread.mean()), "max": float(spread.max())},
    }


def _origin(of: Input) -> Row:
    return {"input": of.number, "source": public_name(of.uri), "person": of.person}


def _made_by(record: Mapping[str, Any]) -> Row:
    return {name: record[name] for name in ("size", "provider", "precision", "model")}


def _flat(rows: Sequence[Sequence[Any]]) -> list[Any]:
    return [value for row in rows for value in row]


def _half(values: Floats) -> np.ndarray[Any, np.dtype[np.float16]]:
    return values.astype(np.float16).ravel()

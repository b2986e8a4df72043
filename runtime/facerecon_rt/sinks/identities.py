"""Neutral faces of a run -> one .npz file, from which records rebuild their meshes."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..contract import BLENDSHAPES
from ..errors import DAMAGED_ARRAYS, UsageError
from ..head import Form
from ..networks.basis import Basis
from ..paths import read_file
from ..regular import source_name
from ..types import Floats, Scene
from .outputs import check_no_input, check_writable, source_path, write_whole
from .record import MERGED, apple_name

log = logging.getLogger("facerecon_rt")

IDENTITY_SUFFIX = ".npz"
LARGEST = 2**30
"""Maximum size in bytes of a file of identities."""
MOST_PEOPLE = 10_000
"""Maximum number of people in a file, who take 650 MB. A camera may run for months."""
NO_TRACK = -1
"""Track number of a photograph's face."""


@dataclass(frozen=True, slots=True, eq=False)
class Identities:
    """The people of a run: an entry per track of a video or camera, and per face of a photograph."""

    shape: Floats
    """(N, V, 3) mm, head frame: neutral face. That of a track is averaged over all its frames."""
    spread_mm: Floats
    """(N, V) mm: spread of the shape per vertex, as `Face.spread_mm`; NaN for one photograph."""
    source: tuple[str, ...]
    """(N,) source as in the records."""
    track: tuple[int, ...]
    """(N,) number of the track; -1 for the face of a photograph."""
    frame: tuple[int, ...]
    """(N,) number of the last frame with this face."""
    face: tuple[int, ...]
    """(N,) index of the face in the record of that frame."""
    blendshapes: tuple[str, ...]
    """(B,) names of the expression weights."""
    expression: Floats
    """(B, V, 3) mm at a weight of 1: the expression part of the model's basis."""
    weights_sha256: str
    """SHA-256 of the .safetensors file that the model was exported from."""

    def of(self, source: str, frame: int, index: int, track: int | None) -> int | None:
        """Return the entry of a face of a record: its `track`, or in a photograph (None) the face at `index` of
        `frame`. None where there is no entry."""
        for i in range(len(self.track)):
            same = self.track[i] == track if track is not None else (self.frame[i], self.face[i]) == (frame, index)
            if same and self.source[i] == source and (track is not None or self.track[i] == NO_TRACK):
                return i
        return None


@dataclass(frozen=True, slots=True, eq=False)
class _Person:
    """The neutral face of a person: last frame, index in its record, shape (V, 3) and spread (V,) in mm."""

    frame: int
    index: int
    shape: Floats
    spread_mm: Floats | None


class IdentitySink:
    """A sink that writes the neutral faces of all tracks and photographs to one file when it is closed."""

    def __init__(self, path: Path, blendshapes: Sequence[str], basis: Basis) -> None:
        """Check the path. Raises UsageError when the file cannot be written."""
        check_writable(path)
        self._path = path
        self._blendshapes = tuple(blendshapes)
        self._basis = basis
        self._seen: dict[tuple[str, int, int], _Person] = {}
        """The newest state of each (source, track, or for a photograph its face)."""
        self._said = False

    def __enter__(self) -> IdentitySink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, scene: Scene) -> None:
        """Keep the newest shapes of a scene's faces. Raises UsageError when the file would replace the source."""
        check_no_input(self._path, {source_path(scene.frame.source)})
        source = source_name(scene.frame.source)
        for index, face in enumerate(scene.faces):
            key = (source, NO_TRACK, index) if face.track is None else (source, face.track, 0)
            if key in self._seen or len(self._seen) < MOST_PEOPLE:
                self._seen[key] = _Person(scene.frame.index, index, face.shape.copy(), face.spread_mm)
            elif not self._said:
                self._said = True
                log.warning("%s is full with %d people; further people are left out", self._path, MOST_PEOPLE)

    def close(self) -> None:
        """Write the file, unless no face was seen. Raises UsageError when it cannot be written."""
        if not self._seen:
            return
        seen, self._seen = self._seen, {}
        people = list(seen.values())
        unknown = np.full(len(self._basis.mean), np.nan, np.float32)
        data = BytesIO()
        np.savez_compressed(
            data,
            allow_pickle=False,
            shape=np.stack([person.shape for person in people]),
            spread_mm=np.stack([unknown if person.spread_mm is None else person.spread_mm for person in people]),
            source=np.array([source for source, _, _ in seen]),
            track=np.array([track for _, track, _ in seen]),
            frame=np.array([person.frame for person in people]),
            face=np.array([person.index for person in people]),
            blendshapes=np.array(self._blendshapes),
            expression=self._basis.expression.astype(np.float16),  # as precise as the basis file
            weights_sha256=np.array(self._basis.weights_sha256),
        )
        write_whole(self._path, data.getvalue())


def read_identities(path: str | Path) -> Identities:
    """Read the file that `--output identity.npz` wrote. Raises UsageError where it is missing or damaged."""
    try:
        with np.load(BytesIO(read_file(path, LARGEST)), allow_pickle=False) as arrays:
            read = Identities(
                shape=arrays["shape"].astype(np.float32),
                spread_mm=arrays["spread_mm"].astype(np.float32),
                source=tuple(arrays["source"].tolist()),
                track=tuple(arrays["track"].tolist()),
                frame=tuple(arrays["frame"].tolist()),
                face=tuple(arrays["face"].tolist()),
                blendshapes=tuple(arrays["blendshapes"].tolist()),
                expression=arrays["expression"].astype(np.float32),
                weights_sha256=str(arrays["weights_sha256"]),
            )
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist; write it with --output {Path(path).name}") from error
    except DAMAGED_ARRAYS as error:
        # NumPy's own message for other files recommends to load them unsafely.
        why = "" if "allow_pickle" in str(error) else f" ({error})"
        raise UsageError(f"{path} is not a readable file of identities{why}; write it with --output x.npz") from error
    people, names = len(read.shape), len(read.blendshapes)
    lengths = [len(column) for column in (read.spread_mm, read.source, read.track, read.frame, read.face)]
    if lengths != [people] * 5 or read.shape.ndim != 3 or read.expression.shape != (names, *read.shape.shape[1:]):
        raise UsageError(f"{path} is not a file of identities: its arrays do not fit together; write it again")
    return read


def vertices_from_record(
    record: Mapping[str, Any],
    identities: Identities,
    *,
    face: int | None = None,
    track: int | None = None,
    form: Form | None = None,
) -> Floats:
    """Rebuild the mesh of a face of a record: vertices (V, 3) in mm, head frame.

    `record`: one line of the records, as json.loads reads it. `identities`: what `read_identities` returns for the same
    run. `face`: index of the face in the record; `track`: number of its track. Without both, the record must have one
    face. The mesh is the neutral face plus the record's blendshapes. The shape of a track is that of its last frame.
    `form`: `head.load_head(load_template())` for the vertices of the whole head; None for the face alone.

    Raises UsageError where the record has no such face, the file of identities no such person, or its meshes are not
    those that the head completes.
    """
    faces = _faces_of(record)
    name = f"frame {record['frame']} of {record['source']}"
    if track is not None:
        found = [index for index, one in enumerate(faces) if one["track"] == track]
        if not found:
            raise UsageError(f"{name} does not show track {track}; choose another frame or track")
        face = found[0]
    elif face is None:
        if len(faces) != 1:
            raise UsageError(f"{name} shows {len(faces)} faces; name one by its track or its index")
        face = 0
    elif not 0 <= face < len(faces):
        raise UsageError(f"{name} has no face {face}; it shows {len(faces)}")
    entry = identities.of(record["source"], record["frame"], face, faces[face]["track"])
    if entry is None:
        raise UsageError(f"the file of identities has nobody for {name}; give the file of the same run")
    weights = weights_from_record(faces[face]["blendshapes"], identities.blendshapes)
    shape = identities.shape[entry]
    vertices = np.asarray(shape + np.tensordot(weights, identities.expression, 1), np.float32)
    if form is None:
        return vertices
    if len(shape) != form.face.vertex_count:
        raise UsageError(
            f"the file of identities has faces of {len(shape)} vertices, and the mesh needs {form.face.vertex_count}; "
            "give a file of a model with this face template"
        )
    return form.expressed(shape, vertices)


def _faces_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the faces of a record. Raises UsageError where one lacks its track or its blendshapes."""
    faces = record.get("faces")
    if not isinstance(faces, list) or not all(
        isinstance(face, dict) and "track" in face and isinstance(face.get("blendshapes"), dict) for face in faces
    ):
        raise UsageError(
            f"frame {record['frame']} of {record['source']} is not a record of faces with track and blendshapes; give "
            "the file that --output records.jsonl wrote"
        )
    return faces


def weights_from_record(blendshapes: Mapping[str, float | None], names: Sequence[str]) -> Floats:
    """Return the weights (B,) of a record in the order of `names`, from the model's names or Apple's.

    Apple's single browInnerUp and cheekPuff move both sides. Raises UsageError where a name is missing or a weight is
    no number.
    """
    apple = set(names) == set(BLENDSHAPES) and MERGED[0] in blendshapes
    try:
        found = [blendshapes[apple_name(name) if apple else name] for name in names]
    except KeyError as error:
        raise UsageError(f"the record has no blendshape {error}; give records of the same model") from error
    if not all(weight is None or isinstance(weight, (int, float)) for weight in found):
        raise UsageError(
            "the record has blendshapes that are no numbers; give the file that --output records.jsonl wrote"
        )
    return np.array([0.0 if weight is None else weight for weight in found], np.float32)


def read_record(path: str | Path, frame: int, source: str | None = None) -> dict[str, Any]:
    """Return the record of a frame from a file of records. `source`: the record's source; None where there is only one.

    Raises UsageError where the file cannot be read, the frame is missing, or several sources have it.
    """
    found: dict[str, dict[str, Any]] = {}
    try:
        with Path(path).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    record = json.loads(line)
                    # Events have lines of their own, which hold no faces.
                    if record["frame"] == frame and "event" not in record and source in (None, record["source"]):
                        found[record["source"]] = record
                except (ValueError, KeyError, TypeError) as error:
                    if not line.endswith("\n"):  # a run that was killed, or still writes
                        continue
                    raise UsageError(f"line {number} of {path} is not a record ({error})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a file of records ({error.reason}); give a .jsonl") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if not found:
        raise UsageError(f"{path} has no frame {frame}{f' of {source}' if source else ''}; choose another frame")
    if len(found) > 1:
        raise UsageError(f"{path} has frame {frame} of {len(found)} sources; choose one, such as {next(iter(found))}")
    return next(iter(found.values()))

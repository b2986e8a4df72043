"""Scenes -> JSON lines in a file or on a stream, which another program can read along."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from ..errors import UsageError
from ..paths import exists, is_file
from ..types import Scene
from .outputs import Partial, Rotation, cannot_write, check_place, is_regular, only_writer_of, remove_abandoned
from .record import as_json, event_records, record_text


class JsonLinesSink:
    """A sink that writes one record per line, and one per event, and flushes them, so that another program can read
    along."""

    def __init__(
        self,
        target: IO[str] | Path,
        blendshapes: Sequence[str],
        *,
        arkit: bool = False,
        rotation: Rotation | None = None,
    ) -> None:
        """Open the file, or take over the stream. Raises UsageError when the file cannot be written.

        `target`: an open text stream, which stays open, or a file, which is replaced. With `rotation`, an existing file
        is continued. Pipes and devices are neither replaced nor rotated.
        """
        self._rotation = rotation
        self._blendshapes = blendshapes
        self._arkit = arkit
        self._path = target if isinstance(target, Path) else None
        self._started = False
        if isinstance(target, Path):
            check_place(target)
            self._new = not exists(target)
            try:
                # The file is opened for appending, so that the content of an earlier run is only replaced when a record
                # comes.
                self._stream: IO[str] = _opened_alone(target)
            except OSError as error:
                raise cannot_write(target, error) from error
            if not is_regular(self._stream):
                self._rotation = None
        else:
            self._stream = target

    def __enter__(self) -> JsonLinesSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, scene: Scene) -> None:
        """Append the scene's record. Raises UsageError, or BrokenPipeError when the reader of a pipe has closed it."""
        self._append([record_text(scene, self._blendshapes, arkit=self._arkit), *map(as_json, event_records(scene))])

    def write_events(self, scene: Scene) -> None:
        """Append the scene's events without its record. Raises the errors of `write`."""
        self._append([as_json(event) for event in event_records(scene)])

    def _append(self, lines: Sequence[str]) -> None:
        try:
            if self._path is not None and not self._started and is_regular(self._stream):
                if self._rotation is None:
                    self._stream.truncate(0)
                else:
                    self._go_on(self._path, self._rotation)
            self._started = True
            self._stream.write("".join(line + "\n" for line in lines))
            self._stream.flush()
            if self._path is not None and self._rotation is not None and self._rotation.due(self._stream.tell()):
                self._begin_anew(self._path, self._rotation)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise cannot_write(self._path or "standard output", error) from error

    def _go_on(self, path: Path, rotation: Rotation) -> None:
        """Continue behind the records of an earlier run, without a last line that was cut short."""
        if rotation.due(self._stream.tell()):
            self._begin_anew(path, rotation)
            return
        whole = path.read_bytes().rfind(b"\n") + 1
        self._stream.truncate(whole)

    def _begin_anew(self, path: Path, rotation: Rotation) -> None:
        remove_abandoned(path)
        new = Partial(path)  # it is locked before it gets the name, and before the full file is released
        try:
            rotation.set_aside(path, new.path)
        except UsageError:
            new.discard()
            raise
        full, self._stream = self._stream, io.TextIOWrapper(new.file, encoding="utf-8")
        full.close()

    def close(self) -> None:
        """Close the file. A stream that was passed in stays open."""
        if self._path is None:
            return
        try:
            if self._new and not self._started and is_file(self._path) and not self._path.stat().st_size:
                self._path.unlink()  # this run created it and wrote nothing
            self._stream.close()  # the lock ends last
        except OSError as error:
            raise cannot_write(self._path, error) from error


def _opened_alone(path: Path) -> IO[str]:
    """Open and lock a file for appending. Raises UsageError where somebody else writes it, and OSError."""
    while True:
        stream = path.open("a", encoding="utf-8")
        try:
            only_writer_of(stream, path)
            if not is_regular(stream) or _has_name(stream, path):
                return stream
        except (UsageError, OSError):
            stream.close()
            raise
        stream.close()


def _has_name(stream: IO[str], path: Path) -> bool:
    """Return whether the path still leads to this file, which another run may have set aside before it was locked."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False

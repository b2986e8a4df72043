"""Scenes -> a folder with records, annotated pictures and videos, and meshes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from ..errors import UsageError
from ..paths import exists, resolved
from ..types import Scene
from .draw import painter
from .face_meshes import MOST_TRACKS, FaceMesh, Meshes
from .hide import is_cover
from .meshes import write_mesh
from .options import SinkOptions
from .outputs import cannot_write, source_path
from .pictures import write_picture
from .stems import shortened, stem_of
from .video import VideoSink

SILENT_S = 60.0
"""Time in seconds without a frame of a camera after which its video is finished."""


class FolderSink:
    """A sink that writes everything about every source. Records go to `records.jsonl`. A photograph gets `<stem>.jpg`,
    `<stem>_montage.jpg` and `<stem>_face0.obj`; a video gets `<stem>.mp4` and `<stem>_track1.obj`. Two sources never
    share a stem."""

    def __init__(self, folder: Path, options: SinkOptions) -> None:
        """Make the folder. Raises UsageError when it cannot be made or written to."""
        self._new = not exists(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise UsageError(
                f"cannot write {folder}: it is not a folder; give a file a suffix, as in .jsonl, or use - for stdout"
            ) from error
        except OSError as error:
            raise cannot_write(folder, error) from error
        self._folder = folder
        self._options = options
        self._meshes = Meshes(options.form, options.texture, eyes=options.eyes) if options.meshes else None
        # A photograph gets its montage in any case, unless faces are covered: a montage shows them.
        style = "shaded" if options.style == "montage" else options.style
        self._paint = painter(style, options.template, options.margin, eyes=options.eyes)
        covered = is_cover(options.style)
        self._paint_montage = None if covered else painter("montage", options.template, eyes=options.eyes)
        self._records = options.records(folder / "records.jsonl")
        self._stems: dict[str, str] = {}
        """Name of the files of each source."""
        self._names: set[str] = set()
        """These names."""
        self._begun: set[str] = set()
        """These names without the number that `--rotate` may have given."""
        self._numbers: dict[str, int] = {}
        """Number of the next source with the same stem."""
        self._videos: dict[Path, VideoSink] = {}
        self._written_at: dict[Path, float] = {}
        """Time of the last frame of each camera's video with `rotation`, by time.monotonic()."""

    def __enter__(self) -> FolderSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, scene: Scene) -> None:
        """Write the scene's record, picture and meshes. Raises UsageError when they cannot be written, or when the
        source lies in this folder, where its files might be overwritten."""
        if not scene.frame.live and source_path(scene.frame.source).parent == resolved(self._folder):
            raise UsageError(f"{scene.frame.source} lies in the output folder {self._folder}; choose another folder")
        self._records.write(scene)
        if scene.frame.still:
            self._write_photograph(scene)
        else:
            self._write_video_frame(scene)

    def write_events(self, scene: Scene) -> None:
        """Append the scene's events to the records. Raises UsageError when they cannot be written."""
        self._records.write_events(scene)

    def close(self) -> None:
        """Finish the videos, write the tracks' meshes and close the records, each even if another fails."""
        with ExitStack() as stack:
            stack.callback(self._leave_nothing_empty)
            stack.callback(self._records.close)
            stack.callback(self._write_tracks)
            stack.callback(self._finish_videos)

    def _leave_nothing_empty(self) -> None:
        if self._new:
            with suppress(OSError):  # not empty, or gone
                self._folder.rmdir()

    def _write_photograph(self, scene: Scene) -> None:
        stem = self._stem(scene.frame.source)
        if self._options.pictures:
            write_picture(self._folder / f"{stem}.jpg", self._paint(scene))
        if self._options.pictures and scene.faces and self._paint_montage is not None:
            write_picture(self._folder / f"{stem}_montage.jpg", self._paint_montage(scene))
        if self._meshes is not None:
            self._write_meshes(self._meshes.of_photograph(scene))

    def _write_video_frame(self, scene: Scene) -> None:
        self._stem(scene.frame.source, live=scene.frame.live)  # meshes are named after it, too
        if self._options.pictures:
            self._write_picture_of_video(scene)
        if self._meshes is not None:
            self._meshes.see(scene)
            self._write_meshes(self._meshes.take(MOST_TRACKS))

    def _write_picture_of_video(self, scene: Scene) -> None:
        stem = self._stem(scene.frame.source, live=scene.frame.live)
        path = self._folder / f"{stem}.mp4"
        if path not in self._videos:
            if not scene.frame.live:
                self._finish_videos()  # files come one after the other, cameras in parallel
            self._videos[path] = VideoSink(path, self._paint, self._options.rotation)
        self._videos[path].write(scene)
        if scene.frame.live and self._options.rotation is not None:
            self._finish_silent(path)

    def _finish_silent(self, written: Path) -> None:
        """Finish the videos of cameras that have gone silent. A camera that comes back begins a new video."""
        now = time.monotonic()
        self._written_at[written] = now
        for path in [path for path, at in self._written_at.items() if now - at > SILENT_S]:
            del self._written_at[path]
            if path in self._videos:
                self._videos.pop(path).close()

    def _finish_videos(self) -> None:
        with ExitStack() as stack:
            while self._videos:
                stack.callback(self._videos.popitem()[1].close)

    def _write_tracks(self) -> None:
        if self._meshes is not None:
            self._write_meshes(self._meshes.take())

    def _write_meshes(self, meshes: Iterable[FaceMesh]) -> None:
        template, unit = self._options.form.template, self._options.unit
        for mesh in meshes:
            path = self._folder / f"{self._stem(mesh.source)}_{mesh.label}.obj"
            write_mesh(path, mesh.vertices, template, unit, mesh.texture, mesh.parts)

    def _stem(self, source: str, *, live: bool = False) -> str:
        """Return a name for the source that no file of another source uses. `live`: as in `stem_of`; it counts when the
        source is first named."""
        if source not in self._stems:
            stem = shortened(stem_of(source, live=live))
            name, number = stem, self._numbers.get(stem, 2)
            while self._is_taken(name):
                name, number = f"{stem}_{number}", number + 1
            self._numbers[stem] = number
            self._stems[source] = name
            self._names.add(name)
            self._begun.add(_without_number(name))
        return self._stems[source]

    def _is_taken(self, name: str) -> bool:
        """Return whether files of this stem would have the names of another source's files."""
        if self._names & {name, f"{name}_montage", name.removesuffix("_montage")}:
            return True
        rotated = self._options.rotation is not None
        return rotated and (name in self._begun or _without_number(name) in self._names)


def _without_number(name: str) -> str:
    """Return the stem of a file that `--rotate` has numbered, or the name itself."""
    return re.sub(r"_\d{4,}$", "", name)

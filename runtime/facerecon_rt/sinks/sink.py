"""The interface of an output."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, runtime_checkable

from ..types import Scene


class Sink(Protocol):
    """An output for scenes. It owns its files; use it as a context manager. Its files are complete once it is closed,
    also after an interruption."""

    def __enter__(self) -> Sink: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def write(self, scene: Scene) -> None:
        """Write one scene. Raises UsageError when it cannot be written."""

    def close(self) -> None:
        """Finish the files. Raises UsageError when they cannot be written."""


@runtime_checkable
class ChoosySink(Sink, Protocol):
    """A sink that needs few of the scenes. Whoever asks it first saves handing the others over."""

    def wants(self, scene: Scene) -> bool:
        """Return whether `write` would do anything with the scene. It takes microseconds and may be asked in another
        thread than the one that writes."""


@runtime_checkable
class PacedSink(Sink, Protocol):
    """A sink that writes the scenes of a file at the file's own pace."""

    def hurry(self) -> None:
        """Write everything from now on at once, also what waits. Any thread may call it."""


@runtime_checkable
class EventSink(Sink, Protocol):
    """A sink that loses no event, even where it is too slow for every scene of a camera."""

    def write_events(self, scene: Scene) -> None:
        """Write only the events of a scene, which has neither picture nor faces, and whether its source is lost. Raises
        UsageError as `write` does."""

"""Frames -> the state of their sources: tracks, smoothing, attention and events, kept until a source ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ..types import NO_PICTURE, Event, Face, Frame, Scene
from .attention import Watch
from .cuts import Scenery
from .reconstruct import Sighting
from .smooth import STRENGTHS, Smoother
from .track import Tracker
from .zones import Zone

SMOOTH = ("off", *STRENGTHS)
GAP_S = 2.0
"""Maximum gap of a camera in seconds. After a longer gap another person may be in front of it."""
GAP_INTERVALS = 3
"""Maximum gap of a slow camera, in its usual intervals between two frames."""
IDLE_FRAMES = 1000
"""Number of frames of other sources after which a source's tracks are forgotten. A folder may hold thousands of
videos."""
IDLE_S = 3600.0
"""Time in seconds for which a camera must also have been silent. A slow camera beside fast ones is not idle."""


@dataclass(slots=True)
class Stream:
    """State of one source."""

    tracker: Tracker
    smoother: Smoother | None
    watch: Watch | None
    shown: set[int] | None
    """Tracks whose face was in a scene, if the number of faces is limited. Otherwise all are shown, and it is None."""
    since_detection: int = 0
    """Number of frames since the detector last ran. It always runs while there is no track."""
    scenery: Scenery = field(default_factory=Scenery)
    frame: Frame | None = None
    """The last frame without its picture."""
    last_frame: int = 0
    """Count of all frames when this source was last seen."""
    last_s: float = 0.0
    """Time of its last frame, in seconds of the source."""
    intervals: tuple[float, ...] = ()
    """Times in seconds between its last three frames. The shorter one is usual: a loss makes only one of them long."""
    last_index: int = 0
    """Number of its last frame."""
    detected: Sequence[Sighting] = ()
    """Squares of the detector's last run."""
    detected_before: Sequence[Sighting] = ()
    """Squares of the run before it."""
    found_once: bool = False
    """Whether a face waits for the detector to find it again, so that the detector runs on the next frame."""
    ended_tracks: tuple[int, ...] = ()
    """Tracks that a gap or a new reading has ended, for the next scene."""
    ended_events: tuple[Event, ...] = ()
    """Ends of their events, for the next scene."""

    def is_over(self, frame: Frame) -> bool:
        """Return whether the source's next frame continues nothing: after a gap of a camera, when another camera takes
        its name, and when a file is read again."""
        if not frame.live:
            return frame.index < self.last_index
        usual_s = min(self.intervals, default=0.0)
        return not 0 <= frame.time_s - self.last_s <= max(GAP_S, GAP_INTERVALS * usual_s)

    def entered_and_left(self, faces: Sequence[Face]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the tracks that begin and end with a scene of these faces. If the number of faces is limited, a track
        begins when it is shown for the first time, and only tracks that were shown end."""
        entered, left = self.tracker.entered, self.tracker.left
        if self.shown is not None:
            now = [face.track for face in faces if face.track is not None]
            entered = tuple(track for track in now if track not in self.shown)
            left = tuple(track for track in left if track in self.shown)
            self.shown.update(now)
            self.shown.difference_update(left)
        return entered, left

    def begin_after(self, before: Stream) -> None:
        """Note that the tracks and events of the source's former state have ended. Its rate stays."""
        self.intervals = before.intervals
        tracks = (track.number for track in before.tracker.tracks)
        self.ended_tracks = tuple(track for track in tracks if before.shown is None or track in before.shown)
        self.ended_events = () if before.watch is None else before.watch.end()


class Streams:
    """The states of all sources."""

    def __init__(self, smooth: str, attention: Sequence[Zone] | None, *, limited: bool) -> None:
        """Set the options of new sources as in `Pipeline`. `limited`: whether the number of faces is limited."""
        self.smooth, self.attention, self.limited = smooth, attention, limited
        self._streams: dict[str, Stream] = {}
        """State of each source, the longest unseen first."""
        self._numbers: dict[str, int] = {}
        """Number of the next track of each forgotten or interrupted source, so that no number is used twice."""
        self._ended: list[Scene] = []
        """Ends of events of sources that have ended or were forgotten."""
        self._frames = 0

    def __iter__(self) -> Iterator[Stream]:
        """Iterate over the states, the longest unseen first."""
        return iter(self._streams.values())

    def of(self, frame: Frame) -> Stream:
        """Return the state of the frame's source, and forget a source that was not seen for too long."""
        self._frames += 1
        stream = self._streams.pop(frame.source, None)
        interval_s = None if stream is None else frame.time_s - stream.last_s
        if stream is not None and stream.is_over(frame):
            self._numbers[frame.source] = stream.tracker.next_number
            before, stream = stream, self._new(frame.source)
            stream.begin_after(before)
        elif stream is None:
            if not frame.live:
                self._end_files()
            stream = self._new(frame.source)
        stream.last_frame, stream.last_s, stream.last_index = self._frames, frame.time_s, frame.index
        if interval_s is not None and interval_s > 0:
            stream.intervals = (*stream.intervals[-1:], interval_s)
        stream.frame = replace(frame, image=NO_PICTURE)
        self._streams[frame.source] = stream
        self._forget_idle(frame.captured_at)
        return stream

    def lose(self, source: str) -> None:
        """End the running events of a live source that was lost, for `take_ended`. Its tracks may go on, if it is back
        in a moment."""
        stream = self._streams.get(source)
        if stream is not None and stream.frame is not None:
            events = () if stream.watch is None else stream.watch.pause()
            self._ended.append(Scene(stream.frame, (), events=events, lost=True))

    def end_all(self) -> list[Scene]:
        """End all events that are still running. Returns a scene without picture and faces for each source that had
        any, also for those that `take_ended` would return."""
        for stream in self:
            self._end_events(stream)
        return self.take_ended()

    def take_ended(self) -> list[Scene]:
        """Return the ends of events of sources that have ended, were forgotten or lost since the last call."""
        ended, self._ended = self._ended, []
        return ended

    def _new(self, source: str) -> Stream:
        return Stream(
            Tracker(first_number=self._numbers.get(source, 1)),
            None if self.smooth == "off" else Smoother(STRENGTHS[self.smooth]),
            None if self.attention is None else Watch(self.attention),
            set() if self.limited else None,
        )

    def _end_files(self) -> None:
        """End the events of all videos that were read before another one: files come one after the other."""
        for stream in self:
            if stream.frame is not None and not stream.frame.live:
                self._end_events(stream)

    def _forget_idle(self, now: float) -> None:
        longest = next(iter(self._streams))
        stream = self._streams[longest]
        silent = stream.frame is None or not stream.frame.live or now - stream.frame.captured_at > IDLE_S
        if silent and self._frames - stream.last_frame > IDLE_FRAMES:
            forgotten = self._streams.pop(longest)
            self._numbers[longest] = forgotten.tracker.next_number
            self._end_events(forgotten)

    def _end_events(self, stream: Stream) -> None:
        """Note the ends of a stream's running events. They have its last frame, without the picture."""
        if stream.watch is not None and stream.frame is not None and (events := stream.watch.end()):
            self._ended.append(Scene(stream.frame, (), events=events))

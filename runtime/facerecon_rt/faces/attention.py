"""Faces of a track over time -> how open the eyes are, blinks, drowsiness, yawns, speech, and where a person looks.

Everything is measured on the mesh in the head frame, so that the turn and the distance of the head do not count, and
in seconds of the source, so that the frame rate does not count. Sources:

- PERCLOS, P80: Wierwille et al., Research on vehicle-based driver status/performance monitoring, DOT HS 808 247, 1994.
- Glances of 2 s: NHTSA, Visual-manual driver distraction guidelines, 2012.

The levels of drowsiness and the threshold of yawns are choices of this project. Nothing here is a medical
or a safety device.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ..pose import euler_from_camera, gaze_angles
from ..types import Attention, Drowsiness, Event, Face
from .lids_and_lips import LipMotion, OpenLevel, aspect_ratios, distances
from .zones import Zone

CLOSES, OPENS = 0.6, 0.65
"""Openness of both eyes together at which a closure begins and ends."""
CLOSED = 0.5
"""Openness that a closure must reach to count."""
LONGEST_BLINK_S = 0.5
"""Duration of a closure in seconds from which it is no blink but `eyes_closed`, and from which closed eyes look at no
zone."""
P80 = 0.2
"""Openness at which eyes are closed by 80 %."""
WINDOW_S = 60.0
"""Window of PERCLOS and the blink rate, in seconds."""
LEAST_SEEN_S = 20.0
"""Time in seconds for which a face must be seen within the window before PERCLOS and blink rate are given."""
BIN_S = 0.25

YAWN = 0.5
"""Gap of the inner lips, in widths of the neutral mouth, from which the mouth is wide open."""
YAWN_S = 1.5
"""Time in seconds for which the mouth must be wide open to count as a yawn."""
YAWNS_WINDOW_S = 300.0

SPEAKS, SILENT = 0.5, 0.2
"""Likelihoods at which `speaking` begins and ends."""

DWELL_S = 0.2
"""Time in seconds for which a person must look at another zone before it counts."""
OFF_ZONE_S = 2.0
"""Time in seconds without a look at any zone from which `off_zone` begins (NHTSA 2012)."""

TIRED, DROWSY = 0.08, 0.15
"""PERCLOS from which a person is tired, and drowsy."""
RECOVERS = 0.7
"""Share of these values below which PERCLOS must fall before the level falls."""
MICROSLEEP_S = 1.5
"""Duration of a closure in seconds from which a person is drowsy at once."""
STAYS_S = 30.0
"""Minimum time in seconds before the level falls."""
YAWNS_TIRED = 2
"""Number of yawns within five minutes from which a person is tired."""
LONGEST_GAP_S = 0.5
"""Time in seconds between two frames of a face from which nothing is assumed about what was between them."""

LEVELS: tuple[Drowsiness, ...] = ("alert", "tired", "drowsy")


class Watch:
    """The attention of the tracked faces of one source."""

    def __init__(self, zones: Sequence[Zone] = ()) -> None:
        """`zones`: the first that holds a direction counts."""
        self._zones = tuple(zones)
        self._people: dict[int, Person] = {}

    def __call__(
        self, faces: Sequence[Face], time_s: float, left: Sequence[int] = ()
    ) -> tuple[dict[int | None, Attention], tuple[Event, ...]]:
        """Take the tracked faces of a frame at `time_s`, and the tracks that ended. Returns the attention by the number
        of the track, and the events that begin or end."""
        events: list[Event] = []
        found: dict[int | None, Attention] = {}
        for face in faces:
            if face.track is None:
                continue
            person = self._people.get(face.track)
            if person is None:
                person = self._people[face.track] = Person(face.track, self._zones)
            found[face.track], new = person.see(face, time_s)
            events += new
        for track in left:
            if track in self._people:
                events += self._people.pop(track).end()
        return found, tuple(events)

    def end(self) -> tuple[Event, ...]:
        """Return the ends of all events that have begun, and forget everybody: the source is no longer seen."""
        ends = self.pause()
        self._people = {}
        return ends

    def pause(self) -> tuple[Event, ...]:
        """Return the ends of all events that have begun: the source is lost, and may come back in a moment."""
        return tuple(event for person in self._people.values() for event in person.end())


class Person:
    """State of one track."""

    def __init__(self, track: int, zones: Sequence[Zone] = ()) -> None:
        self._track = track
        self._zones = zones
        self._time_s: float | None = None
        self._events: list[Event] = []
        self._open = (OpenLevel(), OpenLevel())
        self._openness = 1.0
        self._closed_at: float | None = None
        """Time at which the present closure began."""
        self._deepest = 1.0
        self._blind_at: float | None = None
        """Time since which the eyes are closed so far that they show no gaze."""
        self._shut = Shares()
        """Time at which the eyes were closed by 80 %."""
        self._blinks: deque[float] = deque()
        self._yawns: deque[float] = deque()
        self._wide_at: float | None = None
        self._lips = LipMotion()
        self._direction = (0.0, 0.0)
        self._zone: str | None = None
        self._candidate: tuple[str | None, float] | None = None
        self._off_at: float | None = None
        self._level = 0
        self._rose_at = -math.inf
        self._running: dict[str, tuple[float, str | None]] = {}
        """Events that have begun: their time, and the name of the zone or level."""
        self._unconfirmed: set[str] = set()
        """Events that began in the newest frame of the face. They are reported once the face is seen again, so that a
        face of one frame has no events of 0 s."""

    def see(self, face: Face, time_s: float) -> tuple[Attention, list[Event]]:
        """Take the face of a frame. Returns its attention, and the events that begin or end."""
        self._events = []
        seconds = 0.0 if self._time_s is None else time_s - self._time_s
        if not 0 <= seconds <= LONGEST_GAP_S:
            self._events += self.end()
            if seconds < 0:
                self._begin_anew()
            seconds = 0.0
        self._confirm(time_s)
        expressed, neutral = distances(face.vertices), distances(face.shape)
        ratios, at_rest = aspect_ratios(expressed), aspect_ratios(neutral)
        of_each = zip(self._open, ratios, at_rest, strict=True)
        eyes = [level.openness(ratio, rest, time_s) for level, ratio, rest in of_each]
        self._look_at_eyes(sum(eyes) / 2, time_s, seconds)
        gap = expressed[6] / max(neutral[7], 1e-6)
        self._look_at_mouth(gap, time_s)
        origin = self._look_at_direction(face, time_s)
        seen = self._shut.seconds
        enough = seen >= LEAST_SEEN_S
        perclos = self._shut.share if enough else None
        self._judge(perclos, time_s)
        self._time_s = time_s
        closed_s = 0.0 if self._closed_at is None else time_s - self._closed_at
        attention = Attention(
            eyes_open=(eyes[0], eyes[1]),
            closed_s=closed_s,
            blinks_per_min=60 * self._blinks_since(time_s - WINDOW_S) / seen if enough else None,
            perclos=perclos,
            yawning="yawn" in self._running,
            speaking=self._lips.likelihood,
            origin=origin,
            direction=self._direction,
            zone=self._zone,
            off_zone_s=None if not self._zones else 0.0 if self._off_at is None else time_s - self._off_at,
            drowsiness=LEVELS[self._level] if enough or self._level else None,
        )
        return attention, self._events

    def end(self) -> list[Event]:
        """Return the ends of the events that have begun: the face is no longer seen."""
        time_s = self._time_s or 0.0
        ends = [
            self._event(kind, "end", time_s, began, name)
            for kind, (began, name) in self._running.items()
            if kind not in self._unconfirmed
        ]
        self._running.clear()
        self._unconfirmed.clear()
        self._closed_at = self._blind_at = self._wide_at = self._off_at = self._candidate = self._zone = None
        self._openness = 1.0
        self._lips = LipMotion()
        return ends

    def _begin_anew(self) -> None:
        """Forget everything that has a time: the source begins again."""
        self._open, self._shut = (OpenLevel(), OpenLevel()), Shares()
        self._blinks.clear()
        self._yawns.clear()
        self._level, self._rose_at = 0, -math.inf

    def _event(self, kind: str, phase: str, time_s: float, began: float, name: str | None = None) -> Event:
        return Event(kind, phase, self._track, time_s, began, name)

    def _begin(self, kind: str, began: float, name: str | None = None, *, confirmed: bool = True) -> None:
        """Begin an event, and report it at once if it is `confirmed`."""
        self._running[kind] = began, name
        if confirmed:
            self._events.append(self._event(kind, "begin", began, began, name))
        else:
            self._unconfirmed.add(kind)

    def _confirm(self, time_s: float) -> None:
        """Report the events that began in an earlier frame than this one."""
        for kind in sorted(self._unconfirmed):
            began, name = self._running[kind]
            if began < time_s:
                self._unconfirmed.discard(kind)
                self._events.append(self._event(kind, "begin", began, began, name))

    def _finish(self, kind: str, time_s: float) -> None:
        if kind in self._running:
            began, name = self._running.pop(kind)
            if kind in self._unconfirmed:
                self._unconfirmed.discard(kind)
            else:
                self._events.append(self._event(kind, "end", time_s, began, name))

    def _look_at_eyes(self, openness: float, time_s: float, seconds: float) -> None:
        before, self._openness = self._openness, openness
        self._shut.add(time_s, seconds, openness <= P80)
        if openness >= CLOSED:
            self._blind_at = None
        elif self._blind_at is None:
            self._blind_at = crossing(before, openness, CLOSED, time_s, seconds)
        if self._closed_at is None and openness < CLOSES:
            self._closed_at, self._deepest = crossing(before, openness, CLOSES, time_s, seconds), openness
        if self._closed_at is None:
            return
        self._deepest = min(self._deepest, openness)
        if openness > OPENS:
            opened = crossing(before, openness, OPENS, time_s, seconds)
            began, self._closed_at = self._closed_at, None
            if "eyes_closed" in self._running:
                self._finish("eyes_closed", opened)
            elif self._deepest < CLOSED and opened > began:  # not so within frames of one time
                self._blinks.append(opened)
                self._events.append(self._event("blink", "end", opened, began))
            return
        long = time_s - self._closed_at > LONGEST_BLINK_S and self._deepest < CLOSED
        if long and "eyes_closed" not in self._running:
            self._begin("eyes_closed", self._closed_at)

    def _blinks_since(self, begin_s: float) -> int:
        while self._blinks and self._blinks[0] < begin_s:
            self._blinks.popleft()
        return len(self._blinks)

    def _look_at_mouth(self, gap: float, time_s: float) -> None:
        self._lips.add(gap, time_s)
        if self._lips.likelihood > SPEAKS and "speaking" not in self._running:
            self._begin("speaking", time_s, confirmed=False)
        elif self._lips.likelihood < SILENT:
            self._finish("speaking", time_s)
        if gap < YAWN:
            self._wide_at = None
            self._finish("yawn", time_s)
            return
        if self._wide_at is None:
            self._wide_at = time_s
        if time_s - self._wide_at >= YAWN_S and "yawn" not in self._running:
            self._yawns.append(time_s)
            self._begin("yawn", self._wide_at)

    def _look_at_direction(self, face: Face, time_s: float) -> str:
        """Note where the person looks, and return from what it is known: gaze or head."""
        if face.gaze is None:
            pitch, yaw, _ = euler_from_camera(face.frame_from_head)
            self._direction = yaw, pitch
        elif self._blind_at is None:  # closed eyes have no gaze: the last one stays
            left, right = face.gaze.tolist()
            both = [one + other for one, other in zip(left, right, strict=True)]
            self._direction = gaze_angles(both, face.frame_from_head)
        if self._zones:
            self._look_at_zones(time_s)
        return "head" if face.gaze is None else "gaze"

    def _look_at_zones(self, time_s: float) -> None:
        looks = self._blind_at is None or time_s - self._blind_at <= LONGEST_BLINK_S
        found = next((zone.name for zone in self._zones if looks and zone.holds(*self._direction)), None)
        since = self._off_at if self._zone is None else self._running["zone"][0]
        if since is None or since == time_s:  # of frames of one time, the last counts
            self._enter(found, time_s, time_s)
        elif found == self._zone:
            self._candidate = None
        elif self._candidate is None or self._candidate[0] != found:
            self._candidate = found, time_s
        if self._candidate is not None and time_s - self._candidate[1] >= DWELL_S:
            self._enter(found, self._candidate[1], time_s)
        if self._off_at is not None and time_s - self._off_at >= OFF_ZONE_S and "off_zone" not in self._running:
            self._begin("off_zone", self._off_at)

    def _enter(self, zone: str | None, since: float, time_s: float) -> None:
        self._candidate = None
        self._finish("zone", since)
        self._zone = zone
        self._off_at = since if zone is None else None
        if zone is not None:
            self._finish("off_zone", since)
            self._begin("zone", since, zone, confirmed=since < time_s)

    def _judge(self, perclos: float | None, time_s: float) -> None:
        """Move the level of drowsiness up at once, and down with hysteresis."""
        while self._yawns and time_s - self._yawns[0] > YAWNS_WINDOW_S:
            self._yawns.popleft()
        if self._level and "drowsiness" not in self._running:  # a gap has ended the event
            self._begin("drowsiness", time_s, LEVELS[self._level], confirmed=False)
        asleep = self._closed_at is not None and time_s - self._closed_at >= MICROSLEEP_S and self._deepest < CLOSED
        share = perclos or 0.0
        wanted = 2 if asleep or share >= DROWSY else 1 if share >= TIRED or len(self._yawns) >= YAWNS_TIRED else 0
        if wanted > self._level:
            self._move_to(wanted, time_s)
        elif wanted == self._level and wanted:
            self._rose_at = time_s
        elif wanted < self._level and time_s - self._rose_at >= STAYS_S:
            recovered = share < RECOVERS * (DROWSY if self._level == 2 else TIRED)
            if recovered:
                self._move_to(self._level - 1, time_s)

    def _move_to(self, level: int, time_s: float) -> None:
        self._finish("drowsiness", time_s)
        self._level, self._rose_at = level, time_s
        if level:
            self._begin("drowsiness", time_s, LEVELS[level], confirmed=False)


class Shares:
    """The share of the time within the last minute in which something was the case."""

    def __init__(self) -> None:
        self._bins: deque[_Bin] = deque()
        """Quarters of a second."""
        self._observed = self._true = 0
        """Sums of the bins, in microseconds: whole numbers, so that no rounding errors add up over months."""

    def add(self, time_s: float, seconds: float, true: bool) -> None:
        """Add the time since the last frame."""
        if not self._bins or time_s - self._bins[-1].begin_s >= BIN_S:
            self._bins.append(_Bin(time_s))
            while self._bins[0].begin_s < time_s - WINDOW_S:
                old = self._bins.popleft()
                self._observed -= old.observed
                self._true -= old.true
        newest, observed = self._bins[-1], round(seconds * 1e6)
        newest.observed += observed
        self._observed += observed
        if true:
            newest.true += observed
            self._true += observed

    @property
    def seconds(self) -> float:
        """Seconds observed within the window."""
        return self._observed / 1e6

    @property
    def share(self) -> float:
        """The share, 0 to 1."""
        return self._true / self._observed if self._observed else 0.0


@dataclass(slots=True)
class _Bin:
    """A stretch of time, with the microseconds observed and those of the case."""

    begin_s: float
    observed: int = 0
    true: int = 0


def crossing(before: float, now: float, level: float, time_s: float, seconds: float) -> float:
    """Return when a value crossed the level between the last frame, `seconds` ago, and this one, at `time_s`."""
    share = (now - level) / (now - before) if now != before else 0.0
    return time_s - seconds * min(max(share, 0.0), 1.0)

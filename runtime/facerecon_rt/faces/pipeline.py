"""Frames -> scenes: run the network on tracked faces, detect, read new faces and track; then write to the sinks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from ..align import box_from_square, box_overlap
from ..errors import UsageError
from ..types import Attention, Event, Face, Floats, Frame, Scene
from .budget import Budget, Shed
from .calibrate import Calibration
from .doubts import doubts
from .metric import Intrinsics, with_metric_pose
from .reconstruct import (
    SAME_FACE,
    Reconstructor,
    Sighting,
    check_picture,
    no_hints,
    off_faces,
    visible_area,
)
from .stages import Stages
from .streams import SMOOTH, Stream, Streams
from .track import Track, at_their_places, drifted, unknown
from .zones import Zone

log = logging.getLogger("facerecon_rt")

NO_ATTENTION: Mapping[int | None, Attention] = {}
NO_EVENTS: tuple[Event, ...] = ()
NOTHING = Shed()
"""State in which no work is skipped."""
FULL = 5
"""Factor by which the detector runs less often while the maximum number of faces is tracked."""
DETECT_EVERY = 10
"""Usual number of frames of a video or camera between two runs of the detector."""
FOUND_ONCE_CONFIDENCE = 0.8
"""Minimum confidence of a new face in a video or camera whose doubtful detection is the first at its place. Any other
begins when the detector finds it again in the next frame. In crowd_1080p.mp4, letters on a wall are found in a single
frame, and the FaceModel then reads them with a confidence of 0.68 to 0.73 as long as they are in view."""


class SceneSink(Protocol):
    """The interface of a sink for scenes. A sink that also has `write_events` gets the ends of events when their source
    has ended."""

    def write(self, scene: Scene) -> None:
        """Write one scene."""


@runtime_checkable
class SceneEventSink(SceneSink, Protocol):
    """A sink for scenes that also takes events alone."""

    def write_events(self, scene: Scene) -> None:
        """Write only the events of a scene, which has neither picture nor faces."""


@dataclass(slots=True)
class _Work:
    """One frame on its way to a scene."""

    frame: Frame
    stream: Stream | None = None
    """The state of its source; None for a photograph."""
    updated: Sequence[Track] = ()
    """Tracks whose faces are updated in this frame."""
    skipped: Sequence[Track] = ()
    """Visible tracks that are skipped in this frame to stay within the budget."""
    seen: list[Face] = field(default_factory=list)
    """Face found at the place of each updated track, in the same order."""
    scene_changed: bool = False
    """Whether much of the picture changed, so that there may have been a cut."""
    detected: Sequence[Sighting] = ()
    """Squares of the detector, if it ran on this frame."""
    new: Sequence[Face] = ()
    """Faces at detections that belong to no track yet."""
    stages: Stages = field(default_factory=Stages)
    """Time spent on this frame alone."""


class Pipeline:
    """A pipeline from frames to scenes: photographs one by one, frames of videos and cameras with tracking."""

    def __init__(
        self,
        reconstructor: Reconstructor,
        *,
        detect_every: int = DETECT_EVERY,
        max_faces: int | None = None,
        lens: Intrinsics | float | None = None,
        smooth: str = "off",
        budget_ms: float | None = None,
        calibration: Calibration | None = None,
        attention: Sequence[Zone] | None = None,
    ) -> None:
        """Set the options of the pipeline. Raises UsageError.

        - `detect_every`: number of frames between two runs of the detector. It also runs in the frame after a face is
          lost, and in every frame while there is no face.
        - `max_faces`: maximum number of faces; the largest are kept, and no scene tells anything of the others. While
          so many faces are tracked, the detector runs a fifth as often, unless outputs cover faces (`hints` of the
          Reconstructor).
        - `lens`: the camera's intrinsics, or its horizontal field of view in degrees. Adds `camera_from_head` to faces.
        - `smooth`: off, low or high. Smooths tracked faces, which adds a little lag.
        - `budget_ms`: time budget in ms per frame of a video or camera. When it is exceeded, work is skipped
          (`budget.Budget`) and recorded in the scenes. The detector keeps its pace where outputs cover faces.
        - `calibration`: neutral weights that are subtracted from expressions.
        - `attention`: zones, possibly none, with which tracked faces get their `attention` and scenes their events;
          None leaves both out.
        """
        if smooth not in SMOOTH:
            raise UsageError(f"unknown smoothing {smooth!r}; choose from {', '.join(SMOOTH)}")
        if max_faces is not None and max_faces < 1:
            raise UsageError(f"the maximum number of faces must be at least 1, got {max_faces}; None keeps all")
        if budget_ms is not None and not budget_ms > 0:
            raise UsageError(f"the time budget must be above 0 ms, got {budget_ms}; None has no budget")
        if lens is not None and not isinstance(lens, Intrinsics):
            Intrinsics.from_field_of_view(lens, 1, 1)  # checks the angle
        self.reconstructor = reconstructor
        self.detect_every = max(1, detect_every)
        self.max_faces = max_faces
        self.lens = lens
        self.calibration = calibration
        # Outputs that cover faces must cover a newcomer from the first frame, whatever it costs.
        self.budget = None if budget_ms is None else Budget(budget_ms, detector_first=not reconstructor.hints)
        self._streams = Streams(smooth, attention, limited=max_faces is not None)

    def process(self, frame: Frame) -> Scene:
        """Process one frame. Returns its scene."""
        return self.process_together([frame])[0]

    def process_together(self, frames: Sequence[Frame]) -> list[Scene]:
        """Process frames of different sources together. Returns their scenes.

        The network runs once for the tracked faces of all frames, and together for the newly detected faces of all
        frames.
        """
        shed = NOTHING if self.budget is None else self.budget.shed
        works = [self._work_on(frame, shed) for frame in frames]
        together = Stages()
        at_tracks = [[track.next_square() for track in work.updated] for work in works]
        images = [work.frame.image for work in works]
        for work, seen in zip(works, self.reconstructor.faces_at_each(images, at_tracks, together), strict=True):
            work.seen = seen
        for work in works:
            self._detect(work, shed)
        self._read_detections(works, together)
        return [self._scene(work, together.share(len(works), work.frame.capture_ms), shed) for work in works]

    def run(self, frames: Iterable[Frame], sinks: Sequence[SceneSink] = ()) -> Generator[Scene, None, None]:
        """Process frames one by one. Yields the scenes, each after it was written to every sink."""
        return self.run_together(([frame] for frame in frames), sinks)

    def run_together(
        self,
        groups: Iterable[Sequence[Frame]],
        sinks: Sequence[SceneSink] = (),
        lost: Callable[[], Sequence[str]] = tuple,
    ) -> Generator[Scene, None, None]:
        """Process groups of frames of different sources. Yields the scenes as `run` does. `lost`: function that returns
        the names of the live sources that were lost since it was last called; it is called after each group, which may
        be empty.

        Sinks that have `write_events` also get the ends of events whose source has ended or was lost, at the latest at
        the end of all sources, or when the caller closes the iterator.
        """
        try:
            for group in groups:
                for scene in self.process_together(group) if group else ():
                    for sink in sinks:
                        sink.write(scene)
                    yield scene
                for source in lost():
                    self._streams.lose(source)
                _write_events(sinks, self._streams.take_ended())
        except BaseException:
            # Its cause counts. A sink may have failed before, or be closed already.
            ends = self.ends()
            for sink in sinks:
                try:
                    _write_events([sink], ends)
                except Exception as error:  # whatever a sink raises
                    log.debug("events could not be ended: %s", error)
            raise
        _write_events(sinks, self.ends())

    def ends(self) -> list[Scene]:
        """End all events that are still running. Returns a scene without picture and faces for each source that has
        any. `run` and `run_together` call it at the end; after `process`, call it when all sources have ended."""
        return self._streams.end_all()

    def _work_on(self, frame: Frame, shed: Shed) -> _Work:
        """Decide which tracked faces to update in this frame, and which to skip."""
        check_picture(frame.image)
        if frame.still:
            return _Work(frame)
        stream = self._streams.of(frame)
        updated, skipped = _within_budget(stream, shed)
        return _Work(frame, stream, updated, skipped, scene_changed=stream.scenery.changed(frame.image))

    def _detect(self, work: _Work, shed: Shed) -> None:
        """Run the detector on the frame of a video or camera, if it is due, and note the squares it found."""
        stream = work.stream
        if stream is None:
            return
        tracker, confident = stream.tracker, self._confident(work.seen)
        stream.since_detection += 1
        lost = not confident or len(confident) < len(tracker.tracks) - len(tracker.behind) - len(work.skipped)
        full = self.max_faces is not None and len(confident) >= self.max_faces and not self.reconstructor.hints
        pairs = zip(work.updated, work.seen, strict=True)
        jumped = any(track.jumped(face) or (work.scene_changed and track.cut_to(face)) for track, face in pairs)
        due = stream.since_detection >= self.detect_every * (FULL if full else 1) * shed.interval
        if (
            due
            or ((lost or jumped or stream.found_once) and stream.since_detection >= shed.interval)
            or not tracker.tracks
        ):
            stream.since_detection = 0
            with work.stages.measure("detect"):
                stream.found_once = False
                stream.detected_before = no_hints(stream.detected)
                stream.detected = self.reconstructor.detect(work.frame.image)
            work.detected = no_hints(stream.detected)

    def _read_detections(self, works: Sequence[_Work], stages: Stages) -> None:
        """Reconstruct the detected faces of all frames together: first where a detection and a tracked face disagree,
        then faces that are not tracked yet."""
        found = [work for work in works if work.detected]
        if not found:
            return
        images = [work.frame.image for work in found]
        off = [drifted(work.detected, work.seen) for work in found]
        read = self.reconstructor.read_at(images, [[square for _, square in of] for of in off], stages)
        for work, of, faces in zip(found, off, read, strict=True):
            for (index, _), face in zip(of, faces, strict=True):
                if face.confidence > work.seen[index].confidence:
                    work.seen[index] = face
        squares = [unknown(work.detected, self._confident(work.seen), work.skipped) for work in found]
        new = self.reconstructor.read_at(images, squares, stages)
        for work, at, faces in zip(found, squares, new, strict=True):
            work.new = self.reconstructor.believed(at, faces)
            if work.stream is not None:
                pairs = [pair for pair in zip(at, faces, strict=True) if _is_sure(*pair, work.stream.detected_before)]
                sure = self.reconstructor.believed([one for one, _ in pairs], [face for _, face in pairs])
                work.stream.found_once = len(sure) < len(work.new)
                work.new = sure

    def _scene(self, work: _Work, stages: Stages, shed: Shed) -> Scene:
        """Return the scene of one frame after all its faces were reconstructed."""
        frame, stream = work.frame, work.stream
        stages.add(work.stages)
        if stream is None:
            found, doubted = self.reconstructor.faces_and_doubts(frame.image, stages)
            kept = self._largest(frame, found)
            missing = [*doubted, *boxes_beyond(kept, found)]
            return scene_of(self.reconstructor, frame, self._finished(frame, kept, stages), missing, stages)
        with stages.measure("post"):
            pairs = list(zip(work.updated, work.seen, strict=True))
            faces = stream.tracker.update(
                pairs,
                work.new,
                self.reconstructor.min_confidence,
                scene_changed=work.scene_changed,
                at_place=at_their_places(work.skipped, work.detected),
            )
            shown = self._largest(frame, faces)
            attention, events = NO_ATTENTION, NO_EVENTS
            if stream.watch is not None:
                # Smoothing would make blinks shallow, so the faces are watched before it.
                attention, events = stream.watch(shown, frame.time_s, stream.tracker.left)
            if stream.smoother is not None:
                faces = stream.smoother(faces, frame.time_s)
            seen = {face.track for face in faces}
            elsewhere = [track.wide_box for track in stream.tracker.tracks if track.number not in seen]
            elsewhere.extend(off_faces(stream.detected, faces))
        tracks = {face.track for face in shown}
        kept = tuple(face for face in faces if face.track in tracks)
        elsewhere += boxes_beyond(kept, faces)
        kept = self._finished(frame, kept, stages)
        entered, left = stream.entered_and_left(kept)
        left, events = (*stream.ended_tracks, *left), (*stream.ended_events, *events)
        scene = scene_of(self.reconstructor, frame, kept, elsewhere, stages, shed, attention, events, entered, left)
        stream.ended_tracks = stream.ended_events = ()
        if self.budget is not None:
            self.budget.note(sum(spent for stage, spent in stages.milliseconds.items() if stage != "capture"))
        return scene

    def _confident(self, faces: Sequence[Face]) -> list[Face]:
        return [face for face in faces if face.confidence >= self.reconstructor.min_confidence]

    def _largest(self, frame: Frame, faces: tuple[Face, ...]) -> tuple[Face, ...]:
        """Return the largest faces up to the limit, in their order."""
        if self.max_faces is None or len(faces) <= self.max_faces:
            return faces
        by_size = sorted(faces, key=lambda face: -visible_area(face, frame.size))
        return tuple(face for face in faces if any(face is kept for kept in by_size[: self.max_faces]))

    def _finished(self, frame: Frame, faces: tuple[Face, ...], stages: Stages) -> tuple[Face, ...]:
        """Return the faces with their metric pose where the lens is known, and calibrated."""
        if self.lens is not None and faces:
            with stages.measure("post"):
                faces = tuple(with_metric_pose(face, self.lens, frame.size) for face in faces)
        return faces if self.calibration is None else self.calibration(faces, frame)


def _is_sure(at: Sighting, face: Face, before: Sequence[Sighting]) -> bool:
    """Return whether a face needs no second detection, or the detector's run before found it too."""
    if not at.doubtful or face.confidence >= FOUND_ONCE_CONFIDENCE:
        return True
    box = box_from_square(at)
    return any(box_overlap(box, box_from_square(other)) >= SAME_FACE for other in before)


def _write_events(sinks: Sequence[SceneSink], scenes: Sequence[Scene]) -> None:
    for scene in scenes:
        for sink in sinks:
            if isinstance(sink, SceneEventSink):
                sink.write_events(scene)


def boxes_beyond(kept: Sequence[Face], found: Sequence[Face]) -> list[Floats]:
    """Return the boxes of the found faces that were not kept, since they exceed the maximum number."""
    boxes = {id(face.box) for face in kept}
    return [face.box for face in found if id(face.box) not in boxes]


def _within_budget(stream: Stream, shed: Shed) -> tuple[list[Track], list[Track]]:
    """Return the visible tracks to update in this frame, the largest first, and those to skip for the budget."""
    visible = stream.tracker.visible
    if shed.faces == 1:
        return visible, []
    visible = sorted(visible, key=lambda track: -track.next_square().side)
    most = shed.most_faces(len(visible))
    return visible[:most], visible[most:]


def scene_of(
    reconstructor: Reconstructor,
    frame: Frame,
    faces: tuple[Face, ...],
    elsewhere: Sequence[Floats],
    stages: Stages | None = None,
    shed: Shed = NOTHING,
    attention: Mapping[int | None, Attention] = NO_ATTENTION,
    events: tuple[Event, ...] = NO_EVENTS,
    entered: tuple[int, ...] = (),
    left: tuple[int, ...] = (),
) -> Scene:
    """Return the scene of a frame and its faces, with the doubts about each face, the attention by the number of its
    track, and the network that read them.

    `elsewhere`: boxes (4,) xyxy, pixels, of all other places where a face may be. Outputs that cover faces cover them
    too.
    """
    network, stages = reconstructor.network, stages or Stages()
    with stages.measure("post"):
        faces = tuple(
            replace(face, doubts=tuple(doubts(face, frame.image, faces)), attention=attention.get(face.track))
            for face in faces
        )
    return Scene(
        frame,
        faces,
        stages.milliseconds,
        network.provider,
        network.contract.precision,
        network.sha256,
        entered=entered,
        left=left,
        events=events,
        elsewhere=tuple(elsewhere),
        shed={"looks": shed.interval, "faces": shed.faces} if shed != NOTHING else None,
    )

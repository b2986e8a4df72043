"""Source -> detect -> track -> align -> network -> sinks: frames in, scenes out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..align import Square
from ..errors import UsageError
from ..types import Face, Frame, Scene
from .budget import Budget, Shed
from .metric import Intrinsics, with_metric_pose
from .reconstruct import Reconstructor
from .smooth import STRENGTHS, Smoother
from .stages import Stages
from .track import Track, Tracker, drifted, unknown

NOTHING = Shed()
"""Is left out."""
FULL = 5
"""Times as many frames between two looks for new faces while as many as are wanted are seen."""
SMOOTH = ("off", *STRENGTHS)
GAP_S = 2.0
"""That a camera may have been away: after longer, whoever is there may be somebody else."""
IDLE_FRAMES = 1000
"""Frames of other sources after which the tracks of one are forgotten: a folder may hold thousands of videos."""


class SceneSink(Protocol):
    """Whatever takes scenes."""

    def write(self, scene: Scene) -> None:
        """Take one."""


@dataclass(slots=True)
class _Stream:
    """What is remembered of one source."""

    tracker: Tracker
    since_detection: int
    """Frames since the last look for new faces."""
    smoother: Smoother | None
    last_frame: int = 0
    """Of all sources, when it was last seen."""
    last_s: float = 0.0
    """In its own time."""


class Pipeline:
    """Turns frames into scenes: photographs one by one, the frames of a video or camera with tracking."""

    def __init__(
        self,
        reconstructor: Reconstructor,
        *,
        detect_every: int = 10,
        max_faces: int | None = None,
        lens: Intrinsics | float | None = None,
        smooth: str = "off",
        budget_ms: float | None = None,
    ) -> None:
        """`detect_every`: frames between two looks for new faces; whenever a face is lost, or there is none, the next
        frame is looked at anyway. `max_faces`: the largest ones are kept, and while there are so many, looks for new
        ones are a fifth as frequent. `lens`: the camera's intrinsics, or its horizontal field of view in degrees;
        faces then have a `camera_from_head`. `smooth`: off, low or high: tracked faces are steadier, and lag a little.
        `budget_ms`: what a frame of a video or camera may take; where it takes more, load is shed (`budget.Budget`) and
        scenes say what. Raises UsageError.
        """
        if smooth not in SMOOTH:
            raise UsageError(f"there is no smoothing {smooth!r}; choose from {', '.join(SMOOTH)}")
        self.reconstructor = reconstructor
        self.detect_every = max(1, detect_every)
        self.max_faces = max_faces
        self.lens = lens
        self.smooth = smooth
        self.budget = None if budget_ms is None else Budget(budget_ms)
        self._streams: dict[str, _Stream] = {}
        """By source, the one not seen for longest first."""
        self._numbers: dict[str, int] = {}
        """Of the next track of sources that were forgotten or away: no number is given twice."""
        self._frames = 0

    def process(self, frame: Frame) -> Scene:
        """One frame -> its scene."""
        return self.process_together([frame])[0]

    def process_together(self, frames: Sequence[Frame]) -> list[Scene]:
        """Frames of different sources -> their scenes; the tracked faces of all of them are one run of the network."""
        shed = NOTHING if self.budget is None else self.budget.shed
        streams = [None if frame.still else self._stream_of(frame) for frame in frames]
        tracks = [_by_attention(stream, shed) for stream in streams]
        squares = [[track.next_square() for track in looked_at] for looked_at, _ in tracks]
        together = Stages()
        seen = self.reconstructor.faces_at_each([frame.image for frame in frames], squares, together)
        scenes = []
        for frame, stream, (looked_at, passed_over), of_frame in zip(frames, streams, tracks, seen, strict=True):
            stages = together.share(len(frames), frame.capture_ms)
            if stream is None:
                faces = self._kept(frame, self.reconstructor.faces(frame.image, stages), stages)
                scenes.append(scene_of(self.reconstructor, frame, faces, stages))
                continue
            faces = self._tracked(frame, stream, looked_at, passed_over, of_frame, shed, stages)
            faces = self._kept(frame, faces, stages)
            if self.budget is not None:
                self.budget.note(sum(spent for stage, spent in stages.milliseconds.items() if stage != "capture"))
            scenes.append(scene_of(self.reconstructor, frame, faces, stages, tracker=stream.tracker, shed=shed))
        return scenes

    def run(self, frames: Iterable[Frame], sinks: Sequence[SceneSink] = ()) -> Iterator[Scene]:
        """Frames -> scenes, each written to every sink before it is given."""
        return self.run_together(([frame] for frame in frames), sinks)

    def run_together(self, groups: Iterable[Sequence[Frame]], sinks: Sequence[SceneSink] = ()) -> Iterator[Scene]:
        """Groups of frames of different sources -> scenes, as of `run`."""
        for group in groups:
            for scene in self.process_together(group):
                for sink in sinks:
                    sink.write(scene)
                yield scene

    def _stream_of(self, frame: Frame) -> _Stream:
        """What is remembered of its source, now the one seen last; one not seen for too long is forgotten."""
        self._frames += 1
        stream = self._streams.pop(frame.source, None)
        # Time goes back where another camera took the name.
        if stream is not None and frame.live and not 0 <= frame.time_s - stream.last_s <= GAP_S:
            self._numbers[frame.source] = stream.tracker.next_number
            stream = None
        if stream is None:
            smoother = None if self.smooth == "off" else Smoother(STRENGTHS[self.smooth])
            tracker = Tracker(first_number=self._numbers.get(frame.source, 1))
            stream = _Stream(tracker, self.detect_every, smoother)
        stream.last_frame, stream.last_s = self._frames, frame.time_s
        self._streams[frame.source] = stream
        longest = next(iter(self._streams))
        if self._frames - self._streams[longest].last_frame > IDLE_FRAMES:
            self._numbers[longest] = self._streams.pop(longest).tracker.next_number
        return stream

    def _tracked(
        self,
        frame: Frame,
        stream: _Stream,
        looked_at: Sequence[Track],
        passed_over: Sequence[Track],
        seen: list[Face],
        shed: Shed,
        stages: Stages,
    ) -> tuple[Face, ...]:
        tracker = stream.tracker
        confident = [face for face in seen if face.confidence >= self.reconstructor.min_confidence]
        new: list[Face] = []
        stream.since_detection += 1
        lost = not confident or len(confident) < len(tracker.tracks) - len(tracker.behind) - len(passed_over)
        full = self.max_faces is not None and len(confident) >= self.max_faces
        jumped = any(track.jumped(face) or track.cut_to(face) for track, face in zip(looked_at, seen, strict=True))
        due = stream.since_detection >= self.detect_every * (FULL if full else 1) * shed.looks
        if due or ((lost or jumped) and stream.since_detection >= shed.looks) or not tracker.tracks:
            stream.since_detection = 0
            with stages.measure("detect"):
                squares = self.reconstructor.detect(frame.image)
            seen = self._corrected(frame, seen, squares, stages)
            confident = [face for face in seen if face.confidence >= self.reconstructor.min_confidence]
            unseen = unknown(squares, confident, passed_over)
            new = self.reconstructor.believed(unseen, self.reconstructor.first_look(frame.image, unseen, stages))
        with stages.measure("post"):
            pairs = list(zip(looked_at, seen, strict=True))
            faces = tracker.update(pairs, new, self.reconstructor.min_confidence)
            return faces if stream.smoother is None else stream.smoother(faces, frame.time_s)

    def _kept(self, frame: Frame, faces: tuple[Face, ...], stages: Stages) -> tuple[Face, ...]:
        """Those of the frame's faces that are wanted, with their place in the room where the lens is known."""
        if self.max_faces is not None and len(faces) > self.max_faces:
            by_size = sorted(faces, key=lambda face: float(face.box[0] - face.box[2]))
            faces = tuple(face for face in faces if any(face is kept for kept in by_size[: self.max_faces]))
        if self.lens is not None and faces:
            with stages.measure("post"):
                lens = self.lens
                if not isinstance(lens, Intrinsics):
                    lens = Intrinsics.from_field_of_view(lens, *frame.size)
                faces = tuple(with_metric_pose(face, lens) for face in faces)
        return faces

    def _corrected(self, frame: Frame, seen: list[Face], squares: list[Square], stages: Stages) -> list[Face]:
        """Tracked faces, one for one; where the detector sees a face a little elsewhere, the more confident of both."""
        corrected = list(seen)
        off = drifted(squares, seen)
        looks = self.reconstructor.first_look(frame.image, [square for _, square in off], stages)
        for (index, _), look in zip(off, looks, strict=True):
            if look.confidence > corrected[index].confidence:
                corrected[index] = look
        return corrected


def _by_attention(stream: _Stream | None, shed: Shed) -> tuple[list[Track], list[Track]]:
    """The tracks whose faces are looked at in this frame, and those that are passed over."""
    if stream is None:
        return [], []
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
    stages: Stages | None = None,
    tracker: Tracker | None = None,
    shed: Shed = NOTHING,
) -> Scene:
    """A frame and its faces, with what they were made by."""
    network = reconstructor.network
    return Scene(
        frame,
        faces,
        (stages or Stages()).milliseconds,
        network.provider,
        network.contract.precision,
        network.sha256,
        entered=tracker.entered if tracker else (),
        left=tracker.left if tracker else (),
        shed={"looks": shed.looks, "faces": shed.faces} if shed != NOTHING else None,
    )

"""Faces of one frame -> faces of the next, with track numbers, places to look at, and shapes averaged over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from ..align import CROP_SIDE_MM, Square, box_from_square, box_overlap, square_from_camera
from ..types import Face, Floats
from .cuts import Continuity
from .reconstruct import SAME_FACE
from .shapes import ShapeAverage

AnySquare = TypeVar("AnySquare", bound=Square)
AGREES = 0.6
"""Minimum overlap at which a detection and a tracked face agree."""
AGREES_RADIANS = 0.8
"""Maximum difference in roll, in radians, at which they agree. A head that lies on its side is easily read upside
down."""
MERGED = 0.5
"""Minimum overlap at which two tracks lie on one face. It is larger than SAME_FACE, because people pass each other."""
JUMP_SIDES = 0.25
JUMP_DEG = 25.0
"""Distance in crop sides, or angle in degrees, between two frames, from which a face may be another object and the
detector runs."""
JUMP_TRACE = 1 + 2 * math.cos(math.radians(JUMP_DEG))
"""Trace of the rotation between the two frames at this angle."""
STILL_SIDES = 0.03
STILL_SCALE = 0.03
STILL_RADIANS = 0.045
"""Maximum motion of a square (in sides, of its side, of its roll) at which it stays in place. Otherwise sensor noise
would move the crop and reappear as noise in the reconstruction."""
STRANGE_MM = 2.0
"""Distance in mm between two shapes that counts as much as a distance of a crop side."""
LONGEST_WALK = 25
"""Maximum number of frames for which an unseen face is assumed to move on."""
WALK_SIDES = 0.04
"""Growth of the box of a missed face per frame, as a share of its side. After 25 frames it has twice the side."""
REACH_SIDES = 0.75
"""Maximum distance in crop sides between a new face and the place of a track that was lost in the frame before. It
grows with the box of the missed face."""
HIDDEN = 100
"""Maximum number of frames that a face may be behind another, in addition to those that it may be unseen."""
NO_MOTION = (0.0, 0.0)
MOST_SKIPPED = 250
"""Number of frames after which a track that was skipped for lack of time is forgotten."""


class Track:
    """One person in front of one camera."""

    def __init__(self, number: int, face: Face) -> None:
        self.number = number
        self.missed = 0
        """Number of frames since the face was last seen."""
        self.seen = 0
        self.hidden = 0
        """Number of the missed frames in which another face was at this place."""
        self.hidden_by: Track | None = None
        """Track of the face that was last at this place while this track was missed."""
        self.skipped = 0
        """Number of frames since the face was last updated."""
        self._shape = ShapeAverage()
        self._steps = Continuity()
        self._located: tuple[Face, Square] | None = None
        self._square = self._seen_at = self._where(face)
        """Square to read next, and square of the head when last seen; they differ only by noise."""
        self._camera = face.frame_from_head
        """Camera (3, 4) of the head when last seen."""
        self._motion = NO_MOTION

    @property
    def unseen(self) -> int:
        """Number of frames since the face was last seen, whether it was missed or skipped."""
        return max(self.missed, self.skipped)

    def jumped(self, face: Face) -> bool:
        """Return whether the face found at this track's place moved or turned more than a head does in one frame."""
        square, expected = self._where(face), self.next_square()
        way = math.hypot(square.x - expected.x, square.y - expected.y) / expected.side
        # A camera is scale times a rotation. The trace of the rotation between two cameras is their inner product: 1 +
        # 2 cos(angle).
        scales = square.side * self._seen_at.side / CROP_SIDE_MM**2
        trace = float(np.vdot(face.frame_from_head[:, :3], self._camera[:, :3])) / scales
        return way > JUMP_SIDES or trace < JUMP_TRACE

    def cut_to(self, face: Face) -> bool:
        """Return whether the video was cut to this face, of another person, at the place of this track."""
        return self._steps.breaks(face)

    def _where(self, face: Face) -> Square:
        """Return the face's square. It is needed twice per frame, so the result is kept."""
        if self._located is None or self._located[0] is not face:
            self._located = (face, square_from_camera(face.frame_from_head))
        return self._located[1]

    def next_square(self) -> Square:
        """Return the expected square in the next frame, if the motion continues."""
        square = self._square
        if self.missed or self._motion == NO_MOTION:
            return square
        return Square(square.x + self._motion[0], square.y + self._motion[1], square.side, square.roll)

    @property
    def box(self) -> Floats:
        """Face box (4,) xyxy, frame pixels, when last seen."""
        return box_from_square(self._square)

    @property
    def wide_box(self) -> Floats:
        """Face box (4,) xyxy, frame pixels, within which the face is likely to be. It grows while the face is missed or
        skipped."""
        square, growth = self.next_square(), 1 + WALK_SIDES * min(self.unseen, LONGEST_WALK)
        return box_from_square(Square(square.x, square.y, square.side * growth))

    def distance(self, square: Square) -> float:
        """Return the distance in crop sides that a lost face would have moved, from its last place or along its last
        motion."""
        dx, dy = square.x - self._square.x, square.y - self._square.y
        # `_motion` is half a step.
        steps = 2.0 * min(self.unseen, LONGEST_WALK)
        walked_x, walked_y = (steps * half_step for half_step in self._motion)
        nearest = min(math.hypot(dx, dy), math.hypot(dx - walked_x, dy - walked_y))
        return nearest / max(square.side, self._square.side)

    @property
    def reach(self) -> float:
        """Maximum distance in crop sides at which a lost or skipped face is looked for: the longer it is unseen, the
        further it may have walked, as in `wide_box`."""
        return REACH_SIDES + WALK_SIDES / 2 * min(self.unseen, LONGEST_WALK)

    def estrangement(self, face: Face) -> float:
        """Return how much a face found elsewhere differs from this track's person in place and shape."""
        return self.distance(self._where(face)) + self.unlikeness(face)

    def strangeness(self, face: Face) -> float:
        """Return how much a face differs from this track's person in place, size and shape."""
        square, expected = self._where(face), self.next_square()
        way = math.hypot(square.x - expected.x, square.y - expected.y) / expected.side
        growth = abs(math.log(square.side / expected.side))
        return way + growth + self.unlikeness(face)

    def unlikeness(self, face: Face) -> float:
        """Return the difference between the shapes of the track and the face. A value of 1 counts as much as a crop
        side of distance."""
        return self._shape.distance_mm(face.shape) / STRANGE_MM

    def hide_behind(self, front: Track) -> None:
        """Count a frame in which the face of another track is at the place of this missed one."""
        self.hidden_by, self.hidden = front, min(self.hidden + 1, HIDDEN)

    def update(self, face: Face) -> Face:
        """Add the face of this frame. Returns it with the track's number and its shape averaged over time.

        Expression, pose and landmarks stay the frame's own; vertices are the averaged shape with that expression.
        """
        square = self._where(face)
        known = bool(self.seen) and not self.unseen
        self._motion = NO_MOTION
        if not (known and still(self._square, square)):
            if known:
                # Half of the last step follows a walking person, and does not overshoot when the head stops.
                self._motion = (0.5 * (square.x - self._seen_at.x), 0.5 * (square.y - self._seen_at.y))
            self._square = square
        self._seen_at = square
        self._camera = face.frame_from_head
        self._steps.add(face, follows=known)
        self.missed = self.hidden = self.skipped = 0
        self.hidden_by = None
        self.seen += 1
        shape, spread = self._shape.add(face.shape, face.confidence)
        vertices = shape + (face.vertices - face.shape)
        return replace(face, track=self.number, shape=shape, vertices=vertices, spread_mm=spread)


def still(before: Square, now: Square) -> bool:
    """Return whether a head moved so little that the previous square still fits."""
    way = math.hypot(now.x - before.x, now.y - before.y) / before.side
    roll = math.remainder(now.roll - before.roll, 2 * math.pi)
    return way < STILL_SIDES and abs(math.log(now.side / before.side)) < STILL_SCALE and abs(roll) < STILL_RADIANS


def drifted(squares: Sequence[Square], faces: Sequence[Face]) -> list[tuple[int, Square]]:
    """Return the faces that a detection overlaps without agreement: their indices, and the squares to read again."""
    found = []
    for index, face in enumerate(faces):
        overlaps = [(box_overlap(box_from_square(square), face.box), square) for square in squares]
        best, square = max(overlaps, key=lambda pair: pair[0], default=(0.0, None))
        if square is None or best < SAME_FACE:
            continue
        turn = math.remainder(square.roll - square_from_camera(face.frame_from_head).roll, 2 * math.pi)
        if best < AGREES or abs(turn) > AGREES_RADIANS:
            found.append((index, square))
    return found


def unknown(squares: Sequence[AnySquare], faces: Sequence[Face], skipped: Sequence[Track] = ()) -> list[AnySquare]:
    """Return the detected squares that lie on no face already seen in the frame, and on no skipped track."""
    taken = [face.box for face in faces] + [box_from_square(track.next_square()) for track in skipped]
    boxes = [box_from_square(square) for square in squares]
    return [
        square
        for square, box in zip(squares, boxes, strict=True)
        if all(box_overlap(box, other) < SAME_FACE for other in taken)
    ]


def at_their_places(tracks: Sequence[Track], squares: Sequence[AnySquare]) -> list[Track]:
    """Return the skipped tracks at whose places there is a detected square."""
    boxes = [box_from_square(square) for square in squares]
    places = [box_from_square(track.next_square()) for track in tracks]
    return [
        track
        for track, place in zip(tracks, places, strict=True)
        if any(box_overlap(box, place) >= SAME_FACE for box in boxes)
    ]


def one_each(pairs: Sequence[tuple[Track, Face]]) -> list[tuple[Track, Face]]:
    """Remove the pairs of a track and a face whose face belongs to another track.

    Where two people cross, both tracks find the face in front, and the track that resembles this face keeps it.
    """
    if len(pairs) < 2:
        return list(pairs)
    kept: list[tuple[Track, Face]] = []
    for pair in sorted(pairs, key=lambda pair: pair[0].strangeness(pair[1])):
        if all(box_overlap(pair[1].box, other.box) < MERGED for _, other in kept):
            kept.append(pair)
    return [pair for pair in pairs if any(pair is other for other in kept)]


def come_out(found: list[tuple[Track, Face]], lost: Track, face: Face) -> None:
    """Add a lost track with the face that is new in its reach to the pairs of this frame.

    While two people are at one place, a track may go over to the other person. When the person behind comes out, both
    faces are therefore compared with both tracks, and the pairing that differs less in place and shape counts.
    """
    for index, (other, seen) in enumerate(found):
        if other is not lost.hidden_by:
            continue
        exchanged = other.estrangement(face) + lost.estrangement(seen)
        if exchanged < other.estrangement(seen) + lost.estrangement(face):
            other.missed = 1  # its person did not walk from one face to the other
            found[index], face = (other, face), seen
    found.append((lost, face))


def _in_front_of(track: Track, found: Sequence[tuple[Track, Face]]) -> Track | None:
    """Return the track whose face of this frame is at the place of a missed track; None without one."""
    return next((other for other, face in found if box_overlap(track.box, face.box) >= SAME_FACE), None)


class Tracker:
    """The tracks of one source."""

    def __init__(self, *, forget_after: int = 25, first_number: int = 1) -> None:
        """Start without tracks.

        `forget_after`: number of frames that a face may be unseen and keep its number, in addition to the frames
        (`HIDDEN` at most) in which it is behind another face. `first_number`: number of the first track.
        """
        self.tracks: list[Track] = []
        self.entered: tuple[int, ...] = ()
        """Numbers of the tracks that began in the newest frame."""
        self.left: tuple[int, ...] = ()
        """Numbers of the tracks that ended in it: their faces were unseen for too long, or there was a cut."""
        self.behind: tuple[Track, ...] = ()
        """Tracks whose faces are unseen because other faces are at their places."""
        self._forget_after = forget_after
        self.next_number = first_number
        """Number of the next track."""

    @property
    def visible(self) -> list[Track]:
        """Tracks whose face was seen in the last frame."""
        return [track for track in self.tracks if not track.missed]

    def update(
        self,
        seen: Sequence[tuple[Track, Face]],
        new: Sequence[Face],
        min_confidence: float,
        *,
        scene_changed: bool = True,
        at_place: Sequence[Track] = (),
    ) -> tuple[Face, ...]:
        """Update the tracks with the faces of this frame. Returns the faces with their numbers: first those of
        `seen`, in its order, then faces of new tracks and of tracks that are found again.

        `seen`: each updated track with the face found at its place. `new`: faces at detections that are `unknown`. A
        face below `min_confidence`, or on top of another track's face that it resembles more, counts as unseen. A new
        face near a lost or skipped track continues that track. After a cut to another person, the track ends and a new
        track begins; where `scene_changed` is false (`cuts.Scenery`), nothing counts as a cut. `at_place`: skipped
        tracks at whose places a face was detected, so that a new face is somebody else.
        """
        found = one_each([(track, face) for track, face in seen if face.confidence >= min_confidence])
        for track, _ in seen:
            track.missed += all(track is not other for other, _ in found)
        for track in self.tracks:
            if all(track is not other for other, _ in seen):
                track.skipped += not track.missed
                track.missed += track.missed > 0 or track.skipped > MOST_SKIPPED
        cut = [pair for pair in found if scene_changed and pair[0].cut_to(pair[1])]
        self.tracks = [track for track in self.tracks if all(track is not ended for ended, _ in cut)]
        found = [pair for pair in found if all(pair is not other for other in cut)]
        for face in [*(face for _, face in cut), *new]:
            elsewhere = all(box_overlap(face.box, other.box) < SAME_FACE for _, other in found)
            if face.confidence >= min_confidence and elsewhere:
                lost = self._lost_near(face, [*at_place, *(track for track, _ in found)], scene_changed)
                if lost is None:
                    found.append((self._start(face), face))
                else:
                    come_out(found, lost, face)
        faces = tuple(track.update(face) for track, face in found)
        self.entered = tuple(track.number for track, _ in found if track.seen == 1)
        hiding = [(track, _in_front_of(track, found)) for track in self.tracks if track.missed]
        self.behind = tuple(track for track, front in hiding if front is not None)
        for track, front in hiding:
            if front is not None:
                track.hide_behind(front)
        left = [track for track in self.tracks if track.missed - track.hidden > self._forget_after]
        self.left = tuple(track.number for track in [*(ended for ended, _ in cut), *left])
        self.tracks = [track for track in self.tracks if track.missed - track.hidden <= self._forget_after]
        return faces

    def _lost_near(self, face: Face, taken: Sequence[Track], scene_changed: bool) -> Track | None:
        """Return the lost or skipped track that has the face in reach, is of similar size and differs least from it in
        place and shape; None without one."""
        square = square_from_camera(face.frame_from_head)
        near = []
        for track in self.tracks:
            distance, alike = track.distance(square), 0.5 < square.side / track.next_square().side < 2.0
            somebody_else = scene_changed and track.unseen == 1 and track.cut_to(face)
            free = track.unseen and all(track is not other for other in taken)
            if free and alike and distance < track.reach and not somebody_else:
                near.append((track.estrangement(face), track.number, track))
        return min(near)[2] if near else None

    def _start(self, face: Face) -> Track:
        track = Track(self.next_number, face)
        self.next_number += 1
        self.tracks.append(track)
        return track

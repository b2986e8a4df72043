"""Scenes -> the best pictures of every person, from which colour maps are made."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from ..faces.doubts import sharpness
from ..pose import euler_from_camera, split_camera
from ..template import FaceTemplate
from ..types import Face, Floats, Frame, Image, Scene, face_label
from .texture import View, colour_map, view_of

log = logging.getLogger("facerecon_rt")

DIRECTIONS = ((0, 0), (0, 30), (0, -30), (0, 60), (0, -60), (25, 0), (-25, 0))
"""Pitch and yaw in degrees. The pictures that are kept of a person are the best near each direction."""
BETTER = 1.1
"""Factor by which a picture must be better than the one that it replaces, so that few are encoded."""
SHARP = 25.0
"""Standard deviation of the Laplacian of the aligned face, in grey levels, from which a picture is as sharp as it
counts."""
AT_REST_MM = 3.0
"""Mean movement of the face by its expression in mm, at which a picture counts half. The lips of an open mouth show
teeth."""
DOUBTFUL = 0.3
"""Factor for a picture of a covered or cut face."""
MOST_PEOPLE = 100
"""Maximum number of people whose pictures are kept at the same time, up to 5 MB each."""
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """A picture of a face: its view, with the image as JPEG."""

    jpeg: bytes
    image_from_head: Floats
    vertices: Floats
    worth: float

    def view(self) -> View:
        image = np.asarray(cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), cv2.IMREAD_COLOR), np.uint8)
        return View(image, self.image_from_head, self.vertices, self.worth)


class Look:
    """The best pictures of one person. Their number is bounded, however many are added."""

    def __init__(self, size: int, each: int = 1) -> None:
        """Start without pictures.

        `size`: side of the colour map in pixels. `each`: number of pictures that are kept of each of seven directions.
        """
        self._size = size
        self._each = each
        self._kept: dict[tuple[int, int], list[_Kept]] = {}

    def add(self, face: Face, frame: Frame) -> None:
        """Keep the face's part of the frame if it is one of the best pictures of its direction."""
        pitch, yaw, _ = euler_from_camera(face.frame_from_head)
        direction = min(DIRECTIONS, key=lambda at: (at[0] - pitch) ** 2 + (at[1] - yaw) ** 2)
        kept = self._kept.setdefault(direction, [])
        least = 0.0 if len(kept) < self._each else kept[-1].worth * BETTER
        worth = self._worth(face)
        if worth <= least:
            return
        worth *= min(1.0, sharpness(face, frame.image) / SHARP)
        view = view_of(face, frame, self._size * 3 // 2, worth)
        if worth > least and view.image.size:
            _, data = cv2.imencode(".jpg", view.image, QUALITY)
            kept.append(_Kept(data.tobytes(), view.image_from_head, view.vertices.copy(), worth))
            kept.sort(key=lambda one: -one.worth)
            del kept[self._each :]

    def _worth(self, face: Face) -> float:
        """Return how well a picture shows a face, 0 to 1, before its sharpness is measured."""
        scale, _, _ = split_camera(face.frame_from_head)
        # A colour map has about so many pixels per mm.
        resolution = min(1.0, scale / (self._size / 200))
        moved = float(np.sqrt(((face.vertices - face.shape) ** 2).sum(1).mean()))
        doubtful = DOUBTFUL if {"covered", "cut off"} & set(face.doubts) else 1.0
        return face.confidence * resolution * doubtful / (1 + moved / AT_REST_MM)

    def texture(self, template: FaceTemplate) -> Image | None:
        """Return the colour map (S, S, 3) uint8 BGR; None where no picture was kept."""
        return colour_map(self, template, self._size) if any(self._kept.values()) else None

    def __iter__(self) -> Iterator[View]:
        """Yield the views one by one: those from the front first, and the best first in each direction."""
        for direction in DIRECTIONS:
            for kept in self._kept.get(direction, ()):
                yield kept.view()


class Looks:
    """The looks of all tracks of all sources."""

    def __init__(self, size: int, template: FaceTemplate) -> None:
        """Start without tracks. `size`: side of the colour maps in pixels."""
        self._size = size
        self._template = template
        self._looks: dict[tuple[str, str], Look] = {}
        self._said = False

    def see(self, scene: Scene) -> None:
        """Keep the best pictures of the faces in a frame of a video or camera."""
        for index, face in enumerate(scene.faces):
            key = scene.frame.source, face_label(index, face)
            if key not in self._looks and len(self._looks) >= MOST_PEOPLE:
                if not self._said:
                    log.warning("colours are kept for %d people; further people have none", MOST_PEOPLE)
                self._said = True
                continue
            self._looks.setdefault(key, Look(self._size)).add(face, scene.frame)

    def of_photograph(self, face: Face, frame: Frame) -> Image:
        """Return the colour map of a face of a photograph."""
        return colour_map([view_of(face, frame)], self._template, self._size)

    def take(self, source: str, label: str) -> Image | None:
        """Return the colour map of a track and forget it; None where there is no picture of the track."""
        look = self._looks.pop((source, label), None)
        return None if look is None else look.texture(self._template)

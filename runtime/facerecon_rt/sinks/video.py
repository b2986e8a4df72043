"""Scenes -> an annotated video file."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from ..errors import UsageError
from ..paths import exists
from ..types import Frame, Image, Scene
from .draw import Painter
from .outputs import Partial, Rotation, cannot_write, check_no_input, check_writable, remove_abandoned, source_path
from .video_writer import VideoWriter, open_writer

log = logging.getLogger("facerecon_rt")

DEFAULT_FPS = 25.0
LONGEST_GAP = 250
"""Maximum number of frames for which the last picture is repeated when frames of a file are missing."""
LONGEST_LOSS_S = 60.0
"""Maximum time in seconds for which the last picture of a camera stays. A longer loss is shortened to it."""
SLACK = 0.8
"""Number of frames by which a camera's frame may come early or late and still be the next frame of the file. No camera
is exact."""


class VideoSink:
    """A sink that writes one video. It has the size of the first frame; later frames of another size are fitted between
    black bars.

    The video keeps the time of its source. A live source skips frames, is lost, and may give more or fewer frames per
    second than it announces: the picture before a gap stays, and frames that come too early are dropped.
    """

    def __init__(self, path: Path, paint: Painter, rotation: Rotation | None = None) -> None:
        """Check the path. Raises UsageError when the file cannot be written.

        `paint`: function that draws a scene. `rotation`: rule for continuing the video in a new file.
        """
        check_writable(path)
        remove_abandoned(path)
        self.path = path
        self._partial: Partial | None = None
        self._paint = paint
        self._rotation = rotation
        self._writer: VideoWriter | None = None
        self._said = False
        self._size = (0, 0)
        self._fps = DEFAULT_FPS
        self._last: tuple[Frame, Image] | None = None
        self._next = 0
        """Number of the next frame in the file."""
        self._began = (0, 0.0)
        """Frame number in the file at which the current source began, and the source's time then, in seconds."""

    def __enter__(self) -> VideoSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, scene: Scene) -> None:
        """Append the scene's picture. Raises UsageError when the video cannot be encoded."""
        frame = scene.frame
        try:
            check_no_input(self.path, {source_path(frame.source)})
        except UsageError:
            self._discard()
            raise
        picture = self._paint(scene)
        writer = self._writer or self._open(picture, frame)
        picture = fit(picture, self._size)
        last, self._last = self._last, (frame, picture)
        try:
            if last is not None and last[0].source != frame.source:
                writer.mute()  # the sound belongs to the first source
                self._began = (self._next, frame.time_s)
            number = self._live_number(last, frame) if frame.live else self._number(frame)
            if number < self._next:
                return
            if last is not None:
                # The picture is fitted, since a new file may have another size.
                before = fit(last[1], self._size)
                missing = number - self._next if frame.live else _skipped(last[0], frame)
                # Repeating takes as long as encoding: a camera that announces more frames than it gives would never be
                # caught up with.
                for _ in range(0 if frame.live and writer.places else missing):
                    self._append(writer, before, self._next)
            self._append(writer, picture, max(number, self._next))
        except OSError as error:
            raise cannot_write(self.path, error) from error
        if self._rotation is not None and self._partial and self._rotation.due(self._partial.path.stat().st_size):
            self.close()

    def close(self) -> None:
        """Finish the file and give it its name. Raises UsageError when the file is incomplete."""
        if self._writer is None or self._partial is None:
            return
        writer, self._writer = self._writer, None
        self._next = 0
        try:
            writer.close()
        except OSError as error:
            self._partial.leave()
            raise cannot_write(self.path, error) from error
        if self._rotation is not None and exists(self.path):
            self._rotation.set_aside(self.path)  # also a file of an earlier run
        self._partial.finish()
        if not self._said:
            self._said = True
            log.info("%s: %s", self.path, writer.codec)

    def _discard(self) -> None:
        """Drop the video that has begun."""
        writer, self._writer = self._writer, None
        if writer is not None and self._partial is not None:
            with suppress(OSError):
                writer.close()
            self._partial.discard()

    def _open(self, picture: Image, frame: Frame) -> VideoWriter:
        height, width = picture.shape[:2]
        # Video codecs require even sides.
        self._size = (max(2, width - width % 2), max(2, height - height % 2))
        self._fps = frame.fps or DEFAULT_FPS
        self._began = (0, frame.time_s)
        sound_of = None if frame.still or frame.live or self._rotation is not None else Path(frame.source)
        self._partial = Partial(self.path)
        try:
            self._writer = open_writer(self._partial.path, self._fps, self._size, sound_of)
        except OSError as error:
            self._partial.discard()
            raise cannot_write(self.path, error) from error
        if self._writer is None:
            self._partial.discard()
            raise UsageError(f"this OpenCV cannot encode {self.path.suffix} with {width}x{height} pixels; try .avi")
        return self._writer

    def _number(self, frame: Frame) -> int:
        """Return the frame's number in the file. A video's frame is placed by its time, so that it stays with the
        sound."""
        if frame.still:
            return self._next
        number, time_s = self._began
        timely = number + round((frame.time_s - time_s) * self._fps)
        return min(max(timely, self._next), self._next + LONGEST_GAP)

    def _live_number(self, last: tuple[Frame, Image] | None, frame: Frame) -> int:
        """Return the number in the file of a live source's frame, by its time. A number below `_next` drops it."""
        number, time_s = self._began
        timely = number + (frame.time_s - time_s) * self._fps
        most = self._next + round(LONGEST_LOSS_S * self._fps)
        if timely > most or (last is not None and frame.time_s < last[0].time_s):
            number = min(max(round(timely), self._next), most)
            self._began = (number, frame.time_s)
            return number
        return self._next if abs(timely - self._next) <= SLACK else round(timely)

    def _append(self, writer: VideoWriter, picture: Image, number: int) -> None:
        writer.write(picture, number)
        self._next = number + 1


def fit(picture: Image, size: tuple[int, int]) -> Image:
    """Fit the picture to (width, height): cut off at most a pixel, else scale it to fit between black bars."""
    width, height = size
    if picture.shape[1] - width in (0, 1) and picture.shape[0] - height in (0, 1):
        return np.ascontiguousarray(picture[:height, :width])
    scale = min(width / picture.shape[1], height / picture.shape[0])
    inner = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    fitted = np.zeros((height, width, 3), np.uint8)
    shrink = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    fitted[top : top + inner[1], left : left + inner[0]] = cv2.resize(picture, inner, interpolation=shrink)
    return fitted


def _skipped(last: Frame, now: Frame) -> int:
    """Return the number of frames that the source skipped between two of its frames."""
    if now.still or last.source != now.source:
        return 0
    return min(max(now.index - last.index - 1, 0), LONGEST_GAP)

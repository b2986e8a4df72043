"""Pictures and the sound of a video -> a video file, written by PyAV as H.264, which browsers play (extra `video`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
from av.container import InputContainer

from ..errors import SourceError
from ..sources.video_av import largest_video, open_container
from ..types import Image

H264 = {"libx264": {"preset": "veryfast", "crf": "20"}, "libopenh264": {}}
"""FFmpeg's encoders with their options, best first. PyAV's wheels bring the first."""
BITS_PER_PIXEL = 2.4
"""Maximum bit rate of MPEG-4 part 2, in bits for each pixel of each frame."""
Packet = Any
"""Type of av.Packet, which only type checkers see as generic."""
LONGEST_DENOMINATOR = 1001
"""Maximum denominator of a frame rate: that of 30000/1001, television's 29.97."""


class AvWriter:
    """A VideoWriter that keeps the sound and reports disk errors."""

    places = True

    def __init__(self, path: Path, fps: float, size: tuple[int, int], sound_of: Path | None = None) -> None:
        """Begin the file. Raises OSError when it cannot be written."""
        self._path = path
        self._rate = Fraction(fps).limit_denominator(LONGEST_DENOMINATOR)
        self._size = size
        self._end_s = 0.0
        """Time in seconds at which the last written picture ends."""
        self._sound = None if sound_of is None else _Sound.open(sound_of)
        self._audio: av.AudioStream | None = None
        name = self._begin()
        if self._sound is None:
            self.codec = name
        elif self._audio is not None:
            self.codec = f"{name}, with the sound of {sound_of}"
        else:
            self.codec = f"{name}, without the sound of {sound_of}: {path.suffix} does not hold {self._sound.codec}"
            self.mute()

    def _begin(self) -> str:
        """Write the header, with the sound if the container can hold it. Returns the common name of the codec."""
        name, encoder, options = _encoder(self._path.suffix.lower(), self._size, float(self._rate))
        for sound in (self._sound, None):
            with _as_os_error():
                self._container = av.open(str(self._path.absolute()), "w")
                stream = self._container.add_stream(encoder, rate=self._rate, options=options)
            self._video = cast(av.VideoStream, stream)
            self._video.width, self._video.height = self._size
            self._video.pix_fmt = "yuv420p"
            if sound is not None:
                if sound.codec not in self._container.supported_codecs:
                    continue
                self._audio = self._container.add_stream_from_template(sound.stream)
            try:
                with _as_os_error():
                    self._container.start_encoding()
                break
            except OSError:
                if sound is None:
                    raise
                self._audio = None  # the sound may be the cause
        return name

    def write(self, picture: Image, number: int) -> None:
        """Append a picture, and the sound up to its end. Raises OSError."""
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
        frame.pts, frame.time_base = number, 1 / self._rate
        self._end_s = float((number + 1) / self._rate)
        with _as_os_error():
            self._container.mux(self._video.encode(frame))
        self._write_sound()

    def mute(self) -> None:
        """Write no more sound."""
        if self._sound is not None:
            self._sound.close()
            self._sound = None

    def close(self) -> None:
        """Finish the file. Raises OSError when it is incomplete."""
        try:
            with _as_os_error():
                self._container.mux(self._video.encode(None))
        finally:
            self.mute()
            with _as_os_error():
                self._container.close()

    def _write_sound(self) -> None:
        if self._sound is None or self._audio is None:
            return
        for packet in self._sound.until(self._end_s):
            packet.stream = self._audio
            try:
                self._container.mux(packet)
            except av.FFmpegError as error:
                if isinstance(error, OSError):
                    raise OSError(error.errno, error.strerror) from error
                self.mute()  # the sound is damaged: its time stamps go backwards
                return


class _Sound:
    """The sound of a video file, as undecoded packets."""

    def __init__(self, container: InputContainer) -> None:
        self.stream = container.streams.audio[0]
        self.codec = self.stream.codec_context.name
        self._container = container
        self._packets = container.demux(self.stream)
        self._next: Packet | None = None
        video = largest_video(container)
        start = Fraction(0)
        if video is not None and video.start_time is not None and video.time_base is not None:
            start = video.start_time * video.time_base
        self._start = start
        """Time of the first picture in the file, in seconds."""

    @classmethod
    def open(cls, path: Path) -> _Sound | None:
        """Open the sound of a file. Returns None where there is none that can be read."""
        try:
            container = open_container(path)
        except SourceError:
            return None
        if container.streams.audio and container.streams.audio[0].codec_context is not None:
            return cls(container)
        container.close()
        return None

    def until(self, end_s: float) -> Iterator[Packet]:
        """Yield the remaining packets before `end_s`, in seconds since the first picture."""
        while True:
            if self._next is None:
                try:
                    self._next = self._shifted(next(self._packets))
                except (StopIteration, av.FFmpegError):
                    return
                continue
            packet = self._next
            if packet.pts is None or packet.time_base is None or float(packet.pts * packet.time_base) >= end_s:
                return
            self._next = None
            yield packet

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _shifted(self, packet: Packet) -> Packet | None:
        """Return the packet with times since the first picture; None for a packet before it or without a time."""
        if packet.pts is None or packet.dts is None or packet.time_base is None:
            return None
        shift = round(self._start / packet.time_base)
        packet.pts -= shift
        packet.dts -= shift
        return packet if packet.pts >= 0 else None


def _encoder(suffix: str, size: tuple[int, int], fps: float) -> tuple[str, str, dict[str, str]]:
    """Return the common name of the codec, FFmpeg's name of the encoder, and its options."""
    if suffix != ".avi":  # AVI cannot store the frame order of H.264
        for encoder, options in H264.items():
            if encoder in av.codecs_available:
                return f"H.264 ({encoder})", encoder, options
    bits = round(BITS_PER_PIXEL * size[0] * size[1] * fps)
    return "MPEG-4 part 2, which browsers do not play", "mpeg4", {"b": str(bits), "qmin": "3"}


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Convert FFmpeg's errors to OSError."""
    try:
        yield
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error

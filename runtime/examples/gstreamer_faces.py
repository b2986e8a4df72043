"""A GStreamer pipeline -> this package -> another GStreamer pipeline: annotated pictures, and records beside them.

    sudo apt install python3-gst-1.0 gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-good gstreamer1.0-libav
    python3 -m venv --system-site-packages .venv && .venv/bin/pip install '.[cpu]'
    .venv/bin/python runtime/examples/gstreamer_faces.py 'filesrc location=video.mp4 ! decodebin' \
        'appsrc name=pictures ! videoconvert ! x264enc ! mp4mux ! filesink location=out.mp4
         appsrc name=records ! filesink location=records.jsonl'

Both arguments are pipelines as gst-launch-1.0 takes them. The second has an appsrc named `pictures`, one named
`records`, or both. Each record has the time stamp of its picture, so that a muxer can put both into one file: link it
with `appsrc name=records ! mux.subtitle_0`, where `mux` is the name of a matroskamux.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from facerecon_rt import FaceReconError, Frame, Pipeline, Reconstructor, SourceError, UsageError, record_from_scene
from facerecon_rt.commands.arguments import Parser, model_file
from facerecon_rt.shipped import DEFAULT_ON_CPU, model_path
from facerecon_rt.sinks.draw import STYLES, draw_scene
from facerecon_rt.sinks.hide import is_cover
from facerecon_rt.sinks.record import as_json
from facerecon_rt.types import Image

APT = "sudo apt install python3-gst-1.0 gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-good gstreamer1.0-libav"
try:
    import gi
except ModuleNotFoundError:
    sys.exit(f"gstreamer_faces: this Python has no gi; {APT}, and make the venv with --system-site-packages")
gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
from gi.repository import GLib, Gst, GstApp  # noqa: E402, F401  GstApp gives appsink and appsrc their methods

TAKEN = "videoconvert ! video/x-raw,format=BGR ! appsink name=frames sync=false max-buffers=2"
RECORDS = "text/x-raw,format=utf8"
WAIT = Gst.SECOND // 5


def launched(description: str) -> Any:
    """Return the pipeline of a description. Raises UsageError."""
    try:
        return Gst.parse_launch(description)
    except GLib.Error as error:
        raise UsageError(f"cannot make the pipeline {description!r}: {error.message}") from error


def check(pipeline: Any) -> None:
    """Raise SourceError if an element of the pipeline has failed."""
    message = pipeline.get_bus().pop_filtered(Gst.MessageType.ERROR)
    if message is not None:
        error, _ = message.parse_error()
        lacks = "missing a plug-in" in error.message
        advice = "; for most decoders: sudo apt install gstreamer1.0-libav" if lacks else ""
        raise SourceError(f"GStreamer's {message.src.get_name()} fails: {error.message}{advice}")


def frames(pipeline: Any, *, live: bool) -> Iterator[tuple[Frame, Any]]:
    """Yield the frames of a pipeline that ends in `TAKEN`, each with its Gst.Buffer. Raises SourceError."""
    sink, index = pipeline.get_by_name("frames"), 0
    while not sink.is_eos():
        check(pipeline)
        sample = sink.try_pull_sample(WAIT)
        if sample is None:
            continue
        buffer, shape = sample.get_buffer(), sample.get_caps().get_structure(0)
        width, height = shape.get_value("width"), shape.get_value("height")
        _, mapped = buffer.map(Gst.MapFlags.READ)
        rows = np.frombuffer(mapped.data, np.uint8).reshape(height, -1)  # GStreamer pads rows to whole 32-bit words
        image = np.ascontiguousarray(rows[:, : width * 3]).reshape(height, width, 3).copy()
        buffer.unmap(mapped)
        yield (
            Frame(image, "gstreamer", index, buffer.pts / Gst.SECOND, time.monotonic(), still=False, live=live),
            buffer,
        )
        index += 1
    check(pipeline)


def push(source: Any, content: bytes, like: Any) -> None:
    """Put bytes into an appsrc, with the time stamps of the buffer `like`."""
    buffer = Gst.Buffer.new_wrapped(content)
    buffer.pts, buffer.duration = like.pts, like.duration
    source.push_buffer(buffer)


def padded(image: Image) -> bytes:
    """Return the pixels (H, W, 3) uint8 BGR with rows padded to whole 32-bit words."""
    return np.pad(image.reshape(len(image), -1), ((0, 0), (0, -image.shape[1] * 3 % 4))).tobytes()


def run(reconstructor: Reconstructor, taking: Any, giving: Any, style: str) -> int:
    """Run both pipelines to their end. Returns the number of frames. Raises SourceError or UsageError."""
    pictures, records = giving.get_by_name("pictures"), giving.get_by_name("records")
    known = next(one for one in STYLES if one == style)
    faces = Pipeline(reconstructor, detect_every=1 if is_cover(style) else 10)
    names, count = reconstructor.contract.blendshapes, 0
    if pictures is not None:
        pictures.set_properties(format=Gst.Format.TIME, block=True)
    if records is not None:
        # They wait without limit, since encoders hold back pictures. Pictures alone slow the source down.
        records.set_properties(format=Gst.Format.TIME, max_bytes=0, caps=Gst.Caps.from_string(RECORDS))
    try:
        live = taking.set_state(Gst.State.PLAYING) == Gst.StateChangeReturn.NO_PREROLL
        taking.get_by_name("frames").set_property("drop", live)  # cameras do not wait
        for frame, buffer in frames(taking, live=live):
            if count == 0:
                if pictures is not None:
                    pictures.set_property(
                        "caps", taking.get_by_name("frames").get_static_pad("sink").get_current_caps()
                    )
                giving.set_state(Gst.State.PLAYING)
            scene = faces.process(frame)
            if pictures is not None:
                push(pictures, padded(draw_scene(scene, style=known)), buffer)
            if records is not None:
                push(records, f"{as_json(record_from_scene(scene, names))}\n".encode(), buffer)
            check(giving)
            count += 1
        for each in (pictures, records) if count else ():
            if each is not None:
                each.end_of_stream()
        if count:
            giving.get_bus().timed_pop_filtered(Gst.CLOCK_TIME_NONE, Gst.MessageType.EOS | Gst.MessageType.ERROR)
    finally:
        taking.set_state(Gst.State.NULL)
        giving.set_state(Gst.State.NULL)
    return count


def main() -> int:
    """Run the command. Returns the exit code: 0, or that of the error."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="pipeline that gives pictures")
    parser.add_argument("target", help="pipeline with `appsrc name=pictures`, `appsrc name=records`, or both")
    parser.add_argument("--model", type=model_file, default=model_path(DEFAULT_ON_CPU), help="FaceModel file [shipped]")
    parser.add_argument("--style", choices=STYLES, default="wireframe", help="style of the pictures [%(default)s]")
    options = parser.parse_args()
    Gst.init(None)
    try:
        taking, giving = launched(f"{options.source} ! {TAKEN}"), launched(options.target)
        with Reconstructor(options.model, hints=is_cover(options.style)) as reconstructor:
            count = run(reconstructor, taking, giving, options.style)
    except FaceReconError as error:
        print(f"gstreamer_faces: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    print(f"{count} frames", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Annotated videos: the input's sound, codecs that browsers play, and names of any bytes. Both libraries write them."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facerecon_rt.sinks.files import open_sink
from facerecon_rt.sources.files import open_source
from facerecon_rt.types import Frame, Scene

VIDEOS = Path(__file__).parents[1] / "data" / "videos"


def annotate(source: Path, target: Path) -> None:
    with open_source(source) as frames, open_sink(str(target), blendshapes=(), style="landmarks") as sink:
        for frame in frames:
            sink.write(Scene(frame, ()))


def sound_of(path: Path) -> list[tuple[float, bytes]]:
    """Return each packet of sound: its time in seconds after the first picture, and its data."""
    import av

    with av.open(str(path)) as container:
        (video,) = container.streams.video
        assert video.start_time is not None and video.time_base is not None
        start = float(video.start_time * video.time_base)
        if not container.streams.audio:
            return []
        stream: Any = container.streams.audio[0]
        return [(float(one.pts * one.time_base) - start, bytes(one)) for one in container.demux(stream) if one.size]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi"])
def test_the_sound_is_kept_where_the_file_can_hold_it(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("av", reason="the extra `video` is not installed")
    caplog.set_level(logging.INFO, "facerecon_rt")
    source, target = VIDEOS / "sound.mp4", tmp_path / f"out{suffix}"
    annotate(source, target)
    (line,) = said(caplog)
    assert line.startswith(f"{target}: ") and line.endswith(f", with the sound of {source}")
    before, after = sound_of(source), sound_of(target)
    # The encoder's first packet lies before the first picture.
    assert len(after) > 25
    for time_s, data in after:
        assert min(abs(time_s - other) for other, same in before if same == data) < 0.03
    assert after[-1][0] < 36 / 25 + 0.001


def test_the_sound_ends_with_the_pictures(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra `video` is not installed")
    target = tmp_path / "out.mp4"
    with open_source(VIDEOS / "sound.mp4") as frames, open_sink(str(target), blendshapes=()) as sink:
        for frame, _ in zip(frames, range(10), strict=False):
            sink.write(Scene(frame, ()))
    assert 0.3 < sound_of(target)[-1][0] < 0.4


def test_a_sound_that_the_file_cannot_hold_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("av", reason="the extra `video` is not installed")
    caplog.set_level(logging.INFO, "facerecon_rt")
    source, target = VIDEOS / "sound.webm", tmp_path / "out.mov"
    annotate(source, target)
    assert said(caplog) == [f"{target}: H.264 (libx264), without the sound of {source}: .mov does not hold vorbis"]
    assert sound_of(target) == []
    annotate(source, tmp_path / "out.mkv")
    assert len(sound_of(tmp_path / "out.mkv")) > 25


def test_of_several_videos_in_one_file_the_sound_is_that_of_the_first(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra `video` is not installed")
    target = tmp_path / "out.mp4"
    with open_sink(str(target), blendshapes=()) as sink:
        for name in ("sound.mp4", "clip.mp4"):
            with open_source(VIDEOS / name) as frames:
                for frame in frames:
                    sink.write(Scene(frame, ()))
    assert 1.3 < sound_of(target)[-1][0] < 1.44
    with open_source(target) as frames:
        assert len(list(frames)) == 72


def test_browsers_play_it(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="the extra `video` is not installed")
    annotate(VIDEOS / "clip.mp4", tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        (video,) = container.streams.video
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")


def test_without_pyav_the_codec_and_what_to_do_are_said(
    video_library: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "facerecon_rt")
    annotate(VIDEOS / "clip.mp4", tmp_path / "out.avi")
    (line,) = said(caplog)
    assert line.startswith(f"{tmp_path / 'out.avi'}: MPEG-4 part 2")
    assert ("pip install 'facerecon-rt[video]'" in line) == (video_library == "OpenCV")


def test_pictures_stand_where_they_stood_in_time(video_library: str, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    with open_sink(str(target), blendshapes=()) as sink:
        for index, time_s in enumerate((0.0, 0.04, 0.2, 0.24)):
            picture = np.full((48, 64, 3), 60 * index, np.uint8)
            sink.write(Scene(Frame(picture, "a.mp4", index, time_s=time_s, still=False, fps=25.0), ()))
    with open_source(target) as frames:
        shown = {round(frame.time_s, 2): round(float(frame.image.mean()) / 60) for frame in frames}
    assert [shown[time_s] for time_s in (0.0, 0.04, 0.2, 0.24)] == [0, 1, 2, 3]


def test_outputs_have_names_of_any_bytes(video_library: str, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xf6lder"))
    folder.mkdir()
    video = folder / os.fsdecode(b"vid\xe9o.mp4")
    shutil.copy(VIDEOS / "clip.mp4", video)
    out = tmp_path / os.fsdecode(b"\xe0ut")
    annotate(video, out)
    assert sorted(path.name for path in out.iterdir()) == ["records.jsonl", video.name]
    with open_source(out / video.name) as frames:
        assert len(list(frames)) == 36

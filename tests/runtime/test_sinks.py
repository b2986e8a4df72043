"""Scenes -> files: written files read back, and nothing is lost, overwritten or left incomplete."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import pytest
import trimesh
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import UsageError
from facerecon_rt.sinks import folder, jsonl
from facerecon_rt.sinks.draw import draw_scene, montage
from facerecon_rt.sinks.face_meshes import LatestMeshes
from facerecon_rt.sinks.files import open_sink
from facerecon_rt.sinks.folder import FolderSink
from facerecon_rt.sinks.meshes import move_mesh, write_mesh
from facerecon_rt.sinks.outputs import Rotation, only_writer_of, write_whole
from facerecon_rt.sinks.sink import Sink
from facerecon_rt.sinks.video import fit
from facerecon_rt.sources.files import open_source, read_image
from facerecon_rt.template import FaceTemplate
from facerecon_rt.types import Face, Frame, Image, Scene

MakeFace = Callable[..., Face]
OpenSink = Callable[..., Sink]


@pytest.fixture
def sink_to(ball: FaceTemplate) -> OpenSink:
    """Function that opens a sink that draws balls: `sink_to(target, style=…)`."""

    def open_it(target: str | Path, *, arkit: bool = False, style: str = "shaded") -> Sink:
        return open_sink(str(target), blendshapes=BLENDSHAPES, arkit=arkit, style=style, template=ball)

    return open_it


def picture(width: int = 64, height: int = 48, value: int = 128) -> Image:
    return np.full((height, width, 3), value, np.uint8)


def photograph(source: str, *faces: Face, image: Image | None = None) -> Scene:
    return Scene(Frame(picture() if image is None else image, source), faces)


def video_frame(source: str, index: int, *faces: Face, fps: float = 20.0, image: Image | None = None) -> Scene:
    shown = picture() if image is None else image
    return Scene(Frame(shown, source, index=index, time_s=index / 20, still=False, fps=fps), faces)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Make writing beyond `size` bytes fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# JSON lines


def test_json_lines_hold_one_record_per_scene(tmp_path: Path, sink_to: OpenSink, ball_face: MakeFace) -> None:
    with sink_to(tmp_path / "out.jsonl") as sink:
        sink.write(photograph("a.jpg", ball_face(30, 20)))
        sink.write(photograph("b.jpg"))
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(record["source"], len(record["faces"])) for record in records] == [("a.jpg", 1), ("b.jpg", 0)]
    assert "eyeBlink_L" in records[0]["faces"][0]["blendshapes"]


def test_earlier_records_are_kept_until_there_are_new_ones(tmp_path: Path, sink_to: OpenSink) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("an earlier run\n")
    with sink_to(path):
        pass
    assert path.read_text() == "an earlier run\n"
    with sink_to(path) as sink:
        sink.write(photograph("a.jpg"))
        sink.write(photograph("b.jpg"))
    assert [json.loads(line)["source"] for line in path.read_text().splitlines()] == ["a.jpg", "b.jpg"]


def test_each_line_is_there_before_the_sink_is_closed(tmp_path: Path, sink_to: OpenSink) -> None:
    sink = sink_to(tmp_path / "out.jsonl")
    sink.write(photograph("a.jpg"))
    assert (tmp_path / "out.jsonl").read_text().endswith("}\n")
    sink.close()


def test_a_dash_writes_to_standard_output_and_leaves_it_open(
    sink_to: OpenSink, capsys: pytest.CaptureFixture[str], ball_face: MakeFace
) -> None:
    with sink_to("-", arkit=True) as sink:
        sink.write(photograph("Gesicht ä.jpg", ball_face(30, 20)))
    assert not sys.stdout.closed
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["source"] == "Gesicht ä.jpg"
    assert "eyeBlinkLeft" in json.loads(line)["faces"][0]["blendshapes"]


def test_a_reader_that_went_away_is_no_usage_error(sink_to: OpenSink, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(BrokenPipeError):
        sink_to("-").write(photograph("a.jpg"))


def test_a_full_disk_is_named_for_records(tmp_path: Path, sink_to: OpenSink, ball_face: MakeFace) -> None:
    sink = sink_to(tmp_path / "out.jsonl")
    with files_of_at_most(100):
        with pytest.raises(UsageError, match=r"cannot write .*out\.jsonl: File too large"):
            sink.write(photograph("a.jpg", ball_face(30, 20)))
        with pytest.raises(UsageError, match=r"out\.jsonl"):
            sink.close()


# Pictures


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".webp"])
def test_one_photograph_becomes_one_picture(
    tmp_path: Path, sink_to: OpenSink, ball: FaceTemplate, ball_face: MakeFace, suffix: str
) -> None:
    scene = photograph("a.jpg", ball_face(30, 20, scale=0.2))
    with sink_to(tmp_path / f"out{suffix}", style="wireframe") as sink:
        sink.write(scene)
    assert names_in(tmp_path) == [f"out{suffix}"]
    wanted = draw_scene(scene, style="wireframe", template=ball).astype(int)
    assert np.abs(read_image(tmp_path / f"out{suffix}") - wanted).mean() < 5


def test_several_pictures_are_numbered(tmp_path: Path, sink_to: OpenSink) -> None:
    with sink_to(tmp_path / "out.png") as sink:
        for value in (10, 20, 30):
            sink.write(photograph(f"{value}.jpg", image=picture(value=value)))
    assert names_in(tmp_path) == ["out_0001.png", "out_0002.png", "out_0003.png"]
    assert [int(read_image(tmp_path / name)[0, 0, 0]) for name in names_in(tmp_path)] == [10, 20, 30]


def test_the_montage_is_a_style(tmp_path: Path, sink_to: OpenSink, ball: FaceTemplate, ball_face: MakeFace) -> None:
    scene = photograph("a.jpg", ball_face(30, 20))
    with sink_to(tmp_path / "out.png", style="montage") as sink:
        sink.write(scene)
    assert np.array_equal(read_image(tmp_path / "out.png"), montage(scene, template=ball))


def test_an_input_is_never_overwritten(tmp_path: Path, sink_to: OpenSink) -> None:
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), picture(value=77))
    before = photo.read_bytes()
    with sink_to(photo) as sink, pytest.raises(UsageError, match=r"photo\.png is an input"):
        sink.write(photograph(str(photo)))
    numbered = tmp_path / "out_0001.png"
    photo.rename(numbered)
    with sink_to(tmp_path / "out.png") as sink, pytest.raises(UsageError, match=r"out_0001\.png is an input"):
        sink.write(photograph(str(numbered)))
        sink.write(photograph("other.png"))
    assert numbered.read_bytes() == before


def test_a_full_disk_is_named_and_leaves_no_half_picture(tmp_path: Path, sink_to: OpenSink) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    sink = sink_to(tmp_path / "out.png")
    with files_of_at_most(5000), pytest.raises(UsageError, match=r"cannot write .*out\.png: File too large"):
        sink.write(photograph("a.jpg", image=noise))
    sink.close()
    assert names_in(tmp_path) == []


def test_a_picture_too_wide_for_its_format_is_written_smaller(tmp_path: Path, sink_to: OpenSink) -> None:
    for suffix, width, most in ((".webp", 17_000, 16_383), (".jpg", 66_000, 65_500)):
        with sink_to(tmp_path / f"out{suffix}") as sink:
            sink.write(photograph("a.jpg", image=picture(width, 2)))
        assert read_image(tmp_path / f"out{suffix}").shape == (2, most, 3)


# Videos


@pytest.mark.usefixtures("video_library")
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi"])
def test_every_frame_is_in_the_video(
    tmp_path: Path, sink_to: OpenSink, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / f"out{suffix}"
    with sink_to(target) as sink:
        for index in range(7):
            sink.write(video_frame("talk.mp4", index, image=picture(value=30 * index)))
    assert names_in(tmp_path) == [target.name]
    with open_source(target) as source:
        frames = list(source)
    assert [round(float(frame.image.mean()) / 30) for frame in frames] == list(range(7))
    assert (frames[0].size, frames[0].fps) == ((64, 48), 20.0)
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("video_library")
def test_frames_of_other_sizes_are_fitted_into_the_first(tmp_path: Path, sink_to: OpenSink) -> None:
    with sink_to(tmp_path / "out.mp4") as sink:
        sink.write(photograph("a.jpg", image=picture(65, 49)))
        sink.write(photograph("b.jpg", image=picture(49, 65)))
    with open_source(tmp_path / "out.mp4") as source:
        first, second = source
    assert (first.size, second.size, first.fps) == ((64, 48), (64, 48), 25.0)


def test_letterboxing_keeps_the_shape_and_the_middle() -> None:
    fitted = fit(picture(100, 200, value=200), (64, 48))
    assert fitted.shape == (48, 64, 3)
    assert np.flatnonzero(fitted[24, :, 0]).tolist() == list(range(20, 44))
    assert np.array_equal(fit(picture(65, 49), (64, 48)), picture(64, 48))


@pytest.mark.usefixtures("video_library")
def test_frames_a_camera_skipped_are_filled_with_the_picture_before(tmp_path: Path, sink_to: OpenSink) -> None:
    with sink_to(tmp_path / "out.mp4") as sink:
        for index, value in ((3, 40), (6, 120), (7, 200)):
            sink.write(video_frame("cam0", index, image=picture(value=value)))
    with open_source(tmp_path / "out.mp4") as source:
        shown = [round(float(frame.image.mean()) / 40) for frame in source]
    assert shown == [1, 1, 1, 3, 5]


def camera_frame(index: int, time_s: float, value: int = 128) -> Scene:
    return Scene(Frame(picture(value=value), "cam0", index, time_s, still=False, fps=20.0, live=True), ())


def shown_in(path: Path) -> list[int]:
    """Return the brightness, in hundreds, that a video shows in each twentieth of a second."""
    shown: list[int] = []
    with open_source(path) as source:
        for frame in source:
            shown += shown[-1:] * (round(frame.time_s * 20) - len(shown))  # the picture before stays
            shown.append(round(float(frame.image.mean()) / 100))
    return shown


@pytest.mark.usefixtures("video_library")
@pytest.mark.parametrize("real_fps", [10.0, 20.5, 40.0])
def test_a_video_of_a_camera_keeps_time_whatever_its_rate(tmp_path: Path, sink_to: OpenSink, real_fps: float) -> None:
    count = round(4 * real_fps)
    with sink_to(tmp_path / "out.mp4") as sink:
        for index in range(count):
            sink.write(camera_frame(index, 3 + index / real_fps))
    assert len(shown_in(tmp_path / "out.mp4")) == pytest.approx(4 * 20, abs=2)


@pytest.mark.usefixtures("video_library")
def test_a_video_of_a_camera_keeps_time_over_jitter_a_loss_and_a_new_clock(tmp_path: Path, sink_to: OpenSink) -> None:
    times = [0.0, 0.03, 0.12, 0.15, 0.2, 25.2, 25.25, 0.0, 0.05]
    with sink_to(tmp_path / "out.mp4") as sink:
        for index, time_s in enumerate(times):
            sink.write(camera_frame(index, time_s, value=100 if index < 5 else 200))
    assert shown_in(tmp_path / "out.mp4") == [1] * (25 * 20 + 4) + [2] * 4


@pytest.mark.usefixtures("video_library")
def test_a_very_long_loss_of_a_camera_is_shortened(
    tmp_path: Path, sink_to: OpenSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facerecon_rt.sinks.video.LONGEST_LOSS_S", 2.0)
    with sink_to(tmp_path / "out.mp4") as sink:
        for index, time_s in enumerate((0.0, 7200.0, 7200.05)):
            sink.write(camera_frame(index, time_s))
    assert len(shown_in(tmp_path / "out.mp4")) == 1 + 2 * 20 + 2


def test_no_picture_of_a_camera_is_repeated_where_frames_have_times(tmp_path: Path, sink_to: OpenSink) -> None:
    """Otherwise a camera that announces more frames than are encoded in time is never caught up with."""
    pytest.importorskip("av")
    with sink_to(tmp_path / "out.mp4") as sink:
        for index in range(5):
            sink.write(camera_frame(index, index / 2))
    with open_source(tmp_path / "out.mp4") as source:
        assert [round(frame.time_s, 2) for frame in source] == [0.0, 0.5, 1.0, 1.5, 2.0]


@pytest.mark.usefixtures("video_library")
def test_an_interrupted_video_is_whole(tmp_path: Path, sink_to: OpenSink) -> None:
    with pytest.raises(KeyboardInterrupt), sink_to(tmp_path / "out.mp4") as sink:
        sink.write(video_frame("talk.mp4", 0))
        sink.write(video_frame("talk.mp4", 1))
        raise KeyboardInterrupt
    with open_source(tmp_path / "out.mp4") as source:
        assert len(list(source)) == 2


@pytest.mark.usefixtures("video_library")
def test_a_video_without_frames_is_not_written(tmp_path: Path, sink_to: OpenSink) -> None:
    sink_to(tmp_path / "out.mp4").close()
    assert names_in(tmp_path) == []


def test_a_full_disk_is_named_for_videos(tmp_path: Path, sink_to: OpenSink, video_library: str) -> None:
    noise = np.random.default_rng(0)
    sink = sink_to(tmp_path / "out.mp4")
    why = "File too large" if video_library == "PyAV" else "the video is incomplete; check whether the disk is full"

    def write_all() -> None:
        for index in range(20):
            sink.write(video_frame("talk.mp4", index, image=noise.integers(0, 255, (48, 64, 3), np.uint8)))
        sink.close()

    with files_of_at_most(20_000), pytest.raises(UsageError, match=rf"cannot write .*out\.mp4: {why}"):
        write_all()


def test_a_video_is_not_written_over_its_source(tmp_path: Path, sink_to: OpenSink) -> None:
    target = tmp_path / "talk.mp4"
    target.write_bytes(b"the source")
    with sink_to(target) as sink, pytest.raises(UsageError, match="is an input"):
        sink.write(video_frame(str(target), 0))
    assert target.read_bytes() == b"the source"


# Meshes


@pytest.mark.parametrize(
    ("suffix", "name", "unit"),
    [
        (".obj", "mm", 1.0),
        (".obj", "cm", 0.1),
        (".obj", "m", 0.001),
        (".ply", "mm", 1.0),
        (".ply", "m", 0.001),
        (".glb", "mm", 0.001),
    ],
)
def test_a_mesh_reads_back_in_its_unit(
    tmp_path: Path, ball: FaceTemplate, ball_face: MakeFace, suffix: str, name: str, unit: float
) -> None:
    vertices = ball_face(0, 0).vertices
    write_mesh(tmp_path / f"face{suffix}", vertices, ball, name)
    word = {"mm": b"millimetres", "cm": b"centimetres", "m": b" metres"}[name]
    assert suffix == ".glb" or word in (tmp_path / f"face{suffix}").read_bytes()[:200]
    mesh = trimesh.load_mesh(tmp_path / f"face{suffix}", process=False)
    assert names_in(tmp_path) == [f"face{suffix}"]
    assert np.allclose(mesh.vertices, vertices * unit, atol=1e-4 * unit)
    assert np.array_equal(mesh.faces, ball.triangles)
    assert isinstance(mesh.visual, trimesh.visual.TextureVisuals)
    assert np.allclose(mesh.visual.uv, ball.uv, atol=1e-5)
    assert mesh.volume > 0


def test_a_full_disk_is_named_for_meshes(tmp_path: Path, ball: FaceTemplate, ball_face: MakeFace) -> None:
    with files_of_at_most(1000), pytest.raises(UsageError, match=r"face\.obj: File too large"):
        write_mesh(tmp_path / "face.obj", ball_face(0, 0).vertices, ball)
    assert names_in(tmp_path) == []


def test_without_the_libraries_only_obj_can_be_written(
    tmp_path: Path, sink_to: OpenSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, suffix, extra in (("trimesh", ".ply", "mesh"), ("pygltflib", ".glb", "gltf")):
        monkeypatch.setitem(sys.modules, module, None)
        sink_to(tmp_path / "face.obj").close()
        with pytest.raises(UsageError, match=rf"pip install 'facerecon-rt\[{extra}\]'"):
            sink_to(tmp_path / f"face{suffix}")


def test_a_photograph_gives_a_mesh_per_face(tmp_path: Path, sink_to: OpenSink, ball_face: MakeFace) -> None:
    with sink_to(tmp_path / "face.obj") as sink:
        sink.write(photograph("a.jpg", ball_face(30, 20)))
        assert names_in(tmp_path) == ["face.obj"]
        sink.write(photograph("b.jpg", ball_face(30, 20), ball_face(50, 20)))
    assert names_in(tmp_path) == ["face_0001.obj", "face_0002.obj", "face_0003.obj"]


def test_a_video_gives_the_last_mesh_of_each_track(tmp_path: Path, sink_to: OpenSink, ball_face: MakeFace) -> None:
    with pytest.raises(KeyboardInterrupt), sink_to(tmp_path / "face.obj") as sink:
        for index in range(5):
            faces = [ball_face(30, 20, track=1)] + ([ball_face(50, 20, track=2)] if index == 2 else [])
            sink.write(video_frame("talk.mp4", index, *faces))
        assert names_in(tmp_path) == []
        raise KeyboardInterrupt
    assert names_in(tmp_path) == ["face_0001.obj", "face_0002.obj"]


# Folders


def test_a_folder_gets_records_pictures_and_meshes(tmp_path: Path, sink_to: OpenSink, ball_face: MakeFace) -> None:
    out = tmp_path / "new" / "out"
    with sink_to(f"{out}/", style="montage") as sink:
        sink.write(photograph("in/a.jpg", ball_face(30, 20), ball_face(50, 20)))
        sink.write(photograph("in/nobody.jpg"))
        for index in range(3):
            sink.write(video_frame("in/talk.avi", index, ball_face(30, 20, track=4)))
    assert names_in(out) == [
        "a.jpg",
        "a_face0.obj",
        "a_face1.obj",
        "a_montage.jpg",
        "nobody.jpg",
        "records.jsonl",
        "talk.mp4",
        "talk_track4.obj",
    ]
    assert len((out / "records.jsonl").read_text().splitlines()) == 5
    assert read_image(out / "a.jpg").shape == (48, 64, 3)


def test_inputs_of_the_same_name_do_not_overwrite_each_other(
    tmp_path: Path, sink_to: OpenSink, ball_face: MakeFace
) -> None:
    with sink_to(tmp_path) as sink:
        for source in ("x/a.jpg", "y/a.jpg", "y/a.png", "y/a_montage.jpg"):
            sink.write(photograph(source, ball_face(30, 20)))
        for source in ("x/a.mp4", "x/a.avi"):
            sink.write(video_frame(source, 0, ball_face(30, 20, track=1)))
    stems = ["a", "a_2", "a_3", "a_montage_2"]
    wanted = [f"{stem}{ending}" for stem in stems for ending in (".jpg", "_montage.jpg", "_face0.obj")]
    wanted += ["a_4.mp4", "a_4_track1.obj", "a_5.mp4", "a_5_track1.obj", "records.jsonl"]
    assert names_in(tmp_path) == sorted(wanted)


def test_a_stream_gives_a_name_without_odd_characters(tmp_path: Path, sink_to: OpenSink) -> None:
    with sink_to(tmp_path) as sink:
        sink.write(video_frame("rtsp://host:554/door?channel=1", 0))
        sink.write(video_frame("cam0", 0))
    assert names_in(tmp_path) == ["cam0.mp4", "host_554_door_channel_1.mp4", "records.jsonl"]


def test_a_photograph_without_a_name_of_its_own_is_written(tmp_path: Path, sink_to: OpenSink) -> None:
    with sink_to(tmp_path) as sink:
        for source in ("/", ".", "///"):
            sink.write(photograph(source))
    assert [name for name in names_in(tmp_path) if "montage" not in name] == [
        "records.jsonl", "source.jpg", "source_2.jpg", "source_3.jpg",
    ]  # fmt: skip


def test_a_name_that_leaves_no_room_for_an_ending_is_shortened(
    tmp_path: Path, sink_to: OpenSink, ball_face: MakeFace
) -> None:
    long = ["ä" * 120 + end for end in ("a", "b")]  # names of 241 bytes that differ only in the last byte
    with sink_to(tmp_path) as sink:
        for stem in (*long, "short"):
            sink.write(photograph(f"in/{stem}.jpg", ball_face(30, 20)))
        sink.write(video_frame(f"in/{long[0]}.mp4", 0, ball_face(30, 20, track=1)))
    stems = sorted({name.partition("_")[0] for name in names_in(tmp_path)} - {"records.jsonl", "short.jpg", "short"})
    assert stems == ["ä" * 75]
    pictures = [name for name in names_in(tmp_path) if name.endswith("_montage.jpg")]
    assert len(pictures) == 3
    assert len(names_in(tmp_path)) == 3 * 3 + 2 + 1
    assert all(len(name.encode()) < 200 for name in names_in(tmp_path))
    # The same name has the same files the next time, whatever came before it.
    with sink_to(tmp_path) as sink:
        sink.write(photograph(f"in/{long[1]}.jpg", ball_face(30, 20)))
    assert len(names_in(tmp_path)) == 3 * 3 + 2 + 1


def test_the_longest_name_is_written_and_one_too_long_for_a_file_is_said(tmp_path: Path) -> None:
    longest = tmp_path / ("a" * 251 + ".png")
    write_whole(longest, b"picture")
    assert longest.read_bytes() == b"picture"
    with pytest.raises(UsageError, match=r"cannot write .*: File name too long"):
        write_whole(tmp_path / ("a" * 252 + ".png"), b"picture")
    assert list(tmp_path.iterdir()) == [longest]


def test_an_interrupted_folder_is_whole(tmp_path: Path, sink_to: OpenSink, ball_face: MakeFace) -> None:
    with pytest.raises(KeyboardInterrupt), sink_to(tmp_path) as sink:
        sink.write(video_frame("talk.mp4", 0, ball_face(30, 20, track=1)))
        raise KeyboardInterrupt
    assert names_in(tmp_path) == ["records.jsonl", "talk.mp4", "talk_track1.obj"]


def test_the_inputs_folder_is_no_output_folder(tmp_path: Path, sink_to: OpenSink) -> None:
    with sink_to(tmp_path) as sink, pytest.raises(UsageError, match="choose another folder"):
        sink.write(photograph(str(tmp_path / "a.jpg")))


# Impossible targets


def test_an_unknown_suffix_says_what_is_possible(tmp_path: Path, sink_to: OpenSink) -> None:
    with pytest.raises(
        UsageError,
        match=r"\.xyz is not a known kind of output; use \.jsonl .* \.glb \.usdc \.usda \.csv \.npz \.rrd, a folder",
    ):
        sink_to(tmp_path / "out.xyz")


def test_an_unknown_style_says_what_is_possible(tmp_path: Path, sink_to: OpenSink) -> None:
    with pytest.raises(UsageError, match="choose from shaded, wireframe, landmarks, blur, pixelate, mask, montage"):
        sink_to(tmp_path / "out.jpg", style="crayon")


@pytest.mark.parametrize("rotation", [None, Rotation(1)])
@pytest.mark.parametrize("target", ["out", "out/records.jsonl"])
def test_records_that_somebody_writes_are_refused_and_stay_whole(
    ball_face: MakeFace, tmp_path: Path, target: str, rotation: Rotation | None
) -> None:
    (tmp_path / "out").mkdir()
    scene = Scene(Frame(np.zeros((120, 160, 3), np.uint8), "cam0", live=True, still=False), (ball_face(80, 60),))
    with open_sink(str(tmp_path / "out/records.jsonl"), blendshapes=BLENDSHAPES, rotation=rotation) as first:
        first.write(scene)
        with pytest.raises(UsageError, match=r"records\.jsonl: another program or output writes it; choose another"):
            open_sink(str(tmp_path / target), blendshapes=BLENDSHAPES, rotation=rotation)
        first.write(scene)
    assert len((tmp_path / "out/records.jsonl").read_text().splitlines()) == 2
    with open_sink(str(tmp_path / target), blendshapes=BLENDSHAPES, rotation=rotation, pictures=False):
        pass  # nobody writes it any more


@pytest.mark.parametrize("rotation", [None, Rotation(1)])
def test_a_device_takes_records(ball_face: MakeFace, tmp_path: Path, rotation: Rotation | None) -> None:
    (tmp_path / "out.jsonl").symlink_to("/dev/null")
    (tmp_path / "full.jsonl").symlink_to("/dev/full")
    scene = Scene(Frame(np.zeros((120, 160, 3), np.uint8), "cam0", live=True, still=False), (ball_face(80, 60),))
    with open_sink(str(tmp_path / "out.jsonl"), blendshapes=BLENDSHAPES, rotation=rotation) as sink:
        sink.write(scene)
    with (
        pytest.raises(UsageError, match=r"full\.jsonl: No space left on device"),
        open_sink(str(tmp_path / "full.jsonl"), blendshapes=BLENDSHAPES, rotation=rotation) as sink,
    ):
        sink.write(scene)


@pytest.mark.parametrize("rotation", [None, Rotation(1)])
def test_a_pipe_takes_records(ball_face: MakeFace, tmp_path: Path, rotation: Rotation | None) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    scene = Scene(Frame(np.zeros((120, 160, 3), np.uint8), "cam0", live=True, still=False), (ball_face(80, 60),))
    reader = os.open(tmp_path / "pipe.jsonl", os.O_RDONLY | os.O_NONBLOCK)
    with open_sink(str(tmp_path / "pipe.jsonl"), blendshapes=BLENDSHAPES, rotation=rotation) as sink:
        sink.write(scene)
    assert os.read(reader, 1 << 16).startswith(b'{"schema"')
    os.close(reader)


@pytest.mark.parametrize("name", ["out.jsonl", "out.mp4", "out.png", "out.obj"])
def test_what_cannot_be_written_is_found_out_when_the_sink_is_opened(
    tmp_path: Path, sink_to: OpenSink, name: str
) -> None:
    with pytest.raises(UsageError, match=r"the folder .*missing does not exist; create it first"):
        sink_to(tmp_path / "missing" / name)
    with pytest.raises(UsageError, match=r"cannot write /proc/out\."):
        sink_to(f"/proc/{name}")


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path, sink_to: OpenSink) -> None:
    (tmp_path / "file").write_text("in the way")
    for target in (f"{tmp_path}/file", f"{tmp_path}/file/out"):
        with pytest.raises(UsageError, match=r"cannot write .*file"):
            sink_to(target)


def test_of_a_camera_that_runs_for_months_few_tracks_are_held(ball_face: MakeFace) -> None:
    latest = LatestMeshes()
    written = []
    for number in range(1, 8):
        faces = (ball_face(50.0, 50.0, track=number), ball_face(90.0, 50.0, track=100))
        latest.see(Scene(Frame(np.zeros((4, 4, 3), np.uint8), "cam0", number, still=False), faces))
        written += [label for _, label, _ in latest.take(but=3)]
    assert written == ["track1", "track2", "track3", "track4", "track5"]
    assert [label for _, label, _ in latest.take()] == ["track100", "track6", "track7"], (
        "in the order in which they came"
    )


def test_records_go_on_in_a_new_file_when_one_is_large(tmp_path: Path, ball_face: MakeFace) -> None:
    (tmp_path / "records_0002.jsonl").write_text("kept\n")
    scene = Scene(Frame(np.zeros((4, 4, 3), np.uint8), "cam0", still=False), (ball_face(50.0, 50.0, track=1),) * 60)
    with open_sink(str(tmp_path / "records.jsonl"), blendshapes=BLENDSHAPES, rotation=Rotation(1)) as sink:
        for _ in range(18):
            sink.write(scene)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["records.jsonl", "records_0002.jsonl", "records_0003.jsonl", "records_0004.jsonl"]
    assert (tmp_path / "records_0002.jsonl").read_text() == "kept\n"
    lines = [line for name in names for line in (tmp_path / name).read_text().splitlines() if line != "kept"]
    assert len(lines) == 18
    assert all(len(json.loads(line)["faces"]) == 60 for line in lines)


def test_no_other_program_gets_the_name_while_records_go_on_in_a_new_file(
    tmp_path: Path, ball_face: MakeFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, steps = tmp_path / "records.jsonl", list[str]()

    def not_taken() -> None:
        """Let another program try to write to the name."""
        with pytest.raises(UsageError, match="another program or output writes it"):
            open_sink(str(path), blendshapes=BLENDSHAPES, rotation=Rotation(1)).close()

    def between(call: Callable[..., None]) -> Callable[..., None]:
        def called(*given: object, **more: object) -> None:
            not_taken()
            call(*given, **more)
            not_taken()
            steps.append(call.__name__)

        return called

    scene = Scene(Frame(np.zeros((4, 4, 3), np.uint8), "cam0", still=False), (ball_face(50.0, 50.0, track=1),))
    # There is a file per record, and one for what was there before.
    with open_sink(str(path), blendshapes=BLENDSHAPES, rotation=Rotation(0)) as sink:
        sink.write(scene)
        with monkeypatch.context() as patched:
            for name in ("link", "rename", "replace"):
                patched.setattr(os, name, between(getattr(os, name)))
            sink.write(scene)
        sink.write(scene)
    assert steps == ["link", "replace"]
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "records.jsonl",
        *(f"records_000{n}.jsonl" for n in (1, 2, 3, 4)),
    ]
    assert [len((tmp_path / f"records_000{n}.jsonl").read_text().splitlines()) for n in (1, 2, 3, 4)] == [0, 1, 1, 1]
    assert path.read_text() == ""


def test_records_go_on_in_a_new_file_where_there_are_no_hard_links(
    tmp_path: Path, ball_face: MakeFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*given: object, **more: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    scene = Scene(Frame(np.zeros((4, 4, 3), np.uint8), "cam0", still=False), (ball_face(50.0, 50.0, track=1),))
    with open_sink(str(tmp_path / "records.jsonl"), blendshapes=BLENDSHAPES, rotation=Rotation(0)) as sink:
        sink.write(scene)
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "records.jsonl",
        "records_0001.jsonl",
        "records_0002.jsonl",
    ]
    assert len((tmp_path / "records_0002.jsonl").read_text().splitlines()) == 1


def test_a_file_that_is_set_aside_before_it_is_locked_is_left_alone(
    tmp_path: Path, ball_face: MakeFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"source":"old"}\n')

    def late(file: IO[str], at: Path) -> None:
        monkeypatch.undo()
        Rotation(1).set_aside(at)
        only_writer_of(file, at)

    monkeypatch.setattr(jsonl, "only_writer_of", late)
    scene = Scene(Frame(np.zeros((4, 4, 3), np.uint8), "cam0", still=False), (ball_face(50.0, 50.0, track=1),))
    with open_sink(str(path), blendshapes=BLENDSHAPES, rotation=Rotation(1)) as sink:
        sink.write(scene)
    assert (tmp_path / "records_0001.jsonl").read_text() == '{"source":"old"}\n'
    assert [json.loads(line)["source"] for line in path.read_text().splitlines()] == ["cam0"]


def test_a_service_that_starts_again_goes_on_after_its_records(tmp_path: Path, ball_face: MakeFace) -> None:
    scene = Scene(Frame(np.zeros((4, 4, 3), np.uint8), "cam0", still=False), (ball_face(50.0, 50.0, track=1),))
    (tmp_path / "records_0007.jsonl").write_text("old\n")
    for _ in range(3):
        with open_sink(str(tmp_path / "records.jsonl"), blendshapes=BLENDSHAPES, rotation=Rotation(1, keep=1)) as sink:
            sink.write(scene)
        with (tmp_path / "records.jsonl").open("a") as file:
            file.write('{"killed in')
    assert sorted(path.name for path in tmp_path.iterdir()) == ["records.jsonl", "records_0007.jsonl"]
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert [json.loads(line)["source"] for line in lines[:3]] == ["cam0"] * 3
    assert lines[3:] == ['{"killed in']


def test_only_the_newest_files_are_kept_where_that_is_asked_for(tmp_path: Path, ball_face: MakeFace) -> None:
    scene = Scene(Frame(np.zeros((4, 4, 3), np.uint8), "cam0", still=False), (ball_face(50.0, 50.0, track=1),))
    for name in ("records_0009.jsonl", "records_0010.jsonl", "records_0011.jsonl", "records_of_anna_1.jsonl"):
        (tmp_path / name).write_text("old\n")
    for _ in range(2):
        with open_sink(str(tmp_path / "records.jsonl"), blendshapes=BLENDSHAPES, rotation=Rotation(0, keep=2)) as sink:
            sink.write(scene)
            sink.write(scene)
    names = sorted(path.name for path in tmp_path.glob("records_[0-9]*"))
    # The three files that were there before are somebody else's.
    assert names == [f"records_{number:04d}.jsonl" for number in (9, 10, 11, 16, 17)]


@pytest.mark.usefixtures("video_library")
def test_a_video_goes_on_in_a_new_file_when_one_is_large(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    for _ in range(2):
        target = str(tmp_path / "live.avi")
        with open_sink(target, blendshapes=BLENDSHAPES, rotation=Rotation(1, keep=2)) as sink:
            for index in range(60):
                picture = noise.integers(0, 255, (240, 320, 3), np.uint8)
                sink.write(Scene(Frame(picture, "cam0", index, index / 25, still=False, live=True, fps=25.0), ()))
    names = sorted(path.name for path in tmp_path.glob("live*"))
    # Each run writes two files, of which the first is full. The very first file is removed.
    assert names == ["live.avi", "live_0002.avi", "live_0003.avi"]
    assert 0.9e6 < (tmp_path / "live_0003.avi").stat().st_size < 1.5e6
    frames = []
    for name in names:
        with open_source(tmp_path / name) as source:
            frames.append(sum(1 for _ in source))
    assert frames[0] + frames[2] == 60
    assert frames[0] == frames[1]


@pytest.mark.usefixtures("video_library")
def test_a_camera_that_comes_back_larger_is_fitted_into_the_next_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    with open_sink(str(tmp_path / "live.avi"), blendshapes=BLENDSHAPES, rotation=Rotation(1)) as sink:
        for index in range(60):
            size = (240, 320, 3) if index < 10 else (480, 640, 3)
            picture = noise.integers(0, 255, size, np.uint8)
            sink.write(Scene(Frame(picture, "cam0", index, 0.24 * index, still=False, live=True, fps=25.0), ()))
    sizes = []
    for path in sorted(tmp_path.iterdir()):
        with open_source(path) as source:
            sizes.append({frame.size for frame in source})
    assert (320, 240) in sizes[1] and sizes[0] == {(640, 480)}


def test_no_camera_is_called_as_another_ones_older_files(tmp_path: Path) -> None:
    with open_sink(f"{tmp_path}/", blendshapes=BLENDSHAPES, rotation=Rotation(1, keep=1)) as sink:
        for name in ("door", "door_0002", "192.168.1.10", "192.168.1.11"):
            sink.write(Scene(Frame(np.zeros((48, 64, 3), np.uint8), name, still=False, live=True, fps=25.0), ()))
    names = {path.name for path in tmp_path.glob("*.mp4")}
    assert names == {"door.mp4", "door_0002_2.mp4", "192.168.1.10.mp4", "192.168.1.11.mp4"}


def test_the_video_of_a_camera_that_has_gone_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "SILENT_S", 0.0)
    with open_sink(f"{tmp_path}/", blendshapes=BLENDSHAPES, rotation=Rotation(1)) as sink:
        for name in ("door", "yard"):
            sink.write(Scene(Frame(np.zeros((48, 64, 3), np.uint8), name, still=False, live=True, fps=25.0), ()))
        assert {path.name for path in tmp_path.glob("[a-z]*.mp4")} == {"door.mp4"}


def test_meshes_of_tracks_come_in_the_order_in_which_people_came(
    tmp_path: Path, sink_to: OpenSink, ball_face: MakeFace
) -> None:
    """Track 1 is seen last, and track 10 is the first that is lost."""
    with sink_to(tmp_path / "face.obj") as sink:
        for index, numbers in enumerate([(1, 2), (2, 10, 1), (2, 1), (1,)]):
            sink.write(video_frame("talk.mp4", index, *(ball_face(0, 0, track=number) for number in numbers)))
    said = [(tmp_path / f"face_{number:04d}.obj").read_text().splitlines()[1] for number in (1, 2, 3)]
    assert said == ["# talk.mp4, track1", "# talk.mp4, track2", "# talk.mp4, track10"]


def test_names_that_are_not_utf8_refer_to_each_other(tmp_path: Path, ball: FaceTemplate, ball_face: MakeFace) -> None:
    first, second = (tmp_path / os.fsdecode(name) for name in (b"caf\xe9.obj", b"caf\xe9_0001.obj"))
    write_mesh(first, ball_face(0, 0).vertices, ball, texture=np.zeros((8, 8, 3), np.uint8), about="caf\udce9.jpg")
    move_mesh(first, second)
    assert b"mtllib caf\xe9_0001.mtl\n" in second.read_bytes()
    assert b"map_Kd caf\xe9_0001_texture.png\n" in second.with_suffix(".mtl").read_bytes()
    with pytest.raises(UsageError, match="control character"):
        open_sink(tmp_path / "new\nline.obj", blendshapes=BLENDSHAPES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "inch"}, "choose from mm, cm, m"),
        ({"margin": -3.0}, "at least 0"),
        ({"margin": float("nan")}, "at least 0"),
    ],
)
def test_options_without_a_meaning_are_refused_before_any_work(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        open_sink(str(tmp_path / "face.obj"), blendshapes=BLENDSHAPES, **options)


def test_numbers_of_frames_are_for_meshes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a mesh per frame"):
        open_sink(str(tmp_path / "take_{frame}.jpg"), blendshapes=BLENDSHAPES)


def test_names_of_many_photographs_are_found_at_once(
    tmp_path: Path, sink_to: OpenSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each name is looked up once or twice, however many there are: a folder may hold 100 000 photographs."""
    looked_up: list[str] = []
    is_taken = FolderSink._is_taken

    def noted(self: FolderSink, name: str) -> bool:
        looked_up.append(name)
        return is_taken(self, name)

    monkeypatch.setattr(FolderSink, "_is_taken", noted)
    with sink_to(f"{tmp_path / 'out'}/") as sink:
        assert isinstance(sink, FolderSink)
        names = [sink._stem(f"{folder}/{number}.jpg") for folder in "abc" for number in range(50)]
    assert names == [f"{number}{end}" for end in ("", "_2", "_3") for number in range(50)]
    assert len(looked_up) == 50 * (1 + 2 + 2)


@pytest.mark.parametrize(
    ("first", "second", "rotation", "name"),
    [
        ("a/x.jpg", "a/x_montage.jpg", None, "x_montage_2"),
        ("a/x_montage.jpg", "a/x.jpg", None, "x_2"),
        ("a/x.mp4", "a/x_0001.mp4", Rotation(1), "x_0001_2"),
        ("a/x_0001.mp4", "a/x.mp4", Rotation(1), "x_2"),
        ("a/x_0001.mp4", "a/x.mp4", None, "x"),
    ],
)
def test_a_name_that_files_of_another_source_have_gets_a_number(
    first: str, second: str, rotation: Rotation | None, name: str, tmp_path: Path
) -> None:
    with open_sink(f"{tmp_path / 'out'}/", blendshapes=BLENDSHAPES, rotation=rotation) as sink:
        assert isinstance(sink, FolderSink)
        sink._stem(first)
        assert sink._stem(second) == name


@pytest.mark.parametrize("pictures", [False, True])
def test_meshes_of_a_camera_have_one_name_with_and_without_pictures(
    pictures: bool, tmp_path: Path, ball: FaceTemplate, ball_face: MakeFace
) -> None:
    with open_sink(f"{tmp_path / 'out'}/", blendshapes=BLENDSHAPES, template=ball, pictures=pictures) as sink:
        scene = video_frame("door.front", 0, ball_face(30, 20, track=1))
        sink.write(replace(scene, frame=replace(scene.frame, live=True)))
    assert "door.front_track1.obj" in names_in(tmp_path / "out")

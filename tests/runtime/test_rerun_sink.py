"""A Rerun recording holds the content of the scenes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.errors import UsageError
from facerecon_rt.faces.pipeline import Pipeline
from facerecon_rt.faces.reconstruct import Reconstructor
from facerecon_rt.sinks.files import open_sink
from facerecon_rt.sinks.rerun import RerunSink, entity
from facerecon_rt.types import Frame

from .conftest import PaintSpots


def test_frames_meshes_and_timings_are_in_the_recording(model: Path, spots: PaintSpots, tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="the extra `rerun` is not installed")
    path = tmp_path / "live.rrd"
    frames = [
        Frame(spots(256, 192, [(0.5, 0.5)]), "rtsp://host/door", index, index / 25, still=False) for index in (0, 1)
    ]
    with Reconstructor(model) as reconstructor, open_sink(str(path), blendshapes=BLENDSHAPES) as sink:
        assert isinstance(sink, RerunSink)
        for scene in Pipeline(reconstructor).run(frames):
            sink.write(scene)
        assert not path.exists()
    data = path.read_bytes()
    assert data[:4] in (b"RRF2", b"RRF0", b"RRF1", b"RRF3", b"RRF4")
    for entry in (
        "picture/boxes",
        "picture/landmarks",
        "faces/track1/mesh",
        "stages_ms/infer",
        "faces/track1/blendshapes/jawOpen",
        "faces/track1/gaze_deg/yaw",
    ):
        assert f"rtsp_host_door/{entry}".encode() in data, entry
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_seen_is_no_file(tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="the extra `rerun` is not installed")
    with open_sink(str(tmp_path / "live.rrd"), blendshapes=BLENDSHAPES):
        """No scene comes."""
    assert not list(tmp_path.iterdir())


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(UsageError, match=r"\.rrd needs rerun: pip install 'facerecon-rt\[rerun\]'"):
        open_sink(str(tmp_path / "live.rrd"), blendshapes=BLENDSHAPES)


def test_it_is_loaded_only_when_asked_for() -> None:
    program = "import sys, facerecon_rt.sinks.files; print('rerun' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "False"


def test_a_source_is_one_step_of_a_path() -> None:
    assert entity("rtsp://host:554/door?x=1") == "rtsp_host_554_door_x_1"
    assert entity("cam0") == "cam0"
    assert entity("///") == "source"

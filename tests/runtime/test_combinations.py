"""Options that do nothing with the inputs and outputs of a run are named, and options that work are not."""

from __future__ import annotations

from pathlib import Path

import pytest
from facerecon_rt.commands.combinations import options_without_effect
from facerecon_rt.commands.options import parse_options
from facerecon_rt.sources.inputs import Inputs

PHOTO, VIDEO, CAMERA = "photo.jpg", "video.mp4", "cam0"
LIVE = "do nothing here; they are for cameras and streams"
FOLLOWING = "here; it is for videos, cameras and streams"


def without_effect(line: str, folder: Path) -> list[str]:
    """Return the sentences about a command line, in a folder with a photograph, a video and a list of sources."""
    for name in (PHOTO, VIDEO):
        (folder / name).touch()
    (folder / "sources.yaml").write_text("sources:\n  - uri: video.mp4\n")
    options = parse_options(line.split())
    inputs = Inputs(options.input, options.live, options.retries, options.max_delay_s)
    return options_without_effect(options, inputs, inputs.files())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"--input {VIDEO} --flip 180 --camera-fps 5 --retries 3", f"--flip, --camera-fps, --retries {LIVE}"),
        (f"--input {PHOTO} --timeout 5", "--timeout does nothing here; it is for cameras and streams"),
        ("--input rtsp://host/a --camera-size 640x480", "--camera-size does nothing here; it is for cameras, and not"),
        (
            f"--input {CAMERA} --max-delay-ms 20",
            "--max-delay-ms does nothing here; it is for several cameras and streams",
        ),
        (f"--input {PHOTO} --smooth low", f"--smooth does nothing {FOLLOWING}"),
        (f"--input {PHOTO} --zone road=yaw:-9..9,pitch:-9..9", f"--zone does nothing {FOLLOWING}"),
        (f"--input {PHOTO} --attention", f"--attention does nothing {FOLLOWING}"),
        (f"--input {PHOTO} --det-every 3", f"--det-every does nothing {FOLLOWING}"),
        (f"--input {VIDEO} --set --det-every 3", f"--det-every does nothing {FOLLOWING}"),
        (f"--input {VIDEO} --output a.obj --attention", "--attention does nothing here; it is for records, MQTT,"),
        (f"--input {VIDEO} --output a.csv --zone road=yaw:-9..9,pitch:-9..9", "--zone does nothing here; it is for re"),
        (f"--input {VIDEO} --output a.mp4 --calibrate 2", "--calibrate does nothing here; it is for records, takes"),
        (f"--input {PHOTO} --output a.obj --calibrate {PHOTO}", "--calibrate does nothing here; it is for records"),
        (f"--input {CAMERA} --output a.mp4 --fov 60", "--fov or --camera-matrix does nothing here; it is for records"),
        (f"--input {VIDEO} --no-mirror", "--no-mirror does nothing here; it is for photographs"),
        (f"--input {PHOTO} --calibrate 2", f"--calibrate SECONDS does nothing {FOLLOWING}"),
        (f"--input {PHOTO} --output a.glb --unit m", "--unit does nothing here; it is for meshes in .obj and .ply"),
        (f"--input {PHOTO} --output a.png --style landmarks --eyes", "--eyes does nothing here"),
        (f"--input {PHOTO} --output a.csv --blendshapes arkit", "--blendshapes does nothing here; it is for records"),
        (f"--input {VIDEO} --serve 127.0.0.1:1 --style landmarks", "--style does nothing here; it is for annotated"),
        (f"--input {PHOTO} --cover-margin 0.5", "--cover-margin does nothing here; it is for --style blur, pixelate"),
        (f"--input {PHOTO} --output a.png --rotate 5", "--rotate does nothing here; it is for records and videos"),
    ],
)
def test_an_option_without_effect_is_named(
    line: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (said,) = without_effect(line, tmp_path)
    assert said.startswith(expected)


@pytest.mark.parametrize(
    "line",
    [
        f"--input {PHOTO}",
        f"--input {VIDEO} --smooth low --budget-ms 9 --attention --calibrate 2 --max-faces 1",
        f"--input {PHOTO} --calibrate {PHOTO} --no-mirror --fov 60",
        f"--input {VIDEO} --set --no-mirror",
        f"--input {VIDEO} --output a.mp4 --attention --det-every 3",
        f"--input {VIDEO} --output vmc://host:1 --fov 60 --calibrate 2",
        f"--input {VIDEO} --output a.obj --calibrate 2 --save-calibration rest.json",
        f"--input {VIDEO} --serve 127.0.0.1:1 --fov 60 --calibrate 2 --zone road=yaw:-9..9,pitch:-9..9",
        f"--input {VIDEO} {CAMERA} --flip 180 --camera-fps 5 --camera-size 640x480 --retries 3 --timeout 5",
        f"--input {CAMERA} cam1 --max-delay-ms 20",
        "--input sources.yaml --flip 180 --max-delay-ms 20",  # cameras may be added while it runs
        f"--input {PHOTO} --unit m --eyes --blendshapes arkit --style wireframe --rotate 5",
        f"--input {PHOTO} --output - --blendshapes arkit",
        f"--input {PHOTO} --output a.ply --unit cm --eyes",
        f"--input {PHOTO} --output a.png --style montage --eyes",
        f"--input {PHOTO} --output a.glb --eyes",  # without a basis it is a mesh
        f"--input {PHOTO} --output r.jsonl --style blur",  # the detector runs in every frame
        f"--input {VIDEO} --output take_{{frame}}.glb --eyes",
        f"--input {VIDEO} --serve 127.0.0.1:1 --style blur --cover-margin 0.5",
        f"--input {VIDEO} --output a.rrd --style blur",
        f"--input {VIDEO} --output mqtt://host/topic --cover-margin 0.5",
    ],
)
def test_options_that_work_are_not_named(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert without_effect(line, tmp_path) == []

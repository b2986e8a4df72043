"""The command line from end to end: its outputs, its exit codes, and one clear line for each mistake."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from cv2.typing import MatLike
from facerecon_rt.cli import COMMANDS, main
from facerecon_rt.contract import BLENDSHAPES
from facerecon_rt.faces.detector_runs import FINE_INPUT
from facerecon_rt.types import Image

from tests.interrupted import default_interrupts

PaintSpots = Callable[..., Image]
MakeTinyModel = Callable[..., Path]
COMMAND = [sys.executable, "-m", "facerecon_rt.cli"]


@dataclass(frozen=True)
class Done:
    """Result of a run."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Done]


@pytest.fixture
def run(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Function that runs the command with the tiny model in an empty folder: `run("--input", path, ...)`. No run may
    show a traceback."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path, models: tuple[str | Path, ...] = (model,)) -> Done:
        given = [text for path in models for text in ("--model", str(path))]
        try:
            code = main([*given, *map(str, arguments)])
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Done(code, out, err)

    return call


@pytest.fixture
def photo(tmp_path: Path, spots: PaintSpots) -> Path:
    """A photograph with one face."""
    return write(tmp_path / "photo.png", spots(320, 240, [(0.5, 0.5)]))


def write(path: Path, image: MatLike) -> Path:
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def write_video(path: Path, frames: list[Image], codec: str = "mp4v") -> Path:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 25, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def frame_count(path: Path) -> int:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    count = 0
    while capture.read()[0]:
        count += 1
    capture.release()
    return count


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Outputs


def test_a_photograph_becomes_a_record(run: Run, photo: Path) -> None:
    done = run("--input", photo, "--output", "-")
    (record,) = done.records
    assert done.code == 0
    assert (record["schema"], record["source"], record["size"]) == ("facerecon-rt/1", str(photo), [320, 240])
    (face,) = record["faces"]
    assert len(face["landmarks"]) == 68
    assert list(face["blendshapes"]) == list(BLENDSHAPES)
    assert face["pose"]["euler_deg"] == pytest.approx({"pitch": 0, "yaw": 0, "roll": 0}, abs=0.01)
    assert face["track"] is None
    assert "disagreement" not in face


def test_without_an_output_everything_lands_in_a_folder_that_is_named(run: Run, photo: Path, tmp_path: Path) -> None:
    done = run("--input", photo)
    assert (done.code, done.out) == (0, "")
    assert "wrote facerecon-out/" in done.err
    expected = ["photo.jpg", "photo_face0.obj", "photo_montage.jpg", "records.jsonl"]
    assert names_in(tmp_path / "facerecon-out") == expected
    # A second run says that it replaces them, unless the folder was asked for.
    warning = "facerecon-out/ replaces files of the same names from an earlier run"
    assert warning not in done.err
    assert warning in run("--input", photo).err
    assert warning not in run("--input", photo, "--output", "facerecon-out/").err


def test_several_outputs_are_written_at_once(run: Run, photo: Path, tmp_path: Path) -> None:
    done = run("--input", photo, "--output", "a.jsonl", "--output", "b.jpg", "--output", "c.obj", "--output", "d.ply")
    assert done.code == 0
    assert {"a.jsonl", "b.jpg", "c.obj", "d.ply"} <= set(names_in(tmp_path))
    assert done.err.count("wrote ") == 4


def test_a_video_becomes_a_video_records_and_one_mesh_per_person(run: Run, tmp_path: Path, spots: PaintSpots) -> None:
    video = write_video(tmp_path / "talk.mp4", [spots(256, 192, [(0.3, 0.5), (0.7, 0.5)])] * 8)
    done = run("--input", video, "--output", "out/", "--output", "-")
    assert done.code == 0
    assert [record["frame"] for record in done.records] == list(range(8))
    assert all([face["track"] for face in record["faces"]] == [1, 2] for record in done.records)
    assert names_in(tmp_path / "out") == ["records.jsonl", "talk.mp4", "talk_track1.obj", "talk_track2.obj"]
    assert frame_count(tmp_path / "out" / "talk.mp4") == 8


def test_frames_limits_how_many_are_read(run: Run, tmp_path: Path, spots: PaintSpots) -> None:
    video = write_video(tmp_path / "talk.mp4", [spots(256, 192, [(0.5, 0.5)])] * 8)
    assert len(run("--input", video, "--output", "-", "--frames", "3").records) == 3


def test_max_faces_keeps_as_many(run: Run, tmp_path: Path, spots: PaintSpots) -> None:
    photo = write(tmp_path / "two.png", spots(256, 192, [(0.3, 0.5), (0.7, 0.5)]))
    assert len(run("--input", photo, "--output", "-").records[0]["faces"]) == 2
    assert len(run("--input", photo, "--output", "-", "--max-faces", "1").records[0]["faces"]) == 1


def test_arkit_gives_apples_52_names(run: Run, photo: Path) -> None:
    done = run("--input", photo, "--output", "-", "--blendshapes", "arkit")
    names = set(done.records[0]["faces"][0]["blendshapes"])
    assert len(names) == 52
    assert {"jawOpen", "eyeBlinkLeft", "browInnerUp", "cheekPuff", "tongueOut"} <= names


def test_quiet_says_nothing(run: Run, photo: Path) -> None:
    assert run("--input", photo, "--quiet") == Done(0, "", "")


# Ensembles and sets


def test_several_models_make_an_ensemble_whose_disagreement_is_recorded(
    run: Run, photo: Path, model: Path, make_tiny_model: MakeTinyModel, tmp_path: Path
) -> None:
    other = make_tiny_model(tmp_path / "other.onnx", backbone="other")
    done = run("--input", photo, "--output", "-", models=(model, other))
    (face,) = done.records[0]["faces"]
    assert set(face["disagreement"]) == {"shape_mm", "vertices_mm", "landmarks_px", "rotation_deg"}


def test_an_ensemble_of_unequal_contracts_is_refused(
    run: Run, photo: Path, model: Path, make_tiny_model: MakeTinyModel, tmp_path: Path
) -> None:
    other = make_tiny_model(tmp_path / "other.onnx", blendshapes=tuple(reversed(BLENDSHAPES)))
    done = run("--input", photo, models=(model, other))
    assert done.code == 3
    assert "an ensemble needs equal" in done.err


def test_a_set_is_one_mesh_and_one_shape(run: Run, tmp_path: Path, spots: PaintSpots) -> None:
    folder = tmp_path / "anna"
    folder.mkdir()
    for number, level in enumerate((60, 100, 120)):
        write(folder / f"{number}.png", np.maximum(spots(256, 192, [(0.5, 0.5)]), np.uint8(level)))
    write(folder / "empty.png", spots(256, 192, []))
    done = run("--set", "--input", folder, "--output", "anna.obj", "--output", "anna.jsonl", "--output", "out/")
    assert done.code == 0
    assert "3 of 4 photographs, spread" in done.err
    assert (tmp_path / "anna.obj").read_text().count("\nv ") == 4032
    assert names_in(tmp_path / "out") == [
        "0.jpg", "0_montage.jpg", "1.jpg", "1_montage.jpg", "2.jpg", "2_montage.jpg", "empty.jpg", "records.jsonl",
        "set.obj",
    ]  # fmt: skip
    records = [json.loads(line) for line in (tmp_path / "anna.jsonl").read_text().splitlines()]
    spreads = [face["spread_mm"] for record in records for face in record["faces"]]
    assert len(spreads) == 3
    assert spreads[0] == spreads[1] == spreads[2]
    assert spreads[0]["max"] > 0


def test_a_set_without_a_face_is_said_in_one_line(run: Run, tmp_path: Path, spots: PaintSpots) -> None:
    photo = write(tmp_path / "empty.png", spots(256, 192, []))
    done = run("--set", "--input", photo, "--output", "set.obj", "--output", "set.jsonl")
    assert done.code == 5
    assert done.err.count("no face was found in the whole set, so there is no shape") == 1
    assert not (tmp_path / "set.obj").exists()
    (record,) = map(json.loads, (tmp_path / "set.jsonl").read_text().splitlines())
    assert record["faces"] == []


def test_what_is_wrong_with_a_sets_input_is_said_once(run: Run, photo: Path) -> None:
    done = run("--set", "--input", photo, "gone.jpg", "--output", "out/")
    assert done.code == 5
    assert done.err.count("skipped: gone.jpg") == 1
    assert done.err.endswith("1 of the 2 inputs could not be read: gone.jpg\n")


def test_a_camera_cannot_be_read_twice_for_a_set(run: Run) -> None:
    done = run("--set", "--input", "cam0")
    assert done.code == 2
    assert "cam0 cannot be read twice" in done.err


# Pictures of all kinds


def test_no_face_is_an_empty_record_and_said_once(run: Run, tmp_path: Path, spots: PaintSpots) -> None:
    video = write_video(tmp_path / "empty.mp4", [spots(256, 192, [])] * 3)
    done = run("--input", video, "--output", "-")
    assert done.code == 0
    assert [record["faces"] for record in done.records] == [[], [], []]
    assert done.err.count("no face found") == 1
    assert f"{video}: no face found" in done.err


def test_a_mesh_of_no_face_is_not_claimed_to_be_written(run: Run, tmp_path: Path, spots: PaintSpots) -> None:
    done = run("--input", write(tmp_path / "empty.png", spots(256, 192, [])), "--output", "face.obj")
    assert done.code == 0
    assert "nothing to write to face.obj" in done.err


def test_what_an_earlier_run_wrote_is_not_claimed_either(run: Run, tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text("old\n")
    done = run("--input", "gone.jpg", "--output", "records.jsonl")
    assert done.code == 5 and "wrote" not in done.err
    assert "nothing to write to records.jsonl" in done.err
    assert (tmp_path / "records.jsonl").read_text() == "old\n"


def test_a_photograph_of_twenty_megapixels_is_worked_on(run: Run, tmp_path: Path, spots: PaintSpots) -> None:
    photo = write(tmp_path / "big.jpg", spots(5472, 3648, [(0.5, 0.5)]))
    (record,) = run("--input", photo, "--output", "-", "--no-mirror").records
    assert record["size"] == [5472, 3648]
    (face,) = record["faces"]
    assert face["box"][2] - face["box"][0] == pytest.approx(32 * 5472 / FINE_INPUT, rel=0.01)


@pytest.mark.parametrize("kind", ["grey", "alpha", "sixteen bits"])
def test_other_kinds_of_pictures_are_worked_on(run: Run, tmp_path: Path, spots: PaintSpots, kind: str) -> None:
    image = spots(320, 240, [(0.5, 0.5)])
    kinds = {
        "grey": image[..., 0],
        "alpha": cv2.cvtColor(image, cv2.COLOR_BGR2BGRA),
        "sixteen bits": image.astype(np.uint16) * 257,
    }
    (record,) = run("--input", write(tmp_path / "photo.png", kinds[kind]), "--output", "-").records
    assert len(record["faces"]) == 1


def test_a_record_speaks_of_the_upright_picture(run: Run, tmp_path: Path, spots: PaintSpots) -> None:
    """With orientation 6, the file's left is the true top, so a face in its upper left lies in the upper right."""
    jpeg = cv2.imencode(".jpg", spots(320, 240, [(0.2, 0.2)]))[1].tobytes()
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff
    photo = tmp_path / "turned.jpg"
    photo.write_bytes(jpeg[:2] + exif + jpeg[2:])
    (record,) = run("--input", photo, "--output", "-").records
    assert record["size"] == [240, 320]
    (face,) = record["faces"]
    assert face["landmarks"][30][0] > 160
    assert face["landmarks"][30][1] < 110


def test_a_truncated_video_gives_what_decodes_and_says_so(run: Run, tmp_path: Path, spots: PaintSpots) -> None:
    video = write_video(tmp_path / "cut.avi", [spots(256, 192, [(0.5, 0.5)])] * 30, "MJPG")
    data = video.read_bytes()
    video.write_bytes(data[: int(len(data) * 0.6)])
    done = run("--input", video, "--output", "-")
    assert done.code == 5
    assert 10 < len(done.records) < 25
    assert done.err.count("cut.avi is damaged or cut short") == 1
    assert done.err.splitlines()[-1] == f"facerecon-rt: {video} could not be read whole"


# Wrong inputs


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("broken.jpg", b"\xff\xd8\xff\xe0" + bytes(200), "cannot be decoded"),
        ("words.jpg", b"some words\n" * 100, "is a text file"),
        ("words.txt", b"some words\n" * 100, "is a text file"),
        ("empty.png", b"", "is empty"),
        ("noise.mp4", bytes(range(256)) * 9, "cannot be opened as a video"),
        ("missing.jpg", None, "does not exist"),
    ],
)
def test_an_input_that_cannot_be_read_is_named_in_one_line(
    run: Run, tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = run("--input", name, "--output", "-", "--quiet")
    assert (done.code, done.out) == (5, "")
    assert done.err.startswith(f"facerecon-rt: {name}")
    assert says in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("content", ["nothing", "no picture"])
def test_a_folder_without_pictures_is_named(run: Run, tmp_path: Path, content: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if content == "no picture":
        (folder / "notes.txt").write_text("words")
    done = run("--input", folder, "--quiet")
    assert done.code == 5
    assert "holds no photograph" in done.err
    assert done.err.count("\n") == 1


def test_folders_in_a_folder_are_named(run: Run, tmp_path: Path, photo: Path) -> None:
    (tmp_path / "people" / "anna").mkdir(parents=True)
    done = run("--input", tmp_path / "people")
    assert "its 1 folders are not searched: name one of them, or 'FOLDER/*/*.jpg'" in done.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir(0o000)
    done = run("--input", tmp_path / "secret")
    assert (done.code, "Permission denied" in done.err) == (5, True)


def test_what_the_shell_made_of_a_pattern_is_taken(run: Run, photo: Path) -> None:
    assert len(run("--input", photo, photo, "--output", "-").records) == 2


def test_a_run_without_any_result_leaves_nothing_new(run: Run, tmp_path: Path) -> None:
    assert run("--input", "gone.jpg", "--output", "new/", "--output", "new.jsonl").code == 5
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "new.jsonl").exists()


def test_a_word_that_is_no_command_is_named(run: Run) -> None:
    done = run("bulid", "--model", "x", models=())
    assert done.code == 2
    assert f"unknown command 'bulid'; choose from {', '.join(COMMANDS)}, or give inputs with --input" in done.err


def test_a_wrong_option_takes_one_line(run: Run, photo: Path) -> None:
    done = run("--input", photo, "--style", "oil")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "invalid choice: 'oil'" in done.err and done.err.endswith("see facerecon-rt --help\n")


def test_options_that_do_nothing_are_said(run: Run, photo: Path) -> None:
    on_gpus = ["--gpu-memory", "9", "--cuda-graph", "--engines", "e", "--warm-while-building"]
    said = run("--input", photo, *on_gpus, "--provider", "cpu").err
    assert "--gpu-memory, --cuda-graph do nothing here; they are for GPUs" in said
    assert "--engines, --warm-while-building do nothing here; they are for TensorRT" in said
    done = run("--input", photo, "--average", "mean")
    assert (done.code, "give --set, or leave it out" in done.err) == (2, True)


def test_one_missing_input_of_several_is_skipped_and_named(run: Run, photo: Path) -> None:
    done = run("--input", "gone.jpg", "--input", photo, "--output", "-")
    assert (done.code, len(done.records)) == (5, 1)  # the other inputs are finished first
    assert "skipped: gone.jpg does not exist" in done.err
    assert "1 of the 2 inputs could not be read: gone.jpg" in done.err


def test_inputs_that_are_all_missing_are_an_error(run: Run) -> None:
    done = run("--input", "gone.jpg", "--input", "away.mp4", "--output", "-")
    assert done.code == 5
    assert "skipped: gone.jpg does not exist" in done.err
    assert "skipped: away.mp4 does not exist" in done.err
    assert "2 of the 2 inputs could not be read: gone.jpg, away.mp4" in done.err
    twice = run("--input", "gone.jpg", "gone.jpg")
    assert "2 of the 2 inputs could not be read: gone.jpg, gone.jpg" in twice.err


# Wrong models, options and outputs


def test_a_model_that_is_missing_or_no_model_is_refused(run: Run, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "words.onnx").write_text("words")
    for name in ("missing.onnx", "words.onnx"):
        done = run("--input", photo, models=(name,))
        assert done.code == 3
        assert done.err.startswith(f"facerecon-rt: {name}")
        assert done.err.count("\n") == 1
    assert not (tmp_path / "facerecon-out").exists()


def test_an_onnx_file_without_a_contract_is_refused(run: Run, photo: Path, bright_detector: Path) -> None:
    done = run("--input", photo, models=(bright_detector,))
    assert done.code == 3
    assert "holds no facerecon.contract, so it is not a FaceModel" in done.err


def test_a_contract_of_another_version_is_refused(
    run: Run, photo: Path, make_tiny_model: MakeTinyModel, tmp_path: Path
) -> None:
    done = run("--input", photo, models=(make_tiny_model(tmp_path / "new.onnx", version=3),))
    assert done.code == 3
    assert "its contract version is 3, but this runtime reads 1 and 2" in done.err


def test_a_missing_detector_is_refused_with_the_fix(run: Run, photo: Path, tiny_model: Path) -> None:
    done = run("--input", photo, models=(tiny_model,))
    assert done.code == 3
    assert "give another with --detector" in done.err
    done = run("--input", photo, "--detector", "missing.onnx", models=(tiny_model,))
    assert done.code == 3
    assert "missing.onnx: no such file" in done.err


def test_a_provider_that_is_not_there_is_an_error(run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    done = run("--input", photo, "--provider", "cuda")
    assert done.code == 4
    assert "pip install 'facerecon-rt[gpu]'" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--input"],
        ["--input", ""],
        ["--output", ""],
        ["--frames", "0"],
        ["--frames", "many"],
        ["--threads", "-1"],
        ["--min-confidence", "2"],
        ["--min-confidence", "some"],
        ["--min-confidence", "nan"],
        ["--style", "cubist"],
        ["--provider", "tpu"],
        ["--average", "median"],
        ["--det-size", "20"],
        ["--output", "face.xyz"],
        ["--output", "-", "--output", "-"],
        ["--no-such-option"],
    ],
)
def test_a_wrong_option_is_a_usage_error_and_nothing_is_written(
    run: Run, photo: Path, tmp_path: Path, arguments: list[str]
) -> None:
    before = names_in(tmp_path)
    done = run(*(["--input", str(photo)] if arguments else []), *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1].startswith("facerecon-rt: ")
    assert "_positive" not in done.err
    assert names_in(tmp_path) == before


def test_an_output_that_cannot_be_written_is_found_out_before_any_work(run: Run, tmp_path: Path) -> None:
    """The input is missing too, but the output is checked first."""
    (tmp_path / "file").write_text("in the way")
    for target in ("nowhere/out.mp4", "nowhere/out.jpg", "nowhere/out.obj", "file/", "file"):
        done = run("--input", "missing.jpg", "--output", target)
        assert done.code == 2, target
        assert "cannot write" in done.err
        assert "missing.jpg" not in done.err


def test_an_input_is_never_written_over(run: Run, photo: Path) -> None:
    before = photo.read_bytes()
    done = run("--input", photo, "--output", photo)
    assert done.code == 2
    assert "is read in this run and may be overwritten" in done.err
    assert photo.read_bytes() == before


def test_an_input_that_is_read_later_is_never_written_over(run: Run, photo: Path, tmp_path: Path) -> None:
    for name in ("z.png", "out_0002.png", "out/z.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(photo.read_bytes() + b"precious")
    for name, target in (("z.png", "z.png"), ("out_0002.png", "out.png"), ("out/z.png", "out/")):
        for more in ([], ["--set"]):
            done = run("--input", photo, name, "--output", target, *more)
            assert done.code == 2 and "choose another" in done.err
            assert (tmp_path / name).read_bytes().endswith(b"precious")
    done = run("--input", photo, "--output", "r.jsonl", "--calibrate", "1", "--save-calibration", "r.jsonl")
    assert done.code == 2 and "is an output, too" in done.err


@pytest.mark.parametrize("name", ["face.onnx", "face.basis.npz", "face_detector.onnx"])
def test_no_output_replaces_a_model_its_decoder_or_a_detector(name: str, run: Run, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "face.onnx").write_bytes(b"a model")
    before = (tmp_path / name).write_bytes(b"precious")
    options = ["--calibrate", "1", "--output", "r.jsonl", "--save-calibration", name]
    for given in (options, ["--output", name]):
        if name.endswith(".onnx") and given is not options:
            continue  # no output has this suffix
        done = run("--input", photo, *given, models=(tmp_path / "face.onnx",))
        assert done.code == 2
        assert f"{name} is read in this run and may be overwritten" in done.err
        assert (tmp_path / name).stat().st_size == before


@pytest.mark.parametrize("name", [".", "/", "..", "none.onnx"])
def test_a_model_that_is_no_file_is_one_line(run: Run, photo: Path, name: str) -> None:
    done = run("--input", photo, models=(name,))
    assert done.code == 3
    assert len(done.err.splitlines()) == 1


def test_a_set_refuses_what_follows_people_over_time(run: Run, photo: Path) -> None:
    for option, value in (("--smooth", "low"), ("--max-faces", "1"), ("--budget-ms", "9")):
        done = run("--set", "--input", photo, "--output", "set.jsonl", option, value)
        assert done.code == 2
        assert f"{option} applies to videos and cameras, not to --set" in done.err


def test_a_set_knows_the_lens(run: Run, photo: Path, tmp_path: Path) -> None:
    assert run("--set", "--input", photo, "--output", "set.jsonl", "--fov", "60").code == 0
    (record,) = map(json.loads, (tmp_path / "set.jsonl").read_text().splitlines())
    assert record["faces"][0]["pose"]["camera_from_head"]


def test_help_and_version_end_well(run: Run) -> None:
    assert "exit codes: 0 done" in run("--help").out
    assert run("--version").out.startswith("facerecon-rt ")


# In a process of its own


def test_a_reader_who_has_seen_enough_is_no_error(model: Path, tmp_path: Path, spots: PaintSpots) -> None:
    video = write_video(tmp_path / "long.mp4", [spots(256, 192, [(0.5, 0.5)])] * 300)
    command = [*COMMAND, "--model", str(model), "--input", str(video), "--output", "-", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert json.loads(child.stdout.readline())["frame"] == 0
        child.stdout.close()
        assert child.stderr.read() == ""
        assert child.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_leave_whole_records_and_a_playable_video(
    model: Path, tmp_path: Path, spots: PaintSpots, number: signal.Signals
) -> None:
    frames = 1500
    video = write_video(tmp_path / "long.mp4", [spots(256, 192, [(0.5, 0.5)])] * frames)
    command = [*COMMAND, "--model", str(model), "--input", str(video)]
    command += ["--output", "-", "--output", "out.jsonl", "--output", "out.mp4"]
    with (
        default_interrupts(),
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child,
    ):
        assert child.stdout is not None
        assert child.stderr is not None
        for _ in range(5):
            child.stdout.readline()
        child.send_signal(number)
        # Not `communicate`, which leaves out what `readline` read ahead.
        rest, errors = child.stdout.read(), child.stderr.read()
        assert child.wait() == 130
    assert "Traceback" not in errors
    assert "interrupted" in errors
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    # The line of each frame that is read here was written before its picture.
    assert 4 <= len(records) < frames
    assert [record["frame"] for record in records] == list(range(len(records)))
    assert len(rest.splitlines()) + 5 - len(records) in (0, 1)
    assert frame_count(tmp_path / "out.mp4") - len(records) in (-1, 0)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_closed_stream_is_no_traceback(model: Path, photo: Path, tmp_path: Path, closed: str) -> None:
    command = [*COMMAND, "--model", str(model), "--input", str(photo)]
    if closed == "stdout":
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" >&-', "sh", *command, "--output", "-"],
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr.splitlines()) == (
            2,
            ["facerecon-rt: cannot write to standard output: it is closed; give a file"],
        )
    else:
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" 2>&-', "sh", *command, "--output", "-"],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.returncode == 0
        assert json.loads(done.stdout)["source"] == str(photo)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_a_usage_error(run: Run, photo: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    done = run("--input", photo, "--output", "locked/out.jsonl")
    assert done.code == 2
    assert "cannot write locked/out.jsonl: Permission denied" in done.err


def test_a_lens_puts_heads_into_the_room(model: Path, spots: PaintSpots, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), spots(256, 192, [(0.5, 0.5)]))
    for lens in (["--fov", "60"], ["--camera-matrix", "220,220,127.5,95.5"]):
        common = ["--model", str(model), "--input", str(tmp_path / "a.png"), "--output", str(tmp_path / "r.jsonl")]
        assert main([*common, *lens]) == 0
        (face,) = json.loads((tmp_path / "r.jsonl").read_text())["faces"]
        assert len(face["pose"]["camera_from_head"]) == 4
    with pytest.raises(SystemExit):
        main([*common, "--camera-matrix", "220,220,127"])


def test_unit_is_that_of_every_mesh(run: Run, photo: Path, tmp_path: Path) -> None:
    for arguments in (["--output", "face.obj"], ["--output", "all/"], ["--set", "--output", "set.obj"]):
        run("--input", photo, "--unit", "cm", *arguments)
    files = [tmp_path / "face.obj", *(tmp_path / "all").glob("*.obj"), tmp_path / "set.obj"]
    assert len(files) == 3
    for file in files:
        first, *lines = file.read_text().splitlines()
        assert "centimetres" in first
        vertex = next(line for line in lines if line.startswith("v "))
        assert max(map(abs, map(float, vertex.split()[1:]))) < 20

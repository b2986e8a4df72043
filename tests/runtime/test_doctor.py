"""Problems of a machine are found, and their fixes are named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from facerecon_rt.cli import main
from facerecon_rt.commands import doctor
from facerecon_rt.commands.doctor import (
    Check,
    cameras,
    check_model,
    checksum,
    detector_file,
    gpu_driver,
    library,
    onnxruntime_providers,
    onnxruntime_wheels,
    opencv_wheels,
    power,
    processor,
    python_version,
    tensorrt,
    video_codecs,
    video_library,
)
from facerecon_rt.environment import fastest_power_mode, machine
from facerecon_rt.errors import ProviderMissing
from facerecon_rt.opencv import WHEELS
from facerecon_rt.providers.choice import OLDEST
from facerecon_rt.sources.interlaced import converts_interlaced

from ..conftest import ROOT


def test_python_older_than_the_package_needs_is_a_problem() -> None:
    assert python_version((3, 10)).state == "ok"
    assert python_version((3, 9)).fix == "install Python 3.10 or newer"


def test_exactly_one_wheel_of_onnx_runtime_is_right() -> None:
    assert onnxruntime_wheels({"onnxruntime": "1.32.0"}).what == "onnxruntime 1.32.0"
    both = onnxruntime_wheels({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"})
    assert both.state == "problem" and both.fix.startswith("pip uninstall -y onnxruntime onnxruntime-gpu")
    none = onnxruntime_wheels({"numpy": "2"})
    assert none.state == "problem" and "facerecon-rt[cpu]" in none.fix


ORIN = {"JetPack": "# R36 (release), REVISION: 4.7", "board": "Jetson Orin Nano"}


def test_a_jetson_is_sent_to_wheels_for_jetsons() -> None:
    assert "pypi.jetson-ai-lab.io/jp6/cu126" in onnxruntime_wheels(ORIN).fix
    assert "runtime/deploy/README.md" in onnxruntime_wheels({"JetPack": "# R39 (release), REVISION: 2.0"}).fix
    unused = onnxruntime_providers(ORIN)[-1]
    assert unused.what == "Jetson Orin Nano is present, but this ONNX Runtime supports CPUs only"
    assert "jetson-ai-lab" in unused.fix


def test_the_servers_wheel_on_a_jetson_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ort:
        @staticmethod
        def get_available_providers() -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    monkeypatch.setattr(doctor, "import_onnxruntime", lambda: Ort)
    monkeypatch.setattr(doctor, "preload_cuda", lambda ort: None)
    *_, cudnn, tensorrt_there = onnxruntime_providers(ORIN)
    assert cudnn.fix == "sudo apt-get install nvidia-jetpack"
    assert tensorrt_there.state == "problem" and "no code for a Jetson" in tensorrt_there.what
    assert onnxruntime_providers({})[-1].check == "cuDNN"


def test_a_jetsons_tensorrt_comes_with_jetpack() -> None:
    assert tensorrt("99", "", jetson=True).fix == "sudo apt-get install nvidia-jetpack"


def test_an_old_onnxruntime_is_a_problem() -> None:
    old = onnxruntime_wheels({"onnxruntime-gpu": "1.9.0"})
    assert (old.state, old.fix) == ("problem", f"pip install -U 'onnxruntime-gpu>={OLDEST}'")
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert f'"onnxruntime>={OLDEST},<2"]' in project.read_text()


def test_the_fastest_power_mode_is_the_boards_own(tmp_path: Path) -> None:
    conf = tmp_path / "nvpmodel.conf"
    conf.write_text("< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n")
    assert fastest_power_mode(conf) == "2"
    assert fastest_power_mode(tmp_path / "none") == ""


def test_exactly_one_wheel_of_opencv_is_right() -> None:
    assert opencv_wheels({"opencv-python": "5.1.0.95"}, "5.1.0").what == "opencv-python 5.1.0.95"
    assert opencv_wheels({"opencv-python-headless": "4.10.0.84"}, "4.10.0").state == "ok"
    assert opencv_wheels({"opencv-python-rolling": "5.1.0.20270101"}, "5.1.0-dev").state == "ok"
    assert opencv_wheels({}, "4.8.0").what == "4.8.0, built outside pip"
    both = opencv_wheels({"opencv-python": "5.0.0.93", "opencv-python-headless": "5.0.0.93"}, "5.0.0")
    assert (both.state, both.fix) == (
        "problem",
        "pip uninstall -y opencv-python-headless opencv-python && pip install opencv-python-headless==5.0.0.93",
    )


@pytest.mark.parametrize("other", [name for name in WHEELS if name != "opencv-contrib-python"])
def test_what_came_with_mediapipe_is_kept(other: str) -> None:
    both = opencv_wheels({"opencv-contrib-python": "4.11.0.86", other: "5.0.0.93"}, "5.0.0")
    assert both.state == "problem" and f"{other} 5.0.0.93" in both.what
    assert "pip install opencv-contrib-python" in both.fix


def test_an_opencv_that_is_not_its_wheels_is_a_problem() -> None:
    """Either a wheel that is uninstalled again has overwritten the files, or the system's OpenCV comes first on the
    path."""
    other = opencv_wheels({"opencv-python-headless": "5.0.0.93"}, "4.8.0", "/usr/lib/python3/dist-packages/cv2/x.so")
    assert other.what == (
        "opencv-python-headless 5.0.0.93 is installed, but 4.8.0 is loaded from /usr/lib/python3/dist-packages/cv2"
    )
    assert opencv_wheels({"opencv-python-headless": "5.10.0.1"}, "5.1.0").state == "problem"


def test_two_wheels_are_found_on_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders are those that pip leaves."""
    for name in ("opencv_contrib_python", "opencv_contrib_python_headless"):
        folder = tmp_path / f"{name}-5.1.0.95.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 5.1.0.95\n")
    monkeypatch.syspath_prepend(tmp_path)
    finding = opencv_wheels(machine())
    assert finding.state == "problem"
    assert "opencv-contrib-python-headless 5.1.0.95 and opencv-contrib-python 5.1.0.95" in finding.what


def test_a_gpu_that_onnx_runtime_cannot_use_is_a_problem() -> None:
    assert [finding.state for finding in onnxruntime_providers({})] == ["ok"]
    unused = onnxruntime_providers({"gpu": "H100"})[-1]
    assert unused.state == "problem" and "facerecon-rt[gpu]" in unused.fix


def test_a_gpu_wheel_is_looked_at_library_by_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Ort:
        __file__ = str(tmp_path / "onnxruntime" / "__init__.py")

        @staticmethod
        def get_available_providers() -> list[str]:
            return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    (tmp_path / "onnxruntime" / "capi").mkdir(parents=True)
    linked = tmp_path / "onnxruntime" / "capi" / "libonnxruntime_providers_tensorrt.so"
    linked.write_bytes(b"\x7fELF\0libcublas.so.12\0libnvinfer.so.10\0")
    monkeypatch.setattr(doctor, "import_onnxruntime", Ort)
    monkeypatch.setattr(doctor, "load_library", lambda file: object() if file == "libcuda.so.1" else None)
    found = {finding.check: finding for finding in onnxruntime_providers({"tensorrt": "11.1", "gpu": "H100"})}
    assert found["GPU"].state == "ok"
    assert found["cuDNN"].what == "libcudnn.so.9 is missing"
    assert found["TensorRT"].what == "11.1 is installed, but this ONNX Runtime links 10"
    assert found["TensorRT"].fix == "pip install 'tensorrt>=10,<11'"


def test_a_plugged_in_tensorrt_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(ort: object) -> list[str]:
        raise RuntimeError("libcuda.so.1 is missing")

    monkeypatch.setattr(doctor, "rtx_version", lambda: "RTX 0.5")
    for devices, state in ((lambda ort: ["a GPU"], "ok"), (lambda ort: [], "problem"), (broken, "problem")):
        monkeypatch.setattr(doctor, "rtx_devices", devices)
        finding = onnxruntime_providers({})[-1]
        assert (finding.check, finding.state) == ("TensorRT for RTX", state)
    assert finding.what == "RTX 0.5 does not load (libcuda.so.1 is missing)"


def test_a_driver_is_needed_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_driver("H100, 570", False).state == "ok"
    assert gpu_driver("", True).state == "note"
    assert gpu_driver("", False).state == "problem"


@pytest.mark.parametrize(
    ("linked", "installed", "state"),
    [("10", "10.9.0", "ok"), ("10", "11.0", "problem"), ("10", "", "note"), ("", "10.1", "note")],
)
def test_majors_of_tensorrt_do_not_mix(
    linked: str, installed: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "load_library", lambda file: None)
    assert tensorrt(linked, installed).state == state


def test_a_library_loads_or_is_missing() -> None:
    assert library("C", "libc.so.6", "").state == "ok"
    assert library("X", "libnowhere.so.1", "pip install it").fix == "pip install it"


def test_a_processor_on_which_int8_is_slow_is_noted() -> None:
    old = processor("asimd")
    assert old.state == "note" and "slower than float32" in old.what
    assert processor("asimd asimddp i8mm").state == processor("avx2").state == processor("").state == "ok"


def test_slow_power_modes_are_noted() -> None:
    assert power({"power mode": "15W", "board": "Orin"}, "", "2").fix == "sudo nvpmodel -m 2 && sudo jetson_clocks"
    assert power({"power mode": "15W", "board": "Orin"}, "").fix == "sudo nvpmodel -p --verbose lists the modes"
    assert power({"power mode": "MAXN"}, "").state == "ok"
    assert power({}, "powersave").state == "note"
    assert power({}, "performance").state == power({}, "").state == "ok"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_camera_without_permission_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "video0").touch(0o600)
    (tmp_path / "video1").touch(0o000)
    assert [finding.state for finding in cameras(tmp_path)] == ["ok", "problem"]


def test_a_machine_without_cameras_is_healthy(tmp_path: Path) -> None:
    assert [finding.state for finding in cameras(tmp_path)] == ["note"]
    (tmp_path / "video0").touch()
    assert [finding.what for finding in cameras(tmp_path)] == [str(tmp_path / "video0")]


def test_opencv_without_ffmpeg_is_a_problem() -> None:
    build = "  Video I/O:\n    FFMPEG:                      {}\n    GStreamer:                   {}\n"
    assert video_codecs(build.format("YES", "NO")).what.startswith("FFmpeg; no GStreamer")
    assert video_codecs(build.format("YES", "YES (1.20)")).what == "FFmpeg and GStreamer"
    assert video_codecs(build.format("NO", "NO")).state == "problem"


def test_what_is_missing_without_pyav_is_noted() -> None:
    assert (video_library("18.1.0").state, video_library("18.1.0").what) == ("ok", "PyAV 18.1.0")
    without = video_library("")
    assert (without.state, without.fix) == ("note", "pip install 'facerecon-rt[video]'")
    assert ("interlaced" in without.what) != converts_interlaced()


def test_a_model_is_run(model: Path, tmp_path: Path) -> None:
    ran, hashed, detects, detector_hashed = check_model(model)
    assert ran.state == "ok" and "runs on cpu" in ran.what
    assert detects == Check("detector face_detector.onnx", "ok", "runs")
    assert hashed.state == detector_hashed.state == "note"
    (tmp_path / "no.onnx").write_bytes(b"no model")
    (broken,) = check_model(tmp_path / "no.onnx")
    assert broken.state == "problem" and broken.fix == "download or export it again"


def test_a_model_without_a_detector_beside_it_is_a_problem(tiny_model: Path) -> None:
    assert list(check_model(tiny_model))[-1].fix.startswith("cp models/face_detector.onnx")


def test_a_broken_detector_is_a_problem(bright_detector: Path, tmp_path: Path) -> None:
    (tmp_path / "face_detector.onnx").write_bytes(bright_detector.read_bytes()[:500])
    (broken,) = detector_file(tmp_path / "face_detector.onnx")
    assert broken.state == "problem" and "cut short" in broken.what and broken.fix


def test_an_onnx_runtime_that_does_not_load_is_said_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ProviderMissing("ONNX Runtime cannot be loaded (libstdc++.so.6: version GLIBCXX missing); pip install it")

    monkeypatch.setattr(doctor, "import_onnxruntime", broken)
    (finding,) = onnxruntime_providers({})
    assert finding.what == "ONNX Runtime cannot be loaded (libstdc++.so.6: version GLIBCXX missing)"
    assert finding.fix == "pip install it"


def test_a_changed_file_is_told_by_its_hash(tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").write_text(f"{'ab' * 32}  a.onnx\n{'cd' * 32} *b.onnx\n")
    assert checksum(tmp_path / "a.onnx", "ab" * 32).state == "ok"
    assert checksum(tmp_path / "b.onnx", "ab" * 32).state == "problem"
    assert checksum(tmp_path / "c.onnx", "ab" * 32).state == "note"
    (tmp_path / "SHA256SUMS").write_text("nonsense\n")
    assert checksum(tmp_path / "a.onnx", "ab" * 32).state == "note"


def test_the_command_says_what_mends_and_ends_with_1(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--model", str(model)]) == 0
    assert "ok   model face.onnx: " in capsys.readouterr().out
    assert main(["doctor", "--model", str(tmp_path / "absent.onnx"), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["schema"], report["healthy"]) == ("facerecon-doctor/1", False)
    assert report["findings"][-1]["state"] == "problem"
    assert "Python" in report["machine"]


def test_in_an_empty_folder_it_checks_the_shipped_files_and_knows_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pairs = [line.split() for line in (ROOT / "models/SHA256SUMS").read_text().splitlines()]
    listed = {name: digest for digest, name in pairs}
    for given, names in (([], ["face.onnx", "face.int8-cpu.onnx"]), (["--model", "face.onnx"], ["face.onnx"])):
        main(["doctor", "--json", *given])
        findings = json.loads(capsys.readouterr().out)["findings"]
        checked = {one["check"]: one for one in findings}
        assert {check for check in checked if check.startswith("model")} == {f"model {name}" for name in names}
        for name in [*names, "face_detector.onnx"]:
            assert checked[f"hash of {name}"]["what"] == f"{listed[name][:16]}…, as in SHA256SUMS"


def test_the_wheel_carries_the_hashes_of_its_files() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    assert '"models/SHA256SUMS" = "facerecon_rt/models/SHA256SUMS"' in project

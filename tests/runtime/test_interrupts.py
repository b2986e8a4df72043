"""Ctrl-C and SIGTERM while Python imports: the exit code is the same as later, and there is no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from facerecon_rt.interrupts import importing
from facerecon_rt.start import command_of

from tests.interrupted import console_script, default_interrupts, signalled_while_importing

MODULE = [sys.executable, "-m", "facerecon_rt.cli"]

pytestmark = pytest.mark.usefixtures("python_answers_ctrl_c")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("started", ["script", "module"])
def test_a_command_that_is_still_loaded_ends_at_once(started: str, number: signal.Signals, tmp_path: Path) -> None:
    command = console_script("facerecon-rt", tmp_path) if started == "script" else MODULE
    code, said = signalled_while_importing([*command, "--version"], "cv2", number, tmp_path, go_on=False)
    assert (code, said) == (130, "facerecon-rt: interrupted\n")


FIRST = """
import _signal, atexit, os, sys

count = 0

class Signal:
    # Sends a signal when the Nth module after the handler is searched for, and lists the modules before it.
    def find_spec(self, name, path=None, target=None):
        global count
        if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
            before.append(name)
        else:
            count += 1
            if str(count) == os.environ["NTH"]:
                _signal.raise_signal(int(os.environ["NUMBER"]))

before = []
sys.meta_path.insert(0, Signal())

@atexit.register
def last():
    with open(os.environ["BEFORE"], "w") as file:
        file.write(" ".join(before))
    if os.environ["NTH"] == "end":
        _signal.raise_signal(int(os.environ["NUMBER"]))
"""
"""A module `sitecustomize`: Python runs it before the command."""


def ended_with(
    command: list[str], folder: Path, nth: int | str, number: signal.Signals = signal.SIGINT
) -> tuple[int, str, list[str]]:
    """Return exit code and standard error of a command that signals itself, and the modules that it imports before it
    takes SIGINT. `nth`: number of the import after that, or "end" for the end of the process."""
    (folder / "sitecustomize.py").write_text(FIRST)
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    # Coverage would import the packages before the command does.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")}
    variables = {"PYTHONPATH": path, "NTH": str(nth), "NUMBER": str(int(number)), "BEFORE": str(folder / "before")}
    with default_interrupts():
        done = subprocess.run(
            command, env={**inherited, **variables}, cwd=folder, capture_output=True, text=True, timeout=120
        )
    before = folder / "before"
    return done.returncode, done.stderr, before.read_text().split() if before.exists() else []


@pytest.mark.parametrize("nth", [1, 2, 3, 10, 100, 300])
def test_a_signal_in_any_import_ends_the_command_at_once(nth: int, tmp_path: Path) -> None:
    number = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[nth % 3]
    code, said, _ = ended_with([*console_script("facerecon-rt", tmp_path), "--version"], tmp_path, nth, number)
    assert (code, said) == (130, "facerecon-rt: interrupted\n")


@pytest.mark.parametrize("name", ["facerecon-rt", "facerecon-export", "facerecon-train"])
def test_signals_are_taken_before_anything_is_imported(name: str, tmp_path: Path) -> None:
    """The command is loaded wholly, and at its end another signal comes."""
    command = [*console_script(name, tmp_path), "--help"]
    code, said, before = ended_with(command, tmp_path, "end")
    assert (code, said) == (0, "")
    first = {"facerecon-export": ["facerecon_export"], "facerecon-train": ["facerecon_training"]}.get(name, [])
    assert before == [*first, "facerecon_rt", "facerecon_rt.start"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_after_the_end_of_a_command_changes_nothing(number: signal.Signals, tmp_path: Path) -> None:
    for words, expected in (["--version"], 0), (["--input"], 2):
        code, said, _ = ended_with([*console_script("facerecon-rt", tmp_path), *words], tmp_path, "end", number)
        assert code == expected
        assert "Traceback" not in said and "KeyboardInterrupt" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_onnxruntime_is_imported_whole_before_a_signal_is_heard(
    model: Path, tmp_path: Path, number: signal.Signals
) -> None:
    # An exception inside the import looked like a package that is not installed, with exit code 4.
    command = [*MODULE, "--model", str(model), "--input", "photo.jpg", "--output", "-"]
    code, said = signalled_while_importing(command, "onnxruntime.capi", number, tmp_path, go_on=True)
    assert (code, said) == (130, "interrupted; files written so far are complete\n")


@pytest.mark.parametrize(
    ("script", "words", "command"),
    [
        ("/opt/bin/facerecon-rt", ["python", "/opt/bin/facerecon-rt", "--help"], "facerecon-rt"),
        ("facerecon-train", ["python", "facerecon-train"], "facerecon-train"),
        ("-m", ["python", "-X", "dev", "-m", "facerecon_rt.cli", "--help"], "facerecon-rt"),
        ("/a/cli.py", ["python", "-m", "facerecon_export.cli"], "facerecon-export"),
        ("/a/cli.py", ["python", "-m", "facerecon_training.cli"], "facerecon-train"),
        ("mine.py", ["python", "mine.py"], ""),
        ("-m", ["python", "-m", "pytest", "facerecon_rt"], ""),
        ("", ["python", "-m"], ""),
        ("-c", ["python", "-c", "import facerecon_rt"], ""),
    ],
)
def test_no_other_program_that_imports_the_package_has_its_signals_taken(
    script: str, words: list[str], command: str
) -> None:
    assert command_of(script, words) == command


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_an_import_and_a_second_one_does_not(
    second: signal.Signals,
) -> None:
    went_on = []
    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), importing():
        signal.raise_signal(signal.SIGINT)
        went_on.append(1)
    with pytest.raises(KeyboardInterrupt), importing():
        signal.raise_signal(signal.SIGINT)
        went_on.append(2)
        signal.raise_signal(second)
        went_on.append(3)
    signal.signal(signal.SIGTERM, handler)
    assert went_on == [1, 2]


def test_handlers_are_left_as_they_were_and_other_threads_alone() -> None:
    def mine(*_: object) -> None: ...

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with importing():
            pass
        assert signal.getsignal(signal.SIGTERM) is mine

        def elsewhere() -> None:
            with importing():
                done.append(True)

        done: list[bool] = []
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert done
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("name", "python_ends"), [("grab cam0", False), ("other", True)])
def test_a_command_does_not_wait_for_a_camera_and_python_does_not_end_beside_it(
    name: str, python_ends: bool, tmp_path: Path
) -> None:
    command = console_script("facerecon-rt", tmp_path)
    Path(command[1]).write_text(
        "import atexit, sys, threading\n"
        "from facerecon_rt.start import leave\n"
        "atexit.register(print, 'Python ends')\n"
        f"threading.Thread(target=threading.Event().wait, name='{name}', daemon=True).start()\n"
        "print('written')\n"
        "sys.exit(leave(130))\n"
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (130, "written\n" + "Python ends\n" * python_ends)

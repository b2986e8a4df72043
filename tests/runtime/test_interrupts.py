"""Ctrl-C and SIGTERM while Python imports: the exit code is the same as later, and there is no traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from facerecon_rt import interrupts
from facerecon_rt.interrupts import command_of, importing

from tests.interrupted import console_script, signalled_while_importing

MODULE = [sys.executable, "-m", "facerecon_rt.cli"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("started", ["script", "module"])
def test_a_command_that_is_still_loaded_ends_at_once(started: str, number: signal.Signals, tmp_path: Path) -> None:
    command = console_script("facerecon-rt", tmp_path) if started == "script" else MODULE
    code, said = signalled_while_importing([*command, "--version"], "cv2", number, tmp_path, go_on=False)
    assert (code, said) == (130, "facerecon-rt: interrupted\n")


@pytest.mark.parametrize("started", ["script", "module"])
def test_signals_are_taken_before_the_first_import_of_the_package(started: str, tmp_path: Path) -> None:
    command = console_script("facerecon-rt", tmp_path) if started == "script" else MODULE
    first = "typing" if started == "script" else "facerecon_rt.limits"  # python -m itself imports typing
    code, said = signalled_while_importing([*command, "--version"], first, signal.SIGINT, tmp_path, go_on=False)
    assert (code, said) == (130, "facerecon-rt: interrupted\n")


def test_what_takes_the_signals_is_quick_to_import() -> None:
    code = f"import sys; exec(open({interrupts.__file__!r}).read(), {{}}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert "signal" in done.stdout.split()
    assert not {"pathlib", "typing", "numpy", "urllib"} & set(done.stdout.split())


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


def test_a_signal_waits_for_the_end_of_an_import_and_a_second_one_does_not() -> None:
    went_on = []
    with pytest.raises(KeyboardInterrupt), importing():
        signal.raise_signal(signal.SIGINT)
        went_on.append(1)
    with pytest.raises(KeyboardInterrupt), importing():
        signal.raise_signal(signal.SIGINT)
        went_on.append(2)
        signal.raise_signal(signal.SIGINT)
        went_on.append(3)
    assert went_on == [1, 2]


@pytest.fixture(autouse=True)
def python_answers_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> object:
    """Let Python handle Ctrl-C as in a terminal, however the tests were started."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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

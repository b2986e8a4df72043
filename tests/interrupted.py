"""Commands that receive a signal at one exact moment: while Python imports a certain module."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
STOP = """
import os, sys, time

class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["STOP_AT"]:
            sys.meta_path.remove(self)
            open(os.environ["REACHED"], "x").close()
            while not os.path.exists(os.environ["GO_ON"]):
                time.sleep(0.01)

sys.meta_path.insert(0, Stop())
"""
"""Python runs a module of the name sitecustomize when it starts: this one makes it wait in the middle of an import."""


@contextmanager
def default_interrupts() -> Iterator[None]:
    """Let processes that are started in the block receive Ctrl-C. A program inherits ignored signals, and a shell's
    background job ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def console_script(name: str, folder: Path) -> list[str]:
    """Return the command that pip installs for an entry of pyproject.toml."""
    entry = re.search(rf'^{name} = "(.*):(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert entry is not None
    script = folder / name
    script.write_text(f"import sys\nfrom {entry[1]} import {entry[2]}\nsys.exit({entry[2]}())\n")
    return [sys.executable, str(script)]


def signalled_while_importing(
    command: Sequence[str], module: str, number: signal.Signals, folder: Path, *, go_on: bool
) -> tuple[int, str]:
    """Return exit code and standard error of a command that receives a signal while it imports a module.

    `go_on`: whether the import continues after the signal; otherwise it never ends.
    """
    reached, on = folder / "reached", folder / "go-on"
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(STOP)
    path = os.pathsep.join([str(folder / "site"), *filter(None, sys.path)])
    variables = {"PYTHONPATH": path, "STOP_AT": module, "REACHED": str(reached), "GO_ON": str(on)}
    with (
        default_interrupts(),
        subprocess.Popen(
            command, env={**os.environ, **variables}, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child,
    ):
        deadline = time.monotonic() + 60
        while not reached.exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert reached.exists(), child.communicate()[1].decode()
        child.send_signal(number)
        if go_on:
            on.touch()
        try:
            _, said = child.communicate(timeout=60)
        finally:
            child.kill()
    return child.returncode, said.decode()

"""Without a working OpenCV, one line names the package to install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MISSING, BROKEN, OLD, LEFT = "missing", "broken", "old", "left"


@pytest.fixture(params=[MISSING, BROKEN, OLD, LEFT])
def spoilt(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, str]]:
    """The fault of an OpenCV, and the environment of a Python that has it."""
    state: str = request.param
    if state == MISSING:
        (tmp_path / "sitecustomize.py").write_text(
            "import sys\n"
            "class Missing:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name == 'cv2': raise ModuleNotFoundError(\"No module named 'cv2'\", name='cv2')\n"
            "sys.meta_path.insert(0, Missing())\n"
        )
    else:
        (tmp_path / "cv2").mkdir()
        old = "raise ImportError('numpy.core.multiarray failed to import')\n"  # as OpenCV 4.8 beside numpy 2
        text = {BROKEN: "import numpy.gone\n", OLD: old, LEFT: ""}[state]
        (tmp_path / "cv2" / "__init__.py").write_text(text)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    return state, {**os.environ, "PYTHONPATH": path}


SAID = {
    MISSING: "OpenCV is not installed; pip install 'facerecon-rt[opencv]'",
    BROKEN: "OpenCV cannot be loaded (No module named 'numpy.gone'); pip uninstall -y opencv-python-headless ",
    OLD: "OpenCV cannot be loaded (numpy.core.multiarray failed to import); it was built for numpy 1: pip install 'num",
    LEFT: "OpenCV is incomplete, since one of its wheels was uninstalled; pip uninstall -y opencv-python-headless ",
}


def test_the_package_says_what_to_install(spoilt: tuple[str, dict[str, str]]) -> None:
    state, environment = spoilt
    done = subprocess.run(
        [sys.executable, "-c", "import facerecon_rt"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"ImportError: {SAID[state]}")


def test_a_command_says_it_in_one_line(spoilt: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    state, environment = spoilt
    command = tmp_path / "facerecon-rt"
    command.write_text("import sys\nfrom facerecon_rt.cli import main\nsys.exit(main())\n")
    done = subprocess.run([sys.executable, command, "doctor"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert done.stderr.startswith(f"facerecon-rt: {SAID[state]}")

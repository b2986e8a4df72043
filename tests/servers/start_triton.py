"""A model repository -> a running Triton Inference Server, where one is installed.

NVIDIA's wheel nvidia-pytriton carries the server's program and its Python backend, for Linux on x86-64. It cannot stand
in the environment of the tests, as it wants NumPy 1, so it has one of its own, named by FACERECON_TRITON_PYTHON:

    python3.11 -m venv triton && triton/bin/pip install 'numpy<2' onnxruntime
    triton/bin/pip install --no-deps nvidia-pytriton==0.7.0 'opencv-python-headless>=5' -e .
    pip install 'tritonclient[http,grpc]'
    FACERECON_TRITON_PYTHON=triton/bin/python pytest tests/runtime/test_kserve_client.py

Python backends up to that of Triton 24.10, which this is, take empty tensors from NumPy 2. They look for packages where
PATH has its Python.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers.process import Server, running

PYTHON = "FACERECON_TRITON_PYTHON"
PROBE = """
import sysconfig
from importlib.util import find_spec
print(find_spec("pytriton").submodule_search_locations[0], sysconfig.get_paths()["purelib"])
print(sysconfig.get_python_version(), sysconfig.get_config_var("LIBDIR"))
"""


@contextmanager
def triton(repository: Path, scratch: Path) -> Iterator[Server]:
    """Run Triton with all models of the repository, strictly as configured. Models that are added later load on
    request. Skips the test without an environment for it."""
    if PYTHON not in os.environ:
        pytest.skip(f"set {PYTHON} to the Python of an environment with Triton, as in tests/servers/start_triton.py")
    asked = subprocess.run([os.environ[PYTHON], "-c", PROBE], capture_output=True, text=True, check=True)
    pytriton, packages, version, libraries = asked.stdout.split()
    home = Path(pytriton) / "tritonserver"
    backends = scratch / "backends"
    shutil.copytree(home / "backends" / "python", backends / "python")
    shutil.copy(home / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
    (backends / "onnxruntime").mkdir()
    shutil.copy(Path(__file__).with_name("onnxruntime_backend.py"), backends / "onnxruntime" / "model.py")

    def command(http: int, grpc: int) -> list[str]:
        return [
            *(str(home / "bin" / "tritonserver"), f"--model-repository={repository}"),
            *(f"--backend-directory={backends}", "--disable-auto-complete-config", "--exit-on-error=false"),
            *("--model-control-mode=explicit", "--load-model=*", "--allow-metrics=false"),
            *("--http-address=127.0.0.1", f"--http-port={http}", "--grpc-address=127.0.0.1", f"--grpc-port={grpc}"),
        ]

    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(os.environ[PYTHON]).absolute().parent), os.environ["PATH"]]),
        "LD_LIBRARY_PATH": os.pathsep.join([f"{packages}/nvidia_pytriton.libs", libraries]),
    }
    with running(command, scratch / "triton.log", environment) as server:
        yield server

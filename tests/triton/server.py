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
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PYTHON = "FACERECON_TRITON_PYTHON"
PROBE = """
import sysconfig
from importlib.util import find_spec
print(find_spec("pytriton").submodule_search_locations[0], sysconfig.get_paths()["purelib"])
print(sysconfig.get_python_version(), sysconfig.get_config_var("LIBDIR"))
"""
STARTS_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Triton:
    """A server that is ready."""

    http: str
    """As in http://127.0.0.1:8000."""
    grpc: str
    log: Path


@contextmanager
def triton(repository: Path, scratch: Path) -> Iterator[Triton]:
    """Models are loaded when they are asked to be, and strictly as configured: nothing is completed. Skips the test
    without a server; fails it where the server does not start."""
    if PYTHON not in os.environ:
        pytest.skip(f"set {PYTHON} to the Python of an environment with Triton, as in tests/triton/server.py")
    asked = subprocess.run([os.environ[PYTHON], "-c", PROBE], capture_output=True, text=True, check=True)
    pytriton, packages, version, libraries = asked.stdout.split()
    home = Path(pytriton) / "tritonserver"
    backends = scratch / "backends"
    shutil.copytree(home / "backends" / "python", backends / "python")
    stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, backends / "python")
    (backends / "onnxruntime").mkdir()
    shutil.copy(Path(__file__).with_name("onnxruntime_backend.py"), backends / "onnxruntime" / "model.py")
    http, grpc = _free_port(), _free_port()
    command = [str(home / "bin" / "tritonserver"), f"--model-repository={repository}"]
    command += [f"--backend-directory={backends}", "--disable-auto-complete-config", "--allow-metrics=false"]
    command += ["--model-control-mode=explicit", "--load-model=*", "--exit-on-error=false"]
    command += ["--http-address=127.0.0.1", f"--http-port={http}", "--grpc-address=127.0.0.1", f"--grpc-port={grpc}"]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(os.environ[PYTHON]).absolute().parent), os.environ["PATH"]]),
        "LD_LIBRARY_PATH": os.pathsep.join([f"{packages}/nvidia_pytriton.libs", libraries]),
    }
    log = scratch / "triton.log"
    with log.open("w") as said, subprocess.Popen(command, stdout=said, stderr=said, env=environment) as server:
        try:
            _wait_until_live(server, http, log)
            yield Triton(f"http://127.0.0.1:{http}", f"grpc://127.0.0.1:{grpc}", log)
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait_until_live(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/live", timeout=2).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"Triton did not start:\n{log.read_text()[-3000:]}")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port

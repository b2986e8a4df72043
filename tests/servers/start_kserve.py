"""A model repository -> KServe's own Python server, where one is installed.

Its package wants another psutil than rerun-sdk does, so it has an environment of its own, named by
FACERECON_KSERVE_PYTHON:

    python3.11 -m venv kserve && kserve/bin/pip install kserve onnxruntime
    pip install 'tritonclient[http,grpc]'
    FACERECON_KSERVE_PYTHON=kserve/bin/python pytest tests/runtime/test_kserve_client.py
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers.process import Server, running

PYTHON = "FACERECON_KSERVE_PYTHON"


@contextmanager
def kserve(repository: Path, log: Path) -> Iterator[Server]:
    """Run KServe's server for a model repository. Skips the test without an environment for it."""
    if PYTHON not in os.environ:
        pytest.skip(f"set {PYTHON} to the Python of an environment with KServe, as in tests/servers/start_kserve.py")
    program = Path(__file__).with_name("kserve_models.py")

    def command(http: int, grpc: int) -> list[str]:
        return [os.environ[PYTHON], str(program), str(repository), str(http), str(grpc)]

    with running(command, log, {**os.environ, "PYTHONPATH": ""}) as server:
        yield server

"""Commands as a user runs them who is bound by permissions, since root reads everything."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

DROP = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
"""Still root, who owns the tests' files, and without the right to read what is closed to their owner."""


def unprivileged(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`, and return its result. Skips the test where permissions cannot bind this user."""
    drop: list[str] = []
    if os.geteuid() == 0:
        if shutil.which(DROP[0]) is None or subprocess.run([*DROP, "true"], capture_output=True).returncode:
            pytest.skip("root reads everything, and there is no setpriv that drops that right")
        drop = DROP
    return subprocess.run([*drop, *command], cwd=folder, capture_output=True, text=True, timeout=120)

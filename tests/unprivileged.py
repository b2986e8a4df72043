"""Commands as a user runs them whom permissions hold: root reads everything."""

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
    """What it did, run in `folder`. Skips the test where this user cannot be held by permissions."""
    drop: list[str] = []
    if os.geteuid() == 0:
        if shutil.which(DROP[0]) is None or subprocess.run([*DROP, "true"], capture_output=True).returncode:
            pytest.skip("root reads everything, and there is no setpriv that drops that right")
        drop = DROP
    return subprocess.run([*drop, *command], cwd=folder, capture_output=True, text=True, timeout=120)

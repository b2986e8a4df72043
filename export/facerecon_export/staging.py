"""A folder to make files in, beside their destination, so that no incomplete file is left."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from facerecon_rt.errors import UsageError


@contextmanager
def staging(destination: Path) -> Iterator[Path]:
    """Yield a hidden folder inside `destination`, which is removed at the end in every case.

    Move finished files out of the folder. Raises UsageError if `destination` cannot be written or the disk is full.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".facerecon-export-", dir=destination) as folder:
            yield Path(folder)
    except OSError as error:
        raise UsageError(f"{destination}: cannot be written ({error.strerror}); give another folder with -o") from error

"""A folder to make files in, beside where they will lie: what is there at the end is whole, or there is nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from facerecon_rt.errors import UsageError


@contextmanager
def staging(destination: Path) -> Iterator[Path]:
    """A hidden folder inside `destination`, gone afterwards, come what may; move finished files out of it.

    Raises UsageError where `destination` cannot be written or runs full.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".facerecon-export-", dir=destination) as folder:
            yield Path(folder)
    except OSError as error:
        raise UsageError(f"{destination}: cannot be written ({error.strerror}); give another place with -o") from error

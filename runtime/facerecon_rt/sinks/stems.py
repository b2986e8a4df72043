"""Sources -> parts of the names of files."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from ..addresses import public_name

LONGEST_STEM = 160
"""Maximum bytes of a stem, out of the 255 that a file name may have."""


def stem_of(source: str, *, live: bool = False) -> str:
    """Return a file name without suffix. In a stream's address or a camera's name, `_` replaces unsuitable
    characters."""
    if not live and "://" not in source:
        return Path(source).stem or "source"  # `/` and `.` have no name
    return re.sub(r"[^\w.-]+", "_", public_name(source).rpartition("://")[2]).strip("_.") or "stream"


def shortened(stem: str) -> str:
    """Return the stem, or for a long one its beginning and a hash of the whole stem, which keeps stems distinct. It
    leaves room for `_montage`, a number, a suffix and the name of a partial file."""
    encoded = stem.encode("utf-8", "surrogatepass")
    if len(encoded) <= LONGEST_STEM:
        return stem
    # A character that is cut in two is dropped.
    return f"{encoded[: LONGEST_STEM - 9].decode(errors='ignore')}_{sha256(encoded).hexdigest()[:8]}"

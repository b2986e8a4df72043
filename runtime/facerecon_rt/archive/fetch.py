"""URI -> bytes: local paths, http, and the stores that pyarrow reaches (s3://, gs://, abfs://, hdfs://, file://)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.request import urlopen

from ..camera import public_name
from ..errors import SourceError

TIMEOUT_S = 30.0
"""Of an http server that does not answer."""


def read_bytes(uri: str, most: int) -> bytes:
    """The whole file. Raises SourceError, in one line, when it cannot be read or has more than `most` bytes."""
    name = public_name(uri)
    try:
        with open_bytes(uri) as stream:
            data: bytes = stream.read(most + 1)
            # What http.client still expects after a connection that broke.
            missing = getattr(stream, "length", None) or 0
    except (OSError, HTTPException, ValueError, NotImplementedError) as error:
        why = " ".join(str(getattr(error, "strerror", None) or getattr(error, "reason", None) or error).split())
        raise SourceError(f"cannot read {name}: {why}") from error
    if len(data) > most:
        raise SourceError(f"{name} has more than {most / 1e6:g} MB; raise --max-mb")
    if missing:
        raise SourceError(f"cannot read {name}: it broke off after {len(data)} bytes")
    return data


def open_bytes(uri: str) -> AbstractContextManager[IO[bytes] | Any]:
    """Open for reading. Raises OSError, HTTPException, ValueError or NotImplementedError."""
    if "://" not in uri:
        return Path(uri).open("rb")
    if uri.startswith(("http://", "https://")):
        return urlopen(uri, timeout=TIMEOUT_S)  # type: ignore[no-any-return]
    from pyarrow.fs import FileSystem

    filesystem, path = FileSystem.from_uri(uri)
    return filesystem.open_input_stream(path)  # type: ignore[no-any-return]

"""A URI -> bytes, from local paths, http, and the stores that pyarrow reaches (s3://, gs://, abfs://, hdfs://,
file://)."""

from __future__ import annotations

import shutil
from base64 import b64encode
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit
from urllib.request import BaseHandler, HTTPRedirectHandler, Request, build_opener

from ..addresses import public_name, safe_reason, split_user
from ..errors import SourceError

TIMEOUT_S = 30.0
"""Timeout in seconds for an http server."""


def read_bytes(uri: str, most: int) -> bytes:
    """Return the whole file. Raises a one-line SourceError when it cannot be read or has more than `most` bytes."""
    name = public_name(uri)
    with _failures(uri), open_bytes(uri) as stream:
        data: bytes = stream.read(most + 1)
        # http.client stores here the number of bytes still missing after a broken connection.
        missing = getattr(stream, "length", None) or 0
    if len(data) > most:
        raise SourceError(f"{name} has more than {most / 1e6:g} MB; raise --max-mb")
    if missing:
        raise SourceError(f"cannot read {name}: the connection broke after {len(data)} bytes; run again")
    return data


def copy_to(uri: str, path: Path) -> None:
    """Copy the whole file, however large. Raises a one-line SourceError."""
    with _failures(uri), open_bytes(uri) as stream, path.open("wb") as file:
        shutil.copyfileobj(stream, file)


@contextmanager
def _failures(uri: str) -> Iterator[None]:
    """Convert errors of libraries to SourceError, without the secrets in the address."""
    try:
        yield
    except (OSError, HTTPException, ValueError, NotImplementedError) as error:
        # The cause is left out: its text may hold the password, and a traceback would show it.
        raise SourceError(f"cannot read {public_name(uri)}: {safe_reason(error, uri)}") from None


def open_bytes(uri: str) -> AbstractContextManager[IO[bytes] | Any]:
    """Open for reading; `http://user:password@host/` logs in with Basic authentication. Raises OSError, HTTPException,
    ValueError or NotImplementedError."""
    if "://" not in uri:
        return Path(uri).open("rb")
    if uri.startswith(("http://", "https://")):
        return build_opener(_LogIn, _OnlyHttp).open(uri, timeout=TIMEOUT_S)  # type: ignore[no-any-return]
    from pyarrow.fs import FileSystem

    filesystem, path = FileSystem.from_uri(uri)
    return filesystem.open_input_stream(path)  # type: ignore[no-any-return]


class _LogIn(BaseHandler):
    """A handler that takes user and password out of the address, where urllib would read them as part of the host.

    It sends them only to that host, also when the host redirects to itself, and never to another.
    """

    handler_order = 100
    """Order that places this handler before those that connect."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}

    def http_request(self, request: Request) -> Request:
        """Log in with each request, including those after a redirect."""
        address, user = split_user(request.full_url)
        parts = urlsplit(address)
        server = (parts.scheme, parts.netloc.lower())
        if user is not None:
            request.full_url = address
            self._known[server] = b64encode(":".join(user).encode()).decode()
        if server in self._known:
            request.add_unredirected_header("Authorization", f"Basic {self._known[server]}")
        return request

    https_request = http_request


class _OnlyHttp(HTTPRedirectHandler):
    """A handler that follows redirects only to http and https. A foreign address must not reach urllib's other
    protocols."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        """Follow a redirect. Raises ValueError where it leads to another protocol."""
        if not newurl.lower().startswith(("http://", "https://")):
            raise ValueError(f"it redirects to {public_name(newurl)}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)

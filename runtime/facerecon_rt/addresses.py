"""An address -> its public form. No name, message, row, log line or report holds a password or token."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

CAMERA = re.compile(r"cam(\d{1,6})|(?:v4l2://)?/dev/video(\d{1,6})|(\d{1,3})")
CSI = re.compile(r"csi://(\d{1,6})")
STREAM_SCHEMES = ("rtsp", "rtsps", "http", "https")

_SECRET_VALUE = re.compile(r"((?:pass|pwd|token|key|secret|auth|sig|cred)[^=&/?#]{0,40}=)[^&#]*", re.IGNORECASE)
"""Value in a query whose key marks it as secret."""
_ADDRESS = re.compile(r"://\S+")
"""An address inside a text, without its scheme."""
_AFTER = ";,.:)]}>'\""
"""Punctuation that follows an address in a sentence."""
_FROM_ENVIRONMENT = re.compile(r"\$\{\w+\}")
"""Placeholder of an environment variable. Its name stands for the secret and is not secret itself."""


_HOST_AND_PORT = re.compile(r"(?:[^:@]*\.[^:@]*|localhost|\[[^@]*\])(?::\d*)?", re.IGNORECASE)
"""A host with an optional port, which is unlikely to be a user and a password."""


def public_name(uri: str) -> str:
    """Return an address without user, password and tokens. Other texts stay as they are.

    A password that is not percent-encoded may hold any character, so everything up to the last @ is removed. An @
    counts as part of the path only where a host, with or without a port, stands before it.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    if user := _user(uri):
        rest = rest[len(user) + 1 :]
    return scheme + separator + _SECRET_VALUE.sub(r"\1***", rest)


def scheme_of(uri: str) -> str:
    """Return the scheme of an address in lower case; "" for other texts."""
    scheme, separator, _ = uri.partition("://")
    return scheme.lower() if separator else ""


def _user(uri: str) -> str:
    """Return the part before the host, `user:password`; "" where there is none."""
    rest, host = uri.partition("://")[2], _host(uri)
    return rest.rpartition("@")[0] if "@" in host or (":" in host and not _HOST_AND_PORT.fullmatch(host)) else ""


def _host(uri: str) -> str:
    """Return the part before the path: the host, with user, password and port where they are given."""
    return re.split(r"[/?#]", uri.partition("://")[2], maxsplit=1)[0]


def without_secrets(text: str) -> str:
    """Return the text with every address in its public form. Names of variables (`user:${PASSWORD}@`) stay."""
    return _ADDRESS.sub(_shown, text)


def _shown(found: re.Match[str]) -> str:
    uri = found[0].rstrip(_AFTER)
    uri += "}" if re.search(r"\$\{\w+$", uri) else ""
    return (uri if _names_variables(uri) else public_name(uri)) + found[0][len(uri) :]


def _names_variables(uri: str) -> bool:
    """Return whether everything that would be hidden in the address is the name of a variable."""
    hidden = [found[0].partition("=")[2] for found in _SECRET_VALUE.finditer(uri)]
    if user := _user(uri):
        hidden.append(user.partition(":")[2])
    return bool(hidden) and all(_FROM_ENVIRONMENT.fullmatch(value) for value in hidden)


def safe_reason(error: BaseException, uri: str = "") -> str:
    """Return the reason for an error on one line, without the secrets of `uri`, whichever library wrote the message."""
    why = " ".join(str(getattr(error, "strerror", None) or getattr(error, "reason", None) or error).split())
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        why = why.replace(secret, "***")
    return without_secrets(why)


def _secrets(uri: str) -> set[str]:
    """Return the user, the password and the tokens of an address, as written and decoded."""
    user = _user(uri)
    found = {user, *user.split(":", 1), *(match[0].partition("=")[2] for match in _SECRET_VALUE.finditer(uri))}
    return {text for secret in found for text in (secret, unquote(secret)) if text}


def path_of(uri: str) -> Path:
    """Return the path of an address, without what follows it (`?token=...`). The path of a file stays as it is."""
    return Path(re.split(r"[?#]", uri.partition("://")[2], maxsplit=1)[0] if "://" in uri else uri)


def split_user(uri: str) -> tuple[str, tuple[str, str] | None]:
    """Split an http address into the address without user and password, and both decoded, or None without a user."""
    host = _host(uri)
    user = host.rpartition("@")[0]
    if not user and not re.fullmatch(r"[^:]*:\d*", host):
        user = _user(uri)  # the password holds a /
    if not user:
        return uri, None
    scheme, separator, rest = uri.partition("://")
    name, _, password = user.partition(":")
    return scheme + separator + rest[len(user) + 1 :], (unquote(name), unquote(password))


class PublicMessages(logging.Filter):
    """A filter that passes every line of the log, and hides the secrets in its addresses."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the record's message by its public form. Always true."""
        record.msg, record.args = without_secrets(record.getMessage()), ()
        return True


# The filter is on the logger, not on a handler, because users of the package from Python have their own handlers.
logging.getLogger("facerecon_rt").addFilter(PublicMessages())


def is_live(uri: str) -> bool:
    """Return whether the URI is a camera or a stream, whose frames cannot be read twice."""
    device = CAMERA.fullmatch(uri) or CSI.fullmatch(uri)
    return device is not None or scheme_of(uri) in STREAM_SCHEMES


class DistinctNames:
    """Names of sources in the alphabet of another program, each for one source: a name that another source has gets a
    number, in the order in which the sources come."""

    def __init__(self, name_of: Callable[[str], str]) -> None:
        """`name_of` turns a source into a name, and may give several sources the same."""
        self._name_of = name_of
        self._names: dict[str, str] = {}
        self._taken: set[str] = set()

    def __call__(self, source: str) -> str:
        """Return the name of a source, always the same."""
        if source not in self._names:
            first, number = self._name_of(source), 2
            name = first
            while name in self._taken:
                name, number = f"{first}_{number}", number + 1
            self._names[source] = name
            self._taken.add(name)
        return self._names[source]

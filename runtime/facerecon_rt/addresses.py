"""Addresses -> what may be shown of them: no name, message, row, log or report holds a password or a token."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from urllib.parse import unquote

CAMERA = re.compile(r"cam(\d{1,6})|(?:v4l2://)?/dev/video(\d{1,6})")
CSI = re.compile(r"csi://(\d{1,6})")
STREAM_SCHEMES = ("rtsp", "rtsps", "http", "https")

_SECRET_VALUE = re.compile(r"((?:pass|pwd|token|key|secret|auth|sig|cred)[^=&/?#]{0,40}=)[^&#]*", re.IGNORECASE)
"""A query's value whose name says that it is secret."""
_ADDRESS = re.compile(r"://\S+")
"""An address inside a text, but for its scheme."""
_AFTER = ";,.:)]}>'\""
"""Punctuation that follows an address in a sentence."""
_FROM_ENVIRONMENT = re.compile(r"\$\{\w+\}")
"""The name of a variable stands for the secret; it is not the secret."""


_HOST_AND_PORT = re.compile(r"(?:[^:@]*\.[^:@]*|localhost|\[[^@]*\])(?::\d*)?", re.IGNORECASE)
"""What can hardly be a user and a password."""


def public_name(uri: str) -> str:
    """The address without user, password and tokens; what is no address stays as it is.

    A password that should have been escaped and was not may hold any character, so everything up to the last @ goes;
    an @ is taken for a part of the path only where a host, with or without a port, stands before it.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    if user := _user(uri):
        rest = rest[len(user) + 1 :]
    return scheme + separator + _SECRET_VALUE.sub(r"\1***", rest)


def _user(uri: str) -> str:
    """What stands before the host: `user:password`, or "" where nothing does."""
    rest, host = uri.partition("://")[2], _host(uri)
    return rest.rpartition("@")[0] if "@" in host or (":" in host and not _HOST_AND_PORT.fullmatch(host)) else ""


def _host(uri: str) -> str:
    """What stands before the path: the host, and whatever there is of user, password and port."""
    return re.split(r"[/?#]", uri.partition("://")[2], maxsplit=1)[0]


def without_secrets(text: str) -> str:
    """The text with every address in it as `public_name` shows it. Variables' names (`user:${PASSWORD}@`) stay."""
    return _ADDRESS.sub(_shown, text)


def _shown(found: re.Match[str]) -> str:
    uri = found[0].rstrip(_AFTER)
    uri += "}" if re.search(r"\$\{\w+$", uri) else ""
    return (uri if _names_variables(uri) else public_name(uri)) + found[0][len(uri) :]


def _names_variables(uri: str) -> bool:
    """Is everything in the address that would be hidden the name of a variable?"""
    hidden = [found[0].partition("=")[2] for found in _SECRET_VALUE.finditer(uri)]
    if user := _user(uri):
        hidden.append(user.partition(":")[2])
    return bool(hidden) and all(_FROM_ENVIRONMENT.fullmatch(value) for value in hidden)


def said_of(error: BaseException, uri: str = "") -> str:
    """Why something failed, on one line: the error's own words without what is secret in `uri`, whichever library
    wrote them."""
    why = " ".join(str(getattr(error, "strerror", None) or getattr(error, "reason", None) or error).split())
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        why = why.replace(secret, "***")
    return without_secrets(why)


def _secrets(uri: str) -> set[str]:
    """The user, the password and the tokens of an address, as they stand there and decoded."""
    user = _user(uri)
    found = {user, *user.split(":", 1), *(match[0].partition("=")[2] for match in _SECRET_VALUE.finditer(uri))}
    return {text for secret in found for text in (secret, unquote(secret)) if text}


def path_of(uri: str) -> Path:
    """Where an address leads, without what follows the path (`?token=...`); a file's name is its own path."""
    return Path(re.split(r"[?#]", uri.partition("://")[2], maxsplit=1)[0] if "://" in uri else uri)


def split_user(uri: str) -> tuple[str, tuple[str, str] | None]:
    """An http address -> the address without user and password, and those two, decoded, where there are any."""
    host = _host(uri)
    user = host.rpartition("@")[0]
    if not user and not re.fullmatch(r"[^:]*:\d*", host):
        user = _user(uri)  # a / in the password
    if not user:
        return uri, None
    scheme, separator, rest = uri.partition("://")
    name, _, password = user.partition(":")
    return scheme + separator + rest[len(user) + 1 :], (unquote(name), unquote(password))


class PublicMessages(logging.Filter):
    """Lets every line of the log through, without what is secret in the addresses it names."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true."""
        record.msg, record.args = without_secrets(record.getMessage()), ()
        return True


# On the logger and not on a handler: whoever uses this package from Python has handlers of their own.
logging.getLogger("facerecon_rt").addFilter(PublicMessages())


def is_live(uri: str) -> bool:
    """True for a camera or a stream, whose frames cannot be read twice."""
    scheme, colon, _ = uri.partition("://")
    device = CAMERA.fullmatch(uri) or CSI.fullmatch(uri)
    return device is not None or (bool(colon) and scheme.lower() in STREAM_SCHEMES)

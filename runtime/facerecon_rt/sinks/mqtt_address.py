"""The address of an MQTT broker -> where messages go, and how pictures look."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from ..addresses import public_name, scheme_of
from ..errors import SourceError, UsageError
from ..sources.camera import with_environment
from .hide import is_cover
from .snapshot import PLAIN, SNAPSHOT_STYLES

SCHEMES = {"mqtt": 1883, "mqtts": 8883}
"""Schemes of addresses and their default ports."""
TOPIC = "facerecon"
DISCOVERY = "homeassistant"


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker's address, read from `mqtt://user:password@host:port/topic?discovery=PREFIX|off&snapshot=STYLE|off&ca=FILE`."""

    host: str
    port: int
    tls: bool
    user: str | None
    password: str | None
    topic: str
    discovery: str | None
    """Prefix of Home Assistant's topics; None for no discovery."""
    snapshot: str | None
    """How pictures look, one of `SNAPSHOT_STYLES`, or "off"; None for the default."""
    ca: str | None
    """File of certificates that the broker's must be signed with; None for the system's."""


def is_mqtt(target: str) -> bool:
    """Return whether an output is the address of a broker."""
    return scheme_of(target) in SCHEMES


def broker_from_address(address: str) -> Broker:
    """Read the address of a broker. `${NAME}` is replaced by the environment variable. Raises UsageError."""
    name = public_name(address)
    try:
        # Variables are replaced after the address is split, since a password may hold any character.
        parts = urlsplit(address)
        port, user, password = parts.port, _decoded(parts.username), _decoded(parts.password)
    except SourceError as error:
        raise UsageError(f"cannot connect to {name}: {error}") from error
    except ValueError as error:
        raise UsageError(f"cannot read {name}: its port is not a number up to 65535") from error
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    topic = unquote(parts.path).strip("/") or TOPIC
    discovery = options.get("discovery", DISCOVERY)
    # A bare # begins a fragment, which urlsplit takes off the topic.
    if "#" in address or re.search(r"[+#\x00]", topic + discovery):
        raise UsageError(
            f"cannot read {name}: topics to publish to hold no # and no +; leave them out, and write them as %23 and "
            "%2B in a password"
        )
    if not parts.hostname or options.keys() - {"discovery", "snapshot", "ca"}:
        raise UsageError(
            f"cannot read {name}; write mqtt://user:${{PASSWORD}}@host:port/topic, with ?discovery=off, "
            "&snapshot=STYLE and &ca=FILE"
        )
    look = options.get("snapshot")
    if look not in (None, "off", *SNAPSHOT_STYLES):
        raise UsageError(f"{name}: unknown snapshot {look!r}; choose from {', '.join(SNAPSHOT_STYLES)}, off")
    return Broker(
        host=parts.hostname,
        port=port or SCHEMES[parts.scheme],
        tls=parts.scheme == "mqtts",
        user=user,
        password=password,
        topic=topic,
        discovery=None if discovery == "off" else discovery or DISCOVERY,
        snapshot=look,
        ca=options.get("ca"),
    )


def may_cover(target: str, style: str, *, pictures: bool) -> bool:
    """Return whether an output is a broker that gets pictures with covered faces. `style`, `pictures` and errors: as
    `snapshot_style`."""
    if not is_mqtt(target):
        return False
    shown = snapshot_style(broker_from_address(target), style, pictures=pictures)
    return shown is not None and is_cover(shown)


def _decoded(part: str | None) -> str | None:
    return None if part is None else with_environment(unquote(part))


def snapshot_style(broker: Broker, style: str, *, pictures: bool) -> str | None:
    """Return how pictures on demand look; None for no pictures. Faces are blurred, unless the address says otherwise.

    `style`: the style of all outputs; one that covers faces holds here too. `pictures`: whether outputs may have
    pixels. Raises UsageError where the address contradicts them.
    """
    wanted = broker.snapshot
    if not pictures and wanted not in (None, "off"):
        raise UsageError(f"snapshot={wanted} is a picture, and --no-pictures forbids them; leave out one of the two")
    if is_cover(style) and wanted == PLAIN:
        raise UsageError(f"snapshot={PLAIN} shows faces, and --style {style} covers them; leave out one of the two")
    if not pictures or wanted == "off":
        return None
    return wanted or (style if is_cover(style) else "blur")

"""A camera -> the messages with which Home Assistant finds its entities."""

from __future__ import annotations

import re
from hashlib import sha256

GET = "snapshot/get"
"""End of the topics that ask for a picture."""


def entities(prefix: str, topic: str, camera: str) -> list[tuple[str, dict[str, object]]]:
    """Return the topics and configurations with which Home Assistant finds a camera's four sensors."""
    found: dict[str, tuple[str, dict[str, object], str]] = {
        "presence": ("binary_sensor", {"device_class": "occupancy"}, "{{ 'ON' if value_json.present else 'OFF' }}"),
        "faces": ("sensor", {"state_class": "measurement"}, "{{ value_json.faces }}"),
        "drowsiness": ("sensor", {}, "{{ value_json.drowsiness or 'unknown' }}"),
        "blink_rate": ("sensor", {"unit_of_measurement": "1/min"}, "{{ value_json.blinks_per_min }}"),
    }
    state = {"state_topic": f"{topic}/{camera}/state"}
    return [
        _entity(prefix, topic, camera, name, kind, {"value_template": template, **state, **more})
        for name, (kind, more, template) in found.items()
    ]


def picture_entities(prefix: str, topic: str, camera: str) -> list[tuple[str, dict[str, object]]]:
    """Return the topics and configurations of a camera's last picture, and of the button that asks for another."""
    return [
        _entity(prefix, topic, camera, "picture", "camera", {"topic": f"{topic}/{camera}/snapshot"}),
        _entity(prefix, topic, camera, "take_picture", "button", {"command_topic": f"{topic}/{camera}/{GET}"}),
    ]


def _entity(
    prefix: str, topic: str, camera: str, name: str, kind: str, more: dict[str, object]
) -> tuple[str, dict[str, object]]:
    base = re.sub(r"[^A-Za-z0-9_-]", "_", f"{topic}_{camera}")
    identity = f"{base}_{sha256(f'{topic}/{camera}'.encode()).hexdigest()[:6]}"
    return f"{prefix}/{kind}/{identity}/{name}/config", {
        "name": name.replace("_", " ").capitalize(),
        "unique_id": f"{identity}_{name}",
        "availability_topic": f"{topic}/status",
        "device": {"identifiers": [identity], "name": f"facerecon {camera}", "manufacturer": "facerecon-rt"},
        **more,
    }

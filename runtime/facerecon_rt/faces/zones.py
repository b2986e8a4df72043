"""Text -> named ranges of directions in which a person may look."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import UsageError
from ..values import shown

_RANGE = r"(-?\d{1,3}(?:\.\d{1,6})?)\.\.(-?\d{1,3}(?:\.\d{1,6})?)"
_ZONE = re.compile(rf"(?P<name>[\w-]{{1,40}})=(?:yaw:{_RANGE})?,?(?:pitch:{_RANGE})?")


@dataclass(frozen=True, slots=True)
class Zone:
    """A named range of directions in degrees, as the pose's angles: yaw is positive to the subject's left, pitch is
    positive upwards, and (0, 0) is towards the camera."""

    name: str
    yaw: tuple[float, float] = (-180.0, 180.0)
    pitch: tuple[float, float] = (-90.0, 90.0)

    def holds(self, yaw: float, pitch: float) -> bool:
        """Return whether a direction in degrees lies in the zone."""
        return self.yaw[0] <= yaw <= self.yaw[1] and self.pitch[0] <= pitch <= self.pitch[1]


def zone_from_text(text: str) -> Zone:
    """Read a zone such as `road=yaw:-15..15,pitch:-10..10`. Either range may be left out. Raises UsageError."""
    found = _ZONE.fullmatch(text)
    if found is None or text.endswith(("=", ",")):
        raise UsageError(
            f"{shown(text)} is not a zone; write NAME=yaw:FROM..TO,pitch:FROM..TO in degrees. A name has letters, "
            "digits, _ and -, up to 40; one of the ranges may be left out"
        )
    values = [None if value is None else float(value) for value in found.groups()[1:]]
    yaw = (-180.0, 180.0) if values[0] is None or values[1] is None else (values[0], values[1])
    pitch = (-90.0, 90.0) if values[2] is None or values[3] is None else (values[2], values[3])
    if yaw[0] >= yaw[1] or pitch[0] >= pitch[1]:
        raise UsageError(f"the zone {found['name']} is empty; write the smaller angle first")
    return Zone(found["name"], yaw, pitch)

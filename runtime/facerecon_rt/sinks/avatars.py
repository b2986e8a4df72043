"""Scenes -> UDP packets for avatars: the Live Link Face protocol, and VMC, which is OSC (https://protocol.vmc.info)."""

from __future__ import annotations

import logging
import socket
import time
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from ..addresses import scheme_of
from ..errors import UsageError
from ..faces.reconstruct import largest
from ..interrupts import importing
from ..pose import viewer_from_head
from ..types import Face, Frame, Scene
from .livelink import live_link_packet, live_link_values
from .outputs import cannot_write
from .record import arkit_blendshapes
from .take import eye_angles, head_pose

log = logging.getLogger("facerecon_rt")

PORTS = {"livelink": 11111, "vmc": 39539}
"""Schemes of addresses, and the ports where programs listen unless the address has another."""
SUBJECT = "facerecon"
TOGETHER = 24
"""Messages per packet: at most 1300 bytes, which fit into an Ethernet frame."""

LONGEST_WAIT_S = 2.0
"""Maximum time in seconds for which a frame of a file waits. A frame that is due later, or was due so long ago, starts
the clock anew: time stamps may jump by hours, and a slow run never catches up."""
LOOK_S = 0.1
"""Maximum time in seconds until a wait notices that it shall end."""

Message = tuple[str, list[str | float]]
"""Address and values."""


def is_avatar(target: str) -> bool:
    """Return whether the output is an address of an avatar's program."""
    return scheme_of(target) in PORTS


class AvatarSink:
    """A sink that sends the largest face of every frame. Photographs and videos are sent at their own pace."""

    def __init__(self, target: str, blendshapes: Sequence[str]) -> None:
        """Open the socket.

        `target`: `livelink://host:11111`, `vmc://host:39539`, or `vmc://host:39539?capitals` for names such as
        EyeBlinkLeft. `blendshapes`: (B,) names from the model's contract. Raises UsageError for an address without a
        host, and where an address needs a missing library.
        """
        parts = urlsplit(target)
        self._scheme, self._target = parts.scheme.lower(), target
        options = ("", "capitals") if self._scheme == "vmc" else ("",)
        try:
            host, port = parts.hostname, parts.port or PORTS[self._scheme]
        except ValueError:
            host, port = None, 0
        if not host or parts.query not in options or parts.path not in ("", "/"):
            raise UsageError(f"{target} is not an address; give host and port, as in {self._example}")
        self._blendshapes = tuple(blendshapes)
        self._capitals = parts.query == "capitals"
        self._osc = None if self._scheme == "livelink" else import_osc()
        self._device = str(uuid.uuid4()).upper()
        self._subjects: dict[str, str] = {}
        self._began: dict[str, float] = {}
        """Value of time.monotonic() at time 0 of each file."""
        self._hurried = False
        self._failing = False
        """Whether the network refused the last packets."""
        try:
            family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            self._address: tuple[Any, ...] = address
            self._socket = socket.socket(family, kind)
        except OSError as error:
            raise cannot_write(target, error) from error

    @property
    def _example(self) -> str:
        return f"{self._scheme}://127.0.0.1:{PORTS[self._scheme]}"

    def __enter__(self) -> AvatarSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, scene: Scene) -> None:
        """Send the largest face of the scene. While the network refuses packets, they are dropped, and the log says so
        once."""
        face = largest(scene.faces, scene.frame.size)
        self._wait(scene.frame)
        packets = self._live_link(face, scene.frame) if self._osc is None else self._vmc(face)
        try:
            for packet in packets:
                self._socket.sendto(packet, self._address)
        except OSError as error:
            if not self._failing:
                log.warning("%s; faces are dropped until the network is back", cannot_write(self._target, error))
            self._failing = True
            return
        if packets and self._failing:
            log.info("%s is reached again", self._target)
            self._failing = False

    def hurry(self) -> None:
        """Send frames of files without their pace from now on."""
        self._hurried = True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _wait(self, frame: Frame) -> None:
        """Wait until the frame of a file is due. A camera has its own pace."""
        if not frame.live and not frame.still:
            began = self._began.setdefault(frame.source, time.monotonic() - frame.time_s)
            early_s = began + frame.time_s - time.monotonic()
            due = time.monotonic() + min(early_s, LONGEST_WAIT_S)
            while not self._hurried and (left_s := due - time.monotonic()) > 0:
                time.sleep(min(left_s, LOOK_S))
            if abs(early_s) > LONGEST_WAIT_S:
                self._began[frame.source] = time.monotonic() - frame.time_s

    def _live_link(self, face: Face | None, frame: Frame) -> list[bytes]:
        if face is None:
            return []
        number = len(self._subjects) + 1
        subject = self._subjects.setdefault(frame.source, SUBJECT if number == 1 else f"{SUBJECT}-{number}")
        weights = arkit_blendshapes(face.expression, self._blendshapes)
        values = live_link_values(weights, head_pose(face, frame.size)[0], eye_angles(face.gaze, weights))
        return [live_link_packet(self._device, subject, values, frame.time_s, frame.fps)]

    def _vmc(self, face: Face | None) -> list[bytes]:
        messages = vmc_messages(face, self._blendshapes, capitals=self._capitals)
        return [self._bundle(messages[first : first + TOGETHER]) for first in range(0, len(messages), TOGETHER)]

    def _bundle(self, messages: Sequence[Message]) -> bytes:
        bundles, builders = self._osc or import_osc()
        bundle = bundles.OscBundleBuilder(bundles.IMMEDIATELY)
        for address, values in messages:
            message = builders.OscMessageBuilder(address)
            for value in values:
                message.add_arg(value)
            bundle.add_content(message.build())
        packet: bytes = bundle.build().dgram
        return packet


def import_osc() -> tuple[Any, Any]:
    """Return python-osc's builders of bundles and messages. Raises UsageError where it is not installed."""
    try:
        with importing():
            from pythonosc import osc_bundle_builder, osc_message_builder
    except ImportError as error:
        raise UsageError("vmc:// needs python-osc: pip install 'facerecon-rt[osc]'") from error
    return osc_bundle_builder, osc_message_builder


def vmc_messages(face: Face | None, blendshapes: Sequence[str], *, capitals: bool = False) -> list[Message]:
    """Return the messages that describe a face to an avatar's program. None stands for a frame without a face."""
    if face is None:
        return [("/VMC/Ext/OK", [0])]
    messages: list[Message] = [("/VMC/Ext/Bone/Pos", ["Head", 0.0, 0.0, 0.0, *unity_rotation(face)])]
    for name, weight in arkit_blendshapes(face.expression, blendshapes).items():
        messages.append(("/VMC/Ext/Blend/Val", [name[0].upper() + name[1:] if capitals else name, weight]))
    return [*messages, ("/VMC/Ext/Blend/Apply", []), ("/VMC/Ext/OK", [1])]


def unity_rotation(face: Face) -> list[float]:
    """Return the head's quaternion x, y, z, w in Unity's axes, left-handed: x the avatar's right, y up, z where it
    looks."""
    camera = face.frame_from_head if face.camera_from_head is None else face.camera_from_head
    turn = cv2.Rodrigues(viewer_from_head(camera))[0].ravel()
    angle = float(np.linalg.norm(turn))
    x, y, z = turn * (np.sin(angle / 2) / max(angle, 1e-9))
    # x is mirrored, and with it the sense of the turns about y and z.
    return [float(x), float(-y), float(-z), float(np.cos(angle / 2))]

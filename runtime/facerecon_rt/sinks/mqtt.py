"""Scenes -> an MQTT broker: the state of every camera, events, pictures for whoever asks, and entities of Home
Assistant (extra `mqtt`).

Publishing only puts messages into a queue; a thread of the client sends them, and connects again after a loss.
"""

from __future__ import annotations

import json
import logging
import math
import re
import ssl
import sys
import threading
import time
import uuid
from functools import lru_cache
from hashlib import sha256
from types import TracebackType
from typing import Any

from ..addresses import DistinctNames, public_name, safe_reason
from ..errors import UsageError
from ..faces.reconstruct import largest
from ..interrupts import importing
from ..regular import source_name
from ..types import Face, Scene
from .hide import MARGIN
from .home_assistant import GET, entities, picture_entities
from .mqtt_address import broker_from_address, snapshot_style
from .record import as_json, attention_record, event_records
from .snapshot import snapshot

log = logging.getLogger("facerecon_rt")

STATE_S = 1.0
"""Minimum time in seconds between two states of a camera, unless the number of its faces changes."""
MOST_WAITING = 10_000
"""Maximum number of messages that wait for the broker. Further events are dropped and counted."""
IN_FLIGHT = 20
"""Maximum number of messages that are sent and not yet acknowledged."""
ANSWER_S = 5.0
"""Time in seconds in which the broker must answer at the start, and in which the last messages are delivered."""
SLOWEST_S = 60.0
"""Time in seconds for which frames of a file wait for a broker that accepts nothing."""
RECONNECT_S = (1, 30)
KEEPALIVE_S = 30
QOS = 1
SNAPSHOT_S = 0.5
"""Minimum time in seconds between two pictures of a camera. Requests in between are answered together."""
ASKED_S = 60.0
"""Time in seconds in which a request for a picture is answered. Then it is refused: nobody waits any longer."""
NO_PICTURES = "this program puts out no pictures (--no-pictures or ?snapshot=off)"
NONE_IN_TIME = f"there was no picture within {ASKED_S:g} s that may be shown"
CLOSED = "the connection was closed"
REFUSED = ("Bad user name or password", "Not authorized")
"""Reasons of brokers that no waiting mends."""


def _import_paho() -> Any:
    """Return paho's module of the client. Raises UsageError where paho-mqtt is not installed."""
    try:
        with importing():
            from paho.mqtt import client
    except ModuleNotFoundError as error:
        raise UsageError(f"mqtt:// needs {error.name}: pip install 'facerecon-rt[mqtt]'") from error
    return client


class MqttSink:
    """A sink that publishes to a broker:

    - `TOPIC/status`: `online`, or `offline` after the end, also after a crash (last will). Retained. Where another
      program says `offline` there, this one says `online` again.
    - `TOPIC/CAMERA/state`: faces and attention as JSON, once per second and when a face comes or goes. Retained.
    - `TOPIC/CAMERA/event`: every event, as its line in the records, with a number `n`.
    - `TOPIC/CAMERA/snapshot`: the next picture as JPEG, after any message to `TOPIC/CAMERA/snapshot/get`.

    All messages have QoS 1: they arrive at least once. While the broker is away, events wait, and of states only the
    newest.
    """

    def __init__(self, address: str, *, style: str = "shaded", margin: float = MARGIN, pictures: bool = True) -> None:
        """Connect. A broker that does not answer is tried again later.

        `style` and `pictures`: as `snapshot_style`. `margin`: as `cover_faces`. Raises UsageError when the address is
        wrong, the broker refuses user and password, or paho-mqtt is not installed.
        """
        self.name = public_name(address)
        self.dropped = 0
        """Number of events that were dropped because too many waited."""
        self._address = address
        self._broker = broker_from_address(address)
        self._paho = _import_paho()
        self._answered = threading.Event()
        self._refused = ""
        self._failure = ""
        """Reason why the last attempt to connect failed, or the connection was lost."""
        self._reached = False
        """Whether the broker has accepted a connection."""
        self._lock = threading.Lock()
        self._topics = DistinctNames(topic_of)
        self._states: dict[str, str] = {}
        """Newest state of each camera, as JSON."""
        self._live: set[str] = set()
        """Cameras and streams. Files have no entities, which would stay in Home Assistant for good."""
        self._lost: set[str] = set()
        """Cameras that are lost."""
        self._unsent: set[str] = set()
        """Cameras whose newest state was not published."""
        self._published_at: dict[str, tuple[float, int]] = {}
        """Time of the last state of each camera, by time.monotonic(), and its number of faces."""
        self._snapshot_style = snapshot_style(self._broker, style, pictures=pictures)
        self._margin = margin
        self._asked_for: dict[str, float] = {}
        """Cameras of which somebody asked for a picture, with the time of the request, by time.monotonic()."""
        self._pictured_at: dict[str, float] = {}
        """Time of the last picture of each camera, by time.monotonic()."""
        self._number = 0
        self._accepted = 0
        """Number of messages that the client took."""
        self._acknowledged = 0
        """Number of messages that the broker acknowledged. Only the client's thread changes it."""
        self._counting = threading.Lock()
        self._closed = False
        self._contradicted: int | None = None
        """Number of the message that says `online` after another program's `offline`, until it is acknowledged."""
        self._shared = False
        """Whether another program was seen to use this topic."""
        self._client = self._new_client()
        self._connect()

    def _new_client(self) -> Any:
        """Return a client for the broker that is not connected yet. Raises UsageError for unreadable certificates."""
        identity = f"facerecon-{uuid.uuid4().hex[:12]}"
        # The client keeps what is not acknowledged and sends it again; the broker need not remember this client.
        client = self._paho.Client(self._paho.CallbackAPIVersion.VERSION2, client_id=identity, clean_session=True)
        client.max_queued_messages_set(MOST_WAITING)
        client.max_inflight_messages_set(IN_FLIGHT)
        client.reconnect_delay_set(*RECONNECT_S)
        client.will_set(self._status, "offline", QOS, retain=True)
        if self._broker.user is not None:
            client.username_pw_set(self._broker.user, self._broker.password)
        if self._broker.tls:
            self._use_tls(client)
        client.on_connect, client.on_disconnect = self._connected, self._disconnected
        client.on_connect_fail = self._not_connected
        client.on_publish, client.on_subscribe, client.on_message = self._delivered, self._subscribed, self._heard
        return client

    def _connect(self) -> None:
        """Start the client, and wait for the broker's first answer. Raises UsageError when the broker refuses user and
        password."""
        self._client.connect_async(self._broker.host, self._broker.port, KEEPALIVE_S)
        self._client.loop_start()
        if not self._answered.wait(ANSWER_S):
            log.warning("%s does not answer%s; it is tried again, and messages wait. Check its address and certificate",
                        self.name, self._why())  # fmt: skip
        if self._refused:
            self._client.loop_stop()
            raise UsageError(f"{self.name} refuses the connection: {self._refused}; check user and password")

    def __enter__(self) -> MqttSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def _status(self) -> str:
        return f"{self._broker.topic}/status"

    def wants(self, scene: Scene) -> bool:
        """Return whether the scene has events, its state is due, or somebody asked for a picture of its camera."""
        camera = self._topics(scene.frame.source)
        return bool(scene.events) or camera in self._asked_for or self._is_due(camera, len(scene.faces))

    def _is_due(self, camera: str, faces: int) -> bool:
        """Return whether a camera with this number of faces has a new state to publish."""
        at, before = self._published_at.get(camera, (-math.inf, 0))
        return time.monotonic() - at >= STATE_S or faces != before

    def write(self, scene: Scene) -> None:
        """Publish the state and the events of a scene. Raises UsageError when a file's events cannot be delivered."""
        camera = self._topics(scene.frame.source)
        self._lost.discard(camera)
        self.write_events(scene)
        if camera in self._asked_for:
            self._send_picture(camera, scene)
        if not self._is_due(camera, len(scene.faces)):
            return
        self._published_at[camera] = time.monotonic(), len(scene.faces)
        new = camera not in self._states
        if scene.frame.live:
            self._live.add(camera)
        self._note_state(camera, scene)
        if new and self._client.is_connected():
            self._announce(camera)
        self._send_states()

    def _note_state(self, camera: str, scene: Scene) -> None:
        with self._lock:
            self._states[camera] = as_json(state_of(scene))
            self._unsent.add(camera)

    def write_events(self, scene: Scene) -> None:
        """Publish only the events of a scene, and that nobody is present where its source was lost. Raises UsageError
        when a file's events cannot be delivered."""
        camera = self._topics(scene.frame.source)
        topic = f"{self._broker.topic}/{camera}/event"
        for event in event_records(scene):
            self._number += 1
            self._publish_event(topic, {**event, "n": self._number}, scene.frame.live)
        if scene.lost:
            self._lost.add(camera)
            self._published_at[camera] = time.monotonic(), 0
            self._note_state(camera, scene)
            self._send_states()
            if self._asked_for.pop(camera, None) is not None:
                self._refuse(camera, NONE_IN_TIME)

    def close(self) -> None:
        """Deliver what waits, for five seconds at most, and say that this program is offline. A second call does
        nothing. Raises UsageError when messages were not delivered because the broker is away."""
        if self._closed:
            return
        self._closed = True
        if self._client.is_connected():
            self._send_states()
            self._publish(self._status, "offline", retain=True)
        until = time.monotonic() + ANSWER_S
        while self._waiting() and time.monotonic() < until and self._client.is_connected():
            time.sleep(0.02)
        away = not self._client.is_connected()
        self._client.disconnect()
        self._client.loop_stop()
        with self._lock:
            lost = self._waiting() + len(self._unsent) + self.dropped
        if lost and away:
            what = "is away" if self._reached else "was never reached"
            raise UsageError(
                f"{self.name} {what}{self._why()}, so messages were not delivered: {lost}; check its address and that "
                "the broker runs"
            )
        if lost:
            log.error("messages were not delivered to %s: %d", self.name, lost)

    def _why(self) -> str:
        """Return the reason of the last failure in brackets, with a space in front; "" where there is none."""
        return f" ({self._failure})" if self._failure else ""

    def _waiting(self) -> int:
        """Return the number of messages that the broker has not acknowledged."""
        return self._accepted - self._acknowledged

    def _use_tls(self, client: Any) -> None:
        try:
            client.tls_set(ca_certs=self._broker.ca, cert_reqs=ssl.CERT_REQUIRED)
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read the certificates {self._broker.ca}: {safe_reason(error)}") from error

    def _publish(self, topic: str, content: str | bytes, *, retain: bool = False) -> bool:
        """Queue a message. Returns False where too many wait."""
        return self._queue(topic, content, retain=retain) is not None

    def _queue(self, topic: str, content: str | bytes, *, retain: bool) -> int | None:
        """Queue a message. Returns its number, or None where too many wait."""
        # The message is counted first: the acknowledgement may come before publish() returns.
        self._count(1)
        done = self._client.publish(topic, content, QOS, retain)
        if done.rc == self._paho.MQTT_ERR_QUEUE_SIZE:
            self._count(-1)
            return None
        return int(done.mid)

    def _count(self, more: int) -> None:
        with self._counting:
            self._accepted += more

    def _publish_event(self, topic: str, event: dict[str, object], live: bool) -> None:
        text = as_json(event)
        until = time.monotonic() + SLOWEST_S
        while not self._publish(topic, text):
            if live:
                self.dropped += 1
                if self.dropped == 1:
                    log.warning("%s is away for too long; events are dropped and counted", self.name)
                return
            if time.monotonic() > until:
                raise UsageError(f"{self.name} accepts no messages for {SLOWEST_S:g} s; check the broker")
            time.sleep(0.05)

    def _send_picture(self, camera: str, scene: Scene) -> None:
        """Answer the requests for a picture, unless the last one was a moment ago or this scene may show a face. Refuse
        them after `ASKED_S`."""
        now = time.monotonic()
        if now - self._asked_for.get(camera, now) > ASKED_S:
            self._asked_for.pop(camera, None)
            self._refuse(camera, NONE_IN_TIME)
            return
        if self._snapshot_style is None or now - self._pictured_at.get(camera, -SNAPSHOT_S) < SNAPSHOT_S:
            return
        picture = snapshot(scene, self._snapshot_style, self._margin)
        if picture is not None and self._publish(f"{self._broker.topic}/{camera}/snapshot", picture):
            self._pictured_at[camera] = now
            self._asked_for.pop(camera, None)

    def _refuse(self, camera: str, why: str) -> None:
        self._publish(f"{self._broker.topic}/{camera}/snapshot/refused", json.dumps({"error": why}))

    def _send_states(self) -> None:
        """Publish the newest states, if the broker is there."""
        if not self._client.is_connected():
            return
        with self._lock:
            for camera in sorted(self._unsent):
                if self._publish(f"{self._broker.topic}/{camera}/state", self._states[camera], retain=True):
                    self._unsent.discard(camera)

    def _announce(self, camera: str) -> None:
        """Publish the entities of a camera or stream for Home Assistant."""
        if self._broker.discovery is not None and camera in self._live:
            for topic, config in entities(self._broker.discovery, self._broker.topic, camera):
                self._publish(topic, json.dumps(config), retain=True)
            for topic, config in picture_entities(self._broker.discovery, self._broker.topic, camera):
                # An empty message removes what a run with pictures has announced.
                self._publish(topic, "" if self._snapshot_style is None else json.dumps(config), retain=True)

    # The client's thread calls these.

    def _connected(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            if not self._answered.is_set() and str(reason) in REFUSED:
                self._refused = str(reason)
            else:
                self._failure = str(reason)
                log.error("%s refuses the connection: %s", self.name, reason)
            self._answered.set()
            return
        self._reached = True
        self._answered.set()
        log.info("%s is connected", self.name)
        self._publish(self._status, "online", retain=True)
        client.subscribe([(f"{self._broker.topic}/+/{GET}", QOS), (self._status, QOS)])
        with self._lock:
            cameras = list(self._states)
            self._unsent.update(cameras)
        self._contradicted = None
        for camera in cameras:
            self._announce(camera)
        self._send_states()

    def _disconnected(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if not self._closed and reason.is_failure and not self._refused:
            # This is paho's reason where the other side has closed the connection.
            self._failure = CLOSED if str(reason) == "Unspecified error" else str(reason)
            log.warning("%s is lost: %s; it is tried again, and messages wait", self.name, self._failure)

    def _not_connected(self, client: Any, data: Any) -> None:
        # The client calls this while it handles the error, and passes it nowhere else.
        error = sys.exc_info()[1]
        if error is not None:
            self._failure = safe_reason(error, self._address)

    def _delivered(self, client: Any, data: Any, number: int, reason: Any, properties: Any) -> None:
        self._acknowledged += 1
        if number == self._contradicted and not self._shared:
            self._shared = True
            log.warning("%s: another program uses the topic %s too, and has marked it offline; give each program its "
                        "own topic", self.name, self._broker.topic)  # fmt: skip

    def _subscribed(self, client: Any, data: Any, number: int, reasons: list[Any], properties: Any) -> None:
        asking, status = reasons
        if asking.is_failure:
            log.warning("%s does not let this user read %s/+/%s; no picture can be asked for", self.name,
                        self._broker.topic, GET)  # fmt: skip
        if status.is_failure:
            log.warning("%s does not let this user read %s; another program on this topic marks this one offline when "
                        "it ends", self.name, self._status)  # fmt: skip

    def _heard(self, client: Any, data: Any, message: Any) -> None:
        if message.topic == self._status:
            self._stay_online(message)
        else:
            self._asked(message)

    def _stay_online(self, message: Any) -> None:
        """Say `online` again where another program has said `offline`: subscribers would take this one for ended."""
        if self._closed or message.payload != b"offline":
            return
        # A broker that shuts down sends our own last will, and acknowledges no answer to it.
        self._contradicted = self._queue(self._status, "online", retain=True)

    def _asked(self, message: Any) -> None:
        """Note a request for a picture, or refuse it."""
        camera = message.topic[len(self._broker.topic) + 1 : -len(GET) - 1]
        with self._lock:
            known = camera in self._states
        # The broker hands a retained request to every client that connects, so it is nobody's request now.
        if message.retain or not known:
            return
        if self._snapshot_style is None:
            self._refuse(camera, NO_PICTURES)
        elif camera in self._lost:
            self._refuse(camera, NONE_IN_TIME)
        else:
            self._asked_for[camera] = time.monotonic()


@lru_cache(1024)
def topic_of(source: str) -> str:
    """Return the name of a source as one level of a topic, without passwords. A hash keeps long names distinct."""
    name = re.sub(r"[^\w.-]+", "_", source_name(source).rpartition("://")[2]).strip("_") or "source"
    return name if len(name) <= 60 else f"{name[:51]}_{sha256(name.encode()).hexdigest()[:8]}"


def state_of(scene: Scene) -> dict[str, object]:
    """Return the state of a camera, ready for json.dumps: faces, and the attention of the largest."""
    face = largest(scene.faces, scene.frame.size)
    attention = None if face is None else face.attention
    return {
        "source": source_name(scene.frame.source),
        "time_s": round(scene.frame.time_s, 3),
        "present": bool(scene.faces),
        "faces": len(scene.faces),
        "drowsiness": None if attention is None else attention.drowsiness,
        "blinks_per_min": None
        if attention is None or attention.blinks_per_min is None
        else round(attention.blinks_per_min, 1),
        "people": [_person(face) for face in scene.faces],
    }


def _person(face: Face) -> dict[str, object]:
    person: dict[str, object] = {"track": face.track, "box": [round(float(value), 1) for value in face.box]}
    return person if face.attention is None else {**person, "attention": attention_record(face.attention)}

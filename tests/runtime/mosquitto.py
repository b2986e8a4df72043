"""A broker that can be ended and started again, and a client that writes down what arrives: Debian's mosquitto."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from facerecon_rt.types import Image

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
PASSWORD = "s3cr@t/pw"
PATIENCE_S = 60.0


def mosquitto_there() -> bool:
    return MOSQUITTO is not None and shutil.which("mosquitto_passwd") is not None


class Mosquitto:
    """A broker with a password. It saves sessions every second, so that they outlive SIGKILL."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        passwords = folder / "passwords"
        subprocess.run(["mosquitto_passwd", "-c", "-b", passwords, "cam", PASSWORD], check=True, capture_output=True)
        (folder / "mosquitto.conf").write_text(
            f"user root\nlistener {self.port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\n{extra}"
            f"persistence true\npersistence_location {folder}/\nautosave_interval 1\n"
            "max_queued_messages 0\nlog_type none\n"
        )
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(MOSQUITTO), "-c", str(self.folder / "mosquitto.conf")]
        self._running = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_for(self._answers)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._running is not None:
            self._running.send_signal(number)
            self._running.wait(20)
            self._running = None

    def wait_until_saved(self) -> None:
        """Wait until the sessions of this moment are on disk."""
        saved = self.folder / "mosquitto.db"
        saved.unlink(missing_ok=True)
        wait_for(saved.exists)

    @property
    def address(self) -> str:
        return f"mqtt://cam:${{MQTT_PASSWORD}}@127.0.0.1:{self.port}/home/faces"


class Listener:
    """A client with a session that outlives the broker. It writes down what arrives."""

    def __init__(self, broker: Mosquitto, name: str = "listener") -> None:
        self.heard: list[tuple[str, str, bool]] = []
        self.pictures: list[Image] = []
        self._ready = threading.Event()
        from paho.mqtt import client as paho
        from paho.mqtt.enums import CallbackAPIVersion

        self.client: Any = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=False)
        self.client.username_pw_set("cam", PASSWORD)
        self.client.on_connect = lambda client, *_: client.subscribe("#", 1)
        self.client.on_subscribe = lambda *_: self._ready.set()
        self.client.on_message = lambda client, data, message: self._hear(message)
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        assert self._ready.wait(PATIENCE_S)

    def _hear(self, message: Any) -> None:
        if message.topic.endswith("/snapshot"):
            picture = cv2.imdecode(np.frombuffer(message.payload, np.uint8), cv2.IMREAD_COLOR)
            self.pictures.append(np.asarray(picture, np.uint8))
        else:
            self.heard.append((message.topic, message.payload.decode(), message.retain))

    def at(self, end: str) -> list[Any]:
        return [json.loads(text) for topic, text, _ in list(self.heard) if topic.endswith(end)]

    def at_topic(self, topic: str) -> list[str]:
        return [text for there, text, _ in list(self.heard) if there == topic]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def wait_for(true: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)

"""compose.yaml: services find each other, files exist, images are pinned, and ports are open to this machine only."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from facerecon_rt.commands.options import parse_options
from facerecon_rt.errors import UsageError
from facerecon_rt.sinks.mqtt import MqttSink
from facerecon_rt.sinks.mqtt_address import broker_from_address

from ..conftest import ROOT

yaml = pytest.importorskip("yaml", reason="the extra `yaml` is not installed")
DEPLOY = ROOT / "runtime" / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
KEYS = {
    "build", "image", "command", "environment", "devices", "ports", "volumes", "depends_on", "read_only", "tmpfs",
    "cap_drop", "security_opt", "restart",
}  # fmt: skip
"""Keys of the Compose specification that the file uses. A misspelt one would be refused by docker compose."""
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")


def mounts(service: str) -> dict[str, str]:
    """Return the file or named volume at each place in the container."""
    pairs = [volume.split(":")[:2] for volume in SERVICES[service].get("volumes", [])]
    return {inside: outside for outside, inside in pairs}


def read(service: str, inside: str) -> Any:
    return yaml.safe_load((DEPLOY / mounts(service)[inside]).read_text())


def test_every_key_and_every_dependency_is_known() -> None:
    assert COMPOSE.keys() == {"name", "services", "volumes"}
    for service in SERVICES.values():
        assert service.keys() <= KEYS
        assert set(service.get("depends_on", [])) <= SERVICES.keys()
        assert service["restart"] == "unless-stopped"


def test_images_are_pinned_and_ours_is_built_from_its_dockerfile() -> None:
    for name, service in SERVICES.items():
        if "build" in service:
            context = (DEPLOY / service["build"]["context"]).resolve()
            assert context == ROOT and (context / service["build"]["dockerfile"]).is_file()
        else:
            assert re.fullmatch(r"[\w/-]+:v?\d+\.\d+\.\d+", service["image"]), name


def test_mounted_files_are_there_and_cannot_be_written_and_volumes_are_declared() -> None:
    used = set()
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            outside, _, *mode = volume.split(":")
            if outside.startswith("."):
                assert (DEPLOY / outside).is_file() and mode == ["ro"], volume
            else:
                used.add(outside)
    assert used == set(COMPOSE["volumes"])
    in_use = {
        name.removeprefix("./compose/") for one in SERVICES for name in mounts(one).values() if "/compose/" in name
    }
    assert in_use == {path.name for path in (DEPLOY / "compose").iterdir()}


def test_ports_are_open_to_this_machine_only() -> None:
    ports = [port.split(":") for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 4 and {host for host, _, _ in ports} == {"127.0.0.1"}
    assert len({outside for _, outside, _ in ports}) == 4


def test_passwords_come_from_the_environment() -> None:
    required = re.compile(r"\$\{(\w+):\?[^}]+\}")
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            assert ("PASSWORD" not in name) or required.fullmatch(value), name
    documented = (DEPLOY / "compose.yaml").read_text().partition("name:")[0]
    for name in required.findall(json.dumps(COMPOSE)):
        assert name in documented


def test_the_camera_is_started_with_options_that_the_program_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_PASSWORD", "secret")
    camera = SERVICES["camera"]
    options = parse_options([word.replace("$$", "$") for word in camera["command"]])
    broker = broker_from_address(options.output[0])
    assert broker.host in SERVICES and broker.password == "secret" and "MQTT_PASSWORD" in camera["environment"]
    assert f"cam {chr(34)}$$MQTT_PASSWORD" in " ".join(SERVICES["mosquitto"]["command"]) and broker.user == "cam"
    assert options.serve is not None and camera["ports"][0].endswith(options.serve.rpartition(":")[2])
    assert options.input == ("cam0",) and camera["devices"] == ["/dev/video0:/dev/video0"]
    dockerfile = (ROOT / camera["build"]["dockerfile"]).read_text()
    assert "[cpu,web,mqtt]" in dockerfile  # what --serve and mqtt:// need


def test_prometheus_and_grafana_find_what_they_read() -> None:
    (job,) = read("prometheus", "/etc/prometheus/prometheus.yml")["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert SERVICES[host]["ports"][0].endswith(f":{port}")
    (source,) = read("grafana", "/etc/grafana/provisioning/datasources/prometheus.yml")["datasources"]
    host, port = source["url"].removeprefix("http://").split(":")
    assert SERVICES[host]["ports"][0].endswith(f":{port}") and source["type"] == "prometheus"
    (provider,) = read("grafana", "/etc/grafana/provisioning/dashboards/facerecon-rt.yml")["providers"]
    shown = [inside for inside in mounts("grafana") if inside.startswith(provider["options"]["path"] + "/")]
    assert len(shown) == 1
    json.loads((DEPLOY / mounts("grafana")[shown[0]]).read_text())


def wait_for_port(port: int, broker: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert broker.poll() is None and time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # paho leaves a refused socket open
def test_a_real_mosquitto_takes_the_configuration(tmp_path: Path) -> None:
    if MOSQUITTO is None or shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto is not installed")
    pytest.importorskip("paho.mqtt.client", reason="the extra `mqtt` is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    subprocess.run(["mosquitto_passwd", "-b", "-c", tmp_path / "passwords", "cam", "secret"], check=True)
    text = (DEPLOY / mounts("mosquitto")["/mosquitto/config/mosquitto.conf"]).read_text()
    assert "/run/broker" in SERVICES["mosquitto"]["tmpfs"] and "/mosquitto/data" in mounts("mosquitto")
    moved = text.replace("listener 1883", f"user root\nlistener {port} 127.0.0.1")
    moved = moved.replace("/run/broker/", f"{tmp_path}/").replace("/mosquitto/data/", f"{tmp_path}/")
    (tmp_path / "mosquitto.conf").write_text(moved)
    with subprocess.Popen([MOSQUITTO, "-c", tmp_path / "mosquitto.conf"], stdout=subprocess.PIPE) as broker:
        try:
            wait_for_port(port, broker)
            with MqttSink(f"mqtt://cam:secret@127.0.0.1:{port}") as sink:
                assert sink._client.is_connected()
            with pytest.raises(UsageError, match="refuses the connection"):
                MqttSink(f"mqtt://cam:wrong@127.0.0.1:{port}")
        finally:
            broker.terminate()

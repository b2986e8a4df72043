"""MQTT against a real mosquitto: states and events arrive, whatever happens to the broker, the password and us."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from facerecon_rt.cli import main
from facerecon_rt.errors import UsageError
from facerecon_rt.sinks import mqtt
from facerecon_rt.sinks.home_assistant import entities, picture_entities
from facerecon_rt.sinks.mqtt import MqttSink, state_of, topic_of
from facerecon_rt.sinks.mqtt_address import broker_from_address, is_mqtt, may_cover
from facerecon_rt.sinks.threaded import ThreadedSink
from facerecon_rt.types import NO_PICTURE, Attention, Event, Frame, Scene

from ..conftest import ROOT
from .conftest import MakeFace
from .mosquitto import PASSWORD, Listener, Mosquitto, mosquitto_there, wait_for

pytest.importorskip("paho.mqtt.client", reason="the extra `mqtt` is not installed")
needs_broker = pytest.mark.skipif(not mosquitto_there(), reason="mosquitto is not installed")
PICTURE_ENTITIES = picture_entities("homeassistant", "home/faces", "door_1")
GET = "home/faces/door_1/snapshot/get"


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mosquitto]:
    monkeypatch.setenv("MQTT_PASSWORD", PASSWORD)
    running = Mosquitto(tmp_path)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def listener(broker: Mosquitto) -> Iterator[Listener]:
    one = Listener(broker)
    yield one
    one.close()


def scene(ball_face: MakeFace, number: int, faces: int = 1, *, live: bool = True) -> Scene:
    frame = Frame(
        np.zeros((8, 8, 3), np.uint8), "rtsp://u:pw@door/1", index=number, time_s=number / 25, still=False, live=live
    )
    found = tuple(ball_face(80, 60, track=track) for track in range(1, faces + 1))
    return Scene(frame, found, events=(Event("blink", "end", 1, number / 25, number / 25 - 0.15),))


@needs_broker
def test_states_events_status_and_entities_arrive(broker: Mosquitto, listener: Listener, ball_face: MakeFace) -> None:
    with MqttSink(broker.address) as sink:
        # Before the broker answers, newer states replace those that wait.
        wait_for(lambda: ("home/faces/status", "online", False) in listener.heard)
        sink.write(scene(ball_face, 0, 2))
        sink.write(scene(ball_face, 1, 2))  # within a second, with as many faces
        sink.write(scene(ball_face, 2, 0))
        wait_for(lambda: len(listener.at("/event")) == 3 and len(listener.at("/state")) == 2)
    wait_for(lambda: ("home/faces/status", "offline", False) in listener.heard)
    assert {topic for topic, _, _ in listener.heard if topic.endswith("/state")} == {"home/faces/door_1/state"}
    first, last = listener.at("/state")
    assert (first["present"], first["faces"], first["source"]) == (True, 2, "rtsp://door/1")
    assert first["drowsiness"] is None and not {"attention"} & (first.keys() | first["people"][0].keys())
    assert (last["present"], last["faces"], last["people"]) == (False, 0, [])
    assert [event["n"] for event in listener.at("/event")] == [1, 2, 3]
    assert listener.at("/event")[0]["event"] == "blink" and listener.at("/event")[0]["duration_s"] == 0.15
    configs = {topic for topic, text, _ in listener.heard if topic.startswith("homeassistant/") and text}
    all_of_them = [*entities("homeassistant", "home/faces", "door_1"), *PICTURE_ENTITIES]
    assert configs == {topic for topic, _ in all_of_them} and len(configs) == 6
    listener.close()
    late = Listener(broker)
    wait_for(lambda: any(retained and topic.endswith("/state") for topic, _, retained in late.heard))
    assert not any(retained and topic.endswith("/event") for topic, _, retained in late.heard)
    late.close()


def test_the_level_of_drowsiness_in_a_state_is_that_of_the_largest_face(ball_face: MakeFace) -> None:
    sleepy = Attention((0.1, 0.1), 2.0, None, None, False, 0.0, "gaze", (0.0, 0.0), None, None, "drowsy")
    faces = (replace(ball_face(80, 60, track=1), attention=sleepy), ball_face(20, 20, scale=0.1, track=2))
    state = state_of(replace(scene(ball_face, 0), faces=faces))
    assert state["drowsiness"] == "drowsy"
    sensors = {topic.split("/")[-2]: value["value_template"] for topic, value in entities("homeassistant", "a", "b")}
    assert sensors["drowsiness"] == "{{ value_json.drowsiness or 'unknown' }}"


@needs_broker
def test_only_scenes_with_something_to_send_are_wanted(
    broker: Mosquitto, listener: Listener, ball_face: MakeFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plain(number: int, faces: int) -> Scene:
        return replace(scene(ball_face, number, faces), events=())

    with MqttSink(broker.address) as sink:
        assert sink.wants(plain(0, 1))
        sink.write(plain(0, 1))
        assert not sink.wants(plain(1, 1))
        assert sink.wants(plain(2, 2)) and sink.wants(plain(2, 0))
        assert sink.wants(scene(ball_face, 3, 1))  # has an event
        listener.client.publish(GET, "", 1)
        wait_for(lambda: sink.wants(plain(4, 1)))
    with MqttSink(broker.address) as sink:
        sink.write(plain(0, 1))
        monkeypatch.setattr(mqtt, "STATE_S", 0.0)
        assert sink.wants(plain(1, 1))  # its next state is due


def scene_with_picture(ball_face: MakeFace, *, detected: bool, brightness: int = 255) -> Scene:
    """A face of fine stripes before a grey wall."""
    face = ball_face(80, 60, track=1)
    x1, y1, x2, y2 = face.box.astype(int)
    image = np.full((120, 160, 3), 128, np.uint8)
    image[y1:y2, x1:x2:4] = image[y1:y2, x1 + 1 : x2 : 4] = brightness
    frame = Frame(image, "rtsp://u:pw@door/1", still=False, live=True)
    return Scene(frame, (face,), {"detect": 3.0 if detected else 0.0})


@needs_broker
@pytest.mark.parametrize(("query", "style", "covered"), [("", "shaded", True), ("?snapshot=plain", "shaded", False),
                                                         ("", "mask", True)])  # fmt: skip
def test_a_picture_comes_when_asked_for_with_faces_covered_unless_told_otherwise(
    broker: Mosquitto, listener: Listener, ball_face: MakeFace, query: str, style: str, covered: bool
) -> None:
    listener.client.publish(GET, "", 1, retain=True)  # asks nobody: it lies there for every client that connects
    wait_for(lambda: bool(listener.at_topic(GET)))
    with MqttSink(broker.address + query, style=style) as sink:
        seen = scene_with_picture(ball_face, detected=True)
        sink.write(seen)
        wait_for(lambda: bool(listener.at("/state")))
        sink.write(seen)
        wait_for(lambda: sink._waiting() == 0)
        assert not listener.pictures
        listener.client.publish(GET, "", 1)
        wait_for(lambda: bool(sink._asked_for))
        if covered:
            sink.write(scene_with_picture(ball_face, detected=False, brightness=0))
        sink.write(seen)
        wait_for(lambda: bool(listener.pictures))
        sink.write(seen)
    wait_for(lambda: ("home/faces/status", "offline", False) in listener.heard)
    (picture,) = listener.pictures
    assert picture.shape == seen.frame.image.shape
    x1, y1, x2, y2 = seen.faces[0].box.astype(int)
    stripes = float(picture[y1:y2, x1:x2].std())
    assert stripes < 15 if covered else stripes > 50
    assert np.abs(picture[:, :20].astype(int) - 128).max() < 4
    if covered and style == "shaded":
        assert picture[y1:y2, x1:x2].mean() > 150  # of the bright stripes: the detector saw that frame
    if style == "mask":
        assert np.abs(picture[y1:y2, x1:x2].astype(int) - 96).max() < 8


@needs_broker
def test_without_pictures_a_request_is_refused_and_home_assistant_has_no_camera(
    broker: Mosquitto, listener: Listener, ball_face: MakeFace
) -> None:
    with MqttSink(broker.address, pictures=False) as sink:
        seen = scene_with_picture(ball_face, detected=True)
        sink.write(seen)
        wait_for(lambda: bool(listener.at("/state")))
        listener.client.publish(GET, "plain", 1)
        wait_for(lambda: bool(listener.at("/snapshot/refused")))
        sink.write(seen)
    wait_for(lambda: ("home/faces/status", "offline", False) in listener.heard)
    assert "--no-pictures" in listener.at("/snapshot/refused")[0]["error"]
    assert not listener.pictures
    # An empty message takes back what a run with pictures has announced.
    assert {text for topic, _ in PICTURE_ENTITIES for text in listener.at_topic(topic)} == {""}


def test_an_address_that_contradicts_the_privacy_options_is_refused(
    capsys: pytest.CaptureFixture[str], tiny_model: Path, bright_detector: Path
) -> None:
    given = ["--model", str(tiny_model), "--detector", str(bright_detector), "--input", str(ROOT / "tests/data/x.mp4")]
    for query, options, said in (
        ("?snapshot=plain", ["--style", "blur"], "snapshot=plain shows faces, and --style blur covers them"),
        ("?snapshot=blur", ["--no-pictures"], "--no-pictures forbids them"),
        ("?snapshot=naked", [], "choose from blur, pixelate, mask, plain, off"),
    ):
        assert main([*given, *options, "--output", f"mqtt://127.0.0.1:1/{query}"]) == 2
        assert said in capsys.readouterr().err


@needs_broker
def test_nothing_is_lost_while_the_broker_restarts(broker: Mosquitto, listener: Listener, ball_face: MakeFace) -> None:
    with MqttSink(broker.address) as sink:
        for number in range(10_000):
            sink.write(scene(ball_face, number))
            if number == 3000:
                broker.stop()
            if number == 6000:
                broker.start()
        wait_for(lambda: len({event["n"] for event in listener.at("/event")}) == 10_000)
        assert sink.dropped == 0
    assert [topic for topic, text, _ in listener.heard if text == "offline"]


@needs_broker
def test_no_event_is_lost_while_the_sink_is_too_slow_for_frames(
    broker: Mosquitto, listener: Listener, ball_face: MakeFace
) -> None:
    """On a loaded machine, the thread of the sink waits for tens of milliseconds. Frames are dropped meanwhile."""
    sink = MqttSink(broker.address)
    with ThreadedSink(sink, "mqtt") as output:
        with sink._lock:  # the thread stops in the first state
            for number in range(200):
                output.write(scene(ball_face, number))
        assert output.dropped >= 190
        wait_for(lambda: len(listener.at("/event")) == 200)
    assert [event["n"] for event in listener.at("/event")] == list(range(1, 201))
    assert [event["frame"] for event in listener.at("/event")] == list(range(200))
    assert (output.dropped_events, sink.dropped) == (0, 0)


@needs_broker
def test_nothing_is_lost_while_the_broker_is_killed(broker: Mosquitto, listener: Listener, ball_face: MakeFace) -> None:
    broker.wait_until_saved()
    with MqttSink(broker.address) as sink:
        for number in range(300):
            sink.write(scene(ball_face, number))
            if number == 100:
                # Messages that the broker has acknowledged and not forwarded would be its own loss.
                wait_for(lambda: sink._waiting() == 0 and len(listener.at("/event")) == 101)
                broker.stop(signal.SIGKILL)
            if number == 200:
                broker.start()
        wait_for(lambda: len({event["n"] for event in listener.at("/event")}) == 300)
        assert sink.dropped == 0


@needs_broker
def test_while_the_broker_is_away_frames_go_on_and_the_queue_has_an_end(
    broker: Mosquitto, ball_face: MakeFace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mqtt, "MOST_WAITING", 50)
    monkeypatch.setattr(mqtt, "SLOWEST_S", 0.2)
    with pytest.raises(UsageError, match=r"is away .*were not delivered: 201;"), MqttSink(broker.address) as sink:
        wait_for(lambda: sink._waiting() == 0)  # "online" takes no place in the queue any more
        broker.stop(signal.SIGKILL)
        wait_for(lambda: not sink._client.is_connected())
        for number in range(200):
            sink.write(scene(ball_face, number))
        assert 140 <= sink.dropped <= 150
        with pytest.raises(UsageError, match="accepts no messages"):
            sink.write(scene(ball_face, 0, live=False))
    assert "events are dropped and counted" in caplog.text


@pytest.mark.parametrize("more", [[], ["--quiet"]])
def test_a_run_that_never_reaches_the_broker_says_what_it_lost_and_why(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_model: Path,
    bright_detector: Path,
    more: list[str],
) -> None:
    monkeypatch.setattr(mqtt, "ANSWER_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"mqtt://127.0.0.1:{free.getsockname()[1]}/f"
    given = ["--model", str(tiny_model), "--detector", str(bright_detector), "--frames", "3", *more]
    assert main([*given, "--input", str(ROOT / "tests/data/talking_head.mp4"), "--output", nobody]) == 2
    said = capsys.readouterr().err
    # Three frames within a second have one state, and no events without --attention.
    assert f"{nobody} was never reached (Connection refused), so messages were not delivered: 1;" in said
    assert (f"{nobody} does not answer (Connection refused); it is tried again" in said) == (not more)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # paho leaves a refused socket open
def test_a_broker_without_tls_and_a_name_that_nobody_knows_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def reason(address: str) -> str:
        caplog.clear()
        monkeypatch.setattr(mqtt, "ANSWER_S", 0.5)
        MqttSink(address).close()
        return caplog.text

    with socket.create_server(("127.0.0.1", 0)) as plain:
        port = plain.getsockname()[1]

        def answer_in_plain_text() -> None:
            with suppress(OSError):
                connection, _ = plain.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"\x20\x02\x00\x00" * 2)  # what a broker without TLS says

        answering = threading.Thread(target=answer_in_plain_text)
        answering.start()
        assert "wrong version number" in reason(f"mqtts://127.0.0.1:{port}").lower().replace("_", " ")
        answering.join()
    said = reason("mqtt://no-such-broker.invalid")
    assert "not known" in said or "name resolution" in said or "No address" in said


@needs_broker
def test_a_connection_that_the_broker_closes_is_called_so(broker: Mosquitto, caplog: pytest.LogCaptureFixture) -> None:
    with MqttSink(broker.address) as sink:
        wait_for(lambda: sink._waiting() == 0)
        broker.stop(signal.SIGKILL)
        wait_for(lambda: "is lost" in caplog.text)
    assert "is lost: the connection was closed; it is tried again" in caplog.text
    assert "Unspecified" not in caplog.text


@needs_broker
def test_files_leave_no_entities_in_home_assistant(broker: Mosquitto, listener: Listener, ball_face: MakeFace) -> None:
    with MqttSink(broker.address) as sink:
        sink.write(scene(ball_face, 0, live=False))
    wait_for(lambda: listener.at_topic("home/faces/status") == ["online", "offline"])
    assert listener.at("/state")
    assert not [topic for topic, _, _ in listener.heard if topic.startswith("homeassistant/")]


@needs_broker
def test_a_wrong_password_is_refused_and_not_shown(
    broker: Mosquitto,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_model: Path,
    bright_detector: Path,
) -> None:
    monkeypatch.setenv("MQTT_PASSWORD", "wr0ng")
    files = [
        "--model",
        str(tiny_model),
        "--detector",
        str(bright_detector),
        "--input",
        str(ROOT / "tests/data/talking_head.mp4"),
    ]
    assert main([*files, "--output", broker.address]) == 2
    said = capsys.readouterr().err
    assert "refuses the connection" in said and "check user and password" in said
    assert main([*files, "--output", broker.address.replace("${MQTT_PASSWORD}", "wr0ng")]) == 2
    assert "wr0ng" not in said + capsys.readouterr().err


@needs_broker
def test_the_last_will_arrives_when_we_are_killed(broker: Mosquitto, listener: Listener) -> None:
    code = "from facerecon_rt.sinks.mqtt import MqttSink\n"
    code += f"sink = MqttSink({broker.address!r})\nprint('up', flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as ours:
        assert ours.stdout is not None and ours.stdout.readline() == b"up\n"
        wait_for(lambda: ("home/faces/status", "online", False) in listener.heard)
        ours.kill()
    wait_for(lambda: ("home/faces/status", "offline", False) in listener.heard)


@needs_broker
@pytest.mark.parametrize("killed", [False, True])
def test_a_run_stays_online_when_another_program_on_its_topic_ends(
    broker: Mosquitto, listener: Listener, caplog: pytest.LogCaptureFixture, killed: bool
) -> None:
    with MqttSink(broker.address):
        wait_for(lambda: listener.at_topic("home/faces/status") == ["online"])
        code = "import sys\nfrom facerecon_rt.sinks.mqtt import MqttSink\n"
        code += f"with MqttSink({broker.address!r}): print('up', flush=True); sys.stdin.read()"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as second:
            assert second.stdout is not None and second.stdout.readline() == b"up\n"
            wait_for(lambda: listener.at_topic("home/faces/status") == ["online", "online"])
            if killed:
                second.kill()
        wait_for(lambda: listener.at_topic("home/faces/status") == ["online", "online", "offline", "online"])
        late = Listener(broker, "late")
        wait_for(lambda: ("home/faces/status", "online", True) in late.heard)
        late.close()
    wait_for(lambda: listener.at_topic("home/faces/status")[-1] == "offline")
    wait_for(lambda: "another program uses the topic" in caplog.text)
    said = [
        one.getMessage() for one in caplog.records if "another program uses the topic home/faces" in one.getMessage()
    ]
    assert len(said) == 1


@needs_broker
def test_a_run_that_comes_back_after_a_loss_takes_nobody_for_another_program(
    broker: Mosquitto, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    with MqttSink(broker.address) as sink:
        wait_for(lambda: listener.at_topic("home/faces/status") == ["online"])
        broker.stop()
        wait_for(lambda: not sink._client.is_connected())
        broker.start()
        wait_for(lambda: {"offline"} < set(listener.at_topic("home/faces/status")[1:]))
        wait_for(lambda: sink._waiting() == 0)
    assert "another program" not in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # paho leaves a refused socket open
@needs_broker
def test_tls_needs_a_certificate_that_can_be_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    monkeypatch.setenv("MQTT_PASSWORD", PASSWORD)
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    made: list[str | Path] = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        key,
        "-out",
        certificate,
        "-days",
        "2",
    ]
    subprocess.run(
        [*made, "-subj", "/CN=here", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True
    )
    running = Mosquitto(tmp_path, f"certfile {certificate}\nkeyfile {key}\n")
    running.start()
    try:
        address = running.address.replace("mqtt://", "mqtts://")
        with MqttSink(f"{address}?ca={certificate}") as sink:
            assert sink._client.is_connected()
        monkeypatch.setattr(mqtt, "ANSWER_S", 1.0)
        with MqttSink(address) as sink:
            assert not sink._client.is_connected()
        assert "does not answer" in caplog.text and PASSWORD not in caplog.text
    finally:
        running.stop()


@needs_broker
def test_a_lost_camera_is_absent_and_answers_nobody(broker: Mosquitto, listener: Listener, ball_face: MakeFace) -> None:
    with ThreadedSink(MqttSink(broker.address), "mqtt") as sink:
        seen = replace(scene(ball_face, 0, 1), events=())
        sink.write(seen)
        wait_for(lambda: bool(listener.at("/state")))
        listener.client.publish(GET, "", 1)
        wait_for(lambda: bool(sink._sink._asked_for))  # type: ignore[attr-defined]
        sink.write_events(replace(seen, frame=replace(seen.frame, image=NO_PICTURE), faces=(), lost=True))
        wait_for(lambda: len(listener.at("/state")) == 2)
        listener.client.publish(GET, "", 1)  # while it is lost
        wait_for(lambda: len(listener.at("/snapshot/refused")) == 2)
        sink.write(seen)  # it is back
        wait_for(lambda: len(listener.at("/state")) == 3)
    assert [state["present"] for state in listener.at("/state")] == [True, False, True]
    assert "there was no picture" in listener.at("/snapshot/refused")[0]["error"]
    assert not listener.pictures


@needs_broker
def test_a_request_for_a_picture_is_refused_after_a_while(
    broker: Mosquitto, listener: Listener, ball_face: MakeFace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "ASKED_S", 0.0)
    with MqttSink(broker.address) as sink:
        seen = scene_with_picture(ball_face, detected=True)
        sink.write(seen)
        wait_for(lambda: bool(listener.at("/state")))
        listener.client.publish(GET, "", 1)
        wait_for(lambda: bool(sink._asked_for))
        sink.write(seen)
        assert not sink._asked_for
        wait_for(lambda: bool(listener.at("/snapshot/refused")))
    assert not listener.pictures


@pytest.mark.parametrize(
    ("query", "style", "covers"),
    [("", "shaded", True), ("?snapshot=off", "shaded", False), ("?snapshot=plain", "shaded", False),
     ("?snapshot=mask", "shaded", True), ("", "blur", True)],
)  # fmt: skip
def test_only_a_broker_with_covered_pictures_covers_faces(query: str, style: str, covers: bool) -> None:
    assert may_cover(f"mqtt://host/topic{query}", style, pictures=True) == covers
    assert not may_cover("mqtt://host/topic", style, pictures=False)
    assert not may_cover("out.mp4", style, pictures=True)


def test_an_address_is_read_and_a_password_may_hold_any_character(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "a/b@c:d#%")
    broker = broker_from_address("mqtts://me:${PW}@broker.lan/home/cam?discovery=off")
    assert (broker.host, broker.port, broker.tls, broker.user) == ("broker.lan", 8883, True, "me")
    assert (broker.password, broker.topic, broker.discovery, broker.ca) == ("a/b@c:d#%", "home/cam", None, None)
    plain = broker_from_address("mqtt://broker")
    assert (plain.port, plain.user, plain.topic, plain.discovery) == (1883, None, "facerecon", "homeassistant")
    assert is_mqtt("mqtt://x") and not is_mqtt("mqtt") and not is_mqtt("out.jsonl")


@pytest.mark.parametrize(
    "address",
    ["mqtt://", "mqtt://u:hush@h/a+b", "mqtt://u:hush@h/?nothing=1", "mqtt://u:hush@h:99999/", "mqtt://u:${NO_SUCH}@h"],
)
def test_a_wrong_address_is_refused_without_its_password(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        broker_from_address(address)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("end", ["a/#", "a/+/b", "a%23", "a%2Bb", "a?discovery=x%2B", "a?discovery=ha#", "#"])
def test_a_topic_with_wildcards_is_refused_and_told_why(end: str) -> None:
    with pytest.raises(UsageError, match="topics to publish to hold no # and no"):
        broker_from_address(f"mqtt://h/{end}")


def test_names_of_cameras_are_one_level_of_a_topic() -> None:
    assert topic_of("rtsp://user:pw@door.lan:554/a/b") == "door.lan_554_a_b"
    assert topic_of("http://127.0.0.1:8972/cam") == "127.0.0.1_8972_cam"
    assert topic_of("cam0") == "cam0"
    assert not set("/#+") & set(topic_of("/dev/v#+ideo0")) and len(topic_of("x" * 300)) <= 60


def test_a_set_has_no_broker(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "m.onnx", "--input", "x.jpg", "--set", "--output", "mqtt://u:pw@h"]) == 2
    said = capsys.readouterr().err
    assert "--set has none" in said and "pw" not in said

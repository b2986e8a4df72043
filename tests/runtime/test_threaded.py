"""Slow and failing sinks: scenes that wait or are dropped, messages, and that nothing hangs."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from pathlib import Path
from types import TracebackType

import numpy as np
import pytest
from facerecon_rt.commands.shell import run_command
from facerecon_rt.errors import UsageError
from facerecon_rt.interrupts import Unfinished
from facerecon_rt.sinks import threaded
from facerecon_rt.sinks.files import open_sink
from facerecon_rt.sinks.jsonl import JsonLinesSink
from facerecon_rt.sinks.sink import EventSink
from facerecon_rt.sinks.threaded import DEPTH, ThreadedSink
from facerecon_rt.types import Event, Frame, Scene

IMAGE = np.zeros((2, 2, 3), np.uint8)
MANY = 50


class Slow:
    """A sink that waits for permission, and fails at a given scene."""

    def __init__(self, *, fails_at: int = -1, fails_closing: bool = False) -> None:
        self.may = threading.Event()
        self.began = threading.Event()
        self.written: list[int] = []
        self.closed = 0
        self._fails_at = fails_at
        self._fails_closing = fails_closing

    def __enter__(self) -> Slow:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def write(self, scene: Scene) -> None:
        self.began.set()
        assert self.may.wait(20)
        if scene.frame.index == self._fails_at:
            raise UsageError("cannot write out.jsonl: No space left on device")
        self.written.append(scene.frame.index)

    def close(self) -> None:
        self.closed += 1
        if self._fails_closing:
            raise UsageError("cannot write out.jsonl: it is gone")


def scene(index: int, source: str = "clip.mp4") -> Scene:
    return Scene(Frame(IMAGE, source, index, still=False, live=source != "clip.mp4"), ())


def test_a_files_scenes_all_arrive_in_order_however_slow_the_sink_is() -> None:
    slow = Slow()
    threading.Timer(0.1, slow.may.set).start()
    with ThreadedSink(slow, "out.jsonl") as sink:
        for index in range(MANY):
            sink.write(scene(index))
    assert slow.written == list(range(MANY))
    assert (sink.dropped, slow.closed) == (0, 1)


def test_a_cameras_scenes_never_wait_and_what_is_left_out_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    slow = Slow()
    with ThreadedSink(slow, "out.mp4") as sink:
        sink.write(scene(0, "cam0"))
        assert slow.began.wait(20)
        for index in range(1, MANY):
            sink.write(scene(index, "cam0"))
        slow.may.set()
    assert slow.written == list(range(1 + DEPTH))
    assert sink.dropped == MANY - 1 - DEPTH
    assert f"out.mp4 dropped {sink.dropped} frames because it was too slow" in caplog.text


def scene_with_event(index: int) -> Scene:
    event = Event("blink", "end", 1, index / 10, index / 10 - 0.15)
    return Scene(Frame(IMAGE, "cam0", index, still=False, live=True), (), events=(event,))


def test_events_of_dropped_frames_are_written_in_order(tmp_path: Path) -> None:
    pipe = tmp_path / "records"
    os.mkfifo(pipe)
    # Nobody reads yet, and a pipe holds 64 kB, so the sink waits.
    with pipe.open("rb+", buffering=0) as reader:
        sink = ThreadedSink(JsonLinesSink(pipe, ()), "records")
        for index in range(1000):
            sink.write(scene_with_event(index))
        assert sink.dropped > 0
        lines: list[dict[str, object]] = []
        rest = b""
        while len([one for one in lines if "event" in one]) < 1000:
            *whole, rest = (rest + reader.read(4096)).split(b"\n")
            lines += map(json.loads, whole)
        sink.close()
    assert [one["frame"] for one in lines if "event" in one] == list(range(1000))
    assert len([one for one in lines if "event" not in one]) == 1000 - sink.dropped
    assert sink.dropped_events == 0


def test_waiting_events_have_no_picture_and_an_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Eventful(Slow):
        def write_events(self, scene: Scene) -> None:
            assert scene.frame.image.size == 0
            self.written.append(scene.frame.index)

    monkeypatch.setattr(threaded, "MOST_EVENTS", 20)
    slow = Eventful()
    with ThreadedSink(slow, "out") as sink:
        sink.write(scene_with_event(0))
        assert slow.began.wait(20)
        for index in range(1, MANY):
            sink.write(scene_with_event(index))
        slow.may.set()
    assert slow.written == list(range(20))
    assert (sink.dropped, sink.dropped_events) == (MANY - 1 - DEPTH, MANY - 20)
    assert "out dropped 30 events because it was too slow" in caplog.text


def test_a_folder_keeps_events_too(tmp_path: Path) -> None:
    with open_sink(str(tmp_path / "out"), blendshapes=()) as sink:
        assert isinstance(sink, EventSink)
        sink.write_events(scene_with_event(7))
    (line,) = (tmp_path / "out/records.jsonl").read_text().splitlines()
    assert (json.loads(line)["event"], json.loads(line)["frame"]) == ("blink", 7)


class Choosy(Slow):
    """A sink that wants every third scene."""

    def wants(self, scene: Scene) -> bool:
        return scene.frame.index % 3 == 0


@pytest.mark.parametrize("source", ["clip.mp4", "cam0"])
def test_a_sink_that_chooses_is_handed_only_the_scenes_it_wants(source: str) -> None:
    choosy = Choosy()
    with ThreadedSink(choosy, "mqtt://host") as sink:
        for index in range(3 * DEPTH):  # more than could wait
            sink.write(scene(index, source))
        choosy.may.set()
    assert choosy.written == list(range(0, 3 * DEPTH, 3))
    assert sink.dropped == 0


def test_with_files_a_failure_ends_the_run() -> None:
    slow = Slow(fails_at=3)
    slow.may.set()
    sink = ThreadedSink(slow, "out.jsonl")
    with pytest.raises(UsageError, match="No space left"):
        for index in range(10_000):
            sink.write(scene(index))
    with pytest.raises(UsageError, match="No space left"):
        sink.close()
    assert (slow.written, slow.closed) == ([0, 1, 2], 1)


def test_with_cameras_a_failure_stops_one_sink_and_is_an_error_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    slow = Slow(fails_at=0, fails_closing=True)
    slow.may.set()
    sink = ThreadedSink(slow, "out.jsonl")
    for index in range(MANY):
        sink.write(scene(index, "rtsp://host/door"))
        slow.began.wait(20)
    with pytest.raises(UsageError, match="No space left"):  # the first error, not that of closing
        sink.close()
    sink.close()
    assert slow.written == []
    assert caplog.text.count("out.jsonl is stopped, everything else continues") == 1


def test_what_closing_raises_is_raised() -> None:
    slow = Slow(fails_closing=True)
    with pytest.raises(UsageError, match="it is gone"):
        ThreadedSink(slow, "out.jsonl").close()


@pytest.mark.parametrize("source", ["clip.mp4", "cam0"])
def test_whatever_a_sink_raises_nobody_hangs(source: str) -> None:
    class Broken(Slow):
        def write(self, scene: Scene) -> None:
            raise ValueError("a bug")

    sink = ThreadedSink(Broken(), "out.mp4")
    with pytest.raises(ValueError, match="a bug"):
        for index in range(10_000):
            sink.write(scene(index, source))
        sink.close()


@pytest.mark.parametrize("source", ["clip.mp4", "cam0"])
def test_a_reader_that_has_gone_is_a_broken_pipe(source: str) -> None:
    class Gone(Slow):
        def write(self, scene: Scene) -> None:
            raise BrokenPipeError

    sink = ThreadedSink(Gone(), "standard output")
    with pytest.raises(BrokenPipeError):
        for index in itertools.count():
            sink.write(scene(index, source))
            time.sleep(0)
    with pytest.raises(BrokenPipeError):
        sink.close()


class Finishing(Slow):
    """A sink that is told to stop while it finishes its files, `signals` times."""

    def __init__(self, signals: int) -> None:
        super().__init__()
        self.may.set()
        self._signals = signals

    def close(self) -> None:
        for _ in range(self._signals):
            signal.raise_signal(signal.SIGINT)
        super().close()


@pytest.mark.usefixtures("python_answers_ctrl_c")
@pytest.mark.parametrize("waits", [True, False])
def test_ctrl_c_waits_until_the_files_are_finished(waits: bool) -> None:
    slow = Finishing(0 if waits else 1)
    sink = ThreadedSink(slow, "out.mp4")
    if waits:  # the signal comes while scenes are written
        slow.may.clear()

        def interrupt() -> None:
            while signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)
            slow.may.set()

        threading.Thread(target=interrupt).start()
    sink.write(scene(0))
    sink.write(scene(1))
    with pytest.raises(KeyboardInterrupt):
        sink.close()
    assert (slow.written, slow.closed, sink.unfinished) == ([0, 1], 1, False)


@pytest.mark.usefixtures("python_answers_ctrl_c")
def test_a_second_ctrl_c_does_not_wait_and_is_known() -> None:
    slow = Finishing(2)
    sink = ThreadedSink(slow, "out.mp4")
    with pytest.raises(KeyboardInterrupt):
        sink.close()
    assert (slow.closed, sink.unfinished) == (0, True)


@pytest.mark.usefixtures("python_answers_ctrl_c")
def test_ctrl_c_in_a_run_and_again_while_files_are_finished_does_not_wait() -> None:
    slow = Finishing(1)
    with pytest.raises(KeyboardInterrupt), ThreadedSink(slow, "out.mp4") as sink:
        raise KeyboardInterrupt
    assert (slow.closed, sink.unfinished) == (0, True)


def test_what_an_interruption_leaves_unfinished_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise Unfinished(["out.mp4", "out.glb"])

    assert run_command("facerecon-rt", interrupted, on_interrupt=lambda: None) == 130
    assert capsys.readouterr().err == "interrupted; not finished: out.mp4, out.glb\n"

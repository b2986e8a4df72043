"""Cost of a tracked frame with attention, MQTT and the page, and without all of them, in one run.

    python benchmarks/pipelines_cost.py             # two minutes; writes results/pipelines_cost.md

Two pipelines share one network. Blocks of frames take turns, so that other load on the machine affects both. A frame's
time is that of its processing and of handing it to the outputs, whose threads work meanwhile. The processor time of the
frame's thread is given too: it leaves out waiting, for other threads and for other programs. The broker is Debian's
mosquitto. A process asks the page for its state and metrics once per second; with --watch it also shows the live
picture, which is drawn only while somebody watches. Needs the extras `mqtt` and `web`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
from facerecon_rt import Pipeline, Reconstructor, open_source
from facerecon_rt.environment import machine, sensors
from facerecon_rt.pose import Doubles
from facerecon_rt.providers.onnx_file import named_by_hash
from facerecon_rt.sinks.mqtt import MqttSink
from facerecon_rt.sinks.threaded import ThreadedSink
from facerecon_rt.types import Frame, Scene
from facerecon_rt.web.server import WebServer
from facerecon_rt.web.state import State

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.runtime.mosquitto import PASSWORD, Mosquitto, mosquitto_there

RESULTS = Path(__file__).with_name("results")
CLIP = Path("tests/data/talking_head.mp4")
MODEL = Path("models/face.int8-cpu.onnx")
WARM_UP = 100
VISITOR = """
import sys, threading, time, urllib.request
url, watch = sys.argv[1], sys.argv[2] == "watch"
def show():
    with urllib.request.urlopen(url + "live/0.mjpg") as picture:
        while picture.read(4096):
            pass
if watch:
    threading.Thread(target=show, daemon=True).start()
while True:
    for path in ("api/state", "metrics"):
        urllib.request.urlopen(url + path).read()
    time.sleep(1)
"""
"""A program that visits the page."""


def block(pipeline: Pipeline, sinks: Sequence[ThreadedSink | State], frames: Sequence[Frame]) -> Doubles:
    """Process frames one after the other. Return the milliseconds (N, 2) of each frame, and those of the processor."""
    spent = []
    for frame in frames:
        given = replace(frame, image=frame.image.copy(), captured_at=time.monotonic())
        started, used = time.perf_counter(), time.thread_time()
        scene: Scene = pipeline.process(given)
        for sink in sinks:
            sink.write(scene)
        spent.append((time.perf_counter() - started, time.thread_time() - used))
    return 1000 * np.array(spent)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=60, help="blocks of each kind [%(default)s]")
    parser.add_argument("--size", type=int, default=100, help="frames per block [%(default)s]")
    parser.add_argument("--watch", action="store_true", help="show the live picture too")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results [benchmarks/results]")
    options = parser.parse_args()
    if not mosquitto_there():
        parser.error("mosquitto is not installed: apt install mosquitto")
    before = sensors()
    with open_source(CLIP) as source:
        clip = [replace(frame, live=True) for frame in source]
    os.environ["MQTT_PASSWORD"] = PASSWORD
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        broker = Mosquitto(Path(folder))
        broker.start()
        stack.callback(broker.stop)
        reconstructor = stack.enter_context(Reconstructor(MODEL, provider="cpu"))
        state = State(reconstructor.contract.blendshapes)
        server = stack.enter_context(WebServer(state, "127.0.0.1:0"))
        mqtt = stack.enter_context(ThreadedSink(MqttSink(broker.address), "mqtt"))
        kinds = {
            "none": (Pipeline(reconstructor), ()),
            "attention, MQTT and page": (Pipeline(reconstructor, attention=()), (mqtt, state)),
        }
        # Time goes on from block to block, as a camera's does.
        frames = (replace(frame, index=n, time_s=n / 25) for n, frame in enumerate(cycle(clip)))
        for pipeline, sinks in kinds.values():
            block(pipeline, sinks, [next(frames) for _ in range(WARM_UP)])
        command = [sys.executable, "-c", VISITOR, server.url, "watch" if options.watch else "look"]
        visitor = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        stack.callback(visitor.wait)
        stack.callback(visitor.kill)
        spent: dict[str, list[Doubles]] = {name: [] for name in kinds}
        for number in range(options.blocks):
            given = [next(frames) for _ in range(options.size)]
            # Which is first alternates, so that what grows or shrinks with time affects both.
            for name in list(kinds)[:: 1 if number % 2 else -1]:
                spent[name].append(block(*kinds[name], given))
        alive, dropped = visitor.poll() is None, mqtt.dropped
    report(options, spent, before, alive=alive, dropped=dropped)


def report(
    options: argparse.Namespace,
    spent: dict[str, list[Doubles]],
    before: dict[str, str],
    *,
    alive: bool,
    dropped: int,
) -> None:
    """Write the figures as Markdown."""
    plain, full = spent.values()
    medians = np.array([(np.median(less, 0), np.median(more, 0)) for less, more in zip(plain, full, strict=True)])
    differences, ratios = medians[:, 1] - medians[:, 0], np.median(medians[:, 1] / medians[:, 0], 0)
    command = f"python benchmarks/pipelines_cost.py --blocks {options.blocks} --size {options.size}"
    lines = ["# Cost of attention, MQTT and the page", "", f"`{command}{' --watch' if options.watch else ''}`", ""]
    lines += [f"Model {named_by_hash(MODEL)}.", ""]
    lines += [", ".join(f"{name} {value}" for name, value in machine().items())]
    lines += [f"Load average before the run: {before.get('load average', 'unknown')}.", ""]
    lines += ["| ms per tracked frame | p50 | p90 | p99 | p50 of processor time |", "|---|---|---|---|---|"]
    for name, blocks in spent.items():
        of_all = np.concatenate(blocks)
        figures = [f"{np.percentile(of_all[:, 0], percentile):.2f}" for percentile in (50, 90, 99)]
        lines.append(f"| {name} | {' | '.join(figures)} | {np.median(of_all[:, 1]):.2f} |")
    lines += [
        "",
        f"Difference of the p50 of neighbouring blocks, {len(differences)} pairs of {options.size} frames:",
        "",
    ]
    for column, what in enumerate(("time", "processor time")):
        low, middle, high = np.percentile(differences[:, column], (25, 50, 75))
        lines.append(f"- {what}: median {middle:+.3f} ms, quartiles {low:+.3f} and {high:+.3f} ms, "
                     f"ratio {ratios[column]:.3f}")  # fmt: skip
    lines.append("")
    lines += [f"Frames dropped from MQTT: {dropped}. Visitor of the page {'was there' if alive else 'WAS LOST'}.", ""]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "pipelines_cost.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()

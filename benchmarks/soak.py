"""Four streams for half an hour, killed and stalled at random -> growth of memory, age of results, lost frames.

    python benchmarks/soak.py                       # 30 minutes; writes results/soak.md and soak.png
    python benchmarks/soak.py --minutes 5
    python benchmarks/soak.py --minutes 60 --broker # with attention and MQTT; writes results/soak_broker.md and .png

The benchmark runs the command itself on Motion JPEG streams of the repository's clip, with rotated records and constant
requests to the web page. Every half minute one stream is killed or stalled for some seconds, by a seed. Memory and
processor time come from /proc, ages and losses from the records.

Memory rises and falls with what frames, requests and streams that are opened again need for a moment. What stays is
the lowest value of each minute, so the growth is that of these values, with its standard error.

With --broker, mosquitto is ended every minute for five seconds, by SIGKILL and SIGTERM in turns, while the program
sends states and events. A client with a session that the broker saves every second writes down the messages that
arrive. They are compared with the events in the records. Needs Debian's mosquitto and the extra `mqtt`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from facerecon_rt import open_source
from facerecon_rt.environment import machine, sensors
from facerecon_rt.providers.onnx_file import named_by_hash

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.runtime.mjpeg import MjpegServer
from tests.runtime.mosquitto import PASSWORD, Listener, Mosquitto, mosquitto_there

RESULTS = Path(__file__).with_name("results")
CLIP = Path("tests/data/talking_head.mp4")
MODEL = Path("models/face.onnx")
"""Model file, whose file of 8 bits runs."""
FPS = 15.0
EVERY_S, ASK_S, SAMPLE_S = 30.0, 5.0, 1.0
QUIET_END_S = 40.0
"""Seconds without faults at the end of the run, in which the last fault is seen to end."""
SETTLED = 0.2
"""Share of the run after which memory should be steady."""
PORT = 8097
BROKER_EVERY_S, BROKER_AWAY_S = 60.0, 5.0
"""Seconds between two ends of the broker, and for which it is away."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A stream that was killed or stalled, with times in seconds since the start."""

    uri: str
    begun: float
    until: float


@dataclass(frozen=True, slots=True)
class Record:
    """The fields of a record that are needed."""

    source: str
    time_s: float
    age_ms: float
    faces: int


@dataclass(slots=True)
class Run:
    """Observations of a run from outside."""

    samples: list[tuple[float, float, float]] = field(default_factory=list)
    """Seconds, memory in MB and seconds of processor time of each sample."""
    faults: list[Fault] = field(default_factory=list)
    unanswered: int = 0
    """Number of rounds of requests to the page with a request that got no answer."""
    broker_ends: int = 0
    """Number of times that the broker was ended and started again."""
    ended: threading.Event = field(default_factory=threading.Event)
    ran_s: float = 0.0
    alive: bool = False
    exit_code: int = 0
    stopping_s: float = 0.0


def resident_mb(process: int) -> float:
    """Return the resident memory of a process in MB."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def cpu_s(process: int) -> float:
    """Return the processor time of a process so far, over all its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def asked(path: str) -> bool:
    """Return whether the page answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=5) as answer:
            return bool(answer.read())
    except OSError:
        return False


def soak(servers: list[MjpegServer], command: list[str], minutes: float, broker: Mosquitto | None = None) -> Run:
    """Run the command, break streams, end the broker, and send requests to the page."""
    chance, run = random.Random(0), Run()
    process = subprocess.Popen(command)
    started = time.monotonic()
    sampler = threading.Thread(target=sample, args=(run, process, started))
    sampler.start()
    next_fault, next_end = EVERY_S, BROKER_EVERY_S / 2
    while (now := time.monotonic() - started) < 60 * minutes and process.poll() is None:
        time.sleep(ASK_S)
        run.unanswered += not all(map(asked, ("/api/state", "/healthz", "/metrics")))
        if next_fault < now < 60 * minutes - QUIET_END_S:
            server, killed, seconds = chance.choice(servers), chance.random() < 0.5, chance.uniform(2, 15)
            begun = time.monotonic() - started
            (server.kill if killed else server.stall)()
            time.sleep(seconds)
            (server.start if killed else server.go_on)()
            run.faults.append(Fault(server.uri, begun, time.monotonic() - started))
            next_fault += EVERY_S
        if broker is not None and next_end < now < 60 * minutes - QUIET_END_S / 2:
            broker.stop(signal.SIGTERM if run.broker_ends % 2 else signal.SIGKILL)
            time.sleep(BROKER_AWAY_S)
            broker.start()
            run.broker_ends += 1
            next_end += BROKER_EVERY_S
    run.ran_s = time.monotonic() - started
    run.alive = process.poll() is None
    run.ended.set()
    sampler.join()
    process.send_signal(signal.SIGTERM)
    stopping = time.monotonic()
    run.exit_code = process.wait(60)
    run.stopping_s = time.monotonic() - stopping
    return run


def sample(run: Run, process: subprocess.Popen[bytes], started: float) -> None:
    """Note memory and processor time once per second until the run has ended."""
    while not run.ended.wait(SAMPLE_S):
        with suppress(OSError):  # the process has ended
            run.samples.append((time.monotonic() - started, resident_mb(process.pid), cpu_s(process.pid)))


def growth(seconds: np.ndarray, megabytes: np.ndarray) -> tuple[float, float]:
    """Return the growth of the lowest values of all minutes in MB per hour, and its standard error."""
    minutes = (seconds // 60).astype(int)
    whole = [minute for minute in np.unique(minutes) if np.ptp(seconds[minutes == minute]) > 50]
    if len(whole) < 3:
        return float("nan"), float("nan")
    lowest = [megabytes[minutes == minute].min() for minute in whole]
    line, covariance = np.polyfit(np.array(whole) / 60, lowest, 1, cov=True)
    return float(line[0]), float(np.sqrt(covariance[0, 0]))


def records(folder: Path) -> tuple[list[Record], list[str]]:
    """Return the records of all files of the run, in the order in which they were written, and the events as
    `event_key` writes them."""
    found, events = [], []
    for path in sorted(folder.glob("records*.jsonl"), key=lambda path: path.stat().st_mtime):
        for line in path.read_text().splitlines():
            one = json.loads(line)
            if "event" in one:
                events.append(event_key(one))
            else:
                found.append(Record(one["source"], one["time_s"], one["age_ms"], len(one["faces"])))
    return found, events


def event_key(event: dict[str, object]) -> str:
    """Return the fields that identify an event, in the records and over MQTT."""
    return json.dumps({name: value for name, value in sorted(event.items()) if name != "n"})


def lost_and_repeated(written: list[str], heard: list[dict[str, object]]) -> tuple[int, int]:
    """Return how many events of the records never arrived, and how many arrived again (QoS 1 allows it)."""
    arrived = Counter(event_key(event) for event in {event["n"]: event for event in heard}.values())
    missing = Counter(written) - arrived
    return missing.total(), len(heard) - arrived.total()


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="minutes to run [%(default)g]")
    parser.add_argument("--streams", type=int, default=4, help="number of streams [%(default)s]")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results [benchmarks/results]")
    parser.add_argument("--broker", action="store_true", help="send to an MQTT broker that is ended every minute")
    options = parser.parse_args()
    if options.broker and not mosquitto_there():
        parser.error("--broker needs mosquitto: apt install mosquitto")
    with open_source(CLIP) as source:
        frames = [frame.image for frame in source]
    step = len(frames) // options.streams
    servers = [MjpegServer(frames[number * step :] + frames[: number * step], FPS) for number in range(options.streams)]
    for server in servers:
        server.start()
    heard: list[dict[str, object]] = []
    load = sensors().get("load average", "unknown")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        command = [sys.executable, "-m", "facerecon_rt.cli", "--model", str(MODEL), "--precision", "int8"]
        command += ["--input", *(server.uri for server in servers), "--timeout", "3", "--serve", f"127.0.0.1:{PORT}"]
        command += ["--output", f"{folder}/records.jsonl", "--rotate", "20", "--quiet"]
        broker = None
        if options.broker:
            os.environ["MQTT_PASSWORD"] = PASSWORD
            (Path(folder) / "broker").mkdir()
            broker = Mosquitto(Path(folder) / "broker")
            broker.start()
            stack.callback(broker.stop)
            listener = Listener(broker)
            stack.callback(listener.close)
            broker.wait_until_saved()
            command += ["--attention", "--output", broker.address]
        run = soak(servers, command, options.minutes, broker)
        seen, events = records(Path(folder))
        if broker is not None:
            until = time.monotonic() + QUIET_END_S
            while time.monotonic() < until and lost_and_repeated(events, listener.at("/event"))[0]:
                time.sleep(1)
            heard = listener.at("/event")
    for server in servers:
        server.go_on()
        server.kill()
    report(run, seen, options, events, heard, load)


def report(
    run: Run,
    seen: list[Record],
    options: argparse.Namespace,
    events: list[str],
    heard: list[dict[str, object]],
    load: str,
) -> None:
    """Write the figures as Markdown, and a picture of memory and ages over time."""
    samples = np.array(run.samples)
    settled = samples[samples[:, 0] > SETTLED * samples[-1, 0]]
    slope, error = growth(settled[:, 0], settled[:, 1])
    ages, at = np.array([one.age_ms for one in seen]), np.array([one.time_s for one in seen])
    down = sum(fault.until - fault.begun for fault in run.faults)
    due = FPS * (options.streams * run.ran_s - down)
    gaps = returns(run.faults, seen)
    p50, p90, p99 = (float(np.percentile(ages, percentile)) for percentile in (50, 90, 99))
    cpu = 100 * (samples[-1, 2] - samples[0, 2]) / (samples[-1, 0] - samples[0, 0])
    faces = 100 * np.mean([one.faces > 0 for one in seen])
    rows = {
        "ran": f"{run.ran_s / 60:.1f} minutes, {options.streams} streams at {FPS:g} frames a second",
        "alive at the end": "yes" if run.alive else "NO",
        "after SIGTERM": f"{run.stopping_s:.2f} s, exit code {run.exit_code}",
        "streams killed or stalled for 2 to 15 s": f"{len(run.faults)}",
        "streams seen again": f"{len(gaps)}",
        "return to first frame": f"median {np.median(gaps or 0):.1f}, at most {max(gaps or [0]):.1f} s",
        "memory, after the first fifth": f"{settled[:, 1].min():.0f} to {settled[:, 1].max():.0f} MB",
        "growth of the lowest memory of a minute": f"{slope:+.1f} ± {error:.1f} MB per hour",
        "processor": f"{cpu:.0f} % of one core",
        "frames processed": f"{len(seen)}, {100 * len(seen) / due:.0f} % of those that came; {faces:.1f} % with a face",
        "age of results when written": f"p50 {p50:.1f}, p90 {p90:.1f}, p99 {p99:.1f} ms",
        "rounds of requests to the page without an answer": f"{run.unanswered}",
    }
    command = f"python benchmarks/soak.py --minutes {options.minutes:g} --streams {options.streams}"
    name = "soak"
    if options.broker:
        name, command = "soak_broker", f"{command} --broker"
        lost, repeated = lost_and_repeated(events, heard)
        rows["broker ended for 5 s"] = f"{run.broker_ends} times, {(run.broker_ends + 1) // 2} of them by SIGKILL"
        rows["events in the records"] = f"{len(events)}"
        rows["of these not delivered by MQTT"] = f"{lost}"
        rows["delivered again"] = f"{repeated}"
    lines = ["# Soak with a broker that ends" if options.broker else "# Soak", "", f"`{command}`", ""]
    lines += [f"Model {named_by_hash(MODEL.with_name('face.int8-cpu.onnx'))}.", ""]
    lines += [", ".join(f"{name} {value}" for name, value in machine().items())]
    lines += [f"Load average before the run: {load}.", "", "| | |", "|---|---|"]
    lines += [f"| {row} | {value} |" for row, value in rows.items()]
    lines += ["", f"![Memory and ages over time]({name}.png)", ""]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name}.md").write_text("\n".join(lines))
    print("\n".join(lines))
    draw(samples, at, ages, options.out / f"{name}.png")


def returns(faults: list[Fault], seen: list[Record]) -> list[float]:
    """Return, for each fault, the seconds by which the pause in the records is longer than the fault."""
    found = []
    for fault in faults:
        times = np.array([one.time_s for one in seen if one.source == fault.uri])
        pauses = np.diff(times)
        # Records count from the opening of the stream, about a second after the start.
        near = (
            (times[1:] > fault.begun - 5)
            & (times[:-1] < fault.until + 5)
            & (pauses > 0.7 * (fault.until - fault.begun))
        )
        if near.any():
            found.append(max(0.0, float(pauses[near].max()) - (fault.until - fault.begun)))
    return found


def draw(samples: np.ndarray, at: np.ndarray, ages: np.ndarray, path: Path) -> None:
    """Draw two plots, one above the other."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, figsize=(8, 5), sharex=True)
    above.plot(samples[:, 0] / 60, samples[:, 1])
    above.set_ylabel("memory, MB")
    above.set_ylim(0)
    minutes = np.arange(int(at.max() / 60) + 1)
    for percentile in (50, 99):
        values = [np.percentile(ages[(at >= 60 * m) & (at < 60 * m + 60)], percentile) for m in minutes]
        below.plot(minutes, values, label=f"p{percentile}")
    below.set_ylabel("age of results, ms")
    below.set_xlabel("minutes")
    below.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()

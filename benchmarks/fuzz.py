"""Ten thousand malformed inputs -> whether each is read, or refused with a one-line error of this package.

    nice -n 19 python benchmarks/fuzz.py                               # some minutes; writes results/fuzz.md
    python benchmarks/fuzz.py --only pictures --count 500 --seed 7     # other inputs of one kind; prints only
    python benchmarks/fuzz.py --only "ONNX files" --number 123         # one input again, with its traceback

The inputs are pictures, videos, ONNX files, contracts, lists of sources, weights, checkpoints, landmarks, folders of
engines, names, numbers and reports. They are damaged or made up with a seed (benchmarks/fuzzing). Another process makes
and tries them, and this process watches it. An input is a fault if it ends that process, takes 20 s of processor time,
stands still for a minute, or needs more than 2 GB of memory. The process is then started again. Faulty inputs are kept
in build/fuzz.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from commands import command_of
from fuzzing.worker import KINDS

HERE = Path(__file__).parent
MOST_CPU_S, MOST_WAIT_S, MOST_GB = 20.0, 60.0, 2.0
"""Limits of one input."""
LOOK_S = 0.2
"""Interval in seconds between two looks at a process that has not answered."""
OUTCOMES = ("taken", "refused", "exception", "crash", "hang", "memory")


@dataclass(slots=True)
class Worker:
    """A process that tries inputs. It is started again when it ends."""

    command: list[str]
    """Command that reads `KIND NUMBER` per line and writes `{"outcome", "why"}` per line."""
    folder: Path
    """Folder of its standard error and temporary files."""
    most_cpu_s: float = MOST_CPU_S
    most_wait_s: float = MOST_WAIT_S
    most_gb: float = MOST_GB
    process: subprocess.Popen[str] | None = None
    log: Path = field(default_factory=Path)

    def __post_init__(self) -> None:
        self.log = self.folder / "stderr"

    def try_one(self, kind: str, number: int) -> tuple[str, str]:
        """Try one input, and return its outcome, one of `OUTCOMES`, and the reason."""
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{kind} {number}\n")
        process.stdin.flush()
        began, used = time.monotonic(), cpu_s(process.pid)
        idle_since, before = began, used
        while not select.select([process.stdout], [], [], LOOK_S)[0]:
            now, spent = time.monotonic(), cpu_s(process.pid)
            if spent > before:
                idle_since, before = now, spent
            if spent - used > self.most_cpu_s or now - idle_since > self.most_wait_s:
                process.send_signal(signal.SIGABRT)  # it then writes its traceback
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)
                self._end()
                return "hang", f"{spent - used:.0f} s of processor time, {now - began:.0f} s\n{self._last_words()}"
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self.process = None
            words = self._last_words()
            # Python ends with 1 after an exception that nobody caught.
            return ("exception" if code == 1 and "Traceback" in words else "crash"), f"exit code {code}\n{words}"
        answer = json.loads(line)
        peak = peak_gb(process.pid)
        if peak > self.most_gb:
            return "memory", f"{peak:.1f} GB"
        return answer["outcome"], answer["why"]

    def _running(self) -> subprocess.Popen[str]:
        if self.process is None:
            (self.folder / "tmp").mkdir(exist_ok=True)
            variables = {
                "TMPDIR": str(self.folder / "tmp"),
                "XDG_CACHE_HOME": str(self.folder / "tmp"),
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)]),
            }
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log.open("w"),
                text=True,
                env={**os.environ, **variables},
            )
        return self.process

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def _end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def close(self) -> None:
        """End the process."""
        self._end()


def cpu_s(pid: int) -> float:
    """Return the processor time of a process in seconds."""
    try:
        numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")


def peak_gb(pid: int) -> float:
    """Return the peak memory in GB of a process since its input began."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmHWM")), 0.0)


def main() -> int:
    """Run the inputs and return the exit code: 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="total number of inputs [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="seed of the inputs [%(default)s]")
    parser.add_argument("--only", choices=tuple(KINDS), help="try inputs of this kind only [all kinds]")
    parser.add_argument("--number", type=int, help="with --only: try this input only")
    parser.add_argument(
        "--keep", type=Path, default=Path("build/fuzz"), help="folder for the inputs of faults [%(default)s]"
    )
    parser.add_argument(
        "--out", type=Path, default=HERE / "results", help="folder for the results of a run of all kinds [%(default)s]"
    )
    options = parser.parse_args()
    shares = (
        {options.only: options.count}
        if options.only
        else {kind: max(1, share * options.count // 10_000) for kind, (_, share) in KINDS.items()}
    )
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in shares}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        command = [sys.executable, "-m", "fuzzing.worker", str(options.seed), str(Path(folder) / "input")]
        worker = Worker(command, Path(folder))
        try:
            for kind, count in shares.items():
                numbers = range(count) if options.number is None else [options.number]
                for number in numbers:
                    outcome, why = worker.try_one(kind, number)
                    counts[kind][outcome] += 1
                    if outcome not in OUTCOMES[:2] or options.number is not None:
                        print(f"{kind} {number}: {outcome}: {why.strip()}", flush=True)
                        keep(Path(folder) / "input", options.keep / f"{kind.partition(' ')[0]}-{options.seed}-{number}")
                print(f"{kind}: {', '.join(f'{n} {what}' for what, n in counts[kind].items())}", flush=True)
        finally:
            worker.close()
    again = f"nice -n 19 {command_of(parser, options)}"
    text = table(counts, again, options.seed, time.monotonic() - started)
    print(text)
    if options.only is None:
        (options.out / "fuzz.md").write_text(text)
    return int(any(one[outcome] for one in counts.values() for outcome in OUTCOMES[2:]))


def keep(source: Path, target: Path) -> None:
    """Keep the input of a fault, if it is small enough to look at."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir() if source.is_dir() else ():
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 2**25:
            shutil.copy(path, target)


def table(counts: dict[str, Counter[str]], command: str, seed: int, seconds: float) -> str:
    """Return a Markdown table of the outcomes for each kind of input."""
    import cv2
    import onnxruntime

    total: Counter[str] = sum(counts.values(), Counter())
    lines = [
        "# Malformed inputs",
        "",
        f"`{command}`, seed {seed}: {total.total()} inputs in {seconds / 60:.0f} minutes; Python "
        f"{platform.python_version()}, OpenCV {cv2.__version__}, ONNX Runtime {onnxruntime.__version__}.",
        "",
        "Taken: the input was read, and the result makes sense. Refused: an error of ours on one line. The others are "
        "faults: any other exception, a process that ended, an input that took more than "
        f"{MOST_CPU_S:.0f} s of processor time or stood still for a minute, and an input that needed more than "
        f"{MOST_GB:g} GB of memory.",
        "",
        f"| inputs | {' | '.join(OUTCOMES)} |",
        "|---" * (len(OUTCOMES) + 1) + "|",
    ]
    for kind, count in {**counts, "all": total}.items():
        lines.append(f"| {count.total()} {kind} | {' | '.join(str(count[outcome]) for outcome in OUTCOMES)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

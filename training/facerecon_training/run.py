"""The run folder of a training: its checkpoint, its log and its curves. Both trainings use it."""

from __future__ import annotations

import hashlib
import json
import math
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

import torch
from facerecon_rt.environment import installed_version
from facerecon_rt.errors import FaceReconError, UsageError
from facerecon_rt.interrupts import importing
from facerecon_rt.sinks.outputs import whole, write_whole
from torch import Tensor

from .checkpoint import fitting, load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LOG_EVERY = 50
"""Interval of the log's entries in steps."""
LONGEST_GRADIENT = 5.0
PLACES = ("init", "prepared", "distil")
"""Settings that name files and folders."""
CHANGEABLE = (
    "run", "data", "pictures", "steps", "learning_rate", "device", "threads", "bfloat16", "checkpoint_minutes",
    "evaluate_minutes",
)  # fmt: skip
"""Settings that may change when a run resumes."""


def use_processor(threads: int) -> None:
    """Set PyTorch's threads, and let numbers too small for normal arithmetic count as 0.

    The momentum of weights without gradient decays to such numbers within 2000 steps. A Xeon then took 40 % of a step
    for `optimizer.Muon`, instead of 16 %.
    """
    torch.set_flush_denormal(True)  # before the threads begin, which take the setting over
    torch.set_num_threads(threads)


def check_config(folder: Path, config: DataclassInstance) -> None:
    """Check that a run resumes with the settings that it began with. Raises UsageError.

    Otherwise its weights would come from both, and might carry terms of use that their data do not allow.
    """
    if not (folder / "checkpoint.pt").is_file():
        return
    try:
        before = dict(json.loads((folder / "config.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"{folder} has a checkpoint, but its config.json cannot be read, so nobody knows what it learned from; "
            "give another --run"
        ) from error
    for name, then, now in differences(before, _values(config)):
        if name not in CHANGEABLE:
            raise UsageError(
                f"{folder} was begun with {name} = {then}, not {now}; to resume it, give the options that it began "
                "with, in the same release; for a new run, give another --run"
            )


def write_config(folder: Path, config: DataclassInstance) -> None:
    """Write config.json: the settings of a run, and under "code" every state of the code that has trained it, in order.

    Two runs are only comparable if both agree.
    """
    path = folder / "config.json"
    try:
        states = list(json.loads(path.read_text()).get("code", []))
    except (OSError, ValueError):  # a new run
        states = []
    state = code_state()
    if state not in states[-1:]:
        states.append(state)
    write_whole(path, (json.dumps({"code": states, **_values(config)}, indent=1) + "\n").encode())


def _values(config: DataclassInstance) -> dict[str, Any]:
    """Return the settings as values of JSON, with absolute paths."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(config), default=lambda path: str(Path(path).resolve())))
    return values


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, former and present value of each setting that differs. Settings that one of them lacks are equal."""
    for name in (name for name in now if name in before):
        then, value = before[name], now[name]
        if isinstance(then, dict) and isinstance(value, dict):
            yield from ((f"{name}.{inner}", *values) for inner, *values in differences(then, value))
        elif then != value and not (name in PLACES and _resolved(then) == _resolved(value)):
            yield name, then, value


def _resolved(places: Any) -> list[Path]:
    """Return one path or several, or none for None, as absolute paths."""
    return [Path(place).resolve() for place in (places if isinstance(places, list) else [places]) if place is not None]


def code_state(folder: Path = Path(__file__).parent) -> str:
    """Return the git commit of the checkout of `folder`. If Python files differ from it or are new, a hash of them is
    added.

    Outside of a checkout, it is the installed version of facerecon-rt.
    """
    try:
        tracked = _git(folder, "ls-files", "--", ".")
        commit = _git(folder, "rev-parse", "HEAD")
        edited = _git(folder, "diff", "HEAD", "--", ":/*.py")
        added = _git(folder, "ls-files", "-z", "--others", "--exclude-standard", "--", ":/*.py").split("\0")
        contents = [name.encode() + (folder / name).read_bytes() for name in added if name]
    except (OSError, subprocess.CalledProcessError):
        tracked = ""
    if not tracked:  # site-packages may lie within somebody else's checkout
        return f"facerecon-rt {installed_version('facerecon-rt')}"
    changes = edited.encode() + b"".join(contents)
    return f"{commit} and changes {hashlib.sha256(changes).hexdigest()[:8]}" if changes else commit


def _git(folder: Path, *command: str) -> str:
    done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


class Interrupt:
    """Context manager that delays Ctrl-C to the end of a step, so that whole steps are saved. A second Ctrl-C stops at
    once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Interrupt:
        # Python allows signal handlers only in the main thread, and other threads need none.
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


class Steps(Protocol):
    """An optimizer."""

    def zero_grad(self) -> object:
        """Forget the gradient."""

    def step(self) -> object:
        """Change the weights."""


def take_step(optimizer: Steps, network: torch.nn.Module, loss: Tensor, step: int) -> None:
    """Take one gradient step with the gradient cut to LONGEST_GRADIENT.

    Raises FaceReconError, before any weight changes, if the loss or the gradient is not finite.
    """
    optimizer.zero_grad()
    loss.backward()
    length = torch.nn.utils.clip_grad_norm_(network.parameters(), LONGEST_GRADIENT)
    if not (torch.isfinite(loss) and torch.isfinite(length)):
        raise FaceReconError(
            f"the training diverged: at step {step}, the loss is {loss.item():.3g} and the gradient's length "
            f"{length.item():.3g}; resume with a lower --learning-rate, or give it to another --run if this one "
            "diverges again"
        )
    optimizer.step()


class Stateful(Protocol):
    """A network or an optimizer."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors, numbers, strings, dicts and lists."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> object:
        """Take over a state."""


class Run:
    """A run that resumes from its last checkpoint, with the log of its losses and of its held-out figures."""

    def __init__(self, folder: Path) -> None:
        self.checkpoint_path = folder / "checkpoint.pt"
        self.begun = self.checkpoint_path.is_file()
        """Whether there is a checkpoint to resume from."""
        self.step = 0
        self.log: list[dict[str, float]] = []
        self.running: dict[str, float] = {}
        """Moving averages of the loss and its terms."""
        self._parts: Mapping[str, Stateful] = {}

    def resume(self, parts: Mapping[str, Stateful]) -> bool:
        """Name the parts of the checkpoint, and load them if there is a checkpoint. Returns whether there is.

        Raises UsageError for a checkpoint of another network, and ModelRefused for a file that is not one.
        """
        self._parts = parts
        if not self.begun:
            return False
        saved = load_checkpoint(self.checkpoint_path)
        with fitting(self.checkpoint_path):
            for name, part in parts.items():
                part.load_state_dict(saved[name])
            # Checkpoints of the detector had no log before release 0.2.
            self.step, self.log, self.running = (
                int(saved["step"]),
                list(saved.get("log", [])),
                dict(saved.get("running", {})),
            )
        return True

    def count(self, terms: Mapping[str, Tensor]) -> None:
        """Count a step and record its loss and terms."""
        self.step += 1
        values = torch.stack([term.detach().float() for term in terms.values()]).tolist()  # waits for a GPU once
        for name, value in zip(terms, values, strict=True):
            self.running[name] = 0.98 * self.running.get(name, value) + 0.02 * value
        if self.step % LOG_EVERY == 0:
            self.log.append({"step": self.step, **self.running})

    def note(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Write held-out figures into the log, in place of earlier ones of the same step, and return the entry."""
        if self.log and self.log[-1]["step"] == self.step and "loss" not in self.log[-1]:
            self.log.pop()
        self.log.append({"step": self.step, **figures})
        return self.log[-1]

    def save(self) -> None:
        """Write checkpoint and curves, each completely or not at all."""
        kept = {name: part.state_dict() for name, part in self._parts.items()}
        save_checkpoint(self.checkpoint_path, {**kept, "step": self.step, "log": self.log, "running": self.running})
        draw_curves(self.log, self.checkpoint_path.with_name("curves.png"))


def draw_curves(log: list[dict[str, float]], path: Path) -> None:
    """Draw loss terms and development figures over steps, as a PNG."""
    with importing():
        import matplotlib
        from matplotlib import pyplot

    matplotlib.use("Agg")

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5))
    for axis, entries, title in (
        (left, [entry for entry in log if "loss" in entry], "loss terms (weighted)"),
        (right, [entry for entry in log if "loss" not in entry], "held-out figures"),
    ):
        names = [name for name in (entries[-1] if entries else {}) if name not in ("step", "count")]
        for name in names:
            axis.plot([e["step"] for e in entries], [e.get(name, math.nan) for e in entries], label=name)
        axis.set_xlabel("step")
        axis.set_yscale("symlog", linthresh=1e-3)  # recall and false detections may be 0
        axis.set_title(title)
        if names:
            axis.legend(fontsize=7)
    figure.tight_layout()
    with whole(path) as partial:
        figure.savefig(partial, dpi=110)
    pyplot.close(figure)

"""The run folder: a run goes on from its checkpoint, and says what is wrong with another."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from facerecon_rt.errors import ModelRefused, UsageError
from facerecon_training import run as run_module
from facerecon_training.checkpoint import load_checkpoint, save_checkpoint
from facerecon_training.run import LOG_EVERY, Run, Stateful, check_config, code_state, use_processor, write_config


def network(width: int = 2) -> tuple[torch.nn.Linear, dict[str, Stateful]]:
    net = torch.nn.Linear(width, width)
    return net, {"net": net, "optimizer": torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)}


def test_a_run_goes_on_with_weights_step_log_and_averages(tmp_path: Path) -> None:
    net, parts = network()
    run = Run(tmp_path)
    assert not run.begun
    assert not run.resume(parts)
    for step in range(LOG_EVERY):
        run.count({"loss": torch.tensor(1.0 if step == 0 else 2.0)})
    run.note({"recall": 0.5})
    run.save()
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    other, others = network()
    resumed = Run(tmp_path)
    assert resumed.begun
    assert resumed.resume(others)
    torch.testing.assert_close(other.weight, net.weight)
    # A moving average that begins with 1 and forgets 2 % a step: 2 - 0.98^49.
    assert resumed.running["loss"] == pytest.approx(2 - 0.98**49, rel=1e-5)
    assert resumed.log == [{"step": LOG_EVERY, **resumed.running}, {"step": LOG_EVERY, "recall": 0.5}]
    assert resumed.step == LOG_EVERY


def test_a_checkpoint_of_a_detector_of_release_0_1_is_gone_on_from(tmp_path: Path) -> None:
    net, parts = network()
    save_checkpoint(tmp_path / "checkpoint.pt", {**{n: p.state_dict() for n, p in parts.items()}, "step": 7})
    other, others = network()
    run = Run(tmp_path)
    run.resume(others)
    torch.testing.assert_close(other.weight, net.weight)
    assert (run.step, run.log, run.running) == (7, [], {})
    run.save()
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 7


def test_checkpoints_of_other_networks_and_other_files_are_refused(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.resume(network()[1])
    run.save()
    with pytest.raises(UsageError, match=r"checkpoint\.pt belongs to another network"):
        Run(tmp_path).resume(network(3)[1])
    (tmp_path / "checkpoint.pt").write_text("step 3")
    with pytest.raises(ModelRefused, match="is not a readable checkpoint"):
        Run(tmp_path).resume(network()[1])


@dataclass(frozen=True)
class Settings:
    run: Path
    seed: int = 3


def git(folder: Path, *command: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *identity, *command], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_code_of_a_run_is_a_commit_edited_or_not(tmp_path: Path) -> None:
    code = tmp_path / "training"
    code.mkdir()
    (code / "losses.py").write_text("a = 1\n")
    git(tmp_path, "init", "--quiet")
    # Packages that are installed within somebody else's checkout are not that checkout's code.
    assert code_state(code).startswith("facerecon-rt")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert code_state(code) == commit
    (code / "notes.txt").write_text("not part of the code\n")
    assert code_state(code) == commit
    states = {commit}
    for text in ("a = 2\n", "a = 3\n"):
        (code / "losses.py").write_text(text)
        states.add(code_state(code))
    (code / "new.py").write_text("b = 1\n")
    states.add(code_state(code))
    (code / "my test.py").write_text("c = 1\n")
    states.add(code_state(code))
    assert len(states) == 5 and all(state.startswith(commit) for state in states)


def test_the_configuration_keeps_all_code_that_trained_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    for state in ("one", "one", "two"):
        monkeypatch.setattr(run_module, "code_state", lambda state=state: state)
        write_config(tmp_path, Settings(tmp_path))
    assert json.loads(path.read_text()) == {"code": ["one", "two"], "run": str(tmp_path), "seed": 3}


@dataclass(frozen=True)
class Nested:
    run: Path
    init: Path | None = None
    pictures: int = 100
    distil: tuple[Path, ...] = ()
    loss: Settings = Settings(Path("a"))


def test_a_run_is_not_resumed_with_other_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that began elsewhere would get the terms of these settings."""
    monkeypatch.chdir(tmp_path)
    begun = Nested(tmp_path, tmp_path / "face.safetensors", distil=(tmp_path / "a",))
    check_config(tmp_path, begun)
    write_config(tmp_path, begun)
    check_config(tmp_path, replace(begun, init=None))  # nothing was trained yet
    (tmp_path / "checkpoint.pt").touch()
    for other, name in (
        (replace(begun, init=None), "init"),
        (replace(begun, distil=()), "distil"),
        (replace(begun, loss=Settings(Path("a"), seed=4)), r"loss\.seed = 3, not 4"),
    ):
        with pytest.raises(UsageError, match=rf"was begun with {name}.*give another --run"):
            check_config(tmp_path, other)
    # More pictures, another place and another way to write a path are the same run.
    check_config(tmp_path, replace(begun, run=Path(), pictures=200, init=Path("face.safetensors"), distil=(Path("a"),)))
    # Settings of a later release are no difference.
    values = json.loads((tmp_path / "config.json").read_text())
    del values["loss"]["seed"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    check_config(tmp_path, begun)
    (tmp_path / "config.json").write_text(json.dumps(values)[:20])
    with pytest.raises(UsageError, match="nobody knows what it learned from"):
        check_config(tmp_path, begun)


def test_numbers_too_small_for_normal_arithmetic_count_as_0() -> None:
    try:
        use_processor(torch.get_num_threads())
        assert torch.tensor([1e-30]).mul(1e-10).tolist() == [0.0]
    finally:
        torch.set_flush_denormal(False)
    assert torch.tensor([1e-30]).mul(1e-10).item() > 0

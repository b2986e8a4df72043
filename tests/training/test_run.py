"""The run folder: a run goes on from its checkpoint, and says what is wrong with another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from facerecon_rt.errors import ModelRefused, UsageError
from facerecon_training.checkpoint import load_checkpoint, save_checkpoint
from facerecon_training.run import LOG_EVERY, Run, Stateful


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

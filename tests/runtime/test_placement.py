"""The session's own profile tells where its nodes ran."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnxruntime
from facerecon_rt.providers.placement import CPU, left_on_the_cpu, placement, taking_notes


def test_the_notes_name_every_operator_and_where_it_ran(tiny_model: Path) -> None:
    options = onnxruntime.SessionOptions()
    with taking_notes(options):
        session = onnxruntime.InferenceSession(str(tiny_model), options, providers=[CPU])
        found = placement(onnxruntime, session, {"image": ((1, 64, 64, 3),) * 3})
    assert list(found) == [CPU]
    assert found[CPU]["MatMul"] > 0
    assert not list(Path(options.profile_file_prefix).parent.glob("*"))


def test_shapes_may_be_computed_on_the_cpu_and_faces_may_not() -> None:
    assert not left_on_the_cpu({CPU: Counter(Shape=2, Concat=1), "CUDAExecutionProvider": Counter(Conv=9)})
    assert left_on_the_cpu({CPU: Counter(Shape=2, QLinearConv=3)}) == Counter(QLinearConv=3)

"""A session that takes notes -> which provider really computed which operators."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .batches import Shapes

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Placement = Mapping[str, Counter[str]]
"""ONNX Runtime's name of a provider -> operator -> how many nodes."""
UNKNOWN_SIDE = 64
"""Of inputs of any size."""
HOST_OPERATORS = frozenset(
    (
        *("Shape", "Size", "Constant", "ConstantOfShape", "Range", "Identity", "Cast", "Where", "Equal"),
        *("Gather", "Slice", "Concat", "Squeeze", "Unsqueeze", "Reshape", "Expand"),
        *("Add", "Sub", "Mul", "Div", "MemcpyFromHost", "MemcpyToHost"),
    )
)
"""What ONNX Runtime computes on the host on purpose: the shapes of tensors, a few integers each."""
CPU = "CPUExecutionProvider"


@contextmanager
def taking_notes(options: Any) -> Iterator[None]:
    """The session that is made of these options in the block notes where its nodes run, until `placement` reads it."""
    # ONNX Runtime's profiler, which all its releases have. Its file lies in a folder that only we may enter.
    with tempfile.TemporaryDirectory(prefix="facerecon-rt-") as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "nodes")
        yield


def placement(ort: Any, session: InferenceSession, profile: Mapping[str, Shapes]) -> Placement:
    """Run the session once on blank inputs, the smallest of the profile, and read its notes."""
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", "-1")  # no graph is captured of this run
    session.run(None, blank_inputs(session, profile), options)
    events = json.loads(Path(session.end_profiling()).read_text())
    nodes = {
        (event["name"], event["args"]["provider"], event["args"]["op_name"])
        for event in events
        if event.get("cat") == "Node" and "provider" in event.get("args", {})
    }
    found: dict[str, Counter[str]] = {}
    for _, provider, operator in nodes:
        found.setdefault(provider, Counter())[operator] += 1
    return found


def left_on_the_cpu(found: Placement) -> Counter[str]:
    """Operators that the CPU computes in place of the provider asked for."""
    return Counter({name: count for name, count in found.get(CPU, {}).items() if name not in HOST_OPERATORS})


def blank_inputs(session: InferenceSession, profile: Mapping[str, Shapes]) -> dict[str, np.ndarray[Any, Any]]:
    """Zeros for every input."""
    dtypes = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(float16)": np.float16}
    blank = {}
    for value in session.get_inputs():
        shape = profile[value.name][0] if value.name in profile else value.shape
        sides = [side if isinstance(side, int) else UNKNOWN_SIDE for side in shape]
        blank[value.name] = np.zeros(sides, dtypes[value.type])
    return blank

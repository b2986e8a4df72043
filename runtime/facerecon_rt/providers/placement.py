"""A session that records its nodes -> which provider really computed which operators."""

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
"""Number of nodes for each ONNX Runtime provider name and operator."""
UNKNOWN_SIDE = 64
"""Side length used for inputs with dynamic dimensions."""
HOST_OPERATORS = frozenset(
    (
        *("Shape", "Size", "Constant", "ConstantOfShape", "Range", "Identity", "Cast", "Where", "Equal"),
        *("Gather", "Slice", "Concat", "Squeeze", "Unsqueeze", "Reshape", "Expand"),
        *("Add", "Sub", "Mul", "Div", "MemcpyFromHost", "MemcpyToHost"),
    )
)
"""Operators that ONNX Runtime computes on the host on purpose: shapes of tensors, a few integers each."""
CPU = "CPUExecutionProvider"


@contextmanager
def taking_notes(options: Any) -> Iterator[None]:
    """Make a session that is created with these options in the block record where its nodes run, until `placement`."""
    # All releases of ONNX Runtime have this profiler. Its file lies in a folder that only this user may enter.
    with tempfile.TemporaryDirectory(prefix="facerecon-rt-") as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "nodes")
        yield


def placement(ort: Any, session: InferenceSession, profile: Mapping[str, Shapes]) -> Placement:
    """Run the session once on blank inputs, with the smallest shapes of the profile, and read its recorded nodes."""
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", "-1")  # this run must not capture a graph
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
    """Return the operators that the CPU computes instead of the requested provider."""
    return Counter({name: count for name, count in found.get(CPU, {}).items() if name not in HOST_OPERATORS})


def blank_inputs(session: InferenceSession, profile: Mapping[str, Shapes]) -> dict[str, np.ndarray[Any, Any]]:
    """Return zeros for every input."""
    dtypes = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(float16)": np.float16}
    blank = {}
    for value in session.get_inputs():
        shape = profile[value.name][0] if value.name in profile else value.shape
        sides = [side if isinstance(side, int) else UNKNOWN_SIDE for side in shape]
        blank[value.name] = np.zeros(sides, dtypes[value.type])
    return blank
